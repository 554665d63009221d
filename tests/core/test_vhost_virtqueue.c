/* A virtqueue, and the requests of a block device in it: chains in every form, and what a hostile guest writes there. */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "vhost/blk.h"
#include "vhost/virtqueue.h"

#define BYTES (UINT64_C(1) << 20)
#define SIZE 16u
#define GUEST UINT64_C(0x40000000)
#define USER UINT64_C(0x7f0000000000)
#define FEATURES (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)

/* Where things lie in the memory. */
enum {
    DESCRIPTORS = 0,
    AVAILABLE = 0x1000,
    USED = 0x2000,
    TABLE = 0x3000,
    HEADER = 0x4000,
    STATUS = 0x5000,
    DATA = 0x10000,
};

static const struct aiod_virtqueue_addresses addresses = {
    .descriptors = USER + DESCRIPTORS, .available = USER + AVAILABLE, .used = USER + USED};
static char *memory;
static struct aiod_memory_table *table;
static struct aiod_blk blk = {.sectors = 64, .block_bytes = 512, .physical_bytes = 4096, .serial = "serial"};

static void begin(void)
{
    int fd = memfd_create("guest", MFD_CLOEXEC);
    const struct aiod_memory_description region = {.guest = GUEST, .bytes = BYTES, .user = USER};

    CHECK(fd >= 0 && ftruncate(fd, (off_t)BYTES) == 0);
    memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED && aiod_memory_table_create(&table, &region, &fd, 1) == NULL);
    close(fd);
}

static struct aiod_virtqueue *make(uint64_t features)
{
    struct aiod_virtqueue *queue;

    CHECK(aiod_virtqueue_create(&queue, table, &addresses, SIZE, features) == NULL);
    return queue;
}

static struct vring_desc *descriptors(unsigned at)
{
    return (struct vring_desc *)(void *)(memory + at);
}

static void describe(unsigned at, unsigned number, uint64_t where, uint32_t bytes, uint16_t flags, uint16_t next)
{
    descriptors(at)[number] = (struct vring_desc){.addr = GUEST + where, .len = bytes, .flags = flags, .next = next};
}

static const char *collect(uint16_t head, struct aiod_chain *chain)
{
    struct aiod_virtqueue *queue = make(FEATURES);
    const char *why = aiod_virtqueue_collect(queue, head, chain);

    aiod_virtqueue_destroy(queue);
    return why;
}

static bool is_refused(uint16_t head)
{
    struct aiod_chain chain;
    bool refused = collect(head, &chain) != NULL;

    aiod_chain_release(&chain);
    return refused;
}

/* ---- queues ------------------------------------------------------------------------------------------------------ */

static void false_queues_are_refused(void)
{
    const struct aiod_virtqueue_addresses wrong[] = {
        {.descriptors = USER + BYTES, .available = USER + AVAILABLE, .used = USER + USED},
        {.descriptors = USER + BYTES - 255, .available = USER + AVAILABLE, .used = USER + USED},
        {.descriptors = USER + 8, .available = USER + AVAILABLE, .used = USER + USED},
        {.descriptors = USER, .available = USER + AVAILABLE + 1, .used = USER + USED},
        {.descriptors = USER, .available = USER + AVAILABLE, .used = USER + USED + 2},
        {.descriptors = USER, .available = USER + AVAILABLE, .used = USER + BYTES - 8},
        {.descriptors = GUEST, .available = USER + AVAILABLE, .used = USER + USED},
        {.descriptors = UINT64_MAX, .available = USER + AVAILABLE, .used = USER + USED},
    };
    struct aiod_virtqueue *queue;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(aiod_virtqueue_create(&queue, table, &wrong[i], SIZE, FEATURES) != NULL);
    }
    CHECK(aiod_virtqueue_create(&queue, table, &addresses, 0, FEATURES) != NULL);
    CHECK(aiod_virtqueue_create(&queue, table, &addresses, 24, FEATURES) != NULL);
    CHECK(aiod_virtqueue_create(&queue, table, &addresses, 2048, FEATURES) != NULL);
}

static void indices_wrap(void)
{
    struct aiod_virtqueue *queue = make(FEATURES);
    struct vring_used *used = (struct vring_used *)(void *)(memory + USED);

    for (uint16_t index = 65530; index != 10; index++) {
        aiod_virtqueue_use(queue, index, 7, index);
        aiod_virtqueue_publish(queue, (uint16_t)(index + 1));
        CHECK(used->ring[index % SIZE].id == 7 && used->ring[index % SIZE].len == index);
        CHECK(aiod_virtqueue_published(queue) == (uint16_t)(index + 1));
    }
    aiod_virtqueue_destroy(queue);
}

