/* blk.c - the virtio block device (blk.h). */
#include "vhost/blk.h"

#include <assert.h>
#include <linux/virtio_blk.h>
#include <string.h>

#include "util/iov.h"

#define SEGMENTS_MAX 126u /* with header and status 128 descriptors: a queue of the usual size */
#define RANGE_SECTORS_MAX ((uint32_t)(AIOD_RANGE_BYTES_MAX / AIOD_BLK_SECTOR_BYTES)) /* discard, write zeroes */

static_assert(sizeof(struct virtio_blk_config) >= AIOD_BLK_CONFIG_BYTES, "linux/virtio_blk.h");
static_assert(offsetof(struct virtio_blk_config, write_zeroes_may_unmap) < AIOD_BLK_CONFIG_BYTES, "virtio 1.2, 5.2.4");

/* ---- features and configuration ---------------------------------------------------------------------------------- */

static uint64_t bit(unsigned number)
{
    return UINT64_C(1) << number;
}

uint64_t aiod_blk_features(const struct aiod_blk *blk)
{
    uint64_t features = bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_BLK_SIZE) | bit(VIRTIO_BLK_F_TOPOLOGY) |
                        bit(VIRTIO_BLK_F_FLUSH) | bit(VIRTIO_BLK_F_MQ);

    return features |
           (blk->read_only ? bit(VIRTIO_BLK_F_RO) : bit(VIRTIO_BLK_F_DISCARD) | bit(VIRTIO_BLK_F_WRITE_ZEROES));
}

static unsigned exponent_of(uint32_t power)
{
    return (unsigned)__builtin_ctz(power);
}

