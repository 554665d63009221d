/*
 * polling.pml - idle workers that poll the rings (aiod/core/pool/polling.c, aiod/core/ring/poller.c and apart.c), for spin
 * to search exhaustively.
 *
 * One step here is one critical section under pool->lock, one access to the ring's shared memory, or one system call. All
 * accesses to the shared memory are sequentially consistent in the C code, too. A client submits by a ring, another thread by
 * aiod_pool_submit(). No thread is created or ends: pool.pml searches that. Taking from a ring is one
 * step: ring.pml searches that. The recovery of lost wake-ups is left out: it would hide one.
 *
 * With STARTS, polling workers may start requests (aiod/core/pool/uring.c): no thread waits for them, but the worker that has
 * started one is bound until it has ended. Which requests can be started is not known: the model tries both. A completion
 * wakes its worker: the eventfd that another one may have consumed is left out. The other polling worker sleeps apart.
 *
 * What is checked (test_polling_model.py):
 *   - no more than LIMIT workers carry out requests, and no more than two poll;
 *   - no request waits beside an idle worker with no wake-up on its way;
 *   - a run ends only when all requests have ended and all workers are idle, and every run ends.
 *
 * `mistake` is one deliberate mistake, which spin has to find.
 */

#ifndef LIMIT
#define LIMIT 2 /* limit_threads */
#endif
#ifndef WORKERS
#define WORKERS 3 /* LIMIT + 1, or fewer: no more could be created; or more: the limit was lowered */
#endif
#ifndef BY_RING
#define BY_RING 3 /* requests */
#endif
#ifndef BY_MESSAGE
#define BY_MESSAGE 1
#endif
#ifndef BARRIER
/* no request ends before: 1: all have begun; 2: all have been submitted, and taken from the ring; 3: the same, but not for
 * those that were started; 4: all have begun, but only for those that were started */
#define BARRIER 0
#endif
#ifndef LANE
#define LANE 0 /* 1: the requests by ring are a lane (aiod/core/pool/lane.h) */
#endif
#ifndef STARTS
#define STARTS 0 /* 1: polling workers may start requests, and a leader gives the lead up once */
#endif

#define REQUESTS (BY_RING + BY_MESSAGE)
#define WAKE_FAN_OUT 2

mtype = {
    none,
    leader_does_not_look_again,
    last_one_takes_a_request,
    follower_leaves_no_mark,
    former_leader_ignores_the_mark,
    hand_over_wakes_nobody,
    follower_ignores_what_it_keeps,
    recall_of_the_last_one,
    stale_recall_is_followed,
    more_than_the_limit_take,
    ended_request_keeps_the_turn,
    turn_is_passed_on_too_late,
    ended_start_wakes_nobody,
    given_up_lead_wakes_nobody,
    apart_without_looking_for_the_other,
    apart_without_looking_for_a_recall,
    nobody_wakes_the_one_apart,
    recall_passes_the_one_apart
};
hidden byte mistake; /* of these; given to the verifier when it runs */
#define mistaken(name) (mistake == name)

/* The ring, and the poller's epoll set: edges that no thread has consumed. */
byte entries;
bool engine_sleeps = true;
bool doorbell;
bool bell;
byte bell_not_for; /* the worker that has passed it on is awake, and another one is woken: that worker, plus one */

/* The poller. */
bool led;
bool marked;     /* with `led`, one word */
byte pollers;    /* workers that are between lead() and the end of poll_as_worker() */
bool apart;      /* a follower sleeps apart, or is about to */
bool apart_rung; /* its eventfd */

/* The pool: protected by lock. */
byte queued;
byte in_lane;     /* of those: they wait for the turn of the lane */
bool lane_taken;  /* a request has the turn: it is queued, ... */
bool turn_queued; /* ... or carried out */
byte asleep_threads;
byte polling_threads;
byte waking_threads;
byte active_threads = WORKERS;
byte polling_users;
byte recalls;
bool recalled;
byte started_threads; /* requests that were started and have not ended: they count as threads do */
byte bound;           /* the worker that has started them, plus one; 0: none */
byte posts; /* of semaphores: sleepers are alike */

/* For the checks alone. */
byte carrying;
byte begun;
byte ended;
byte submitters = 2;
bool may_give_up = STARTS;

#define recallable (polling_threads - (bound > 0))
#define has_idle (asleep_threads > 0 || polling_threads > (mistaken(recall_of_the_last_one) -> 0 : 1) && recallable > 0)
#define takeable(others) ((others) + started_threads < LIMIT || mistaken(more_than_the_limit_take) -> queued - in_lane : 0)

inline check_state()
{
    assert(carrying + started_threads <= LIMIT);
    assert((bound > 0) == (started_threads > 0));
    assert(polling_users <= 2);
    assert(WORKERS == asleep_threads + polling_threads + waking_threads + active_threads);
    assert(!turn_queued || lane_taken);
    assert(queued == in_lane || waking_threads > 0 || active_threads >= LIMIT ||
           (asleep_threads == 0 && polling_threads < 2) || active_threads > 0 || started_threads > 0)
}

