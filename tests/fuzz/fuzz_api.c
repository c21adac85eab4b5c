/* What comes in from the network, without the network: a head, then its body as a write or as a bulk; a peer's context,
 * signature and results. Input: method, path, query, header lines "name: value", an empty line, the body; one line each. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/api/bulk_line.h"
#include "agent/api/context.h"
#include "agent/api/request.h"
#include "agent/api/write.h"
#include "agent/base/text.h"
#include "agent/peer_auth.h"
#include "tests/lib/api_write_bed.h"

#define HEADERS_MAX 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

struct head {
    char *names[HEADERS_MAX];
    char *values[HEADERS_MAX];
    size_t count;
};

static const char *header_of(const void *arg, const char *name)
{
    const struct head *h = arg;
    for (size_t i = 0; i < h->count; i++)
        if (strcasecmp(h->names[i], name) == 0)
            return h->values[i];
    return NULL;
}

/* The next line of *at, NUL-terminated in place. */
static char *take_line(char **at)
{
    char *line = *at, *end = strchr(line, '\n');
    if (end)
        *end = '\0';
    *at = end ? end + 1 : line + strlen(line);
    return line;
}

static void check_problem(const struct api_problem *p)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(1 << 20);
    AUTO(json_decref) json_t *doc = NULL;
    check(p->code != API_OK);
    api_problem_print(p, "0123456789abcdef", &out);
    check(json_read(buf_str(&out), out.len, out.len, &doc, NULL) == 0);
}

static void read_write(struct api_write_bed *bed, const struct api_request *rq, const char *body,
                       size_t bytes)
{
    struct api_write w;
    struct api_problem p = {0};
    api_write_init(&w, bed->zones);
    w.ctx = bed->ctx;
    api_context_set_defaults(&w.ctx, &bed->ctx.defaults);
    if (api_write_read(&w, rq, body, bytes, &bed->ids, &p) < 0)
        check_problem(&p);
    else
        check(text_check_id(w.papi.id, strlen(w.papi.id), NULL) == 0);
    api_problem_fini(&p);
    api_write_fini(&w);
}

static void read_bulk(struct api_write_bed *bed, const char *body, size_t bytes, bool from_peer)
{
    struct bulk_rules rules = {
        .ns = "default", .ctx = &bed->ctx, .from_peer = from_peer, .ids = &bed->ids, .zones = bed->zones};
    size_t at = 0, len;
    const char *text;
    while (bulk_next_line(body, bytes, &at, &text, &len)) {
        struct bulk_line line = {.number = 1};
        AUTO(buf_fini) struct buf out = BUF_INIT(1 << 20);
        AUTO(json_decref) json_t *doc = NULL;
        char owner[RECORD_MEMBER_MAX];
        uint64_t epoch;
        bulk_line_read(&line, &rules, text, len, false);
        if (line.result.status == 0 && !line.is_read)
            bulk_line_read_rest(&line, &rules);
        bulk_line_print_result(&line, &out);
        check(json_read(buf_str(&out), out.len, out.len, &doc, NULL) == 0);
        (void)bulk_line_take_result(&line, text, len, owner, &epoch); /* whatever it says */
        bulk_line_fini(&line);
    }
}

static void read_request(struct api_write_bed *bed, struct api_head *head, const char *body, size_t bytes)
{
    struct api_request rq;
    struct api_rules rules = {0};
    struct api_problem p = {0};
    if (api_request_read(head, &rules, &rq, &p) < 0) {
        check_problem(&p);
        api_problem_fini(&p);
        return;
    }
    check(rq.route != NULL);
    if (rq.route->action <= API_JOB_RESUME)
        read_write(bed, &rq, body, bytes);
    else if (rq.route->action == API_BULK)
        read_bulk(bed, body, bytes, head->face == API_FACE_PEER);
}

static void read_peer_headers(const struct head *h, const struct api_head *head)
{
    static const struct peer_auth_secret secret = {"secret", 6};
    struct api_context ctx;
    struct peer_auth auth;
    struct peer_auth_message msg = {.method = head->method, .target = head->path, .context = ""};
    const char *context = header_of(h, PEER_CONTEXT_HEADER);
    if (context)
        (void)api_context_parse(context, &ctx, NULL); /* whatever it says */
    check(peer_auth_verify(&secret, header_of(h, PEER_AUTH_HEADER), &msg, BED_NOW_MS, &auth, NULL) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct api_write_bed bed; /* made once: opening the zones is slow */
    if (!bed.zones)
        api_write_bed_init(&bed, BED_SLOTS / 2);
    char *text = malloc(size + 1), *at = text;
    check(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    struct head h = {.count = 0};
    struct api_head head = {.header = header_of, .arg = &h};
    head.method = take_line(&at);
    head.path = take_line(&at);
    head.query = take_line(&at);
    for (char *line = take_line(&at); *line && h.count < HEADERS_MAX; line = take_line(&at)) {
        char *colon = strchr(line, ':');
        h.names[h.count] = line;
        h.values[h.count++] = colon ? colon + 1 + strspn(colon + 1, " ") : line + strlen(line);
        if (colon)
            *colon = '\0';
    }
    for (int face = API_FACE_TCP; face <= API_FACE_PEER; face++) {
        head.face = (enum api_face)face;
        read_request(&bed, &head, at, (size_t)(text + size - at));
    }
    read_peer_headers(&h, &head);
    free(text);
    return 0;
}
