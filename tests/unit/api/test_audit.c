/* What the auditor finds, as an answer. The auditor and the client are this file. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/auditor.h"
#include "agent/node.h"

#define DIFFERENCES 40

static struct api api;
static struct config config;
static struct api_route route;
static struct auditor_options asked;
static unsigned replies;
static int status;
static char reply[1 << 16];

struct auditor *auditor_begin(const struct auditor_options *options)
{
    asked = *options;
    return NULL;
}

const struct store_ops *node_store(const struct node *n, void **ret_self)
{
    (void)n;
    *ret_self = NULL;
    return NULL;
}

struct tzload *node_zones(const struct node *n)
{
    (void)n;
    return NULL;
}

const char *tzload_version(const struct tzload *l)
{
    (void)l;
    return "2025b";
}

int64_t node_now_ms(const struct node *n)
{
    (void)n;
    return 0;
}

void exchange_json(struct exchange *x, int s, struct buf *body)
{
    (void)x;
    replies++;
    status = buf_failed(body) ? 503 : s; /* as exchange_reply() does */
    (void)snprintf(reply, sizeof(reply), "%s", buf_str(body));
    buf_fini(body);
}

void exchange_refuse_with(struct exchange *x, enum api_code code, const char *detail)
{
    (void)x;
    replies++;
    status = api_code_status(code);
    (void)snprintf(reply, sizeof(reply), "%s", detail);
}

/* An answer to a round that found so many differences. */
static void audit(unsigned count)
{
    struct exchange x = {.api = &api};
    struct job_row row = {.ns = "default", .id = "j"};
    struct audit_result r = {
        .verdict = AUDIT_LOST_DUES, .count = 1, .due_ms = RECORD_NONE, .detail = "\"quoted\""};
    struct auditor_summary sum = {.jobs = count, .differences = count};
    replies = 0;
    api.config = &config;
    x.req.route = &route;
    memcpy(x.req.ns, "default", sizeof("default"));
    api_audit(&x);
    for (unsigned i = 0; i < count; i++)
        asked.found(asked.arg, &row, &r);
    asked.done(asked.arg, &sum, &(struct err){0});
    cr_assert(eq(u32, replies, 1));
}

static size_t times(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what))
        n++;
    return n;
}

Test(audit, all_that_is_found_is_told)
{
    audit(2);
    cr_assert(eq(int, status, 200));
    cr_assert(eq(str, reply,
                 "{\"jobs\":2,\"unsettled\":0,\"differing\":2,\"differences\":["
                 "{\"kind\":\"lost_dues\",\"job\":\"j\",\"namespace\":\"default\",\"count\":1,\"due\":null,"
                 "\"detail\":\"\\\"quoted\\\"\"},"
                 "{\"kind\":\"lost_dues\",\"job\":\"j\",\"namespace\":\"default\",\"count\":1,\"due\":null,"
                 "\"detail\":\"\\\"quoted\\\"\"}],\"truncated\":false}"));
}

Test(audit, a_list_that_is_cut_is_no_answer)
{
    unsigned k = 0;
    for (bool fired = true; fired; k++) {
        fault_arm(k);
        audit(DIFFERENCES);
        fired = fault_fired();
        cr_assert(eq(int, status, fired ? 503 : 200), "step %u: %s", k, reply);
    }
    cr_assert(eq(sz, times(reply, "\"kind\""), DIFFERENCES));
    cr_assert(gt(u32, k, 5), "the list and the answer grow");
}
