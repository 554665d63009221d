/*
 * pool.pml - the protocol of the worker pool (aiod/core/pool/pool.c, spawner.c, worker.c), for spin to search exhaustively.
 *
 * One step here is one critical section under pool->lock there, or one system call outside it: a post of a worker's
 * semaphore, a write to or a read of the doorbell (an eventfd), pthread_create. Names are those of the C code.
 *
 * Threads that stand at the same instruction are alike: they are counted, not told apart, which divides the number of
 * states by that of their permutations. So are requests. For the same reason the stack of sleepers is a number: which of
 * them is woken changes nothing here.
 *
 * Time is not modelled. An idle timeout may pass at any moment, and from some moment on none passes any more
 * (`idle_timeouts`), lest a worker that happens to look at the queue hide a lost wake-up. The belt, which would hide one
 * too, is left out.
 *
 * Stuck workers (active_requests.c) add to max_threads, and take away again: that is the main loop's raising of a limit, and a lowering
 * by which a worker that is awake leaves. Both are steps of a resize, so it has none of its own; nor are the requests in service.
 *
 * What is checked (test_pool_model.py runs it):
 *   - check_state() holds after every critical section: the invariants of the design;
 *   - there is no cycle of states, so every run ends (pan -l, with no state marked as progress);
 *   - each state in which a run ends is as it should be (init): every request has ended, no thread is owed or on its way,
 *     and a pool that was stopped has been freed.
 *
 * The macros below choose a scenario, and MISTAKE one deliberate mistake, which spin has to find.
 */

#ifndef MAX
#define MAX 2 /* max_threads at first */
#endif
#ifndef MIN
#define MIN 0 /* min_threads at first */
#endif
#ifndef SUBMITTERS
#define SUBMITTERS 2
#endif
#ifndef REQUESTS
#define REQUESTS 2 /* of each submitter, in batches of any size */
#endif
#ifndef CANCELS
#define CANCELS 0 /* how many requests each submitter may cancel */
#endif
#ifndef RESIZES
#define RESIZES 0 /* how often the limits may change: max_threads to 1 .. MAX, min_threads to 0 .. max_threads */
#endif
#ifndef FAILURES
#define FAILURES 0 /* how many creations may fail */
#endif
#ifndef IDLE_EXIT
#define IDLE_EXIT 0 /* 1: idle timeouts may pass */
#endif
#ifndef STOP
#define STOP 0 /* 1: when all has been submitted, the pool is stopped at any moment, and freed */
#endif
#ifndef BARRIER
#define BARRIER 0 /* 1: no request ends before all have been begun */
#endif
#ifndef MISTAKE
#define MISTAKE none
#endif

#define ALWAYS 255 /* FAILURES: every creation fails */
#define REQUESTS_TOTAL (SUBMITTERS * REQUESTS)

mtype = {
    none,
    supply_counts_the_waking_twice,
    doorbell_is_not_rung,
    newborn_creates_none,
    newborn_stays_pending_too_long,
    none_created_when_the_queue_is_empty,
    rollback_forgets_the_owed,
    rollback_forgets_itself,
    failure_rings_no_doorbell,
    requests_wait_for_no_thread_forever,
    submitter_wakes_nobody,
    woken_wakes_nobody,
    leaver_hands_no_wake_up_on,
    idle_leaves_though_chosen,
    idle_leaves_a_queue,
    idle_leaves_below_the_least,
    idle_takes_no_post,
    shrink_wakes_nobody,
    stop_wakes_nobody,
    last_one_tells_nobody
};
#define mistaken(name) (MISTAKE == name)

/* ---- the pool (pool_state.h): protected by lock ---------------------------------------------------------------------- */

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
bool waiting;  /* the stopper waits for all_left */
bool all_left; /* signalled to it */
bool freed;    /* aiod_pool_destroy() */

/* ---- where threads stand --------------------------------------------------------------------------------------------- */

#define SPAWN_FAN_OUT 2
#define WAKE_FAN_OUT 2

byte created;                     /* by pthread_create: has executed nothing yet */
byte born[SPAWN_FAN_OUT + 1];     /* newborns by the spawn steps that they may yet make; with 0, the queue is next */
byte creating[SPAWN_FAN_OUT + 1]; /* newborns in pthread_create, by the same */
byte failed;                      /* newborns with a creation that failed: ring the doorbell next */
byte working[WAKE_FAN_OUT + 1];   /* with a request, by the posts to make before carrying it out */
byte chosen;                      /* wait for a post that is on its way */
byte posted;                      /* the post has been made */
byte posting;                     /* have left the pool, and make one last post */

