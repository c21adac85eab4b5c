#include "tests/lib/api_bed.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/events.h"

#define FAULTS_MAX 5000u

/* --- the agent ----------------------------------------------------------------------------------------------------- */

static void load_config(struct api_bed *bed, const char *const *sets)
{
    const char *all[API_BED_SETS_MAX + 2] = {"api.listen=127.0.0.1:0", "api.wait=2s"};
    size_t count = 2;
    for (size_t i = 0; sets && sets[i]; i++) {
        cr_assert(lt(sz, i, API_BED_SETS_MAX));
        all[count++] = sets[i];
    }
    struct option_errors errors = {0};
    struct err e = {0};
    cr_assert(zero(int, config_load(NULL, all, count, NULL, &bed->config, &errors, &e)), "%s", e.text);
}

static void make_node(struct api_bed *bed)
{
    struct engine_bed *engines = &bed->engines;
    struct node *n = &bed->node;
    n->config = bed->config;
    n->state = NODE_RUNNING;
    n->loop = engines->loop;
    n->metrics = engines->metrics;
    n->events = events_new();
    n->clock = engines->clock;
    n->http = engines->http;
    n->started_ms = clock_wall_ms();
    n->store = engines->ops;
    n->store_self = bed->agent->store;
    n->meta.slots = BED_SLOTS;
    n->owned = bed->agent->owned;
    n->engine = bed->agent->engine;
    list_init(&n->reloads);
    list_init(&n->service_queries);
    memset(n->capability.secret, 7, sizeof(n->capability.secret));
    cr_assert(zero(int, tzload_new(NULL, &n->zones, NULL)));
    atomic_store(&n->shown_config, bed->config);
    atomic_store(&n->shown_member, engine_member(n->engine));
    atomic_store(&n->store_open, true);
    atomic_store(&n->ready, true);
}

int api_bed_start(struct api_bed *bed, const char *peer, struct err *e)
{
    return api_start(&bed->node, bed->config, peer, &bed->api, e);
}

static void hang_up(struct api_bed *bed)
{
    if (bed->fd < 0)
        return;
    loop_fd_free(bed->watch);
    fd_close(bed->fd);
    bed->fd = -1;
}

void api_bed_stop(struct api_bed *bed)
{
    hang_up(bed);
    api_stop(bed->api);
    bed->api = NULL;
}

void api_bed_open(struct api_bed *bed, const char *const *sets)
{
    memset(bed, 0, sizeof(*bed));
    bed->fd = -1;
    load_config(bed, sets);
    engine_bed_open(&bed->engines);
    bed->agent = engine_bed_start(&bed->engines, 0);
    cr_assert(engine_bed_until(&bed->engines, engine_bed_owned(bed->agent) == BED_SLOTS));
    bed->agent->fault_steps = true;
    make_node(bed);
    struct err e = {0};
    cr_assert(zero(int, api_bed_start(bed, NULL, &e)), "%s", e.text);
}

void api_bed_close(struct api_bed *bed)
{
    struct node *n = &bed->node;
    if (bed->api)
        api_bed_stop(bed);
    engine_bed_leave(bed->agent, API_BED_WAIT_MS);
    cr_assert(engine_bed_until(&bed->engines, bed->agent->left));
    cr_assert(engine_bed_until(&bed->engines, engine_bed_lives_ended(bed->agent)));
    engine_bed_close(&bed->engines);
    node_fini_views(n);
    events_free(n->events);
    tzload_free(n->zones);
    config_free(bed->config);
    free(bed->in);
    free(bed->answer.body);
}

/* --- the client ---------------------------------------------------------------------------------------------------- */

/* Its memory is plain malloc's, so that no fault strikes it. */
static void take_in(struct api_bed *bed, const char *data, size_t bytes)
{
    if (bed->in_bytes + bytes + 1 > bed->in_size) {
        bed->in_size = 2 * (bed->in_bytes + bytes + 1);
        bed->in = realloc(bed->in, bed->in_size);
        cr_assert(ne(ptr, bed->in, NULL));
    }
    memcpy(bed->in + bed->in_bytes, data, bytes);
    bed->in_bytes += bytes;
    bed->in[bed->in_bytes] = '\0';
}

