#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "tests/lib/engine_bed.h"
#include "tests/lib/patience.h"

static struct engine_bed bed;

static struct bed_agent *start(size_t which)
{
    struct bed_agent *a = engine_bed_start(&bed, which);
    cr_assert(engine_bed_until(&bed, a->joined), "agent %zu did not join", which);
    return a;
}

static struct bed_agent *start_alone(void)
{
    engine_bed_open(&bed);
    struct bed_agent *a = start(0);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(a) == BED_SLOTS), "%zu slots", engine_bed_owned(a));
    return a;
}

static void create_jobs(size_t count, const char *schedule)
{
    char id[32];
    size_t before = bed.answered;
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(id, sizeof(id), "job-%zu", before + i);
        struct bed_agent *owner = engine_bed_owner(&bed, id);
        cr_assert(ne(ptr, owner, NULL));
        engine_bed_create(owner, id, schedule);
    }
    cr_assert(engine_bed_until(&bed, bed.answered == before + count));
    cr_assert(eq(int, (int)bed.last_answer, (int)PLANNER_CREATED));
}

static bool fire_on(size_t more)
{
    size_t before = engine_bed_fires(&bed, NULL);
    return engine_bed_until(&bed, engine_bed_fires(&bed, NULL) >= before + more);
}

static bool spread(struct bed_agent *a, struct bed_agent *b)
{
    size_t of_a = engine_bed_owned(a), of_b = engine_bed_owned(b);
    return of_a + of_b == BED_SLOTS && of_a > BED_SLOTS / 4 && of_b > BED_SLOTS / 4;
}

static void leave_clean(struct bed_agent *a)
{
    engine_bed_leave(a, 10000);
    cr_assert(engine_bed_until(&bed, a->left), "it did not leave");
    cr_assert(a->clean);
    cr_assert(engine_bed_until(&bed, engine_bed_lives_ended(a)));
}

static void declare_done(void *arg, const struct err *e, bool yes)
{
    (void)e;
    (void)yes;
    *(bool *)arg = true;
}

static void declare_dead(struct bed_agent *a)
{
    bool done = false;
    char member[RECORD_MEMBER_MAX];
    (void)snprintf(member, sizeof(member), "%s", engine_member(a->engine));
    store_mem.declare_dead(a->store, member, UINT64_MAX, declare_done, &done);
    cr_assert(engine_bed_until(&bed, done));
}

static size_t turns;

static void count_turn(void *arg, uint64_t turn_us)
{
    (void)arg;
    (void)turn_us;
    turns++;
}

/* An engine with nothing to do turns a few times a second; the bed itself fifty times. */
static void check_quiet(void)
{
    turns = 0;
    loop_set_turn_observer(bed.loop, count_turn, NULL);
    engine_bed_run_ms(&bed, 400);
    loop_set_turn_observer(bed.loop, NULL, NULL);
    cr_assert(lt(sz, turns, 100), "%zu turns in 400 ms", turns);
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

Test(engine, slots_move_to_a_second_member_and_back_without_a_repeated_fire)
{
    size_t repeats;
    struct bed_agent *a = start_alone();
    create_jobs(20, "@every 1s");
    cr_assert(fire_on(5));
    struct bed_agent *b = start(1);
    cr_assert(engine_bed_until(&bed, spread(a, b)), "%zu and %zu", engine_bed_owned(a), engine_bed_owned(b));
    cr_assert(fire_on(15));
    leave_clean(a);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(b) == BED_SLOTS));
    cr_assert(zero(sz, engine_bed_owned(a)));
    cr_assert(fire_on(15));
    leave_clean(b);
    (void)engine_bed_fires(&bed, &repeats);
    cr_assert(zero(sz, repeats));
    engine_bed_close(&bed);
}

