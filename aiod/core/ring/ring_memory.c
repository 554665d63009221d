/* ring_memory.c - allocates, seals, maps and guards the memory of a ring. */
#include "ring/ring_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/os.h"

#define PAGE_BYTES UINT64_C(4096)
#define AREA_BYTES_MAX (UINT64_C(1) << 40)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u
#endif

static uint64_t round_up(uint64_t bytes, uint64_t multiple)
{
    return (bytes + multiple - 1) / multiple * multiple;
}

/* Compute the offsets of the parts. */
static void lay_out(struct aiod_ring_header *header, uint32_t entries, uint64_t area_bytes)
{
    header->magic = AIOD_RING_MAGIC;
    header->version = AIOD_RING_VERSION;
    header->entries = entries;
    header->sq_offset = PAGE_BYTES;
    header->cq_offset = header->sq_offset + entries * sizeof(struct aiod_ring_sqe);
    header->area_offset = round_up(header->cq_offset + entries * sizeof(struct aiod_ring_cqe), PAGE_BYTES);
    header->area_bytes = round_up(area_bytes, PAGE_BYTES);
    header->memory_bytes = header->area_offset + header->area_bytes;
}

uint64_t aiod_ring_memory_bytes(uint32_t entries, uint64_t area_bytes)
{
    struct aiod_ring_header header;

    if (entries < AIOD_RING_ENTRIES_MIN || entries > AIOD_RING_ENTRIES_MAX || (entries & (entries - 1)) != 0 ||
        area_bytes > AREA_BYTES_MAX) {
        return 0;
    }
    lay_out(&header, entries, area_bytes);
    return header.memory_bytes;
}

/*
 * Seal the size: the client can neither shrink the file, which would make accesses fault, nor grow it beyond its
 * allocation. Holes that a client punches are handled by memory_guard.h.
 */
static int seal(int fd)
{
    return aiod_os->add_seals(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ? -errno : 0;
}

static int make_file(uint64_t bytes)
{
    int fd = memfd_create("aiod-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    int error;

    if (fd < 0 && errno == EINVAL) { /* before Linux 6.3 */
        fd = memfd_create("aiod-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    if (fd < 0) {
        return -errno;
    }
    /* Allocate all pages now: a shortage is reported here, instead of by a signal later. */
    error = aiod_os->fallocate(fd, 0, 0, (off_t)bytes) < 0 ? -errno : seal(fd);
    if (error < 0) {
        close(fd);
        return error;
    }
    return fd;
}

int aiod_ring_memory_create(struct aiod_ring_memory *memory, uint32_t entries, uint64_t area_bytes)
{
    uint64_t bytes = aiod_ring_memory_bytes(entries, area_bytes);
    int fd = make_file(bytes);
    char *base;
    int error;

    if (fd < 0) {
        return fd;
    }
    base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    error = base == MAP_FAILED ? -errno : aiod_memory_guard_start(&memory->guard, base, bytes);
    if (error < 0) {
        if (base != MAP_FAILED) {
            munmap(base, bytes);
        }
        close(fd);
        return error;
    }
    memory->fd = fd;
    memory->header = (struct aiod_ring_header *)(void *)base;
    lay_out(memory->header, entries, area_bytes);
    memory->withdrawal = (struct aiod_ring_withdrawal *)(void *)(memory->header + 1);
    memory->withdrawal->shown = 1;
    memory->sqes = (struct aiod_ring_sqe *)(void *)(base + memory->header->sq_offset);
    memory->cqes = (struct aiod_ring_cqe *)(void *)(base + memory->header->cq_offset);
    memory->area = base + memory->header->area_offset;
    memory->entries = entries;
    memory->area_bytes = memory->header->area_bytes;
    memory->bytes = bytes;
    return 0;
}

void aiod_ring_memory_destroy(struct aiod_ring_memory *memory)
{
    aiod_memory_guard_stop(&memory->guard);
    aiod_os->munmap(memory->header, memory->bytes);
    close(memory->fd);
}
