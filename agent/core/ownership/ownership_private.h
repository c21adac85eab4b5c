/* What the files of this folder share. ownership.c says in which order they run. */
#ifndef CARILLON_CORE_OWNERSHIP_PRIVATE_H
#define CARILLON_CORE_OWNERSHIP_PRIVATE_H

#include "agent/base/rng.h"
#include "agent/core/ownership/ownership.h"

#define LOOKS_MAX    16 /* questions of peers we answer at a time */
#define ASKS_A_ROUND 3  /* witnesses tried a second for one suspect */
#define NEVER        INT64_MIN

enum member_state {
    MEMBER_UNKNOWN, /* a slot names it, no read has shown its row yet */
    MEMBER_ALIVE,
    MEMBER_DEAD, /* declared dead, or its row is gone; for ever */
};

/* What is being handed to a member: at most one chunk at a time. */
struct chunk {
    enum { CHUNK_NONE, CHUNK_OFFERED, CHUNK_MOVING } state;
    uint16_t *slots; /* move_slots_max, allocated at first use */
    size_t count;    /* OFFERED: offered; MOVING: not yet answered by MOVED */
    uint64_t question;
    int64_t until_ms; /* OFFERED: void then */
    int64_t retry_ms; /* no new offer before */
};

struct member {
    char id[RECORD_MEMBER_MAX];
    uint64_t hash;
    enum member_state state;
    uint32_t weight;
    uint32_t ring_version;
    uint64_t beat;
    int64_t since_ms; /* this beat was seen in every read since then, and the reads had no gap */
    uint64_t as_of;   /* UNKNOWN: a beat issued after this number without its row means that it is gone */
    size_t refs;      /* slots and looks that point here */
    bool listed;      /* in the last read */
    bool here;        /* this process listens at its address */
    bool leaving;     /* it said so itself */
    bool declaring;
    bool by_refusal;   /* ... for that reason */
    int64_t silent_ms; /* this beat was seen for so long, counting only the time between reads of one run */
    /* suspicion: see verdict.c */
    bool refused;
    bool replaced;       /* ... no more, but another member answers at its address */
    bool probing;        /* for ourselves */
    uint64_t refused_no; /* requests issued until then say nothing about it */
    int64_t probed_ms;
    int64_t witnessed_ms; /* when the second witness said yes */
    uint64_t question;
    unsigned asks_left;
    struct chunk chunk;
};

enum slot_state {
    SLOT_NONE,     /* not mine to fire */
    SLOT_HELD,     /* mine */
    SLOT_OFFERED,  /* mine, and offered to `ring` */
    SLOT_MOVING,   /* the planner is handing it to `to` */
    SLOT_CHANGING, /* in the CHANGE_SLOTS that is out */
    SLOT_STATE_COUNT_
};

/* Owner and epoch are the best knowledge of the store's row. NONE with owner = me: to be adopted. */
struct slot {
    uint64_t epoch;
    /* Answers to requests with this number or lower were read before our last change: not heard */
    uint64_t as_of;
    uint64_t named;       /* the last beat whose answer named me */
    struct member *owner; /* NULL: not known */
    struct member *ring;  /* who shall have it; NULL: nobody */
    struct member *to;    /* MOVING */
    int64_t orphan_ms;    /* since when its owner is known to be dead; NEVER: it is not */
    enum slot_state state;
};

struct look {
    struct member *member; /* NULL: free */
    uint64_t question;
};

struct ownership {
    struct ownership_options options;
    int64_t now_ms;
    struct rng rng;
    struct ownership_actions *actions; /* of this step */
    void **scratch;                    /* freed at the next step */
    size_t scratch_count, scratch_capacity;
    struct ownership_view view;

    struct member *me;
    struct member **members;
    size_t members_count, members_capacity;
    struct slot *slots;

    /* One number for every beat and read issued, so that "asked after this became known" needs no clock. */
    uint64_t issued;
    uint64_t beat_no, read_no; /* outstanding, 0: none */
    int64_t beat_ms, read_ms;  /* when the next is due anyway */
    int64_t beat_issued_ms;
    int64_t last_read_ms; /* arrival of the last beat that succeeded */
    int64_t run_ms;       /* since the one before it; 0: one between them failed, or was too late */
    uint64_t beat_ok_no;
    int64_t beat_ok_sent_ms;

