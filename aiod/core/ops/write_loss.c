/* write_loss.c - atomic flags of a file and of its handles. */
#include "ops/write_loss.h"

static bool get(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static void set(bool *flag)
{
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

void aiod_write_loss_add_handle(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader,
                                enum aiod_handle_origin origin)
{
    if (origin == AIOD_HANDLE_SUSPECT) {
        set(&loss->possible);
    }
    if (origin == AIOD_HANDLE_NEW && get(&loss->reported)) {
        set(&reader->reported);
    }
}

bool aiod_write_loss_unreported(const struct aiod_write_loss *loss, const struct aiod_write_loss_reader *reader)
{
    return get(&loss->possible) && !get(&reader->reported);
}

bool aiod_write_loss_report(struct aiod_write_loss *loss, struct aiod_write_loss_reader *reader)
{
    if (!get(&loss->possible) || __atomic_exchange_n(&reader->reported, true, __ATOMIC_ACQ_REL)) {
        return false;
    }
    set(&loss->reported);
    return true;
}
