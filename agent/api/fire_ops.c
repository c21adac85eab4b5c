/* What is done to one fire: retried or given up by hand, completed or kept alive by its callee. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/text.h"
#include "callback/capability.h"

/* --- reading ------------------------------------------------------------------------------------------------------- */

static int read_complete(struct planner_api *p, const json_t *doc, struct api_problem *problem)
{
    static const char *const known[] = {"status", "detail", NULL};
    static const char *const statuses[] = {"ok", "failed", NULL};
    struct problems *errors = &problem->errors;
    unsigned status = 0;
    if (json_expect_object(doc, NULL, errors)) {
        const char *detail = NULL;
        size_t bytes = 0;
        json_unknown_fields(doc, known, NULL, errors);
        if (json_require(doc, "status", NULL, errors))
            (void)json_field_enum(doc, "status", statuses, &status, NULL, errors); /* a problem is noted */
        (void)json_field_string(doc, "detail", 0, 65536, &detail, &bytes, NULL, errors); /* absent: none */
        size_t len = detail ? text_utf8_cut(detail, bytes, sizeof(p->fire_detail) - 1) : 0;
        memcpy(p->fire_detail, detail ? detail : "", len);
        p->fire_detail[len] = '\0';
    }
    p->fire_ok = status == 0;
    return problems_any(errors) ? api_problem_errors(problem, API_INVALID_REQUEST) : 0;
}

static int read_empty(const json_t *doc, struct api_problem *problem)
{
    static const char *const known[] = {NULL};
    if (doc && json_expect_object(doc, NULL, &problem->errors))
        json_unknown_fields(doc, known, NULL, &problem->errors);
    return problems_any(&problem->errors) ? api_problem_errors(problem, API_INVALID_REQUEST) : 0;
}

static enum planner_api_op op_of(enum api_action action)
{
    switch ((int)action) {
    case API_FIRE_RETRY:
        return PLANNER_FIRE_RETRY;
    case API_FIRE_CANCEL:
        return PLANNER_FIRE_CANCEL;
    case API_FIRE_COMPLETE:
        return PLANNER_FIRE_COMPLETE;
    default:
        assert(action == API_FIRE_HEARTBEAT);
        return PLANNER_FIRE_HEARTBEAT;
    }
}

/* The key comes before everything else: without it nothing is said about fires. */
static int check_key(struct planner_api *p, const struct api_request *rq, const struct capability *capability,
                     struct api_problem *problem)
{
    if (!rq->route->keyed || !capability ||
        capability_check(capability, &rq->fire_uid, rq->fire_seq, rq->fire_key, &p->fire_attempt))
        return 0;
    return api_problem_set(
        problem, API_FORBIDDEN,
        rq->fire_key[0] ? "the key is not this fire's: it comes with the callback, in Carillon-Complete"
                        : "the key is missing: it came with the callback, in Carillon-Complete");
}

int api_fire_op_read(struct api_write *w, const struct api_request *rq, const struct capability *capability,
                     const char *body, size_t bytes, const struct api_ids *ids, struct api_problem *problem)
{
    AUTO(json_decref) json_t *doc = NULL;
    struct planner_api *p = &w->papi;
    p->op = op_of(rq->route->action);
    p->uid = rq->fire_uid;
    p->seq = rq->fire_seq;
    if (check_key(p, rq, capability, problem) < 0 || api_write_body(rq, body, bytes, &doc, problem) < 0)
        return -ERR_INVALID;
    if (ids->slots && uid_slot(&p->uid) >= ids->slots)
        return api_problem_set(problem, API_NOT_FOUND, "no fire ever had this id");
    int rc = p->op == PLANNER_FIRE_COMPLETE ? read_complete(p, doc, problem) : read_empty(doc, problem);
    p->change_id = w->ctx.change_id;
    p->accepted_ms = w->ctx.accepted_ms;
    p->repeated |= w->ctx.repeated;
    memcpy(p->actor, w->ctx.actor, sizeof(p->actor));
    w->ctx.uid = p->uid;
    return rc;
}

/* --- by hand: whose fire it is ------------------------------------------------------------------------------------- */

static void go_on_in(struct exchange *x, const char *ns)
{
    if (!exchange_refuse_foreign(x, ns))
        api_send_write(x);
}

static void refuse_absent(struct exchange *x)
{
    exchange_refuse_with(x, API_NOT_FOUND, "there is no such fire, or none that is kept");
}

static void on_fires(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct exchange *x = arg;
    (void)more;
    if (e->code != ERR_OK)
        exchange_refuse_store(x, e);
    else if (count == 0)
        refuse_absent(x);
    else
        go_on_in(x, rows[0].ns);
}

