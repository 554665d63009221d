/*
 * endpoint.h - where the daemon's sockets are, and whether they can be trusted (endpoint.c).
 */
#ifndef LIBAIOD_ENDPOINT_H
#define LIBAIOD_ENDPOINT_H

#include <stdbool.h>

#define AIOD_DIRECTORY_BYTES 4096u

/*
 * Find the directory of the daemon's sockets: that of `endpoint`, or of AIOD_ENDPOINT if `endpoint` is NULL, else
 * the first default directory that has a daemon. *named: the user named it. 0, or -errno with its message.
 */
int aiod_find_directory(char *directory, const char *endpoint, bool *named);

/*
 * 0: the server of `path`, to which `socket` is connected, can be trusted; -EACCES: another user may have put it
 * there.
 */
int aiod_check_server(int socket, const char *path, const char *directory);

#endif
