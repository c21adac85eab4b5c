/* Shared by the files of agent/api; nobody else includes it. */
#ifndef CARILLON_AGENT_API_PRIVATE_H
#define CARILLON_AGENT_API_PRIVATE_H

#include <stdatomic.h>

#include "agent/api/api.h"
#include "agent/api/certs.h"
#include "agent/api/context.h"
#include "agent/api/gate.h"
#include "agent/api/problem.h"
#include "agent/api/request.h"
#include "agent/api/write.h"
#include "agent/base/list.h"
#include "agent/core/trace.h"
#include "agent/io/http.h"
#include "agent/io/httpd.h"
#include "agent/io/inbox.h"
#include "agent/io/loop.h"
#include "agent/io/worker.h"
#include "agent/peer_auth.h"
#include "agent/peer_replay.h"

#define API_LISTENERS_MAX  16
#define API_WAITING_MAX    10000            /* requests that wait for an owner or for a peer's answer */
#define API_OWNER_HEADER   "Carillon-Owner" /* "<member> <epoch>": who a peer thinks holds the slot */
#define API_CURSOR_HEADER  "Carillon-Cursor"
#define API_JOB_BYTES_MAX  ((size_t)4 << 20) /* one job printed, with room for escapes */
#define API_PAGE_BYTES_MAX ((size_t)400 << 20)

struct listener_face {
    struct api *api;
    struct httpd *httpd;
    enum api_face face;
    struct rng rng;        /* of its server's thread */
    struct inbox *arrived; /* exchanges for the loop */
};

struct api {
    struct node *node;
    const struct config *config; /* as it was at the start: listeners and limits */
    struct loop *loop;
    struct worker_pool *pool;  /* reads the lines of bulks */
    struct worker_pool *pages; /* prints pages of jobs, explains, forecasts */
    struct http_tls peer_tls;
    struct peer_replay *replay;
    struct gate *gate;
    struct certs *certs; /* NULL: there are none */
    struct listener_face faces[API_LISTENERS_MAX];
    size_t faces_count;
    atomic_uint refs;
    atomic_uint client_bulks, peer_bulks; /* under way */

    atomic_bool stopping; /* set by the loop */

    /* loop thread */
    struct rng rng;
    struct list waiting; /* exchanges and bulks that look again soon */
    size_t waiting_count;
    struct list calls; /* of peers, under way */
    size_t calls_count;
    struct loop_timer *again;
    struct list listeners; /* to events */
    size_t listeners_count, peers_listening;
    size_t cluster_listeners;      /* who want what all members tell */
    struct loop_timer *keep_alive; /* of theirs */
    struct list feeds;             /* what other members tell */
    struct loop_timer *feeds_timer;
};

/* What looks again when the timer fires; embedded. RUN may wait again. */
struct api_wait {
    struct list link;
    void (*run)(struct api_wait *w);
};

/* A call of a peer under way; embedded. */
struct api_call {
    struct list link;
    struct api *api;
    struct http_call *http;
    void (*done)(struct api_call *c, const struct err *e, const struct http_reply *reply);
    void (*piece)(struct api_call *c, const char *data, size_t bytes); /* as http_call_options; NULL: none */
};

/* A request's filter as the store takes it; points into both. */
struct api_filter {
    const char *names[API_LABELS_MAX];
    const char *values[API_LABELS_MAX];
    struct store_filter filter;
};

/* The same for fires. */
struct api_fire_filter {
    const char *names[API_LABELS_MAX];
    const char *values[API_LABELS_MAX];
    struct store_fire_filter filter;
};

/* One request from its head to its reply. Its server's thread until it is posted, then the loop's. Gone after
 * exchange_reply(). */
struct exchange {
    struct list arrived; /* in listener_face.arrived */
    struct api *api;
    struct httpd_request *rq;
    struct listener_face *face;
    struct api_request req;
    struct api_problem problem;
    struct api_context ctx;
    struct peer_auth auth;
    struct gate_caller caller;
    bool is_signed;
    struct api_write write; /* of a job's writes */
    uint64_t begun_us;
    struct trace_span span; /* of the request; not sampled: none */
    char span_parent[TRACE_SPAN_SIZE];

    struct api_wait wait;
    struct api_call call;
    int64_t deadline_ms; /* loop time */
    unsigned tries;
    bool maybe_done;      /* a peer may have done it */
    struct err why;       /* the last peer could not be asked */
    struct store_key key; /* what is read; borrowed by the store meanwhile */
    struct api_filter filter;
    void *state; /* a resource's own, freed by it */
};

void api_ref(struct api *api);
void api_unref(struct api *api);

/* --- exchange.c: replies, any thread; each ends X ----------------------------------------------------------------- */
void exchange_reply(struct exchange *x, int status, const char *type, const struct httpd_header *headers,
                    size_t count, struct buf *body);
