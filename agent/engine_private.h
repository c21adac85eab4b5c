/* Shared by the files of module engine; nobody else includes it. */
#ifndef CARILLON_AGENT_ENGINE_PRIVATE_H
#define CARILLON_AGENT_ENGINE_PRIVATE_H

#include "agent/base/list.h"
#include "agent/base/map.h"
#include "agent/config.h"
#include "agent/core/ownership/ownership.h"
#include "agent/engine.h"
#include "agent/io/link.h"
#include "agent/io/loop.h"
#include "agent/peers.h"
#include "callback/callback.h"
#include "callback/dispatch.h"
#include "consul/membership.h"

#define ENGINE_GETS_MAX      500 /* single jobs read in one call */
#define ENGINE_STRANGERS_MAX 32  /* what does not fit comes with the next look at the fires */
#define ENGINE_QUESTIONS_MAX 256 /* of peers, waiting for an answer */

enum engine_state {
    ENGINE_JOINING, /* the own row is not in the store yet */
    ENGINE_RUNNING,
    ENGINE_LEAVING,  /* slots are being given away */
    ENGINE_DRAINING, /* nothing is ours; what is in flight ends */
    ENGINE_ENDING,   /* session and row are being ended */
    ENGINE_RETIRING, /* declared dead; what is in flight ends unrecorded */
    ENGINE_GONE,
};

/* A connection kept to a ring neighbour. */
struct engine_link {
    struct list list;
    struct engine *engine;
    struct link *link;
    bool was_up; /* only then does a refusal mean that the process is gone */
    char member[RECORD_MEMBER_MAX];
};

/* A peer's question that the ownership machine will answer. */
struct engine_question {
    uint64_t id;
    void (*done)(void *arg, int status, const char *body);
    void *arg;
};

/* What a call to the store or to a peer was about. */
struct engine_asked {
    struct engine *engine;
    uint64_t question;
    char member[RECORD_MEMBER_MAX];
};

/* Single jobs that the planner wants: what waits goes out in one call. */
struct engine_gets {
    struct engine *engine;
    int64_t sent_us;
    struct store_key keys[ENGINE_GETS_MAX];
    uint64_t loads[ENGINE_GETS_MAX];
    uint64_t versions[ENGINE_GETS_MAX]; /* whose copy counts if the job is not there; 0: none */
    size_t count;
};

/* Events for the ownership machine that come up while it, or the planner, is taking a step. */
struct engine_news {
    struct engine_news *next;
    enum ownership_event_kind kind;
    bool ok;
    char member[RECORD_MEMBER_MAX];
    struct ownership_slot *slots;
    size_t slots_count;
};

struct engine {
    struct engine_options o;
    char member[RECORD_MEMBER_MAX];
    enum engine_state state;
    struct planner *planner;
    struct ownership *ownership;
    struct endpoints *endpoints;
    struct dispatch *dispatch;
    struct list watches; /* struct engine_watch */
    size_t watches_count;
    struct consul_call *self_call; /* asking for the own node's name, or NULL */
    struct loop_timer *self_timer; /* ... again */
    struct membership *membership;
    struct peers *peers;
    struct callback_gate gate;
    struct loop_timer *timer, *join_timer;
    struct store_member *joining; /* borrowed by the store until it answered */
    struct loop_msg turn;         /* deferred: end of a turn in which something happened */
    bool turn_asked;
    struct ownership_actions own;
    bool in_ownership, in_planner; /* steps are not entered again from inside */
    int64_t planner_now_ms;        /* as it was told last */

    /* ownership's world */
    struct store_member *members;
    size_t members_count;
    struct ownership_member *beat_members;
    struct ownership_slot *beat_slots;
    struct list links;
    struct map_u64 questions;
    uint64_t last_question;
    int64_t lease_until_ms;
    bool lease_held;        /* as of the last turn */
    int64_t lease_since_ms; /* boot: since when it is, or is not */
    bool may_start;
    bool first_beat;
    struct engine_news *news;
    unsigned store_calls;     /* under way, their callbacks point at us */
    int64_t handing_since_ms; /* a planned move is under way since then; 0: none */

    /* Holders of fires that no beat has shown alive: dead if the next beat does not either. */
    char strangers[ENGINE_STRANGERS_MAX][RECORD_MEMBER_MAX];
    size_t strangers_count;
    size_t strangers_before; /* known when the beat under way was sent */