    struct slot_change *changes; /* the CHANGE_SLOTS that is out */
    size_t changes_count;        /* 0: none */
    uint64_t change_no;          /* `issued` when a slot last became or ceased to be ours */

    uint64_t *consul; /* hashes of the ids that Consul lists */
    size_t consul_count;

    uint64_t questions;
    int64_t verdict_ms, verdict_before_ms;
    struct look looks[LOOKS_MAX];

    uint64_t ring_hash; /* of its input; 0: none yet */
    size_t ring_members;
    int64_t ring_ms;  /* when it changed */
    int64_t moves_ms; /* when to think about moves again */
    uint64_t neighbours[OWNERSHIP_NEIGHBOURS];
    int64_t agreed_ms;       /* look into the store then, if nothing was given; NEVER */
    int64_t agreed_until_ms; /* what we agreed to may still come until then */

    bool want_beat, want_read, check_slots; /* at the end of this step, or as soon as may be */
    bool run_broken;                        /* a read failed: all counts start anew */
    bool lease_on;                          /* as the caller was told */
    bool key_held;                          /* by Consul's list */
    bool ring_by_store;                     /* Consul's list would leave nobody to give to */
    bool leaving, left, rejoining;
    unsigned looks_next;
};

/* Slots for one action, gathered while scanning. */
struct gather {
    uint16_t *slots;
    uint64_t *epochs;
    size_t count;
};

/* ownership.c */
void *scratch(struct ownership *o, size_t n, size_t size_bytes);
struct ownership_action *act(struct ownership *o, enum ownership_action_kind kind, const struct member *m);
void say(struct ownership *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gather_add(struct ownership *o, struct gather *g, uint16_t slot, uint64_t epoch);
void gather_act(struct ownership *o, enum ownership_action_kind kind, const struct gather *g,
                const struct member *m);
bool lease_valid(const struct ownership *o);
struct member *member_find(const struct ownership *o, const char *id);
struct member *member_add(struct ownership *o, const char *id);
void member_point(struct member **at, struct member *m);
bool slot_mine(const struct slot *s);
void slot_move(struct ownership *o, struct slot *s, enum slot_state next);
void slot_know(struct ownership *o, struct slot *s, struct member *owner, uint64_t epoch);

/* lease.c: beats, the own lease, others' leases */
void lease_run(struct ownership *o);
void lease_beat(struct ownership *o, const struct ownership_event *ev);
void member_died(struct ownership *o, struct member *m);

/* verdict.c: dead at once, by two witnesses */
void verdict_refused(struct ownership *o, const struct ownership_event *ev);
void verdict_up(struct ownership *o, const struct ownership_event *ev);
void verdict_look(struct ownership *o, const struct ownership_event *ev);
void verdict_looked(struct ownership *o, const struct ownership_event *ev);
void verdict_probed(struct ownership *o, const struct ownership_event *ev);
void verdict_declared(struct ownership *o, const struct ownership_event *ev);
void verdict_told(struct ownership *o, const struct ownership_event *ev);
void verdict_consul(struct ownership *o, const struct ownership_event *ev);
bool consul_lists(const struct ownership *o, const struct member *m);
void verdict_round(struct ownership *o);
void declare(struct ownership *o, struct member *m, bool by_refusal);

/* slots.c: adopt, drop, take */
void slots_run(struct ownership *o);
void slots_named(struct ownership *o, const struct ownership_event *ev, uint64_t no);
void slots_all(struct ownership *o, const struct ownership_event *ev);
void slots_changed(struct ownership *o, const struct ownership_event *ev);
void slots_given(struct ownership *o, const struct ownership_event *ev);
void slots_lose_all(struct ownership *o);

/* move.c: the ring and planned moves */
void ring_update(struct ownership *o);
void move_run(struct ownership *o);
void move_offered(struct ownership *o, const struct ownership_event *ev);
void move_agreed(struct ownership *o, const struct ownership_event *ev);
void move_moved(struct ownership *o, const struct ownership_event *ev);
void move_leave(struct ownership *o);
void move_cancel(struct ownership *o, struct member *m, int64_t retry_after_ms);
int64_t move_next_ms(const struct ownership *o);

#endif
