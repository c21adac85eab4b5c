/* Dead at once: who declares a member dead because connections to it are refused, or another member answers there. Three members, all alive
 * and with good leases; of one of them at a time the way out is broken (it sees everybody refused, and is heard all the same), or a fourth
 * was given its address by mistake and takes it for a former life of its own. Nobody may be declared dead then: only what two members see
 * at the same time is the end of one. The end of member 2 itself is seen by all; then a new life may answer at its address, and be the one
 * who says so. What DECLARE compares is in lease.pml; here it always succeeds.
 * Names in [] are the functions that a step stands for. */

#define N       3
#define FRESH   1 /* OWNERSHIP_FRESH_MS, in ticks of a second */
#define VERDICT 3 /* OWNERSHIP_VERDICT_MS */
#define QUIET   4 /* ticks between two breaks of different members: longer than any word is believed */
#define LONG    (FRESH + 2) /* what was seen before is no excuse any more */
#define NOBODY  3

byte broken = NOBODY; /* whose way out */
byte quiet = QUIET;   /* ticks since nobody's was */
byte breaks;
bool gone;            /* nothing listens at member 2: everybody is refused */
byte back = LONG;     /* ticks since something does again */
bool went;
bool other;           /* somebody else answers at the address of member 2 [member_seen] */
byte shared = QUIET;  /* ticks since a living member 2 has its address for itself */

bool dead[N];         /* the store's word, known at once */

/* of each member (first) about each other: at 3 * m + v */
bool refused[9];      /* struct member.refused */
byte probed[9];       /* ticks since it was looked at [probe, refused] */
byte witness[9];      /* ticks since a second witness said yes; FRESH + 1: none that counts */
bool asks[9];         /* a question is out [ask] */
byte asked_of[9];
bool memory[9];       /* a look once said refused (for the mutant that repeats it) */
byte rested[N];       /* ticks since the last verdict by refusal, up to VERDICT */

#define AT(m, v)      (3 * (m) + (v))
#ifdef M_LIVES_OR_NOT
#define BEATS(m, v)   false
#else
#define BEATS(m, v)   (broken != (m) && (v) == 2 && other && !gone) /* another answers there, and it beats [is_silent] */
#endif
#define ODD(m, v)     (broken == (m) || ((v) == 2 && (gone || other))) /* [verdict_probed] */
#define REFUSES(m, v) (ODD(m, v) && !BEATS(m, v))
#define THIRD(m, v)   (3 - (m) - (v))

#ifdef M_ONE_WITNESS
#define NEEDS_WITNESS(m, v) false
#else
#ifdef M_REACHABLE_THIRD
#define NEEDS_WITNESS(m, v) (!dead[THIRD(m, v)] && !refused[AT(m, THIRD(m, v))])
#else
#define NEEDS_WITNESS(m, v) (!dead[THIRD(m, v)]) /* [third_exists] */
#endif
#endif
#ifdef M_OLD_WORD
#define WITNESSED(m, v) (witness[AT(m, v)] != NO_WITNESS)
#else
#define WITNESSED(m, v) (witness[AT(m, v)] <= FRESH)
#endif
#define NO_WITNESS (FRESH + 2)
#ifdef M_NO_REST
#define RESTED(m) true
#else
#define RESTED(m) (rested[m] >= VERDICT)
#endif

inline see_refused(m, v)
{ /* [refused] */
    if
    :: !refused[AT(m, v)] -> refused[AT(m, v)] = true; witness[AT(m, v)] = NO_WITNESS
    :: else
    fi;
    probed[AT(m, v)] = 0
}

proctype observer(byte m; byte v)
{
    byte i = AT(m, v);
    byte t = THIRD(m, v);
    do
    /* A connection closed, and connecting again is refused. [verdict_refused] */
    :: atomic { !dead[m] && !dead[v] && !refused[i] && ODD(m, v) -> see_refused(m, v) }
    /* A look says otherwise. [verdict_probed, verdict_up, cleared] */
    :: atomic { !dead[m] && refused[i] && !ODD(m, v) ->
        refused[i] = false; asks[i] = false; witness[i] = NO_WITNESS; probed[i] = 0 }
    /* Each second it looks again. [verdict_round, probe] */
    :: atomic { !dead[m] && refused[i] && ODD(m, v) && probed[i] > 0 -> see_refused(m, v) }
    :: atomic { !dead[m] && refused[i] && !asks[i] && !dead[t] && !refused[AT(m, t)] && !WITNESSED(m, v) -> asks[i] = true } /* [ask, pick_witness] */
    /* The witness looks anew and answers; or no answer comes. [verdict_look, verdict_probed, answer_look, verdict_looked] */
    :: atomic { asks[i] && !dead[t] ->
        asks[i] = false;
        if
        :: REFUSES(t, v) -> witness[i] = 0; memory[AT(t, v)] = true
#ifdef M_WITNESS_REPEATS
        :: !REFUSES(t, v) && memory[AT(t, v)] -> witness[i] = 0
#endif
        :: else
        fi }
    :: atomic { asks[i] -> asks[i] = false }
#ifdef M_WITNESS_REPEATS
    :: atomic { !dead[m] && REFUSES(m, v) -> memory[i] = true }
#endif
    /* [judge, declare, verdict_declared] */
    :: atomic { !dead[m] && !dead[v] && refused[i] && !BEATS(m, v) && (!NEEDS_WITNESS(m, v) || WITNESSED(m, v)) && RESTED(m) ->
        assert(rested[m] >= VERDICT);                         /* what breaks for all at once takes one member in VERDICT at most */
        assert((v == 2 && (gone || back < LONG)) || dead[t]); /* else a healthy one, while a third could contradict */
        dead[v] = true; rested[m] = 0; refused[i] = false; asks[i] = false; witness[i] = NO_WITNESS; probed[i] = 0 }
    od
}

