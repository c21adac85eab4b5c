/* Ownership: which slots this member may fire for. The rules of design "Ownership: beats, leases, slots" and nothing else,
 * as a pure step(event) -> actions on one thread; the folder's README tells why each rule is there.
 * Waiting times are CLOCK_BOOTTIME ms of this machine; clocks of different machines are never compared. */
#ifndef CARILLON_CORE_OWNERSHIP_H
#define CARILLON_CORE_OWNERSHIP_H

#include "agent/core/record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct ownership;

#define OWNERSHIP_BEAT_MS         1000  /* one beat a second */
#define OWNERSHIP_BEAT_RETRY_MS   250   /* after one that failed */
#define OWNERSHIP_LEASE_MS        5000  /* seen unchanged this long: over */
#define OWNERSHIP_LEASE_MARGIN_MS 250   /* the own lease ends this much earlier */
#define OWNERSHIP_READ_GAP_MS     2000  /* reads further apart than this start every count anew */
#define OWNERSHIP_VERDICT_MS      5000  /* not more than one verdict by refusal in this time */
#define OWNERSHIP_FRESH_MS        1000  /* a verdict needs an own beat this fresh, and a second witness */
#define OWNERSHIP_SILENT_MS       1250  /* no beat for so long: who answers at its address is in its place */
#define OWNERSHIP_LEFT_OVER_MS    3000  /* a dead member's slot may then be taken by anyone */
#define OWNERSHIP_SETTLE_MS       1000  /* the ring must be this old before slots move because of it */
#define OWNERSHIP_OFFER_MS        1000  /* an offer without an answer is void after this */
#define OWNERSHIP_OFFER_RETRY_MS  500   /* and may be made again after this */
#define OWNERSHIP_AGREED_MS       250   /* who agreed and was given nothing looks into the store after this */
#define OWNERSHIP_READ_SLOTS_MS   10000 /* all slots are read at least this often, and after every change */
#define OWNERSHIP_CHANGES_MAX     1024  /* slots in one CHANGE_SLOTS */
#define OWNERSHIP_NEIGHBOURS      2 /* members each one keeps a connection to: so each is watched by two */

struct ownership_options {
    const char *member; /* own id; copied */
    uint32_t slots;     /* 1..HASHRING_SLOTS_MAX */
    uint32_t ring_version;
    size_t move_slots_max; /* slots handed over in one batch */
    uint64_t seed;
};

struct ownership_member {
    char id[RECORD_MEMBER_MAX];
    uint64_t beat;
    uint32_t weight;
    uint32_t ring_version; /* 0: not said, taken as our own */
    bool dead;
    bool here; /* its address is our own, which this process listens at */
};

struct ownership_slot {
    uint16_t slot;
    uint64_t epoch;
    char owner[RECORD_MEMBER_MAX];
};

/* Each action that asks for something is answered by exactly one event, in order for BEAT, DECLARE and CHANGE_SLOTS (one
 * connection); OFFER and ASK may stay without an answer. */
enum ownership_event_kind {
    OWNERSHIP_TICK,
    OWNERSHIP_BEAT,         /* a beat's answer: ok; alive; sent_ms; members; slots that name me */
    OWNERSHIP_CONSUL,       /* Consul's member list changed: listed ids, and whether the own key is held */
    OWNERSHIP_PEER_REFUSED, /* member: its connection closed and connecting again is refused */
    OWNERSHIP_PEER_UP,      /* member: reachable */
    OWNERSHIP_LOOK,         /* a peer asks what we see of `member`; the answer goes out as LOOKED */
    OWNERSHIP_LOOKED,       /* our question was answered: yes = gone for them too; ok false: no answer */
    OWNERSHIP_PROBED,       /* answer to PROBE: yes = refused; replaced = another member answers there */
    OWNERSHIP_DECLARED,     /* answer to DECLARE: ok, yes = dead now */
    OWNERSHIP_TOLD_DEAD, /* news (a peer's TELL_DEAD, or a batch of ours was refused: member = own id): look at the store */
    OWNERSHIP_SLOTS_ALL, /* answer to READ_SLOTS: all slots */
    OWNERSHIP_CHANGED, /* answer to CHANGE_SLOTS: ok: each of the action's changes[] says `changed`; ok false: unknown */
    OWNERSHIP_OFFERED, /* a peer (member) asks `to` whether it takes slots[]; `leaving` is the peer's; answer: AGREE */
    OWNERSHIP_AGREED, /* our OFFER (question) to `member` was answered: slots[] it would take; `leaving`: it leaves */
    OWNERSHIP_MOVED, /* the planner's batch is durable: slots[] have their new epochs (ok false: not moved for sure) */
    OWNERSHIP_GIVEN, /* a peer (member) tells `to` that slots[] with these epochs are its own since its commit */
    OWNERSHIP_LEAVE, /* SIGTERM: give everything away */
    OWNERSHIP_EVENT_COUNT_
};