#define may_end (BARRIER == 0 || BARRIER == 4 || BARRIER == 1 && begun == REQUESTS || (BARRIER == 2 || BARRIER == 3) && submitters == 0 && entries == 0)
#define started_may_end (BARRIER == 3 || BARRIER == 4 && begun == REQUESTS || BARRIER < 3 && may_end)

/* aiod_pool_choose_sleepers(); `to_post` and `to_ring`: what the caller does after it dropped the lock. */
inline choose(limit)
{
    count = 0;
    do
    :: count < limit && has_idle && takeable(active_threads + waking_threads) > waking_threads ->
        if
        :: asleep_threads > 0 -> asleep_threads--; to_post++
        :: else -> polling_threads--; recalls++; recalled = true; to_ring = true
        fi;
        waking_threads++;
        count++
    :: else -> break
    od;
    count = 0
}

/* aiod_uring_take(): start a request, if one can be started. */
inline start(polls)
{
    if
    :: STARTS && polls && !keeps && (bound == 0 || bound == _pid + 1) &&
       takeable(active_threads + waking_threads) > 0 ->
        queued--;
        begun++;
        started++;
        started_threads++;
        bound = _pid + 1
    :: true
    fi
}

/* aiod_pool_submit(), until it drops the lock. `polls`: the caller is a polling worker. */
inline submit(polls, laned)
{
    queued++;
    if
    :: laned && lane_taken -> in_lane++
    :: laned && !lane_taken -> lane_taken = true; turn_queued = true
    :: else
    fi;
    start(polls);
    if
    :: polls && !keeps && started == 0 && polling_threads > (mistaken(last_one_takes_a_request) -> 0 : 1) &&
       takeable(active_threads + waking_threads) > waking_threads ->
        polling_threads--;
        waking_threads++;
        keeps = true
    :: else
    fi;
    if
    :: waking_threads == 0 -> choose(1)
    :: else
    fi;
    check_state()
}

inline ring_bell()
{
    atomic { bell = true; bell_not_for = 0 }
}

/* wake() */
inline wake_one()
{
    if
    :: apart && !mistaken(recall_passes_the_one_apart) -> apart_rung = true
    :: else -> ring_bell()
    fi
}

/* aiod_pool_post_chosen(). */
inline post()
{
    do
    :: to_post > 0 -> atomic { to_post--; posts++ }
    :: to_ring -> to_ring = false; wake_one()
    :: to_post == 0 && !to_ring -> break
    od
}

/* aiod_ring_take() of one entry, if there is one: it is answered inline, or submitted. */
inline take(polls)
{
    atomic {
        if
        :: entries > 0 ->
            entries--;
            if
            :: BARRIER != 1 && BARRIER != 4 -> begun++; ended++
            :: submit(polls, LANE)
            fi
        :: else
        fi
    }
    post()
}

/* deliver(): the completion, and a look at the ring. */
inline deliver(polls)
{
    if
    :: finished ->
        finished = false;
        ended++;
        if
        :: STARTS /* it could have been started: the next ones are left to polling workers */
        :: take(polls)
        fi
    :: else
    fi
}

inline try_to_lead()
{
    atomic {
        leads = !led;
        marked = led && (marked || !mistaken(follower_leaves_no_mark));
        led = true
    }
    if
    :: leads -> engine_sleeps = false
    :: else
    fi
}

inline hand_over()
{
    atomic {
        keeps = false;
        waking_threads--;
        polling_threads++;
        if
        :: waking_threads == 0 && !mistaken(hand_over_wakes_nobody) -> choose(1)
        :: else
        fi
    }
    post()
}

/* take_kept() */
inline take_kept()
{
    engine_sleeps = true;
    if
    :: entries == 0 && !recalled || mistaken(leader_does_not_look_again) -> stops = true
    :: else -> engine_sleeps = false
    fi;
    if
    :: stops
    :: else -> hand_over()
    fi
}

/* aiod_uring_turn(): a request that was started has ended. In an atomic sequence. */
inline end_started()
{
    started--;
    started_threads--;
    bound = (started == 0 -> 0 : bound);
    ended++;
    start(true);
    if
    :: waking_threads == 0 && !mistaken(ended_start_wakes_nobody) -> choose(1)
    :: else
    fi;
    check_state()
}

#define is_recalled (recalled && started == 0)

/* One turn of poll_rings(). `leads` is false when it is over. */
inline poll_rings()
{
    if
    :: keeps -> take_kept()
    :: else
    fi;
    if
    :: stops -> leads = false
    :: !stops && is_recalled ->
        engine_sleeps = true;
        if
        :: entries > 0 -> ring_bell()
        :: else
        fi;
        stops = true;
        leads = false
    :: !stops && !is_recalled ->
        if
        :: entries > 0 -> take(true)
        :: atomic { started > 0 && started_may_end -> end_started() }
            post()
        :: atomic { may_give_up && !keeps -> may_give_up = false }
            engine_sleeps = true;
            if
            :: entries > 0 && !mistaken(given_up_lead_wakes_nobody) -> ring_bell()
            :: else
            fi;
            leads = false
        :: else ->
            engine_sleeps = true;
            if
            :: entries > 0 || is_recalled -> engine_sleeps = false
            :: else -> leads = false
            fi
        fi
    fi
}

