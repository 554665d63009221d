/* A guest's disk: requests of all kinds; a VMM that changes the memory meanwhile, stops, goes, comes back, and lies. */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "core_vhost.h"
#include "scratch.h"
#include "vhost/inflight.h"
#include "vhost_front.h"

static int file;

static struct aiod_vhost_status status(void)
{
    return aiod_core_vhost_status(front_core());
}

static void begin(struct front *front)
{
    *front = (struct front){0};
    front_connect(front);
    front_set_up(front);
}

static void end(struct front *front)
{
    front_disconnect(front);
    front_destroy(front);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void requests_are_carried_out(void)
{
    static const char zeroes[4096];
    const struct virtio_blk_discard_write_zeroes range = {.sector = 8, .num_sectors = 8};
    struct front front;

    begin(&front);
    memset(front_data(&front, 1), 'a', 4096);
    CHECK(front_run(&front, 1, VIRTIO_BLK_T_OUT, 8, 4096) == VIRTIO_BLK_S_OK);
    check_bytes(file, front_data(&front, 1), 4096, 4096);
    CHECK(front_run(&front, 1, VIRTIO_BLK_T_FLUSH, 0, 0) == VIRTIO_BLK_S_OK);
    CHECK(front_run(&front, 2, VIRTIO_BLK_T_IN, 8, 4096) == VIRTIO_BLK_S_OK);
    CHECK(memcmp(front_data(&front, 2), front_data(&front, 1), 4096) == 0);
    CHECK(front_run(&front, 3, VIRTIO_BLK_T_GET_ID, 0, 20) == VIRTIO_BLK_S_OK);
    CHECK(strcmp(front_data(&front, 3), "test") == 0);
    memcpy(front_data(&front, 4), &range, sizeof(range));
    CHECK(front_run(&front, 4, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(range)) == VIRTIO_BLK_S_OK);
    check_bytes(file, zeroes, 4096, 4096);
    CHECK(front_run(&front, 0, VIRTIO_BLK_T_IN, FRONT_SECTORS, 512) == VIRTIO_BLK_S_IOERR);
    CHECK(front_run(&front, 0, 99, 0, 512) == VIRTIO_BLK_S_UNSUPP);
    CHECK(status().running == 1 && status().inflight == 0);
    end(&front);
}

/* The data of a request in two parts of the guest's memory. */
static int run_in_parts(struct front *front, uint32_t type, uint64_t sector)
{
    struct vring_desc *descriptors = (struct vring_desc *)(void *)front->memory;

    front_submit(front, 0, type, sector, 1024);
    descriptors[15] = descriptors[1]; /* the second part, which ends the data */
    descriptors[15].addr += 8192;
    descriptors[15].len = 3072;
    descriptors[1].next = 15;
    front_kick(front);
    CHECK(front_next_used(front) == 0);
    return front->memory[FRONT_STATUSES];
}

/* Also reads that only a worker can carry out, since the file was dropped from the cache. */
static void requests_may_have_parts(void)
{
    struct front front;

    begin(&front);
    for (unsigned round = 0; round < 4; round++) {
        memset(front_data(&front, 0), 'b' + (int)round, 1024);
        memset(front_data(&front, 2), 'c' + (int)round, 3072);
        CHECK(run_in_parts(&front, VIRTIO_BLK_T_OUT, 16) == VIRTIO_BLK_S_OK);
        check_bytes(file, front_data(&front, 0), 1024, 16 * 512);
        check_bytes(file, front_data(&front, 2), 3072, 18 * 512);
        memset(front_data(&front, 0), 0, 3 * 4096);
        CHECK(posix_fadvise(file, 0, 0, round % 2 == 0 ? POSIX_FADV_DONTNEED : POSIX_FADV_WILLNEED) == 0);
        CHECK(run_in_parts(&front, VIRTIO_BLK_T_IN, 16) == VIRTIO_BLK_S_OK);
        check_bytes(file, front_data(&front, 0), 1024, 16 * 512);
        check_bytes(file, front_data(&front, 2), 3072, 18 * 512);
    }
    end(&front);
}

/* Without event indices the doorbell and the call depend on flags. */
static void a_driver_may_have_no_event_indices(void)
{
    struct front front = {.features = UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX};

    front_connect(&front);
    front_set_up(&front);
    for (unsigned i = 0; i < 50; i++) {
        CHECK(front_run(&front, (uint16_t)(i % 5), i % 2 != 0 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, i, 512) ==
              VIRTIO_BLK_S_OK);
    }
    end(&front);
}

/* The device asks for a kick when it sleeps, whoever took the last entry: a driver that obeys is never left waiting. */
static void a_driver_that_kicks_only_when_asked_waits_for_nothing(void)
{
    struct front front;

    begin(&front);
    for (unsigned round = 0; round < 3000; round++) {
        const struct vring_used *used = (const struct vring_used *)(const void *)(front.memory + FRONT_USED);
        uint16_t before = front.available;
        unsigned count = round % 5 + 1;

        for (unsigned i = 0; i < count; i++) {
            front_submit(&front, (uint16_t)i, round % 3 == 0 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, i * 8, 4096);
        }
        if (vring_need_event(__atomic_load_n(&used->ring[FRONT_SIZE].id, __ATOMIC_SEQ_CST) & 0xffff, front.available,
                             before)) {
            front_kick(&front);
        }
        for (unsigned i = 0; i < count; i++) {
            CHECK(front_next_used(&front) < 5);
        }
    }
    end(&front);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static void the_configuration_is_told(void)
{
    struct front front = {0};
    struct aiod_vhost_config config = {.bytes = 60};
    uint64_t number = 0;

    front_connect(&front);
    CHECK(front_ask(&front, AIOD_VHOST_GET_CONFIG, &config, 12 + 60, -1, NULL) == 12 + 60);
    CHECK(config.space[0] == FRONT_SECTORS % 256 && config.space[1] == FRONT_SECTORS / 256);
    config = (struct aiod_vhost_config){.offset = 250, .bytes = 60};
    CHECK(front_ask(&front, AIOD_VHOST_GET_CONFIG, &config, 12 + 60, -1, NULL) == 0);
    CHECK(front_ask(&front, AIOD_VHOST_GET_QUEUE_NUM, &number, 0, -1, NULL) == 8 && number == 2);
    CHECK(front_ask(&front, AIOD_VHOST_GET_MAX_MEM_SLOTS, &number, 0, -1, NULL) == 8);
    CHECK(number == AIOD_MEMORY_REGIONS_MAX);
    end(&front);
}

/* It may even have asked for something before: that is nothing to warn of. */
static void a_vmm_may_close_its_connection(void)
{
    struct front front = {0};
    const uint64_t nothing = 0;

    CHECK(front_last_line()[0] == '\0');
    front_connect(&front);
    end(&front);
    front = (struct front){0};
    front_connect(&front);
    front_send(&front, AIOD_VHOST_GET_FEATURES, &nothing, 0, -1);
    end(&front);
    CHECK(front_last_line()[0] == '\0');
}

/* Send a message that breaks a rule: the connection is ended, with a line in the log. */
static void is_refused(uint32_t kind, const void *payload, size_t bytes, int fd)
{
    struct front front = {0};
    uint64_t nothing = 0;

    front_connect(&front);
    front_send(&front, kind, payload, bytes, fd);
    CHECK(front_ask(&front, AIOD_VHOST_GET_FEATURES, &nothing, 0, -1, NULL) == -1);
    CHECK(strstr(front_last_line(), "refused") != NULL || strstr(front_last_line(), "ended") != NULL);
    end(&front);
}

static void false_messages_are_refused(void)
{
    const struct aiod_vhost_queue_state far = {.queue = 2, .number = 4};
    const struct aiod_vhost_queue_state odd = {.queue = 0, .number = 5};
    const struct aiod_vhost_memory memory = {.count = 3};
    const struct aiod_vhost_inflight inflight = {.queue_count = 3, .queue_size = 16};
    const struct aiod_vhost_one_region region = {.region = {.bytes = 4096}};
    const uint64_t all = UINT64_MAX;
    const uint64_t none = 0;
    int regular = scratch_file(0);

    is_refused(0, NULL, 0, -1);
    is_refused(99, NULL, 0, -1);
    is_refused(UINT32_MAX, NULL, 0, -1);
    is_refused(AIOD_VHOST_SET_FEATURES, &all, 8, -1);
    is_refused(AIOD_VHOST_SET_FEATURES, &all, 4, -1);
    is_refused(AIOD_VHOST_SET_PROTOCOL_FEATURES, &all, 8, -1);
    is_refused(AIOD_VHOST_SET_VRING_NUM, &far, 8, -1);
    is_refused(AIOD_VHOST_SET_VRING_NUM, &odd, 8, -1);
    is_refused(AIOD_VHOST_SET_VRING_KICK, &all, 8, -1);
    is_refused(AIOD_VHOST_SET_VRING_KICK, &none, 8, -1);
    is_refused(AIOD_VHOST_SET_VRING_KICK, &none, 8, regular);
    is_refused(AIOD_VHOST_SET_VRING_CALL, &none, 8, regular);
    is_refused(AIOD_VHOST_SET_MEM_TABLE, &memory, 8, -1);
    is_refused(AIOD_VHOST_SET_MEM_TABLE, &memory, sizeof(memory), regular);
    is_refused(AIOD_VHOST_ADD_MEM_REG, &region, sizeof(region), -1);
    is_refused(AIOD_VHOST_REM_MEM_REG, &region, sizeof(region), -1);
    is_refused(AIOD_VHOST_GET_INFLIGHT_FD, &inflight, 20, -1);
    is_refused(AIOD_VHOST_SET_INFLIGHT_FD, &inflight, 20, regular);
    is_refused(AIOD_VHOST_SET_BACKEND_REQ_FD, NULL, 0, regular);
    is_refused(AIOD_VHOST_SET_CONFIG, &all, 8, -1);
    close(regular);
}

/* Messages of random bytes, whole and cut off, with descriptors of every kind. */
static void random_messages_do_no_harm(void)
{
    static const uint32_t sizes[] = {0, 1, 4, 8, 12, 20, 24, 40, 264, 1000, 1056, 1057, UINT32_MAX};
    uint64_t state = 88172645463325252u;
    struct front front = {0};

    for (unsigned round = 0; round < 300; round++) {
        unsigned char bytes[1100];
        struct aiod_vhost_header header;
        int event = eventfd(0, EFD_CLOEXEC);

        front_connect(&front);
        for (unsigned i = 0; i < 8; i++) {
            for (unsigned k = 0; k < sizeof(bytes); k++) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes[k] = k % 8 < 4 ? (unsigned char)state & 3 : 0;
            }
            header = (struct aiod_vhost_header){
                .kind = (uint32_t)(state % 40), .flags = 1, .bytes = sizes[(state >> 8) % 13]};
            front_send(&front, header.kind, bytes, header.bytes < 1056 ? header.bytes : 1056,
                       (state >> 16) % 3 == 0   ? event
                       : (state >> 16) % 3 == 1 ? front.memory_fd
                                                : -1);
            if ((state >> 20) % 8 == 0) {
                (void)!send(front.socket, &header, sizeof(header), MSG_NOSIGNAL | MSG_DONTWAIT);
            }
            front_turn();
        }
        close(event);
        front_disconnect(&front);
    }
    front_destroy(&front);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static bool has_one_region(void *unused)
{
    (void)unused;
    return status().regions == 1;
}

/* Memory comes and goes while requests run: each one is carried out in the memory that it named. */
static void memory_changes_while_requests_run(void)
{
    const struct aiod_vhost_one_region more = {
        .region = {.guest = UINT64_C(1) << 40, .bytes = FRONT_BYTES, .user = UINT64_C(1) << 40}};
    struct front front;

    begin(&front);
    for (unsigned round = 0; round < 100; round++) {
        for (uint16_t i = 0; i < 5; i++) {
            memset(front_data(&front, i), (int)(round + i), 4096);
            front_submit(&front, i, VIRTIO_BLK_T_OUT, i * 8u, 4096);
        }
        front_kick(&front);
        front_send(&front, round % 2 == 0 ? AIOD_VHOST_ADD_MEM_REG : AIOD_VHOST_REM_MEM_REG, &more, sizeof(more),
                   round % 2 == 0 ? front.memory_fd : -1);
        for (unsigned i = 0; i < 5; i++) {
            uint16_t number = front_next_used(&front);

            CHECK(front.memory[FRONT_STATUSES + number] == VIRTIO_BLK_S_OK);
            check_bytes(file, front_data(&front, number), 4096, number * 4096u);
        }
    }
    front_until(has_one_region, NULL);
    CHECK(front_is_connected(&front));
    end(&front);
}

/* A table without the running queue is refused, and the connection ended: no queue is left in memory that has gone. */
static void a_queue_cannot_lose_its_memory(void)
{
    const struct aiod_vhost_memory elsewhere = {
        .count = 1, .regions = {{.guest = 0, .bytes = FRONT_BYTES, .user = UINT64_C(1) << 30}}};
    struct front front;
    uint64_t nothing = 0;

    begin(&front);
    CHECK(front_run(&front, 0, VIRTIO_BLK_T_IN, 0, 512) == VIRTIO_BLK_S_OK);
    front_send(&front, AIOD_VHOST_SET_MEM_TABLE, &elsewhere, 8 + sizeof(elsewhere.regions[0]), front.memory_fd);
    CHECK(front_ask(&front, AIOD_VHOST_GET_FEATURES, &nothing, 0, -1, NULL) == -1);
    end(&front);
}

/* ---- stop, go, come back ----------------------------------------------------------------------------------------- */

/* GET_VRING_BASE is answered when nothing is in flight, and nothing is taken afterwards. */
static void a_queue_stops(void)
{
    struct aiod_vhost_queue_state state = {.queue = 0};
    struct front front;

    begin(&front);
    CHECK(front_run(&front, 0, VIRTIO_BLK_T_OUT, 0, 4096) == VIRTIO_BLK_S_OK);
    for (uint16_t i = 0; i < 5; i++) {
        front_submit(&front, i, VIRTIO_BLK_T_OUT, i, 512);
    }
    front_kick(&front);
    CHECK(front_ask(&front, AIOD_VHOST_GET_VRING_BASE, &state, sizeof(state), -1, NULL) == sizeof(state));
    for (uint16_t i = front.used; i != (uint16_t)state.number; i++) {
        CHECK(front_has_used(&front)); /* what was taken has ended */
        front_next_used(&front);
    }
    CHECK(!front_has_used(&front) && status().running == 0);
    front_set_up(&front); /* and the others are taken when it starts again */
    while (front.used != front.available) {
        front_next_used(&front);
    }
    end(&front);
}

/* A new engine finds requests in the area that the former one had taken: it carries them out again, in their order. */
static void what_a_former_engine_left_is_carried_out(void)
{
    struct aiod_inflight area = {0};
    struct aiod_inflight_queue *notes;
    struct front front;

    begin(&front);
    CHECK(front_run(&front, 0, VIRTIO_BLK_T_IN, 0, 512) == VIRTIO_BLK_S_OK);
    front_disconnect(&front);
    /* the engine took 1, 2 and 3, published 2, and died */
    CHECK(aiod_inflight_map(&area, front.inflight_fd, 0, front.inflight.bytes, 1, FRONT_SIZE) == NULL);
    notes = aiod_inflight_of(&area, 0, FRONT_SIZE);
    for (uint16_t i = 1; i <= 3; i++) {
        memset(front_data(&front, i), '0' + i, 512);
        front_submit(&front, i, VIRTIO_BLK_T_OUT, i == 2 ? 40 : 41, 512);
        aiod_inflight_take(notes, (uint16_t)(3 * i), 10u - i); /* 3 was taken first */
    }
    aiod_inflight_publishing(notes, 6);
    ((struct vring_used *)(void *)(front.memory + FRONT_USED))->idx = 2;
    front.used = 2;
    aiod_inflight_unmap(&area);
    front_connect(&front);
    front_set_up(&front);
    CHECK(front_next_used(&front) <= 3 && front_next_used(&front) <= 3);
    CHECK(status().resubmitted == 2 && front.used == front.available);
    check_bytes(file, (const char[512]){0}, 1, 40 * 512); /* 2 was not carried out again */
    CHECK(front_run(&front, 4, VIRTIO_BLK_T_IN, 0, 512) == VIRTIO_BLK_S_OK);
    end(&front);
}

static void a_vmm_goes_with_requests_in_flight(void)
{
    struct front front = {0};

    for (unsigned round = 0; round < 50; round++) {
        front_connect(&front);
        front_set_up(&front);
        for (uint16_t i = 0; i < 5 && round % 3 != 0; i++) {
            front_submit(&front, i, VIRTIO_BLK_T_OUT, i, 512);
        }
        front_kick(&front);
        for (unsigned turns = 0; turns < round % 7; turns++) {
            front_turn();
        }
        front_disconnect(&front);
        front_destroy(&front);
        front = (struct front){0};
    }
}

/* ---- a hostile guest --------------------------------------------------------------------------------------------- */

static bool is_broken(void *unused)
{
    (void)unused;
    return status().broken == 1;
}

/* Its queue is not served any more until it is reset; the connection stays. */
static void a_hostile_guest_breaks_its_queue(void)
{
    struct aiod_vhost_queue_state state = {.queue = 0};
    struct front front;

    begin(&front);
    front_submit(&front, 0, VIRTIO_BLK_T_IN, 0, 512);
    ((struct vring_desc *)(void *)front.memory)[0].next = 0; /* a loop */
    front_kick(&front);
    front_until(is_broken, NULL);
    CHECK(strstr(front_last_line(), "loop") != NULL && front_is_connected(&front));
    CHECK(front_ask(&front, AIOD_VHOST_GET_VRING_BASE, &state, sizeof(state), -1, NULL) == sizeof(state));
    CHECK(state.number == 0 && status().running == 0);
    end(&front);

    begin(&front);
    ((struct vring_avail *)(void *)(front.memory + FRONT_AVAILABLE))->idx = 5000; /* jumps */
    front_kick(&front);
    front_until(is_broken, NULL);
    CHECK(strstr(front_last_line(), "jumped") != NULL);
    end(&front);
}

int main(void)
{
    faults_install();
    file = front_engine_start(65536);
    requests_are_carried_out();
    requests_may_have_parts();
    a_driver_may_have_no_event_indices();
    a_driver_that_kicks_only_when_asked_waits_for_nothing();
    the_configuration_is_told();
    a_vmm_may_close_its_connection();
    false_messages_are_refused();
    random_messages_do_no_harm();
    memory_changes_while_requests_run();
    a_queue_cannot_lose_its_memory();
    a_queue_stops();
    what_a_former_engine_left_is_carried_out();
    a_vmm_goes_with_requests_in_flight();
    a_hostile_guest_breaks_its_queue();
    front_engine_stop();
    close(file);
    return 0;
}
