/* Beats, leases, fence and taking: member 0 owns the one slot, members 1 and 2 watch it and take the slot when its lease is over.
 *
 * A tick is a beat's time. Every clock runs with the ticks, but the owner's may stand for one tick a lease (SLIP): that is how much two
 * clocks may differ. Requests reach the store at any later time or never, answers come at any later time or never; processes stop and go
 * on, and die. Names in [] are the functions that a step stands for; tests/model/model.py checks that they exist. */

#ifndef WATCHERS
#define WATCHERS 1
#endif
#ifndef LEASE
#define LEASE 4 /* OWNERSHIP_LEASE_MS */
#endif
#define STOPS  2 /* times that somebody stops, or the store is away */
#define MARGIN 1 /* OWNERSHIP_LEASE_MARGIN_MS, against SLIP */
#define GAP    2 /* OWNERSHIP_READ_GAP_MS */
#define N      (WATCHERS + 1)

#ifdef M_NO_MARGIN
#define OWN_LEASE LEASE
#else
#define OWN_LEASE (LEASE - MARGIN)
#endif

/* the store */
byte owner = 0;
byte epoch = 1;
bool dead0;      /* members.dead of member 0 */
bool stale[N];   /* member 0 has beaten since what this member's last answer showed: its beat is not the one that was seen */
bool away;       /* the store answers nobody */

/* each member */
bool down[N], stopped[N];
bool holds[N];   /* SLOT_HELD, as it believes */
byte lease[N];   /* ticks left of the own lease (member 0); watchers do not lose theirs here */
bool slip;       /* the owner's clock has stood once in this lease */
bool armed;      /* the owner has decided to start an attempt, the request is not out yet */
bool batch;      /* a transaction of the owner's results is on its way to the store */
bool told;       /* the owner knows that it was declared dead [rejoin] */

/* a watcher's view of member 0 */
byte since[N];   /* ticks that the beat was seen unchanged [member_seen] */
bool broken[N];  /* a read failed: the count starts anew [beat_failed] */
byte gap[N];     /* ticks since the last answer */
bool knows[N];   /* that it is dead [member_died] */
byte asked[N];   /* ticks since the beat that is out was sent */

/* one request at a time on the beat's connection */
mtype = {IDLE, BEAT_SENT, BEAT_DONE, DECLARE_SENT, DECLARE_DONE, TAKE_SENT, TAKE_DONE};
mtype op[N] = IDLE;
bool fresh[N];   /* in the answer: the beat of member 0 has changed */
bool word[N];    /* in the answer: member 0 is dead; declared; taken */
byte left0;      /* ticks left of the lease that the owner's beat under way will bring */
bool beaten[N];  /* has sent its beat since the last tick */
bool again[N];   /* that beat failed */
byte crashes, stops;

#define TO_BEAT(m) (!beaten[m] || (again[m] && !away))
#define RUNS(m)  (!down[m] && !stopped[m])
#define FIRES(m) (holds[m] && RUNS(m) && (m != 0 || (lease[0] > 0 && !told)))
/* At most one may start attempts at a time [lease_valid]. */
#if WATCHERS == 1
#define WATCHER_DO(what) what(1)
#define OTHERS_FIRE FIRES(1)
#define TWO_FIRE    (FIRES(0) && FIRES(1))
#else
#define WATCHER_DO(what) what(1); what(2)
#define OTHERS_FIRE (FIRES(1) || FIRES(2))
#define TWO_FIRE    ((FIRES(0) && OTHERS_FIRE) || (FIRES(1) && FIRES(2)))
#endif

#ifdef STORE_ONLY
#define MAY_LOSE away
#else
#define MAY_LOSE true
#endif

inline request_lost(m)
{ /* the connection breaks before the store or after it, or it takes too long [lease_beat, beat_failed, slots_changed] */
    if
    :: op[m] == BEAT_SENT || op[m] == BEAT_DONE ->
        stale[m] = stale[m] || fresh[m];
#ifndef M_NO_RESTART
        broken[m] = true;
#endif
    :: op[m] == DECLARE_SENT || op[m] == DECLARE_DONE || op[m] == TAKE_SENT || op[m] == TAKE_DONE ->
#ifdef M_UNKNOWN_IS_MINE
        holds[m] = holds[m] || op[m] == TAKE_SENT || op[m] == TAKE_DONE;
#endif
        skip
    fi;
#ifdef STORE_ONLY
    again[m] = true; /* after OWNERSHIP_BEAT_RETRY_MS, within the tick */
#endif
    fresh[m] = false; word[m] = false; asked[m] = 0; op[m] = IDLE
}

