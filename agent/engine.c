#include "agent/engine.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/clock_guard.h"
#include "agent/engine_private.h"
#include "agent/metrics.h"
#include "agent/telemetry.h"
#include "agent/version.h"

#define JOIN_RETRY_MS      500
#define MEMORY_MAX_BYTES   ((size_t)512 << 20)
#define LOAD_PAGE          2000
#define UNWRITTEN_MAX      10000
#define UNWRITTEN_STALL_MS 1000
#define CATCH_UP_PER_S     1000
#define RETRY_WINDOW       1000
#define OUT_WAITING        1000
#define MOVE_SLOTS_MAX     256
#define IDLE_TURN_MS       1000
#define SESSION_END_MS     2000
#define RING_VERSION       1
#define CLOCK_BACK_MS      1000

static const struct log_ctx log_here = {.module = "engine"};

/* --- small things -------------------------------------------------------------------------------------------------- */

/* The planner's clock: corrected wall time. A slewed clock's small steps back make it stand still; a real one is followed: an
 * agent that started with a clock that was ahead would fire all that is due until then. */
int64_t engine_now_ms(struct engine *g)
{
    int64_t now = clock_guard_now_ms(g->o.clock);
    if (now > g->planner_now_ms || now < g->planner_now_ms - CLOCK_BACK_MS)
        g->planner_now_ms = now;
    return g->planner_now_ms;
}

bool engine_dead(const struct engine *g)
{
    return g->state == ENGINE_RETIRING || g->state == ENGINE_GONE;
}

/* Nothing new may be begun: what is under way ends, nothing follows. */
bool engine_over(const struct engine *g)
{
    return g->state >= ENGINE_ENDING;
}

const struct store_member *engine_find_member(const struct engine *g, const char *id)
{
    for (size_t i = 0; i < g->members_count; i++)
        if (strcmp(g->members[i].id, id) == 0)
            return &g->members[i];
    return NULL;
}

const char *engine_address(const struct engine *g, const char *member)
{
    const struct store_member *m = engine_find_member(g, member);
    if (m)
        return m->address;
    const struct membership_view *view = engine_membership_view(g);
    for (size_t i = 0; view && i < view->count; i++)
        if (strcmp(view->members[i].id, member) == 0)
            return view->members[i].address;
    return NULL;
}

void engine_update_may_start(struct engine *g)
{
    bool open = clock_guard_sure(g->o.clock) && !engine_over(g);
    bool held = (int64_t)clock_boot_ms() < g->lease_until_ms, may = open && held;
    bool same = held == g->lease_held && may == g->may_start;
    if (held != g->lease_held)
        g->lease_since_ms = (int64_t)clock_boot_ms();
    g->lease_held = held;
    atomic_store(&g->gate.closed, !open);
    atomic_store(&g->gate.wall_offset_us, clock_guard_offset_us(g->o.clock));
    if (same)
        return;
    g->may_start = may;
    struct planner_event event = {.kind = PLANNER_LEASE, .may_start = may, .lease_held = held};
    engine_plan(g, &event);
}

/* --- turns --------------------------------------------------------------------------------------------------------- */

static int64_t next_wake_ms(struct engine *g)
{
    int64_t wait = IDLE_TURN_MS, boot = (int64_t)clock_boot_ms();
    int64_t plan = planner_next_ms(g->planner);
    int64_t own = g->ownership && !engine_over(g) ? ownership_next_ms(g->ownership) : INT64_MAX;
    if (plan != INT64_MAX && plan - engine_now_ms(g) < wait)
        wait = plan - engine_now_ms(g);
    if (own != INT64_MAX && own - boot < wait)
        wait = own - boot;
    if (engine_may_flush(g) && engine_flush_at_ms(g) - loop_now_ms(g->o.loop) < wait)
        wait = engine_flush_at_ms(g) - loop_now_ms(g->o.loop);
    return wait < 0 ? 0 : wait;
}

/* Due work, one flush, then answers. */
static void turn(struct engine *g)
{
    engine_update_may_start(g);
    engine_take_news(g);
    engine_tick_owner(g);
    if (g->planner)
        engine_tick_planner(g);
    engine_flush(g);
    engine_send_gets(g);
    engine_send_replies(g);
    engine_check_end(g);
    if (g->state != ENGINE_GONE)
        loop_timer_arm(g->timer, next_wake_ms(g));
}

static void run_turn(struct loop_msg *msg)
{
    struct engine *g = container_of(msg, struct engine, turn);
    g->turn_asked = false;
    turn(g);
}

