/* GET /v1/jobs/{id}/explain: what is kept about the job is gathered from the store, bounded; a thread of its own reckons
 * (agent/core/explain.h) and prints.
 *
 *   job -> revisions, newest first, down to the span -> fires of each job that had the name, down to the span
 *       -> the job's ring again -> thread */
#include <assert.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/text.h"
#include "agent/core/explain.h"
#include "agent/core/ring_log.h"
#include "agent/core/schedule.h"
#include "agent/core/tz.h"
#include "agent/io/tzload.h"

enum {
    REVISIONS_PAGE = 100,
    REVISIONS_MAX = 1000, /* read; what was before them is told as not known */
    FIRES_PAGE = 250,
    FIRES_MAX = 2 * NODE_HISTORY_MAX,
    FIRES_BYTES_MAX = 32 << 20, /* of logs */
    LIVES_MAX = 4,              /* jobs of the name whose fires are read */
};

#define DAY_MS ((int64_t)86400 * 1000)

struct asked {
    struct work work;
    struct exchange *x;
    struct store_job job; /* spec is a reference of its own; NULL: there is no such job */
    int64_t read_from_ms; /* rows before this instant are of no use */
    struct store_revisions which;
    struct store_revision *revisions;
    size_t revisions_count;
    bool revisions_all;
    struct uid lives[LIVES_MAX];
    size_t lives_count, lives_read;
    uint64_t before_seq;
    struct fire_row *fires;
    size_t fires_count, fires_capacity, fires_bytes;
    bool fires_all;
    int64_t keep_ms;

    /* the thread's */
    struct explain_change *changes;
    struct ring_entry ring[RING_LOG_KEEP_MAX];
    struct explain_facts facts;
    struct explain_span span;
    struct explain_answer answer;
    struct buf out;
    struct err err;
};

static void asked_free(struct asked *a)
{
    for (size_t i = 0; i < a->revisions_count; i++)
        mem_free(a->revisions[i].was);
    for (size_t i = 0; a->changes && i < a->revisions_count; i++)
        job_spec_unref(a->changes[i].was);
    for (size_t i = 0; i < a->fires_count; i++)
        fire_row_fini(&a->fires[i]);
    mem_free(a->revisions);
    mem_free(a->changes);
    mem_free(a->fires);
    job_spec_unref(a->job.spec);
    explain_answer_fini(&a->answer);
    buf_fini(&a->out);
    mem_free(a);
}

static void refuse(struct asked *a, const struct err *e)
{
    struct exchange *x = a->x;
    asked_free(a);
    exchange_refuse_store(x, e);
}

static const struct store_ops *store_of(const struct asked *a, void **ret_self)
{
    return node_store(a->x->api->node, ret_self);
}

/* --- the thread ---------------------------------------------------------------------------------------------------- */

/* A definition that cannot be read here (newer, or of an unknown zone) is as one that is not kept. */
static struct job_spec *read_definition(struct asked *a, const struct store_revision *r)
{
    AUTO(job_spec_unref) struct job_spec *spec = NULL;
    if (!r->was || job_spec_decode(r->was, r->was_bytes, NULL, 0, &spec, NULL) < 0 ||
        tzload_bind(node_zones(a->x->api->node), spec, NULL) < 0)
        return NULL;
    return TAKE(spec);
}

static const struct tz *zone_of(const struct asked *a)
{
    const struct job_spec *spec = a->job.spec;
    for (size_t i = 0; !spec && i < a->revisions_count; i++)
        spec = a->changes[i].was;
    return spec ? schedule_tz(spec->schedule) : tz_utc();
}

static int set_span(struct asked *a)
{
    const struct api_request *rq = &a->x->req;
    if (rq->at[0])
        return explain_at_parse(rq->at, strlen(rq->at), zone_of(a), &a->span, &a->err);
    a->span = (struct explain_span){.from_ms = rq->from_ms, .to_ms = rq->to_ms};
    return 0;
}

