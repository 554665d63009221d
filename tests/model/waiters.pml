/*
 * waiters.pml - threads and an event loop that share the ring of one client (clients/c/waiters.c, loop.c). spin
 * searches all states.
 *
 * Two threads wait, each for a request of its own, as in aiod_wait(): a thread may poll, and take completions, before it
 * leads or parks. An event loop sleeps on aiod_fd() and reaps.
 * A thread calls, and receives on the same socket. Two threads of the engine complete requests. ring.pml models how
 * an engine and one waiter see each other; this model is about the waiters among themselves. A step is an access to
 * the shared memory, a system call, or a section under the client's lock. A section that stores `client_waits` in
 * order to sleep, and then reads cq_tail, has two steps. No sleep ends by time, and all requests are submitted at
 * the beginning.
 *
 * test_waiters_model.py checks: a run ends only when each thread has its request and the loop has all of its own,
 * and the engine sends at most one byte each time that the loop arms. `mistake` is a deliberate mistake that spin has
 * to find.
 */

#ifndef LOOP_REQUESTS
#define LOOP_REQUESTS 2
#endif
#ifndef CALLS
#define CALLS 1
#endif

#define THREADS 2 /* processes 0 and 1 */
#define LOOP 2 /* as an owner of requests; the threads are 0 and 1 */
#define SLOTS (THREADS + LOOP_REQUESTS)

mtype = {
    none,
    leader_leaves_client_waits_awake, /* the engine does not wake an armed loop */
    arming_takes_client_waits, /* from a leader */
    disarming_takes_client_waits, /* from a leader */
    taken_completion_wakes_no_loop, /* a thread takes it off the ring */
    taken_byte_wakes_no_loop, /* a thread that calls takes it off the socket */
    leader_returns_client_waits_too_late, /* after its last drain */
    leaver_chooses_no_leader,
    leader_misses_the_byte, /* that the engine has sent: the next byte goes to a loop that is awake */
    taken_byte_wakes_no_notified_loop, /* though this byte was to notify it */
    poller_does_not_look_again /* whether another thread has taken its completion, before it sleeps */
};
hidden byte mistake; /* of these; given to the verifier when it runs */
#define mistaken(name) (mistake == name)

#define AWAKE 0
#define FUTEX 1
#define SOCKET 2

/* why a parked thread was woken: its request is done, or there may be something to do */
#define IS_DONE 1
#define LOOK 2

/* the shared memory */
byte cq_tail, client_waits;
byte owner[SLOTS];

/* the kernel */
bool asleep; /* in FUTEX_WAIT */
byte bytes;  /* on the socket */
byte sent;   /* bytes since the loop armed, those about to be sent included */
bool bell;

/* the client, under its lock; `locked`: held over a step */
bool locked, leading, armed, notified, parked[THREADS], done[THREADS];
byte cq_head, listed, woken[THREADS];

/* the engine: its requests */
byte of_threads = THREADS, of_loop = LOOP_REQUESTS;

/* ---- parts of a section under the lock ---- */

inline completion_taken()
{
    if
    :: armed && !notified && !mistaken(taken_completion_wakes_no_loop) -> notified = true; bell = true
    :: else
    fi
}

inline wake_parked(who, why)
{
    parked[who] = false;
    woken[who] = why
}

inline drain()
{
    do
    :: cq_head != cq_tail ->
        if
        :: owner[cq_head] == LOOP -> listed++; completion_taken()
        :: else ->
            done[owner[cq_head]] = true;
            if
            :: parked[owner[cq_head]] -> wake_parked(owner[cq_head], IS_DONE)
            :: else
            fi
        fi;
        cq_head++
    :: else -> break
    od
}

inline take_client_waits()
{
    if
    :: armed && !notified -> client_waits = SOCKET
    :: else
    fi
}

inline yield_client_waits()
{
    if
    :: armed ->
        notified = notified || (client_waits == AWAKE && !mistaken(leader_misses_the_byte));
        client_waits = AWAKE
    :: else
    fi
}

inline choose_leader()
{
    if
    :: !leading && !mistaken(leaver_chooses_no_leader) && parked[1 - _pid] -> wake_parked(1 - _pid, LOOK)
    :: else
    fi
}