void exchange_json(struct exchange *x, int status, struct buf *body);
/* With x->problem, which has a code. */
void exchange_refuse(struct exchange *x);
void exchange_refuse_with(struct exchange *x, enum api_code code, const char *detail);
/* For an error of the store. */
void exchange_refuse_store(struct exchange *x, const struct err *e);
/* Start a reply in pieces: the stream outlives X, which must not be used any more. */
struct httpd_stream *exchange_stream(struct exchange *x, const char *type, const struct httpd_header *headers,
                                     size_t count, size_t buffer_bytes);
#define EXCHANGE_HEADERS_MAX 8 /* of a reply; a caller may add 5 */
/* Whether what X names lies in NS is not for this caller: then X is refused. */
bool exchange_refuse_foreign(struct exchange *x, const char *ns);

/* --- exchange.c: the server's callbacks, and what makes ids --------------------------------------------------------- */
int64_t api_on_accept(struct httpd_request *rq, void *arg);
void api_on_handle(struct httpd_request *rq, void *arg);
void api_on_too_large(struct httpd_request *rq, void *arg);
void api_on_turned(void *arg);
/* What listener_face.arrived hands over. Loop thread. */
void api_on_arrived(void *face, struct list *item);
struct api_ids api_ids_of(struct api *api, struct rng *rng);
/* Context of what came in here, with this agent's defaults. Any thread that owns RNG. */
void api_make_context(struct api *api, struct rng *rng, struct api_context *ctx);

/* --- forward.c: loop thread ----------------------------------------------------------------------------------------- */
/* Look again soon; false: too many wait. */
bool api_wait_add(struct api *api, struct api_wait *w);
void api_wait_remove(struct api *api, struct api_wait *w);
int64_t api_deadline_ms(const struct api *api);
/* A signed call of a peer. HEADERS as http_call_options; the context and signature are added. C's done runs once, unless
 * the call is cancelled. False: it could not even be begun (too many, no memory); done will not run. */
struct api_peer_request {
    const char *address;
    const char *method;
    const char *target;
    const struct api_context *ctx;
    const char *const *headers; /* at most 8, NULL-terminated */
    const void *body;
    size_t body_bytes;
    int64_t timeout_ms;
    size_t reply_bytes_max;
};
bool api_call_peer(struct api *api, struct api_call *c, const struct api_peer_request *r);
void api_call_cancel(struct api_call *c);
/* Take a write to its owner, here or elsewhere, and answer it. */
void api_send_write(struct exchange *x);
/* A client's request that some member answers. */
void api_send_to_member(struct exchange *x);
/* Answer that SLOT is not ours to write, naming who holds it. */
void api_refuse_not_owner(struct exchange *x, uint16_t slot);
/* A peer's header that says who holds SLOT. */
void api_take_hint(struct api *api, uint16_t slot, const struct http_reply *reply);

/* --- resources: loop thread, each leads to one reply ---------------------------------------------------------------- */
void api_write_answered(struct exchange *x); /* papi.answer is there, and none of NOT_OWNER */
void api_fire_op_answered(struct exchange *x);
void api_fire_by_hand(struct exchange *x);
void api_dry_run(struct exchange *x);
void api_job_get(struct exchange *x);
void api_job_next(struct exchange *x);
void api_job_list(struct exchange *x);
void api_job_delete_many(struct exchange *x);
void api_job_fires(struct exchange *x);
void api_job_explain(struct exchange *x);
void api_job_revisions(struct exchange *x);
void api_fire_get(struct exchange *x);
void api_fire_search(struct exchange *x);
void api_deadletters(struct exchange *x);
void api_deadletters_change(struct exchange *x);
void api_cluster(struct exchange *x);
void api_owner(struct exchange *x);
void api_service(struct exchange *x);
void api_health(struct exchange *x);
void api_livez(struct exchange *x);  /* any thread */
void api_readyz(struct exchange *x); /* any thread */
void api_metrics(struct exchange *x);
void api_openapi(struct exchange *x); /* any thread */
void api_ui(struct exchange *x);      /* any thread */
void api_peer(struct exchange *x);
void api_export(struct exchange *x);
void api_events(struct exchange *x);
void api_forecast(struct exchange *x);
void api_audit(struct exchange *x);
/* Timer, and the end, of those who listen to events. */
void api_events_keep_alive(void *arg);
void api_events_stop(struct api *api);
/* End the streams of those who may not listen any more. */
void api_events_check(struct api *api);
/* An event of another member, whole, for those who want all; of NS, NULL: of none. */
void api_events_pass(struct api *api, const char *ns, const char *text, size_t len);
/* COUNT events of another member were lost on the way here. */
void api_events_lost(struct api *api, uint64_t count);
/* Whether a listener wants events of one namespace only: then it must be known of each. */
bool api_events_chosen(const struct api *api);

