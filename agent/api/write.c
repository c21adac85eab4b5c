#include "agent/api/write.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/text.h"
#include "agent/core/hashring.h"

#define BODY_MAX     ((size_t)64 << 20) /* the server's limits are lower */
#define ID_TRIES_MAX 2000u              /* with one slot in 200 ours, 1 in 20,000 ids misses */
#define ID_CHARS     26
#define DIGEST_AT    8 /* bytes of a keyed job's uid from here are the digest of its body */

void api_write_init(struct api_write *w, struct tzload *zones)
{
    memset(w, 0, sizeof(*w));
    w->zones = zones;
    w->papi.paused = -1;
}

void api_write_fini(struct api_write *w)
{
    json_decref(w->doc);
    json_decref(w->warnings);
    job_spec_unref(w->papi.spec);
    job_spec_unref(w->papi.result);
    mem_free(w->papi.run_payload);
    mem_free(w->papi.run_trace);
    mem_free(w->papi.letters);
    api_problem_fini(&w->problem);
    w->doc = w->warnings = NULL;
    w->papi.spec = w->papi.result = NULL;
    w->papi.run_payload = NULL;
    w->papi.run_trace = NULL;
    w->papi.letters = NULL;
}

/* --- ids ----------------------------------------------------------------------------------------------------------- */

static void print_base32(const uint8_t *bytes, char ret[ID_CHARS + 1])
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
    uint32_t bits = 0, have = 0;
    size_t at = 0;
    for (size_t i = 0; i < ID_CHARS; i++) {
        if (have < 5) {
            bits = bits << 8 | bytes[at++];
            have += 8;
        }
        have -= 5;
        ret[i] = alphabet[bits >> have & 31];
    }
    ret[ID_CHARS] = '\0';
}

void api_id_make(const struct api_ids *ids, const char *ns, char ret[RECORD_ID_MAX])
{
    for (unsigned i = 0; i < ID_TRIES_MAX; i++) {
        uint8_t bytes[24];
        for (size_t k = 0; k < sizeof(bytes); k += 8) {
            uint64_t v = rng_u64(ids->rng);
            memcpy(bytes + k, &v, sizeof(v));
        }
        print_base32(bytes, ret);
        if (ids->slots == 0 || ids->mine(ids->arg, (uint16_t)hashring_slot(ns, ret, ids->slots)))
            return;
    }
}

/* The hash is part of the contract: another would give a repeated key another id. */
void api_id_from_key(const char *ns, const char *key, char ret[RECORD_ID_MAX])
{
    char text[RECORD_NS_MAX + API_KEY_MAX];
    size_t ns_len = strlen(ns), key_len = strlen(key);
    memcpy(text, ns, ns_len + 1);
    memcpy(text + ns_len + 1, key, key_len);
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(text, ns_len + 1 + key_len));
    uint8_t bytes[24] = {0};
    memcpy(bytes, hash.digest, sizeof(hash.digest));
    memcpy(ret, "key-", 4);
    print_base32(bytes, ret + 4);
}

void api_uid_set_slot(struct uid *uid, uint32_t slot)
{
    uid->bytes[0] = (uint8_t)(slot >> 8);
    uid->bytes[1] = (uint8_t)slot;
}

void api_context_make(const struct api_ids *ids, int64_t now_ms, const struct job_defaults *defaults,
                      struct api_context *ret)
{
    memset(ret, 0, sizeof(*ret));
    uint64_t high = rng_u64(ids->rng), low = rng_u64(ids->rng);
    memcpy(ret->uid.bytes, &high, sizeof(high));
    memcpy(ret->uid.bytes + 8, &low, sizeof(low));
    do {
        ret->change_id = rng_u64(ids->rng);
    } while (ret->change_id == 0); /* means "none" */
    ret->accepted_ms = now_ms;
    memcpy(ret->actor, "local", sizeof("local"));
    api_context_set_defaults(ret, defaults);
}