inline died(m)
{ /* what was known of it counts no more */
    knows[m] = true; since[m] = 0; gap[m] = 0; broken[m] = false; stale[m] = false
}

inline has_beaten(m) { stale[m] = !knows[m] }
inline begins(m) { broken[m] = true; run watcher(m) }
inline stands(m) { tick_member(m); since[m] = (knows[m] -> 0 : LEASE); gap[m] = (knows[m] -> 0 : GAP + 1) }

/* The owner. */
active proctype owner_life()
{
    do
    :: atomic { RUNS(0) && !told && op[0] == IDLE && TO_BEAT(0) -> /* [lease_run] */
        op[0] = BEAT_SENT; beaten[0] = true; again[0] = false; left0 = OWN_LEASE }
    :: atomic { op[0] == BEAT_SENT && !away -> /* the store: beat + 1 WHERE dead = 0 */
        word[0] = dead0;
        if
        :: !dead0 -> WATCHER_DO(has_beaten)
        :: else
        fi;
        op[0] = BEAT_DONE }
    :: atomic { RUNS(0) && op[0] == BEAT_DONE -> /* [lease_beat, lease_set] */
#ifdef M_FROM_REPLY
        left0 = OWN_LEASE;
#endif
        if
#ifndef M_IGNORE_DEAD
        :: word[0] -> told = true; holds[0] = false; lease[0] = 0 /* [rejoin, slots_lose_all] */
        :: else ->
#else
        :: true ->
#endif
            if
            :: left0 > lease[0] -> lease[0] = left0; slip = false
            :: else
            fi
        fi;
        op[0] = IDLE; word[0] = false; left0 = 0 }
    :: atomic { RUNS(0) && MAY_LOSE && (op[0] == BEAT_SENT || op[0] == BEAT_DONE) -> request_lost(0); left0 = 0 }
#ifndef STORE_ONLY
#if WATCHERS == 1
    :: atomic { FIRES(0) && !armed -> armed = true }
    :: atomic { RUNS(0) && armed -> /* just before the request goes out [lease_valid] */
        armed = false;
        if
#ifdef M_NO_LAST_LOOK
        :: true -> assert(!OTHERS_FIRE)
#else
        :: FIRES(0) -> assert(!OTHERS_FIRE)
        :: else
#endif
        fi }
    :: atomic { FIRES(0) && !batch -> batch = true }
    :: atomic { batch && !away -> /* the store: flush + 1 WHERE dead = 0, then the results */
        batch = false;
        if
#ifdef M_NO_FENCE
        :: true -> assert(owner == 0)
#else
        :: !dead0 -> assert(owner == 0)
        :: else
#endif
        fi }
    :: atomic { batch -> batch = false }
#endif
    :: atomic { RUNS(0) && stops < STOPS -> stopped[0] = true; stops++ }
    :: atomic { stopped[0] -> stopped[0] = false }
    :: atomic { !down[0] && crashes < 1 -> down[0] = true; stopped[0] = false; armed = false; crashes++ }
#endif
    od
}

