/* count_names.c - readdir(). */
#include "count_names.h"

#include <dirent.h>

#include "check.h"

unsigned count_names(const char *directory)
{
    DIR *stream = opendir(directory);
    unsigned count = 0;

    CHECK(stream != NULL);
    while (readdir(stream) != NULL) {
        count++;
    }
    closedir(stream);
    return count - 2;
}
