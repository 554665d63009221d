/* kept_root.c - one descriptor for each thread that keeps any. */
#include "path/kept_root.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "path/confined.h"

#define ROOT_BYTES_MAX 256u /* a longer one is not kept */
#define USES_MAX 32u /* so many requests see the same root; a directory that takes its place is seen afterwards */

static _Thread_local struct {
    bool keeps;
    bool held;
    int fd;
    unsigned uses;
    char root[ROOT_BYTES_MAX];
} kept;

void aiod_kept_root_set_keeping(bool keeping)
{
    kept.keeps = keeping;
    if (!keeping) {
        aiod_kept_root_drop();
    }
}

void aiod_kept_root_drop(void)
{
    if (kept.held) {
        close(kept.fd);
        kept.held = false;
    }
}

bool aiod_kept_root_held(void)
{
    return kept.held;
}

int aiod_kept_root_get(const char *root)
{
    size_t root_bytes = strlen(root) + 1;
    int fd;

    if (kept.held && kept.uses < USES_MAX && strcmp(kept.root, root) == 0) {
        kept.uses++;
        return kept.fd;
    }
    aiod_kept_root_drop();
    fd = aiod_open_cached_root(root);
    if (fd < 0) {
        return -EAGAIN;
    }
    if (kept.keeps && root_bytes <= sizeof(kept.root)) {
        memcpy(kept.root, root, root_bytes);
        kept.fd = fd;
        kept.held = true;
        kept.uses = 1;
    }
    return fd;
}

void aiod_kept_root_put(int fd)
{
    if (!kept.held || fd != kept.fd) {
        close(fd);
    }
}