static int collect(struct asked *a)
{
    a->changes = mem_try_array(a->revisions_count + 1, sizeof(*a->changes), &a->err);
    if (!a->changes)
        return -ERR_NOMEM;
    for (size_t i = 0; i < a->revisions_count; i++)
        a->changes[i] =
            (struct explain_change){.row = a->revisions[i].row, .was = read_definition(a, &a->revisions[i])};
    size_t ring_count = 0;
    if (a->job.spec && ring_log_read(a->job.row.ring, a->job.row.ring_bytes, a->ring, &ring_count, NULL) < 0)
        ring_count = 0; /* it is begun anew at the next success */
    a->facts = (struct explain_facts){.now_ms = node_now_ms(a->x->api->node),
                                      .row = a->job.spec ? &a->job.row : NULL,
                                      .spec = a->job.spec,
                                      .changes = a->changes,
                                      .changes_count = a->revisions_count,
                                      .changes_all = a->revisions_all,
                                      .fires = a->fires,
                                      .fires_count = a->fires_count,
                                      .fires_all = a->fires_all,
                                      .ring = a->ring,
                                      .ring_count = ring_count,
                                      .keep_ms = a->keep_ms};
    return set_span(a);
}

static void print_item(struct buf *out, const struct explain_item *item)
{
    char utc[TEXT_INSTANT_SIZE], local[TEXT_LOCAL_SIZE], fire[56];
    text_instant_print(utc, item->due_ms);
    (void)text_local_print(local, item->due_ms, item->offset_s); /* its length */
    fire_id_print(&item->uid, item->seq, fire);
    buf_addf(out, "{\"due\":\"%s\",\"local\":\"%s\"", utc, local);
    api_print_text(out, "fire", item->has_fire ? fire : NULL);
    api_print_text(out, "outcome", explain_outcome_name(item));
    api_print_text(out, "reason", fire_reason_name(item->reason));
    api_print_text(out, "text", item->text);
    buf_add_char(out, '}');
}

static void print_answer(struct asked *a)
{
    struct buf *out = &a->out;
    buf_addf(out, "{\"job\":\"%s\"", a->x->req.arg);
    api_print_instant(out, "from", a->span.from_ms);
    api_print_instant(out, "to", a->span.to_ms);
    buf_add_str(out, ",\"occurrences\":[");
    for (size_t i = 0; i < a->answer.count; i++) {
        buf_add_str(out, i ? "," : "");
        print_item(out, &a->answer.items[i]);
    }
    buf_add_char(out, ']');
    api_print_instant(out, "next_from", a->answer.next_ms);
    buf_add_char(out, '}');
}

static void think(struct work *w, void *context)
{
    struct asked *a = container_of(w, struct asked, work);
    (void)context;
    if (collect(a) == 0 && explain(&a->facts, &a->span, a->x->req.limit, &a->answer, &a->err) == 0)
        print_answer(a);
}

static void thought(struct work *w, bool cancelled)
{
    struct asked *a = container_of(w, struct asked, work);
    struct exchange *x = a->x;
    struct buf out = a->out;
    struct err e = a->err;
    a->out = BUF_INIT(0);
    asked_free(a);
    if (cancelled || e.code != ERR_OK) {
        buf_fini(&out);
        exchange_refuse_with(x, API_OVERLOADED, cancelled ? "the agent is stopping" : e.text);
    } else {
        exchange_json(x, 200, &out);
    }
}

static void submit(struct asked *a)
{
    struct exchange *x = a->x;
    if (!a->job.spec && a->revisions_count == 0) {
        asked_free(a);
        exchange_refuse_with(x, API_NOT_FOUND, "there is no such job, nor was there in the last 90 days");
    } else if (x->api->stopping) {
        asked_free(a);
        exchange_refuse_with(x, API_OVERLOADED, "the agent is stopping");
    } else {
        a->work.run = think;
        a->work.done = thought;
        worker_submit(x->api->pages, &a->work);
    }
}

/* --- the ring, again ------------------------------------------------------------------------------------------------ */

/* A fire that ended while its row was looked for is in neither the job read before nor the rows: it is in the ring that is
 * read after them. The rest stays as it was before the rows, so that no later fire is missing from those. */
