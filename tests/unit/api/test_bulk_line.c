#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/api/bulk_line.h"
#include "agent/base/mem.h"
#include "tests/lib/api_write_bed.h"

#define JOB "{\"schedule\":\"0 9 * * *\",\"callback\":{\"http\":{\"url\":\"http://10.1.2.3/x\"}}}"

static struct api_write_bed bed;

static void setup(void)
{
    api_write_bed_init(&bed, BED_SLOTS);
}

static void teardown(void)
{
    api_write_bed_fini(&bed);
}

TestSuite(bulk_line, .init = setup, .fini = teardown);

static struct bulk_rules rules(bool from_peer)
{
    return (struct bulk_rules){
        .ns = "team-b", .ctx = &bed.ctx, .from_peer = from_peer, .ids = &bed.ids, .zones = bed.zones};
}

static void read_line(struct bulk_line *line, const char *text, bool full)
{
    struct bulk_rules r = rules(false);
    memset(line, 0, sizeof(*line));
    line->number = 1;
    bulk_line_read(line, &r, text, strlen(text), full);
}

static void expect_status(const char *text, int status, const char *part)
{
    struct bulk_line line;
    read_line(&line, text, true);
    cr_assert(eq(int, line.result.status, status), "%s: %s", text,
              line.result.problem ? line.result.problem : "");
    if (status)
        cr_assert(line.result.problem && strstr(line.result.problem, part), "%s: %s", text,
                  line.result.problem);
    bulk_line_fini(&line);
}

Test(bulk_line, a_body_is_cut_at_line_feeds)
{
    static const char body[] = "a\n\r\nbc\r\n\nd";
    static const char *const want[] = {"a", "", "bc", "", "d"};
    size_t at = 0, len;
    const char *text;
    for (size_t i = 0; i < 5; i++) {
        cr_assert(bulk_next_line(body, sizeof(body) - 1, &at, &text, &len));
        cr_assert(len == strlen(want[i]) && memcmp(text, want[i], len) == 0, "line %zu", i);
    }
    cr_assert(not(bulk_next_line(body, sizeof(body) - 1, &at, &text, &len)));
}

Test(bulk_line, each_operation_is_read)
{
    static const char *const lines[] = {"{\"op\":\"create\",\"job\":" JOB "}",
                                        "{\"op\":\"create\",\"id\":\"x\",\"job\":" JOB "}",
                                        "{\"op\":\"put\",\"id\":\"x\",\"namespace\":\"a\",\"job\":" JOB "}",
                                        "{\"op\":\"patch\",\"id\":\"x\",\"job\":{\"description\":\"d\"}}",
                                        "{\"op\":\"delete\",\"id\":\"x\"}",
                                        "{\"op\":\"pause\",\"id\":\"x\"}",
                                        "{\"op\":\"resume\",\"id\":\"x\"}",
                                        "{\"op\":\"run\",\"id\":\"x\"}"};
    static const enum planner_api_op ops[] = {PLANNER_CREATE, PLANNER_CREATE, PLANNER_PUT,    PLANNER_PATCH,
                                              PLANNER_DELETE, PLANNER_PAUSE,  PLANNER_RESUME, PLANNER_RUN};
    for (size_t i = 0; i < 8; i++) {
        struct bulk_line line;
        read_line(&line, lines[i], true);
        cr_assert(zero(int, line.result.status), "%s: %s", lines[i], line.result.problem);
        cr_assert(eq(int, line.write.papi.op, ops[i]));
        cr_assert(eq(str, line.write.papi.ns, i == 2 ? "a" : "team-b"));
        cr_assert(i == 0 || strcmp(line.write.papi.id, "x") == 0);
        cr_assert(ne(u64, line.write.papi.change_id, 0));
        cr_assert(eq(i64, line.write.papi.accepted_ms, BED_NOW_MS));
        bulk_line_fini(&line);
    }
}

