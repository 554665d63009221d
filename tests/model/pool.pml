/*
 * pool.pml - a model of the worker pool (aiod/core/pool/pool.c, spawner.c, worker.c), which spin searches exhaustively.
 *
 * One step of the model is a critical section under pool->lock, or a system call outside it: a post of a worker's
 * semaphore, a write to or a read of the doorbell (an eventfd), pthread_create(). The names are those of the C code.
 *
 * Threads at the same instruction are interchangeable: the model counts them, which divides the number of states by
 * that of their permutations. The same holds for requests. For this reason the stack of sleepers is a number: which of
 * them is woken makes no difference here.
 *
 * Time is not modelled. An idle timeout may pass at any moment, and from some moment on none passes any more
 * (`idle_timeouts`): otherwise a worker that happens to look at the queue could hide a lost wake-up. The recovery of
 * lost wake-ups, which would hide one as well, is left out.
 *
 * Stuck workers (active_requests.c) raise the limit of workers, and lower it again. That equals a raise of the limit by
 * the main loop, and a decrease after which an awake worker exits. Both are steps of a resize, so stuck workers have
 * none of their own; active requests have none either.
 *
 * Checked properties (test_pool_model.py runs the search):
 * - check_state() holds after every critical section: the pool's invariants.
 * - There is no cycle of states, so every run ends (pan -l, with no state marked as progress).
 * - Each final state is correct (init): every request has ended, the backlog is empty, no thread is being created, and
 *   a stopped pool has been freed.
 *
 * The macros below choose a scenario. `mistake` is a deliberate mistake, which spin must find.
 */

#ifndef MAX
#define MAX 2 /* initial max_threads */
#endif
#ifndef MIN
#define MIN 0 /* initial min_threads */
#endif
#ifndef SUBMITTERS
#define SUBMITTERS 2
#endif
#ifndef REQUESTS
#define REQUESTS 2 /* per submitter, in batches of any size */
#endif
#ifndef CANCELS
#define CANCELS 0 /* requests that each submitter may cancel */
#endif
#ifndef RESIZES
#define RESIZES 0 /* changes of the limits: max_threads to 1 .. MAX, min_threads to 0 .. max_threads */
#endif
#ifndef FAILURES
#define FAILURES 0 /* creations that may fail */
#endif
#ifndef IDLE_EXIT
#define IDLE_EXIT 0 /* 1: idle timeouts may pass */
#endif
#ifndef STOP
#define STOP 0 /* 1: after all submissions the pool is stopped at any moment, and freed */
#endif
#ifndef BARRIER
#define BARRIER 0 /* 1: no request ends before all have started */
#endif

#define ALWAYS 255 /* FAILURES: every creation fails */
#define REQUESTS_TOTAL (SUBMITTERS * REQUESTS)

mtype = {
    none,
    supply_counts_the_waking_twice,
    doorbell_is_not_rung,
    new_worker_creates_none,
    new_worker_stays_pending_too_long,
    none_created_when_the_queue_is_empty,
    rollback_forgets_the_backlog,
    rollback_forgets_itself,
    failure_rings_no_doorbell,
    requests_without_threads_never_fail,
    submitter_wakes_none,
    woken_worker_wakes_none,
    exiting_worker_wakes_none,
    idle_worker_exits_though_chosen,
    idle_worker_exits_beside_a_queue,
    idle_worker_exits_below_min_threads,
    idle_worker_consumes_no_post,
    shrink_wakes_none,
    stop_wakes_none,
    last_worker_signals_none
};
hidden byte mistake; /* of these; given to the verifier when it runs */
#define mistaken(name) (mistake == name)

/* ---- the pool (pool_state.h): protected by lock ------------------------------------------------------------------ */

byte queued;
bool stopping;
byte max_threads;
byte min_threads;
byte cur_threads;
byte asleep_threads;
byte waking_threads;
byte active_threads;
byte new_threads;
byte pending_threads;
bool retry;    /* retry_at_ns != 0 */
bool waiting;  /* the stopping thread waits for all_left */
bool all_left; /* signalled to the stopping thread */
bool freed;    /* aiod_pool_destroy() */

