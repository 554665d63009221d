/*
 * heap.h - what has the smallest key, of many: a leftist tree (Crane: Linear Lists and Priority Queues as Balanced Binary Trees,
 * 1972; Knuth, The Art of Computer Programming, 5.2.3), embedded in what is in it, so that nothing is allocated.
 *
 * Inserting and removing cost O(log n) each time, not just on average: a lock is held as long for 262,144 requests as for a
 * few. No locks here.
 */
#ifndef AIOD_HEAP_H
#define AIOD_HEAP_H

#include <stdint.h>

/* All zero while it is in no heap. */
struct aiod_heap_node {
    uint64_t key;
    unsigned rank; /* nodes on the path that goes right all the way, this one included; 0: it is in no heap */
    struct aiod_heap_node *left;
    struct aiod_heap_node *right; /* of a rank at most that of `left` */
    struct aiod_heap_node *parent;
};

struct aiod_heap {
    struct aiod_heap_node *root; /* the smallest key; NULL: empty */
};

/* `node` is in no heap. */
void aiod_heap_insert(struct aiod_heap *heap, struct aiod_heap_node *node, uint64_t key);

/* `node` is in it. */
void aiod_heap_remove(struct aiod_heap *heap, struct aiod_heap_node *node);

/* Give it this key, whether it is in `heap` already or in none. */
void aiod_heap_set(struct aiod_heap *heap, struct aiod_heap_node *node, uint64_t key);

/* The smallest key; UINT64_MAX: empty. */
uint64_t aiod_heap_least(const struct aiod_heap *heap);

#endif
