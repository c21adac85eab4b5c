/* One job: answers to its writes, dry runs, GET, next. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/core/hashring.h"
#include "agent/core/schedule.h"

#define PATH_SIZE 640

static void set_key(const struct exchange *x, struct store_key *key)
{
    const char *id = x->req.route->argument == API_ARG_ID ? x->req.arg : x->write.papi.id;
    memset(key, 0, sizeof(*key));
    memcpy(key->ns, x->req.ns, strlen(x->req.ns) + 1);
    memcpy(key->id, id, strlen(id) + 1);
}

static void read_job(struct exchange *x, store_jobs_done *done)
{
    void *self = NULL;
    const struct store_ops *store = node_store(x->api->node, &self);
    set_key(x, &x->key);
    store->get_jobs(self, &x->key, 1, done, x);
}

/* --- answers of writes --------------------------------------------------------------------------------------------- */

static void close_with_warnings(struct exchange *x, const struct job_spec *spec, struct buf *out)
{
    AUTO(buf_fini) struct buf list = BUF_INIT(1 << 16);
    json_t *warnings = x->write.warnings;
    const char *service = spec->callback.service;
    if (warnings && service && node_service_unknown(x->api->node, service))
        (void)json_array_append_new(
            warnings,
            json_sprintf("neither Consul nor the configuration lists an instance of service '%s' now",
                         service)); /* lost without memory: only a hint */
    buf_truncate(out, out->len - 1);
    buf_add_str(out, ",\"warnings\":");
    if (warnings && json_print_ordered(warnings, &list, NULL) == 0)
        buf_add(out, buf_str(&list), list.len);
    else
        buf_add_str(out, "[]");
    buf_add_char(out, '}');
}

static void print_location(const struct planner_api *p, char ret[PATH_SIZE])
{
    bool other = strcmp(p->ns, "default") != 0;
    (void)snprintf(ret, PATH_SIZE, "/v1/jobs/%s%s%s", p->id, other ? "?ns=" : "",
                   other ? p->ns : ""); /* fits */
}

/* A job that is there, with status STATUS. */
static void answer_job(struct exchange *x, int status, const struct job_spec *spec, const struct job_row *row)
{
    struct buf out = BUF_INIT(API_JOB_BYTES_MAX);
    struct httpd_header more[2];
    char etag[API_ETAG_SIZE], location[PATH_SIZE], owner[STORE_NAME_MAX];
    size_t n = 0;
    api_etag_print(&row->uid, row->version, etag);
    more[n++] = (struct httpd_header){"ETag", etag};
    if (status == 201) {
        print_location(&x->write.papi, location);
        more[n++] = (struct httpd_header){"Location", location};
    }
    api_owner_name(x->api->node, row->slot, owner);
    struct err e = {0};
    if (job_print(spec, row, owner, &out, &e) < 0) {
        buf_fini(&out);
        exchange_refuse_with(x, API_OVERLOADED, e.text);
        return;
    }
    if (x->req.route->method != API_GET)
        close_with_warnings(x, spec, &out);
    exchange_reply(x, status, "application/json", more, n, &out);
}

static void answer_deleted(struct exchange *x, const struct job_row *row, bool in_flight)
{
    struct buf out = BUF_INIT(4096);
    bool done = job_row_shown_state(row) == JOB_STATE_DONE;
    const char *result = in_flight ? "in_flight" : done ? "finished" : "cancelled";
    buf_addf(&out, "{\"result\":\"%s\",\"last_fire\":", result);
    api_print_last_fire(&out, row);
    buf_add_char(&out, '}');
    exchange_json(x, 200, &out);
}

static void answer_run(struct exchange *x)
{
    const struct planner_api *p = &x->write.papi;
    struct buf out = BUF_INIT(4096);
    char fire[56];
    fire_id_print(&p->run_uid, p->run_seq, fire);
    buf_add_str(&out, "{\"fire\":");
    if (p->run_seq)
        buf_addf(&out, "\"%s\"", fire);
    else
        buf_add_str(&out, "null"); /* booked by an earlier try; which one it was is not kept */
    buf_add_char(&out, '}');
    exchange_json(x, 202, &out);
}

