/* A model of one Consul server as our client sees it: services with TTL checks, sessions bound to them, keys with sessions,
 * blocking queries with their index rules; it dies, comes back empty, loses its leader. Only what agents ask is there. Source: what
 * was measured of 1.8.7. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "tests/sim/sim.h"

#define LIST_MAX 512
#define LOOK_US  100000 /* what ends is noticed so late at most */
#define FORGET_US \
    INT64_C(600000000) /* a service that is critical for so long is deregistered, as our client asks */

struct service {
    char id[128], check[140];
    int64_t passed_us, ttl_us;
    bool critical;
};

struct session {
    char id[40], check[140];
    int64_t until_us, ttl_us;
};

struct key {
    char name[160], session[40];
    char *value;
    uint64_t index;
};

struct waiting { /* a blocking query */
    struct http_call *call;
    struct sim_proc *from;
    char path[256];
    bool kv;
    uint64_t index;
    int64_t until_us;
};

static struct {
    bool down, leaderless;
    uint64_t index, session_count;
    uint64_t kv_index, svc_index;
    struct service services[LIST_MAX];
    struct session sessions[LIST_MAX];
    struct key keys[LIST_MAX];
    struct waiting waits[LIST_MAX];
    size_t services_count, sessions_count, keys_count, waits_count;
    unsigned instances;
    int64_t look_us; /* when time is looked at next */
} consul;

/* --- answers ------------------------------------------------------------------------------------------------------- */

static void answer(const struct sim_proc *from, struct http_call *call, int status, const char *body,
                   uint64_t index)
{
    if (!from->host->cut_consul)
        sim_http_answer(call, sim_between(200, 1500), 0, status, body, index ? index : 1);
}

static char *list_keys(const char *prefix)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(1 << 20);
    buf_add_char(&out, '[');
    size_t n = 0;
    for (size_t i = 0; i < consul.keys_count; i++) {
        const struct key *k = &consul.keys[i];
        if (strncmp(k->name, prefix, strlen(prefix)) != 0)
            continue;
        buf_addf(
            &out,
            "%s{\"Key\":\"%s\",\"Session\":\"%s\",\"LockIndex\":1,\"Flags\":0,\"CreateIndex\":%llu,\"ModifyIndex\":%llu,\"Value\":\"",
            n++ ? "," : "", k->name, k->session, (unsigned long long)k->index, (unsigned long long)k->index);
        text_base64_encode(&out, k->value, strlen(k->value));
        buf_add_str(&out, "\"}");
    }
    buf_add_char(&out, ']');
    return n ? strdup(buf_str(&out)) : NULL;
}

static char *list_instances(void)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(1 << 20);
    buf_add_char(&out, '[');
    for (unsigned i = 0, n = 0; i < 8; i++)
        if (consul.instances & (1u << i))
            buf_addf(
                &out,
                "%s{\"Node\":{\"Node\":\"n\",\"Address\":\"10.1.0.1\",\"Meta\":{}},\"Service\":{\"ID\":\"svc-%u\",\"Service\":\"svc\","
                "\"Address\":\"10.1.0.1\",\"Port\":%u,\"Tags\":[],\"Meta\":{},\"Weights\":{\"Passing\":1,\"Warning\":1}},\"Checks\":[]}",
                n++ ? "," : "", i, 8001 + i);
    buf_add_char(&out, ']');
    return strdup(buf_str(&out));
}

static bool is_kv(const char *path)
{
    return strncmp(path, "/v1/kv/", 7) == 0;
}

static void answer_query(const struct sim_proc *from, struct http_call *call, const char *path)
{
    if (is_kv(path)) {
        char prefix[200];
        (void)snprintf(prefix, sizeof(prefix), "%.*s", (int)strcspn(path + 7, "?"), path + 7);
        char *body = list_keys(prefix);
        answer(from, call, body ? 200 : 404, body ? body : "", consul.kv_index);
        free(body);
    } else {
        char *body = list_instances();
        answer(from, call, 200, strstr(path, "/service/svc?") ? body : "[]", consul.svc_index);
        free(body);
    }
}

static uint64_t index_of(bool kv)
{
    return kv ? consul.kv_index : consul.svc_index;
}

static void wake_waiting(void)
{
    for (size_t i = consul.waits_count; i-- > 0;) {
        const struct waiting *at = &consul.waits[i];
        if (at->from->host->cut_consul) /* TCP repeats itself until the cut is mended */
            continue;
        if (index_of(at->kv) == at->index && sim.now_us < at->until_us)
            continue;
        struct waiting w = *at;
        consul.waits[i] = consul.waits[--consul.waits_count];
        answer_query(w.from, w.call, w.path);
        sim_http_put(w.call);
    }
}

