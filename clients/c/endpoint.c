/*
 * endpoint.c - where the daemon is, and whose. As endpoint.py of the Python client, with its sentences.
 *
 * An endpoint that the user names is the user's choice. One that we find ourselves may be a trap: anybody can make
 * /tmp/aiod-UID before its user does. So nothing is said to what listens there unless nobody else can have put it there: by
 * the owner and mode of its directory, and by the uid of the process that listens (SO_PEERCRED).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"

#ifndef SYSTEM_DIR
#define SYSTEM_DIR "/run/aiod"
#endif
#define BY_OTHERS (S_IWGRP | S_IWOTH)
#define NOT_USED "not used; if it is your daemon's all the same, set AIOD_ENDPOINT"

/* Can nobody but root have made it? */
static bool is_made_by_root(const char *directory)
{
    char parent[AIOD_DIRECTORY_BYTES];
    struct stat status;
    char *slash;

    snprintf(parent, sizeof(parent), "%s", directory);
    slash = strrchr(parent, '/');
    if (slash == NULL) {
        return false;
    }
    slash[slash == parent ? 1 : 0] = '\0';
    return stat(parent, &status) == 0 && status.st_uid == 0 && (status.st_mode & BY_OTHERS) == 0;
}

/* *owner: of it. -EACCES: others than root and this user can have put sockets there. */
static int check_directory(const char *directory, uid_t *owner)
{
    struct stat status;

    if (lstat(directory, &status) < 0) {
        return aiod_fail(-errno, "no aiod at %s (%s): start aiod, or set AIOD_ENDPOINT", directory, strerror(errno));
    }
    *owner = status.st_uid;
    if (!S_ISDIR(status.st_mode)) {
        return aiod_fail(-EACCES, "%s is no directory (symbolic links are not followed here): " NOT_USED, directory);
    }
    if ((status.st_mode & BY_OTHERS) != 0) {
        return aiod_fail(-EACCES, "%s may be written to by others (mode %04o): " NOT_USED, directory,
                         status.st_mode & 07777u);
    }
    if (status.st_uid != getuid() && status.st_uid != 0 && !is_made_by_root(directory)) {
        return aiod_fail(-EACCES, "%s belongs to uid %u, and others than root can have made it: " NOT_USED, directory,
                         status.st_uid);
    }
    return 0;
}

int aiod_check_server(int socket, const char *path, const char *directory)
{
    struct ucred who = {0};
    socklen_t size = sizeof(who);
    uid_t owner;
    int error = check_directory(directory, &owner);

    if (error < 0) {
        return error;
    }
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0) {
        return aiod_fail(-errno, "%s: who serves it cannot be told: %s", path, strerror(errno));
    }
    if (who.uid != getuid() && who.uid != 0 && who.uid != owner) {
        return aiod_fail(-EACCES,
                         "%s is served by uid %u, who is neither you, nor root, nor the owner of %s: " NOT_USED, path,
                         who.uid, directory);
    }
    return 0;
}

/* Is there a socket of a daemon's, or may this user not know? What refuses a stranger is the better answer then. */
static bool may_exist(const char *directory)
{
    char path[AIOD_DIRECTORY_BYTES + sizeof("/aiod.sock")];
    struct stat status;

    snprintf(path, sizeof(path), "%s/aiod.sock", directory);
    return lstat(path, &status) == 0 || errno == EACCES;
}

static void own_directory(char *directory)
{
    const char *xdg = getenv("XDG_RUNTIME_DIR");

    if (xdg != NULL && xdg[0] != '\0') {
        snprintf(directory, AIOD_DIRECTORY_BYTES, "%s/aiod", xdg);
    } else if (getuid() == 0) {
        snprintf(directory, AIOD_DIRECTORY_BYTES, SYSTEM_DIR);
    } else {
        snprintf(directory, AIOD_DIRECTORY_BYTES, "/tmp/aiod-%u", getuid());
    }
}

/* 1: this one; 0: there is none; -EACCES: there may be, but it is not to be used. */
static int look_at(const char *directory)
{
    uid_t owner;
    int error = may_exist(directory) ? check_directory(directory, &owner) : 0;

    return error < 0 ? error : may_exist(directory);
}

/* This user's daemon, else the system's; a directory that others could have made, or may write to, is passed over. */
static int default_directory(char *directory)
{
    char said[AIOD_RING_SENTENCE_MAX];
    int own, system;

    own_directory(directory);
    own = look_at(directory);
    if (own > 0) {
        return 0;
    }
    snprintf(said, sizeof(said), "%s", aiod_error());
    system = look_at(SYSTEM_DIR);
    if (system > 0) {
        snprintf(directory, AIOD_DIRECTORY_BYTES, SYSTEM_DIR);
        return 0;
    }
    return own < 0 ? aiod_fail(own, "%s", said) : system;
}

static int named_directory(char *directory, const char *endpoint)
{
    char *slash;

    if (strncmp(endpoint, "ipc://", 6) != 0) {
        return aiod_fail(-EINVAL, "endpoint %s: a ring needs a daemon on this host; write ipc:///path/of/socket",
                         endpoint);
    }
    snprintf(directory, AIOD_DIRECTORY_BYTES, "%s", endpoint + 6);
    slash = strrchr(directory, '/');
    if (slash == NULL) {
        return aiod_fail(-EINVAL, "endpoint %s: write ipc:///path/of/socket", endpoint);
    }
    *slash = '\0';
    return 0;
}

int aiod_find_directory(char *directory, const char *endpoint, bool *named)
{
    if (endpoint == NULL) {
        endpoint = getenv("AIOD_ENDPOINT");
    }
    *named = endpoint != NULL && endpoint[0] != '\0';
    return *named ? named_directory(directory, endpoint) : default_directory(directory);
}