/* ---- positions of threads ---------------------------------------------------------------------------------------- */

#define SPAWN_FAN_OUT 2
#define WAKE_FAN_OUT 2

byte created;                     /* by pthread_create(), at its first instruction */
/* new workers, by the number of spawn steps that they may still make; with 0, the queue is next */
byte born[SPAWN_FAN_OUT + 1];
byte creating[SPAWN_FAN_OUT + 1]; /* new workers in pthread_create(), by the same number */
byte failed;                      /* new workers after a failed creation: they ring the doorbell next */
byte working[WAKE_FAN_OUT + 1];   /* workers with a request, by the number of posts to make before they carry it out */
byte chosen;                      /* chosen workers whose post is still to come */
byte posted;                      /* chosen workers whose post has been made */
byte posting;                     /* workers that have exited the pool, and make a last post */

/* ---- outside the pool -------------------------------------------------------------------------------------------- */

bool doorbell;                /* readable */
bool armed;                   /* the main loop's timer is set */
byte failures = FAILURES;     /* creations that may still fail */
byte patience = FAILURES > 0; /* timers that may still find that no request has waited too long */
bool idle_timeouts = IDLE_EXIT;

/* For the checks only. */
byte submitters = SUBMITTERS; /* submitters that have not finished */
byte ended;                   /* requests on the done list */
byte ringing;                 /* threads that ring the doorbell next, and the main loop if a spawn step is next */
byte threads_allowed;         /* max_threads, or the number of workers above it since a shrink */

/* Used within one step; not part of the state. */
hidden byte supply;
hidden byte had_backlog;

/* ---- invariants: after every critical section -------------------------------------------------------------------- */

#define new_workers (born[0] + born[1] + born[2] + creating[1] + creating[2] + failed)

inline check_state()
{
    assert(!freed);
    assert(cur_threads == asleep_threads + waking_threads + active_threads + pending_threads + new_threads);
    assert(cur_threads <= threads_allowed);
    threads_allowed = (cur_threads > max_threads -> cur_threads : max_threads);
    /* No lost wake-up: no request is queued while a worker sleeps without a wake-up on its way. */
    assert(queued == 0 || asleep_threads == 0 || waking_threads > 0);
    /* No chain ends with a backlog. */
    assert(new_threads == 0 || pending_threads > 0 || doorbell || ringing > 0 || born[1] + born[2] > 0);
    /* A burst has the threads that it needs. */
    assert(queued <= asleep_threads + waking_threads + new_threads + pending_threads + new_workers ||
           cur_threads >= max_threads || retry || stopping);
    /* No attempt before the back-off: while creation fails, the backlog is empty. */
    assert(!retry || new_threads == 0)
}

/* ---- waking (worker.c) ------------------------------------------------------------------------------------------- */

/* aiod_pool_choose_sleeper(). `woken`: the number of posts that the caller must make. */
inline choose_sleeper(woken)
{
    asleep_threads--;
    waking_threads++;
    chosen++;
    woken++
}

/* aiod_pool_choose_sleepers(). */
inline choose_sleepers(woken, limit)
{
    do
    :: woken < limit && asleep_threads > 0 && queued > waking_threads -> choose_sleeper(woken)
    :: else -> break
    od
}

/* choose_any(). */
inline choose_any(woken, limit)
{
    do
    :: woken < limit && asleep_threads > 0 -> choose_sleeper(woken)
    :: else -> break
    od
}

/* sem_post(). */
inline post()
{
    assert(!freed && chosen > 0);
    chosen--;
    posted++
}

/* aiod_pool_post_chosen(), then the doorbell if it must be rung. */
inline post_and_ring(woken, ring)
{
    do
    :: d_step { woken > 0 -> woken--; post() }
    :: d_step { woken == 0 && ring -> ring = false; ring_doorbell() }
    :: woken == 0 && !ring -> break
    od
}