/* What an event points to is borrowed for the step. */
struct ownership_event {
    enum ownership_event_kind kind;
    int64_t now_ms; /* boot */
    bool ok, yes, alive, leaving, replaced;
    int64_t sent_ms; /* BEAT: boot ms just before it was sent */
    const char *member;
    /* OFFERED, GIVEN: the member id that the peer addressed (an older life of ours may have had our
     * address) */
    const char *to;
    const struct ownership_member *members;
    size_t members_count;
    const struct ownership_slot *slots;
    size_t slots_count;
    const char *const *listed; /* CONSUL: member ids with state active; leaving ones are not in here */
    size_t listed_count;
    bool key_held;
    /* LOOK, OFFERED: the asker's handle, repeated in the answer. LOOKED, AGREED: our action's number */
    uint64_t question;
};

enum ownership_action_kind {
    OWNERSHIP_DO_BEAT,    /* send a beat now */
    OWNERSHIP_DO_DECLARE, /* store.declare_dead(member, beat); yes: by refusal, else because its lease is over */
    OWNERSHIP_DO_READ_SLOTS,
    OWNERSHIP_DO_CHANGE_SLOTS, /* changes[]: take or adopt; ours until CHANGED was fed */
    OWNERSHIP_DO_PROBE,     /* look who is at the address of `member`, by a fresh connection, answer PROBED */
    OWNERSHIP_DO_ASK,       /* ask `via` to look at `member`, answer LOOKED with `question` */
    OWNERSHIP_DO_LOOKED,    /* answer the LOOK with `question`: yes = gone for us */
    OWNERSHIP_DO_TELL_DEAD, /* tell members[] that `member` is dead */
    OWNERSHIP_DO_OFFER, /* ask `member` to agree to slots[] (leaving: ours), answer AGREED with `question` */
    OWNERSHIP_DO_AGREE, /* answer the OFFERED of `member` with `question`: slots[] we take (may be none), leaving */
    OWNERSHIP_DO_MOVE,   /* planner MOVE: slots[] to `member` */
    OWNERSHIP_DO_GIVEN,  /* tell `member` that slots[] with epochs[] are its own now */
    OWNERSHIP_DO_GAINED, /* planner SLOTS_GAINED: slots[], epochs[] */
    OWNERSHIP_DO_LOST,   /* planner SLOTS_LOST: slots[] */
    OWNERSHIP_DO_LEASE, /* the lease now runs until until_ms (boot; 0: none): store it where the lanes look */
    OWNERSHIP_DO_MEMBER_DEAD, /* planner MEMBER_DEAD */
    OWNERSHIP_DO_NEIGHBOURS,  /* keep links to members[] and to no others */
    OWNERSHIP_DO_REJOIN,      /* we were declared dead: join again as a new member (new ownership object) */
    OWNERSHIP_DO_LEFT, /* nothing is ours any more, or nobody is there to take it: the process may go on with its end */
    OWNERSHIP_DO_LOG, /* text: worth a line for people */
    OWNERSHIP_ACTION_COUNT_
};

/* What an action points to is valid until the next step, changes[] until CHANGED. */
struct ownership_action {
    enum ownership_action_kind kind;
    const char *member;
    const char *via;
    uint64_t beat;
    struct slot_change *changes;
    size_t changes_count;
    const uint16_t *slots;
    const uint64_t *epochs;
    size_t slots_count;
    const char *const *members;
    size_t members_count;
    int64_t until_ms;
    bool yes, leaving;
    uint64_t question;
    const char *text;
};

/* The caller's: zeroed once, count set to 0 before each step, items released with mem_free() at the end. */
struct ownership_actions {
    struct ownership_action *items;
    size_t count;
    size_t capacity;
};

struct ownership_view { /* for /v1/cluster, metrics and forwarding */
    size_t owned, moving, unowned, members;
    int64_t lease_until_ms;
    bool leaving, rejoining;
};

/* A member that has just joined the store and owns nothing yet; the first TICK sends its first beat. ERR_INVALID (id, slots),
 * ERR_NOMEM. */
int ownership_new(const struct ownership_options *options, int64_t now_ms, struct ownership **ret,
                  struct err *e);
/* No CHANGE_SLOTS may be out. */
void ownership_free(struct ownership *o);
/* Take one event in, append what must be done to ACTIONS, in this order. Cannot fail. After REJOIN all events are ignored. */
void ownership_step(struct ownership *o, const struct ownership_event *event,
                    struct ownership_actions *actions);
/* When the next TICK is wanted (boot ms; INT64_MAX: never). */
int64_t ownership_next_ms(const struct ownership *o);
const struct ownership_view *ownership_view(const struct ownership *o);
/* Best knowledge of who owns SLOT (from the last reads and news): "" unknown. For forwarding; the owner itself decides.
 * Valid until the next step. */
const char *ownership_owner(const struct ownership *o, uint16_t slot, uint64_t *ret_epoch);
/* A peer said who owns SLOT now. Believed for forwarding until the next read; nothing is taken or dropped because of it. */
void ownership_hint(struct ownership *o, uint16_t slot, uint64_t epoch, const char *owner);
/* Structural invariants; aborts with a message. For tests. */
void ownership_validate(const struct ownership *o);

#endif
