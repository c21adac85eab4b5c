/* GET /v1/audit: what should have happened, derived anew from the jobs, against what is recorded. Any member reads the store, within
 * bounds of jobs and time. */
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/auditor.h"
#include "agent/base/json.h"
#include "agent/base/text.h"

enum {
    JOBS_MAX = 200000, /* beyond, and after so long, the answer says that it is not whole */
    TIME_MAX_MS = 20000,
    SHOWN_MAX = 1000,
};

struct auditing {
    struct exchange *x;
    struct buf list;
    size_t shown;
};

static int64_t now_ms(void *arg)
{
    const struct auditing *a = arg;
    return node_now_ms(a->x->api->node);
}

static void print_string(struct buf *out, const char *name, const char *text)
{
    buf_addf(out, ",\"%s\":", name);
    json_print_string(out, text, strlen(text));
}

static void found(void *arg, const struct job_row *row, const struct audit_result *result)
{
    struct auditing *a = arg;
    char due[TEXT_INSTANT_SIZE];
    if (a->shown == SHOWN_MAX)
        return;
    buf_addf(&a->list, "%s{\"kind\":\"%s\"", a->shown++ ? "," : "", audit_verdict_name(result->verdict));
    print_string(&a->list, "job", row->id);
    print_string(&a->list, "namespace", row->ns);
    buf_addf(&a->list, ",\"count\":%llu", (unsigned long long)result->count);
    if (result->due_ms == RECORD_NONE) {
        buf_add_str(&a->list, ",\"due\":null");
    } else {
        text_instant_print(due, result->due_ms);
        print_string(&a->list, "due", due);
    }
    print_string(&a->list, "detail", result->detail);
    buf_add_char(&a->list, '}');
}

static void done(void *arg, const struct auditor_summary *sum, const struct err *e)
{
    struct auditing *a = arg;
    struct exchange *x = a->x;
    if (e->code != ERR_OK) {
        buf_fini(&a->list);
        mem_free(a);
        exchange_refuse_with(x, API_STORE_UNAVAILABLE, e->text);
        return;
    }
    struct buf out = BUF_INIT(API_JOB_BYTES_MAX);
    buf_addf(&out, "{\"jobs\":%zu,\"unsettled\":%zu,\"differing\":%zu,\"differences\":[", sum->jobs,
             sum->unsettled, sum->differences);
    buf_add(&out, a->list.data, a->list.len);
    buf_fail_with(&out, &a->list);
    buf_addf(&out, "],\"truncated\":%s}", sum->truncated ? "true" : "false");
    buf_fini(&a->list);
    mem_free(a);
    exchange_json(x, 200, &out);
}

void api_audit(struct exchange *x)
{
    struct auditor_options o = {.loop = x->api->loop,
                                .tzdata = tzload_version(node_zones(x->api->node)),
                                .now_ms = now_ms,
                                .keep_for_ms = (int64_t)x->api->config->history.keep_for_ms,
                                .jobs_max = JOBS_MAX,
                                .time_max_ms = TIME_MAX_MS,
                                .found = found,
                                .done = done};
    api_filter_set(&x->req, &x->filter);
    o.ns = x->filter.filter.ns;
    o.store = node_store(x->api->node, &o.store_self);
    struct auditing *a = mem_new(struct auditing);
    a->x = x;
    buf_init(&a->list, API_JOB_BYTES_MAX / 2);
    o.arg = a;
    (void)auditor_begin(&o); /* ends by itself; what the store is asked when it closes is answered, too */
}
