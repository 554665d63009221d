/* The heap compared with a plain search, at random; and the shape that limits the cost of a step. */
#include "check.h"

#include "util/heap.h"

enum {
    NODES = 500,
    STEPS = 20000,
    MANY = 262144,
    RANK_MAX = 18 /* log2(MANY + 1), rounded down */
};

static struct aiod_heap heap;
static struct aiod_heap_node nodes[NODES];
static struct aiod_heap_node many[MANY];

static uint64_t chance = 1;

static uint64_t draw(uint64_t below)
{
    chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (chance >> 33) % below;
}

static uint64_t least_by_search(void)
{
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < NODES; i++) {
        if (nodes[i].rank != 0 && nodes[i].key < least) {
            least = nodes[i].key;
        }
    }
    return least;
}

static unsigned rank_of(const struct aiod_heap_node *node)
{
    return node != NULL ? node->rank : 0;
}

/* Every operation follows paths to the right, or up from one: they are as long as the ranks say, and short. */
static void check_shape(const struct aiod_heap_node *node)
{
    CHECK(node->rank == rank_of(node->right) + 1 && rank_of(node->left) >= rank_of(node->right));
    CHECK(node->left == NULL || (node->left->parent == node && node->left->key >= node->key));
    CHECK(node->right == NULL || (node->right->parent == node && node->right->key >= node->key));
}

static void the_least_key_matches_a_search(void)
{
    for (int step = 0; step < STEPS; step++) {
        struct aiod_heap_node *node = &nodes[draw(NODES)];

        if (node->rank == 0) {
            aiod_heap_insert(&heap, node, draw(100)); /* many equal keys */
        } else if (draw(2) == 0) {
            aiod_heap_remove(&heap, node);
        } else {
            aiod_heap_set(&heap, node, draw(100));
        }
        CHECK(aiod_heap_least(&heap) == least_by_search());
        for (int i = 0; i < NODES && step % 100 == 0; i++) {
            if (nodes[i].rank != 0) {
                check_shape(&nodes[i]);
            }
        }
    }
}

static void keys_come_out_in_order(void)
{
    uint64_t before = 0;

    while (heap.root != NULL) {
        struct aiod_heap_node *node = heap.root;

        CHECK(node->key >= before && node->parent == NULL);
        before = node->key;
        aiod_heap_remove(&heap, node);
        CHECK(node->rank == 0);
    }
    CHECK(aiod_heap_least(&heap) == UINT64_MAX && least_by_search() == UINT64_MAX);
}

/* Ascending keys, as deadlines are, and random ones; removed in the order of insertion, as from a queue, and by key. */
static void paths_stay_short(uint64_t (*key)(int))
{
    for (int i = 0; i < MANY; i++) {
        aiod_heap_insert(&heap, &many[i], key(i));
        CHECK(heap.root->rank <= RANK_MAX);
    }
    for (int i = 0; i < MANY / 2; i++) {
        aiod_heap_remove(&heap, &many[i]);
        CHECK(heap.root->rank <= RANK_MAX);
    }
    for (int i = MANY / 2; i < MANY; i++) {
        check_shape(&many[i]);
        CHECK(many[i].rank <= RANK_MAX);
    }
    keys_come_out_in_order();
}

static uint64_t growing(int i)
{
    return (uint64_t)i;
}

static uint64_t shrinking(int i)
{
    return (uint64_t)(MANY - i);
}

static uint64_t any(int i)
{
    (void)i;
    return draw(1000000);
}

int main(void)
{
    the_least_key_matches_a_search();
    keys_come_out_in_order();
    paths_stay_short(growing);
    paths_stay_short(shrinking);
    paths_stay_short(any);
    return 0;
}