/* Something happened: finish this turn of the loop with a turn of ours. */
void engine_ask_turn(struct engine *g)
{
    if (g->turn_asked || g->state == ENGINE_GONE)
        return;
    g->turn_asked = true;
    loop_defer(g->o.loop, &g->turn);
}

static void on_timer(void *arg)
{
    struct engine *g = arg;
    if (g->state == ENGINE_JOINING && !g->ownership)
        return; /* the join answers by itself */
    engine_ask_turn(g);
}

/* --- joining ------------------------------------------------------------------------------------------------------- */

static void join(struct engine *g);

static void join_again(void *arg)
{
    struct engine *g = arg;
    if (g->state == ENGINE_JOINING)
        join(g);
}

static void join_consul(struct engine *g)
{
    const struct config *c = g->o.config;
    struct membership_options options = {.cluster = c->cluster.name,
                                         .member = g->member,
                                         .name = c->agent.name,
                                         .host = g->o.peer_host,
                                         .port = g->o.peer_port,
                                         .zone = c->agent.zone,
                                         .weight = (uint32_t)c->agent.weight,
                                         .version = version_text(),
                                         .config_digest = g->o.config_digest,
                                         .tzdata = g->o.tzdata,
                                         .started_ms = g->o.started_ms,
                                         .register_as = c->consul.register_as,
                                         .check_ttl_ms = (int64_t)c->consul.check_ttl_ms,
                                         .session_ttl_ms = (int64_t)c->consul.session_ttl_ms,
                                         .node_check = true,
                                         .seed = g->o.seed};
    g->membership = membership_new(g->o.consul, &options, engine_consul_changed, g);
}

static void on_joined(void *arg, const struct err *e)
{
    struct engine *g = arg;
    struct err failed = {0};
    g->store_calls--;
    mem_free(g->joining);
    g->joining = NULL;
    if (g->state != ENGINE_JOINING) {
        engine_ask_turn(g);
        return;
    }
    if (e->code ==
        ERR_FENCED) { /* an earlier try did it, and the row was silent for so long that others have buried it */
        engine_rejoin(g);
        return;
    }
    struct ownership_options options = {.member = g->member,
                                        .slots = g->o.slots,
                                        .ring_version = RING_VERSION,
                                        .move_slots_max = MOVE_SLOTS_MAX,
                                        .seed = g->o.seed};
    if (e->code != ERR_OK || ownership_new(&options, (int64_t)clock_boot_ms(), &g->ownership, &failed) < 0) {
        log_warn(&log_here, "joining the store failed, trying again", "error=%s",
                 LOGQ(e->code != ERR_OK ? e->text : failed.text));
        loop_timer_free(g->join_timer);
        g->join_timer = loop_timer_new(g->o.loop, join_again, g);
        loop_timer_arm(g->join_timer, JOIN_RETRY_MS);
        return;
    }
    g->state = ENGINE_RUNNING;
    log_info(&log_here, "joined the store", "member=%s", g->member);
    if (g->o.consul)
        join_consul(g);
    engine_ask_turn(g);
}

static void join(struct engine *g)
{
    struct store_member *me = mem_new(struct store_member);
    bool six = strchr(g->o.peer_host, ':') != NULL;
    memcpy(me->id, g->member, sizeof(me->id));
    (void)snprintf(me->name, sizeof(me->name), "%s", g->o.config->agent.name);
    if (g->o.peer_port > 0) /* standalone: nobody reaches us, and nobody has to */
        (void)snprintf(me->address, sizeof(me->address), six ? "[%s]:%u" : "%s:%u", g->o.peer_host,
                       g->o.peer_port);
    (void)snprintf(me->zone, sizeof(me->zone), "%s", g->o.config->agent.zone ? g->o.config->agent.zone : "");
    me->weight = (uint32_t)g->o.config->agent.weight;
    g->joining = me;
    g->store_calls++;
    g->o.store->join(g->o.store_self, me, on_joined, g);
}

/* --- making and freeing -------------------------------------------------------------------------------------------- */

/* As many as can be under way, and some that wait for their turn, so that those who end are followed at once. */
static size_t out_max(const struct config *c)
{
    return (size_t)c->callback.max_in_flight + OUT_WAITING;
}