/* A run has no row that could carry its change id, so the key itself gives it. */
static uint64_t change_from_key(const char *ns, const char *id, const char *key)
{
    char text[RECORD_ID_MAX + API_KEY_MAX];
    size_t id_len = strlen(id), key_len = strlen(key);
    memcpy(text, id, id_len + 1);
    memcpy(text + id_len + 1, key, key_len);
    uint64_t change = XXH3_64bits_withSeed(text, id_len + 1 + key_len, XXH3_64bits(ns, strlen(ns)));
    return change ? change : 1;
}

/* --- jobs ---------------------------------------------------------------------------------------------------------- */

static const struct tz *zone_of(void *arg, const char *name)
{
    const struct tz *zone = NULL;
    return tzload_get(arg, name, strlen(name), &zone, NULL) == 0 ? zone : NULL;
}

static enum api_code code_of(enum job_refusal refusal)
{
    switch (refusal) {
    case JOB_REFUSED_NO_TARGET:
        return API_NO_TARGET;
    case JOB_REFUSED_LOOPBACK:
        return API_LOOPBACK_TARGET;
    case JOB_REFUSED_UNKNOWN_SECRET:
        return API_UNKNOWN_SECRET;
    case JOB_REFUSED_DUE_IN_PAST:
        return API_DUE_IN_PAST;
    case JOB_REFUSED_TOO_LARGE:
        return API_TOO_LARGE;
    case JOB_REFUSED_INVALID:
        break;
    }
    return API_INVALID_JOB;
}

/* Fields of the contract that nothing acts upon in this version are refused, not taken and ignored. */
static void refuse_unbuilt(const struct job_spec *spec, struct problems *p)
{
    const struct job_callback *cb = &spec->callback;
    if (cb->async && cb->transport == JOB_GRPC)
        problems_add(p, "#/callback/async", "is for HTTP, whose 202 says that the callee works on");
    else if (cb->async && cb->to != JOB_TO_ONE)
        problems_add(p, "#/callback/async", "is for fires that go to one endpoint");
}

/* Of ASKED counts what the job was before: present, present_unseen, created_ms. */
static int parse_job(struct api_write *w, const json_t *doc, const struct job_context *asked,
                     struct api_problem *problem, int *ret_paused, struct job_spec **ret)
{
    enum job_refusal refusal = JOB_REFUSED_INVALID;
    struct err e = {0};
    struct job_context ctx = *asked;
    ctx.ns = w->papi.ns;
    ctx.id = w->papi.id;
    ctx.now_ms = w->ctx.accepted_ms;
    ctx.trace = &w->ctx.trace;
    ctx.defaults = &w->ctx.defaults;
    json_decref(w->warnings);
    w->warnings = json_array();
    int rc = job_spec_parse(doc, &ctx, zone_of, w->zones, &problem->errors, &refusal, w->warnings, ret_paused,
                            ret, &e);
    if (rc == 0) {
        refuse_unbuilt(*ret, &problem->errors);
        if (!problems_any(&problem->errors))
            return 0;
        job_spec_unref(*ret);
        *ret = NULL;
    }
    if (problems_any(&problem->errors))
        return api_problem_errors(problem, code_of(refusal));
    return api_problem_set(problem, rc == -ERR_INVALID ? API_INVALID_JOB : API_OVERLOADED, "%s", e.text);
}

/* What BASE has must not stand beside what PATCH gives: the payload is replaced whole, in whichever form, and a single try
 * has no rule of retry. */
static void make_way(json_t *base, const json_t *patch)
{
    const char *delivery = json_string_value(json_object_get(patch, "delivery"));
    if (json_object_get(patch, "payload") || json_object_get(patch, "payload_base64")) {
        (void)json_object_del(base, "payload"); /* absent is fine, here and below */
        (void)json_object_del(base, "payload_base64");
        (void)json_object_del(base, "content_type");
    }
    if (delivery && strcmp(delivery, "at_most_once") == 0)
        (void)json_object_del(base, "retry");
}

