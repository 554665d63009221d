/* write_loss.c - atomic counts of a file and of its handles. */
#include "ops/write_loss.h"

static uint32_t get(const uint32_t *count)
{
    return __atomic_load_n(count, __ATOMIC_ACQUIRE);
}

static void set(uint32_t *count, uint32_t value)
{
    __atomic_store_n(count, value, __ATOMIC_RELEASE);
}

void aiod_write_loss_add_handle(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader,
                                enum aiod_handle_origin origin)
{
    if (origin == AIOD_HANDLE_SUSPECT && get(&loss->losses) == 0) {
        set(&loss->losses, 1);
    }
    if (origin == AIOD_HANDLE_NEW) {
        set(&reader->reported, get(&loss->reported));
    }
}

void aiod_write_loss_add(struct aiod_write_loss *loss)
{
    __atomic_fetch_add(&loss->losses, 1, __ATOMIC_ACQ_REL);
}

bool aiod_write_loss_unreported(const struct aiod_write_loss *loss, const struct aiod_write_loss_reader *reader)
{
    return get(&reader->reported) < get(&loss->losses);
}

bool aiod_write_loss_report(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader)
{
    uint32_t losses = get(&loss->losses);

    if (losses == 0 || __atomic_exchange_n(&reader->reported, losses, __ATOMIC_ACQ_REL) >= losses) {
        return false;
    }
    set(&loss->reported, losses);
    return true;
}