/* Who listens at the address of member 2: a new life of it, or one that has it by mistake. Its witnesses answer as those of the others do;
 * it renews its suspicion each second by itself, so that only the witness's word can be old. [verdict_round, renew] */
byte word = FRESH + 2; /* ticks since a witness said yes */
byte rest = VERDICT;
proctype namesake()
{
    byte t;
    do
    :: atomic { other && !dead[2] && rest >= VERDICT && !(dead[0] && dead[1]) -> /* [ask, pick_witness, verdict_looked] */
        if
        :: !dead[0] -> t = 0
        :: !dead[1] -> t = 1
        fi;
        if
        :: REFUSES(t, 2) -> word = 0
        :: else
        fi;
        t = 0 }
    :: atomic { other && !dead[2] && rest >= VERDICT &&
#ifdef M_NAMESAKE_ALONE
        true ->
#else
        (word <= FRESH || (dead[0] && dead[1])) -> /* [judge, third_exists] */
#endif
        assert(gone || back < LONG || (dead[0] && dead[1]));
        dead[2] = true; rest = 0; word = FRESH + 2 }
    od
}

/* The next second comes when everybody has renewed or dropped what it suspects: rounds follow beats. */
#ifdef M_HAUNTS
#define RENEWED(m, v) true
#else
#define RENEWED(m, v) (dead[m] || !refused[AT(m, v)] || probed[AT(m, v)] == 0)
#endif

inline older(m, v)
{
    if :: refused[AT(m, v)] && probed[AT(m, v)] < 1 -> probed[AT(m, v)]++ :: else fi;
    if :: witness[AT(m, v)] <= FRESH -> witness[AT(m, v)]++ :: else fi
}

init {
    byte i;
    atomic {
        for (i : 0 .. 8) { witness[i] = NO_WITNESS }
        for (i : 0 .. 2) { rested[i] = VERDICT }
        i = 0;
        run observer(0, 1); run observer(0, 2); run observer(1, 0); run observer(1, 2); run observer(2, 0); run observer(2, 1);
        run namesake()
    }
    do
    :: atomic { RENEWED(0, 1) && RENEWED(0, 2) && RENEWED(1, 0) && RENEWED(1, 2) && RENEWED(2, 0) && RENEWED(2, 1) ->
        older(0, 1); older(0, 2); older(1, 0); older(1, 2); older(2, 0); older(2, 1);
        if :: rested[0] < VERDICT -> rested[0]++ :: else fi;
        if :: rested[1] < VERDICT -> rested[1]++ :: else fi;
        if :: rested[2] < VERDICT -> rested[2]++ :: else fi;
        if :: !gone && back < LONG -> back++ :: else fi;
        if :: word <= FRESH -> word++ :: else fi;
        if :: rest < VERDICT -> rest++ :: else fi;
        if :: (!other || gone) && shared < QUIET -> shared++ :: else fi;
        if :: broken == NOBODY && quiet < QUIET -> quiet++ :: else fi }
    :: atomic { broken == NOBODY && quiet == QUIET && shared == QUIET && breaks < 2 ->
        breaks++; quiet = 0;
        if :: broken = 0 :: broken = 1 :: broken = 2 fi }
    :: atomic { broken != NOBODY -> broken = NOBODY }
    :: atomic { !went && !dead[2] && broken != 2 -> went = true; gone = true; back = 0 }
    :: atomic { gone && !other -> if :: gone = false :: other = true fi }
    :: atomic { !gone && !other && !dead[2] && broken == NOBODY && quiet == QUIET && breaks < 2 -> breaks++; shared = 0; other = true }
    :: atomic { !gone && other -> other = false }
    od
}
