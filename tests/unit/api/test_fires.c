/* Routes of fires, asked of an agent while each fallible step of all its threads fails in turn. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "callback/capability.h"
#include "tests/lib/api_bed.h"
#include "tests/lib/raw_server.h"

static struct api_bed bed;

/* --- fires ---------------------------------------------------------------------------------------------------------- */

static struct raw_server *callee; /* accepts, and does nothing more */
static char fire[64], fire_target[200], action_target[300];

static bool accept_fire(const struct raw_request *rq)
{
    raw_write(rq->fd, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
    return true;
}

static void open_all(void)
{
    api_bed_open(&bed, NULL);
    callee = raw_server_start(false, accept_fire, NULL);
}

static void close_all(void)
{
    api_bed_close(&bed);
    raw_server_stop(callee);
}

/* A job that is only run by hand; REST: further members, each after a comma. */
static void put_job(const char *id, unsigned port, const char *rest)
{
    char target[80], body[400];
    (void)snprintf(target, sizeof(target), "/v1/jobs/%s", id);
    (void)snprintf(body, sizeof(body),
                   "{\"schedule\":\"0 0 1 1 *\",\"callback\":{\"http\":{\"url\":\"http://127.0.0.1:%u/\"}%s}",
                   port, rest);
    api_bed_write(&bed, "PUT", target, body, 201);
}

static void put_dead(const char *id)
{
    put_job(id, 9, "},\"retry\":{\"max_attempts\":1}");
}

/* Its id is in `fire`, and what is asked of it in `fire_target`. */
static void run_job(const char *id)
{
    char target[80];
    (void)snprintf(target, sizeof(target), "/v1/jobs/%s/run", id);
    const struct api_answer *a = api_bed_write(&bed, "POST", target, NULL, 202);
    cr_assert(eq(int, sscanf(a->body, "{\"fire\":\"%55[^\"]", fire), 1), "%s", a->body);
    (void)snprintf(fire_target, sizeof(fire_target), "/v1/fires/%s", fire);
}

/* One that died, one that succeeded by hand, one that succeeded by its schedule: the latter stands with its job only. */
static void make_history(void)
{
    put_dead("dead");
    run_job("dead");
    api_bed_until(&bed, fire_target, "\"outcome\":\"dead\"");
    api_bed_put(&bed, "ring", "@after 100ms");
    api_bed_until(&bed, "/v1/jobs/ring", "\"last_fire\":{");
    api_bed_put(&bed, "good", "0 0 1 1 *");
    run_job("good");
    api_bed_until(&bed, fire_target, "\"outcome\":\"succeeded\"");
}

/* --- reads ---------------------------------------------------------------------------------------------------------- */

Test(fires, lists_under_faults_are_whole_or_refused)
{
    static const struct api_case cases[] = {
        {.method = "GET", .target = fire_target, .status = 200},
        {.method = "GET", .target = "/v1/jobs/ring/fires", .status = 200},
        {.method = "GET", .target = "/v1/jobs/good/fires?limit=1", .status = 200},
        {.method = "GET", .target = "/v1/fires", .status = 200},
        {.method = "GET", .target = "/v1/fires?limit=1", .status = 200},
        {.method = "GET", .target = "/v1/fires?job=ring", .status = 200},
        {.method = "GET", .target = action_target, .status = 200},
        {.method = "GET", .target = "/v1/deadletters", .status = 200},
        {.method = "GET", .target = "/v1/deadletters?job=dead&limit=1", .status = 200},
    };
    open_all();
    make_history();
    const struct api_answer *a = api_bed_ask(&bed, "GET", "/v1/fires?outcome=succeeded", NULL, NULL);
    const char *next = strstr(a->body, "\"next_cursor\":\"");
    cr_assert(ne(ptr, (void *)(uintptr_t)next, NULL), "%s", a->body);
    (void)snprintf(action_target, sizeof(action_target), "/v1/fires?outcome=succeeded&cursor=%.*s",
                   (int)strcspn(next + 15, "\""), next + 15);
    api_bed_run(&bed, cases, sizeof(cases) / sizeof(cases[0]));
    close_all();
}

/* --- what is done to them ------------------------------------------------------------------------------------------- */

static bool outcome_is(const char *outcome)
{
    char text[60];
    const struct api_answer *a = api_bed_ask(&bed, "GET", fire_target, NULL, NULL);
    cr_assert(eq(int, a->status, 200), "%s", a->body);
    (void)snprintf(text, sizeof(text), "\"outcome\":\"%s\"", outcome);
    return strstr(a->body, text);
}

static void begin_fire(struct api_bed *b, const char *action)
{
    char key[CAPABILITY_SIZE];
    struct uid uid;
    unsigned before = raw_server_requests(callee);
    uint64_t seq;
    run_job("async");
    raw_server_wait(callee, before + 1);
    api_bed_until(b, fire_target, "\"attempts\":[{");
    cr_assert(fire_id_parse(fire, &uid, &seq));
    capability_make(&b->node.capability, &uid, seq, 1, key);
    (void)snprintf(action_target, sizeof(action_target), "%s/%s?key=%s", fire_target, action, key);
}

static void begin_complete(struct api_bed *b)
{
    begin_fire(b, "complete");
}

static void begin_heartbeat(struct api_bed *b)
{
    begin_fire(b, "heartbeat");
}

static void begin_cancel(struct api_bed *b)
{
    begin_fire(b, "cancel");
    (void)snprintf(action_target, sizeof(action_target), "%s/cancel", fire_target);
}

static void make_letter(struct api_bed *b)
{
    run_job("dead");
    api_bed_until(b, fire_target, "\"outcome\":\"dead\"");
    (void)snprintf(action_target, sizeof(action_target), "%s/retry", fire_target);
}

static void expect_succeeded(struct api_bed *b, bool acknowledged)
{
    (void)b;
    cr_assert(outcome_is("succeeded") || (!acknowledged && outcome_is("pending")));
}

static void expect_cancelled(struct api_bed *b, bool acknowledged)
{
    (void)b;
    cr_assert(outcome_is("cancelled") || (!acknowledged && outcome_is("pending")));
}

static void expect_pending(struct api_bed *b, bool acknowledged)
{
    (void)b;
    (void)acknowledged;
    cr_assert(outcome_is("pending"));
}

/* Whether retried or not, it ends as it did. */
static void expect_dead(struct api_bed *b, bool acknowledged)
{
    (void)acknowledged;
    api_bed_until(b, fire_target, "\"outcome\":\"dead\"");
}

/* The only one there is. */
static void leave_letter(struct api_bed *b)
{
    api_bed_write(b, "DELETE", "/v1/deadletters?all=true", NULL, 200);
    make_letter(b);
}

static void expect_discarded(struct api_bed *b, bool acknowledged)
{
    (void)b;
    cr_assert(outcome_is("cancelled") || (!acknowledged && outcome_is("dead")));
}

Test(fires, changes_under_faults_are_done_or_refused)
{
    static const struct api_case cases[] = {
        {.method = "POST",
         .target = action_target,
         .body = "{\"status\":\"ok\",\"detail\":\"done\"}",
         .status = 200,
         .varying = " fire ",
         .before = begin_complete,
         .after = expect_succeeded},
        {.method = "POST",
         .target = action_target,
         .status = 200,
         .before = begin_heartbeat,
         .after = expect_pending},
        {.method = "POST",
         .target = action_target,
         .status = 200,
         .varying = " fire ",
         .before = begin_cancel,
         .after = expect_cancelled},
        {.method = "POST",
         .target = action_target,
         .status = 202,
         .varying = " fire ",
         .before = make_letter,
         .after = expect_dead},
        {.method = "POST",
         .target = "/v1/deadletters/redrive?job=dead",
         .status = 200,
         .before = leave_letter,
         .after = expect_dead},
        {.method = "DELETE",
         .target = "/v1/deadletters?job=dead",
         .status = 200,
         .before = leave_letter,
         .after = expect_discarded},
    };
    open_all();
    put_dead("dead");
    put_job("async", raw_server_port(callee), ",\"async\":{\"timeout\":\"10m\"}}");
    api_bed_run(&bed, cases, sizeof(cases) / sizeof(cases[0]));
    close_all();
}
