/* Spans of what a member does: each fire is a trace of its own, its attempts are spans of it, and who asked for it, a run or the write
 * that made the job, is linked. */
#include <string.h>

#include "agent/base/text.h"
#include "agent/clock_guard.h"
#include "agent/engine_private.h"
#include "agent/telemetry.h"

static bool is_error(enum attempt_result r)
{
    return r == ATTEMPT_RETRY || r == ATTEMPT_GIVE_UP;
}

/* "200", "timed out": why an attempt failed. */
static const char *error_of(const struct attempt *a, char number[16])
{
    if (!is_error(a->result))
        return NULL;
    (void)snprintf(number, 16, "%d", a->status); /* an int */
    return a->error[0] ? a->error : number;
}

/* Who asked for the fire: the trace of a run, or that of the write that made the job; NULL: none. RET has room for it. */
static const char *asked_by(const char *trace, size_t trace_bytes, const struct job_spec *spec,
                            struct trace *ret)
{
    if (!trace)
        return spec->traceparent;
    trace_parse(trace, trace_bytes, ret);
    return ret->parent[0] ? ret->parent : spec->traceparent;
}

void engine_trace_attempt(struct engine *g, const struct delivery *d, const struct attempt *a)
{
    const struct trace_rule *rule = telemetry_rule(g->o.telemetry);
    char fire[56], number[16];
    struct trace_span whole;
    if (!rule || !a->sent)
        return;
    fire_id_print(&d->uid, d->seq, fire);
    const struct job_callback *c = &d->spec->callback;
    const struct telemetry_attribute attributes[] = {
        {.key = "carillon.namespace", .text = d->spec->ns},
        {.key = "carillon.job", .text = d->spec->id},
        {.key = "carillon.fire", .text = fire},
        {.key = "carillon.attempt", .number = d->attempt},
        {.key = "server.address", .text = a->endpoint},
        {.key = "peer.service", .text = c->service ? c->service : ""},
        {.key = c->transport == JOB_GRPC ? "rpc.grpc.status_code" : "http.response.status_code",
         .number = a->status},
    };
    struct telemetry_span s = {.name = c->transport == JOB_GRPC ? "callback grpc" : "callback http",
                               .kind = TELEMETRY_CLIENT,
                               .started_us = a->started_ms * 1000,
                               .ended_us = (a->started_ms + a->duration_ms) * 1000,
                               .error = error_of(a, number),
                               .attributes = attributes,
                               .attributes_count =
                                   sizeof(attributes) / sizeof(attributes[0]) - (a->status < 0)};
    struct trace run;
    const char *asked = asked_by(d->trace, d->trace_bytes, d->spec, &run);
    trace_span_of(asked, rule, &d->uid, d->seq, d->attempt, d->epoch, &s.span);
    trace_span_of(asked, rule, &d->uid, d->seq, 0, 0, &whole);
    s.parent = whole.id;
    telemetry_add(g->o.telemetry, &s);
}

/* From its due to its end. Those that were never begun (skipped, coalesced) are no traces. */
void engine_trace_fire(struct engine *g, const struct planner_action *a)
{
    const struct trace_rule *rule = telemetry_rule(g->o.telemetry);
    char fire[56];
    bool begun = a->outcome == FIRE_OUTCOME_SUCCEEDED || a->outcome == FIRE_OUTCOME_DEAD ||
                 a->outcome == FIRE_OUTCOME_CANCELLED;
    if (!rule || !a->spec || !begun)
        return;
    struct trace run;
    const char *asked = asked_by(a->trace, a->trace_bytes, a->spec, &run);
    fire_id_print(&a->uid, a->seq, fire);
    const struct telemetry_attribute attributes[] = {
        {.key = "carillon.namespace", .text = a->spec->ns},
        {.key = "carillon.job", .text = a->spec->id},
        {.key = "carillon.fire", .text = fire},
        {.key = "carillon.outcome", .text = fire_outcome_name(a->outcome)},
    };
    struct telemetry_span s = {.parent = "",
                               .link = asked,
                               .name = "fire",
                               .kind = TELEMETRY_INTERNAL,
                               .started_us = a->due_ms * 1000,
                               .ended_us = clock_guard_now_ms(g->o.clock) * 1000,
                               .error = a->outcome == FIRE_OUTCOME_DEAD ? fire_reason_name(a->reason) : NULL,
                               .attributes = attributes,
                               .attributes_count = sizeof(attributes) / sizeof(attributes[0])};
    trace_span_of(asked, rule, &a->uid, a->seq, 0, 0, &s.span);
    telemetry_add(g->o.telemetry, &s);
}
