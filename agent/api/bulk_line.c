#include "agent/api/bulk_line.h"

#include <assert.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/hashring.h"

#define LINE_BYTES_MAX ((size_t)1 << 20)
#define UID_HEX        32
#define CHANGE_HEX     16

static const char *const op_names[] = {"create", "put", "patch", "delete", "pause", "resume", "run", NULL};
static const char *const internal_names[] = {"redrive", "discard", NULL};

bool bulk_next_line(const char *text, size_t len, size_t *at, const char **ret_line, size_t *ret_len)
{
    if (*at >= len)
        return false;
    const char *begin = text + *at, *end = memchr(begin, '\n', len - *at);
    size_t line_len = end ? (size_t)(end - begin) : len - *at;
    *at += line_len + (end != NULL);
    if (line_len > 0 && begin[line_len - 1] == '\r')
        line_len--;
    *ret_line = begin;
    *ret_len = line_len;
    return true;
}

void bulk_line_fini(struct bulk_line *line)
{
    api_write_fini(&line->write);
    mem_free(line->result.problem);
    line->result.problem = NULL;
}

/* --- what went wrong ----------------------------------------------------------------------------------------------- */

void bulk_line_refuse(struct bulk_line *line, const struct api_problem *problem)
{
    struct buf out = BUF_INIT(1 << 20);
    api_problem_print(problem, line->write.ctx.request_id, &out);
    mem_free(line->result.problem);
    line->result.status = api_code_status(problem->code);
    line->result.problem = buf_steal(&out, NULL, NULL);
    buf_fini(&out);
}

void bulk_line_fail(struct bulk_line *line, enum api_code code, const char *detail)
{
    struct api_problem p = {0};
    (void)api_problem_set(&p, code, "%s", detail); /* its result is for those who refuse by returning */
    bulk_line_refuse(line, &p);
    api_problem_fini(&p);
}