/* ---- outside the pool ------------------------------------------------------------------------------------------------ */

bool doorbell;                /* readable */
bool armed;                   /* the main loop's timer */
byte failures = FAILURES;     /* creations that may yet fail */
byte patience = FAILURES > 0; /* timers that may yet find that no request has waited for too long */
bool idle_timeouts = IDLE_EXIT;

/* For the checks alone. */
byte submitters = SUBMITTERS; /* still at it */
byte ended;                   /* requests on the done list */
byte ringing;                 /* who rings the doorbell next; and the main loop, when a spawn step is its next */
byte threads_allowed;         /* max_threads, or what is left above it since a shrink */

/* Of one step, never of a state. */
hidden byte supply;
hidden byte had_backlog;

/* ---- the invariants: after every critical section -------------------------------------------------------------------- */

#define newborns (born[0] + born[1] + born[2] + creating[1] + creating[2] + failed)

inline check_state()
{
    assert(!freed);
    assert(cur_threads == asleep_threads + waking_threads + active_threads + pending_threads + new_threads);
    assert(cur_threads <= threads_allowed);
    threads_allowed = (cur_threads > max_threads -> cur_threads : max_threads);
    /* No lost wake-up: a request never waits beside a sleeper with no wake-up on its way. */
    assert(queued == 0 || asleep_threads == 0 || waking_threads > 0);
    /* No chain dies with a backlog. */
    assert(new_threads == 0 || pending_threads > 0 || doorbell || ringing > 0 || born[1] + born[2] > 0);
    /* A burst has the threads that it needs. */
    assert(queued <= asleep_threads + waking_threads + new_threads + pending_threads + newborns ||
           cur_threads >= max_threads || retry || stopping);
    /* No attempt before its time: while creation is known to fail, none is owed. */
    assert(!retry || new_threads == 0)
}

/* ---- waking (worker.c) ----------------------------------------------------------------------------------------------- */

/* aiod_pool_choose_sleeper(). `woken`: how many posts the caller has to make. */
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

/* aiod_pool_post_chosen(), then the doorbell if it has to be rung. */
inline post_and_ring(woken, ring)
{
    do
    :: d_step { woken > 0 -> woken--; post() }
    :: d_step { woken == 0 && ring -> ring = false; ring_doorbell() }
    :: woken == 0 && !ring -> break
    od
}

/* ---- creation (spawner.c) -------------------------------------------------------------------------------------------- */

/* aiod_spawner_add_backlog(). `ring`: the doorbell has to be rung. */
inline owe(ring)
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

/* aiod_spawner_step(), the first critical section. `creates`: a thread is to be created. */
inline begin_creation(creates)
{
    creates = new_threads > 0 && !(mistaken(none_created_when_the_queue_is_empty) && queued == 0);
    new_threads = new_threads - creates;
    pending_threads = pending_threads + creates
}

/* creation_failed(). That pthread_create failed is seen by nobody before it has the lock: both are one step. */
inline fail_creation()
{
    failures = (failures == ALWAYS -> ALWAYS : failures - 1);
    pending_threads--;
    cur_threads = cur_threads - !mistaken(rollback_forgets_itself);
    if
    :: mistaken(rollback_forgets_the_owed)
    :: else -> cur_threads = cur_threads - new_threads; new_threads = 0
    fi;
    retry = true;
    ringing++;
    check_state()
}

/* It rings so that the main loop arms its timer. */
inline ring_after_failure()
{
    if
    :: mistaken(failure_rings_no_doorbell) -> ringing--
    :: else -> ring_doorbell()
    fi
}

/* What a newborn does with `steps` spawn steps to make: start_worker(), aiod_spawner_step(). */
inline newborn_step(steps)
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

inline newborn_creates(steps)
{
    d_step {
        creating[steps] > 0 && failures != ALWAYS ->
        creating[steps]--;
        created++;
        born[steps - 1]++
    }
}

inline newborn_fails(steps)
{
    d_step {
        creating[steps] > 0 && failures > 0 ->
        creating[steps]--;
        failed++;
        fail_creation()
    }
}

/* ---- workers (worker.c) ---------------------------------------------------------------------------------------------- */

/* aiod_pool_leave(). What it owes is nothing: it leaves min_threads behind, and nothing queued or max_threads. */
inline leave()
{
    active_threads--;
    cur_threads--;
    if
    :: waking_threads == 0 && !mistaken(leaver_hands_no_wake_up_on) -> choose_sleepers(woken, 1)
    :: else
    fi;
    owe(ring);
    assert(!ring);
    all_left = all_left || (waiting && stopping && cur_threads == 0 && !mistaken(last_one_tells_nobody));
    posting = posting + woken
}

