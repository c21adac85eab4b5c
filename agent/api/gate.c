#include "agent/api/gate.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#include "agent/api/api_private.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/io/file.h"

enum {
    LOOK_MS = 4000,
    BUCKETS = 1024,
};

static const struct log_ctx log_here = {.module = "api"};
static const struct log_ctx log_audit = {.module = "audit", .every = true};

/* Requests that a client may make now. Clients whose names meet in one bucket share it, but for one that was full: so the table needs
 * no more memory for more clients, and whoever makes names up gains nothing but the bucket's first second. */
struct bucket {
    uint64_t client;
    double left;
    uint64_t at_ms;
};

struct gate {
    struct api *api;
    const char *file; /* NULL: none; the configuration's */
    pthread_mutex_t lock;
    struct tokens *tokens; /* under lock, as the buckets */
    struct bucket buckets[BUCKETS];
    struct file_watch watch; /* the look's */
    struct work look;
    bool looking, look_again;
    bool swapped; /* the look's */
    struct loop_timer *timer;
};

/* --- the file ------------------------------------------------------------------------------------------------------ */

static struct tokens *tokens_now(struct gate *g)
{
    (void)pthread_mutex_lock(&g->lock); /* an error-checking mutex it is not: cannot fail, as below */
    struct tokens *t = tokens_ref(g->tokens);
    (void)pthread_mutex_unlock(&g->lock);
    return t;
}

/* On a worker. */
static void run_look(struct work *w, void *context)
{
    struct gate *g = container_of(w, struct gate, look);
    struct tokens *next, *before;
    struct err e;
    (void)context;
    if (!file_watch_changed(&g->watch))
        return;
    if (tokens_load(g->file, &next, &e) < 0) {
        log_error(&log_here, "tokens not read again, the old ones stay in use", "error=%s", LOGQ(e.text));
        if (e.code !=
            ERR_INVALID) /* the next look finds it changed, if it is there: a token may have been taken back */
            g->watch.stamp = 0;
        return;
    }
    log_info(&log_here, "tokens read again", "file=%s tokens=%zu", LOGQ(g->file), tokens_count(next));
    (void)pthread_mutex_lock(&g->lock);
    before = g->tokens;
    g->tokens = next;
    (void)pthread_mutex_unlock(&g->lock);
    g->swapped = true;
    tokens_unref(before);
}

static void look_done(struct work *w, bool cancelled)
{
    struct gate *g = container_of(w, struct gate, look);
    g->looking = false;
    if (cancelled || g->api->stopping)
        return;
    if (g->swapped)
        api_events_check(g->api);
    g->swapped = false;
    if (g->look_again)
        gate_look(g);
    else
        loop_timer_arm(g->timer, LOOK_MS);
}

static void on_timer(void *arg)
{
    gate_look(arg);
}

void gate_look(struct gate *g)
{
    g->look_again = g->looking;
    if (!g->file || g->looking || g->api->stopping)
        return;
    loop_timer_stop(g->timer);
    g->looking = true;
    worker_submit(g->api->pages, &g->look);
}

int gate_new(struct api *api, struct gate **ret, struct err *e)
{
    struct gate *g = mem_new(struct gate);
    const char *file = api->config->api.tokens_file;
    g->api = api;
    g->file = file;
    (void)pthread_mutex_init(&g->lock, NULL);
    g->look = (struct work){.run = run_look, .done = look_done};
    list_init(&g->look.link);
    if (file) {
        file_watch_init(&g->watch,
                        file); /* before the reading: a change in between is seen at the next look */
        int rc = tokens_load(file, &g->tokens, e);
        if (rc < 0) {
            gate_free(g);
            return err_wrap(e, "api.tokens_file");
        }
        g->timer = loop_timer_new(api->loop, on_timer, g);
        loop_timer_arm(g->timer, LOOK_MS);
    }
    *ret = g;
    return 0;
}

void gate_free(struct gate *g)
{
    if (!g)
        return;
    if (g->timer)
        loop_timer_free(g->timer);
    if (g->file)
        file_watch_fini(&g->watch);
    tokens_unref(g->tokens);
    (void)pthread_mutex_destroy(&g->lock);
    mem_free(g);
}

void gate_caller_fini(struct gate_caller *c)
{
    tokens_unref(c->tokens);
}

/* --- rates --------------------------------------------------------------------------------------------------------- */

