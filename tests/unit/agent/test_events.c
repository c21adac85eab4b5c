#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/mem.h"
#include "agent/events.h"

struct ear {
    struct events_listener listen;
    unsigned heard;
    bool leaves;
    char last[256];
    char ns[32];
};

static void take(struct events_listener *l, const char *ns, const char *text, size_t len)
{
    struct ear *ear = container_of(l, struct ear, listen);
    ear->heard++;
    snprintf(ear->last, sizeof(ear->last), "%.*s", (int)len, text);
    snprintf(ear->ns, sizeof(ear->ns), "%s", ns ? ns : "none");
    if (ear->leaves)
        events_leave(l);
}

static void tell(struct events *v, enum event_kind kind, const char *ns, const char *json)
{
    struct buf text = BUF_INIT(1000);
    buf_add_str(&text, json);
    events_tell(v, kind, ns, &text);
    buf_fini(&text);
}

Test(events, all_who_listen_hear_and_may_leave_meanwhile)
{
    struct events *v = events_new();
    struct ear a = {.listen.take = take}, b = {.listen.take = take, .leaves = true},
               c = {.listen.take = take};
    cr_assert(not(events_wanted(NULL)));
    cr_assert(not(events_wanted(v)));
    events_join(v, &a.listen);
    events_join(v, &b.listen);
    events_join(v, &c.listen);
    cr_assert(events_wanted(v));
    tell(v, EVENT_FIRE, "team-b", "{\"x\":1}");
    cr_assert(eq(str, a.last, "event: fire\ndata: {\"x\":1}\n\n"));
    cr_assert(eq(str, c.ns, "team-b"));
    tell(v, EVENT_CLUSTER, NULL, "{}");
    cr_assert(eq(str, c.last, "event: cluster\ndata: {}\n\n"));
    cr_assert(eq(str, c.ns, "none"));
    cr_assert(eq(u32, a.heard, 2));
    cr_assert(eq(u32, b.heard, 1), "it left");
    events_leave(&a.listen);
    events_leave(&a.listen);
    events_leave(&c.listen);
    events_free(v);
}

Test(events, what_failed_for_want_of_memory_is_not_told)
{
    struct events *v = events_new();
    struct ear a = {.listen.take = take};
    events_join(v, &a.listen);
    struct buf small = BUF_INIT(2);
    buf_add_str(&small, "{\"too\":\"long\"}");
    events_tell(v, EVENT_JOB, NULL, &small);
    buf_fini(&small);
    fault_arm(0);
    tell(v, EVENT_JOB, NULL, "{}");
    fault_disarm();
    cr_assert(zero(u32, a.heard));
    tell(v, EVENT_JOB, NULL, "{}");
    cr_assert(eq(u32, a.heard, 1));
    events_leave(&a.listen);
    events_free(v);
}