static void on_ring(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct asked *a = arg;
    (void)more;
    if (e->code != ERR_OK) {
        refuse(a, e);
        return;
    }
    const struct job_row *now = count > 0 && jobs[0].spec ? &jobs[0].row : NULL;
    if (now && memcmp(&now->uid, &a->job.row.uid, sizeof(now->uid)) == 0) {
        a->job.row.ring_bytes = now->ring_bytes;
        memcpy(a->job.row.ring, now->ring, sizeof(now->ring));
    }
    submit(a);
}

static void read_ring(struct asked *a)
{
    void *self;
    const struct store_ops *store = store_of(a, &self);
    if (a->job.spec)
        store->get_jobs(self, &a->x->key, 1, on_ring, a);
    else
        submit(a);
}

/* --- fires --------------------------------------------------------------------------------------------------------- */

static void read_fires(struct asked *a);

static bool keep_fire(struct asked *a, struct fire_row *row)
{
    if (a->fires_count == a->fires_capacity) {
        size_t capacity = a->fires_capacity ? 2 * a->fires_capacity : 64;
        void *fires = mem_try_realloc(a->fires, capacity, sizeof(*a->fires), NULL);
        if (!fires)
            return false;
        a->fires = fires;
        a->fires_capacity = capacity;
    }
    a->fires_bytes += fire_row_bytes(row);
    a->fires[a->fires_count++] = *row;
    fire_row_taken(row);
    return true;
}

/* History drops what is above its bound, so beyond that many an absent row tells nothing. */
static bool bound_reached(const struct asked *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->fires_count; i++)
        n += a->fires[i].state == FIRE_STATE_ENDED && a->fires[i].outcome != FIRE_OUTCOME_DEAD &&
             memcmp(&a->fires[i].uid, &a->lives[a->lives_read], sizeof(struct uid)) == 0;
    return n >= NODE_HISTORY_MAX;
}

static void life_read(struct asked *a, bool all)
{
    if (!all || bound_reached(a))
        a->fires_all = false;
    a->lives_read++;
    a->before_seq = 0;
    read_fires(a);
}

static void on_fires(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct asked *a = arg;
    if (e->code != ERR_OK) {
        refuse(a, e);
        return;
    }
    int64_t oldest_ms = INT64_MAX;
    for (size_t i = 0; i < count; i++) {
        a->before_seq = rows[i].seq;
        if (rows[i].kind == FIRE_KIND_SCHEDULED) /* a backfill's are new, though of old dues */
            oldest_ms = rows[i].due_ms;
        if (!keep_fire(a, &rows[i])) {
            life_read(a, false);
            return;
        }
    }
    bool enough = a->fires_count >= FIRES_MAX || a->fires_bytes >= FIRES_BYTES_MAX;
    if (more && count > 0 && !enough && oldest_ms >= a->read_from_ms)
        read_fires(a);
    else
        life_read(a, !more);
}

static void read_fires(struct asked *a)
{
    void *self;
    const struct store_ops *store = store_of(a, &self);
    if (a->lives_read == a->lives_count)
        read_ring(a);
    else
        store->get_fires(self, &a->lives[a->lives_read], a->before_seq, FIRES_PAGE, on_fires, a);
}

static void add_life(struct asked *a, const struct uid *uid)
{
    for (size_t i = 0; i < a->lives_count; i++)
        if (memcmp(&a->lives[i], uid, sizeof(*uid)) == 0)
            return;
    if (a->lives_count < LIVES_MAX)
        a->lives[a->lives_count++] = *uid;
    else
        a->fires_all = false;
}

/* A job that had ended before the span has its last revision before it. */
static void choose_lives(struct asked *a)
{
    a->fires_all = true;
    if (a->job.spec)
        add_life(a, &a->job.row.uid);
    for (size_t i = 0; i < a->revisions_count; i++)
        if (a->revisions[i].row.at_ms >= a->read_from_ms)
            add_life(a, &a->revisions[i].row.uid);
}

/* --- revisions ----------------------------------------------------------------------------------------------------- */

static void read_revisions(struct asked *a);

