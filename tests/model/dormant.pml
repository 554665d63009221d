/*
 * dormant.pml - a model of a ring that becomes dormant while the leader is awake (aiod/core/ring/rings.c, poller.c), which
 * spin searches exhaustively.
 *
 * Two polling workers, of which one leads; one client, one ring. One step is an access to the shared memory, to a word of
 * the poller's, or a system call; all of them are sequentially consistent in the C code, too. The leader answers requests
 * itself: polling.pml has the pool. It may make the ring dormant whenever it has found no entry.
 *
 * Checked properties (test_dormant_model.py runs the search): a run ends only when all requests have ended and both workers
 * wait for a doorbell, and every run ends. `mistake` is a deliberate mistake, which spin must find.
 */

#ifndef REQUESTS
#define REQUESTS 3
#endif
#ifndef RETIRES
#define RETIRES 2
#endif

mtype = {
    none,
    doorbell_is_not_noted,
    doorbell_is_noted_too_late,
    leader_does_not_look_again_before_the_ring_is_dormant,
    leader_wakes_no_dormant_ring,
    dormant_ring_is_told_that_the_engine_is_awake,
    leader_consumes_an_edge_without_a_note,
    former_leader_ignores_the_mark
};
hidden byte mistake; /* of these; given to the verifier when it runs */
#define mistaken(name) (mistake == name)

/* The ring, and the poller's epoll set: edges that no thread has consumed. */
byte entries;
bool engine_sleeps = true;
bool doorbell;
bool bell;

/* The poller. */
bool led;
bool marked;  /* with `led`, one word */
bool rung;    /* the ring's bit of aiod_rings.rung */
bool dormant; /* the leader's, as the next */
byte retires = RETIRES;

byte ended;
bool submitted;

#define entries_seen (entries > 0 && !dormant)

inline try_to_lead()
{
    atomic {
        leads = !led;
        marked = led;
        led = true
    }
    if
    :: leads && (!dormant || mistaken(dormant_ring_is_told_that_the_engine_is_awake)) -> engine_sleeps = false
    :: else
    fi
}

/* look_again(): fall_asleep(), and cease_to_lead(). */
inline sleep()
{
    if
    :: !dormant -> engine_sleeps = true
    :: else
    fi;
    if
    :: entries_seen || rung ->
        if
        :: !dormant -> engine_sleeps = false
        :: else
        fi
    :: else ->
        leads = false;
        atomic {
            led = false;
            rings = marked && !mistaken(former_leader_ignores_the_mark);
            marked = false
        }
        if
        :: rings -> bell = true
        :: else
        fi;
        rings = false
    fi
}

/* aiod_rings_retire() */
inline retire()
{
    atomic { retires--; engine_sleeps = true }
    if
    :: entries == 0 || mistaken(leader_does_not_look_again_before_the_ring_is_dormant) -> dormant = true
    :: else -> engine_sleeps = false
    fi
}

/* aiod_rings_update() */
inline wake_rung()
{
    rung = false;
    if
    :: dormant && !mistaken(leader_wakes_no_dormant_ring) -> engine_sleeps = false; dormant = false
    :: else
    fi
}

active [2] proctype worker()
{
    bool leads, rings, noted;

    do
    :: leads && rung -> wake_rung()
    :: leads && entries_seen -> atomic { entries--; ended++ }
    :: leads && !entries_seen && !rung -> sleep()
    :: leads && !entries_seen && !dormant && retires > 0 -> retire()
    :: atomic { leads && doorbell -> doorbell = false } /* look_for_edges() */
        if
        :: mistaken(leader_consumes_an_edge_without_a_note)
        :: else -> rung = true
        fi
    :: !leads ->
end_waiting:
        if
        :: atomic { doorbell -> doorbell = false; noted = true }
        :: atomic { bell -> bell = false }
        fi;
        if
        :: noted && !mistaken(doorbell_is_not_noted) && !mistaken(doorbell_is_noted_too_late) -> rung = true
        :: else
        fi;
        try_to_lead();
        if
        :: noted && mistaken(doorbell_is_noted_too_late) -> rung = true
        :: else
        fi;
        noted = false
    od
}

active proctype client()
{
    byte left = REQUESTS;

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
    submitted = true
}

init
{
    timeout ->
    assert(submitted && ended == REQUESTS && entries == 0 && !led)
}