static void changed(bool kv)
{
    consul.index++;
    *(kv ? &consul.kv_index : &consul.svc_index) = consul.index;
    wake_waiting();
}

/* --- sessions and checks ------------------------------------------------------------------------------------------- */

static void key_drop(size_t i)
{
    free(consul.keys[i].value);
    consul.keys[i] = consul.keys[--consul.keys_count];
}

static void session_end(size_t i)
{
    bool any = false;
    for (size_t k = consul.keys_count; k-- > 0;)
        if (strcmp(consul.keys[k].session, consul.sessions[i].id) == 0) {
            sim_note("consul: session of %s ends, its key goes", consul.keys[k].name);
            key_drop(k);
            any = true;
        }
    consul.sessions[i] = consul.sessions[--consul.sessions_count];
    if (any)
        changed(true);
}

static struct session *session_find(const char *id)
{
    for (size_t i = 0; i < consul.sessions_count; i++)
        if (strcmp(consul.sessions[i].id, id) == 0)
            return &consul.sessions[i];
    return NULL;
}

static void check_ended(const char *check)
{
    for (size_t i = consul.sessions_count; i-- > 0;)
        if (strcmp(consul.sessions[i].check, check) == 0)
            session_end(i);
}

static void checks_expire(void)
{
    for (size_t i = consul.services_count; i-- > 0;) {
        struct service *s = &consul.services[i];
        if (!s->critical && sim.now_us - s->passed_us > s->ttl_us) {
            s->critical = true;
            check_ended(s->check);
        }
        if (s->critical && sim.now_us - s->passed_us > FORGET_US)
            consul.services[i] = consul.services[--consul.services_count];
    }
}