Test(engine, a_drained_member_gives_all_away_and_stays_until_it_is_told_to_leave)
{
    size_t repeats;
    struct bed_agent *a = start_alone(), *b = start(1);
    cr_assert(engine_bed_until(&bed, spread(a, b)), "%zu and %zu", engine_bed_owned(a), engine_bed_owned(b));
    create_jobs(20, "@every 1s");
    engine_drain(a->engine);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(b) == BED_SLOTS));
    cr_assert(fire_on(15));
    check_quiet();
    cr_assert(not(a->left));
    cr_assert(not(engine_ended(a->engine)));
    cr_assert(gt(i64, engine_lease_until_ms(a->engine), (int64_t)clock_boot_ms()), "it beats no more");
    for (uint16_t slot = 0; slot < BED_SLOTS; slot++)
        cr_assert(eq(str, (char *)engine_owner(a->engine, slot, NULL), (char *)engine_member(b->engine)));
    cr_assert(zero(sz, engine_bed_owned(a)));
    engine_drain(a->engine); /* again is as once */
    leave_clean(a);
    leave_clean(b);
    (void)engine_bed_fires(&bed, &repeats);
    cr_assert(zero(sz, repeats));
    engine_bed_close(&bed);
}

Test(engine, a_drained_member_waits_longer_than_any_grace_for_what_is_in_flight)
{
    struct bed_agent *a = start_alone(), *b = start(1);
    cr_assert(engine_bed_until(&bed, spread(a, b)));
    create_jobs(20, "@every 1s");
    engine_bed_hold(&bed, true);
    cr_assert(engine_bed_until(&bed, planner_stats(engine_planner(a->engine))->in_flight > 0));
    engine_drain(a->engine);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(b) == BED_SLOTS));
    cr_assert(gt(sz, planner_stats(engine_planner(a->engine))->in_flight, 0));
    engine_bed_let_go(&bed);
    cr_assert(engine_bed_until(&bed, planner_stats(engine_planner(a->engine))->in_flight == 0));
    cr_assert(not(a->left));
    leave_clean(a);
    leave_clean(b);
    engine_bed_close(&bed);
}

Test(engine, who_is_alone_drains_nothing)
{
    struct bed_agent *a = start_alone();
    create_jobs(5, "@every 1s");
    engine_drain(a->engine);
    cr_assert(fire_on(5));
    cr_assert(eq(sz, engine_bed_owned(a), BED_SLOTS));
    leave_clean(a);
    engine_bed_close(&bed);
}

Test(engine, a_member_that_was_declared_dead_lives_on_as_a_new_one)
{
    struct bed_agent *a = start_alone();
    engine_bed_hold(&bed, true);
    create_jobs(5, "@every 1s");
    cr_assert(engine_bed_until(&bed, engine_bed_held(&bed) >= 5));
    declare_dead(a);
    cr_assert(engine_bed_until(&bed, a->lives_count == 2 && a->joined));
    cr_assert(not(engine_ended(a->lives[0])), "its callbacks are still in flight");
    cr_assert(engine_bed_until(&bed, engine_bed_owned(a) == BED_SLOTS));
    check_quiet();
    engine_bed_let_go(&bed);
    cr_assert(engine_bed_until(&bed, engine_ended(a->lives[0])));
    cr_assert(fire_on(3));
    leave_clean(a);
    engine_bed_close(&bed);
}

Test(engine, lives_may_follow_each_other_at_once)
{
    struct bed_agent *a = start_alone();
    create_jobs(5, "@every 1s");
    for (size_t life = 2; life < 6; life++) {
        declare_dead(a);
        cr_assert(engine_bed_until(&bed, a->lives_count == life && a->joined));
    }
    cr_assert(engine_bed_until(&bed, engine_bed_owned(a) == BED_SLOTS));
    cr_assert(fire_on(5));
    leave_clean(a);
    engine_bed_close(&bed);
}