    /* planner's world */
    struct planner_actions plan;
    struct engine_commit {
        struct engine *engine;
        struct planner_batch *batch; /* NULL: none is out */
        struct store_batch store_batch;
        int64_t sent_us;
    } commits[STORE_COMMITS_MAX];
    unsigned commits_out;
    int64_t beat_sent_us;
    int64_t commit_not_before_ms; /* after a failure */
    /* Until then results wait for others, unless somebody waits for what they ride with */
    int64_t commit_gather_ms;
    struct engine_gets *gets; /* being collected */
    unsigned gets_out;
    struct planner_api *replies, **replies_end;

    /* the end */
    int64_t grace_until_ms;
    void (*left)(void *arg, bool clean);
    void *left_arg;
    bool retiring;
    void (*retired)(void *arg);
    void *retired_arg;
    bool clean;
    bool stays;      /* engine_drain(): until it is told to leave */
    unsigned ending; /* things that must still be answered */
};

/* engine.c */
void engine_ask_turn(struct engine *g);
int64_t engine_now_ms(struct engine *g);
void engine_update_may_start(struct engine *g);
void engine_check_end(struct engine *g);
const char *engine_address(const struct engine *g, const char *member);
bool engine_dead(const struct engine *g);
bool engine_over(const struct engine *g);

/* engine_services.c */
void engine_new_endpoints(struct engine *g);
void engine_set_services(struct engine *g, const struct config *before);
void engine_drop_watches(struct engine *g);
void engine_service_options(void *arg, const char *service, struct balance_options *ret);
void engine_service_rest(void *arg, const char *service, struct dispatch_service *ret);
size_t engine_service_tags(void *arg, const char *service, const char **ret);
void engine_service_released(void *arg, const char *service);
void engine_observe_attempt(void *arg, const struct dispatch_timing *t);

/* engine_planner.c */
void engine_plan(struct engine *g, struct planner_event *event);
void engine_tick_planner(struct engine *g);
bool engine_may_flush(const struct engine *g);
int64_t engine_flush_at_ms(const struct engine *g); /* on the loop's clock; while engine_may_flush() */
void engine_flush(struct engine *g);
void engine_send_gets(struct engine *g);
void engine_send_replies(struct engine *g);
/* A call to the store that was sent at SENT_US (boot clock) has answered. */
void engine_count_store(struct engine *g, const char *op, int64_t sent_us, const struct err *e);
void engine_attempt_done(void *arg, struct delivery *delivery, const struct attempt *attempt);
void engine_part_done(void *arg, struct delivery *delivery, size_t part, const struct attempt *attempt);

/* engine_events.c */
/* engine_trace.c */
void engine_trace_attempt(struct engine *g, const struct delivery *d, const struct attempt *a);
void engine_trace_fire(struct engine *g, const struct planner_action *a);
void engine_tell_fire(struct engine *g, const struct planner_action *a);
void engine_tell_job(struct engine *g, const struct planner_api *api);
void engine_tell_cluster(struct engine *g, const char *what);

/* engine_owner.c */
void engine_own(struct engine *g, struct ownership_event *event);
void engine_tick_owner(struct engine *g);
void engine_take_news(struct engine *g);
void engine_consul_changed(void *arg, const struct membership_view *view);
void engine_tell_moved(struct engine *g, const struct planner_action *action);
void engine_tell_fenced(struct engine *g);
void engine_drop_news(struct engine *g);
void engine_set_lease(struct engine *g, int64_t until_ms);
void engine_disown(struct engine *g);
void engine_rejoin(struct engine *g);
void engine_drop_links(struct engine *g);
void engine_note_holder(struct engine *g, const char *holder);
struct engine_news *engine_add_news(struct engine *g, enum ownership_event_kind kind, const char *member);

/* engine_peers.c */
struct engine_asked *engine_asked_new(struct engine *g, const char *member, uint64_t question);
struct ownership_slot *engine_slots_of(const uint16_t *slots, const uint64_t *epochs, size_t count);
void engine_probe(struct engine *g, const char *member);
void engine_ask_witness(struct engine *g, const struct ownership_action *action);
void engine_offer(struct engine *g, const struct ownership_action *action);
void engine_tell_given(struct engine *g, const struct ownership_action *a);
void engine_tell_dead(struct engine *g, const struct ownership_action *a);
void engine_answer_looked(struct engine *g, const struct ownership_action *a);
void engine_answer_agree(struct engine *g, const struct ownership_action *a);
void engine_answer_questions(struct engine *g);
void engine_send_wake(struct engine *g, const uint16_t *slots, size_t count);

#endif