/* The watchers. */
proctype watcher(byte m)
{
    do
    :: atomic { RUNS(m) && op[m] == IDLE && TO_BEAT(m) -> op[m] = BEAT_SENT; beaten[m] = true; again[m] = false; asked[m] = 0 } /* [lease_run] */
    :: atomic { op[m] == BEAT_SENT && !away -> /* the store: all members' beats */
        fresh[m] = stale[m]; stale[m] = false; word[m] = dead0; op[m] = BEAT_DONE }
    :: atomic { RUNS(m) && op[m] == BEAT_DONE -> /* [lease_beat, read_members, member_seen] */
        if
        :: word[m] -> died(m) /* [member_died] */
        :: else
        fi;
        if
#ifndef M_NO_GAP
        :: !knows[m] && (fresh[m] || broken[m] || gap[m] > GAP) ->
#else
        :: !knows[m] && (fresh[m] || broken[m]) ->
#endif
#ifdef M_FROM_ASK
            since[m] = asked[m]
#else
            since[m] = 0
#endif
        :: else
        fi;
        broken[m] = false; gap[m] = 0; fresh[m] = false; word[m] = false; asked[m] = 0; op[m] = IDLE;
        if
        :: !knows[m] && since[m] >= LEASE -> op[m] = DECLARE_SENT /* [lease_others, declare] */
        :: else
        fi }
    :: atomic { op[m] == DECLARE_SENT && !away -> /* the store: dead = 1 WHERE beat = <seen> */
        if
#ifdef M_DECLARE_BLIND
        :: true ->
#else
        :: !stale[m] || dead0 ->
#endif
#ifdef STORE_ONLY
            assert(false); /* a store that was away, or a machine that stood, is nobody's death */
#endif
            dead0 = true; word[m] = true
        :: else -> word[m] = false
        fi;
        op[m] = DECLARE_DONE }
    :: atomic { RUNS(m) && op[m] == DECLARE_DONE -> /* [verdict_declared] */
        if :: word[m] -> died(m) :: else fi;
        word[m] = false; op[m] = IDLE }
#ifdef M_TAKE_UNDECLARED
    :: atomic { RUNS(m) && op[m] == IDLE && !holds[m] && since[m] >= LEASE -> op[m] = TAKE_SENT }
#endif
    :: atomic { RUNS(m) && op[m] == IDLE && knows[m] && !holds[m] && owner == 0 -> op[m] = TAKE_SENT } /* [to_change, change_add, slots_run] */
    :: atomic { op[m] == TAKE_SENT && !away -> /* the store: compare-and-set on (owner, epoch) */
        if
#ifdef M_CAS_BLIND
        :: true ->
#else
        :: owner == 0 && epoch == 1 ->
#endif
            owner = m; epoch = 2; word[m] = true
        :: else -> word[m] = false
        fi;
        op[m] = TAKE_DONE }
    :: atomic { RUNS(m) && op[m] == TAKE_DONE -> /* [slots_changed, change_undone] */
        holds[m] = word[m]; word[m] = false; op[m] = IDLE }
    :: atomic { RUNS(m) && op[m] == IDLE && owner == m && !holds[m] -> holds[m] = true } /* a beat named it: adopted [named_row] */
    :: atomic { RUNS(m) && MAY_LOSE && op[m] != IDLE -> request_lost(m) }
    od
}

inline tick_member(m)
{
    beaten[m] = false; again[m] = false;
    if
    :: gap[m] <= GAP && m != 0 && !knows[m] -> gap[m]++
    :: else
    fi;
    if
    :: since[m] < LEASE && m != 0 && !knows[m] -> since[m]++
    :: else
    fi;
    if
    :: m != 0 && !knows[m] && (op[m] == BEAT_SENT || op[m] == BEAT_DONE) -> if :: asked[m] < LEASE -> asked[m]++ :: else fi
    :: else
    fi
}

#ifdef STORE_ONLY
/* Nobody but the store fails: all ask it in each tick, and have an answer by its end if it is there. */
#define ANSWERED(m) (beaten[m] && op[m] == IDLE && (away || !again[m]))
#define MAY_TICK    ANSWERED(0) && ANSWERED(1)
#else
/* Who runs sends its beat before time goes on: the loop does nothing else first. */
#define BEATEN(m) (beaten[m] || !RUNS(m) || op[m] != IDLE || (m == 0 && told))
#if WATCHERS == 1
#define MAY_TICK BEATEN(0) && BEATEN(1)
#else
#define MAY_TICK BEATEN(0) && BEATEN(1) && BEATEN(2)
#endif
#endif

active proctype time()
{
    atomic { holds[0] = true; down[0] = (WATCHERS == 2); WATCHER_DO(begins) } /* with two watchers: the race for a dead owner's slot */
    do
    :: atomic { MAY_TICK ->
        tick_member(0); WATCHER_DO(tick_member);
        if
#ifdef M_CLOCK_STANDS
        :: stopped[0] -> skip /* a clock that stands while the process is stopped */
#endif
        :: !slip && lease[0] > 0 -> slip = true /* slow */
        :: true -> /* [lease_valid] on CLOCK_BOOTTIME */
            if :: lease[0] > 0 -> lease[0]-- :: else fi
        fi;
        if
        :: op[0] != IDLE && left0 > 0 -> left0--
        :: else
        fi }
    :: atomic { stops < STOPS && !away -> away = true; stops++ }
    :: atomic { away -> away = false }
#ifdef STORE_ONLY
    :: atomic { stops < STOPS && MAY_TICK -> /* the machine stands: nobody sends, clocks go on */
        stops++;
        tick_member(0); lease[0] = 0; WATCHER_DO(stands) }
#endif
    od
}

active proctype monitor()
{
    atomic { TWO_FIRE -> assert(false) } /* two may start attempts */
}