/* NULL: no memory. jansson leaves a member out that it has no memory for, and says nothing. */
static json_t *copy_members(const json_t *object)
{
    json_t *copy = json_copy((json_t *)object);
    if (json_object_size(copy) == json_object_size(object))
        return copy;
    json_decref(copy);
    return NULL;
}

static int merge_patch(const json_t *target, const json_t *patch, json_t **ret, struct err *e)
{
    AUTO(json_decref) json_t *base = copy_members(target);
    AUTO(json_decref) json_t *rest = copy_members(patch);
    json_t *payload = json_object_get(patch, "payload");
    if (!base || !rest)
        return err_set(e, ERR_NOMEM, "no memory to merge");
    make_way(base, patch);
    (void)json_object_del(rest, "payload"); /* absent is fine */
    int rc = json_merge_patch(base, rest, ret, e);
    if (rc == 0 && payload && !json_is_null(payload))
        rc = json_set(*ret, "payload", json_incref(payload), e);
    if (rc < 0) {
        json_decref(*ret);
        *ret = NULL;
    }
    return rc;
}

/* `status` and the like of an answer that is sent back change nothing, so they may stay in the merged document. */
static int merged_document(struct api_write *w, const struct job_spec *present, json_t **ret)
{
    struct err e = {0};
    AUTO(json_decref) json_t *target = NULL;
    int rc = job_document(present, NULL, &target, &e);
    if (rc == 0)
        rc = merge_patch(target, w->doc, ret, &e);
    if (rc == 0)
        return 0;
    return api_problem_set(&w->problem, rc == -ERR_NOMEM ? API_OVERLOADED : API_INVALID_JOB, "%s", e.text);
}

int api_write_merge(struct api_write *w, const struct job_spec *present, const struct job_row *row,
                    struct job_spec **ret)
{
    AUTO(json_decref) json_t *merged = NULL;
    json_t *doc = w->doc;
    int paused = -1;
    if (w->papi.op == PLANNER_PATCH && merged_document(w, present, &merged) < 0)
        return -ERR_INVALID;
    if (merged)
        doc = merged;
    struct job_context asked = {.present = present, .created_ms = row->created_ms};
    struct api_problem problem = {0};
    if (parse_job(w, doc, &asked, &problem, &paused, ret) < 0) {
        api_problem_fini(&w->problem);
        w->problem = problem; /* moved */
        return -ERR_INVALID;
    }
    w->papi.paused = paused;
    return 0;
}

static int merge_hook(struct planner_api *api, const struct job_spec *present, const struct job_row *row,
                      struct job_spec **ret)
{
    return api_write_merge((struct api_write *)(void *)((char *)api - offsetof(struct api_write, papi)),
                           present, row, ret);
}

/* --- the operations ------------------------------------------------------------------------------------------------ */

static int digest_body(struct api_write *w, const json_t *doc, struct api_problem *problem)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(BODY_MAX);
    struct err e = {0};
    if (json_print(doc, &text, &e) < 0) /* another digest would be another body's for ever */
        return api_problem_set(problem, API_OVERLOADED, "%s", e.text);
    w->digest = XXH3_64bits(buf_str(&text), text.len);
    memcpy(w->ctx.uid.bytes + DIGEST_AT, &w->digest, sizeof(w->digest));
    return 0;
}

bool api_write_same_body(const struct api_write *w, const struct uid *uid)
{
    return w->keyed && memcmp(uid->bytes + DIGEST_AT, &w->digest, sizeof(w->digest)) == 0;
}

/* A create's id: the body's, the context's (a peer made it), or a new one. */
static int choose_id(struct api_write *w, const struct api_write_parts *parts, const struct api_ids *ids,
                     struct api_problem *problem)
{
    const char *id = parts->id;
    const json_t *field = json_object_get(parts->doc, "id");
    struct err e = {0};
    if (*id == '\0' && field && !json_is_null(field)) {
        id = json_string_value(field);
        if (!id || text_check_id(id, json_string_length(field), &e) < 0) {
            json_problem(&problem->errors, parts->at, "id", "%s", id ? e.text : "must be a string");
            return api_problem_errors(problem, API_INVALID_JOB);
        }
    }
    if (*id == '\0') {
        api_id_make(ids, parts->ns, w->papi.id);
        w->papi.fresh_id = true;
    } else {
        memcpy(w->papi.id, id, strlen(id) + 1);
    }
    return 0;
}

