/* count_names.h - what a directory holds. */
#ifndef COUNT_NAMES_H
#define COUNT_NAMES_H

/* The number of names in the directory, without "." and "..". */
unsigned count_names(const char *directory);

#endif