Test(engine, a_row_that_died_before_the_join_was_known_is_not_joined_again)
{
    engine_bed_open(&bed);
    struct bed_agent *a = engine_bed_start(&bed, 0);
    a->fault_op = "join";
    a->fault = STORE_MEM_LOST_AFTER;
    a->faults_left = 1;
    cr_assert(engine_bed_until(&bed, a->faults_left == 0));
    declare_dead(a);
    cr_assert(engine_bed_until(&bed, a->joined));
    cr_assert(eq(sz, a->lives_count, 2));
    leave_clean(a);
    engine_bed_close(&bed);
}

/* --- a store that fails -------------------------------------------------------------------------------------------- */

Test(engine, lost_commits_and_lost_answers_lose_and_repeat_nothing)
{
    size_t repeats;
    struct bed_agent *a = start_alone();
    create_jobs(10, "@every 1s");
    for (int i = 0; i < 2; i++) {
        a->fault_op = "commit";
        a->fault = i == 0 ? STORE_MEM_LOST_AFTER : STORE_MEM_LOST_BEFORE;
        a->faults_left = 3;
        cr_assert(fire_on(10));
        cr_assert(engine_bed_until(&bed, a->faults_left == 0));
    }
    leave_clean(a);
    (void)engine_bed_fires(&bed, &repeats);
    cr_assert(zero(sz, repeats));
    engine_bed_close(&bed);
}

Test(engine, the_lease_ends_by_itself_when_no_beat_comes_through)
{
    struct bed_agent *a = start_alone();
    cr_assert(engine_bed_until(&bed, engine_may_start(a->engine)));
    a->hang = true;
    int64_t until_ms = engine_lease_until_ms(a->engine);
    cr_assert(engine_bed_until(&bed, !engine_may_start(a->engine)));
    cr_assert(lt(i64, loop_now_ms(bed.loop), until_ms + PATIENCE_MS), "told late");
    engine_bed_go_on(a);
    cr_assert(engine_bed_until(&bed, engine_may_start(a->engine)));
    leave_clean(a);
    engine_bed_close(&bed);
}

static struct store_ops short_ops;

static void short_get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done,
                           void *arg)
{
    store_mem.get_jobs(self, keys, count < 2 ? count : 2, done, arg);
}

struct short_answer {
    store_jobs_done *done;
    void *arg;
};

static void short_done(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct short_answer *s = arg;
    (void)more;
    s->done(s->arg, e, jobs, count, true);
    mem_free(s);
}

static void short_get(void *self, const struct store_key *keys, size_t count, store_jobs_done *done,
                      void *arg)
{
    struct short_answer *s = mem_new(struct short_answer);
    *s = (struct short_answer){.done = done, .arg = arg};
    short_get_jobs(self, keys, count, count > 2 ? short_done : done, count > 2 ? (void *)s : arg);
    if (count <= 2)
        mem_free(s);
}

Test(engine, what_a_short_answer_left_out_is_asked_for_again)
{
    engine_bed_open(&bed);
    short_ops = store_mem;
    short_ops.get_jobs = short_get;
    bed.ops = &short_ops;
    struct bed_agent *a = start(0);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(a) == BED_SLOTS));
    bed.known_ids = true; /* an id of the caller's own is looked up first */
    create_jobs(25, "@every 1s");
    leave_clean(a);
    engine_bed_close(&bed);
}

static struct {
    struct loop_msg msg;
    store_jobs_done *done;
    void *arg;
    bool first, busy;
    size_t calls;
} page;

static void answer_page(struct loop_msg *msg)
{
    struct err ok = {0};
    struct store_job jobs[3] = {0};
    (void)msg;
    page.busy = false;
    for (uint8_t i = 0; i < 3; i++) {
        jobs[i].row = (struct job_row){.slot = 5, .rev = 1, .due_ms = 1000, .wake_ms = 1000};
        jobs[i].row.uid.bytes[1] = 5;
        jobs[i].row.uid.bytes[15] = i;
        (void)snprintf(jobs[i].problem, sizeof(jobs[i].problem), "of a later version");
    }
    page.done(page.arg, &ok, jobs, page.first ? 3 : 0, page.first);
}