static int new_planner(struct engine *g, struct err *e)
{
    const struct config *c = g->o.config;
    struct planner_options options = {.member = g->member,
                                      .slots = g->o.slots,
                                      .horizon_ms = (int64_t)c->store.horizon_ms,
                                      .memory_max_bytes =
                                          g->o.memory_max_bytes ? g->o.memory_max_bytes : MEMORY_MAX_BYTES,
                                      .load_page = g->o.load_page ? g->o.load_page : LOAD_PAGE,
                                      .unwritten_max = UNWRITTEN_MAX,
                                      .unwritten_stall_ms = UNWRITTEN_STALL_MS,
                                      .catch_up_per_s = CATCH_UP_PER_S,
                                      .retry_window = RETRY_WINDOW,
                                      .batches_max = g->o.store->commits_max,
                                      .out_max = out_max(c),
                                      .history_keep = (uint32_t)c->history.keep,
                                      .history_keep_ms = (int64_t)c->history.keep_for_ms,
                                      .dead_keep_ms = (int64_t)c->deadletters.keep_for_ms,
                                      .seed = g->o.seed,
                                      .tzdata = g->o.tzdata};
    return planner_new(&options, &g->planner, e);
}

static int new_dispatch(struct engine *g, struct err *e)
{
    const struct config *c = g->o.config;
    char source[160];
    (void)snprintf(source, sizeof(source), "/carillon/%s", c->cluster.name);
    struct dispatch_options options = {
        .loop = g->o.loop,
        .endpoints = g->endpoints,
        .transports = {[JOB_HTTP] = &callback_http, [JOB_GRPC] = &callback_grpc},
        .transport = {.loop = g->o.loop,
                      .gate = &g->gate,
                      .threads = (unsigned)c->callback.threads,
                      .connections_max = (unsigned)c->callback.max_in_flight,
                      .user_agent = version_product(),
                      .safety = g->o.safety,
                      .capability = g->o.capability,
                      .trace_rule = telemetry_rule(g->o.telemetry)},
        .source = source,
        .in_flight_max = (uint32_t)c->callback.max_in_flight,
        .options_of = engine_service_options,
        .tags_of = engine_service_tags,
        .service_of = engine_service_rest,
        .seed = g->o.seed,
        .done = engine_attempt_done,
        .released = engine_service_released,
        .part = engine_part_done,
        .observe = engine_observe_attempt,
        .arg = g};
    return dispatch_new(&options, &g->dispatch, e);
}

int engine_new(const struct engine_options *options, struct engine **ret, struct err *e)
{
    struct engine *g = mem_new(struct engine);
    g->o = *options;
    (void)snprintf(g->member, sizeof(g->member), "%s", options->member); /* made by the agent to fit */
    g->turn.run = run_turn;
    g->replies_end = &g->replies;
    list_init(&g->links);
    list_init(&g->watches);
    map_u64_init(&g->questions, options->seed);
    atomic_init(&g->gate.lease_until_ms, 0);
    atomic_init(&g->gate.closed, false);
    atomic_init(&g->gate.wall_offset_us, clock_guard_offset_us(options->clock));
    struct peers_options peers = {.http = options->http,
                                  .clock = options->clock,
                                  .seed = options->seed,
                                  .member = g->member,
                                  .secret = options->secret,
                                  .secret_bytes = options->secret_bytes,
                                  .tls = options->config->cluster.tls_cert != NULL,
                                  .tls_ca = options->config->cluster.tls_ca,
                                  .tls_cert = options->config->cluster.tls_cert,
                                  .tls_key = options->config->cluster.tls_key,
                                  .tls_server_name = options->config->cluster.tls_server_name};
    g->peers = peers_new(&peers);
    g->timer = loop_timer_new(options->loop, on_timer, g);
    engine_new_endpoints(g);
    int rc = new_planner(g, e);
    if (rc == 0)
        rc = new_dispatch(g, e);
    if (rc < 0) {
        g->state = ENGINE_GONE;
        engine_free(g);
        return rc;
    }
    join(g);
    *ret = g;
    return 0;
}

/* Writes that nobody will answer any more are not ours. */
static void refuse_writes(struct engine *g)
{
    uint16_t *slots = mem_new_array(uint16_t, g->o.slots);
    struct planner_event event = {.kind = PLANNER_SLOTS_LOST, .slots = slots, .slots_count = g->o.slots};
    for (uint32_t i = 0; i < g->o.slots; i++)
        slots[i] = (uint16_t)i;
    engine_plan(g, &event);
    engine_send_replies(g);
    mem_free(slots);
}