/* Of what a run was asked with its payload is kept, in the fire's row, and so can be compared. */
static bool has_payload(const struct fire_row *row, const struct planner_api *p)
{
    if (!row->payload || !p->run_payload)
        return !row->payload && !p->run_payload;
    return row->payload_bytes == p->run_payload_bytes &&
           memcmp(row->payload, p->run_payload, row->payload_bytes) == 0;
}

static void on_keyed_run(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct exchange *x = arg;
    const struct planner_api *p = &x->write.papi;
    (void)more;
    if (e->code != ERR_OK)
        exchange_refuse_store(x, e);
    else if (count > 0 && rows[0].seq == p->run_seq && !has_payload(&rows[0], p))
        exchange_refuse_with(x, API_IDEMPOTENCY_MISMATCH,
                             "this Idempotency-Key made a run with another payload");
    else /* the same, or so old that its fire is forgotten */
        answer_run(x);
}

/* A key names one request: whoever sends it again with another payload means another one, and shall not take the first one's fire
 * for his. */
static void answer_keyed_run(struct exchange *x)
{
    const struct planner_api *p = &x->write.papi;
    void *self = NULL;
    const struct store_ops *store = node_store(x->api->node, &self);
    store->get_fires(self, &p->run_uid, p->run_seq + 1, 1, on_keyed_run, x);
}

static void answer_backfill(struct exchange *x)
{
    const struct planner_api *p = &x->write.papi;
    struct buf out = BUF_INIT(4096);
    buf_addf(&out, "{\"job\":\"%s\"", p->id); /* checked: nothing to escape */
    api_print_instant(&out, "from", p->backfill_from_ms);
    api_print_instant(&out, "to", p->backfill_to_ms);
    buf_addf(&out, ",\"dues\":%llu}", (unsigned long long)p->backfill_dues);
    exchange_json(x, 202, &out);
}

static void answer_success(struct exchange *x)
{
    const struct planner_api *p = &x->write.papi;
    if (p->op == PLANNER_DELETE) {
        answer_deleted(x, &p->row, p->deleted_in_flight);
    } else if (p->op == PLANNER_RUN && p->was_done && x->req.key[0]) {
        answer_keyed_run(x);
    } else if (p->op == PLANNER_RUN) {
        answer_run(x);
    } else if (p->op == PLANNER_BACKFILL) {
        answer_backfill(x);
    } else if (p->result) {
        answer_job(x, p->answer == PLANNER_CREATED ? 201 : 200, p->result, &p->row);
    } else { /* an earlier try of this write was done, and the job has gone since */
        struct buf out = BUF_INIT(4096);
        buf_addf(&out, "{\"id\":\"%s\",\"namespace\":\"%s\",\"warnings\":[]}", p->id, p->ns);
        exchange_json(x, p->answer == PLANNER_CREATED ? 201 : 200, &out);
    }
}

static void refuse_absent(struct exchange *x)
{
    char text[400];
    const struct planner_api *p = &x->write.papi;
    const char *id = p->id[0] ? p->id : x->req.arg;
    (void)snprintf(text, sizeof(text), "namespace '%s' has no job '%s'", x->req.ns, id); /* fits */
    exchange_refuse_with(x, API_NOT_FOUND, text);
}

static void refuse_exists(struct exchange *x)
{
    char text[400];
    const struct planner_api *p = &x->write.papi;
    (void)snprintf(text, sizeof(text),
                   p->op == PLANNER_BACKFILL ? "namespace '%s', job '%s': a backfill is under way"
                                             : "namespace '%s' has a job '%s'",
                   p->ns, p->id); /* fits */
    exchange_refuse_with(x, API_ALREADY_EXISTS, text);
}

static void refuse_version(struct exchange *x)
{
    exchange_refuse_with(x, API_VERSION_MISMATCH,
                         x->req.if_none_match ? "the job exists"
                                              : "the job is absent or has another version");
}

/* What api_write_merge said; moved, as the exchange owns both. */
static void refuse_merged(struct exchange *x)
{
    if (x->write.papi.refusal[0]) {
        exchange_refuse_with(x, API_INVALID_REQUEST, x->write.papi.refusal);
        return;
    }
    api_problem_fini(&x->problem);
    x->problem = x->write.problem;
    memset(&x->write.problem, 0, sizeof(x->write.problem));
    exchange_refuse(x);
}