/* The first page holds nothing that can be read here, and there is more behind it. */
static void unreadable_load(void *self, const struct store_load *load, store_jobs_done *done, void *arg)
{
    if (load->from_ms != RECORD_NONE || page.busy) {
        store_mem.load_jobs(self, load, done, arg);
        return;
    }
    page.calls++;
    page.first = !load->after.set;
    page.done = done;
    page.arg = arg;
    page.busy = true;
    page.msg.run = answer_page;
    loop_defer(bed.loop, &page.msg);
}

Test(engine, a_page_of_unreadable_jobs_is_not_read_for_ever)
{
    engine_bed_open(&bed);
    short_ops = store_mem;
    short_ops.load_jobs = unreadable_load;
    bed.ops = &short_ops;
    struct bed_agent *a = start(0);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(a) == BED_SLOTS && page.calls > 0));
    engine_bed_run_ms(&bed, 100);
    cr_assert(le(sz, page.calls, 2), "%zu pages", page.calls);
    leave_clean(a);
    engine_bed_close(&bed);
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

Test(engine, leaving_waits_for_what_is_in_flight)
{
    struct bed_agent *a = start_alone();
    engine_bed_hold(&bed, true);
    create_jobs(5, "@every 1s");
    cr_assert(engine_bed_until(&bed, engine_bed_held(&bed) >= 5));
    engine_bed_leave(a, 10000);
    engine_bed_run_ms(&bed, 100);
    cr_assert(not(a->left));
    size_t fires = engine_bed_fires(&bed, NULL);
    check_quiet();
    engine_bed_run_ms(&bed, 800);
    cr_assert(eq(sz, engine_bed_fires(&bed, NULL), fires), "nothing new starts");
    engine_bed_let_go(&bed);
    cr_assert(engine_bed_until(&bed, a->left));
    cr_assert(a->clean);
    engine_bed_close(&bed);
}

Test(engine, when_the_grace_is_over_it_ends_with_callbacks_in_flight)
{
    struct bed_agent *a = start_alone();
    engine_bed_hold(&bed, true);
    create_jobs(5, "@every 1s");
    cr_assert(engine_bed_until(&bed, engine_bed_held(&bed) >= 5));
    engine_bed_leave(a, 200);
    cr_assert(engine_bed_until(&bed, a->left));
    cr_assert(not(a->clean));
    cr_assert(zero(sz, engine_bed_owned(a)));
    engine_bed_close(&bed);
}

Test(engine, leaving_before_the_store_let_it_in)
{
    engine_bed_open(&bed);
    struct bed_agent *a = engine_bed_start(&bed, 0);
    a->fault_op = "join";
    a->fault = STORE_MEM_LOST_BEFORE;
    a->faults_left = 1000000;
    engine_bed_run_ms(&bed, 20);
    leave_clean(a);
    cr_assert(not(a->joined));
    engine_bed_close(&bed);
}

Test(engine, leaving_while_the_join_is_under_way_leaves_no_row_that_lives)
{
    engine_bed_open(&bed);
    struct bed_agent *a = engine_bed_start(&bed, 0);
    a->hang = true;
    engine_bed_leave(a, 10000);
    engine_bed_run_ms(&bed, 50);
    engine_bed_go_on(a);
    cr_assert(engine_bed_until(&bed, a->left));
    struct bed_agent *b = start(1);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(b) == BED_SLOTS));
    leave_clean(b);
    engine_bed_close(&bed);
}

Test(engine, leaving_while_commits_hang_answers_who_waits)
{
    struct bed_agent *a = start_alone();
    a->hang = true;
    for (int i = 0; i < 3; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "job-%d", i);
        engine_bed_create(a, id, "@every 1s");
    }
    engine_bed_leave(a, 100);
    engine_bed_run_ms(&bed, 300);
    cr_assert(not(a->left), "the store still has calls of ours");
    check_quiet();
    engine_bed_go_on(a);
    cr_assert(engine_bed_until(&bed, a->left));
    engine_bed_close(&bed);
    cr_assert(eq(sz, bed.answered, 3));
}