/* A PUT of what has passed: a job that is there may have had it. W keeps what to say to who has none. */
static int build_kept(struct api_write *w, const struct api_write_parts *parts)
{
    const struct job_context unseen = {.created_ms = RECORD_NONE, .present_unseen = true};
    struct api_problem problem = {0};
    int rc = parse_job(w, parts->doc, &unseen, &problem, &w->papi.paused, &w->papi.spec);
    api_problem_fini(&problem);
    w->papi.merge_only = rc == 0;
    return rc;
}

static int build_new(struct api_write *w, const struct api_write_parts *parts, struct api_problem *problem)
{
    const struct job_context none = {.created_ms = RECORD_NONE};
    int rc = parse_job(w, parts->doc, &none, problem, &w->papi.paused, &w->papi.spec);
    if (rc == 0 || parts->op != PLANNER_PUT || problem->code != API_DUE_IN_PAST || build_kept(w, parts) < 0)
        return rc;
    w->problem = *problem; /* moved */
    memset(problem, 0, sizeof(*problem));
    return 0;
}

static int build_job(struct api_write *w, const struct api_write_parts *parts, struct api_problem *problem)
{
    if (!json_expect_object(parts->doc, parts->at, &problem->errors))
        return api_problem_errors(problem, API_INVALID_JOB);
    if (parts->op == PLANNER_PATCH) {
        w->doc = json_incref(parts->doc);
        w->papi.merge = merge_hook;
        return 0;
    }
    if ((w->keyed && digest_body(w, parts->doc, problem) < 0) || build_new(w, parts, problem) < 0)
        return -ERR_INVALID;
    assert(w->papi.spec);
    bool takes_phase = w->papi.spec->has_every && w->papi.spec->starts_ms == RECORD_NONE;
    if (parts->op == PLANNER_PUT && (takes_phase || w->papi.merge_only)) {
        w->doc =
            json_incref(parts->doc); /* its phase is that of the job it replaces, and so are its instants */
        w->papi.merge = merge_hook;
    }
    return 0;
}

static void keep_run_trace(struct api_write *w)
{
    char text[TRACE_TEXT_SIZE];
    mem_free(w->papi.run_trace);
    w->papi.run_trace = trace_print(&w->ctx.trace, text) > 0 ? mem_strdup(text) : NULL;
}

static int build_run(struct api_write *w, const struct api_write_parts *parts, struct api_problem *problem)
{
    static const char *const known[] = {"payload", "force", NULL};
    json_t *payload = json_object_get(parts->doc, "payload");
    struct buf out = BUF_INIT(JOB_PAYLOAD_MAX);
    struct err e = {0};
    keep_run_trace(w);
    if (!parts->doc)
        return 0;
    if (json_expect_object(parts->doc, parts->at, &problem->errors)) {
        json_unknown_fields(parts->doc, known, parts->at, &problem->errors);
        (void)json_field_bool(parts->doc, "force", &w->papi.run_force, parts->at,
                              &problem->errors); /* absent: false */
    }
    int rc = payload ? json_print_ordered(payload, &out, &e) : 0;
    if (rc == -ERR_NOMEM)
        problem->errors.nomem = true;
    else if (rc < 0)
        json_problem(&problem->errors, parts->at, "payload", "is over %u bytes", JOB_PAYLOAD_MAX);
    if (problems_any(&problem->errors)) {
        buf_fini(&out);
        return api_problem_errors(problem, API_INVALID_REQUEST);
    }
    if (!payload)
        return 0;
    w->papi.run_payload = buf_steal(&out, &w->papi.run_payload_bytes, &e);
    buf_fini(&out);
    return w->papi.run_payload ? 0 : api_problem_set(problem, API_OVERLOADED, "%s", e.text);
}

