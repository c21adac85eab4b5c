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

struct cut {
    unsigned count;
    size_t bytes;
    char last[300];
};

static void take_cut(void *arg, const char *text, size_t len)
{
    struct cut *c = arg;
    c->count++;
    c->bytes += len;
    snprintf(c->last, sizeof(c->last), "%.*s", (int)len, text);
}

/* However the stream is cut into pieces: what was put in comes out, comments aside. */
Test(events, a_stream_is_cut_back_into_its_events_wherever_its_pieces_end)
{
    static const char stream[] = "event: hello\ndata: {\"a\":1}\n\n:\n\nevent: fire\ndata: {\"b\":2}\n\n";
    for (size_t piece = 1; piece <= sizeof(stream) - 1; piece++) {
        struct events_splitter s = {.text = BUF_INIT(1000)};
        struct cut got = {0};
        for (size_t at = 0; at < sizeof(stream) - 1; at += piece) {
            size_t left = sizeof(stream) - 1 - at;
            events_split(&s, stream + at, left < piece ? left : piece, take_cut, &got);
        }
        cr_assert(eq(u32, got.count, 2), "pieces of %zu", piece);
        cr_assert(eq(sz, got.bytes, sizeof(stream) - 1 - 3));
        cr_assert(eq(str, got.last, "event: fire\ndata: {\"b\":2}\n\n"));
        cr_assert(zero(u64, s.lost));
        buf_fini(&s.text);
    }
}

Test(events, an_event_over_the_ceiling_is_lost_and_the_next_one_is_not)
{
    struct events_splitter s = {.text = BUF_INIT(40)};
    struct cut got = {0};
    static const char big[] =
        "event: fire\ndata: {\"text\":\"0123456789012345678901234567890123456789\"}\n\n",
                      small[] = "event: job\ndata: {}\n\n";
    for (size_t i = 0; i < sizeof(big) - 1; i++)
        events_split(&s, big + i, 1, take_cut, &got);
    cr_assert(zero(u32, got.count));
    cr_assert(eq(u64, s.lost, 1));
    events_split(&s, small, sizeof(small) - 1, take_cut, &got);
    cr_assert(eq(u32, got.count, 1));
    cr_assert(eq(str, got.last, (char *)small));
    fault_arm(0);
    struct events_splitter poor = {.text = BUF_INIT(1000)};
    events_split(&poor, small, sizeof(small) - 1, take_cut, &got);
    fault_disarm();
    cr_assert(eq(u64, poor.lost, 1));
    events_split(&poor, small, sizeof(small) - 1, take_cut, &got);
    cr_assert(eq(u32, got.count, 2));
    buf_fini(&s.text);
    buf_fini(&poor.text);
}