/* --- peers --------------------------------------------------------------------------------------------------------- */

struct reply {
    int status, count;
    char body[128];
};

static void keep_status(void *arg, int status, const char *body)
{
    struct reply *r = arg;
    (void)snprintf(r->body, sizeof(r->body), "%s", body);
    r->status = status;
    r->count++;
}

static int say(struct bed_agent *a, const char *path, const char *body)
{
    struct reply r = {0};
    engine_peer_message(a->engine, path, body, strlen(body), keep_status, &r);
    cr_assert(engine_bed_until(&bed, r.count == 1), "%s %s", path, body);
    return r.status;
}

Test(engine, messages_that_make_no_sense_are_refused)
{
    static const char *const bad[][2] = {
        {"nothing", "{}"},
        {"look", "{}"},
        {"look", "not json"},
        {"look", "[]"},
        {"look", "{\"member\":5}"},
        {"look", "{\"member\":\"\"}"},
        {"dead", "{\"member\":null}"},
        {"moved", "{}"},
        {"moved", "{\"from\":\"x.1\",\"slots\":[5],\"epochs\":[7]}"},
        {"moved", "{\"from\":\"x.1\",\"to\":\"y.1\",\"slots\":[64],\"epochs\":[7]}"},
        {"moved", "{\"from\":\"x.1\",\"to\":\"y.1\",\"slots\":[5],\"epochs\":[]}"},
        {"moved", "{\"from\":\"x.1\",\"to\":\"y.1\",\"slots\":[5],\"epochs\":[0]}"},
        {"wake", "{\"slots\":[64]}"},
        {"wake", "{\"slots\":[65535]}"},
        {"wake", "{\"slots\":[-1]}"},
        {"wake", "{\"slots\":[3,3]}"},
        {"wake", "{\"slots\":[4,3]}"},
        {"wake", "{\"slots\":[1.5]}"},
        {"wake", "{\"slots\":{}}"},
        {"wake", "{}"},
        {"offer", "{\"from\":\"x.1\",\"to\":\"agent0.0\",\"slots\":[5,5]}"},
        {"offer", "{\"from\":\"x.1\",\"slots\":[5]}"},
        {"given", "{\"from\":\"x.1\",\"to\":\"agent0.0\",\"slots\":[5],\"epochs\":[]}"},
        {"given", "{\"from\":\"x.1\",\"to\":\"agent0.0\",\"slots\":[5],\"epochs\":[-1]}"},
        {"given", "{\"from\":\"x.1\",\"to\":\"agent0.0\",\"slots\":[5],\"epochs\":[\"7\"]}"},
    };
    struct bed_agent *a = start_alone();
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        cr_expect(eq(int, say(a, bad[i][0], bad[i][1]), 400), "%s %s", bad[i][0], bad[i][1]);
    cr_expect(eq(int, say(a, "wake", "{\"slots\":[0,5,63]}"), 200));
    cr_expect(eq(int, say(a, "look", "{\"member\":\"nobody.1\"}"), 200));
    cr_expect(eq(int, say(a, "dead", "{\"member\":\"nobody.1\"}"), 200));
    cr_expect(eq(int, say(a, "offer", "{\"from\":\"x.1\",\"to\":\"y.1\",\"slots\":[1,2]}"), 200));
    cr_expect(eq(int, say(a, "moved", "{\"to\":\"y.1\",\"slots\":[1,2],\"epochs\":[9000000000,1]}"), 200));
    cr_assert(eq(sz, engine_bed_owned(a), BED_SLOTS));
    leave_clean(a);
    cr_assert(eq(int, say(a, "look", "{\"member\":\"nobody.1\"}"), 503));
    engine_bed_close(&bed);
}

