/* One life of a member: from joining the store under a fresh member id to having given everything away, or to being declared
 * dead. It drives the pure machines (core/planner, core/ownership) with the real store, the real peers and the delivery lanes:
 * events in, actions out. A member that was declared dead is retired and a new engine with a new id takes its place.
 * Loop thread only, but for the functions that say otherwise. */
#ifndef CARILLON_AGENT_ENGINE_H
#define CARILLON_AGENT_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/planner.h"
#include "agent/store/store.h"

struct capability;
struct clock_guard;
struct config;
struct consul_client;
struct dispatch;
struct endpoints;
struct engine;
struct events;
struct err;
struct http_client;
struct loop;
struct membership_view;
struct metrics;
struct ownership_view;
struct safety;
struct quotas;
struct telemetry;

struct engine_options {
    struct loop *loop;
    const struct config *config; /* lives longer than the engine */
    const struct store_ops *store;
    void *store_self;
    uint32_t slots;
    struct consul_client *consul; /* NULL: standalone */
    struct http_client *http;
    struct clock_guard *clock;
    struct metrics *metrics;
    struct events *events;               /* lives longer than the engine; NULL: nobody is told */
    struct safety *safety;               /* lives longer than the engine */
    const struct capability *capability; /* the same */
    struct telemetry *telemetry;         /* the same; NULL: nothing is traced */
    struct quotas *quotas;               /* the same; NULL: no limits */
    const char *tzdata;
    const char *member;    /* "<name>.<random>" */
    const char *peer_host; /* where peers reach us; "" in standalone mode */
    uint16_t peer_port;
    const char *secret; /* NULL: none */
    size_t secret_bytes;
    const char *config_digest;
    int64_t started_ms;
    uint64_t seed;
    size_t memory_max_bytes; /* of loaded jobs and fires; 0: MEMORY_MAX_BYTES */
    size_t load_page;        /* rows that a load asks for; 0: LOAD_PAGE */
    /* A bit a slot, SLOTS of them: which are held. Read by any thread, and by all lives in turn: one that ends leaves it empty. */
    _Atomic uint64_t *owned;
    /* Each runs on the loop, never before the call that causes it has returned. */
    void (*joined)(void *arg); /* the first beat was answered: may serve and fire */
    void (*rejoin)(
        void *arg); /* declared dead: nothing is ours any more; engine_retire() it, then make a new one */
    void *arg;
};

/* Errors are those of its parts, none of which the store has seen then. */
int engine_new(const struct engine_options *options, struct engine **ret, struct err *e);
/* Nothing of it may be under way: after engine_leave() or engine_retire() said so. */
void engine_free(struct engine *g);

/* SIGUSR1, soon to be followed by the end: give every slot away and start nothing more, but stay a member that passes on what it
 * is asked, until engine_leave(). While nobody else is there to take them, what is ours stays ours and fires. */
void engine_drain(struct engine *g);
/* SIGTERM: give every slot away, wait for what is in flight for at most GRACE_MS, end the session, mark the own row dead.
 * DONE runs once; CLEAN false: something was still in flight and is repeated by the new owners as their next attempt. */
void engine_leave(struct engine *g, int64_t grace_ms, void (*done)(void *arg, bool clean), void *arg);
/* After `rejoin`: let what is in flight end unrecorded. DONE runs once, as soon as the next life may use the store; this one
 * gives up all it holds when its last attempt has ended. */
void engine_retire(struct engine *g, void (*done)(void *arg), void *arg);

/* Nothing of it is under way any more: engine_free() may be called. After engine_leave() when DONE runs; after engine_retire()
 * once its last attempt has ended. */
bool engine_ended(const struct engine *g);

/* --- for the node -------------------------------------------------------------------------------------------------- */

const char *engine_member(const struct engine *g);
bool engine_owns(const struct engine *g, uint16_t slot);
const struct planner_stats *engine_planner_stats(const struct engine *g);
const struct planner *engine_planner(const struct engine *g);
const struct ownership_view *engine_ownership_view(const struct engine *g);
const struct membership_view *engine_membership_view(const struct engine *g); /* NULL: standalone */
/* "" when unknown; RET_EPOCH may be NULL. */
const char *engine_owner(const struct engine *g, uint16_t slot, uint64_t *ret_epoch);
void engine_owner_hint(struct engine *g, uint16_t slot, uint64_t epoch, const char *owner);
/* Members as the last beat showed them. */
const struct store_member *engine_members(const struct engine *g, size_t *ret_count);
/* NULL: unknown. */
const struct store_member *engine_find_member(const struct engine *g, const char *id);
bool engine_may_start(const struct engine *g);
int64_t engine_lease_until_ms(const struct engine *g);
/* Whether the own lease is sure, and since when (boot ms) it is or is not. */
bool engine_lease_held(const struct engine *g, int64_t *ret_since_ms);
struct dispatch *engine_dispatch(const struct engine *g);
struct endpoints *engine_endpoints(const struct engine *g);

/* See node_submit(). */
void engine_submit(struct engine *g, struct planner_api *api,
                   void (*done)(void *arg, struct planner_api *api), void *arg);
/* See node_peer_message(). */
void engine_peer_message(struct engine *g, const char *path, const char *body, size_t bytes,
                         void (*done)(void *arg, int status, const char *body), void *arg);
/* CONFIG takes the place of the options' one, which must stay as well. */
void engine_reload(struct engine *g, const struct config *config);
/* The clock guard has opened or closed: known to the lanes when this returns. */
void engine_clock_changed(struct engine *g);

#endif