static void on_readable(void *arg, int events)
{
    struct api_bed *bed = arg;
    char piece[16384];
    (void)events;
    ssize_t n = recv(bed->fd, piece, sizeof(piece), MSG_DONTWAIT);
    if (n > 0) {
        take_in(bed, piece, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        bed->ended = true;
        loop_fd_set(bed->watch, 0);
    }
}

static void dial(struct api_bed *bed)
{
    const char *address = api_address(bed->api, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    bed->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(ge(int, bed->fd, 0));
    cr_assert(zero(int, connect(bed->fd, (const struct sockaddr *)&to, sizeof(to))), "%s", strerror(errno));
    bed->watch = loop_fd_new(bed->engines.loop, bed->fd, on_readable, bed);
    loop_fd_set(bed->watch, LOOP_READ);
}

static void send_all(struct api_bed *bed, const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = send(bed->fd, text, bytes, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* shows as an answer that does not come */
        text += n;
        bytes -= (size_t)n;
    }
}

/* At once: a body that follows its head waits for the head's acknowledgement. */
static void send_request(struct api_bed *bed, const char *method, const char *target, const char *headers,
                         const char *body)
{
    size_t size = API_BED_HEAD_MAX + (body ? strlen(body) : 0);
    char *text = calloc(1, size), length[64] = "";
    cr_assert(ne(ptr, text, NULL));
    if (body)
        (void)snprintf(length, sizeof(length), "Content-Length: %zu\r\n", strlen(body)); /* fits */
    const char *key = bed->authorization ? "Authorization: " : "";
    const char *value = bed->authorization ? bed->authorization : "";
    int len = snprintf(text, size, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s%s%s%s%s\r\n%s", method, target,
                       key, value, *key ? "\r\n" : "", headers ? headers : "", length, body ? body : "");
    cr_assert(lt(sz, (size_t)len, size));
    send_all(bed, text, (size_t)len);
    free(text);
}

/* Value of a header of the answer that is coming, or NULL. */
static const char *header_in(const char *head, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line && strncmp(line, "\r\n\r\n", 4) != 0;
         line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, len) == 0 && line[2 + len] == ':')
            return line + 3 + len + strspn(line + 3 + len, " ");
    return NULL;
}

/* Put the chunks at TEXT together, in place; false: the last one is not there. */
static bool join_chunks(char *text, size_t bytes, size_t *ret_bytes)
{
    char *at = text, *end = text + bytes;
    size_t joined = 0;
    while (at < end) {
        char *data;
        size_t size = strtoul(at, &data, 16);
        if (data == at || end - data < 2 || (size_t)(end - data) < size + 4)
            break;
        memmove(text + joined, data + 2, size);
        joined += size;
        at = data + 2 + size + 2;
        if (size == 0)
            break;
    }
    *ret_bytes = joined;
    return at == end;
}

static bool is_chunked(const char *head)
{
    const char *coding = header_in(head, "Transfer-Encoding");
    return coding && strncasecmp(coding, "chunked", 7) == 0;
}

static bool answer_is_whole(const struct api_bed *bed)
{
    const char *body = bed->in ? strstr(bed->in, "\r\n\r\n") : NULL;
    if (!body)
        return false;
    size_t bytes = bed->in_bytes - (size_t)(body + 4 - bed->in);
    const char *length = header_in(bed->in, "Content-Length");
    if (strncmp(bed->in, "HTTP/1.1 304", 12) == 0)
        return true;
    if (is_chunked(bed->in))
        return bytes >= 5 && strcmp(bed->in + bed->in_bytes - 5, "0\r\n\r\n") == 0;
    return length && bytes >= strtoul(length, NULL, 10);
}

