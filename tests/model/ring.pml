/*
 * ring.pml - a model of sleeping and waking at a shared-memory ring (clients/c/include/aiod_ring.h), which spin
 * searches exhaustively.
 *
 * One client thread, the leader, two workers. One step of the model is an access to the shared memory, or a system
 * call. All accesses are sequentially consistent, as in the code. Entries have no contents: the queues are their
 * indices. Whether a request is executed by the thread that takes it or by a worker is left open.
 *
 * A worker that goes on with another request may publish a completion without a look at the client, and leave that to
 * the next one (core/pool/worker.c). The next one may hang, in the model until the client has seen all completions: then
 * the main loop wakes the client, by a timer that the worker has set.
 *
 * Checked properties (test_ring_model.py runs the search): a run ends only when the client has all completions, no
 * queue contains anything, and the leader waits for its doorbell. `mistake` is a deliberate mistake, which spin must
 * find.
 */

#ifndef REQUESTS
#define REQUESTS 3
#endif
#ifndef ENTRIES
#define ENTRIES 2
#endif

mtype = {
    none,
    client_sleeps_on_cq_tail, /* the client waits on cq_tail, as in the first version */
    client_does_not_check_again,
    leader_does_not_check_again,
    client_rings_no_doorbell,
    engine_does_not_wake,
    engine_reads_before_it_stores, /* reads client_waits before it stores cq_tail */
    client_reads_before_it_stores, /* reads engine_sleeps before it stores sq_tail */
    leader_sleeps_while_a_worker_takes, /* although there are entries: another thread takes them */
    nobody_wakes_behind_a_request_that_hangs,
    timer_is_set_before_it_is_published,
    timer_counts_as_set_after_the_look /* the main loop resets it after it has looked, not before */
};
hidden byte mistake; /* of these; given to the verifier when it runs */
#define mistaken(name) (mistake == name)

byte sq_tail, sq_head, cq_tail, cq_head;
bool engine_sleeps, client_waits;
bool doorbell;        /* an edge that the leader has not consumed */
bool client_sleeping; /* in FUTEX_WAIT */
bool taking;          /* aiod_ring.taking */
byte queued;          /* requests in the pool */
bool client_done;
bool timer;           /* it is set, and the main loop will look */
bool has_hung;

inline wake_client()
{
    atomic { old = client_waits; client_waits = false; }
    if
    :: old && !mistaken(engine_does_not_wake) -> client_sleeping = false /* FUTEX_WAKE */
    :: else
    fi
}

inline complete()
{
    if
    :: mistaken(engine_reads_before_it_stores) ->
        waits = client_waits;
        cq_tail++
    :: else ->
        cq_tail++;
        waits = client_waits
    fi;
    if
    :: waits -> wake_client()
    :: else
    fi
}

/* aiod_ring_take(): nothing if another thread takes. */
inline take()
{
    atomic {
        got = !taking && sq_tail != sq_head;
        taking = taking || got
    }
    if
    :: got ->
        tail = sq_tail;
        do
        :: sq_head != tail ->
            sq_head++;
            if
            :: complete()      /* from the page cache */
            :: queued++        /* left to a worker */
            fi
        :: else -> break
        od;
        taking = false
    :: else
    fi
}

active proctype client()
{
    byte submitted, inflight, seen;
    bool sleeps;

    do
    :: submitted < REQUESTS && inflight < ENTRIES ->
        submitted++;
        inflight++;
        if
        :: mistaken(client_reads_before_it_stores) ->
            sleeps = engine_sleeps;
            sq_tail++
        :: else ->
            sq_tail++;
            sleeps = engine_sleeps
        fi;
        if
        :: sleeps && !mistaken(client_rings_no_doorbell) -> doorbell = true
        :: else
        fi
    :: cq_tail != cq_head ->
        seen = cq_tail; /* read once */
        inflight = inflight - (seen - cq_head);
        cq_head = seen
    :: inflight > 0 && cq_tail == cq_head ->
        seen = cq_head;
        client_waits = true;
        if
        :: cq_tail == seen || mistaken(client_does_not_check_again) ->
            atomic { /* FUTEX_WAIT compares and sleeps in one step */
                if
                :: mistaken(client_sleeps_on_cq_tail) -> client_sleeping = cq_tail == seen
                :: else -> client_sleeping = client_waits
                fi
            }
            !client_sleeping
        :: else
        fi;
        client_waits = false
    :: submitted == REQUESTS && inflight == 0 -> break
    od;
    assert(sq_tail == REQUESTS && cq_tail == REQUESTS && sq_head == REQUESTS && queued == 0);
    client_done = true
}

active proctype leader()
{
    byte tail;
    bool got, waits, old;

    do
    :: take();
        if
        :: got
        :: else ->
            engine_sleeps = true;
            if
            :: sq_tail == sq_head || mistaken(leader_does_not_check_again) ||
                (mistaken(leader_sleeps_while_a_worker_takes) && taking) ->
end_asleep:     atomic { doorbell -> doorbell = false }
            :: else
            fi;
            engine_sleeps = false
        fi
    od
}

/* The next request, which the worker has taken, may be one that hangs until the client has seen the others. */
inline publish_and_go_on()
{
    if
    :: mistaken(timer_is_set_before_it_is_published) -> timer = true
    :: else
    fi;
    cq_tail++;
    if
    :: !mistaken(timer_is_set_before_it_is_published) -> timer = true
    :: else
    fi;
    if
    :: atomic { !has_hung -> has_hung = true };
        cq_head == cq_tail
    :: true
    fi
}

active [2] proctype worker()
{
    byte tail;
    bool got, waits, old;

end_idle:
    do
    :: atomic { queued > 0 -> queued-- };
        do
        :: atomic { queued > 0 -> queued-- };
            publish_and_go_on()
        :: true -> break
        od;
        complete();
        take()
    od
}

active proctype main_loop()
{
    byte seen;
    bool waits, old;

end_idle:
    do
    :: atomic { timer -> timer = (mistaken(timer_counts_as_set_after_the_look)) };
        seen = cq_tail;
        if
        :: seen != cq_head && !mistaken(nobody_wakes_behind_a_request_that_hangs) ->
            waits = client_waits;
            if
            :: waits -> wake_client()
            :: else
            fi
        :: else
        fi;
        if
        :: mistaken(timer_counts_as_set_after_the_look) -> timer = false
        :: else
        fi
    od
}
