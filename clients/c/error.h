/*
 * error.h - the error message of the calling thread, which aiod_error() returns.
 */
#ifndef LIBAIOD_ERROR_H
#define LIBAIOD_ERROR_H

/* Keep a message, formatted as printf() does. Returns `error`, a negative errno. */
int aiod_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