/* All but its name. What the parts still tell while they go is heard, but begins nothing: the state says so. */
static void hollow(struct engine *g)
{
    assert(g->state == ENGINE_GONE && !g->turn_asked);
    engine_drop_links(g);
    refuse_writes(g);
    dispatch_close(g->dispatch);
    g->dispatch = NULL;
    engine_drop_news(g);
    engine_drop_watches(g);
    endpoints_free(g->endpoints);
    g->endpoints = NULL;
    engine_answer_questions(g);
    map_u64_fini(&g->questions);
    membership_free(g->membership);
    g->membership = NULL;
    peers_free(g->peers);
    g->peers = NULL;
    planner_free(g->planner);
    g->planner = NULL;
    ownership_free(g->ownership);
    g->ownership = NULL;
    loop_timer_free(g->timer);
    loop_timer_free(g->join_timer);
    g->timer = g->join_timer = NULL;
    mem_free(g->plan.items);
    mem_free(g->own.items);
    mem_free(g->members);
    mem_free(g->gets);
    g->plan = (struct planner_actions){0};
    g->own = (struct ownership_actions){0};
    g->members = NULL;
    g->members_count = 0;
    g->gets = NULL;
}

void engine_free(struct engine *g)
{
    if (!g)
        return;
    assert(g->state == ENGINE_GONE && g->store_calls == 0 && g->commits_out == 0);
    hollow(g);
    mem_free(g);
}

/* --- ending -------------------------------------------------------------------------------------------------------- */

static void part_ended(struct engine *g)
{
    if (--g->ending == 0)
        engine_ask_turn(g);
}

static void session_ended(void *arg)
{
    part_ended(arg);
}

static void row_ended(void *arg, const struct err *e, bool yes)
{
    struct engine *g = arg;
    (void)yes; /* dead already is as good */
    g->store_calls--;
    if (e->code != ERR_OK)
        log_warn(&log_here, "own row was not marked dead, the others will see it", "error=%s", LOGQ(e->text));
    part_ended(g);
}

/* The session first: peers hear of it within milliseconds. Nothing starts while the row is being marked. */
static void end_membership(struct engine *g)
{
    g->state = ENGINE_ENDING;
    engine_set_lease(g, 0);
    engine_disown(g);
    engine_answer_questions(g);
    engine_drop_links(g);
    if (g->membership) {
        g->ending++;
        membership_stop(g->membership, SESSION_END_MS, session_ended, g);
    }
    g->ending++;
    g->store_calls++;
    g->o.store->declare_dead(g->o.store_self, g->member, UINT64_MAX, row_ended, g);
}

static bool idle(const struct engine *g)
{
    const struct planner_stats *s = planner_stats(g->planner);
    return !g->joining && s->in_flight == 0 && !planner_has_dirty(g->planner) && g->commits_out == 0 &&
           !g->replies;
}

static void gone(struct engine *g)
{
    g->state = ENGINE_GONE;
    loop_timer_stop(g->timer);
    g->left(g->left_arg, g->clean);
}

/* The next life may write once this one's last batch was answered; what it has in flight ends meanwhile, unrecorded. */
static void check_retired(struct engine *g)
{
    void (*retired)(void *arg) = g->retired;
    if (g->commits_out > 0)
        return;
    g->retired = NULL;
    if (retired)
        retired(g->retired_arg);
    if (g->store_calls > 0 || g->ending > 0 || g->turn_asked || planner_stats(g->planner)->in_flight > 0)
        return;
    g->state = ENGINE_GONE;
    hollow(g);
}

/* Looks after each turn whether the next step towards the end can be taken. The last is taken only when no further turn was asked
 * for: its message would outlive us. */
void engine_check_end(struct engine *g)
{
    bool late = loop_now_ms(g->o.loop) >= g->grace_until_ms;
    bool leaves = (g->state == ENGINE_LEAVING || g->state == ENGINE_DRAINING) && !g->stays;
    if (leaves && late) {
        log_warn(&log_here, "grace is over", "in_flight=%zu", planner_stats(g->planner)->in_flight);
        g->clean = idle(g);
        end_membership(g);
    } else if (leaves && g->state == ENGINE_DRAINING && idle(g)) {
        g->clean = true;
        end_membership(g);
    } else if (g->state == ENGINE_ENDING && g->ending == 0 && g->store_calls == 0 && g->commits_out == 0 &&
               !g->turn_asked) {
        gone(g);
    } else if (g->state == ENGINE_RETIRING && g->retiring) {
        check_retired(g);
    }
}