/* ---- threads: aiod_wait() ---- */

inline sleep_on_memory()
{
    client_waits = FUTEX;
    if
    :: cq_tail == head ->
        asleep = client_waits == FUTEX; /* FUTEX_WAIT compares and sleeps in one step */
        !asleep
    :: else
    fi;
    client_waits = AWAKE
}

active [THREADS] proctype thread()
{
    byte head;
    bool leads;

    do
    :: atomic {
            !locked || leads -> /* after sleep_on_memory() the thread has the lock */
            if
            :: leads && mistaken(leader_returns_client_waits_too_late) -> take_client_waits()
            :: else -> drain()
            fi;
            locked = false;
            leads = false;
            if
            :: done[_pid] -> choose_leader(); break
            :: else
            fi
        };
        /* The thread polls here. What it takes meanwhile it could as well have taken in the section above. */
        atomic {
            !locked ->
            if
            :: done[_pid] && !mistaken(poller_does_not_look_again)
            :: else ->
                if
                :: leading -> parked[_pid] = true; woken[_pid] = 0
                :: else -> yield_client_waits(); leading = true; leads = true; head = cq_head
                fi
            fi
        };
        if
        :: leads ->
            sleep_on_memory();
            atomic {
                !locked -> locked = true;
                head = 0;
                leading = false;
                if
                :: mistaken(leader_leaves_client_waits_awake)
                :: mistaken(leader_returns_client_waits_too_late) -> drain()
                :: else -> take_client_waits()
                fi
            }
        :: atomic { !leads && !parked[_pid] && woken[_pid] != IS_DONE -> woken[_pid] = 0 }
        :: atomic { woken[_pid] == IS_DONE -> woken[_pid] = 0; break } /* without the lock */
        fi
    od
}

/* ---- the event loop ---- */

active proctype loop()
{
    byte reaped;
    bool nothing;

    do
    :: reaped < LOOP_REQUESTS ->
        atomic { /* aiod_arm() */
            !locked -> locked = true;
            armed = true;
            notified = false;
            sent = 0;
            if
            :: !leading || mistaken(arming_takes_client_waits) -> client_waits = SOCKET
            :: else
            fi
        };
        atomic {
            drain();
            locked = false;
            nothing = listed == 0
        };
        if
        :: nothing -> bytes > 0 || bell /* poll() */
        :: else
        fi;
        atomic { /* aiod_disarm() and aiod_reap() */
            !locked ->
            armed = false;
            if
            :: !leading || mistaken(disarming_takes_client_waits) -> client_waits = AWAKE
            :: else
            fi;
            bytes = 0;
            bell = false;
            drain();
            reaped = reaped + listed;
            listed = 0
        }
    :: else -> break
    od
}

/* ---- a thread that calls: it receives all that arrives on the socket meanwhile ---- */

active proctype caller()
{
    byte calls;

    do
    :: calls < CALLS ->
end_without_a_byte:
        atomic { bytes > 0 -> bytes--; calls++ };
        atomic {
            !locked ->
            if
            :: armed && !mistaken(taken_byte_wakes_no_loop) &&
               !(notified && mistaken(taken_byte_wakes_no_notified_loop)) ->
                notified = true;
                bell = true
            :: else
            fi
        }
    :: else -> break
    od
}

/* ---- the engine ---- */

inline wake()
{
    if
    :: client_waits != AWAKE ->
        atomic { how = client_waits; client_waits = AWAKE; sent = sent + (how == SOCKET); assert(sent <= 1) };
        if
        :: how == FUTEX -> asleep = false /* FUTEX_WAKE */
        :: how == SOCKET -> bytes++
        :: else
        fi;
        how = 0
    :: else
    fi
}

active [2] proctype engine()
{
    byte how;

end_idle:
    do
    :: atomic { of_loop > 0 -> of_loop--; owner[cq_tail] = LOOP; cq_tail++ };
        wake()
    :: atomic { of_threads > 0 -> of_threads--; owner[cq_tail] = of_threads; cq_tail++ };
        wake()
    od
}
