/* One slot among three lives: 0 and 1 are members, 2 is 0 started again at the same address. Planned moves, taking from the dead, adopting
 * what the store names us for; batches and answers that are late, lost or repeated. Who is declared dead and when is in lease.pml and
 * verdict.pml: here it happens to anybody at any time. The ring is in nobody's way: any life may be a successor.
 * Names in [] are the functions that a step stands for. */

#define N     3
#define E_MAX 3 /* epochs that are looked at */

#define CASE(l) (l == 2 -> 0 : l) /* the address of a life */

/* the store */
byte owner = 0, epoch = 1;
bool row[N];     /* members: has joined */
bool dead[N];

mtype = {NONE, HELD, OFFERED, MOVING, CHANGING};      /* enum slot_state */
mtype = {UNHEARD, UNKNOWN, ALIVE, DEAD};              /* enum member_state */
mtype = {IDLE, SENT, DONE};

bool up[N];
mtype st[N] = NONE;
byte to[N];      /* OFFERED, MOVING: to whom */
byte ko[N], ke[N]; /* struct slot: owner, epoch as known; ko == N: not known */
mtype kn[9] = UNHEARD; /* member_state of life l as m knows it, at 3 * m + l */

/* the beat that is out, and what its answer says */
mtype beat[N] = IDLE;
bool beat_old[N];  /* a slot changed since it was asked: not heard about it [as_of] */
bool names[N];
byte named[N];
mtype seen[9] = UNHEARD; /* of each life */
bool unk_old[N];   /* life 2 was met since it was asked */

/* the reading of all slots that is out */
mtype read[N] = IDLE;
bool read_old[N];
byte r_owner[N], r_epoch[N];

/* CHANGE_SLOTS and the planner's MOVE, with the epoch they compare; a copy whose outcome was given up for unknown may run later */
mtype change[N] = IDLE, move[N] = IDLE;
byte c_epoch[N];
bool c_ok[N];
byte m_epoch[N];
bool m_ok[N], m_no[N];
bool late[N];
byte l_from[N], l_epoch[N], l_to[N];

/* a GIVEN under way: to which life, with which epoch (0: none); it may arrive often, late or never */
byte g_to, g_epoch;
byte losses;

#define MINE(m)  (st[m] == HELD || st[m] == OFFERED) /* [slot_mine] */
#define K(m, l)  kn[3 * (m) + (l)]
#define S(m, l)  seen[3 * (m) + (l)]
/* Who holds a slot and is not dead is the one whom the store names, under the epoch it knows. */
#define WRONG(m) (MINE(m) && up[m] && !dead[m] && (owner != m || epoch != ke[m]))

inline know(self, whose, which)
{ /* [slot_know] */
    ko[self] = whose; ke[self] = which;
    beat_old[self] = (beat[self] != IDLE); read_old[self] = (read[self] != IDLE)
}

inline ends(m)
{
    up[m] = false; st[m] = NONE; beat[m] = IDLE; read[m] = IDLE; change[m] = IDLE; move[m] = IDLE;
    beat_old[m] = false; read_old[m] = false; names[m] = false; named[m] = 0; unk_old[m] = false;
    r_owner[m] = 0; r_epoch[m] = 0; c_epoch[m] = 0; c_ok[m] = false; m_epoch[m] = 0; m_ok[m] = false; m_no[m] = false;
    to[m] = 0; ko[m] = 0; ke[m] = 0;
    K(m, 0) = UNHEARD; K(m, 1) = UNHEARD; K(m, 2) = UNHEARD; S(m, 0) = UNHEARD; S(m, 1) = UNHEARD; S(m, 2) = UNHEARD
}

inline look_at(m, l)
{ S(m, l) = (row[l] -> (dead[l] -> DEAD : ALIVE) : UNHEARD) }

inline hear_of(m, l)
{ /* [read_members, member_seen, member_missing, member_died] */
    if
    :: S(m, l) != UNHEARD && K(m, l) != DEAD -> K(m, l) = S(m, l)
#ifdef M_UNLISTED_IS_DEAD
    :: S(m, l) == UNHEARD && K(m, l) == UNKNOWN -> K(m, l) = DEAD
#else
    :: S(m, l) == UNHEARD && K(m, l) == UNKNOWN && !unk_old[m] -> K(m, l) = DEAD
#endif
    :: else
    fi;
    S(m, l) = UNHEARD
}

#ifdef M_CAS_OWNER_ONLY
#define CAS(from, e) (owner == (from))
#else
#define CAS(from, e) (owner == (from) && epoch == (e))
#endif
#define TO_CHANGE(m) (up[m] && st[m] == NONE && change[m] == IDLE && ko[m] != N && ke[m] < E_MAX && (ko[m] == m || K(m, ko[m]) == DEAD))
inline apply(who)
{ owner = who; epoch++ }

