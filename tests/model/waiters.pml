/*
 * waiters.pml - threads and an event loop that wait by one ring of one client (clients/c/loop.c), for spin to search
 * exhaustively.
 *
 * Threads that each wait for a request of their own, as aiod_wait() does; an event loop that sleeps on aiod_fd() and
 * reaps; a thread that calls, and receives on the same socket; two threads of the engine that complete. ring.pml is about
 * how an engine and one waiter see each other; here is what waiters do to each other. One step is one access to the shared
 * memory, one system call, or one section under the client's lock; a section that stores `client_waits` so that it may sleep,
 * and then looks at cq_tail, is two. Nobody's sleep ends by time, and all requests are submitted in the beginning.
 *
 * What is checked (test_waiters_model.py): a run ends only when every thread has its request and the loop all of its own, and
 * the engine sends one byte at most for each time that the loop arms.
 * MISTAKE is one deliberate mistake, which spin has to find.
 */

#ifndef LOOP_REQUESTS
#define LOOP_REQUESTS 2
#endif
#ifndef CALLS
#define CALLS 1
#endif

#define THREADS 2 /* a process each: 0 and 1 */
#define LOOP 2 /* as an owner of requests; the threads are 0 and 1 */
#define PLACES (THREADS + LOOP_REQUESTS)

#define none 0
#define leader_leaves_the_word_awake 1 /* as it was at first: an armed loop is forgotten */
#define arming_takes_the_word 2        /* from a leader */
#define disarming_takes_the_word 3     /* from a leader */
#define who_takes_tells_no_loop 4      /* a completion off the ring */
#define who_calls_tells_no_loop 5      /* the engine's byte off the socket */
#define leader_gives_the_word_too_late 6 /* back, when it has looked the last time */
#define leaver_lets_nobody_lead 7
#define leader_does_not_see_the_byte 8 /* that the engine has sent: the next one is sent to a loop that is awake */
#define who_calls_tells_no_told_loop 9 /* though it was this byte that was to tell it */

#ifndef MISTAKE
#define MISTAKE none
#endif

#define AWAKE 0
#define FUTEX 1
#define SOCKET 2

/* the shared memory */
byte cq_tail, client_waits;
byte owner[PLACES];

/* the kernel */
bool asleep; /* in FUTEX_WAIT */
byte bytes;  /* on the socket */
byte sent;   /* or about to be, since the loop has armed */
bool bell;

/* the client, under its lock; one that is held over a step is `locked` */
bool locked, leading, armed, told, chosen[THREADS], parked[THREADS], done[THREADS];
byte cq_head, listed;

/* the engine: requests that it has */
byte of_threads = THREADS, of_loop = LOOP_REQUESTS;

/* ---- parts of a section under the lock ---- */

inline tell_loop()
{
    if
    :: armed && !told && MISTAKE != who_takes_tells_no_loop -> told = true; bell = true
    :: else
    fi
}

inline drain()
{
    do
    :: cq_head != cq_tail ->
        if
        :: owner[cq_head] == LOOP -> listed++; tell_loop()
        :: else -> done[owner[cq_head]] = true; chosen[owner[cq_head]] = true
        fi;
        cq_head++
    :: else -> break
    od
}

inline take_word()
{
    if
    :: armed && !told -> client_waits = SOCKET
    :: else
    fi
}

inline yield_word()
{
    if
    :: armed ->
        told = told || (client_waits == AWAKE && MISTAKE != leader_does_not_see_the_byte);
        client_waits = AWAKE
    :: else
    fi
}

inline let_lead()
{
    if
    :: !leading && MISTAKE != leaver_lets_nobody_lead && parked[1 - _pid] -> chosen[1 - _pid] = true
    :: else
    fi
}

/* ---- threads: aiod_wait() ---- */

inline sleep_on_memory()
{
    client_waits = FUTEX;
    if
    :: cq_tail == head ->
        asleep = client_waits == FUTEX; /* FUTEX_WAIT looks and sleeps in one */
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
            !locked || leads -> /* it has locked when it comes from sleep_on_memory() */
            if
            :: leads && MISTAKE == leader_gives_the_word_too_late -> take_word()
            :: else -> drain()
            fi;
            locked = false;
            leads = false;
            if
            :: done[_pid] -> let_lead(); break
            :: !done[_pid] && leading -> parked[_pid] = true; chosen[_pid] = false
            :: !done[_pid] && !leading -> yield_word(); leading = true; leads = true; head = cq_head
            fi
        };
        if
        :: !leads -> atomic { chosen[_pid] && !locked -> parked[_pid] = false }
        :: leads ->
            sleep_on_memory();
            atomic {
                !locked -> locked = true;
                head = 0;
                leading = false;
                if
                :: MISTAKE == leader_leaves_the_word_awake
                :: MISTAKE == leader_gives_the_word_too_late -> drain()
                :: else -> take_word()
                fi
            }
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
            told = false;
            sent = 0;
            if
            :: !leading || MISTAKE == arming_takes_the_word -> client_waits = SOCKET
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
            :: !leading || MISTAKE == disarming_takes_the_word -> client_waits = AWAKE
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

/* ---- a thread that calls: whatever comes by the socket meanwhile is received by it ---- */

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
            :: armed && MISTAKE != who_calls_tells_no_loop && !(told && MISTAKE == who_calls_tells_no_told_loop) ->
                told = true;
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