/* The id of a keyed create is taken: by the same request before, or by something else? */
static void on_keyed_job(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    (void)more;
    if (e->code != ERR_OK)
        exchange_refuse_store(x, e);
    else if (count == 0 || !jobs[0].spec)
        refuse_exists(x); /* it went away just now: the same request again will make it */
    else if (api_write_same_body(&x->write, &jobs[0].row.uid))
        answer_job(x, 201, jobs[0].spec, &jobs[0].row);
    else
        exchange_refuse_with(x, API_IDEMPOTENCY_MISMATCH, "this Idempotency-Key made another job");
}

void api_write_answered(struct exchange *x)
{
    if (planner_op_of_fire(x->write.papi.op)) {
        api_fire_op_answered(x);
        return;
    }
    switch (x->write.papi.answer) {
    case PLANNER_OK:
    case PLANNER_CREATED:
    case PLANNER_ACCEPTED:
        answer_success(x);
        break;
    case PLANNER_NOT_FOUND:
        refuse_absent(x);
        break;
    case PLANNER_EXISTS:
        if (x->write.keyed)
            read_job(x, on_keyed_job);
        else
            refuse_exists(x);
        break;
    case PLANNER_FULL:
        exchange_refuse_with(x, API_QUOTA_EXCEEDED, x->write.papi.no_more);
        break;
    case PLANNER_MISMATCH:
        refuse_version(x);
        break;
    case PLANNER_INVALID:
        refuse_merged(x);
        break;
    case PLANNER_UNAVAILABLE:
        exchange_refuse_with(x, API_STORE_UNAVAILABLE,
                             "the write could not be made durable; it may still happen");
        break;
    case PLANNER_SUPERSEDED:
    case PLANNER_FINISHED:
    case PLANNER_NOT_OWNER:
        assert(false && "handled before");
        break;
    }
}

/* --- dry runs ------------------------------------------------------------------------------------------------------ */

/* max_fires leaves so many of COUNT to a job that has had SCHEDULED. */
static uint64_t dues_left(const struct job_spec *spec, uint64_t scheduled, uint64_t count)
{
    if (spec->max_fires == 0)
        return count;
    uint64_t left = spec->max_fires > scheduled ? spec->max_fires - scheduled : 0;
    return left < count ? left : count;
}

static void answer_dry(struct exchange *x, const struct job_spec *spec, const struct job_row *present)
{
    struct buf out = BUF_INIT(API_JOB_BYTES_MAX);
    struct err e = {0};
    int64_t from_ms = x->req.from_ms;
    uint64_t count = dues_left(spec, present ? present->scheduled : 0, x->req.count);
    int paused = x->write.papi.paused;
    if (job_print(spec, NULL, "", &out, &e) < 0) {
        buf_fini(&out);
        exchange_refuse_with(x, API_OVERLOADED, e.text);
        return;
    }
    buf_truncate(&out, out.len - 1);
    bool pauses = paused == 1 || (paused < 0 && present && present->state == JOB_STATE_PAUSED);
    buf_addf(&out, ",\"paused\":%s,\"next\":", pauses ? "true" : "false");
    if (from_ms == RECORD_NONE)
        api_print_next(&out, spec, x->write.ctx.accepted_ms, RECORD_NONE, count);
    else
        api_print_next(&out, spec, RECORD_NONE, from_ms - 1, count);
    buf_add_char(&out, '}');
    close_with_warnings(x, spec, &out);
    exchange_json(x, 200, &out);
}

/* Of api_wait_add: half a second. */
#define HEAR_TRIES_MAX 25u

static bool dry_mismatch(const struct exchange *x, const struct store_job *job, bool present)
{
    const struct planner_api *p = &x->write.papi;
    if (p->if_none_match && present)
        return true;
    return p->if_match && (!present || !planner_api_matches(p, &job->row));
}

static void dry_change(struct exchange *x, const struct store_job *job)
{
    struct job_spec *spec = NULL;
    if (!x->write.papi.merge) {
        answer_dry(x, x->write.papi.spec, &job->row);
    } else if (api_write_merge(&x->write, job->spec, &job->row, &spec) < 0) {
        refuse_merged(x);
    } else {
        job_spec_unref(x->write.papi.spec);
        x->write.papi.spec = spec; /* freed with the exchange */
        answer_dry(x, spec, &job->row);
    }
}