static void the_guest_says_when_it_wants_a_call(void)
{
    struct aiod_virtqueue *queue = make(FEATURES);
    struct vring_avail *available = (struct vring_avail *)(void *)(memory + AVAILABLE);

    available->ring[SIZE] = 65535; /* used_event */
    CHECK(aiod_virtqueue_wants_call(queue, 65534, 1));
    CHECK(!aiod_virtqueue_wants_call(queue, 0, 1));
    aiod_virtqueue_destroy(queue);
    queue = make(0);
    available->flags = 0;
    CHECK(aiod_virtqueue_wants_call(queue, 0, 1));
    available->flags = VRING_AVAIL_F_NO_INTERRUPT;
    CHECK(!aiod_virtqueue_wants_call(queue, 0, 1));
    available->flags = 0;
    aiod_virtqueue_destroy(queue);
}

static void the_device_says_when_it_wants_a_kick(void)
{
    struct aiod_virtqueue *queue = make(FEATURES);
    struct vring_used *used = (struct vring_used *)(void *)(memory + USED);
    uint16_t event;

    aiod_virtqueue_ask_for_kick(queue, 77);
    memcpy(&event, &used->ring[SIZE], sizeof(event));
    CHECK(event == 77);
    CHECK(vring_need_event(event, 78, 77));
    aiod_virtqueue_need_no_kick(queue, 77); /* it is awake again, and has not taken 77 */
    memcpy(&event, &used->ring[SIZE], sizeof(event));
    for (uint16_t i = 77; i < 77 + SIZE; i++) {
        CHECK(!vring_need_event(event, (uint16_t)(i + 1), i));
        CHECK(!vring_need_event(event, (uint16_t)(i + 1), 77));
    }
    aiod_virtqueue_destroy(queue);
    queue = make(0);
    aiod_virtqueue_need_no_kick(queue, 0);
    CHECK(used->flags == VRING_USED_F_NO_NOTIFY);
    aiod_virtqueue_ask_for_kick(queue, 77);
    CHECK(used->flags == 0);
    aiod_virtqueue_destroy(queue);
}

/* ---- chains ------------------------------------------------------------------------------------------------------ */

static void neighbours_become_one_part(void)
{
    struct aiod_chain chain;

    describe(DESCRIPTORS, 3, DATA, 100, VRING_DESC_F_NEXT, 9);
    describe(DESCRIPTORS, 9, DATA + 100, 50, VRING_DESC_F_NEXT, 1);
    describe(DESCRIPTORS, 1, DATA + 150, 10, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
    describe(DESCRIPTORS, 2, DATA + 160, 10, VRING_DESC_F_WRITE, 0);
    CHECK(collect(3, &chain) == NULL);
    CHECK(chain.count == 2 && chain.readable == 1 && chain.writable_bytes == 20);
    CHECK(chain.parts[0].iov_len == 150 && chain.parts[1].iov_len == 20);
    aiod_chain_release(&chain);
}

static void a_chain_may_be_indirect(void)
{
    struct aiod_chain chain;

    for (unsigned i = 0; i < 100; i++) {
        describe(TABLE, i, DATA + i * 1000, 10, i < 99 ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1));
    }
    describe(DESCRIPTORS, 0, TABLE, 100 * 16, VRING_DESC_F_INDIRECT, 0);
    CHECK(collect(0, &chain) == NULL);
    CHECK(chain.count == 100 && chain.readable == 100 && chain.bytes == 1000);
    aiod_chain_release(&chain);
}

static void false_chains_are_refused(void)
{
    describe(DESCRIPTORS, 0, DATA, 10, VRING_DESC_F_NEXT, 0); /* a loop */
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, DATA, 0, VRING_DESC_F_NEXT, 0); /* of nothing */
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, DATA, 10, VRING_DESC_F_NEXT, SIZE); /* out of the table */
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, BYTES - 5, 10, 0, 0); /* out of the memory */
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, UINT64_MAX - GUEST - 4, 10, 0, 0); /* around the end of all addresses */
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, DATA, UINT32_MAX, 0, 0);
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, DATA, 10, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1); /* written, then read */
    describe(DESCRIPTORS, 1, DATA, 10, 0, 0);
    CHECK(is_refused(0));
}