Test(engine, who_asks_who_is_there_is_told)
{
    struct bed_agent *a = start_alone();
    struct reply r = {0};
    engine_peer_message(a->engine, "who", "{}", 2, keep_status, &r);
    cr_expect(eq(int, r.status, 200));
    cr_expect(eq(str, r.body, "{\"member\":\"agent0.0\"}"));
    leave_clean(a);
    cr_expect(eq(int, say(a, "who", "{}"), 503), "who has left is nobody's successor");
    engine_bed_close(&bed);
}

static uint16_t slot_of(struct bed_agent *who)
{
    for (uint16_t slot = 0; slot < BED_SLOTS; slot++)
        if (atomic_load(&who->owned[slot / 64]) >> (slot % 64) & 1)
            return slot;
    cr_fatal("it owns nothing");
}

Test(engine, a_planned_move_is_told_to_the_members_that_it_does_not_concern)
{
    struct bed_agent *a = start_alone(), *b = start(1), *c = start(2);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(b) > 0 && engine_bed_owned(c) > 0));
    c->told_of_moves = 0;
    struct bed_agent *d = start(3);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(d) > 0 && c->told_of_moves > 0));
    leave_clean(d);
    leave_clean(c);
    leave_clean(b);
    leave_clean(a);
    engine_bed_close(&bed);
}

Test(engine, what_is_told_of_a_move_is_believed_for_forwarding_only)
{
    struct bed_agent *a = start_alone(), *b = start(1);
    cr_assert(engine_bed_until(&bed, spread(a, b)));
    uint16_t own = slot_of(b);
    uint64_t epoch = 0;
    char text[256];
    cr_assert(
        engine_bed_until(&bed, strcmp(engine_owner(a->engine, own, &epoch), engine_member(b->engine)) == 0));
    (void)snprintf(text, sizeof(text), "{\"to\":\"%s\",\"slots\":[%u],\"epochs\":[%llu]}",
                   engine_member(a->engine), own, (unsigned long long)epoch + 1);
    cr_assert(eq(int, say(b, "moved", text), 200));
    cr_assert(eq(u16, slot_of(b), own), "it owns what it owned");
    cr_assert(eq(str, (char *)engine_owner(b->engine, own, NULL), (char *)engine_member(b->engine)));
    leave_clean(b);
    leave_clean(a);
    engine_bed_close(&bed);
}

/* --- time ---------------------------------------------------------------------------------------------------------- */

#define HOUR_US (INT64_C(3600) * 1000000)

Test(engine, a_clock_that_was_ahead_at_the_start_makes_nothing_early)
{
    engine_bed_shift_wall(&bed, HOUR_US);
    engine_bed_open(&bed);
    struct bed_agent *a = start(0);
    cr_assert(engine_bed_until(&bed, engine_bed_owned(a) == BED_SLOTS));
    cr_assert(not(clock_guard_sure(bed.clock)));
    cr_assert(not(engine_may_start(a->engine)));
    engine_bed_shift_wall(&bed, 0);
    cr_assert(engine_bed_until(&bed, engine_may_start(a->engine)));
    create_jobs(5, "@after 30m");
    engine_bed_run_ms(&bed, 300);
    cr_assert(zero(sz, engine_bed_fires(&bed, NULL)));
    create_jobs(5, "@every 1s");
    cr_assert(fire_on(5));
    leave_clean(a);
    engine_bed_close(&bed);
}

Test(engine, each_step_of_making_one_may_fail_and_leaves_nothing_behind)
{
    unsigned faults = 0;
    engine_bed_open(&bed);
    struct bed_agent *a = engine_bed_start_under_faults(&bed, 0, &faults);
    cr_assert(gt(uint, faults, 2));
    cr_assert(engine_bed_until(&bed, engine_bed_owned(a) == BED_SLOTS), "%zu slots", engine_bed_owned(a));
    leave_clean(a);
    engine_bed_close(&bed);
}