static void sessions_expire(void)
{
    for (size_t i = consul.sessions_count; i-- > 0;)
        if (sim.now_us > consul.sessions[i].until_us)
            session_end(i);
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When something ends if nobody asks for anything until then. */
static int64_t next_end_us(void)
{
    int64_t next_us = INT64_MAX;
    for (size_t i = 0; i < consul.services_count; i++) {
        const struct service *s = &consul.services[i];
        next_us = sooner(next_us, s->passed_us + (s->critical ? FORGET_US : s->ttl_us) + 1);
    }
    for (size_t i = 0; i < consul.sessions_count; i++)
        next_us = sooner(next_us, consul.sessions[i].until_us + 1);
    for (size_t i = 0; i < consul.waits_count; i++)
        if (!consul.waits[i].from->host->cut_consul)
            next_us = sooner(next_us, consul.waits[i].until_us);
    return next_us;
}

static void look(void *arg);

static void look_at(int64_t at_us)
{
    if (at_us >= consul.look_us)
        return;
    consul.look_us = at_us;
    sim_after(at_us - sim.now_us, NULL, look, NULL);
}

/* Time passes in Consul too, also for whoever does not ask. What ends sooner than was thought has asked for a look of its own; what was
 * put off since is looked at anew. */
static void look(void *arg)
{
    (void)arg;
    if (sim.now_us < consul.look_us)
        return;
    consul.look_us = INT64_MAX;
    if (consul.down)
        return; /* who brings it back asks */
    if (!consul.leaderless) {
        checks_expire();
        sessions_expire();
    }
    wake_waiting();
    int64_t next_us = next_end_us(), least_us = sim.now_us + LOOK_US;
    if (next_us != INT64_MAX)
        look_at(next_us > least_us ? next_us : least_us);
}

void sim_consul_look(void)
{
    look_at(sim.now_us);
}

/* --- requests ------------------------------------------------------------------------------------------------------ */

struct request {
    struct sim_proc *from;
    struct http_call *call;
    bool put, del;
    char *path, *body;
};

static void register_service(const struct request *r)
{
    AUTO(json_decref) json_t *doc = json_loads(r->body, 0, NULL);
    const json_t *check = json_object_get(doc, "Check");
    const char *id = json_string_value(json_object_get(doc, "ID"));
    const char *check_id = json_string_value(json_object_get(check, "CheckID"));
    const char *ttl = json_string_value(json_object_get(check, "TTL"));
    if (!id || !check_id || !ttl || consul.services_count == LIST_MAX) {
        answer(r->from, r->call, 400, "bad service", 0);
        return;
    }
    size_t i = 0;
    while (i < consul.services_count && strcmp(consul.services[i].id, id) != 0)
        i++;
    struct service *s = &consul.services[i];
    consul.services_count += i == consul.services_count;
    (void)snprintf(s->id, sizeof(s->id), "%s", id);
    (void)snprintf(s->check, sizeof(s->check), "%s", check_id);
    uint64_t ttl_ms = 5000;
    (void)text_duration_ms(ttl, strlen(ttl), &ttl_ms, NULL); /* what does not read is the default */
    s->ttl_us = (int64_t)ttl_ms * 1000;
    s->passed_us = sim.now_us;
    s->critical = false;
    look_at(sim.now_us + s->ttl_us + 1);
    answer(r->from, r->call, 200, "", 0);
}

static void deregister(const struct request *r, const char *id)
{
    for (size_t i = 0; i < consul.services_count; i++)
        if (strcmp(consul.services[i].id, id) == 0) {
            check_ended(consul.services[i].check);
            consul.services[i] = consul.services[--consul.services_count];
            answer(r->from, r->call, 200, "", 0);
            return;
        }
    answer(r->from, r->call, 404, "Unknown service", 0);
}

static void pass(const struct request *r, const char *check)
{
    for (size_t i = 0; i < consul.services_count; i++)
        if (strcmp(consul.services[i].check, check) == 0) {
            consul.services[i].passed_us = sim.now_us;
            consul.services[i].critical = false;
            answer(r->from, r->call, 200, "", 0);
            return;
        }
    char text[200];
    (void)snprintf(text, sizeof(text), "CheckID \"%.140s\" does not have associated TTL", check);
    answer(r->from, r->call, 500, text, 0);
}

static void create_session(const struct request *r)
{
    AUTO(json_decref) json_t *doc = json_loads(r->body, 0, NULL);
    const json_t *checks = json_object_get(doc, "ServiceChecks");
    const char *check = json_string_value(json_object_get(json_array_get(checks, 0), "ID"));
    for (size_t i = 0; check && i < consul.services_count; i++) {
        if (strcmp(consul.services[i].check, check) != 0 || consul.services[i].critical)
            continue;
        struct session *s = &consul.sessions[consul.sessions_count++];
        (void)snprintf(s->id, sizeof(s->id), "%08llx-0000-0000-0000-000000000000",
                       (unsigned long long)++consul.session_count);
        (void)snprintf(s->check, sizeof(s->check), "%s", check);
        s->ttl_us = 10000000;
        s->until_us = sim.now_us + 2 * s->ttl_us;
        look_at(s->until_us + 1);
        char body[80];
        (void)snprintf(body, sizeof(body), "{\"ID\":\"%s\"}", s->id);
        answer(r->from, r->call, 200, body, 0);
        return;
    }
    answer(r->from, r->call, 500, "Missing check registration", 0);
}

static void renew(const struct request *r, const char *id)
{
    struct session *s = session_find(id);
    if (s)
        s->until_us = sim.now_us + 2 * s->ttl_us;
    answer(r->from, r->call, s ? 200 : 404, s ? "[]" : "Session id not found", 0);
}

static void destroy(const struct request *r, const char *id)
{
    struct session *s = session_find(id);
    if (s)
        session_end((size_t)(s - consul.sessions));
    answer(r->from, r->call, 200, "true", 0);
}

static struct key *key_find(const char *name)
{
    for (size_t i = 0; i < consul.keys_count; i++)
        if (strcmp(consul.keys[i].name, name) == 0)
            return &consul.keys[i];
    return NULL;
}

static void acquire(const struct request *r, char *name)
{
    char *query = strchr(name, '?');
    const char *session = query ? strstr(query, "acquire=") : NULL;
    if (query)
        *query = '\0';
    session = session ? session + strlen("acquire=") : "";
    if (!session_find(session)) {
        answer(r->from, r->call, 500, "invalid session", 0);
        return;
    }
    struct key *k = key_find(name);
    if (k && k->session[0] && strcmp(k->session, session) != 0) {
        answer(r->from, r->call, 200, "false", 0);
        return;
    }
    if (!k) {
        k = &consul.keys[consul.keys_count++];
        *k = (struct key){0};
        (void)snprintf(k->name, sizeof(k->name), "%s", name);
    }
    free(k->value);
    k->value = strdup(r->body);
    (void)snprintf(k->session, sizeof(k->session), "%s", session);
    k->index = consul.index + 1;
    changed(true);
    answer(r->from, r->call, 200, "true", 0);
}

static void delete_key(const struct request *r, const char *name)
{
    struct key *k = key_find(name);
    if (k) {
        key_drop((size_t)(k - consul.keys));
        changed(true);
    }
    answer(r->from, r->call, 200, "true", 0);
}

static void query(const struct request *r)
{
    const char *index = strstr(r->path, "index="), *wait = strstr(r->path, "wait=");
    uint64_t wanted = index ? strtoull(index + strlen("index="), NULL, 10) : 0;
    if (consul.leaderless && !strstr(r->path, "stale")) {
        answer(r->from, r->call, 500, "No cluster leader", 0);
        return;
    }
    if (!wait || wanted == 0 || index_of(is_kv(r->path)) != wanted || consul.waits_count == LIST_MAX) {
        answer_query(r->from, r->call, r->path);
        return;
    }
    struct waiting *w = &consul.waits[consul.waits_count++];
    *w = (struct waiting){.call = r->call, .from = r->from, .index = wanted, .kv = is_kv(r->path)};
    sim_http_keep(r->call);
    w->until_us = sim.now_us + strtoll(wait + strlen("wait="), NULL, 10) * 1000000;
    (void)snprintf(w->path, sizeof(w->path), "%s", r->path);
    look_at(w->until_us);
}

static const char *after(const char *path, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(path, prefix, n) == 0 ? path + n : NULL;
}

static void write_request(const struct request *r)
{
    char *path = r->path;
    const char *rest;
    if (after(path, "/v1/agent/service/register"))
        register_service(r);
    else if ((rest = after(path, "/v1/agent/service/deregister/")))
        deregister(r, rest);
    else if ((rest = after(path, "/v1/agent/check/pass/")))
        pass(r, rest);
    else if (consul.leaderless)
        answer(r->from, r->call, 500, "No cluster leader", 0);
    else if (after(path, "/v1/session/create"))
        create_session(r);
    else if ((rest = after(path, "/v1/session/renew/")))
        renew(r, rest);
    else if ((rest = after(path, "/v1/session/destroy/")))
        destroy(r, rest);
    else if (after(path, "/v1/kv/") && r->del)
        delete_key(r, path + 7);
    else if (after(path, "/v1/kv/"))
        acquire(r, path + 7);
    else
        sim_broken("the model of Consul does not know %s", path);
}

static void take(void *arg)
{
    struct request *r = arg;
    if (consul.down)
        sim_http_answer(r->call, 100, ERR_REFUSED, 0, NULL, 0);
    else if (r->put || r->del)
        write_request(r);
    else if (after(r->path, "/v1/agent/self"))
        answer(r->from, r->call, 200, "{\"Config\":{\"NodeName\":\"n\"},\"Member\":{\"Addr\":\"10.0.0.1\"}}",
               0);
    else
        query(r);
    free(r->path);
    free(r->body);
    mem_free(r);
}

static void decode_percent(char *text)
{
    char *out = text;
    for (const char *p = text; *p; p++) {
        char hex[3] = {0};
        if (*p == '%' && p[1] && p[2]) {
            hex[0] = p[1], hex[1] = p[2];
            *out++ = (char)strtol(hex, NULL, 16);
            p += 2;
        } else {
            *out++ = *p;
        }
    }
    *out = '\0';
}

void sim_consul_request(struct sim_proc *from, struct http_call *call, const char *method, const char *path,
                        const char *body)
{
    if (from->host->cut_consul)
        return; /* the time-out tells */
    struct request *r = mem_new(struct request);
    *r = (struct request){.from = from,
                          .call = call,
                          .put = strcmp(method, "PUT") == 0,
                          .del = strcmp(method, "DELETE") == 0,
                          .path = strdup(path),
                          .body = strdup(body)};
    decode_percent(r->path);
    sim_after(sim_between(200, 2000), NULL, take, r);
}

/* --- its own troubles ---------------------------------------------------------------------------------------------- */

void sim_consul_down(bool down)
{
    sim_note("consul %s", down ? "is killed" : "is back");
    consul.down = down;
    if (!down)
        sim_consul_look();
    while (down && consul.waits_count > 0) {
        struct waiting *w = &consul.waits[--consul.waits_count];
        sim_http_answer(w->call, 100, ERR_UNKNOWN_OUTCOME, 0, NULL, 0);
        sim_http_put(w->call);
    }
}

void sim_consul_wipe(void)
{
    sim_note("consul has forgotten everything");
    while (consul.keys_count > 0)
        key_drop(consul.keys_count - 1);
    consul.sessions_count = consul.services_count = 0;
    /* Forwards or backwards, but not to where somebody waits by chance: Consul itself cannot tell that from no change. */
    consul.index = consul.kv_index = consul.svc_index = (uint64_t)sim_between(1, 10000000);
    wake_waiting();
}

void sim_consul_leaderless(bool on)
{
    sim_note("consul %s", on ? "has no leader" : "has a leader again");
    consul.leaderless = on;
    for (size_t i = 0; !on && i < consul.sessions_count; i++) /* a new leader starts their time anew */
        consul.sessions[i].until_us = sim.now_us + 2 * consul.sessions[i].ttl_us;
    if (!on)
        sim_consul_look();
}

void sim_consul_instances(unsigned bits)
{
    if (consul.instances == bits)
        return;
    consul.instances = bits;
    changed(false);
}

unsigned sim_consul_instances_now(void)
{
    return consul.instances;
}

void sim_consul_open(void)
{
    consul.index = consul.kv_index = consul.svc_index = 5000000;
    consul.instances = 7;
    consul.look_us = INT64_MAX;
}