static void false_indirect_tables_are_refused(void)
{
    struct aiod_virtqueue *queue = make(0);
    struct aiod_chain chain;

    describe(TABLE, 0, DATA, 10, 0, 0);
    describe(DESCRIPTORS, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
    CHECK(aiod_virtqueue_collect(queue, 0, &chain) != NULL); /* not negotiated */
    aiod_chain_release(&chain);
    aiod_virtqueue_destroy(queue);
    CHECK(!is_refused(0));
    describe(DESCRIPTORS, 0, TABLE, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 0);
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, TABLE, 0, VRING_DESC_F_INDIRECT, 0);
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, TABLE, 17, VRING_DESC_F_INDIRECT, 0);
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, BYTES - 16, 32, VRING_DESC_F_INDIRECT, 0);
    CHECK(is_refused(0));
    describe(DESCRIPTORS, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
    describe(TABLE, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0); /* in itself */
    CHECK(is_refused(0));
    describe(TABLE, 0, DATA, 16, VRING_DESC_F_NEXT, 1); /* behind the end of the table */
    CHECK(is_refused(0));
    for (unsigned i = 0; i < 2000; i++) {
        describe(TABLE, i, DATA + 2 * i, 1, VRING_DESC_F_NEXT, (uint16_t)(i + 1));
    }
    describe(DESCRIPTORS, 0, TABLE, 2000 * 16, VRING_DESC_F_INDIRECT, 0); /* too long */
    CHECK(is_refused(0));
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* A request of `type`, with `bytes` bytes of data that the device writes or reads. */
static void ask(uint32_t type, uint64_t sector, uint32_t bytes, bool writes)
{
    const struct virtio_blk_outhdr header = {.type = type, .sector = sector};

    memcpy(memory + HEADER, &header, sizeof(header));
    describe(DESCRIPTORS, 0, HEADER, 16, VRING_DESC_F_NEXT, bytes > 0 ? 1 : 2);
    describe(DESCRIPTORS, 1, DATA, bytes, VRING_DESC_F_NEXT | (writes ? VRING_DESC_F_WRITE : 0), 2);
    describe(DESCRIPTORS, 2, STATUS, 1, VRING_DESC_F_WRITE, 0);
}

static struct aiod_blk_request understand(struct aiod_chain *chain)
{
    struct aiod_blk_request request;

    CHECK(collect(0, chain) == NULL);
    CHECK(aiod_blk_understand(&blk, chain, false, &request) == NULL);
    CHECK(request.status != NULL);
    return request;
}

static struct aiod_blk_request asked(uint32_t type, uint64_t sector, uint32_t bytes, bool writes)
{
    struct aiod_blk_request request;
    struct aiod_chain chain;

    ask(type, sector, bytes, writes);
    request = understand(&chain);
    aiod_chain_release(&chain);
    return request;
}

static void reads_and_writes_are_understood(void)
{
    struct aiod_blk_request request = asked(VIRTIO_BLK_T_IN, 8, 4096, true);

    CHECK(!request.ended && request.record.op == AIOD_READ && request.record.offset == 4096);
    CHECK(request.record.length == 4096 && request.data_count == 1 && request.written == 4097);
    request = asked(VIRTIO_BLK_T_OUT, 63, 512, false);
    CHECK(!request.ended && request.record.op == AIOD_WRITE && request.record.offset == 63 * 512);
    CHECK(request.written == 1);
    request = asked(VIRTIO_BLK_T_FLUSH, 0, 0, false);
    CHECK(!request.ended && request.record.op == AIOD_FLUSH);
}

static void requests_beyond_the_end_fail(void)
{
    CHECK(asked(VIRTIO_BLK_T_IN, 64, 512, true).result == AIOD_BLK_FAILED);
    CHECK(asked(VIRTIO_BLK_T_IN, 63, 1024, true).result == AIOD_BLK_FAILED);
    CHECK(asked(VIRTIO_BLK_T_OUT, UINT64_MAX, 512, false).result == AIOD_BLK_FAILED);
    CHECK(asked(VIRTIO_BLK_T_OUT, UINT64_MAX / 512, 512, false).result == AIOD_BLK_FAILED);
    CHECK(asked(VIRTIO_BLK_T_OUT, 0, 100, false).result == AIOD_BLK_FAILED);
    CHECK(asked(77, 0, 512, false).result == AIOD_BLK_UNSUPPORTED);
}

static void nothing_is_written_read_only(void)
{
    blk.read_only = true;
    CHECK(asked(VIRTIO_BLK_T_OUT, 0, 512, false).result == AIOD_BLK_FAILED);
    CHECK(!asked(VIRTIO_BLK_T_IN, 0, 512, true).ended);
    CHECK((aiod_blk_features(&blk) >> VIRTIO_BLK_F_RO & 1) == 1);
    CHECK((aiod_blk_features(&blk) >> VIRTIO_BLK_F_DISCARD & 1) == 0);
    blk.read_only = false;
}

static struct aiod_blk_request asked_for_range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    const struct virtio_blk_discard_write_zeroes range = {.sector = sector, .num_sectors = sectors, .flags = flags};

    memcpy(memory + DATA, &range, sizeof(range));
    return asked(type, 0, sizeof(range), false);
}