static void read_instant(const json_t *doc, const char *key, const struct json_at *at, int64_t *ret_ms,
                         struct problems *p)
{
    const char *text = NULL;
    struct err e = {0};
    if (!json_require(doc, key, at, p) || !json_field_string(doc, key, 1, 64, &text, NULL, at, p))
        return;
    if (text_instant_ms(text, strlen(text), ret_ms, &e) < 0)
        json_problem(p, at, key, "%s", e.text);
}

/* Whether the span can be backfilled its job tells. */
static int build_backfill(struct api_write *w, const struct api_write_parts *parts,
                          struct api_problem *problem)
{
    static const char *const known[] = {"from", "to", NULL};
    if (json_expect_object(parts->doc, parts->at, &problem->errors)) {
        json_unknown_fields(parts->doc, known, parts->at, &problem->errors);
        read_instant(parts->doc, "from", parts->at, &w->papi.backfill_from_ms, &problem->errors);
        read_instant(parts->doc, "to", parts->at, &w->papi.backfill_to_ms, &problem->errors);
    }
    return problems_any(&problem->errors) ? api_problem_errors(problem, API_INVALID_REQUEST) : 0;
}

static int build_resume(struct api_write *w, const struct api_write_parts *parts, struct api_problem *problem)
{
    static const char *const known[] = {"catch_up", NULL};
    static const char *const values[] = {"none", "last", "all", NULL};
    unsigned v = 0;
    if (!parts->doc)
        return 0;
    if (json_expect_object(parts->doc, parts->at, &problem->errors)) {
        json_unknown_fields(parts->doc, known, parts->at, &problem->errors);
        (void)json_field_enum(parts->doc, "catch_up", values, &v, parts->at,
                              &problem->errors); /* absent: none */
    }
    w->papi.catch_up = v == 2 ? PLANNER_CATCH_UP_ALL : v == 1 ? PLANNER_CATCH_UP_LAST : PLANNER_CATCH_UP_NONE;
    return problems_any(&problem->errors) ? api_problem_errors(problem, API_INVALID_REQUEST) : 0;
}

static int build_empty(const struct api_write_parts *parts, struct api_problem *problem)
{
    static const char *const known[] = {NULL};
    if (!parts->doc)
        return 0;
    if (json_expect_object(parts->doc, parts->at, &problem->errors))
        json_unknown_fields(parts->doc, known, parts->at, &problem->errors);
    return problems_any(&problem->errors) ? api_problem_errors(problem, API_INVALID_REQUEST) : 0;
}

static int build_body(struct api_write *w, const struct api_write_parts *parts, struct api_problem *problem)
{
    switch (parts->op) {
    case PLANNER_CREATE:
    case PLANNER_PUT:
    case PLANNER_PATCH:
        return build_job(w, parts, problem);
    case PLANNER_RUN:
        return build_run(w, parts, problem);
    case PLANNER_RESUME:
        return build_resume(w, parts, problem);
    case PLANNER_BACKFILL:
        return build_backfill(w, parts, problem);
    case PLANNER_DELETE:
    case PLANNER_PAUSE:
    case PLANNER_FIRE_RETRY: /* a fire's are read by api_fire_op_read() */
    case PLANNER_FIRE_CANCEL:
    case PLANNER_FIRE_COMPLETE:
    case PLANNER_FIRE_HEARTBEAT:
    case PLANNER_LETTERS_REDRIVE: /* lines that agents write for each other */
    case PLANNER_LETTERS_DISCARD:
        break;
    }
    return build_empty(parts, problem);
}

