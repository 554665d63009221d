/*
 * error.h - the last error of the calling thread: its message (aiod_error()) and its reason (aiod_reason()).
 */
#ifndef LIBAIOD_ERROR_H
#define LIBAIOD_ERROR_H

#include <stdint.h>

/* Keep a message, formatted as printf() does, without a reason. Returns `error`, a negative errno. */
int aiod_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with a reason: enum aiod_ring_reason. */
int aiod_fail_because(uint32_t reason, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