/* A second's worth may come at once. */
static bool take_locked(struct bucket *b, uint64_t client, double per_s, uint64_t now_ms)
{
    double burst = per_s > 1 ? per_s : 1;
    double earned = (double)(now_ms - b->at_ms) * per_s / 1000;
    if (b->client != client && b->left + earned >= burst) {
        b->client = client;
        b->left = burst;
    } else {
        b->left = b->left + earned < burst ? b->left + earned : burst;
    }
    b->at_ms = now_ms;
    if (b->left < 1)
        return false;
    b->left -= 1;
    return true;
}

/* A client is a token, a user of a unix socket, or an address. */
static int check_rate(struct exchange *x, const struct httpd_peer *peer, double per_s)
{
    struct gate *g = x->api->gate;
    const struct gate_caller *c = &x->caller;
    bool named = c->who || !peer->host_len;
    const char *client = named ? c->name : c->from;
    size_t len = named ? strlen(client) : peer->host_len;
    if (c->who && c->who->rate > 0)
        per_s = c->who->rate;
    if (per_s <= 0)
        return 0;
    uint64_t key = XXH3_64bits(client, len);
    (void)pthread_mutex_lock(&g->lock);
    bool ok = take_locked(&g->buckets[key % BUCKETS], key, per_s, clock_boot_ms());
    (void)pthread_mutex_unlock(&g->lock);
    return ok ? 0
              : api_problem_set(&x->problem, API_QUOTA_EXCEEDED,
                                "this client has made more than %g requests a second", per_s);
}

/* --- who ----------------------------------------------------------------------------------------------------------- */

/* Of "Bearer TOKEN", or NULL. */
static const char *bearer(const struct exchange *x)
{
    const char *value = httpd_header(x->rq, "Authorization");
    if (!value || strncasecmp(value, "Bearer ", 7) != 0)
        return NULL;
    return value + 7 + strspn(value + 7, " ");
}

/* Who it is, NULL: nobody, and then c->name stays what it was. */
static const struct token *identify(struct exchange *x, const struct httpd_peer *peer)
{
    struct gate_caller *c = &x->caller;
    const char *secret = bearer(x);
    const struct token *t = secret ? tokens_find(c->tokens, secret, strlen(secret)) : NULL;
    if (!secret && peer->has_uid)
        t = tokens_find_uid(c->tokens, peer->uid);
    c->wrong = !secret && !t ? "this needs a token: Authorization: Bearer TOKEN"
               : !t          ? "nobody here has this token"
               : t->expires_ms <= node_now_ms(x->api->node) ? "this token has expired"
                                                            : NULL;
    if (c->wrong)
        return NULL;
    memcpy(c->name, t->name, sizeof(c->name));
    return t;
}

static int refuse(struct exchange *x)
{
    const char *detail = x->caller.wrong;
    log_warn(&log_here, "request without a valid token refused", "from=%s method=%s detail=%s",
             LOGQ(x->caller.from), LOGQ(httpd_method(x->rq)), LOGQ(detail));
    return api_problem_set(&x->problem, API_UNAUTHORIZED, "%s", detail);
}

/* --- what ---------------------------------------------------------------------------------------------------------- */

static int check_can(struct exchange *x, unsigned wanted)
{
    const struct token *who = x->caller.who;
    if (who->can & wanted)
        return 0;
    bool many = wanted & (wanted - 1);
    return api_problem_set(&x->problem, API_FORBIDDEN, "the token '%s' may not %s%s", who->name,
                           token_can_name(many ? TOKEN_CAN_WRITE : wanted), many ? " or operate" : "");
}

static int refuse_namespace(struct exchange *x, const char *ns)
{
    return api_problem_set(&x->problem, API_FORBIDDEN, "the token '%s' is not for %s%s%s",
                           x->caller.who->name, ns ? "namespace '" : "all namespaces", ns ? ns : "",
                           ns ? "'" : "");
}

static int check_namespace(struct exchange *x, const struct api_route *route, const char *ns)
{
    const struct token *who = x->caller.who;
    bool all = route->action == API_METRICS || (route->all_namespaces && strcmp(ns, "*") == 0);
    if (route->action == API_BULK || !(all || (route->query & API_Q_NS)))
        return 0; /* lines say their own */
    if (all)
        return who->everywhere ? 0 : refuse_namespace(x, NULL);
    return token_in_namespace(who, ns) ? 0 : refuse_namespace(x, ns);
}

