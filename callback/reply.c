#include "callback/reply.h"

#include <assert.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/core/retry.h"

/* Around the reason of a status line, and around a header's name and value. */
enum { STATUS_LINE_BYTES = 17, HEADER_EXTRA_BYTES = 4 };

static struct reply *reply_of(const http_parser *p)
{
    return p->data;
}

/* --- what the parser finds ----------------------------------------------------------------------------------------- */

static int count_header(struct reply *r, size_t bytes)
{
    r->header_bytes += bytes;
    return r->header_bytes > CALLBACK_REPLY_HEADERS_MAX;
}

/* Another one follows a 1xx: what was read does not count. */
static int on_begin(http_parser *p)
{
    struct reply *r = reply_of(p);
    r->name[0] = r->retry_after[0] = r->control[0] = '\0';
    r->text = NULL;
    r->in_value = true;
    return count_header(r, STATUS_LINE_BYTES);
}

static int on_reason(http_parser *p, const char *data, size_t bytes)
{
    (void)data;
    return count_header(reply_of(p), bytes);
}

/* Names and values may come in pieces. What is too long is none of ours and is cut. A NUL counts as a blank (RFC 9110, 5.5). */
static void append(char *to, size_t size, const char *data, size_t bytes)
{
    size_t len = strlen(to), room = size - 1 - len;
    size_t n = bytes < room ? bytes : room;
    for (size_t i = 0; i < n; i++)
        to[len + i] = data[i] ? data[i] : ' ';
    to[len + n] = '\0';
}

static int on_name(http_parser *p, const char *data, size_t bytes)
{
    struct reply *r = reply_of(p);
    if (r->in_value)
        r->name[0] = '\0';
    r->in_value = false;
    append(r->name, sizeof(r->name), data, bytes);
    return count_header(r, bytes);
}

/* Of several of a name the first that says something counts. */
static char *place_of_value(struct reply *r)
{
    if (strcasecmp(r->name, "Retry-After") == 0 && !r->retry_after[0])
        return r->retry_after;
    return strcasecmp(r->name, "Carillon-Job") == 0 && !r->control[0] ? r->control : NULL;
}

static int on_value(http_parser *p, const char *data, size_t bytes)
{
    struct reply *r = reply_of(p);
    bool first = !r->in_value;
    r->in_value = true;
    if (first)
        r->text = place_of_value(r);
    if (r->text)
        append(r->text, r->text == r->control ? sizeof(r->control) : sizeof(r->retry_after), data, bytes);
    return count_header(r, bytes + (first ? HEADER_EXTRA_BYTES : 0));
}

static int on_head(http_parser *p)
{
    return reply_of(p)->to_head ? 1 : 0; /* 1: no body follows */
}

static int on_body(http_parser *p, const char *data, size_t bytes)
{
    struct reply *r = reply_of(p);
    size_t room = CALLBACK_EXCERPT_MAX - r->excerpt_bytes;
    size_t keep = bytes < room ? bytes : room;
    memcpy(r->excerpt + r->excerpt_bytes, data, keep);
    r->excerpt_bytes += keep;
    r->body_bytes += bytes;
    if (r->body_bytes > CALLBACK_REPLY_BODY_MAX) {
        r->state = REPLY_ENOUGH;
        http_parser_pause(p, 1);
    }
    return 0;
}

static int on_complete(http_parser *p)
{
    struct reply *r = reply_of(p);
    if (p->status_code / 100 == 1)
        return 0;
    r->state = REPLY_WHOLE;
    http_parser_pause(p, 1); /* what follows is no reply to us */
    return 0;
}

static const http_parser_settings settings = {.on_message_begin = on_begin,
                                              .on_status = on_reason,
                                              .on_header_field = on_name,
                                              .on_header_value = on_value,
                                              .on_headers_complete = on_head,
                                              .on_body = on_body,
                                              .on_message_complete = on_complete};

/* --- outside ------------------------------------------------------------------------------------------------------- */

void reply_begin(struct reply *r, bool to_head)
{
    http_parser_init(&r->parser, HTTP_RESPONSE);
    r->parser.data = r;
    r->state = REPLY_MORE;
    r->to_head = to_head;
    r->any = r->in_value = r->left_over = false;
    r->header_bytes = r->body_bytes = r->excerpt_bytes = 0;
    r->name[0] = r->retry_after[0] = r->control[0] = '\0';
}

enum reply_state reply_feed(struct reply *r, const char *data, size_t bytes)
{
    assert(r->state == REPLY_MORE);
    r->any |= bytes > 0;
    size_t read = http_parser_execute(&r->parser, &settings, data, bytes);
    enum http_errno error = HTTP_PARSER_ERRNO(&r->parser);
    if (r->state != REPLY_MORE) {
        r->left_over = read < bytes;
        if (r->parser.http_major != 1)
            r->state = REPLY_BAD;
    } else if (bytes == 0 || r->parser.upgrade || error != HPE_OK) {
        r->state = REPLY_BAD;
    }
    return r->state;
}

int reply_status(const struct reply *r)
{
    return r->parser.status_code;
}

int64_t reply_retry_after_ms(const struct reply *r, int64_t now_s)
{
    const char *text = r->retry_after;
    bool seconds = text[0] >= '0' && text[0] <= '9' && text[strspn(text, "0123456789 ")] == '\0';
    int64_t after_s = seconds ? strtoll(text, NULL, 10) : 0;
    if (!seconds && text[0]) {
        int64_t date_s = curl_getdate(text, NULL);
        after_s = date_s == -1 ? 0 : date_s - now_s;
    }
    if (after_s <= 0)
        return -1;
    return after_s < (int64_t)(RETRY_AFTER_MAX_MS / 1000) ? after_s * 1000 : (int64_t)RETRY_AFTER_MAX_MS;
}

static bool control_is(const struct reply *r, const char *word)
{
    size_t len = strlen(word);
    return strncmp(r->control, word, len) == 0 && r->control[len + strspn(r->control + len, " \t")] == '\0';
}

enum attempt_control reply_control(const struct reply *r)
{
    if (control_is(r, "pause"))
        return ATTEMPT_CONTROL_PAUSE;
    return control_is(r, "delete") ? ATTEMPT_CONTROL_DELETE : ATTEMPT_CONTROL_NONE;
}

bool reply_keeps(const struct reply *r)
{
    return r->state == REPLY_WHOLE && !r->left_over && http_should_keep_alive(&r->parser);
}

const char *reply_problem(const struct reply *r)
{
    enum http_errno error = HTTP_PARSER_ERRNO(&r->parser);
    if (r->header_bytes > CALLBACK_REPLY_HEADERS_MAX)
        return "reply headers over 64 KiB";
    if (!r->any)
        return "connection closed by the callee before a reply";
    if (error == HPE_OK || error == HPE_INVALID_EOF_STATE || error == HPE_PAUSED)
        return r->parser.http_major > 1 ? "reply in another version of HTTP" : "reply broken off";
    return http_errno_description(error);
}
