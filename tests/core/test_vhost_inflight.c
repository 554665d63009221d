/* The area of requests in flight: what the next engine carries out again, in which order, and what a VMM may write there. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "vhost/inflight.h"

#define QUEUES 2u
#define SIZE 8u

static struct aiod_inflight area;
static struct aiod_inflight_left left;

static struct aiod_inflight_queue *begin(void)
{
    int fd = aiod_inflight_create(QUEUES, SIZE);
    struct aiod_inflight_queue *notes;

    CHECK(fd >= 0);
    CHECK(aiod_inflight_map(&area, fd, 0, aiod_inflight_bytes(QUEUES, SIZE), QUEUES, SIZE) == NULL);
    close(fd);
    notes = aiod_inflight_of(&area, 1, SIZE);
    aiod_inflight_begin(notes, SIZE, 100, &left);
    CHECK(left.count == 0);
    return notes;
}

static void publish(struct aiod_inflight_queue *notes, uint16_t head, uint16_t used)
{
    aiod_inflight_publishing(notes, head);
    aiod_inflight_published(notes, head, used);
}

static void what_was_left_comes_in_order(void)
{
    struct aiod_inflight_queue *notes = begin();

    aiod_inflight_take(notes, 5, 1);
    aiod_inflight_take(notes, 2, 2);
    aiod_inflight_take(notes, 7, 3);
    aiod_inflight_take(notes, 0, 4);
    publish(notes, 2, 101);
    aiod_inflight_take(notes, 2, 5); /* again */
    aiod_inflight_begin(notes, SIZE, 101, &left);
    CHECK(left.count == 4 && left.counter == 6);
    CHECK(left.heads[0] == 5 && left.heads[1] == 7 && left.heads[2] == 0 && left.heads[3] == 2);
    aiod_inflight_begin(aiod_inflight_of(&area, 0, SIZE), SIZE, 0, &left); /* the other queue has its own */
    CHECK(left.count == 0);
    aiod_inflight_unmap(&area);
}

/* The engine died between the used index and the end of the note: the guest has the result. */
static void what_was_published_is_not_left(void)
{
    struct aiod_inflight_queue *notes = begin();

    aiod_inflight_take(notes, 3, 1);
    aiod_inflight_take(notes, 4, 2);
    aiod_inflight_publishing(notes, 3); /* and the used index is 101 */
    aiod_inflight_begin(notes, SIZE, 101, &left);
    CHECK(left.count == 1 && left.heads[0] == 4);
    aiod_inflight_unmap(&area);
}

/* It died before the used index: the guest has no result. */
static void what_was_going_to_be_published_is_left(void)
{
    struct aiod_inflight_queue *notes = begin();

    aiod_inflight_take(notes, 3, 1);
    aiod_inflight_publishing(notes, 3);
    aiod_inflight_begin(notes, SIZE, 100, &left);
    CHECK(left.count == 1 && left.heads[0] == 3);
    aiod_inflight_unmap(&area);
}

static void strange_bytes_do_no_harm(void)
{
    struct aiod_inflight_queue *notes = begin();

    for (unsigned byte = 0; byte < 256; byte++) {
        memset(area.start, (int)byte, area.bytes);
        aiod_inflight_begin(notes, SIZE, 100, &left);
        CHECK(left.count <= SIZE);
        for (uint16_t i = 0; i < left.count; i++) {
            CHECK(left.heads[i] < SIZE);
        }
        *(uint16_t *)(void *)((char *)notes + 8) = 1; /* the version and the size are right */
        *(uint16_t *)(void *)((char *)notes + 10) = SIZE;
        aiod_inflight_begin(notes, SIZE, 100, &left);
        CHECK(left.count <= SIZE);
        aiod_inflight_take(notes, 1, 1);
        publish(notes, 1, 101);
    }
    aiod_inflight_unmap(&area);
}

static void false_areas_are_refused(void)
{
    uint64_t bytes = aiod_inflight_bytes(QUEUES, SIZE);
    int fd = aiod_inflight_create(QUEUES, SIZE);
    int pipes[2];

    CHECK(aiod_inflight_map(&area, fd, 0, bytes - 1, QUEUES, SIZE) != NULL);
    CHECK(aiod_inflight_map(&area, fd, 0, bytes + 1, QUEUES, SIZE) != NULL);
    CHECK(aiod_inflight_map(&area, fd, 4096, bytes, QUEUES, SIZE) != NULL);
    CHECK(aiod_inflight_map(&area, fd, UINT64_MAX - 4095, bytes, QUEUES, SIZE) != NULL);
    CHECK(aiod_inflight_map(&area, fd, 0, bytes, QUEUES, 0) != NULL);
    CHECK(aiod_inflight_map(&area, fd, 0, bytes, UINT16_MAX, UINT16_MAX) != NULL);
    CHECK(aiod_inflight_map(&area, -1, 0, bytes, QUEUES, SIZE) != NULL);
    CHECK(pipe(pipes) == 0 && aiod_inflight_map(&area, pipes[0], 0, bytes, QUEUES, SIZE) != NULL);
    CHECK(area.start == NULL && aiod_inflight_of(&area, 0, SIZE) == NULL);
    CHECK(aiod_inflight_map(&area, fd, 0, bytes, QUEUES, SIZE) == NULL);
    CHECK(aiod_inflight_of(&area, QUEUES, SIZE) == NULL);
    CHECK(aiod_inflight_of(&area, 0, SIZE + 1) == NULL);
    aiod_inflight_unmap(&area);
    close(pipes[0]);
    close(pipes[1]);
    close(fd);
}

int main(void)
{
    what_was_left_comes_in_order();
    what_was_published_is_not_left();
    what_was_going_to_be_published_is_left();
    strange_bytes_do_no_harm();
    false_areas_are_refused();
    return 0;
}