static int keep_revisions(struct asked *a, struct store_revision *rows, size_t count, struct err *e)
{
    void *grown = mem_try_realloc(a->revisions, a->revisions_count + count, sizeof(*rows), e);
    if (!grown)
        return -ERR_NOMEM;
    a->revisions = grown;
    for (size_t i = 0; i < count; i++) {
        a->revisions[a->revisions_count++] = rows[i];
        rows[i].was = NULL; /* taken */
    }
    return 0;
}

static void on_revisions(void *arg, const struct err *e, struct store_revision *rows, size_t count, bool more)
{
    struct asked *a = arg;
    struct err own = *e;
    if (own.code == ERR_OK && count > 0)
        (void)keep_revisions(a, rows, count, &own); /* its code is in OWN */
    if (own.code != ERR_OK) {
        refuse(a, &own);
        return;
    }
    bool reached = count > 0 && a->revisions[a->revisions_count - 1].row.at_ms < a->read_from_ms;
    a->revisions_all = !more;
    if (more && count > 0 && !reached && a->revisions_count < REVISIONS_MAX) {
        read_revisions(a);
        return;
    }
    choose_lives(a);
    read_fires(a);
}

static void read_revisions(struct asked *a)
{
    void *self;
    const struct store_ops *store = store_of(a, &self);
    struct store_revisions *w = &a->which;
    if (a->revisions_count > 0) {
        const struct revision *last = &a->revisions[a->revisions_count - 1].row;
        w->before.set = true;
        w->before.at_ms = last->at_ms;
        w->before.change_id = last->change_id;
    }
    store->list_revisions(self, w, on_revisions, a);
}

/* --- the job ------------------------------------------------------------------------------------------------------- */

static void on_job(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct asked *a = arg;
    struct err own = *e;
    (void)more;
    if (own.code == ERR_OK && count > 0 && !jobs[0].spec && jobs[0].problem[0])
        (void)err_set(&own, ERR_UNAVAILABLE, "%s", jobs[0].problem); /* its code is in OWN */
    if (own.code != ERR_OK) {
        refuse(a, &own);
        return;
    }
    if (count > 0 && jobs[0].spec) {
        a->job = jobs[0];
        a->job.spec = job_spec_ref(jobs[0].spec);
    }
    a->which = (struct store_revisions){.ns = a->x->req.ns,
                                        .id = a->x->req.arg,
                                        .changes = true,
                                        .definitions = true,
                                        .limit = REVISIONS_PAGE};
    read_revisions(a);
}

/* Unless said otherwise: a day back and a day ahead. */
static void complete_span(struct asked *a)
{
    struct api_request *rq = &a->x->req;
    int64_t now_ms = node_now_ms(a->x->api->node);
    struct explain_span span;
    if (rq->at[0]) { /* checked before; no zone is more than a day off */
        if (explain_at_parse(rq->at, strlen(rq->at), tz_utc(), &span, NULL) == 0)
            a->read_from_ms = span.from_ms - DAY_MS;
        return;
    }
    if (rq->from_ms == RECORD_NONE)
        rq->from_ms = rq->to_ms == RECORD_NONE ? now_ms - DAY_MS : rq->to_ms - DAY_MS;
    if (rq->to_ms == RECORD_NONE)
        rq->to_ms = rq->from_ms + (rq->from_ms == now_ms - DAY_MS ? 2 : 1) * DAY_MS;
    a->read_from_ms = rq->from_ms;
}

void api_job_explain(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    const struct config *c = node_config(x->api->node);
    struct asked *a = mem_new(struct asked);
    uint64_t keep_ms = c->history.keep_for_ms < c->deadletters.keep_for_ms ? c->history.keep_for_ms
                                                                           : c->deadletters.keep_for_ms;
    a->x = x;
    a->keep_ms = (int64_t)keep_ms;
    a->out = BUF_INIT(EXPLAIN_ITEMS_MAX * (EXPLAIN_TEXT_MAX + 512));
    complete_span(a);
    memcpy(x->key.ns, x->req.ns, sizeof(x->key.ns));
    memcpy(x->key.id, x->req.arg, strlen(x->req.arg) + 1);
    store->get_jobs(self, &x->key, 1, on_job, a);
}