void aiod_blk_config(const struct aiod_blk *blk, void *space, size_t offset, size_t bytes)
{
    const struct virtio_blk_config config = {
        .capacity = __atomic_load_n(&blk->sectors, __ATOMIC_RELAXED),
        .seg_max = SEGMENTS_MAX,
        .blk_size = blk->block_bytes,
        .physical_block_exp = (uint8_t)(exponent_of(blk->physical_bytes) - exponent_of(blk->block_bytes)),
        .min_io_size = (uint16_t)(blk->physical_bytes / blk->block_bytes),
        .num_queues = blk->queue_count,
        .max_discard_sectors = RANGE_SECTORS_MAX,
        .max_discard_seg = 1,
        .discard_sector_alignment = blk->physical_bytes / AIOD_BLK_SECTOR_BYTES,
        .max_write_zeroes_sectors = RANGE_SECTORS_MAX,
        .max_write_zeroes_seg = 1,
        .write_zeroes_may_unmap = 1,
    };
    size_t there = offset < AIOD_BLK_CONFIG_BYTES ? AIOD_BLK_CONFIG_BYTES - offset : 0;

    memset(space, 0, bytes);
    memcpy(space, (const char *)&config + offset, there < bytes ? there : bytes);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* Copy the first bytes that the device reads, and drop them. False: there are fewer. */
static bool take_header(struct aiod_chain *chain, void *header, size_t bytes)
{
    struct aiod_iov readable = {chain->parts, chain->readable};
    unsigned dropped;

    if (aiod_iov_bytes(&readable) < bytes) {
        return false;
    }
    aiod_iov_gather(&readable, header, bytes);
    dropped = (unsigned)(readable.entries - chain->parts);
    memmove(chain->parts, readable.entries, (chain->count - dropped) * sizeof(chain->parts[0]));
    chain->count -= dropped;
    chain->readable -= dropped;
    return true;
}

/* The last byte that the device writes, which is cut off. NULL: there is none. */
static char *take_status(struct aiod_chain *chain)
{
    struct iovec *last;

    if (chain->count == chain->readable) {
        return NULL;
    }
    last = &chain->parts[chain->count - 1];
    last->iov_len--;
    chain->count -= last->iov_len == 0;
    return (char *)last->iov_base + last->iov_len;
}

static void end(struct aiod_blk_request *request, enum aiod_blk_status status)
{
    request->ended = true;
    request->result = status;
}

static bool is_in_range(const struct aiod_blk *blk, uint64_t sector, uint64_t sectors)
{
    uint64_t capacity = __atomic_load_n(&blk->sectors, __ATOMIC_RELAXED);

    return sector <= capacity && sectors <= capacity - sector;
}

static void understand_transfer(const struct aiod_blk *blk, struct aiod_blk_request *request, uint64_t sector)
{
    uint64_t bytes = aiod_iov_bytes(&(struct aiod_iov){request->data, request->data_count});

    if (bytes % AIOD_BLK_SECTOR_BYTES != 0 || !is_in_range(blk, sector, bytes / AIOD_BLK_SECTOR_BYTES) ||
        (request->record.op == AIOD_WRITE && blk->read_only)) {
        end(request, AIOD_BLK_FAILED);
        return;
    }
    request->record.offset = sector * AIOD_BLK_SECTOR_BYTES;
    request->record.length = bytes;
    if (bytes == 0) {
        end(request, AIOD_BLK_OK);
    }
}

static void understand_range(const struct aiod_blk *blk, struct aiod_chain *chain, struct aiod_blk_request *request)
{
    struct virtio_blk_discard_write_zeroes range;
    bool zeroes = request->record.op == AIOD_WRITE_ZEROES;
    uint32_t unmap;

    if (!take_header(chain, &range, sizeof(range)) || chain->readable > 0 ||
        !is_in_range(blk, range.sector, range.num_sectors) || range.num_sectors > RANGE_SECTORS_MAX || blk->read_only) {
        end(request, AIOD_BLK_FAILED);
        return;
    }
    unmap = range.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    if (range.flags != unmap || (unmap != 0 && !zeroes)) {
        end(request, AIOD_BLK_UNSUPPORTED);
        return;
    }
    request->record.offset = range.sector * AIOD_BLK_SECTOR_BYTES;
    request->record.length = (uint64_t)range.num_sectors * AIOD_BLK_SECTOR_BYTES;
    request->record.flags |= unmap != 0 ? AIOD_UNMAP : 0;
    if (range.num_sectors == 0) {
        end(request, AIOD_BLK_OK);
    }
}

static void tell_serial(const struct aiod_blk *blk, const struct aiod_chain *chain, struct aiod_blk_request *request)
{
    size_t left = AIOD_BLK_SERIAL_BYTES;
    const char *from = blk->serial;

    for (unsigned i = chain->readable; i < chain->count; i++) {
        size_t bytes = chain->parts[i].iov_len < left ? chain->parts[i].iov_len : left;

        memcpy(chain->parts[i].iov_base, from, bytes);
        from += bytes;
        left -= bytes;
    }
    request->written = (uint32_t)(AIOD_BLK_SERIAL_BYTES - left) + 1;
    end(request, AIOD_BLK_OK);
}

static void use_readable(const struct aiod_chain *chain, struct aiod_blk_request *request)
{
    request->data = chain->parts;
    request->data_count = chain->readable;
}

static void use_writable(const struct aiod_chain *chain, struct aiod_blk_request *request)
{
    request->data = chain->parts + chain->readable;
    request->data_count = chain->count - chain->readable;
}

const char *aiod_blk_understand(const struct aiod_blk *blk, struct aiod_chain *chain, bool through,
                                struct aiod_blk_request *request)
{
    uint16_t durable = through ? AIOD_FUA : 0;
    struct virtio_blk_outhdr header;

    *request = (struct aiod_blk_request){.written = 1, .status = take_status(chain)};
    if (request->status == NULL) {
        return "a request has no place for its status";
    }
    if (!take_header(chain, &header, sizeof(header))) {
        return "a request has no header";
    }
    switch (header.type) {
    case VIRTIO_BLK_T_IN:
        request->record.op = AIOD_READ;
        use_writable(chain, request);
        request->written = (uint32_t)chain->writable_bytes;
        understand_transfer(blk, request, header.sector);
        break;
    case VIRTIO_BLK_T_OUT:
        request->record.op = AIOD_WRITE;
        request->record.flags = durable;
        use_readable(chain, request);
        understand_transfer(blk, request, header.sector);
        break;
    case VIRTIO_BLK_T_FLUSH:
        request->record.op = AIOD_FLUSH;
        break;
    case VIRTIO_BLK_T_GET_ID:
        tell_serial(blk, chain, request);
        break;
    case VIRTIO_BLK_T_DISCARD:
        request->record.op = AIOD_DISCARD;
        understand_range(blk, chain, request);
        break;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        request->record.op = AIOD_WRITE_ZEROES;
        request->record.flags = durable;
        understand_range(blk, chain, request);
        break;
    default:
        end(request, AIOD_BLK_UNSUPPORTED);
        break;
    }
    return NULL;
}