Test(bulk_line, the_id_may_stand_in_the_job)
{
    struct bulk_line line;
    read_line(&line,
              "{\"op\":\"put\",\"job\":{\"id\":\"y\",\"schedule\":\"@daily\","
              "\"callback\":{\"http\":{\"url\":\"http://10.1.2.3/x\"}}}}",
              true);
    cr_assert(zero(int, line.result.status), "%s", line.result.problem);
    cr_assert(eq(str, line.write.papi.id, "y"));
    bulk_line_fini(&line);
}

Test(bulk_line, a_bad_line_says_what_is_wrong)
{
    expect_status("{", 400, "invalid_request");
    expect_status("7", 400, "invalid_request");
    expect_status("{}", 400, "#/op");
    expect_status("{\"op\":\"drop\",\"id\":\"x\"}", 400, "#/op");
    expect_status("{\"op\":\"delete\"}", 400, "#/id");
    expect_status("{\"op\":\"delete\",\"id\":\"a/b\"}", 400, "#/id");
    expect_status("{\"op\":\"delete\",\"id\":\"x\",\"namespace\":\"A\"}", 400, "#/namespace");
    expect_status("{\"op\":\"delete\",\"id\":\"x\",\"job\":{}}", 400, "#/job");
    expect_status("{\"op\":\"put\",\"id\":\"x\"}", 400, "#/job");
    expect_status("{\"op\":\"put\",\"id\":\"x\",\"job\":7}", 400, "invalid_job");
    expect_status("{\"op\":\"put\",\"id\":\"x\",\"colour\":1,\"job\":" JOB "}", 400, "#/colour");
    expect_status("{\"op\":\"put\",\"id\":\"x\",\"job\":{\"schedule\":\"61 * * * *\"}}", 400, "#/schedule");
    expect_status("{\"op\":\"put\",\"id\":\"x\",\"if_match\":\"y\",\"job\":" JOB "}", 400, "#/if_match");
    expect_status("{\"op\":\"put\",\"id\":\"x\",\"if_match\":\"\\\"y\\\"\",\"job\":" JOB "}", 412,
                  "version_mismatch");
    expect_status("{\"op\":\"create\",\"id\":\"x\",\"if_match\":\"*\",\"job\":" JOB "}", 400, "#/if_match");
    expect_status("{\"op\":\"create\",\"job\":{\"id\":\"a/b\"}}", 400, "#/job/id");
}

Test(bulk_line, a_line_of_anothers_slot_is_not_read_further)
{
    struct bulk_line line;
    struct bulk_rules r = rules(false);
    bed.owned = 0;
    read_line(&line, "{\"op\":\"put\",\"id\":\"x\",\"job\":{\"schedule\":\"61 * * * *\"}}", false);
    cr_assert(zero(int, line.result.status));
    cr_assert(not(line.is_read));
    bulk_line_read_rest(&line, &r);
    cr_assert(eq(int, line.result.status, 400));
    bulk_line_fini(&line);
}

Test(bulk_line, a_peer_reads_the_ids_that_were_made_here)
{
    struct bulk_line line, there;
    AUTO(buf_fini) struct buf out = BUF_INIT(4096);
    struct bulk_rules peer = rules(true);
    bed.owned = 0;
    read_line(&line, "{\"op\":\"create\",\"job\":" JOB "}", false);
    bulk_line_print_ids(&line, true, &out);
    buf_add(&out, line.text, line.len);
    memset(&there, 0, sizeof(there));
    bulk_line_read(&there, &peer, buf_str(&out), out.len, true);
    cr_assert(zero(int, there.result.status), "%s", there.result.problem);
    const struct planner_api *a = &line.write.papi, *b = &there.write.papi;
    cr_assert(eq(str, (char *)a->id, (char *)b->id));
    cr_assert(eq(str, (char *)a->ns, (char *)b->ns));
    cr_assert(eq(u64, a->change_id, b->change_id));
    cr_assert(zero(int, memcmp(&a->uid, &b->uid, sizeof(a->uid))));
    cr_assert(b->fresh_id && b->repeated);
    bulk_line_fini(&there);
    for (size_t len = 0; len < 60; len++) { /* cut anywhere in the ids */
        memset(&there, 0, sizeof(there));
        bulk_line_read(&there, &peer, buf_str(&out), len, true);
        cr_assert(eq(int, there.result.status, 400), "length %zu", len);
        bulk_line_fini(&there);
    }
    bulk_line_fini(&line);
}

