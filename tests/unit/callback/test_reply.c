#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "callback/reply.h"

#define OK_REPLY "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static struct reply reply;

/* TEXT in pieces of STEP bytes; ENDS: the connection closes behind it. */
static enum reply_state feed(const char *text, size_t step, bool to_head, bool ends)
{
    size_t bytes = strlen(text);
    enum reply_state state = REPLY_MORE;
    reply_begin(&reply, to_head);
    for (size_t at = 0; at < bytes && state == REPLY_MORE; at += step)
        state = reply_feed(&reply, text + at, bytes - at < step ? bytes - at : step);
    if (state == REPLY_MORE && ends)
        state = reply_feed(&reply, "", 0);
    return state;
}

Test(reply, however_it_is_cut_it_says_the_same)
{
    static const char text[] =
        "HTTP/1.1 100 Continue\r\nCarillon-Job: pause\r\n\r\n"
        "HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nCarillon-Job: delete \r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n";
    for (size_t step = 1; step <= sizeof(text); step++) {
        cr_assert(eq(int, feed(text, step, false, false), REPLY_WHOLE), "%zu: %s", step,
                  reply_problem(&reply));
        cr_assert(eq(int, reply_status(&reply), 503));
        cr_assert(eq(i64, reply_retry_after_ms(&reply, 0), 120000));
        cr_assert(eq(int, reply_control(&reply), ATTEMPT_CONTROL_DELETE));
        cr_assert(eq(sz, reply.excerpt_bytes, 11));
        cr_assert(zero(int, memcmp(reply.excerpt, "hello world", 11)));
        cr_assert(reply_keeps(&reply));
    }
}

Test(reply, of_two_headers_the_first_counts_however_the_second_is_cut)
{
    static const char text[] =
        "HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nRetry-After: 55\r\nCarillon-Job: pause\r\n"
        "Carillon-Job: delete\r\nContent-Length: 0\r\n\r\n";
    for (size_t step = 1; step <= sizeof(text); step++) {
        cr_assert(eq(int, feed(text, step, false, false), REPLY_WHOLE), "%zu: %s", step,
                  reply_problem(&reply));
        cr_assert(eq(i64, reply_retry_after_ms(&reply, 0), 120000), "%zu", step);
        cr_assert(eq(int, reply_control(&reply), ATTEMPT_CONTROL_PAUSE), "%zu", step);
    }
}

/* The parser lets one pass right behind the colon. */
Test(reply, a_nul_in_front_of_a_value_is_a_blank_however_it_is_cut)
{
    static const char head[] = "HTTP/1.1 503 Busy\r\nRetry-After:";
    static const char rest[] = "55\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
    char text[sizeof(head) + sizeof(rest)];
    size_t bytes = sizeof(head) + sizeof(rest) - 1;
    memcpy(text, head, sizeof(head)); /* with its NUL */
    memcpy(text + sizeof(head), rest, sizeof(rest));
    for (size_t step = 1; step <= bytes; step++) {
        reply_begin(&reply, false);
        for (size_t at = 0; at < bytes && reply.state == REPLY_MORE; at += step)
            (void)reply_feed(&reply, text + at, bytes - at < step ? bytes - at : step);
        cr_assert(eq(int, reply.state, REPLY_WHOLE), "%zu: %s", step, reply_problem(&reply));
        cr_assert(eq(str, reply.retry_after, " 55"), "%zu", step);
    }
}

Test(reply, a_connection_is_kept_only_when_both_sides_agree_on_where_the_reply_ends)
{
    static const struct {
        const char *text;
        bool to_head, ends, keeps;
    } cases[] = {
        {OK_REPLY, false, false, true},
        {OK_REPLY "x", false, false, false},
        {OK_REPLY OK_REPLY, false, false, false},
        {"HTTP/1.1 204 No\r\n\r\n", false, false, true},
        {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true, false, true},
        {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false, false, false},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false, false, false},
        {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false, false, true},
        {"HTTP/1.1 200 OK\r\n\r\nuntil the end", false, true, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        cr_assert(eq(int, feed(cases[i].text, 4096, cases[i].to_head, cases[i].ends), REPLY_WHOLE), "%zu", i);
        cr_assert(eq(int, reply_keeps(&reply), cases[i].keeps), "%zu", i);
    }
}

Test(reply, what_is_no_whole_reply_of_http_1_is_bad)
{
    static const struct {
        const char *text, *problem;
    } cases[] = {{"", "connection closed by the callee before a reply"},
                 {"HTTP/1.1 200 OK\r\nX: y", "reply broken off"},
                 {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "reply broken off"},
                 {"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "reply in another version of HTTP"},
                 {"SSH-2.0-OpenSSH_9.2\r\n", NULL},
                 {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", NULL},
                 {"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", NULL}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        cr_assert(eq(int, feed(cases[i].text, 4096, false, true), REPLY_BAD), "%s", cases[i].text);
        if (cases[i].problem)
            cr_assert(eq(str, (char *)reply_problem(&reply), (char *)cases[i].problem));
        cr_assert(ne(chr, reply_problem(&reply)[0], '\0'));
    }
}

Test(reply, retry_after_is_a_number_or_a_date_in_the_future)
{
    static const struct {
        const char *value;
        int64_t ms;
    } cases[] = {{"0", -1},
                 {"7", 7000},
                 {"99999999999999999999999", 3600000},
                 {"-7", -1},
                 {"soon", -1},
                 {"Thu, 01 Jan 1970 00:01:40 GMT", 40000},
                 {"Thu, 01 Jan 1970 00:00:40 GMT", -1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char text[200];
        snprintf(text, sizeof(text), "HTTP/1.1 503 X\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n",
                 cases[i].value);
        cr_assert(eq(int, feed(text, 3, false, false), REPLY_WHOLE));
        cr_assert(eq(i64, reply_retry_after_ms(&reply, 60), cases[i].ms), "%s", cases[i].value);
    }
}