/* ---- creation (spawner.c) ---------------------------------------------------------------------------------------- */

/* aiod_spawner_add_backlog(). `ring`: the doorbell must be rung. */
inline add_backlog(ring)
{
    supply = asleep_threads + waking_threads + new_threads + pending_threads;
    if
    :: mistaken(supply_counts_the_waking_twice) -> supply = supply + waking_threads
    :: else
    fi;
    had_backlog = new_threads > 0;
    if
    :: stopping || retry
    :: else ->
        do
        :: (queued > supply || cur_threads < min_threads) && cur_threads < max_threads ->
            cur_threads++;
            new_threads++;
            supply++
        :: else -> break
        od;
        ring = new_threads > 0 && !had_backlog && pending_threads == 0 && !mistaken(doorbell_is_not_rung);
        ringing = ringing + ring
    fi
}

/* aiod_eventfd_ring(). */
inline ring_doorbell()
{
    assert(!freed);
    doorbell = true;
    ringing--
}

/* The first critical section of aiod_spawner_step(). `creates`: a thread must be created. */
inline begin_creation(creates)
{
    creates = new_threads > 0 && !(mistaken(none_created_when_the_queue_is_empty) && queued == 0);
    new_threads = new_threads - creates;
    pending_threads = pending_threads + creates
}

/*
 * creation_failed(). No other thread sees the failure of pthread_create() before the lock is taken: both are one step.
 */
inline fail_creation()
{
    failures = (failures == ALWAYS -> ALWAYS : failures - 1);
    pending_threads--;
    cur_threads = cur_threads - !mistaken(rollback_forgets_itself);
    if
    :: mistaken(rollback_forgets_the_backlog)
    :: else -> cur_threads = cur_threads - new_threads; new_threads = 0
    fi;
    retry = true;
    ringing++;
    check_state()
}

/* The doorbell makes the main loop set its timer. */
inline ring_after_failure()
{
    if
    :: mistaken(failure_rings_no_doorbell) -> ringing--
    :: else -> ring_doorbell()
    fi
}

/* A new worker with `steps` spawn steps to make: start_worker(), aiod_spawner_step(). */
inline new_worker_step(steps)
{
    d_step {
        born[steps] > 0 ->
        born[steps]--;
        begin_creation(creates);
        if
        :: creates -> creating[steps]++
        :: else -> born[0]++
        fi;
        creates = false;
        check_state()
    }
}

inline new_worker_creates(steps)
{
    d_step {
        creating[steps] > 0 && failures != ALWAYS ->
        creating[steps]--;
        created++;
        born[steps - 1]++
    }
}

inline new_worker_fails(steps)
{
    d_step {
        creating[steps] > 0 && failures > 0 ->
        creating[steps]--;
        failed++;
        fail_creation()
    }
}

/* ---- workers (worker.c) ------------------------------------------------------------------------------------------ */

/*
 * aiod_pool_exit_worker(). Nothing is added to the backlog: min_threads workers remain, and the queue is empty or max_threads
 * are reached.
 */
inline exit_worker()
{
    active_threads--;
    cur_threads--;
    if
    :: waking_threads == 0 && !mistaken(exiting_worker_wakes_none) -> choose_sleepers(woken, 1)
    :: else
    fi;
    add_backlog(ring);
    assert(!ring);
    all_left = all_left || (waiting && stopping && cur_threads == 0 && !mistaken(last_worker_signals_none));
    posting = posting + woken
}

/* The loop of aiod_pool_run_worker(), from taking the lock to dropping it. */
inline look_at_the_queue()
{
    if
    :: stopping || cur_threads > max_threads -> exit_worker()
    :: else ->
        if
        :: queued == 0 -> active_threads--; asleep_threads++ /* wait_idle() */
        :: else ->
            queued--;
            if
            :: !mistaken(woken_worker_wakes_none) -> choose_sleepers(woken, WAKE_FAN_OUT)
            :: else
            fi;
            working[woken]++
        fi
    fi;
    woken = 0;
    check_state()
}