int api_write_build(struct api_write *w, const struct api_write_parts *parts, const struct api_ids *ids,
                    struct api_problem *problem)
{
    struct planner_api *p = &w->papi;
    p->op = parts->op;
    memcpy(p->ns, parts->ns, strlen(parts->ns) + 1);
    if (parts->op == PLANNER_CREATE) {
        if (choose_id(w, parts, ids, problem) < 0)
            return -ERR_INVALID;
    } else {
        memcpy(p->id, parts->id, strlen(parts->id) + 1);
    }
    p->fresh_id |= w->ctx.fresh_id;
    if (build_body(w, parts, problem) < 0)
        return -ERR_INVALID;
    p->uid = w->ctx.uid;
    if (ids->slots)
        api_uid_set_slot(&p->uid, hashring_slot(p->ns, p->id, ids->slots));
    p->change_id = w->ctx.change_id;
    p->accepted_ms = w->ctx.accepted_ms;
    p->repeated |= w->ctx.repeated;
    memcpy(p->actor, w->ctx.actor, sizeof(p->actor));
    return 0;
}

/* --- requests ------------------------------------------------------------------------------------------------------ */

static enum planner_api_op op_of(enum api_action action)
{
    switch ((int)action) {
    case API_JOB_CREATE:
        return PLANNER_CREATE;
    case API_JOB_PUT:
        return PLANNER_PUT;
    case API_JOB_PATCH:
        return PLANNER_PATCH;
    case API_JOB_DELETE:
        return PLANNER_DELETE;
    case API_JOB_RUN:
        return PLANNER_RUN;
    case API_JOB_BACKFILL:
        return PLANNER_BACKFILL;
    case API_JOB_PAUSE:
        return PLANNER_PAUSE;
    default:
        assert(action == API_JOB_RESUME);
        return PLANNER_RESUME;
    }
}

int api_write_body(const struct api_request *rq, const char *body, size_t bytes, json_t **ret,
                   struct api_problem *problem)
{
    enum api_body kind = rq->route->body;
    struct err e = {0};
    if (bytes == 0 && (kind == API_BODY_NONE || kind == API_BODY_OPTIONAL))
        return 0;
    if (!rq->body_is_json)
        return api_problem_set(problem, API_UNSUPPORTED_MEDIA_TYPE,
                               "a write with a body needs Content-Type: application/json");
    int rc = bytes > 0 ? json_read(body, bytes, BODY_MAX, ret, &e)
                       : err_set(&e, ERR_INVALID, "the body is empty; a JSON object must be there");
    if (rc == 0)
        return 0;
    if (rc == -ERR_INVALID)
        problems_add(&problem->errors, "#", "%s", e.text);
    return api_problem_set(problem, rc == -ERR_INVALID ? API_INVALID_REQUEST : API_OVERLOADED, "%s", e.text);
}

int api_write_read(struct api_write *w, const struct api_request *rq, const char *body, size_t bytes,
                   const struct api_ids *ids, struct api_problem *problem)
{
    AUTO(json_decref) json_t *doc = NULL;
    char derived[RECORD_ID_MAX];
    struct api_write_parts parts = {.op = op_of(rq->route->action), .ns = rq->ns, .id = rq->arg};
    if (api_write_body(rq, body, bytes, &doc, problem) < 0)
        return -ERR_INVALID;
    parts.doc = doc;
    if (w->ctx.id[0]) {
        parts.id = w->ctx.id;
    } else if (rq->key[0] && parts.op == PLANNER_CREATE && !json_object_get(doc, "id")) {
        api_id_from_key(rq->ns, rq->key, derived);
        parts.id = derived;
    }
    w->keyed = rq->key[0] && parts.op == PLANNER_CREATE;
    if (api_write_build(w, &parts, ids, problem) < 0)
        return -ERR_INVALID;
    if (rq->key[0] && parts.op == PLANNER_RUN) {
        w->papi.change_id = w->ctx.change_id = change_from_key(rq->ns, rq->arg, rq->key);
        w->papi.repeated = true; /* it may be: the owner looks */
    }
    w->papi.if_none_match = rq->if_none_match;
    w->papi.if_match = rq->if_match;
    w->papi.match_uid = rq->match_uid;
    w->papi.match_version = rq->match_version;
    memcpy(w->ctx.id, w->papi.id, sizeof(w->ctx.id)); /* for the owner, if it is another */
    w->ctx.uid = w->papi.uid;
    w->ctx.fresh_id = w->papi.fresh_id;
    return 0;
}
