/* utf8.h - which bytes are text. */
#ifndef AIOD_UTF8_H
#define AIOD_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Are the bytes well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms) without zero bytes? */
bool aiod_utf8_valid(const char *bytes, size_t length);

#endif
