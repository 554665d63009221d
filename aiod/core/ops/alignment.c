/* alignment.c - finds the alignment that O_DIRECT needs: by statx(), by the device, or by test reads. */
#include "ops/alignment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/buffers.h"
#include "util/os.h"

enum answer {
    UNKNOWN = 0,
    KNOWN = 1,
};

/* In ascending order: the first one that is not refused is the alignment. */
static const uint32_t tried[] = {1, 512, 1024, 2048, AIOD_BUFFER_ALIGNMENT};

static int ask_device(int fd, struct aiod_alignment *alignment)
{
    int sector = 0;

    if (aiod_os->ioctl(fd, BLKSSZGET, &sector) < 0) {
        return -errno;
    }
    alignment->offset = (uint32_t)sector;
    alignment->memory = alignment->offset < AIOD_BUFFER_ALIGNMENT ? alignment->offset : AIOD_BUFFER_ALIGNMENT;
    return KNOWN;
}

static int ask_kernel(int fd, struct aiod_alignment *alignment)
{
    struct statx status = {.stx_mask = 0};
    unsigned mask = STATX_TYPE;

#ifdef STATX_DIOALIGN /* needs the headers of Linux 6.1 */
    mask |= STATX_DIOALIGN;
#endif
    if (aiod_os->statx(fd, "", AT_EMPTY_PATH, mask, &status) < 0) {
        return -errno;
    }
#ifdef STATX_DIOALIGN
    if ((status.stx_mask & STATX_DIOALIGN) != 0) {
        *alignment = (struct aiod_alignment){status.stx_dio_mem_align, status.stx_dio_offset_align};
        return alignment->memory == 0 || alignment->offset == 0 ? -EINVAL : KNOWN; /* 0: O_DIRECT is not supported */
    }
#endif
    return S_ISBLK(status.stx_mode) ? ask_device(fd, alignment) : UNKNOWN;
}

static bool readable(int fd, char *data, size_t length, off_t offset)
{
    struct iovec part = {.iov_base = data, .iov_len = length};
    ssize_t got;

    do {
        got = aiod_os->preadv2(fd, &part, 1, offset, 0);
    } while (got < 0 && errno == EINTR);
    return got > 0; /* a read at the end of the file proves nothing: it succeeds with any alignment */
}

/* A read of a hole proves nothing either: some file systems check the alignment only where there is a block to read. */
static void try_reads(int fd, char *data, struct aiod_alignment *alignment)
{
    off_t start = aiod_os->lseek(fd, 0, SEEK_DATA);

    *alignment = (struct aiod_alignment){AIOD_BUFFER_ALIGNMENT, AIOD_BUFFER_ALIGNMENT};
    if (start < 0 && errno == ENXIO) {
        return;
    }
    start = start < 0 ? 0 : (off_t)aiod_align_down((uint64_t)start, AIOD_BUFFER_ALIGNMENT);
    for (size_t i = 0; tried[i] < alignment->offset; i++) {
        if (readable(fd, data, tried[i], start)) {
            alignment->offset = tried[i];
        }
    }
    for (size_t i = 0; tried[i] < alignment->memory; i++) {
        if (readable(fd, data + tried[i], AIOD_BUFFER_ALIGNMENT, start)) {
            alignment->memory = tried[i];
        }
    }
}

static bool usable(uint32_t alignment, uint32_t limit)
{
    return (alignment & (alignment - 1)) == 0 && alignment <= limit;
}

int aiod_alignment_find(int fd, struct aiod_alignment *alignment)
{
    int answer = ask_kernel(fd, alignment);

    if (answer == UNKNOWN) {
        size_t room = (size_t)2 * AIOD_BUFFER_ALIGNMENT;
        char *data = aligned_alloc(AIOD_BUFFER_ALIGNMENT, room);

        if (data == NULL) {
            return -ENOMEM;
        }
        try_reads(fd, data, alignment);
        free(data);
    } else if (answer < 0) {
        return answer;
    }
    return usable(alignment->memory, AIOD_BUFFER_ALIGNMENT) && usable(alignment->offset, AIOD_ALIGNMENT_MAX) ? 0
                                                                                                             : -EINVAL;
}