void bulk_line_misdirected(struct bulk_line *line, const char *owner, uint64_t epoch)
{
    struct buf out = BUF_INIT(1024);
    buf_addf(&out, "{\"owner\":");
    json_print_string(&out, owner, strlen(owner));
    buf_addf(&out, ",\"epoch\":%llu}", (unsigned long long)(epoch & INT64_MAX));
    mem_free(line->result.problem);
    line->result.status = api_code_status(API_MISDIRECTED);
    line->result.problem = buf_steal(&out, NULL, NULL);
    buf_fini(&out);
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

/* One word of a peer's line, NUL-terminated into RET. */
static bool take_word(const char **at, size_t *len, char *ret, size_t size)
{
    const char *space = memchr(*at, ' ', *len);
    size_t n = space ? (size_t)(space - *at) : 0;
    if (!space || n >= size)
        return false;
    memcpy(ret, *at, n);
    ret[n] = '\0';
    *at += n + 1;
    *len -= n + 1;
    return true;
}

static bool take_ids(struct bulk_line *line, const char **text, size_t *len)
{
    char uid[UID_HEX + 1], change[CHANGE_HEX + 1], flags[8], id[RECORD_ID_MAX];
    struct api_context *ctx = &line->write.ctx;
    uint8_t bytes[CHANGE_HEX / 2];
    if (!take_word(text, len, uid, sizeof(uid)) || !take_word(text, len, change, sizeof(change)) ||
        !take_word(text, len, flags, sizeof(flags)) || !take_word(text, len, line->ns, sizeof(line->ns)) ||
        !take_word(text, len, id, sizeof(id)) || !uid_parse(uid, strlen(uid), &ctx->uid) ||
        text_hex_decode(change, strlen(change), bytes, sizeof(bytes), NULL) < 0 ||
        text_check_namespace(line->ns, strlen(line->ns), NULL) < 0 || text_check_id(id, strlen(id), NULL) < 0)
        return false;
    ctx->change_id = 0;
    for (size_t i = 0; i < sizeof(bytes); i++)
        ctx->change_id = ctx->change_id << 8 | bytes[i];
    ctx->fresh_id = strchr(flags, 'f') != NULL;
    ctx->repeated = strchr(flags, 'r') != NULL;
    memcpy(ctx->id, id, strlen(id) + 1);
    return true;
}

static void make_ids(struct bulk_line *line, const struct bulk_rules *rules)
{
    struct api_context fresh, *ctx = &line->write.ctx;
    api_context_make(rules->ids, ctx->accepted_ms, &rules->ctx->defaults, &fresh);
    ctx->uid = fresh.uid;
    ctx->change_id = fresh.change_id;
}

/* --- dead letters --------------------------------------------------------------------------------------------------- */

void bulk_line_print_letters(struct buf *out, bool redrive, const struct fire_row *of,
                             const struct bulk_letter *letters, size_t count)
{
    char uid[UID_HEX + 1];
    uid_print(&of->uid, uid);
    buf_addf(
        out,
        "{\"op\":\"%s\",\"namespace\":\"%s\",\"id\":\"%s\",\"uid\":\"%s\",\"version\":%llu,\"letters\":[",
        redrive ? "redrive" : "discard", of->ns, of->id, uid, (unsigned long long)of->version);
    for (size_t i = 0; i < count; i++)
        buf_addf(out, "%s[%llu,%lld]", i ? "," : "", (unsigned long long)letters[i].seq,
                 (long long)letters[i].at_ms);
    buf_add_str(out, "]}\n");
}

static bool take_letters(struct planner_api *p, json_t *doc)
{
    const char *uid;
    json_int_t version;
    json_t *letters, *item;
    size_t i;
    if (json_unpack(doc, "{s:s,s:I,s:o}", "uid", &uid, "version", &version, "letters", &letters) < 0 ||
        !uid_parse(uid, strlen(uid), &p->uid) || json_array_size(letters) > PLANNER_LETTERS_MAX)
        return false;
    p->version = (uint64_t)version;
    p->letters = mem_try_array(json_array_size(letters) + 1, sizeof(*p->letters), NULL);
    if (!p->letters)
        return false;
    json_array_foreach(letters, i, item)
    {
        json_int_t seq, at_ms;
        if (json_unpack(item, "[I,I]", &seq, &at_ms) < 0 || (i > 0 && (uint64_t)seq >= p->letters[i - 1].seq))
            return false;
        p->letters[p->letters_count++] = (struct planner_letter){(uint64_t)seq, at_ms};
    }
    return true;
}

/* What an agent wrote: it is right or not, there is nobody to be told why. */
static int read_letters(struct bulk_line *line, json_t *doc, struct api_problem *problem)
{
    struct planner_api *p = &line->write.papi;
    const struct api_context *ctx = &line->write.ctx;
    line->is_read = true;
    p->accepted_ms = ctx->accepted_ms;
    memcpy(p->actor, ctx->actor, sizeof(p->actor));
    return take_letters(p, doc) ? 0 : api_problem_set(problem, API_INVALID_REQUEST, "no dead letters");
}

/* The envelope: everything but the job. */
struct envelope {
    json_t *doc;
    unsigned op;
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    json_t *job; /* borrowed from DOC */
};

static bool of_letters(const struct envelope *env)
{
    return env->op >= PLANNER_LETTERS_REDRIVE;
}

static void read_names(struct envelope *env, const struct bulk_line *line, struct problems *p)
{
    const char *ns = line->ns, *id = line->write.ctx.id;
    struct err e = {0};
    if (json_field_string(env->doc, "namespace", 1, TEXT_NAMESPACE_MAX, &ns, NULL, NULL, p) &&
        text_check_namespace(ns, strlen(ns), &e) < 0)
        json_problem(p, NULL, "namespace", "%s", e.text);
    memcpy(env->ns, ns, strlen(ns) + 1);
    if (json_field_string(env->doc, "id", 1, TEXT_ID_MAX, &id, NULL, NULL, p) &&
        text_check_id(id, strlen(id), &e) < 0)
        json_problem(p, NULL, "id", "%s", e.text);
    memcpy(env->id, id, strlen(id) + 1);
    if (*id == '\0' && env->op != PLANNER_CREATE) {
        const char *of_job = json_string_value(json_object_get(env->job, "id"));
        if (of_job && env->op <= PLANNER_PATCH && text_check_id(of_job, strlen(of_job), NULL) == 0)
            memcpy(env->id, of_job, strlen(of_job) + 1);
        else
            (void)json_require(env->doc, "id", NULL, p); /* its own problem */
    }
}

/* False: it names an ETag that no job ever had. */
static bool read_if_match(struct envelope *env, struct planner_api *papi, struct problems *p)
{
    const char *text;
    if (!json_field_string(env->doc, "if_match", 1, API_ETAG_SIZE, &text, NULL, NULL, p))
        return true;
    papi->if_match = true;
    enum api_match match = api_match_parse(text, &papi->match_uid, &papi->match_version);
    if (env->op == PLANNER_CREATE || match == API_MATCH_BROKEN)
        json_problem(p, NULL, "if_match", "must be the ETag of a job or *, and not with op create");
    return match != API_MATCH_NONE;
}

static int read_envelope(struct envelope *env, struct bulk_line *line, const struct bulk_rules *rules,
                         struct api_problem *problem)
{
    static const char *const known[] = {"op", "namespace", "id", "if_match", "job", NULL};
    struct problems *p = &problem->errors;
    struct err e = {0};
    int rc = json_read(line->text, line->len, LINE_BYTES_MAX, &env->doc, &e);
    if (rc < 0)
        return api_problem_set(problem, rc == -ERR_TOO_BIG ? API_TOO_LARGE : API_INVALID_REQUEST, "%s",
                               e.text);
    if (!json_expect_object(env->doc, NULL, p))
        return api_problem_errors(problem, API_INVALID_REQUEST);
    env->job = json_object_get(env->doc, "job");
    const char *op = json_string_value(json_object_get(env->doc, "op"));
    for (unsigned i = 0; rules->internal && op && internal_names[i]; i++)
        if (strcmp(op, internal_names[i]) == 0)
            env->op = PLANNER_LETTERS_REDRIVE + i;
    if (of_letters(env)) {
        read_names(env, line, p);
        return problems_any(p) ? api_problem_errors(problem, API_INVALID_REQUEST) : 0;
    }
    json_unknown_fields(env->doc, known, NULL, p);
    if (json_require(env->doc, "op", NULL, p))
        (void)json_field_enum(env->doc, "op", op_names, &env->op, NULL, p); /* its own problem */
    read_names(env, line, p);
    bool existed = read_if_match(env, &line->write.papi, p);
    if (env->op <= PLANNER_PATCH)
        (void)json_require(env->doc, "job", NULL, p); /* its own problem */
    else if (env->job)
        json_problem(p, NULL, "job", "is not allowed with op %s", op_names[env->op]);
    if (problems_any(p))
        return api_problem_errors(problem, API_INVALID_REQUEST);
    return existed ? 0 : api_problem_set(problem, API_VERSION_MISMATCH, "no job ever had this if_match");
}

/* The id that a create carries in its job decides whose it is. */
static void take_job_id(struct envelope *env, const struct bulk_rules *rules, bool *ret_fresh)
{
    const char *of_job = json_string_value(json_object_get(env->job, "id"));
    if (env->id[0])
        return;
    if (of_job && text_check_id(of_job, strlen(of_job), NULL) == 0) {
        memcpy(env->id, of_job, strlen(of_job) + 1);
    } else if (!json_object_get(env->job, "id")) {
        api_id_make(rules->ids, env->ns, env->id);
        *ret_fresh = true;
    } /* else the id is wrong: reading the job says so */
}

static void set_whose(struct bulk_line *line, const struct envelope *env, const struct bulk_rules *rules)
{
    struct planner_api *p = &line->write.papi;
    struct api_context *ctx = &line->write.ctx;
    p->op = (enum planner_api_op)env->op;
    line->of_letters = of_letters(env);
    memcpy(p->ns, env->ns, sizeof(p->ns));
    memcpy(p->id, env->id, sizeof(p->id));
    memcpy(ctx->id, env->id, sizeof(ctx->id));
    if (rules->ids->slots && p->id[0])
        api_uid_set_slot(&ctx->uid, hashring_slot(p->ns, p->id, rules->ids->slots));
    p->uid = ctx->uid;
    p->change_id = ctx->change_id;
    p->fresh_id = ctx->fresh_id;
    p->repeated = ctx->repeated;
}

static int check_granted(const struct bulk_line *line, const struct bulk_rules *rules,
                         struct api_problem *problem)
{
    const struct planner_api *p = &line->write.papi;
    unsigned can = p->op <= PLANNER_DELETE ? TOKEN_CAN_WRITE : TOKEN_CAN_OPERATE;
    if (!rules->who)
        return 0;
    if (!(rules->who->can & can))
        return api_problem_set(problem, API_FORBIDDEN, "the token '%s' may not %s", rules->who->name,
                               token_can_name(can));
    if (!token_in_namespace(rules->who, p->ns))
        return api_problem_set(problem, API_FORBIDDEN, "the token '%s' is not for namespace '%s'",
                               rules->who->name, p->ns);
    return 0;
}

static bool slot_is_mine(const struct bulk_line *line, const struct bulk_rules *rules)
{
    const struct planner_api *p = &line->write.papi;
    return rules->ids->slots &&
           rules->ids->mine(rules->ids->arg, (uint16_t)hashring_slot(p->ns, p->id, rules->ids->slots));
}

static int read_job(struct bulk_line *line, const struct envelope *env, const struct bulk_rules *rules,
                    struct api_problem *problem)
{
    struct json_at at = json_at_key(NULL, "job");
    struct api_write_parts parts = {
        .op = (enum planner_api_op)env->op, .ns = env->ns, .id = env->id, .doc = env->job, .at = &at};
    line->is_read = true;
    return api_write_build(&line->write, &parts, rules->ids, problem);
}

static int read_line(struct bulk_line *line, const struct bulk_rules *rules, struct api_problem *problem,
                     bool full)
{
    struct envelope env = {0};
    int rc = read_envelope(&env, line, rules, problem);
    if (rc == 0) {
        take_job_id(&env, rules, &line->write.ctx.fresh_id);
        set_whose(line, &env, rules);
        rc = check_granted(line, rules, problem);
        bool read = full || env.id[0] == '\0' || slot_is_mine(line, rules);
        if (rc == 0 && read)
            rc = of_letters(&env) ? read_letters(line, env.doc, problem)
                                  : read_job(line, &env, rules, problem);
    }
    json_decref(env.doc);
    return rc;
}

static void read_or_refuse(struct bulk_line *line, const struct bulk_rules *rules, bool full)
{
    struct api_problem problem = {0};
    if (read_line(line, rules, &problem, full) < 0)
        bulk_line_refuse(line, &problem);
    api_problem_fini(&problem);
}

void bulk_line_read(struct bulk_line *line, const struct bulk_rules *rules, const char *text, size_t len,
                    bool full)
{
    api_write_init(&line->write, rules->zones);
    line->write.ctx = *rules->ctx;
    api_context_set_defaults(&line->write.ctx, &rules->ctx->defaults);
    line->write.ctx.id[0] = '\0';
    memcpy(line->ns, rules->ns, strlen(rules->ns) + 1);
    if (!rules->from_peer)
        make_ids(line, rules);
    bool understood = !rules->from_peer || take_ids(line, &text, &len);
    line->text = text;
    line->len = len;
    if (understood)
        read_or_refuse(line, rules, full);
    else
        bulk_line_fail(line, API_INVALID_REQUEST, "the line lacks what agents put before it");
}

void bulk_line_read_rest(struct bulk_line *line, const struct bulk_rules *rules)
{
    assert(!line->is_read && line->result.status == 0);
    read_or_refuse(line, rules, true);
}

/* --- printing ------------------------------------------------------------------------------------------------------ */

void bulk_line_print_ids(const struct bulk_line *line, bool repeated, struct buf *out)
{
    const struct planner_api *p = &line->write.papi;
    char uid[UID_HEX + 1];
    uid_print(&p->uid, uid);
    buf_addf(out, "%s %016llx %s%s- %s %s ", uid, (unsigned long long)p->change_id, p->fresh_id ? "f" : "",
             repeated || p->repeated ? "r" : "", p->ns, p->id);
}

void bulk_line_print_result(const struct bulk_line *line, struct buf *out)
{
    const struct bulk_result *r = &line->result;
    const char *id = line->write.papi.id;
    buf_add_str(out, "{\"line\":");
    buf_add_u64(out, line->number);
    buf_add_str(out, ",\"status\":");
    buf_add_u64(out, (uint64_t)r->status);
    if (*id) {
        buf_add_str(out, ",\"id\":\"");
        buf_add_str(out, id); /* checked: nothing to escape */
        buf_add_char(out, '"');
    }
    if (r->status < 300) {
        buf_add_str(out, ",\"version\":");
        buf_add_u64(out, r->version);
    } else {
        buf_add_str(out, ",\"problem\":");
        buf_add_str(out, r->problem ? r->problem : "null");
    }
    buf_add_str(out, "}\n");
}

bool bulk_line_take_result(struct bulk_line *line, const char *text, size_t len,
                           char ret_owner[RECORD_MEMBER_MAX], uint64_t *ret_epoch)
{
    AUTO(json_decref) json_t *doc = NULL;
    json_int_t version = 0, epoch = 0;
    int status;
    json_t *problem = NULL;
    const char *owner = NULL;
    ret_owner[0] = '\0';
    if (json_read(text, len, LINE_BYTES_MAX, &doc, NULL) < 0 ||
        json_unpack(doc, "{s:i,s?I,s?o}", "status", &status, "version", &version, "problem", &problem) < 0 ||
        status < 200 || status > 599)
        return false;
    if (json_unpack(problem, "{s:s,s:I}", "owner", &owner, "epoch", &epoch) == 0 &&
        strlen(owner) < RECORD_MEMBER_MAX) {
        memcpy(ret_owner, owner, strlen(owner) + 1);
        *ret_epoch = (uint64_t)epoch;
    }
    line->result.status = status;
    line->result.version = (uint64_t)version;
    mem_free(line->result.problem);
    line->result.problem = problem ? json_dumps(problem, JSON_COMPACT) : NULL;
    return true;
}
