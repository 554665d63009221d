/*
 * endpoint.c - find the daemon's directory and check its owner. The rules and the messages are those of the Python
 * client's endpoint.py.
 *
 * An endpoint that the user names is the user's choice. A default one may be a trap: anybody can make /tmp/aiod-UID
 * before its user does. So libaiod sends nothing to a server in a default directory unless no other user can have
 * put it there, judged by the owner and the mode of the directory and by the uid of the listening process
 * (SO_PEERCRED).
 */
#include "endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "aiod.h"
#include "error.h"

#ifndef SYSTEM_DIR
#define SYSTEM_DIR "/run/aiod"
#endif
#define BY_OTHERS (S_IWGRP | S_IWOTH)
#define NOT_USED "not used; set AIOD_ENDPOINT if this is your daemon nevertheless"

/* Can only root have made it? */
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

/* -EACCES: a user other than root and this one can have put sockets there. *owner: the owner of the directory. */
static int check_directory(const char *directory, uid_t *owner)
{
    struct stat status;

    if (lstat(directory, &status) < 0) {
        return aiod_fail(-errno, "no aiod at %s (%s): start aiod, or set AIOD_ENDPOINT", directory, strerror(errno));
    }
    *owner = status.st_uid;
    if (!S_ISDIR(status.st_mode)) {
        return aiod_fail(-EACCES, "%s is not a directory (symbolic links are not followed here): " NOT_USED, directory);
    }
    if ((status.st_mode & BY_OTHERS) != 0) {
        return aiod_fail(-EACCES, "%s is writable for other users (mode %04o): " NOT_USED, directory,
                         status.st_mode & 07777u);
    }
    if (status.st_uid != getuid() && status.st_uid != 0 && !is_made_by_root(directory)) {
        return aiod_fail(-EACCES, "%s belongs to uid %u, and users other than root can have created it: " NOT_USED,
                         directory, status.st_uid);
    }
    return 0;
}

int aiod_check_server(int socket, const char *path, const char *directory)
{
    struct ucred server = {0};
    socklen_t size = sizeof(server);
    uid_t owner;
    int error = check_directory(directory, &owner);

    if (error < 0) {
        return error;
    }
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &server, &size) < 0) {
        return aiod_fail(-errno, "cannot determine the server of %s: %s", path, strerror(errno));
    }
    if (server.uid != getuid() && server.uid != 0 && server.uid != owner) {
        return aiod_fail(-EACCES,
                         "%s is served by uid %u, which is neither you, nor root, nor the owner of %s: " NOT_USED, path,
                         server.uid, directory);
    }
    return 0;
}

/*
 * Is there a daemon's socket? True, too, if this user may not look: connecting fails then, with a better message than
 * "no daemon".
 */
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

/* 1: a daemon may be there; 0: there is none; -EACCES: there may be one, but it cannot be trusted. */
static int check_candidate(const char *directory)
{
    uid_t owner;
    int error = may_exist(directory) ? check_directory(directory, &owner) : 0;

    return error < 0 ? error : may_exist(directory);
}

/* This user's daemon, else the system's. A directory that other users could have made, or may write to, is skipped. */
static int default_directory(char *directory)
{
    char own_error[AIOD_RING_ERROR_MESSAGE_MAX];
    int own, system;

    own_directory(directory);
    own = check_candidate(directory);
    if (own > 0) {
        return 0;
    }
    snprintf(own_error, sizeof(own_error), "%s", aiod_error());
    system = check_candidate(SYSTEM_DIR);
    if (system > 0) {
        snprintf(directory, AIOD_DIRECTORY_BYTES, SYSTEM_DIR);
        return 0;
    }
    return own < 0 ? aiod_fail(own, "%s", own_error) : system;
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