/* The loop of aiod_pool_work(), from where the lock was taken to where it is dropped. */
inline look_at_the_queue()
{
    if
    :: stopping || cur_threads > max_threads -> leave()
    :: else ->
        if
        :: queued == 0 -> active_threads--; asleep_threads++ /* idle() */
        :: else ->
            queued--;
            if
            :: !mistaken(woken_wakes_nobody) -> choose_sleepers(woken, WAKE_FAN_OUT)
            :: else
            fi;
            working[woken]++
        fi
    fi;
    woken = 0;
    check_state()
}

/* All threads of the pool: each step is that of one of them. */
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
            :: mistaken(newborn_stays_pending_too_long)
            :: else -> pending_threads--; active_threads++
            fi;
            born[(mistaken(newborn_creates_none) -> 0 : SPAWN_FAN_OUT)]++;
            check_state()
        }
    :: newborn_step(2)
    :: newborn_step(1)
    :: newborn_creates(2)
    :: newborn_creates(1)
    :: newborn_fails(2)
    :: newborn_fails(1)
    :: d_step {
            failed > 0 ->
            failed--;
            born[0]++;
            ring_after_failure()
        }
    /* aiod_pool_work(): first of all */
    :: d_step {
            born[0] > 0 ->
            born[0]--;
            if
            :: mistaken(newborn_stays_pending_too_long) -> pending_threads--; active_threads++
            :: else
            fi;
            look_at_the_queue()
        }
    /* with a request; that it has been carried out is seen by nobody before the lock is taken again: both are one step */
    :: d_step { working[2] > 0 -> working[2]--; working[1]++; post() }
    :: d_step { working[1] > 0 -> working[1]--; working[0]++; post() }
    :: d_step {
            working[0] > 0 && (!BARRIER || ended + working[0] + working[1] + working[2] == REQUESTS_TOTAL) ->
            working[0]--;
            ended++;
            look_at_the_queue()
        }
    /* idle(): posted; or timed out and chosen, and waited for the post in take_post() */
    :: d_step {
            posted > 0 ->
            posted--;
            waking_threads--;
            active_threads++;
            look_at_the_queue()
        }
    /* idle(): timed out; it would only sleep again if there were no queue and no thread too many */
    :: d_step {
            idle_timeouts && asleep_threads > 0 &&
            (queued > 0 || cur_threads > min_threads || mistaken(idle_leaves_below_the_least)) ->
            asleep_threads--;
            active_threads++;
            if
            :: queued > 0 && !mistaken(idle_leaves_a_queue) -> look_at_the_queue()
            :: else -> leave(); woken = 0; check_state()
            fi
        }
    :: d_step {
            (mistaken(idle_takes_no_post) || mistaken(idle_leaves_though_chosen)) && idle_timeouts && chosen > 0 ->
            chosen--;
            waking_threads--;
            active_threads++;
            if
            :: mistaken(idle_takes_no_post) -> look_at_the_queue()
            :: else -> leave(); woken = 0; check_state()
            fi
        }
    /* aiod_pool_leave(), after the lock */
    :: d_step { posting > 0 -> posting--; post() }
    od
}

/* ---- submitters (pool.c) --------------------------------------------------------------------------------------------- */

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
                owe(ring);
                if
                :: waking_threads == 0 && !mistaken(submitter_wakes_nobody) -> choose_sleepers(woken, 1)
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

/* ---- the main loop (pool.c, aiod/engine/pool_maintenance.py) ----------------------------------------------------------------- */

/* aiod_pool_resize(), until it drops the lock. */
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
        :: cur_threads > max_threads && !mistaken(shrink_wakes_nobody) ->
            choose_any(woken, cur_threads - max_threads)
        :: else
        fi;
        owe(ring);
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

/* aiod_pool_spawn(); then pool_changed() arms the timer, if aiod_pool_tick_wanted() says so. */
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

/* aiod_pool_tick(), when the time for aiod_spawner_retry() has come, or that of requests without any thread. */
inline tick()
{
    if
    :: d_step {
            armed ->
            armed = false;
            retry = false;
            owe(ring);
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
        :: patience > 0 || cur_threads > 0 || !retry || mistaken(requests_wait_for_no_thread_forever) ->
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
    :: !mistaken(stop_wakes_nobody) -> choose_any(woken, MAX)
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