inline cease_to_lead()
{
    atomic {
        led = false;
        was_marked = marked && !mistaken(former_leader_ignores_the_mark);
        marked = false
    }
    if
    :: was_marked -> was_marked = false; ring_bell()
    :: else
    fi
}

/* aiod_apart_sleep(), if the other one is bound. */
inline sleep_apart()
{
    apart = true;
    if
    :: pollers > 1 || mistaken(apart_without_looking_for_the_other) ->
        if
        :: !recalled || mistaken(apart_without_looking_for_a_recall) ->
end_apart:
            apart_rung
        :: else
        fi
    :: else
    fi;
    apart = false;
    apart_rung = false
}

inline poll_as_worker()
{
    stops = false;
    do
    :: leads ->
        do
        :: leads -> poll_rings()
        :: else -> break
        od;
        cease_to_lead()
    :: !leads && !stops ->
        if
        :: keeps && !mistaken(follower_ignores_what_it_keeps) || is_recalled -> stops = true
        :: else ->
            if
            :: bound > 0 && started == 0 -> sleep_apart()
            :: else ->
end_polling:
                if
                :: atomic { doorbell -> doorbell = false }
                :: atomic { bell && bell_not_for != _pid + 1 -> bell = false; bell_not_for = 0 }
                :: atomic { started > 0 && started_may_end -> end_started() }
                    post()
                fi;
                if
                :: recalled && started > 0 ->
                    atomic { bell = true; bell_not_for = _pid + 1 }
                :: else
                fi
            fi;
            try_to_lead()
        fi
    :: !leads && stops -> break
    od;
    pollers--;
    if
    :: apart && !mistaken(nobody_wakes_the_one_apart) -> apart_rung = true
    :: else
    fi
}

/* aiod_polling_must_stop(), aiod_polling_leave(). `polls`: it polls on. */
inline leave()
{
    atomic {
        polls = !keeps && recalls == 0 && !mistaken(stale_recall_is_followed);
        if
        :: polls -> recalled = false
        :: else ->
            if
            :: keeps -> waking_threads--
            :: !keeps && recalls > 0 -> recalls--; waking_threads--
            :: else -> polling_threads--
            fi;
            keeps = false;
            polling_users--;
            active_threads++;
            recalled = recalls > 0;
            to_ring = recalled && polling_users > 0
        fi
    }
    post()
}

/* aiod_fair_queue_leave_lane(), after a request has ended. */
inline pass_turn()
{
    if
    :: has_turn && !mistaken(ended_request_keeps_the_turn) ->
        has_turn = false;
        if
        :: in_lane > 0 -> in_lane--; turn_queued = true
        :: else -> lane_taken = false
        fi
    :: else
    fi
}

active [WORKERS] proctype worker()
{
    bool has_turn, leads, keeps, stops, finished, to_ring, sleeps, polls, was_marked;
    byte to_post, count, started;

    do
    :: atomic {
            if
            :: !mistaken(turn_is_passed_on_too_late) -> pass_turn()
            :: else
            fi;
            if
            :: takeable(active_threads - 1) > 0 ->
                queued--;
                if
                :: turn_queued -> turn_queued = false; has_turn = true
                :: queued + 1 > in_lane + turn_queued /* another one */
                fi;
                choose(WAKE_FAN_OUT);
                begun++;
                carrying++
            :: else ->
                active_threads--;
                sleeps = polling_users == 2;
                polls = !sleeps;
                asleep_threads = asleep_threads + sleeps;
                polling_threads = polling_threads + polls;
                polling_users = polling_users + polls
            fi;
            if
            :: mistaken(turn_is_passed_on_too_late) && finished -> pass_turn()
            :: else
            fi;
            check_state()
        }
        if
        :: sleeps ->
            sleeps = false;
            deliver(false);
end_asleep:
            atomic { posts > 0 -> posts--; waking_threads--; active_threads++ }
        :: polls ->
            do
            :: polls ->
                pollers++;
                try_to_lead();
                deliver(true);
                poll_as_worker();
                leave()
            :: else -> break
            od
        :: else ->
            deliver(false);
            post();
            atomic { may_end -> carrying--; finished = true }
        fi
    od
}

active proctype client()
{
    byte left = BY_RING;

    do
    :: left > 0 ->
        left--;
        entries++;
        if
        :: engine_sleeps -> doorbell = true
        :: else
        fi
    :: else -> break
    od;
    submitters--
}

active proctype submitter()
{
    byte left = BY_MESSAGE;
    byte to_post, count, started;
    bool to_ring, keeps;

    do
    :: left > 0 ->
        atomic { left--; submit(false, 0) }
        post()
    :: else -> break
    od;
    submitters--
}

init
{
    timeout ->
    assert(submitters == 0 && ended == REQUESTS && begun == REQUESTS && queued == 0 && !lane_taken && entries == 0);
    assert(started_threads == 0 && active_threads == 0 && waking_threads == 0 && recalls == 0 && carrying == 0 && !led)
}