inline ask_change(m)
{
    st[m] = CHANGING; c_epoch[m] = ke[m];
    if
    :: CAS(ko[m], ke[m]) -> apply(m); c_ok[m] = true
    :: else
    fi;
    change[m] = DONE
}

#define MAY_OFFER(m, l) (up[m] && m != l && st[m] == HELD && ke[m] < E_MAX && K(m, l) == ALIVE)

proctype member(byte m)
{
    do
    :: atomic { up[m] && beat[m] == IDLE -> /* asked [lease_run]; the store: own row, all members, own slots */
        beat_old[m] = false; unk_old[m] = false;
        look_at(m, 0); look_at(m, 1); look_at(m, 2);
        names[m] = (owner == m); named[m] = (owner == m -> epoch : 0); beat[m] = DONE }
    :: atomic { beat[m] == DONE && up[m] -> /* [lease_beat] */
        if
        :: S(m, m) == DEAD -> ends(m) /* [rejoin, slots_lose_all] */
        :: else ->
            hear_of(m, 0); hear_of(m, 1); hear_of(m, 2);
            if
#ifdef M_LIST_MOVES
            :: names[m] && st[m] == MOVING -> st[m] = HELD
#endif
#ifdef M_NO_AS_OF
            :: st[m] != CHANGING && st[m] != MOVING ->
#else
            :: !beat_old[m] && st[m] != CHANGING && st[m] != MOVING -> /* [slots_named, named_row] */
#endif
                if
                :: names[m] && MINE(m) && ke[m] == named[m]
                :: names[m] && !(MINE(m) && ke[m] == named[m]) -> st[m] = NONE; to[m] = 0; know(m, m, named[m])
                :: !names[m] && MINE(m) -> assert(owner != m); st[m] = NONE; to[m] = 0; know(m, N, ke[m])
                :: !names[m] && !MINE(m) && ko[m] == m -> know(m, N, ke[m])
                :: else
                fi
            :: else
            fi;
            beat[m] = IDLE; beat_old[m] = false; names[m] = false; named[m] = 0; unk_old[m] = false
        fi }

    :: atomic { up[m] && read[m] == IDLE && st[m] == NONE && ko[m] != m -> /* asked [lease_run]; the store: all slots */
        read_old[m] = false; r_owner[m] = owner; r_epoch[m] = epoch; read[m] = DONE }
    :: atomic { up[m] && read[m] == DONE -> /* [slots_all] */
        if
        :: !read_old[m] && st[m] == NONE ->
            ko[m] = r_owner[m]; ke[m] = r_epoch[m];
            if
            :: K(m, r_owner[m]) == UNHEARD -> K(m, r_owner[m]) = UNKNOWN; unk_old[m] = (beat[m] != IDLE)
            :: else
            fi
        :: else
        fi;
        read[m] = IDLE; read_old[m] = false; r_owner[m] = 0; r_epoch[m] = 0 }

    /* Mine by the store, or of a dead one. [to_change, orphan, change_add, slots_run]; the store: compare-and-set */
    :: atomic { TO_CHANGE(m) ->
#ifdef M_ADOPT_SAME_EPOCH
        if
        :: ko[m] == m -> st[m] = HELD; know(m, m, ke[m])
        :: else -> ask_change(m)
        fi
#else
        ask_change(m)
#endif
        }
    :: atomic { TO_CHANGE(m) && losses < LOSSES && !late[m] -> /* given up for unknown, and runs later */
        losses++; late[m] = true; l_from[m] = ko[m]; l_epoch[m] = ke[m]; l_to[m] = m; know(m, N, ke[m]) }
    :: atomic { change[m] == DONE && up[m] -> /* [slots_changed] */
        if
        :: c_ok[m] -> st[m] = HELD; know(m, m, c_epoch[m] + 1)
        :: else -> st[m] = NONE; know(m, N, ke[m]) /* [change_undone] */
        fi;
        change[m] = IDLE; c_epoch[m] = 0; c_ok[m] = false }
    :: atomic { change[m] == DONE && up[m] && losses < LOSSES -> /* it ran, and nobody knows */
        losses++; st[m] = NONE; know(m, N, ke[m]); change[m] = IDLE; c_epoch[m] = 0; c_ok[m] = false }

    /* A planned move: offered, agreed, committed, told. */
    :: atomic { MAY_OFFER(m, 0) -> to[m] = 0; st[m] = OFFERED } /* [offers_fill, offers_send, may_offer] */
    :: atomic { MAY_OFFER(m, 1) -> to[m] = 1; st[m] = OFFERED }
    :: atomic { MAY_OFFER(m, 2) -> to[m] = 2; st[m] = OFFERED }
    :: atomic { up[m] && st[m] == OFFERED -> st[m] = HELD; to[m] = 0 } /* [offers_void, move_cancel] */
    :: atomic { up[m] && st[m] == OFFERED && move[m] == IDLE && up[to[m]] && st[to[m]] == NONE -> /* [move_offered, move_agreed] */
        st[m] = MOVING; m_epoch[m] = ke[m]; move[m] = SENT }
    :: atomic { move[m] == SENT && up[m] -> /* the store: the fence, then compare-and-set; a repeat finds its own work */
        if
        :: dead[m] -> m_no[m] = true
        :: !dead[m] && CAS(m, m_epoch[m]) -> apply(to[m]); m_ok[m] = true
        :: !dead[m] && owner == to[m] && epoch == m_epoch[m] + 1 -> m_ok[m] = true
        :: !dead[m] -> m_no[m] = true /* refused for another row of the batch */
        fi;
        move[m] = DONE }
    :: atomic { move[m] == DONE && up[m] -> /* [move_moved, given] */
        if
        :: m_ok[m] && st[m] == MOVING -> st[m] = NONE; know(m, to[m], m_epoch[m] + 1); g_to = to[m]; g_epoch = m_epoch[m] + 1
        :: m_no[m] && st[m] == MOVING -> st[m] = NONE; know(m, N, ke[m])
        :: else
        fi;
        to[m] = (st[m] == OFFERED -> to[m] : 0); move[m] = IDLE; m_epoch[m] = 0; m_ok[m] = false; m_no[m] = false }
    :: atomic { move[m] != IDLE && up[m] && losses < LOSSES && !late[m] -> /* unknown: the same batch again; the first may run later */
        losses++; late[m] = true; l_from[m] = m; l_epoch[m] = m_epoch[m]; l_to[m] = to[m];
#ifdef M_UNKNOWN_IS_UNMOVED
        st[m] = HELD; to[m] = 0; move[m] = IDLE; m_epoch[m] = 0; m_ok[m] = false; m_no[m] = false
#else
        move[m] = SENT; m_ok[m] = false; m_no[m] = false
#endif
        }
    :: atomic { late[m] ->
        if
        :: CAS(l_from[m], l_epoch[m]) && (l_to[m] == m || !dead[m]) && epoch < E_MAX -> apply(l_to[m])
        :: else
        fi;
        late[m] = false; l_from[m] = 0; l_epoch[m] = 0; l_to[m] = 0 }

#ifdef M_ANY_LIFE
    :: atomic { up[m] && g_epoch > 0 && CASE(g_to) == CASE(m) && st[m] == NONE && g_epoch > ke[m] -> /* [slots_given] */
#else
#ifdef M_GIVEN_ANY_EPOCH
    :: atomic { up[m] && g_epoch > 0 && g_to == m && st[m] == NONE ->
#else
    :: atomic { up[m] && g_epoch > 0 && g_to == m && st[m] == NONE && g_epoch > ke[m] -> /* [slots_given] */
#endif
#endif
        st[m] = HELD; know(m, m, g_epoch) }
#ifdef M_NEWS_KILLS
    :: atomic { up[m] && K(m, 1 - (m % 2)) == ALIVE -> K(m, 1 - (m % 2)) = DEAD } /* a peer says so [verdict_told] */
#endif
    od
}

init {
    atomic {
        up[0] = true; up[1] = true; row[0] = true; row[1] = true;
        st[0] = HELD; ke[0] = 1; ko[1] = N; ko[2] = N;
        K(0, 0) = ALIVE; K(1, 1) = ALIVE; K(2, 2) = ALIVE; K(0, 1) = ALIVE; K(1, 0) = ALIVE;
        run member(0); run member(1);
        if :: LIVES == 3 -> run member(2) :: else fi
    }
    do
    :: atomic { up[0] -> ends(0) } /* killed */
    :: atomic { LIVES == 3 && !up[0] && !row[2] -> row[2] = true; up[2] = true; ko[2] = N; K(2, 2) = ALIVE } /* started again */
    :: atomic { !dead[0] -> dead[0] = true } /* rightly or wrongly [declare] */
    :: atomic { !dead[1] && (row[2] || LIVES == 2) -> dead[1] = true }
    :: atomic { g_epoch > 0 -> g_epoch = 0; g_to = 0 }
    :: atomic { WRONG(0) || WRONG(1) || WRONG(2) -> assert(false) }
    od
}