static void ranges_are_understood(void)
{
    struct aiod_blk_request request = asked_for_range(VIRTIO_BLK_T_WRITE_ZEROES, 2, 5, 1);

    CHECK(!request.ended && request.record.op == AIOD_WRITE_ZEROES && request.record.flags == AIOD_UNMAP);
    CHECK(request.record.offset == 1024 && request.record.length == 2560);
    request = asked_for_range(VIRTIO_BLK_T_DISCARD, 0, 64, 0);
    CHECK(!request.ended && request.record.op == AIOD_DISCARD && request.record.length == 64 * 512);
    CHECK(asked_for_range(VIRTIO_BLK_T_DISCARD, 0, 64, 1).result == AIOD_BLK_UNSUPPORTED);
    CHECK(asked_for_range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 64, 2).result == AIOD_BLK_UNSUPPORTED);
    CHECK(asked_for_range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 65, 0).result == AIOD_BLK_FAILED);
    CHECK(asked_for_range(VIRTIO_BLK_T_WRITE_ZEROES, UINT64_MAX, UINT32_MAX, 0).result == AIOD_BLK_FAILED);
    CHECK(asked(VIRTIO_BLK_T_DISCARD, 0, 8, false).result == AIOD_BLK_FAILED);  /* a part of a segment */
    CHECK(asked(VIRTIO_BLK_T_DISCARD, 0, 32, false).result == AIOD_BLK_FAILED); /* two */
}

static void the_serial_fits_in_any_buffer(void)
{
    memset(memory + DATA, 'x', 64);
    CHECK(asked(VIRTIO_BLK_T_GET_ID, 0, 20, true).result == AIOD_BLK_OK);
    CHECK(memcmp(memory + DATA, "serial\0", 7) == 0 && memory[DATA + 20] == 'x');
    memset(memory + DATA, 'x', 64);
    CHECK(asked(VIRTIO_BLK_T_GET_ID, 0, 3, true).written == 4);
    CHECK(memcmp(memory + DATA, "serx", 4) == 0);
}

/* Header and status may lie in any part; a chain without them is a broken one. */
static void the_frame_is_free(void)
{
    struct aiod_chain chain;
    struct aiod_blk_request request;

    ask(VIRTIO_BLK_T_IN, 0, 512, true);
    describe(DESCRIPTORS, 0, HEADER, 3, VRING_DESC_F_NEXT, 5);
    describe(DESCRIPTORS, 5, HEADER + 3, 13, VRING_DESC_F_NEXT, 1);
    describe(DESCRIPTORS, 1, DATA, 513, VRING_DESC_F_WRITE, 0); /* with the status behind the data */
    request = understand(&chain);
    CHECK(!request.ended && request.record.length == 512 && request.written == 513);
    CHECK(request.status == (char *)request.data->iov_base + 512);
    aiod_chain_release(&chain);

    describe(DESCRIPTORS, 0, HEADER, 15, VRING_DESC_F_NEXT, 1);
    CHECK(collect(0, &chain) == NULL && aiod_blk_understand(&blk, &chain, false, &request) != NULL);
    aiod_chain_release(&chain);
    describe(DESCRIPTORS, 0, HEADER, 16, 0, 0);
    CHECK(collect(0, &chain) == NULL && aiod_blk_understand(&blk, &chain, false, &request) != NULL);
    aiod_chain_release(&chain);
}

static void the_configuration_has_an_end(void)
{
    unsigned char space[300];

    memset(space, 0xff, sizeof(space));
    aiod_blk_config(&blk, space, 0, 256);
    CHECK(space[0] == 64 && space[20] == 0 && space[21] == 2); /* sectors; blocks of 512 bytes */
    CHECK(space[24] == 3);                                     /* 8 of them are a physical block */
    CHECK(space[255] == 0 && space[256] == 0xff);
    aiod_blk_config(&blk, space, 200, 16);
    CHECK(space[0] == 0 && space[15] == 0);
}

int main(void)
{
    begin();
    false_queues_are_refused();
    indices_wrap();
    the_guest_says_when_it_wants_a_call();
    the_device_says_when_it_wants_a_kick();
    neighbours_become_one_part();
    a_chain_may_be_indirect();
    false_chains_are_refused();
    false_indirect_tables_are_refused();
    reads_and_writes_are_understood();
    requests_beyond_the_end_fail();
    nothing_is_written_read_only();
    ranges_are_understood();
    the_serial_fits_in_any_buffer();
    the_frame_is_free();
    the_configuration_has_an_end();
    aiod_memory_table_put(table);
    munmap(memory, BYTES);
    return 0;
}
