/* What a request about one fire says, before anybody is asked: keys first, then bodies. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/write.h"
#include "agent/base/mem.h"
#include "callback/capability.h"
#include "tests/lib/api_head.h"
#include "tests/lib/api_write_bed.h"

#define WITH_JSON   {"Content-Type", "application/json"},
#define WITH_CLIENT {"Carillon-Client", "test"},

static struct api_write_bed bed;
static struct capability capability;
static struct uid uid;
static char path[120], key[CAPABILITY_SIZE], query[80];

static void setup(void)
{
    api_write_bed_init(&bed, BED_SLOTS);
    memset(capability.secret, 7, sizeof(capability.secret));
    memset(uid.bytes, 0x11, sizeof(uid.bytes));
    api_uid_set_slot(&uid, 5);
    bed.ctx.change_id = 77;
    bed.ctx.accepted_ms = BED_NOW_MS;
    memcpy(bed.ctx.actor, "ann", 4);
}

static void teardown(void)
{
    api_write_bed_fini(&bed);
}

TestSuite(fire_ops, .init = setup, .fini = teardown);

static const char *path_of(const char *action)
{
    char fire[56];
    fire_id_print(&uid, 3, fire);
    (void)snprintf(path, sizeof(path), "/v1/fires/%s/%s", fire, action);
    return path;
}

/* The key of that attempt, as a query. */
static const char *key_of(uint32_t attempt)
{
    capability_make(&capability, &uid, 3, attempt, key);
    (void)snprintf(query, sizeof(query), "key=%s", key);
    return query;
}

static enum api_code read_op(struct api_write *w, struct api_head head, const char *body)
{
    struct api_request rq;
    struct api_rules rules = {0};
    struct api_problem p;
    memset(&p, 0, sizeof(p));
    api_write_init(w, bed.zones);
    w->ctx = bed.ctx;
    int rc = api_request_read(&head, &rules, &rq, &p);
    if (rc == 0)
        rc = api_fire_op_read(w, &rq, &capability, body, strlen(body), &bed.ids, &p);
    enum api_code code = p.code;
    cr_assert(eq(int, rc < 0, code != API_OK));
    api_problem_fini(&p);
    return code;
}

static void expect(struct api_head head, const char *body, enum api_code code)
{
    struct api_write w;
    cr_assert(eq(int, read_op(&w, head, body), code), "%s", body);
    api_write_fini(&w);
}

Test(fire_ops, a_completion_is_read_with_its_attempt)
{
    struct api_write w;
    const struct planner_api *p = &w.papi;
    cr_assert(zero(int, read_op(&w, HEAD("POST", path_of("complete"), key_of(4), WITH_JSON),
                                "{\"status\":\"failed\",\"detail\":\"disk full\"}")));
    cr_assert(eq(int, p->op, PLANNER_FIRE_COMPLETE));
    cr_assert(eq(u64, p->seq, 3));
    cr_assert(eq(u32, p->fire_attempt, 4));
    cr_assert(not(p->fire_ok));
    cr_assert(eq(str, (char *)p->fire_detail, "disk full"));
    cr_assert(eq(u64, p->change_id, 77));
    cr_assert(eq(str, (char *)p->actor, "ann"));
    cr_assert(zero(int, memcmp(&p->uid, &uid, sizeof(uid))));
    api_write_fini(&w);
    cr_assert(zero(
        int, read_op(&w, HEAD("POST", path_of("complete"), key_of(1), WITH_JSON), "{\"status\":\"ok\"}")));
    cr_assert(p->fire_ok && p->fire_detail[0] == '\0');
    api_write_fini(&w);
}

Test(fire_ops, a_long_detail_is_cut_between_its_letters)
{
    struct api_write w;
    struct buf body = BUF_INIT(1 << 20);
    buf_add_str(&body, "{\"status\":\"failed\",\"detail\":\"x");
    for (int i = 0; i < 5000; i++)
        buf_add_str(&body, "\xc3\xa4");
    buf_add_str(&body, "\"}");
    cr_assert(
        zero(int, read_op(&w, HEAD("POST", path_of("complete"), key_of(1), WITH_JSON), buf_str(&body))));
    size_t len = strlen(w.papi.fire_detail);
    cr_assert(gt(sz, len, 10));
    cr_assert(eq(int, (unsigned char)w.papi.fire_detail[len - 1], 0xa4), "no half of one at the end");
    api_write_fini(&w);
    buf_fini(&body);
}

/* Whoever has no key learns nothing, not even that the body is wrong. */
Test(fire_ops, without_its_key_a_callee_is_told_nothing)
{
    expect(HEAD("POST", path_of("complete"), "", WITH_JSON), "nonsense", API_FORBIDDEN);
    expect(HEAD("POST", path_of("complete"), "key=1.00", WITH_JSON), "nonsense", API_FORBIDDEN);
    expect(HEAD("POST", path_of("heartbeat"), "", WITH_JSON), "", API_FORBIDDEN);
    (void)key_of(1);
    query[strlen(query) - 1] ^= 1;
    expect(HEAD("POST", path_of("heartbeat"), query, WITH_JSON), "", API_FORBIDDEN);
    (void)key_of(1);
    uid.bytes[15] ^= 1; /* of another fire */
    expect(HEAD("POST", path_of("heartbeat"), query, WITH_JSON), "", API_FORBIDDEN);
}

Test(fire_ops, a_heartbeat_and_what_is_done_by_hand_need_no_body)
{
    static const struct {
        const char *action;
        enum planner_api_op op;
    } ops[] = {{"retry", PLANNER_FIRE_RETRY}, {"cancel", PLANNER_FIRE_CANCEL}};
    struct api_write w;
    cr_assert(zero(int, read_op(&w, HEAD("POST", path_of("heartbeat"), key_of(2), WITH_CLIENT), "")));
    cr_assert(eq(int, w.papi.op, PLANNER_FIRE_HEARTBEAT));
    cr_assert(eq(u32, w.papi.fire_attempt, 2));
    api_write_fini(&w);
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        cr_assert(zero(int, read_op(&w, HEAD("POST", path_of(ops[i].action), "", WITH_CLIENT), "")));
        cr_assert(eq(int, w.papi.op, ops[i].op));
        api_write_fini(&w);
        expect(HEAD("POST", path_of(ops[i].action), "", WITH_JSON), "{}", API_OK);
        expect(HEAD("POST", path_of(ops[i].action), "", WITH_JSON), "{\"x\":1}", API_INVALID_REQUEST);
    }
}

Test(fire_ops, bodies_that_say_nothing_sensible_are_refused)
{
    static const char *const bodies[] = {"{}", "{\"status\":\"done\"}", "{\"status\":\"ok\",\"x\":1}",
                                         "{\"status\":\"ok\",\"detail\":7}", "[]"};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
        expect(HEAD("POST", path_of("complete"), key_of(1), WITH_JSON), bodies[i], API_INVALID_REQUEST);
}

Test(fire_ops, a_slot_that_there_is_not_has_no_fires)
{
    api_uid_set_slot(&uid, BED_SLOTS);
    expect(HEAD("POST", path_of("cancel"), "", WITH_CLIENT), "", API_NOT_FOUND);
}