/* What is no namespace at all is told so later. */
static int check_plain_namespace(struct exchange *x, const struct api_route *route)
{
    const char *ns = httpd_query(x->rq, "ns");
    if (!ns)
        ns = httpd_header(x->rq, "Carillon-Namespace");
    if (!ns)
        ns = "default";
    bool valid = text_check_namespace(ns, strlen(ns), NULL) == 0 || strcmp(ns, "*") == 0;
    return valid ? check_namespace(x, route, ns) : 0;
}

int gate_admit(struct exchange *x)
{
    const char *arg;
    size_t arg_len;
    unsigned allow;
    struct httpd_peer peer;
    struct gate_caller *c = &x->caller;
    const struct config *now = node_config(x->api->node);
    if (x->face->face == API_FACE_PEER || x->face->face == API_FACE_OPS)
        return 0;
    httpd_peer(x->rq, &peer);
    memcpy(c->from, peer.text, sizeof(c->from));
    c->audited = now->log.audit;
    if (peer.has_uid)
        (void)snprintf(c->name, sizeof(c->name), "uid:%u", (unsigned)peer.uid); /* fits */
    const struct api_route *route = x->req.route =
        api_route_find(httpd_method(x->rq), httpd_path(x->rq), &arg, &arg_len, &allow);
    unsigned wanted = route ? api_route_can(route) : TOKEN_CAN_READ;
    if (route && route->open)
        return 0;
    c->tokens = wanted ? tokens_now(x->api->gate) : NULL;
    if (c->tokens)
        c->who = identify(x, &peer);
    if (check_rate(x, &peer, now->api.rate) < 0)
        return -ERR_INVALID;
    if (!c->tokens)
        return 0;
    if (!c->who)
        return refuse(x);
    return route && (check_can(x, wanted) < 0 || check_plain_namespace(x, route) < 0) ? -ERR_INVALID : 0;
}

int gate_authorize(struct exchange *x)
{
    if (!x->caller.who)
        return 0;
    return check_namespace(x, x->req.route, x->req.ns_all ? "*" : x->req.ns);
}

bool gate_in_namespace(const struct exchange *x, const char *ns)
{
    return !x->caller.who || token_in_namespace(x->caller.who, ns);
}

bool gate_is_limited(const struct exchange *x)
{
    return x->caller.who && !x->caller.who->everywhere;
}

/* --- what goes on ------------------------------------------------------------------------------------------------- */

void gate_pass_take(const struct exchange *x, const char *ns, struct gate_pass *ret)
{
    const struct token *who = x->caller.who;
    *ret = (struct gate_pass){.needed = who != NULL};
    if (!who)
        return;
    ret->who = *who;
    ret->who.namespaces = NULL; /* the table's, which goes before the pass */
    ret->who.namespaces_count = 0;
    (void)snprintf(ret->ns, sizeof(ret->ns), "%s", ns); /* a namespace fits */
}

bool gate_pass_holds(struct gate *g, const struct gate_pass *p)
{
    if (!p->needed)
        return true;
    AUTO(tokens_unref) struct tokens *t = tokens_now(g);
    const struct token *who = tokens_find_same(t, &p->who);
    return who && who->expires_ms > node_now_ms(g->api->node) && (who->can & TOKEN_CAN_READ) &&
           (p->ns[0] ? token_in_namespace(who, p->ns) : who->everywhere);
}

/* --- audit --------------------------------------------------------------------------------------------------------- */

void gate_audit(const struct exchange *x, int status)
{
    const struct api_route *route = x->req.route;
    const struct gate_caller *c = &x->caller;
    if (!c->audited || !route || route->method == API_GET || x->ctx.hop != API_HOP_NONE)
        return;
    const struct planner_api *p = &x->write.papi;
    const char *by = c->name[0] ? c->name : route->keyed ? "callee" : "local";
    log_info(&log_audit, "change asked for",
             "actor=%s from=%s method=%s path=%s namespace=%s id=%s status=%d request=%s", LOGQ(by),
             LOGQ(c->from), LOGQ(httpd_method(x->rq)), LOGQ(httpd_path(x->rq)), LOGQ(x->req.ns), LOGQ(p->id),
             status, x->ctx.request_id);
}
