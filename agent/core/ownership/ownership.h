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

#define OWNERSHIP_BEAT_MS 1000       /* one beat a second */
#define OWNERSHIP_LEASE_MS 5000      /* seen unchanged this long: over */
#define OWNERSHIP_LEASE_MARGIN_MS 250 /* the own lease ends this much earlier */
#define OWNERSHIP_VERDICT_MS 5000    /* not more than one verdict by refusal in this time */
#define OWNERSHIP_FRESH_MS 1000      /* a verdict needs an own beat this fresh */
#define OWNERSHIP_LEFT_OVER_MS 3000  /* a dead member's slot may then be taken by anyone */

struct ownership_options {
    const char *member;   /* own id */
    uint32_t slots;
    uint32_t ring_version;
    size_t move_slots_max; /* slots handed over in one batch */
    uint64_t seed;
};

struct ownership_member {
    char id[RECORD_MEMBER_MAX];
    uint64_t beat;
    uint32_t weight;
    bool dead;
};

struct ownership_slot {
    uint16_t slot;
    uint64_t epoch;
    char owner[RECORD_MEMBER_MAX];
};

enum ownership_event_kind {
    OWNERSHIP_TICK,
    OWNERSHIP_BEAT,        /* a beat's answer: ok; alive; sent_ms; members; slots that name me */
    OWNERSHIP_CONSUL,      /* Consul's member list changed: listed ids, and whether the own key is held */
    OWNERSHIP_PEER_REFUSED, /* member: its connection closed and connecting again is refused */
    OWNERSHIP_PEER_UP,     /* member: reachable */
    OWNERSHIP_LOOK,        /* a peer asks what we see of `member`; the answer goes out as LOOKED */
    OWNERSHIP_LOOKED,      /* our question was answered: yes = refused there too; ok false: no answer */
    OWNERSHIP_PROBED,      /* answer to PROBE: yes = refused */
    OWNERSHIP_DECLARED,    /* answer to DECLARE: ok, yes = dead now */
    OWNERSHIP_SLOTS_ALL,   /* answer to READ_SLOTS: all slots */
    OWNERSHIP_CHANGED,     /* answer to CHANGE_SLOTS: ok, changes[] with what became of each; ok false: unknown outcome */
    OWNERSHIP_OFFERED,     /* a peer (member) asks whether we would take these slots: the answer goes out as AGREE */
    OWNERSHIP_AGREED,      /* our OFFER was answered: yes */
    OWNERSHIP_MOVED,       /* the planner's batch is durable: slots[] with new epochs belong to the successor (ok false: they do not) */
    OWNERSHIP_GIVEN,       /* a peer tells that slots[] with these epochs are ours since its commit */
    OWNERSHIP_LEAVE,       /* SIGTERM: give everything away */
};

struct ownership_event {
    enum ownership_event_kind kind;
    int64_t now_ms;        /* boot */
    bool ok, yes, alive;
    int64_t sent_ms;       /* BEAT: boot ms just before it was sent */
    const char *member;
    const struct ownership_member *members;
    size_t members_count;
    const struct ownership_slot *slots;
    size_t slots_count;
    const char *const *listed; /* CONSUL: member ids with state active; leaving ones are not in here */
    size_t listed_count;
    bool key_held;
    struct slot_change *changes;
    size_t changes_count;
    uint64_t question;     /* LOOK, OFFERED: the peer's question, repeated in the answer */
};

enum ownership_action_kind {
    OWNERSHIP_DO_BEAT,       /* send a beat now */
    OWNERSHIP_DO_DECLARE,    /* store.declare_dead(member, beat) */
    OWNERSHIP_DO_READ_SLOTS,
    OWNERSHIP_DO_CHANGE_SLOTS, /* changes[]: take or adopt */
    OWNERSHIP_DO_PROBE,      /* look at `member` with a fresh connection, answer PROBED */
    OWNERSHIP_DO_ASK,        /* ask `via` to look at `member`, answer LOOKED */
    OWNERSHIP_DO_LOOKED,     /* answer question of `via`: yes = refused here */
    OWNERSHIP_DO_OFFER,      /* ask `member` to agree to slots[], answer AGREED */
    OWNERSHIP_DO_AGREE,      /* answer question of `via`: yes/no */
    OWNERSHIP_DO_MOVE,       /* planner MOVE: slots[] to `member` */
    OWNERSHIP_DO_GIVEN,      /* tell `member` that slots[] with epochs[] are its own now */
    OWNERSHIP_DO_GAINED,     /* planner SLOTS_GAINED: slots[], epochs[] */
    OWNERSHIP_DO_LOST,       /* planner SLOTS_LOST */
    OWNERSHIP_DO_LEASE,      /* the lease now runs until until_ms (boot; 0: none): store it where the lanes look */
    OWNERSHIP_DO_MEMBER_DEAD, /* planner MEMBER_DEAD */
    OWNERSHIP_DO_NEIGHBOURS, /* keep links to members[] (ring neighbours) */
    OWNERSHIP_DO_REJOIN,     /* we were declared dead: join again as a new member (new ownership object) */
    OWNERSHIP_DO_LEFT,       /* nothing is ours any more: the process may go on with its end */
    OWNERSHIP_DO_LOG,        /* text */
};

struct ownership_action {
    enum ownership_action_kind kind;
    const char *member;
    const char *via;
    uint64_t beat;
    struct slot_change *changes; /* valid until the next step */
    size_t changes_count;
    const uint16_t *slots;
    const uint64_t *epochs;
    size_t slots_count;
    const char *const *members;
    size_t members_count;
    int64_t until_ms;
    bool yes;
    uint64_t question;
    const char *text;
};

struct ownership_actions {
    struct ownership_action *items;
    size_t count;
    size_t capacity;
};

struct ownership_view {      /* for /v1/cluster, metrics and forwarding */
    size_t owned, moving, unowned, members;
    int64_t lease_until_ms;
    bool leaving, rejoining;
};

int ownership_new(const struct ownership_options *options, int64_t now_ms, struct ownership **ret, struct err *e);
void ownership_free(struct ownership *o);
void ownership_step(struct ownership *o, const struct ownership_event *event, struct ownership_actions *actions);
int64_t ownership_next_ms(const struct ownership *o);
const struct ownership_view *ownership_view(const struct ownership *o);
/* Best knowledge of who owns SLOT (from the last reads and news): "" unknown. For forwarding; the owner itself decides. */
const char *ownership_owner(const struct ownership *o, uint16_t slot, uint64_t *ret_epoch);
/* A peer said who owns SLOT now. */
void ownership_hint(struct ownership *o, uint16_t slot, uint64_t epoch, const char *owner);
void ownership_validate(const struct ownership *o);

#endif
