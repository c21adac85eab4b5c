#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/core/trace.h"

#define PARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static struct trace of(const char *parent, const char *state)
{
    struct trace t;
    trace_read(parent, state, &t);
    return t;
}

static void expect_parent(const char *text, const char *expected)
{
    struct trace t = of(text, NULL);
    cr_assert(eq(str, t.parent, (char *)expected), "%s", text);
}

static void expect_state(const char *text, const char *expected)
{
    struct trace t = of(PARENT, text);
    cr_assert(eq(str, t.parent, PARENT));
    cr_assert(eq(str, t.state, (char *)expected), "%s", text);
}

Test(trace, parents_that_the_standard_allows_are_taken)
{
    expect_parent(PARENT, PARENT);
    expect_parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                  "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    /* flags and versions that are not known yet */
    expect_parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", PARENT);
    expect_parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe",
                  "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    expect_parent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", PARENT);
    expect_parent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-else", PARENT);
}

Test(trace, parents_that_are_wrong_are_no_parents)
{
    static const char *const wrong[] = {
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        struct trace t = of(wrong[i], "a=1");
        cr_assert(eq(str, t.parent, ""), "%s", wrong[i]);
        cr_assert(eq(str, t.state, ""), "%s", wrong[i]);
    }
    cr_assert(eq(str, of(NULL, "a=1").state, ""));
}

Test(trace, what_is_kept_with_a_fire_reads_back)
{
    static const char *const states[] = {"", "a=1", "a=1,b=2;x y"};
    char text[TRACE_TEXT_SIZE];
    struct trace back;
    for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
        struct trace t = of(PARENT, states[i]);
        size_t bytes = trace_print(&t, text);
        cr_assert(eq(sz, bytes, strlen(text)));
        trace_parse(text, bytes, &back);
        cr_assert(eq(str, back.parent, t.parent));
        cr_assert(eq(str, back.state, t.state));
    }
    char longest[TRACE_STATE_SIZE] = "";
    for (unsigned i = 0; strlen(longest) + 32 < sizeof(longest); i++)
        (void)snprintf(longest + strlen(longest), 32, "%sk%u=%020u", i ? "," : "", i, i);
    struct trace t = of(PARENT, longest);
    size_t bytes = trace_print(&t, text);
    trace_parse(text, bytes, &back);
    cr_assert(eq(str, back.state, t.state));
    cr_assert(gt(sz, strlen(back.state), 450));
}

Test(trace, what_was_not_kept_by_us_is_no_trace)
{
    static const char *const wrong[] = {"",
                                        "x",
                                        "00-",
                                        (PARENT "a=1"),
                                        (PARENT "\n"),
                                        (" " PARENT),
                                        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\r\nX: 1"};
    char text[TRACE_TEXT_SIZE + 9];
    struct trace t;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        trace_parse(wrong[i], strlen(wrong[i]), &t);
        cr_assert(eq(str, t.parent, ""), "%s", wrong[i]);
        cr_assert(eq(str, t.state, ""), "%s", wrong[i]);
    }
    memset(text, 'a', sizeof(text));
    memcpy(text, PARENT " ", sizeof(PARENT));
    trace_parse(text, sizeof(text), &t); /* longer than any */
    cr_assert(eq(str, t.parent, ""));
    trace_parse(PARENT " A=1", strlen(PARENT " A=1"), &t); /* a wrong state costs the state alone */
    cr_assert(eq(str, t.parent, PARENT));
    cr_assert(eq(str, t.state, ""));
    trace_parse(NULL, 0, &t);
    cr_assert(eq(str, t.parent, ""));
    cr_assert(eq(sz, trace_print(&t, text), 0));
}