/* --- feeds.c: events of the other members, while somebody wants them --------------------------------------------- */
void api_feeds_look(void *arg); /* timer: begin, repeat and end them as members come and go */
void api_feeds_stop(struct api *api);
/* Members that are heard now, one a call from *at = 0; NULL: no more. */
const char *api_feeds_next(const struct api *api, size_t *at);
void api_bulk(struct exchange *x); /* its server's thread */

/* --- filter.c: F borrows RQ's texts --------------------------------------------------------------------------------- */
void api_filter_set(const struct api_request *rq, struct api_filter *f);
void api_fire_filter_set(const struct api_request *rq, struct api_fire_filter *f);

/* --- page.c -------------------------------------------------------------------------------------------------------- */
struct api_page_job {
    struct store_job job; /* its spec is the page's */
    char owner[STORE_NAME_MAX];
};

struct api_page {
    struct work work;
    struct api_page_job *jobs; /* those that this agent can read */
    size_t count;
    char cursor[API_CURSOR_SIZE]; /* of the next page, "": this is the last */
    struct buf out;
    void (*print)(struct api_page *p);
    void (*done)(struct api_page *p, bool cancelled);
    void *arg;
};

/* Copy FROM; run PRINT on a worker, which fills `out`, then DONE on the loop, which may take `out`: the page is gone afterwards.
 * CANCELLED: the agent is stopping, PRINT did not run. Loop thread. ERR_NOMEM: neither runs. */
int api_page_print(struct api *api, const struct store_page *from, void (*print)(struct api_page *p),
                   void (*done)(struct api_page *p, bool cancelled), void *arg, struct err *e);
/* Answer X with what the store gave: E, or FROM by api_page_print(), whose DONE answers X (`arg`). */
void api_page_answer(struct exchange *x, const struct err *e, const struct store_page *from,
                     void (*print)(struct api_page *p), void (*done)(struct api_page *p, bool cancelled));

/* For answers that are no page of jobs: PRINT works on X->state on a worker, then DONE_FN on the loop answers X and frees the state.
 * CANCELLED: the agent is stopping, PRINT did not run. DONE_FN may run before this returns. Loop thread. */
void api_print_off_loop(struct exchange *x, void (*print)(struct exchange *x),
                        void (*done)(struct exchange *x, bool cancelled));
/* Take the COUNT fires at ROWS, which then own nothing; free with api_fires_free. ERR_NOMEM: nothing was taken. */
int api_fires_take(struct fire_row *rows, size_t count, struct fire_row **ret, struct err *e);
void api_fires_free(struct fire_row *rows, size_t count);

/* --- walk.c: changing all that a filter matches -------------------------------------------------------------------- */
struct bulk;
/* The first member of x->state, which is freed with the reply. */
struct api_walk {
    void (*list)(
        struct exchange *x); /* ask for the next page; when it is there: `listing` false, `more`, and go on */
    const char *what;        /* "deleted": the name of the count in the answer */
    uint64_t count;
    unsigned changing; /* pages */
    bool listing, more;
    enum api_code code; /* what went wrong first */
    char why[200];
};
void api_walk_fail(struct api_walk *w, enum api_code code, const char *why);
/* Begin to change what BODY says, which is taken, by the owners; DONE takes one from `changing`, and goes on. */
void api_walk_change(struct exchange *x, struct api_walk *w, struct buf *body,
                     void (*done)(void *arg, const struct bulk *b));
/* List, or wait, or answer X. */
void api_walk_go_on(struct exchange *x, struct api_walk *w);

/* --- print.c -------------------------------------------------------------------------------------------------------- */
/* ,"key":"2026-…" or ,"key":null */
void api_print_instant(struct buf *out, const char *key, int64_t ms);
/* ,"key":"text", null for NULL */
void api_print_text(struct buf *out, const char *key, const char *text);
/* [{"due","local","note"}…]: up to COUNT dues after AFTER_MS; ACCEPTED_MS RECORD_NONE: of a job that is there, else of one
 * that is accepted then (AFTER_MS may be RECORD_NONE: from its first). */
void api_print_next(struct buf *out, const struct job_spec *spec, int64_t accepted_ms, int64_t after_ms,
                    uint64_t count);
void api_print_last_fire(struct buf *out, const struct job_row *row);
struct ring_entry;
void api_print_fire_row(struct buf *out, const struct fire_row *row);
/* The same with last_error. */
void api_print_dead_letter(struct buf *out, const struct fire_row *row);
void api_print_fire_ring(struct buf *out, const struct store_job *job, const struct ring_entry *entry);
/* Name of the owner of SLOT, "" unknown. */
void api_owner_name(const struct node *n, uint16_t slot, char ret[STORE_NAME_MAX]);

#endif
