/* heap.c - the leftist tree: every change is a merge of two trees along their right paths. */
#include "util/heap.h"

#include <stdbool.h>
#include <stddef.h>

static unsigned rank_of(const struct aiod_heap_node *node)
{
    return node != NULL ? node->rank : 0;
}

/* Restore the order of the node's children and its rank. False: nothing changed. */
static bool settle(struct aiod_heap_node *node)
{
    unsigned before = node->rank;

    if (rank_of(node->left) < rank_of(node->right)) {
        struct aiod_heap_node *left = node->left;

        node->left = node->right;
        node->right = left;
    }
    node->rank = rank_of(node->right) + 1;
    return node->rank != before;
}

/* Merge two trees, either of which may be NULL: merge their right paths by key, then settle the nodes on that path. */
static struct aiod_heap_node *meld(struct aiod_heap_node *one, struct aiod_heap_node *other)
{
    struct aiod_heap_node *root = NULL;
    struct aiod_heap_node **link = &root;
    struct aiod_heap_node *parent = NULL;

    while (one != NULL && other != NULL) {
        struct aiod_heap_node *least = other->key < one->key ? other : one;

        other = least == one ? other : one;
        one = least->right;
        *link = least;
        least->parent = parent;
        link = &least->right;
        parent = least;
    }
    *link = one != NULL ? one : other;
    if (*link != NULL) {
        (*link)->parent = parent;
    }
    for (; parent != NULL; parent = parent->parent) {
        settle(parent);
    }
    return root;
}

void aiod_heap_insert(struct aiod_heap *heap, struct aiod_heap_node *node, uint64_t key)
{
    *node = (struct aiod_heap_node){.key = key, .rank = 1};
    heap->root = meld(heap->root, node);
}

void aiod_heap_remove(struct aiod_heap *heap, struct aiod_heap_node *node)
{
    struct aiod_heap_node *parent = node->parent;
    struct aiod_heap_node *rest = meld(node->left, node->right);

    if (rest != NULL) {
        rest->parent = parent;
    }
    if (parent == NULL) {
        heap->root = rest;
    } else if (parent->left == node) {
        parent->left = rest;
    } else {
        parent->right = rest;
    }
    while (parent != NULL && settle(parent)) {
        parent = parent->parent;
    }
    *node = (struct aiod_heap_node){0};
}

void aiod_heap_set(struct aiod_heap *heap, struct aiod_heap_node *node, uint64_t key)
{
    if (node->rank != 0) {
        aiod_heap_remove(heap, node);
    }
    aiod_heap_insert(heap, node, key);
}

uint64_t aiod_heap_least(const struct aiod_heap *heap)
{
    return heap->root != NULL ? heap->root->key : UINT64_MAX;
}