/* All threads of the pool: each step is one thread's. */
proctype workers()
{
    byte woken;
    bool creates;
    bool ring;

end:
    do
    /* start_worker() */
    :: d_step {
            created > 0 ->
            created--;
            if
            :: mistaken(new_worker_stays_pending_too_long)
            :: else -> pending_threads--; active_threads++
            fi;
            born[(mistaken(new_worker_creates_none) -> 0 : SPAWN_FAN_OUT)]++;
            check_state()
        }
    :: new_worker_step(2)
    :: new_worker_step(1)
    :: new_worker_creates(2)
    :: new_worker_creates(1)
    :: new_worker_fails(2)
    :: new_worker_fails(1)
    :: d_step {
            failed > 0 ->
            failed--;
            born[0]++;
            ring_after_failure()
        }
    /* aiod_pool_run_worker(): the first turn */
    :: d_step {
            born[0] > 0 ->
            born[0]--;
            if
            :: mistaken(new_worker_stays_pending_too_long) -> pending_threads--; active_threads++
            :: else
            fi;
            look_at_the_queue()
        }
    /* with a request; no other thread sees its end before the lock is taken again: both are one step */
    :: d_step { working[2] > 0 -> working[2]--; working[1]++; post() }
    :: d_step { working[1] > 0 -> working[1]--; working[0]++; post() }
    :: d_step {
            working[0] > 0 && (!BARRIER || ended + working[0] + working[1] + working[2] == REQUESTS_TOTAL) ->
            working[0]--;
            ended++;
            look_at_the_queue()
        }
    /* wait_idle(): posted; or timed out and chosen, and waited for the post in take_post() */
    :: d_step {
            posted > 0 ->
            posted--;
            waking_threads--;
            active_threads++;
            look_at_the_queue()
        }
    /* wait_idle(): timed out; without a queue, and with at most min_threads workers, it would only sleep again */
    :: d_step {
            idle_timeouts && asleep_threads > 0 &&
            (queued > 0 || cur_threads > min_threads || mistaken(idle_worker_exits_below_min_threads)) ->
            asleep_threads--;
            active_threads++;
            if
            :: queued > 0 && !mistaken(idle_worker_exits_beside_a_queue) -> look_at_the_queue()
            :: else -> exit_worker(); woken = 0; check_state()
            fi
        }
    :: d_step {
            (mistaken(idle_worker_consumes_no_post) || mistaken(idle_worker_exits_though_chosen)) && idle_timeouts && chosen > 0 ->
            chosen--;
            waking_threads--;
            active_threads++;
            if
            :: mistaken(idle_worker_consumes_no_post) -> look_at_the_queue()
            :: else -> exit_worker(); woken = 0; check_state()
            fi
        }
    /* aiod_pool_exit_worker(), after the lock was dropped */
    :: d_step { posting > 0 -> posting--; post() }
    od
}

/* ---- submitters (pool.c) ----------------------------------------------------------------------------------------- */

/* aiod_pool_submit(), aiod_pool_cancel(). */
proctype submitter()
{
    byte left = REQUESTS;
    byte cancels = CANCELS;
    byte batch;
    byte woken;
    bool ring;

    do
    :: d_step { woken > 0 -> woken--; post() }
    :: d_step { woken == 0 && ring -> ring = false; ring_doorbell() }
    :: atomic {
            woken == 0 && !ring && left > 0 ->
            select(batch : 1 .. left);
            d_step {
                left = left - batch;
                queued = queued + batch;
                batch = 0;
                add_backlog(ring);
                if
                :: waking_threads == 0 && !mistaken(submitter_wakes_none) -> choose_sleepers(woken, 1)
                :: else
                fi;
                check_state()
            }
        }
    :: d_step {
            woken == 0 && !ring && cancels > 0 && queued > 0 ->
            cancels--;
            queued--;
            ended++;
            check_state()
        }
    :: d_step { woken == 0 && !ring && left == 0 -> cancels = 0; submitters-- } break
    od
}

