/* collect.c - the timer. */
#include "ring/collect.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

int aiod_collect_timer_init(struct aiod_collect_timer *timer)
{
    timer->armed = false;
    timer->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return timer->fd < 0 ? -errno : 0;
}

void aiod_collect_timer_destroy(struct aiod_collect_timer *timer)
{
    close(timer->fd);
}

void aiod_collect_timer_expired(struct aiod_collect_timer *timer)
{
    uint64_t times;

    (void)!read(timer->fd, &times, sizeof(times));
    /* before the main loop looks: what is added after its look arms the timer again */
    __atomic_store_n(&timer->armed, false, __ATOMIC_SEQ_CST);
}

void aiod_collect_timer_arm(struct aiod_collect_timer *timer)
{
    const struct itimerspec once = {.it_value = {.tv_nsec = AIOD_COLLECT_AFTER_NS}};

    if (!__atomic_load_n(&timer->armed, __ATOMIC_SEQ_CST) &&
        !__atomic_exchange_n(&timer->armed, true, __ATOMIC_SEQ_CST)) {
        timerfd_settime(timer->fd, 0, &once, NULL);
    }
}