static void take_answer(struct api_bed *bed)
{
    struct api_answer *a = &bed->answer;
    char *body = bed->in_bytes > 0 ? strstr(bed->in, "\r\n\r\n") : NULL;
    free(a->body);
    *a = (struct api_answer){.whole = answer_is_whole(bed)};
    if (body) {
        (void)sscanf(bed->in, "HTTP/1.1 %d", &a->status); /* 0 is what shows otherwise */
        (void)snprintf(a->head, sizeof(a->head), "%.*s", (int)(body + 4 - bed->in), bed->in);
        body += 4;
        a->bytes = bed->in_bytes - (size_t)(body - bed->in);
        if (is_chunked(a->head))
            a->whole &= join_chunks(body, a->bytes, &a->bytes);
    }
    a->body = calloc(1, a->bytes + 1);
    cr_assert(ne(ptr, a->body, NULL));
    if (body)
        memcpy(a->body, body, a->bytes);
    const char *connection = header_in(a->head, "Connection");
    if (bed->ended || (connection && strncasecmp(connection, "close", 5) == 0))
        hang_up(bed);
}

const struct api_answer *api_bed_ask(struct api_bed *bed, const char *method, const char *target,
                                     const char *headers, const char *body)
{
    bed->node.engine = bed->agent->engine;
    bed->in_bytes = 0;
    bed->ended = false;
    if (bed->in)
        bed->in[0] = '\0';
    if (bed->fd < 0)
        dial(bed);
    send_request(bed, method, target, headers, body);
    int64_t end_ms = (int64_t)clock_boot_ms() + API_BED_WAIT_MS;
    while (!bed->ended && !answer_is_whole(bed))
        cr_assert(engine_bed_turn(&bed->engines, end_ms), "%s %s is not answered", method, target);
    take_answer(bed);
    return &bed->answer;
}

static const struct api_answer *ask_json(struct api_bed *bed, const char *method, const char *target,
                                         const char *headers, const char *body)
{
    char lines[1024];
    bool typed = headers && strstr(headers, "Content-Type:");
    (void)snprintf(lines, sizeof(lines), "%s%s", headers ? headers : "",
                   typed  ? ""
                   : body ? "Content-Type: application/json\r\n"
                          : "Carillon-Client: test\r\n");
    return api_bed_ask(bed, method, target, lines, body);
}

const struct api_answer *api_bed_write(struct api_bed *bed, const char *method, const char *target,
                                       const char *body, int status)
{
    const struct api_answer *a = ask_json(bed, method, target, NULL, body);
    cr_assert(eq(int, a->status, status), "%s %s: %s", method, target, a->body);
    return a;
}

void api_bed_put(struct api_bed *bed, const char *id, const char *schedule)
{
    char target[300], body[600];
    (void)snprintf(target, sizeof(target), "/v1/jobs/%s", id);
    (void)snprintf(body, sizeof(body), "{\"schedule\":\"%s\",\"callback\":{\"http\":{\"url\":\"%s\"}}}",
                   schedule, bed->engines.url);
    const struct api_answer *a = ask_json(bed, "PUT", target, NULL, body);
    cr_assert(a->status == 200 || a->status == 201, "PUT %s: %d %s", target, a->status, a->body);
}

void api_bed_until(struct api_bed *bed, const char *target, const char *text)
{
    int64_t end_ms = (int64_t)clock_boot_ms() + API_BED_WAIT_MS;
    while (!strstr(api_bed_ask(bed, "GET", target, NULL, NULL)->body, text))
        cr_assert(engine_bed_turn(&bed->engines, end_ms), "GET %s has no %s: %s", target, text,
                  bed->answer.body);
}

/* --- faults -------------------------------------------------------------------------------------------------------- */

static bool varies(const char *varying, const char *name)
{
    char word[80];
    (void)snprintf(word, sizeof(word), " %s ", name);
    return varying && strstr(varying, word);
}

static void drop_varying(json_t *v, const char *varying)
{
    size_t i;
    json_t *item;
    json_array_foreach(v, i, item) drop_varying(item, varying);
    void *next;
    const char *name;
    json_object_foreach_safe(v, next, name, item)
    {
        if (varies(varying, name))
            (void)json_object_del(v, name); /* is there */
        else
            drop_varying(item, varying);
    }
}

/* Of an answer in JSON, what is the same each time; of another, all of it as a string. */
static json_t *constant_part(const struct api_answer *a, const struct api_case *c)
{
    json_t *v = json_loadb(a->body, a->bytes, 0, NULL);
    if (!v)
        return json_stringn(a->body, a->bytes);
    drop_varying(v, c->varying);
    return v;
}