static void on_jobs(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    (void)more;
    if (e->code != ERR_OK)
        exchange_refuse_store(x, e);
    else if (count > 0 && (jobs[0].spec || jobs[0].problem[0]))
        go_on_in(x, jobs[0].row.ns);
    else /* its job has gone */
        store->get_fires(self, &x->req.fire_uid, 0, 1, on_fires, x);
}

static void on_member_fire(struct api_call *c, const struct err *e, const struct http_reply *reply)
{
    struct exchange *x = container_of(c, struct exchange, call);
    AUTO(json_decref) json_t *doc = NULL;
    const char *ns = NULL;
    if (e->code != ERR_OK || x->api->stopping)
        exchange_refuse_with(x, API_NO_OWNER, "no member could be asked whose fire it is");
    else if (reply->status != 200 || json_read(reply->body, reply->body_bytes, 1 << 20, &doc, NULL) < 0 ||
             json_unpack(doc, "{s:s}", "namespace", &ns) < 0)
        refuse_absent(x);
    else
        go_on_in(x, ns);
}

static void ask_member(struct exchange *x)
{
    char fire[56], target[80];
    const char *address = x->api->stopping ? NULL : node_any_member(x->api->node, 0);
    struct api_context ctx = x->ctx;
    ctx.hop = API_HOP_ROUTE;
    fire_id_print(&x->req.fire_uid, x->req.fire_seq, fire);
    (void)snprintf(target, sizeof(target), "/v1/fires/%s", fire); /* fits */
    struct api_peer_request r = {.address = address,
                                 .method = "GET",
                                 .target = target,
                                 .ctx = &ctx,
                                 .timeout_ms = (int64_t)node_config(x->api->node)->api.wait_ms + 1000,
                                 .reply_bytes_max = 1 << 20};
    x->call.done = on_member_fire;
    if (!address || !api_call_peer(x->api, &x->call, &r))
        exchange_refuse_with(x, API_NO_OWNER, "no member could be asked whose fire it is");
}

/* A fire's id says nothing of its namespace, so for a caller who may not everywhere it is looked up first. */
void api_fire_by_hand(struct exchange *x)
{
    void *self;
    if (!gate_is_limited(x)) {
        api_send_write(x);
    } else if (node_is_client(x->api->node)) {
        ask_member(x);
    } else {
        const struct store_ops *store = node_store(x->api->node, &self);
        x->key.uid = x->req.fire_uid;
        store->get_jobs(self, &x->key, 1, on_jobs, x);
    }
}

/* --- answering ----------------------------------------------------------------------------------------------------- */

static void answer(struct exchange *x, int status)
{
    const struct planner_api *p = &x->write.papi;
    struct buf out = BUF_INIT(4096);
    char fire[56];
    fire_id_print(&p->uid, p->seq, fire);
    if (p->op == PLANNER_FIRE_HEARTBEAT)
        buf_addf(&out, "{\"continue\":%s}", p->fire_continue ? "true" : "false");
    else
        buf_addf(&out, "{\"fire\":\"%s\",\"outcome\":\"%s\"}", fire, fire_outcome_name(p->outcome));
    exchange_json(x, status, &out);
}

static void refuse_finished(struct exchange *x)
{
    char text[80];
    (void)snprintf(text, sizeof(text), "the fire has ended: %s",
                   fire_outcome_name(x->write.papi.outcome)); /* fits */
    exchange_refuse_with(x, API_ALREADY_FINISHED, text);
}

static void refuse_superseded(struct exchange *x)
{
    const struct planner_api *p = &x->write.papi;
    exchange_refuse_with(x, API_SUPERSEDED,
                         p->op == PLANNER_FIRE_HEARTBEAT
                             ? "a later attempt has followed this one; nobody waits for it any more"
                         : p->fire_ok
                             ? "a later attempt has followed this one; the fire has ended all the same"
                             : "a later attempt has followed this one, which counts as failed already");
}

void api_fire_op_answered(struct exchange *x)
{
    switch (x->write.papi.answer) {
    case PLANNER_OK:
    case PLANNER_CREATED:
        answer(x, 200);
        break;
    case PLANNER_ACCEPTED:
        answer(x, 202);
        break;
    case PLANNER_SUPERSEDED:
        refuse_superseded(x);
        break;
    case PLANNER_FINISHED:
        refuse_finished(x);
        break;
    case PLANNER_NOT_FOUND:
        exchange_refuse_with(x, API_NOT_FOUND, "there is no such fire, or none that is kept");
        break;
    case PLANNER_EXISTS:
    case PLANNER_FULL:
    case PLANNER_MISMATCH:
    case PLANNER_INVALID:
    case PLANNER_UNAVAILABLE:
        exchange_refuse_with(x, API_STORE_UNAVAILABLE,
                             "it could not be made durable; it may still happen, and may be repeated");
        break;
    case PLANNER_NOT_OWNER:
        assert(false && "handled before");
        break;
    }
}