static void on_dry_job(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    bool present = e->code == ERR_OK && count > 0 && jobs[0].spec;
    enum planner_api_op op = x->write.papi.op;
    (void)more;
    if (e->code != ERR_OK)
        exchange_refuse_store(x, e);
    else if (present && op == PLANNER_CREATE && !x->write.keyed)
        refuse_exists(x);
    else if (present && op == PLANNER_CREATE && !api_write_same_body(&x->write, &jobs[0].row.uid))
        exchange_refuse_with(x, API_IDEMPOTENCY_MISMATCH, "this Idempotency-Key made another job");
    else if (dry_mismatch(x, jobs, present))
        refuse_version(x);
    else if (!present && (op == PLANNER_PATCH || op == PLANNER_DELETE))
        refuse_absent(x);
    else if (!present && x->write.papi.merge_only)
        refuse_merged(x);
    else if (op == PLANNER_DELETE)
        answer_deleted(x, &jobs[0].row, false);
    else if (!present || op == PLANNER_CREATE)
        answer_dry(x, x->write.papi.spec, NULL);
    else
        dry_change(x, &jobs[0]);
}

/* A dry run writes nothing, so it does not take the time in which Consul tells of a service: it waits a moment. */
static void hear_of_service(struct api_wait *w)
{
    struct exchange *x = container_of(w, struct exchange, wait);
    const struct job_spec *spec = x->write.papi.spec;
    const char *service = spec ? spec->callback.service : NULL;
    bool unheard = service && node_service_unheard(x->api->node, service);
    if (!unheard || x->api->stopping || x->tries++ >= HEAR_TRIES_MAX || !api_wait_add(x->api, w))
        read_job(x, on_dry_job);
}

void api_dry_run(struct exchange *x)
{
    x->wait.run = hear_of_service;
    hear_of_service(&x->wait);
}

/* --- reads --------------------------------------------------------------------------------------------------------- */

static bool found(struct exchange *x, const struct err *e, const struct store_job *jobs, size_t count)
{
    if (e->code != ERR_OK)
        exchange_refuse_store(x, e);
    else if (count > 0 && jobs[0].spec)
        return true;
    else if (count > 0 && jobs[0].problem[0])
        exchange_refuse_with(x, API_STORE_UNAVAILABLE, jobs[0].problem);
    else
        refuse_absent(x);
    return false;
}

static void on_job(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    (void)more;
    if (!found(x, e, jobs, count))
        return;
    char etag[API_ETAG_SIZE];
    api_etag_print(&jobs[0].row.uid, jobs[0].row.version, etag);
    /* One of a list, weak or not; its quotes keep it from being part of another. */
    if (strcmp(x->req.none_match, "*") == 0 || strstr(x->req.none_match, etag)) {
        struct httpd_header more_header = {"ETag", etag};
        exchange_reply(x, 304, NULL, &more_header, 1, NULL);
        return;
    }
    answer_job(x, 200, jobs[0].spec, &jobs[0].row);
}

void api_job_get(struct exchange *x)
{
    read_job(x, on_job);
}

static void on_next_job(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    (void)more;
    if (!found(x, e, jobs, count))
        return;
    const struct job_spec *spec = jobs[0].spec;
    struct buf out = BUF_INIT(1 << 20);
    int64_t after_ms = x->req.from_ms == RECORD_NONE ? node_now_ms(x->api->node) : x->req.from_ms - 1;
    uint64_t left =
        jobs[0].row.state == JOB_STATE_DONE ? 0 : dues_left(spec, jobs[0].row.scheduled, x->req.count);
    buf_addf(&out, "{\"job\":\"%s\"", spec->id);
    api_print_text(&out, "timezone", spec->timezone);
    buf_add_str(&out, ",\"next\":");
    api_print_next(&out, spec, RECORD_NONE, after_ms, left);
    buf_add_char(&out, '}');
    exchange_json(x, 200, &out);
}

void api_job_next(struct exchange *x)
{
    read_job(x, on_next_job);
}