static void give_all_away(struct engine *g)
{
    struct ownership_event event = {.kind = OWNERSHIP_LEAVE};
    g->state = ENGINE_LEAVING;
    if (g->membership)
        membership_leave(g->membership);
    engine_own(g, &event);
}

void engine_drain(struct engine *g)
{
    if (g->state != ENGINE_RUNNING || ownership_view(g->ownership)->members < 2)
        return;
    g->stays = true;
    give_all_away(g);
}

void engine_leave(struct engine *g, int64_t grace_ms, void (*done)(void *arg, bool clean), void *arg)
{
    g->stays = false;
    g->left = done;
    g->left_arg = arg;
    g->grace_until_ms = loop_now_ms(g->o.loop) + grace_ms;
    if (!g->ownership) { /* never joined: nothing to give away, but perhaps a row to mark */
        g->state = ENGINE_DRAINING;
        engine_ask_turn(g);
    } else if (g->state == ENGINE_LEAVING || g->state == ENGINE_DRAINING) {
        engine_ask_turn(g); /* begun by engine_drain() */
    } else {
        give_all_away(g);
    }
}

static void membership_over(void *arg)
{
    struct engine *g = arg;
    membership_free(g->membership);
    g->membership = NULL;
    part_ended(g);
}

void engine_retire(struct engine *g, void (*done)(void *arg), void *arg)
{
    g->state = ENGINE_RETIRING;
    g->retiring = true;
    g->retired = done;
    g->retired_arg = arg;
    engine_drop_links(g);
    engine_answer_questions(g);
    if (g->membership) { /* what Consul holds of this life would stand there as a failed service */
        g->ending++;
        membership_stop(g->membership, SESSION_END_MS, membership_over, g);
    }
    engine_ask_turn(g);
}

bool engine_ended(const struct engine *g)
{
    return g->state == ENGINE_GONE;
}

/* --- for the node -------------------------------------------------------------------------------------------------- */

const char *engine_member(const struct engine *g)
{
    return g->member;
}

bool engine_owns(const struct engine *g, uint16_t slot)
{
    return atomic_load(&g->o.owned[slot / 64]) >> (slot % 64) & 1;
}

const struct planner_stats *engine_planner_stats(const struct engine *g)
{
    return planner_stats(g->planner);
}

const struct planner *engine_planner(const struct engine *g)
{
    return g->planner;
}

const struct ownership_view *engine_ownership_view(const struct engine *g)
{
    static const struct ownership_view none;
    return g->ownership ? ownership_view(g->ownership) : &none;
}

const struct membership_view *engine_membership_view(const struct engine *g)
{
    return g->membership ? membership_view(g->membership) : NULL;
}

const char *engine_owner(const struct engine *g, uint16_t slot, uint64_t *ret_epoch)
{
    uint64_t epoch = 0;
    const char *owner = g->ownership ? ownership_owner(g->ownership, slot, &epoch) : "";
    if (ret_epoch)
        *ret_epoch = epoch;
    return owner;
}

void engine_owner_hint(struct engine *g, uint16_t slot, uint64_t epoch, const char *owner)
{
    if (g->ownership)
        ownership_hint(g->ownership, slot, epoch, owner);
}

const struct store_member *engine_members(const struct engine *g, size_t *ret_count)
{
    *ret_count = g->members_count;
    return g->members;
}

bool engine_may_start(const struct engine *g)
{
    return g->may_start;
}

int64_t engine_lease_until_ms(const struct engine *g)
{
    return g->lease_until_ms;
}

bool engine_lease_held(const struct engine *g, int64_t *ret_since_ms)
{
    *ret_since_ms = g->lease_since_ms;
    return g->lease_held;
}

struct dispatch *engine_dispatch(const struct engine *g)
{
    return g->dispatch;
}

struct endpoints *engine_endpoints(const struct engine *g)
{
    return g->endpoints;
}

void engine_reload(struct engine *g, const struct config *config)
{
    const struct config *before = g->o.config;
    g->o.config = config;
    if (!g->dispatch)
        return;
    engine_set_services(g, before);
    planner_set_out_max(g->planner, out_max(config));
    dispatch_reload(g->dispatch, (uint32_t)config->callback.max_in_flight);
}

void engine_clock_changed(struct engine *g)
{
    if (!clock_guard_sure(g->o.clock))
        atomic_store(&g->gate.closed, true);
    engine_ask_turn(g);
}