Test(bulk_line, a_peer_takes_the_namespace_of_the_whole_bulk_for_lines_that_name_none)
{
    static const char *const texts[] = {"{\"op\":\"delete\",\"id\":\"x\"}",
                                        "{\"op\":\"delete\",\"namespace\":\"c\",\"id\":\"x\"}"};
    static const char *const want[] = {"team-b", "c"};
    struct bulk_rules peer = rules(true);
    peer.ns = "default"; /* what its own request says, which carries lines of any namespace */
    for (size_t i = 0; i < 2; i++) {
        struct bulk_line line, there = {0};
        AUTO(buf_fini) struct buf out = BUF_INIT(4096);
        read_line(&line, texts[i], true);
        bulk_line_print_ids(&line, false, &out);
        buf_add(&out, line.text, line.len);
        bulk_line_read(&there, &peer, buf_str(&out), out.len, false);
        cr_assert(zero(int, there.result.status), "%s", there.result.problem);
        cr_assert(eq(str, there.write.papi.ns, (char *)want[i]));
        cr_assert(
            zero(int, memcmp(&line.write.papi.uid, &there.write.papi.uid, sizeof(there.write.papi.uid))));
        bulk_line_fini(&line);
        bulk_line_fini(&there);
    }
}

Test(bulk_line, a_result_comes_back_as_printed)
{
    struct bulk_line line, back;
    AUTO(buf_fini) struct buf out = BUF_INIT(65536);
    char owner[RECORD_MEMBER_MAX];
    uint64_t epoch = 0;
    read_line(&line, "{\"op\":\"delete\",\"id\":\"x\"}", true);
    line.number = 12;
    line.result.status = 201;
    line.result.version = 3;
    bulk_line_print_result(&line, &out);
    cr_assert(eq(str, (char *)buf_str(&out), "{\"line\":12,\"status\":201,\"id\":\"x\",\"version\":3}\n"));
    memset(&back, 0, sizeof(back));
    cr_assert(bulk_line_take_result(&back, buf_str(&out), out.len, owner, &epoch));
    cr_assert(back.result.status == 201 && back.result.version == 3 && !back.result.problem);
    buf_reset(&out);
    bulk_line_misdirected(&line, "a\"1", 9);
    bulk_line_print_result(&line, &out);
    cr_assert(bulk_line_take_result(&back, buf_str(&out), out.len, owner, &epoch));
    cr_assert(eq(int, back.result.status, 421));
    cr_assert(eq(str, owner, "a\"1"));
    cr_assert(eq(u64, epoch, 9));
    static const char *const bad[] = {
        "", "{}", "{\"status\":1}", "{\"status\":201", "[]", "{\"status\":\"201\"}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(not(bulk_line_take_result(&back, bad[i], strlen(bad[i]), owner, &epoch)), "%s", bad[i]);
    bulk_line_fini(&line);
    bulk_line_fini(&back);
}

Test(bulk_line, every_failing_step_is_survived)
{
    for (unsigned k = 0;; k++) {
        struct bulk_line line;
        struct bulk_rules r = rules(false);
        static const char text[] = "{\"op\":\"put\",\"id\":\"x\",\"job\":" JOB "}";
        memset(&line, 0, sizeof(line));
        fault_arm(k);
        bulk_line_read(&line, &r, text, sizeof(text) - 1, true);
        bool fired = fault_fired();
        cr_assert(eq(int, line.result.status == 0, line.write.papi.spec != NULL), "k=%u", k);
        cr_assert(fired || line.result.status == 0);
        bulk_line_fini(&line);
        if (!fired)
            break;
    }
}

static void read_letters(struct bulk_line *line, const char *text, bool internal)
{
    struct bulk_rules r = rules(false);
    r.internal = internal;
    memset(line, 0, sizeof(*line));
    line->number = 1;
    bulk_line_read(line, &r, text, strlen(text), true);
}

static void expect_letters_refused(const char *text, bool internal)
{
    struct bulk_line line;
    read_letters(&line, text, internal);
    cr_assert(eq(int, line.result.status, 400), "%s", text);
    bulk_line_fini(&line);
}

#define LETTERS(list)                                                                                    \
    "{\"op\":\"redrive\",\"namespace\":\"a\",\"id\":\"x\",\"uid\":\"00051111111111111111111111111111\"," \
    "\"version\":2,\"letters\":" list "}"

Test(bulk_line, what_an_agent_asks_for_dead_letters_is_read_as_it_was_printed)
{
    static const struct bulk_letter letters[] = {{9, 0}, {4, BED_NOW_MS}, {1, 7}};
    struct fire_row row = {.version = 2, .ns = "team-c", .id = "late"};
    struct bulk_line line;
    memset(row.uid.bytes, 0x11, sizeof(row.uid.bytes));
    api_uid_set_slot(&row.uid, 5);
    for (int redrive = 0; redrive < 2; redrive++) {
        struct buf out = BUF_INIT(4096);
        bulk_line_print_letters(&out, redrive, &row, letters, 3);
        buf_truncate(&out, out.len - 1);
        read_letters(&line, buf_str(&out), true);
        const struct planner_api *p = &line.write.papi;
        cr_assert(zero(int, line.result.status), "%s: %s", buf_str(&out),
                  line.result.problem ? line.result.problem : "");
        cr_assert(line.of_letters && line.is_read);
        cr_assert(eq(int, p->op, redrive ? PLANNER_LETTERS_REDRIVE : PLANNER_LETTERS_DISCARD));
        cr_assert(zero(int, memcmp(&p->uid, &row.uid, sizeof(row.uid))));
        cr_assert(eq(u64, p->version, 2));
        cr_assert(eq(sz, p->letters_count, 3));
        for (size_t i = 0; i < 3; i++)
            cr_assert(p->letters[i].seq == letters[i].seq && p->letters[i].at_ms == letters[i].at_ms);
        bulk_line_fini(&line);
        buf_fini(&out);
    }
}

Test(bulk_line, dead_letters_are_for_agents_to_ask_for_in_order)
{
    struct bulk_line line;
    read_letters(&line, LETTERS("[[2,0],[1,0]]"), true);
    cr_assert(zero(int, line.result.status));
    bulk_line_fini(&line);
    expect_letters_refused(LETTERS("[[2,0],[1,0]]"), false);
    expect_letters_refused(LETTERS("[[1,0],[2,0]]"), true);
    expect_letters_refused(LETTERS("[[2,0],[2,0]]"), true);
    expect_letters_refused(LETTERS("[[2]]"), true);
    expect_letters_refused(LETTERS("[7]"), true);
    struct buf many = BUF_INIT(1 << 20);
    buf_add_str(&many, "[");
    for (unsigned i = PLANNER_LETTERS_MAX + 1; i > 0; i--)
        buf_addf(&many, "[%u,0]%s", i, i > 1 ? "," : "]");
    struct buf text = BUF_INIT(1 << 20);
    buf_addf(&text, LETTERS("%s"), buf_str(&many));
    expect_letters_refused(buf_str(&text), true);
    buf_fini(&many);
    buf_fini(&text);
}
