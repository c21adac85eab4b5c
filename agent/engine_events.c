/* What a member has to tell to those who listen (agent/events.h): made only while somebody does. */
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/clock_guard.h"
#include "agent/engine_private.h"
#include "agent/events.h"

#define EVENT_MAX_BYTES 8192

static void add_text(struct buf *out, const char *key, const char *text)
{
    buf_addf(out, ",\"%s\":", key);
    if (text)
        json_print_string(out, text, strlen(text));
    else
        buf_add_str(out, "null");
}

static void add_instant(struct buf *out, const char *key, int64_t ms)
{
    char text[TEXT_INSTANT_SIZE];
    text_instant_print(text, ms);
    add_text(out, key, text);
}

static void begin(const struct engine *g, struct buf *out)
{
    char at[TEXT_INSTANT_SIZE];
    text_instant_print(at, clock_guard_now_ms(g->o.clock));
    buf_addf(out, "{\"at\":\"%s\"", at);
    add_text(out, "member", g->member);
}

static void add_attempt(struct buf *out, const struct attempt *a)
{
    add_text(out, "endpoint", a->endpoint[0] ? a->endpoint : NULL);
    if (a->status >= 0)
        buf_addf(out, ",\"status\":%d", a->status);
    else
        buf_add_str(out, ",\"status\":null");
    buf_addf(out, ",\"duration_ms\":%u", a->duration_ms);
    add_text(out, "error", a->error[0] ? a->error : NULL);
}

void engine_tell_fire(struct engine *g, const struct planner_action *a)
{
    char fire[56];
    if (!events_wanted(g->o.events))
        return;
    AUTO(buf_fini) struct buf out = BUF_INIT(EVENT_MAX_BYTES);
    const char *ns = a->spec ? a->spec->ns : NULL;
    fire_id_print(&a->uid, a->seq, fire);
    begin(g, &out);
    add_text(&out, "namespace", ns);
    add_text(&out, "job", a->spec ? a->spec->id : NULL);
    add_text(&out, "fire", fire);
    buf_addf(&out, ",\"seq\":%llu,\"count\":%llu", (unsigned long long)a->seq,
             (unsigned long long)(a->fires ? a->fires : 1));
    add_instant(&out, "due", a->due_ms);
    add_text(&out, "outcome", fire_outcome_name(a->outcome));
    add_text(&out, "reason", fire_reason_name(a->reason));
    if (a->lateness_ms >= 0)
        buf_addf(&out, ",\"lateness_ms\":%lld", (long long)a->lateness_ms);
    if (a->attempt)
        add_attempt(&out, a->attempt);
    buf_add_char(&out, '}');
    events_tell(g->o.events, a->outcome == FIRE_OUTCOME_PENDING ? EVENT_ATTEMPT : EVENT_FIRE, ns, &out);
}

/* NULL: nothing was changed, or not of the job. */
static const char *change_of(const struct planner_api *api)
{
    bool changed = api->row.change_id == api->change_id;
    switch ((int)api->op) {
    case PLANNER_CREATE:
        return changed ? "create" : NULL;
    case PLANNER_PUT:
        return !changed ? NULL : api->answer == PLANNER_CREATED ? "create" : "replace";
    case PLANNER_PATCH:
        return changed ? "patch" : NULL;
    case PLANNER_DELETE:
        return "delete";
    case PLANNER_PAUSE:
        return changed ? "pause" : NULL;
    case PLANNER_RESUME:
        return changed ? "resume" : NULL;
    case PLANNER_RUN:
        return "run";
    default:
        return NULL;
    }
}

void engine_tell_job(struct engine *g, const struct planner_api *api)
{
    if (!events_wanted(g->o.events) || api->answer > PLANNER_ACCEPTED || !change_of(api))
        return;
    AUTO(buf_fini) struct buf out = BUF_INIT(EVENT_MAX_BYTES);
    begin(g, &out);
    add_text(&out, "namespace", api->ns);
    add_text(&out, "job", api->id);
    add_text(&out, "op", change_of(api));
    add_text(&out, "actor", api->actor);
    buf_addf(&out, ",\"version\":%llu", (unsigned long long)api->row.version);
    add_text(&out, "state", job_state_name(api->row.state));
    buf_add_char(&out, '}');
    events_tell(g->o.events, EVENT_JOB, api->ns, &out);
}

void engine_tell_cluster(struct engine *g, const char *what)
{
    if (!events_wanted(g->o.events))
        return;
    AUTO(buf_fini) struct buf out = BUF_INIT(EVENT_MAX_BYTES);
    begin(g, &out);
    add_text(&out, "text", what);
    buf_addf(&out, ",\"slots\":%zu}", g->planner ? planner_stats(g->planner)->slots_owned : 0);
    events_tell(g->o.events, EVENT_CLUSTER, NULL, &out);
}