/* ---- the main loop (pool.c, aiod/engine/pool_maintenance.py) ----------------------------------------------------- */

/* aiod_pool_resize(), until it drops the lock */
inline resize(max, min)
{
    d_step {
        max_threads = max;
        min_threads = min;
        do
        :: cur_threads > max_threads && new_threads > 0 -> new_threads--; cur_threads--
        :: else -> break
        od;
        if
        :: cur_threads > max_threads && !mistaken(shrink_wakes_none) ->
            choose_any(woken, cur_threads - max_threads)
        :: else
        fi;
        add_backlog(ring);
        threads_allowed = (cur_threads > max_threads -> cur_threads : max_threads);
        check_state()
    }
}

/* aiod_spawner_step(). */
inline main_loop_step()
{
    d_step {
        ringing--;
        begin_creation(creates);
        check_state()
    }
    if
    :: creates ->
        if
        :: failures != ALWAYS -> created++
        :: d_step { failures > 0 -> fail_creation() }
            d_step { ring_after_failure() }
        fi
    :: else
    fi
}

/* aiod_pool_spawn(); then the main loop sets its timer if aiod_pool_tick_wanted() asks for it. */
inline answer_doorbell()
{
    d_step {
        doorbell ->
        doorbell = false;
        ringing++
    }
    main_loop_step();
    d_step {
        creates = false;
        armed = armed || retry
    }
}

/* aiod_pool_tick(): creation is retried, or requests without any thread have waited too long. */
inline tick()
{
    if
    :: d_step {
            armed ->
            armed = false;
            retry = false;
            add_backlog(ring);
            ringing = ringing + !ring;
            ring = false;
            check_state()
        }
        main_loop_step()
    :: d_step {
            armed && cur_threads == 0 && queued > 0 ->
            armed = false;
            patience = 0
        }
    fi;
    d_step {
        creates = false;
        if
        :: patience > 0 || cur_threads > 0 || !retry || mistaken(requests_without_threads_never_fail) ->
            patience = 0
        :: else -> ended = ended + queued; queued = 0
        fi;
        check_state()
    }
    armed = retry
}

/* aiod_pool_stop(), until it first drops the lock. */
inline begin_stop()
{
    stopping = true;
    ended = ended + queued;
    queued = 0;
    cur_threads = cur_threads - new_threads;
    new_threads = 0;
    if
    :: !mistaken(stop_wakes_none) -> choose_any(woken, MAX)
    :: else
    fi;
    check_state()
}

/* wait_all_left(), then aiod_pool_destroy(). */
inline wait_all_left()
{
    waiting = cur_threads > 0;
    do
    :: d_step { waiting && all_left -> all_left = false; waiting = cur_threads > 0 }
    :: d_step { !waiting -> freed = true } break
    od
}

proctype main_loop()
{
    byte resizes = RESIZES;
    byte max;
    byte min;
    byte woken;
    bool creates;
    bool ring;

    resize(MAX, MIN); /* aiod_pool_create() */
    post_and_ring(woken, ring);
end:
    do
    :: answer_doorbell()
    :: tick()
    :: atomic {
            resizes > 0 ->
            resizes--;
            select(max : 1 .. MAX);
            select(min : 0 .. max);
            resize(max, min);
            max = 0;
            min = 0
        }
        post_and_ring(woken, ring)
    :: d_step { idle_timeouts -> idle_timeouts = false }
    :: d_step { STOP && submitters == 0 -> begin_stop() }
        post_and_ring(woken, ring);
        wait_all_left();
        break
    od
}

init
{
    byte n;

    atomic {
        run main_loop();
        run workers();
        do
        :: n < SUBMITTERS -> run submitter(); n++
        :: else -> break
        od
    }
    timeout ->
    assert(submitters == 0 && ended == REQUESTS_TOTAL && queued == 0);
    assert(new_threads == 0 && pending_threads == 0 && waking_threads == 0 && active_threads == 0);
    assert(freed == STOP);
    assert(freed || !retry && min_threads <= cur_threads && cur_threads <= max_threads)
}
