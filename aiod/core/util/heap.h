/*
 * heap.h - a priority queue whose nodes are embedded in its elements, so that it allocates nothing.
 *
 * Algorithm: leftist tree (Crane, Linear Lists and Priority Queues as Balanced Binary Trees, 1972; Knuth, The Art of
 * Computer Programming, 5.2.3). Insertion and removal take O(log n) in the worst case, not only on average. The pool's
 * lock is held meanwhile, so the worst case counts: with 262,144 requests the hold time is about the same as with a
 * few.
 *
 * The heap has no lock. The caller serialises access.
 */
#ifndef AIOD_HEAP_H
#define AIOD_HEAP_H

#include <stdint.h>

/* All zero while the node is in no heap. */
struct aiod_heap_node {
    uint64_t key;
    unsigned rank; /* nodes on the path that always goes right, this node included; 0: in no heap */
    struct aiod_heap_node *left;
    struct aiod_heap_node *right; /* its rank is at most the rank of `left` */
    struct aiod_heap_node *parent;
};

struct aiod_heap {
    struct aiod_heap_node *root; /* the node with the smallest key; NULL: empty */
};

/* Insert a node that is in no heap. */
void aiod_heap_insert(struct aiod_heap *heap, struct aiod_heap_node *node, uint64_t key);

/* Remove a node that is in this heap. */
void aiod_heap_remove(struct aiod_heap *heap, struct aiod_heap_node *node);

/* Insert the node with this key, or change its key if it is in this heap already. */
void aiod_heap_set(struct aiod_heap *heap, struct aiod_heap_node *node, uint64_t key);

/* The smallest key; UINT64_MAX if the heap is empty. */
uint64_t aiod_heap_least(const struct aiod_heap *heap);

#endif
