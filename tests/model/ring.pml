/*
 * ring.pml - who sleeps and who wakes at a shared-memory ring (clients/c/include/aiod_ring.h), for spin to search exhaustively.
 *
 * One client thread, the poller, two workers. One step here is one access to the shared memory there, or one system call; all
 * accesses are sequentially consistent there, too. Entries have no contents: queues are their indices. Whether a
 * request is carried out by who takes it or by a worker is free.
 *
 * What is checked (test_ring_model.py): a run ends only when the client has all completions, nothing is left in a queue,
 * and the poller waits for its doorbell. MISTAKE is one deliberate mistake, which spin has to find.
 */

#ifndef REQUESTS
#define REQUESTS 3
#endif
#ifndef ENTRIES
#define ENTRIES 2
#endif

#define none 0
#define client_sleeps_on_cq_tail 1      /* the futex is cq_tail, as it was at first */
#define client_does_not_look_again 2
#define poller_does_not_look_again 3
#define client_rings_no_doorbell 4
#define engine_does_not_wake 5
#define engine_looks_before_it_stores 6 /* at client_waits, before cq_tail */
#define client_looks_before_it_stores 7 /* at engine_sleeps, before sq_tail */
#define who_cannot_take_sleeps 8        /* though there is something: another thread takes */

#ifndef MISTAKE
#define MISTAKE none
#endif

byte sq_tail, sq_head, cq_tail, cq_head;
bool engine_sleeps, client_waits;
bool doorbell;        /* an edge that the poller has not seen */
bool client_sleeping; /* in FUTEX_WAIT */
bool taking;          /* aiod_ring.taking */
byte queued;          /* in the pool */
bool client_done;

inline wake_client()
{
    atomic { old = client_waits; client_waits = false; }
    if
    :: old && MISTAKE != engine_does_not_wake -> client_sleeping = false /* FUTEX_WAKE */
    :: else
    fi
}

inline complete()
{
    if
    :: MISTAKE == engine_looks_before_it_stores ->
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
            :: queued++        /* a worker's */
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
        :: MISTAKE == client_looks_before_it_stores ->
            sleeps = engine_sleeps;
            sq_tail++
        :: else ->
            sq_tail++;
            sleeps = engine_sleeps
        fi;
        if
        :: sleeps && MISTAKE != client_rings_no_doorbell -> doorbell = true
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
        :: cq_tail == seen || MISTAKE == client_does_not_look_again ->
            atomic { /* FUTEX_WAIT looks and sleeps in one */
                if
                :: MISTAKE == client_sleeps_on_cq_tail -> client_sleeping = cq_tail == seen
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

active proctype poller()
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
            :: sq_tail == sq_head || MISTAKE == poller_does_not_look_again ||
                (MISTAKE == who_cannot_take_sleeps && taking) ->
end_asleep:     atomic { doorbell -> doorbell = false }
            :: else
            fi;
            engine_sleeps = false
        fi
    od
}

active [2] proctype worker()
{
    byte tail;
    bool got, waits, old;

end_idle:
    do
    :: atomic { queued > 0 -> queued-- };
        complete();
        take()
    od
}
