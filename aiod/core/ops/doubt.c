#include "ops/doubt.h"

static bool get(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static void set(bool *flag)
{
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

void aiod_doubt_enter(struct aiod_doubt *doubt, struct aiod_doubter *doubter, enum aiod_comer comer)
{
    if (comer == AIOD_COMER_SUSPECT) {
        set(&doubt->exists);
    }
    if (comer == AIOD_COMER_NEW && get(&doubt->told)) {
        set(&doubter->heard);
    }
}

bool aiod_doubt_is(const struct aiod_doubt *doubt, const struct aiod_doubter *doubter)
{
    return get(&doubt->exists) && !get(&doubter->heard);
}

bool aiod_doubt_tell(struct aiod_doubt *doubt, struct aiod_doubter *doubter)
{
    if (!get(&doubt->exists) || __atomic_exchange_n(&doubter->heard, true, __ATOMIC_ACQ_REL)) {
        return false;
    }
    set(&doubt->told);
    return true;
}
