/*
 * lock_watch.h - how long one mutex is held: pthread_mutex_lock() and its counterpart, wrapped by the linker (--wrap).
 */
#ifndef LOCK_WATCH_H
#define LOCK_WATCH_H

#include <pthread.h>

/* Measure from now on how long `lock` is held each time. */
void lock_watch_start(pthread_mutex_t *lock);

/* Print the times measured so far (ns), comma-separated. */
void lock_watch_print(void);

#endif