Test(trace, states_are_taken_whole_or_not_at_all)
{
    expect_state("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
    expect_state(" a=1 ,\tb=2\t,,  , fw529a3039@dt=x ;y ", "a=1,b=2,fw529a3039@dt=x ;y");
    expect_state("a*-_/0=!+;<~", "a*-_/0=!+;<~");
    expect_state("0tenant@v=1", "0tenant@v=1");
    expect_state("", "");
    expect_state(" , ", "");
    static const char *const wrong[] = {"a",
                                        "a=",
                                        "=1",
                                        "A=1",
                                        "0a=1",
                                        "a=1,b",
                                        "a=1,a=2",
                                        "a@=1",
                                        "@a=1",
                                        "a@0=1",
                                        "a@b@c=1",
                                        "a=b=c",
                                        "a=\x01",
                                        "a=\xc3\xa4",
                                        "a b=1",
                                        "a =1",
                                        "t@averyveryverylong=1"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        expect_state(wrong[i], "");
}

#define TEXT_SIZE 2000

static size_t add(char *text, size_t len, const char *key, int value)
{
    return len + (size_t)snprintf(text + len, TEXT_SIZE - len, "%s%s=%0*d", len ? "," : "", key, value, 0);
}

static size_t add_many(char *text, int count)
{
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%d", i);
        len = add(text, len, key, 1);
    }
    return len;
}

Test(trace, a_state_that_is_too_long_loses_long_entries_first_then_the_last)
{
    char text[TEXT_SIZE];
    size_t len = 0;
    len = add(text, len, "a", 100);
    len = add(text, len, "b", 200);
    for (char c = 'c'; c < 'f'; c++)
        len = add(text, len, (char[]){c, 0}, 100);
    struct trace t = of(PARENT, text);
    cr_assert(eq(sz, strlen(t.state), 4 * 102 + 3), "%s", t.state);
    cr_assert(zero(ptr, strchr(t.state, 'b')));
    for (char c = 'f'; c < 'k'; c++)
        len = add(text, len, (char[]){c, 0}, 100);
    t = of(PARENT, text);
    cr_assert(eq(sz, strlen(t.state), 4 * 102 + 3), "%s", t.state);
    cr_assert(strchr(t.state, 'e') && !strchr(t.state, 'f'));
    len = add_many(text, 32);
    cr_assert(eq(str, of(PARENT, text).state, text));
    (void)add(text, len, "one-too-many", 1);
    cr_assert(eq(str, of(PARENT, text).state, ""));
}

static struct trace attempt_of(const char *state, uint64_t seq, uint32_t attempt, uint64_t epoch)
{
    struct trace t, back;
    struct uid uid = {.bytes = {1, 2, 3}};
    trace_of_attempt(PARENT, state, &uid, seq, attempt, epoch, &t);
    trace_read(t.parent, t.state, &back);
    cr_assert(eq(str, back.parent, t.parent));
    cr_assert(eq(str, back.state, t.state));
    return t;
}

Test(trace, a_fire_is_one_trace_and_an_attempt_one_span)
{
    struct trace a = attempt_of(NULL, 7, 1, 3), same = attempt_of(NULL, 7, 1, 3),
                 b = attempt_of(NULL, 7, 2, 3), moved = attempt_of(NULL, 7, 1, 4),
                 other = attempt_of(NULL, 8, 1, 3);
    cr_assert(eq(str, a.parent, same.parent));
    cr_assert(zero(int, memcmp(a.parent, b.parent, 36)));
    cr_assert(ne(str, a.parent, b.parent));
    cr_assert(zero(int, memcmp(a.parent, moved.parent, 36)));
    cr_assert(ne(str, a.parent, moved.parent));
    cr_assert(ne(int, memcmp(a.parent, other.parent, 36), 0));
    cr_assert(ne(int, memcmp(a.parent, PARENT, 36), 0), "the trace of the write goes on for years");
    cr_assert(eq(str, a.parent + 53, "01"), "what was sampled is sampled");
}

Test(trace, the_trace_that_asked_for_the_job_is_linked)
{
    cr_assert(eq(str, attempt_of(NULL, 1, 1, 1).state, "carillon=" PARENT));
    cr_assert(eq(str, attempt_of("a=1,b=2", 1, 1, 1).state, "carillon=" PARENT ",a=1,b=2"));
    cr_assert(eq(str, attempt_of("a=1,carillon=old,carillonx=2", 1, 1, 1).state,
                 "carillon=" PARENT ",a=1,carillonx=2"));
    char text[TEXT_SIZE];
    size_t len = 0;
    for (char c = 'a'; c < 'f'; c++)
        len = add(text, len, (char[]){c, 0}, 98);
    struct trace t = attempt_of(text, 1, 1, 1);
    cr_assert(eq(sz, strlen(t.state), 64 + 4 * 101), "%s", t.state);
    len = add_many(text, 32);
    t = attempt_of(text, 1, 1, 1);
    cr_assert(strstr(t.state, ",k30=0") && !strstr(t.state, ",k31=0"), "32 entries are all there may be");
}

static const struct uid fired = {.bytes = {1, 2, 3}};

Test(trace, the_span_of_an_attempt_is_that_of_its_traceparent)
{
    struct trace told, untold;
    struct trace_span span, whole;
    struct trace_rule all = {.ratio = 1}, none = {.ratio = 0};
    trace_of_attempt(PARENT, NULL, &fired, 7, 2, 5, &told);
    trace_span_of(PARENT, &none, &fired, 7, 2, 5, &span);
    cr_assert(zero(int, strncmp(told.parent + 3, span.trace, 32)));
    cr_assert(zero(int, strncmp(told.parent + 36, span.id, 16)));
    cr_assert(span.sampled, "the parent decides");
    trace_of_untold_attempt(&all, &fired, 7, 2, 5, &untold);
    cr_assert(eq(str, untold.parent, told.parent), "%s", untold.parent);
    cr_assert(eq(str, untold.state, ""));
    trace_of_untold_attempt(&none, &fired, 7, 2, 5, &untold);
    cr_assert(zero(int, strcmp(untold.parent + 52, "-00")));
    trace_span_of(NULL, &all, &fired, 7, 0, 0, &whole);
    cr_assert(eq(str, whole.trace, span.trace));
    cr_assert(ne(str, whole.id, span.id));
    struct trace_span read;
    trace_span_read(told.parent, &read);
    cr_assert(eq(str, read.trace, span.trace));
    cr_assert(eq(str, read.id, span.id));
}

Test(trace, the_ratio_is_the_share_that_is_sampled)
{
    static const double ratios[] = {0, 0.1, 0.5, 1};
    for (size_t r = 0; r < 4; r++) {
        struct trace_rule rule = {.ratio = ratios[r]};
        unsigned sampled = 0;
        for (uint64_t seq = 0; seq < 10000; seq++) {
            struct trace_span span;
            trace_span_of(NULL, &rule, &fired, seq, 1, 1, &span);
            sampled += span.sampled;
        }
        cr_assert(le(dbl, sampled / 10000.0 - ratios[r], 0.03), "%u of 10000 at %g", sampled, ratios[r]);
        cr_assert(le(dbl, ratios[r] - sampled / 10000.0, 0.03), "%u of 10000 at %g", sampled, ratios[r]);
    }
}

Test(trace, a_new_span_is_never_all_zeros)
{
    static const uint64_t zeros[3] = {0};
    struct trace_rule rule = {.ratio = 1};
    struct trace_span span;
    trace_span_new(&rule, zeros, &span);
    cr_assert(eq(sz, strlen(span.trace), 32));
    cr_assert(eq(sz, strlen(span.id), 16));
    cr_assert(lt(sz, strspn(span.trace, "0"), 32));
    cr_assert(lt(sz, strspn(span.id, "0"), 16));
    cr_assert(span.sampled);
}