static bool ends_with_problem(const struct api_answer *a)
{
    const char *line = a->body;
    for (const char *next = line; *next; next = strchr(line, '\n') ? strchr(line, '\n') + 1 : "")
        line = next;
    return strncmp(line, "{\"problem\":{", 12) == 0;
}

static void check_same(const struct api_answer *a, const struct api_case *c, const json_t *normal, unsigned k)
{
    if (c->stream && (!a->whole || ends_with_problem(a)))
        return; /* its client knows */
    cr_assert(a->whole, "%s %s, step %u: broken off: %s", c->method, c->target, k, a->body);
    json_t *got = constant_part(a, c);
    cr_assert(json_equal(got, normal), "%s %s, step %u: %d %s", c->method, c->target, k, a->status, a->body);
    json_decref(got);
}

static void check_problem(const struct api_answer *a, const struct api_case *c, unsigned k)
{
    int status = 0;
    const char *title, *code, *detail, *type = header_in(a->head, "Content-Type");
    json_t *p = json_loadb(a->body, a->bytes, 0, NULL);
    cr_assert(a->status >= 500 && a->whole, "%s %s, step %u: %d %s", c->method, c->target, k, a->status,
              a->body);
    cr_assert(type && strncmp(type, "application/problem+json", 24) == 0, "%s %s, step %u: %s", c->method,
              c->target, k, a->head);
    cr_assert(zero(int, json_unpack(p, "{s:i,s:s,s:s,s:s}", "status", &status, "title", &title, "code", &code,
                                    "detail", &detail)),
              "%s %s, step %u: %s", c->method, c->target, k, a->body);
    cr_assert(eq(int, status, a->status));
    json_decref(p);
}

static const struct api_answer *ask_case(struct api_bed *bed, const struct api_case *c)
{
    if (strcmp(c->method, "GET") == 0)
        return api_bed_ask(bed, c->method, c->target, c->headers, NULL);
    return ask_json(bed, c->method, c->target, c->headers, c->body);
}

/* The answer without a fault. */
static json_t *ask_calmly(struct api_bed *bed, const struct api_case *c)
{
    if (c->before)
        c->before(bed);
    const struct api_answer *a = ask_case(bed, c);
    cr_assert(a->status == c->status && a->whole, "%s %s: %d %s", c->method, c->target, a->status, a->body);
    json_t *v = constant_part(a, c);
    if (c->after)
        c->after(bed, true);
    return v;
}

static bool ask_with_fault(struct api_bed *bed, const struct api_case *c, const json_t *normal, unsigned k)
{
    if (c->before)
        c->before(bed);
    fault_arm_threads(k);
    const struct api_answer *a = ask_case(bed, c);
    bool fired = fault_fired(), acknowledged = a->status == c->status;
    fault_disarm();
    cr_assert(acknowledged || fired, "%s %s without a fault: %d %s", c->method, c->target, a->status,
              a->body);
    if (acknowledged)
        check_same(a, c, normal, k);
    else
        check_problem(a, c, k);
    if (c->after)
        c->after(bed, acknowledged);
    return fired;
}

static void check_again(struct api_bed *bed, const struct api_case *c, const json_t *normal, unsigned k)
{
    json_t *again = ask_calmly(bed, c);
    cr_assert(json_equal(again, normal), "%s %s, after step %u: %s", c->method, c->target, k,
              bed->answer.body);
    json_decref(again);
}

unsigned api_bed_under_faults(struct api_bed *bed, const struct api_case *c)
{
    unsigned k = 0;
    json_t *normal = ask_calmly(bed, c);
    for (; ask_with_fault(bed, c, normal, k); k++) {
        if (!c->before) /* else that has written already */
            check_again(bed, c, normal, k);
        cr_assert(lt(u32, k, FAULTS_MAX));
    }
    check_again(bed, c, normal, k);
    cr_assert(gt(u32, k, 0), "%s %s: nothing can fail", c->method, c->target);
    json_decref(normal);
    return k;
}

void api_bed_run(struct api_bed *bed, const struct api_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        (void)api_bed_under_faults(bed, &cases[i]); /* how many is the case's own matter */
}
