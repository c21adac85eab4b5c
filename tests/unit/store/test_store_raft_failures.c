#include <criterion/criterion.h>

#include <stdio.h>

#define contract_fail(file, line, what, ...)                            \
    do {                                                                \
        char text_[1024];                                               \
        (void)snprintf(text_, sizeof(text_), __VA_ARGS__);              \
        cr_assert_fail("%s:%d: %s: %s", (file), (line), (what), text_); \
    } while (0)

#include "tests/unit/store/store_raft_bed.h"

/* --- a writer that never waits for anything but its own answers ---------------------------------------------------- */

enum { JOBS = 40 };

/* Makes jobs, then adds 1 to the revision of one after the other, each from the one that was acknowledged. What is not acknowledged is
 * tried again, as the engine does. */
struct writer {
    struct cluster_bed *b;
    struct bed_node *n;
    struct job_row rows[JOBS];
    struct job_change change;
    struct job_change *list[1];
    struct store_batch batch;
    unsigned at;
    unsigned acknowledged, refused; /* changes; answers that were no success */
    bool busy;
};

static void on_written(void *arg, const struct err *e)
{
    struct writer *w = arg;
    w->busy = false;
    if (e->code != ERR_OK) {
        CHECK(e->code == ERR_UNAVAILABLE || e->code == ERR_UNKNOWN_OUTCOME, "%s", e->text);
        w->refused++;
        return;
    }
    CHECK(w->change.result == CHANGE_RESULT_OK, "result %d of change %u", (int)w->change.result,
          w->acknowledged);
    w->rows[w->at] = w->change.row;
    w->acknowledged++;
    w->at = (w->at + 1) % JOBS;
}

static void write_next(struct writer *w)
{
    if (w->busy)
        return;
    w->change = contract_change(CHANGE_UPDATE, &w->rows[w->at]);
    w->change.row.counts.seq = w->change.row.rev;
    w->change.result = CHANGE_RESULT_COUNT_;
    w->list[0] = &w->change;
    w->batch = (struct store_batch){.member = "m1", .jobs = w->list, .jobs_count = 1};
    w->busy = true;
    w->n->t.ops->commit(w->n->t.self, &w->batch, on_written, w);
}

static void writer_open(struct writer *w, struct cluster_bed *b, struct bed_node *n)
{
    *w = (struct writer){.b = b, .n = n};
    CHECK(contract_join(&n->t, "m1") == ERR_OK, "%s", "join");
    for (unsigned i = 0; i < JOBS; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%u", i);
        w->rows[i] = contract_make(&n->t, (uint16_t)(i % CONTRACT_SLOTS), i, "default", id, "");
    }
}

/* COUNT more that are acknowledged. */
static void write_some(struct writer *w, unsigned count)
{
    unsigned until = w->acknowledged + count;
    uint64_t deadline_ms = clock_boot_ms() + PATIENCE_MS;
    while (w->acknowledged < until) {
        CHECK(clock_boot_ms() < deadline_ms, "%u of %u", w->acknowledged, until);
        write_next(w);
        bed_turn(w->b);
    }
    BED_WAIT(w->b, !w->busy);
}

/* Each job is exactly as it was acknowledged last: nothing lost, nothing done twice. Asked at N. */
static void expect_written(struct writer *w, struct bed_node *n)
{
    for (unsigned i = 0; i < JOBS; i++) {
        struct contract_answer *a = contract_get(&n->t, "default", w->rows[i].id);
        CHECK(a->jobs[0].spec != NULL, "job %u", i);
        contract_same_row(&a->jobs[0].row, &w->rows[i]);
        contract_free(a);
    }
}

/* --- leaders ------------------------------------------------------------------------------------------------------- */

Test(store_raft_failures, a_leader_that_is_killed_in_the_middle_of_commits_loses_nothing_acknowledged)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_cluster(&b, 3, 1, NULL);
    writer_open(&w, &b, &b.nodes[3]);
    for (unsigned round = 0; round < 3; round++) {
        write_some(&w, 30);
        write_next(&w); /* is under way */
        struct bed_node *leader = bed_wait_leader(&b);
        bed_kill(leader);
        write_some(&w, 30);
        expect_written(&w, w.n);
        bed_start(&b, leader, true);
        bed_attach(&b, leader);
    }
    expect_written(&w, bed_follower(&b));
    bed_close_cluster(&b);
}

/* The leader and a follower of five, then one more: what is left is no majority, until one is back. */
Test(store_raft_failures, of_five_voters_two_may_be_lost_and_not_three)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_cluster(&b, 5, 1, NULL);
    writer_open(&w, &b, &b.nodes[5]);
    struct bed_node *dead[3] = {bed_wait_leader(&b), bed_follower(&b)};
    bed_kill(dead[0]);
    bed_kill(dead[1]);
    write_some(&w, 30);
    dead[2] = bed_wait_leader(&b);
    bed_kill(dead[2]);
    write_next(&w);
    for (unsigned turn = 0; turn < 100; turn++)
        bed_turn(&b);
    CHECK(w.busy && bed_leader(&b) == NULL, "%s", "two of five answer");
    bed_start(&b, dead[0], true);
    bed_attach(&b, dead[0]);
    write_some(&w, 30);
    expect_written(&w, w.n);
    bed_close_cluster(&b);
}

/* Answered at once by a leader; not at all by one whose term may be over. */
Test(store_raft_failures, a_leader_that_is_cut_off_answers_nothing_that_is_not_current)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_cluster(&b, 3, 1, NULL);
    writer_open(&w, &b, &b.nodes[3]);
    struct bed_node *old = bed_wait_leader(&b);
    store_raft_cluster_cut(old->cluster, true);
    struct contract_answer *job = contract_ask(&old->t), *beat = contract_ask(&old->t);
    struct store_key key = {.ns = "default", .id = "j0"};
    old->t.ops->get_jobs(old->t.self, &key, 1, contract_on_jobs, job);
    old->t.ops->beat(old->t.self, "m1", contract_on_beat, beat);
    write_some(&w, JOBS + 1); /* others lead by now */
    CHECK(bed_leader(&b) != old, "%s", "it leads still");
    CHECK(job->calls == 0 && beat->calls == 0, "%s", "answered without a majority");
    store_raft_cluster_cut(old->cluster, false);
    BED_WAIT(&b, job->calls == 1 && beat->calls == 1);
    contract_ok(job);
    contract_same_row(&job->jobs[0].row, &w.rows[0]);
    CHECK(beat->err.code == ERR_OK && beat->alive, "%s", beat->err.text);
    contract_free(job);
    contract_free(beat);
    BED_WAIT(&b, bed_status(old).role == STORE_RAFT_FOLLOWER && bed_status(old).leader != 0);
    expect_written(&w, old);
    bed_close_cluster(&b);
}

static void join_at_last(struct contract *t, const char *member)
{
    enum err_code code;
    uint64_t until_ms = clock_boot_ms() + PATIENCE_MS;
    do {
        code = contract_join(t, member);
        CHECK(code == ERR_OK || clock_boot_ms() < until_ms, "%s", err_code_name(code));
    } while (code != ERR_OK);
}

Test(store_raft_failures, a_minority_never_answers_with_success)
{
    struct cluster_bed b;
    bed_open_impatient(&b, 3, 2000);
    struct bed_node *leader = bed_wait_leader(&b);
    join_at_last(&leader->t, "m1");
    for (size_t i = 0; i < 3; i++)
        if (&b.nodes[i] != leader)
            store_raft_cluster_cut(b.nodes[i].cluster, true);
    enum err_code code = contract_join(&leader->t, "m2");
    CHECK(code == ERR_UNAVAILABLE || code == ERR_UNKNOWN_OUTCOME, "%s", err_code_name(code));
    struct contract_answer *a = contract_ask(&leader->t);
    leader->t.ops->beat(leader->t.self, "m1", contract_on_beat, a);
    contract_wait(a);
    CHECK(a->err.code == ERR_UNAVAILABLE || a->err.code == ERR_UNKNOWN_OUTCOME, "%s", a->err.text);
    contract_free(a);
    for (size_t i = 0; i < 3; i++)
        store_raft_cluster_cut(b.nodes[i].cluster, false);
    join_at_last(&b.nodes[0].t, "m3");
    bed_close_cluster(&b);
}

Test(store_raft_failures, a_planned_stop_hands_over_and_nothing_fails)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_cluster(&b, 3, 1, "a secret");
    writer_open(&w, &b, &b.nodes[3]);
    struct bed_node *leader = bed_wait_leader(&b);
    write_next(&w);
    bed_end(leader);
    struct bed_node *next = bed_wait_leader(&b);
    CHECK(next != leader, "%s", "it leads still");
    write_some(&w, 20);
    CHECK(w.refused == 0, "%u were refused", w.refused);
    expect_written(&w, w.n);
    bed_close_cluster(&b);
}

/* What an observer has seen of a beat is of no use after another leads: it counts anew. */
Test(store_raft_failures, no_member_is_declared_dead_because_another_leads)
{
    struct cluster_bed b;
    bed_open_cluster(&b, 3, 1, NULL);
    struct contract *t = &b.nodes[3].t;
    CHECK(contract_join(t, "m1") == ERR_OK, "%s", "join");
    CHECK(contract_join(t, "m2") == ERR_OK, "%s", "join");
    contract_free(contract_beat(t, "m1"));
    struct contract_answer *a = contract_beat(t, "m2");
    uint64_t seen = a->members[0].beat;
    contract_free(a);
    bed_kill(bed_wait_leader(&b));
    (void)bed_wait_leader(&b); /* there is one */
    a = contract_beat(t, "m2");
    CHECK(a->members_count == 2 && a->members[0].beat > seen, "%s", "the beat has not moved");
    contract_free(a);
    a = contract_ask(t);
    t->ops->declare_dead(t->self, "m1", seen, contract_on_bool, a);
    contract_wait(a);
    CHECK(a->err.code == ERR_OK && !a->yes, "%s", "declared dead by an old beat");
    contract_free(a);
    a = contract_beat(t, "m1");
    CHECK(a->alive, "%s", "m1 is dead");
    contract_free(a);
    bed_close_cluster(&b);
}

/* --- folders ------------------------------------------------------------------------------------------------------- */

Test(store_raft_failures, what_was_written_is_there_when_all_start_again)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_cluster(&b, 3, 0, NULL);
    struct store_meta made = b.nodes[0].t.meta;
    writer_open(&w, &b, &b.nodes[0]);
    write_some(&w, 150); /* with a snapshot */
    for (size_t i = 0; i < 3; i++)
        bed_end(&b.nodes[i]);
    for (size_t i = 0; i < 3; i++)
        bed_start(&b, &b.nodes[i], true);
    for (size_t i = 0; i < 3; i++)
        bed_attach(&b, &b.nodes[i]);
    made.schema = b.nodes[2].t.meta.schema; /* the version is agreed on meanwhile, or known a moment later */
    CHECK(memcmp(&made, &b.nodes[2].t.meta, sizeof(made)) == 0, "%s", "another store");
    expect_written(&w, &b.nodes[1]);
    bed_close_cluster(&b);
}

static void lead_alone(struct cluster_bed *b, struct bed_node *n)
{
    b->voters_count = 0;
    bed_name(b, n);
    for (size_t i = 0; i < b->count; i++)
        if (b->nodes[i].cluster)
            store_raft_cluster_set_voters(b->nodes[i].cluster, b->voters, b->voters_count);
    BED_WAIT(b, bed_leader(b) == n && bed_status(n).voters == 1);
}

Test(store_raft_failures, who_was_away_for_long_gets_a_snapshot)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_cluster(&b, 3, 1, "a secret");
    writer_open(&w, &b, &b.nodes[3]);
    struct bed_node *away = bed_follower(&b);
    store_raft_cluster_cut(away->cluster, true);
    write_some(&w, 700);
    store_raft_cluster_cut(away->cluster, false);
    write_some(&w, 100); /* also while the snapshot becomes the state */
    BED_WAIT(&b, bed_stats(away).installs > 0);
    write_some(&w, 20);
    lead_alone(&b, away); /* its machine answers now, and no other's */
    expect_written(&w, away);
    bed_close_cluster(&b);
}

Test(store_raft_failures, a_folder_is_one_nodes_or_a_clusters_or_another_voters)
{
    struct cluster_bed b;
    struct err e = {0};
    uint64_t number = 99;
    void *self = NULL;
    struct store_meta meta;
    bed_open_cluster(&b, 1, 0, NULL);
    struct bed_node *n = &b.nodes[0];
    struct store_raft_options options = {.dir = n->dir, .snapshot_entries = 100};
    struct store_open_args args = {.loop = b.loop,
                                   .options = &options,
                                   .cluster = "test",
                                   .slots = CONTRACT_SLOTS,
                                   .now_ms = bed_now_ms};
    bed_end(n);
    CHECK(store_raft_cluster_number(n->dir, &number, &e) == 0 && number == 1, "%s", e.text);
    CHECK(store_raft.open(&args, &self, &meta, &e) == -ERR_PERMANENT, "%s", "opened alone");
    CHECK(strstr(e.text, "voter's of a cluster"), "%s", e.text);
    n->id = 2;
    struct store_raft_cluster_options o = {
        .loop = b.loop, .dir = n->dir, .name = "test", .slots = CONTRACT_SLOTS, .now_ms = bed_now_ms};
    CHECK(store_raft_cluster_new(&o, &n->cluster, &e) == 0, "%s", e.text);
    CHECK(store_raft_cluster_vote(n->cluster, 2, -1, NULL, 0, &e) == -ERR_PERMANENT, "%s", "voter 2");
    CHECK(strstr(e.text, "voter 1, not of voter 2"), "%s", e.text);
    bed_close_cluster(&b);
}

Test(store_raft_failures, one_nodes_folder_is_no_clusters)
{
    struct cluster_bed b;
    struct err e = {0};
    uint64_t number = 99;
    struct store_meta meta;
    bed_open_loop(&b, NULL);
    struct bed_node *n = bed_add(&b, 0);
    struct store_raft_options options = {.dir = n->dir, .snapshot_entries = 100};
    struct store_open_args args = {.loop = b.loop,
                                   .options = &options,
                                   .cluster = "test",
                                   .slots = CONTRACT_SLOTS,
                                   .now_ms = bed_now_ms};
    CHECK(store_raft_cluster_number(n->dir, &number, &e) == 0 && number == 0, "%s", e.text);
    CHECK(store_raft.open(&args, &n->t.self, &meta, &e) == 0, "%s", e.text);
    n->t.ops = &store_raft;
    bed_detach(n);
    CHECK(store_raft_cluster_number(n->dir, &number, &e) == -ERR_EXISTS, "%s", "a number");
    CHECK(strstr(e.text, "agent alone"), "%s", e.text);
    bed_close_cluster(&b);
}

static void open_alone(struct cluster_bed *b, struct bed_node *n)
{
    struct err e = {0};
    struct store_raft_options options = {.dir = n->dir, .snapshot_entries = 100};
    struct store_open_args args = {.loop = b->loop,
                                   .options = &options,
                                   .cluster = "test",
                                   .slots = CONTRACT_SLOTS,
                                   .member = "m1",
                                   .zones = b->zones,
                                   .now_ms = bed_now_ms};
    n->t.ops = &store_raft;
    n->t.loop = b->loop;
    CHECK(store_raft.open(&args, &n->t.self, &n->t.meta, &e) == 0, "%s", e.text);
}

/* COUNT: of what the store of one node has in its log, so that there is a snapshot or none. */
static void found_with(unsigned count)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_loop(&b, NULL);
    b.patience_ms = PATIENCE_MS;
    b.election_ms = 120;
    struct bed_node *founder = bed_add(&b, 7);
    open_alone(&b, founder);
    writer_open(&w, &b, founder);
    write_some(&w, count);
    bed_detach(founder);
    for (unsigned round = 0; round < 2; round++) { /* also after a crash before the folder had its number */
        b.voters_count = 0;
        bed_name(&b, founder);
        bed_start(&b, founder, true);
        (void)bed_wait_leader(&b); /* itself */
        if (round == 1)
            break;
        bed_kill(founder);
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/number", founder->dir);
        CHECK(unlink(path) == 0, "%s", path);
    }
    bed_attach(&b, founder);
    for (unsigned i = 0; i < 2; i++) {
        bed_name(&b, bed_add(&b, 8 + i));
        bed_start(&b, &b.nodes[1 + i], false);
    }
    for (size_t i = 0; i < 3; i++)
        store_raft_cluster_set_voters(b.nodes[i].cluster, b.voters, b.voters_count);
    BED_WAIT(&b, bed_status(founder).voters == 3 && bed_status(founder).list[1].votes &&
                     bed_status(founder).list[2].votes);
    for (size_t i = 1; i < 3; i++)
        bed_attach(&b, &b.nodes[i]);
    write_some(&w, JOBS);
    w.n = &b.nodes[1];
    bed_kill(founder);
    write_some(&w, JOBS);
    expect_written(&w, &b.nodes[2]);
    bed_close_cluster(&b);
}

Test(store_raft_failures, the_store_of_one_node_becomes_a_clusters_with_all_it_has)
{
    found_with(10);
}

Test(store_raft_failures, a_snapshot_of_one_node_becomes_a_clusters)
{
    found_with(700);
}

/* --- who votes ----------------------------------------------------------------------------------------------------- */

static void tell_all(struct cluster_bed *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->nodes[i].cluster)
            store_raft_cluster_set_voters(b->nodes[i].cluster, b->voters, b->voters_count);
}

static bool votes(const struct bed_node *n, uint64_t id)
{
    struct store_raft_status s = bed_status(n);
    for (size_t i = 0; i < s.voters; i++)
        if (s.list[i].id == id)
            return s.list[i].votes;
    return false;
}

/* The voters that B names vote, and nobody else. */
static bool settled(struct cluster_bed *b)
{
    struct bed_node *leader = bed_leader(b);
    if (!leader || bed_status(leader).voters != b->voters_count)
        return false;
    for (size_t i = 0; i < b->voters_count; i++)
        if (!votes(leader, b->voters[i].id))
            return false;
    return true;
}

Test(store_raft_failures, a_dead_voter_is_replaced_by_a_new_one)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_cluster(&b, 3, 1, NULL);
    writer_open(&w, &b, &b.nodes[3]);
    struct bed_node *dead = bed_follower(&b);
    bed_kill(dead);
    write_some(&w, 150);
    struct bed_node *fresh = bed_add(&b, 9);
    for (size_t i = 0; i < b.voters_count; i++)
        if (b.voters[i].id == dead->id)
            b.voters[i] = b.voters[--b.voters_count];
    bed_name(&b, fresh);
    bed_start(&b, fresh, false);
    CHECK(bed_status(fresh).role != STORE_RAFT_LEADER, "%s", "alone");
    tell_all(&b);
    BED_WAIT(&b, settled(&b));
    write_some(&w, 50);
    bed_attach(&b, fresh);
    lead_alone(&b, fresh);
    expect_written(&w, fresh);
    bed_close_cluster(&b);
}

Test(store_raft_failures, a_leader_that_is_to_vote_no_more_hands_over_and_learns_it)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_cluster(&b, 3, 1, NULL);
    writer_open(&w, &b, &b.nodes[3]);
    struct bed_node *leader = bed_wait_leader(&b);
    for (size_t i = 0; i < b.voters_count; i++)
        if (b.voters[i].id == leader->id)
            b.voters[i] = b.voters[--b.voters_count];
    tell_all(&b);
    BED_WAIT(&b, settled(&b));
    BED_WAIT(&b, bed_status(leader).role == STORE_RAFT_REMOVED);
    write_some(&w, 20);
    expect_written(&w, leader); /* as a client does */
    bed_close_cluster(&b);
}

Test(store_raft_failures, three_voters_become_five)
{
    struct cluster_bed b;
    struct writer w;
    bed_open_cluster(&b, 3, 0, "a secret");
    writer_open(&w, &b, &b.nodes[0]);
    for (uint64_t id = 4; id <= 5; id++) {
        struct bed_node *n = bed_add(&b, id);
        bed_name(&b, n);
        bed_start(&b, n, false);
    }
    tell_all(&b);
    BED_WAIT(&b, settled(&b));
    /* So the leader sees it; that a majority does too is said by what is acknowledged afterwards. */
    write_some(&w, 20);
    bed_attach(&b, &b.nodes[3]);
    bed_attach(&b, &b.nodes[4]);
    struct bed_node *first = bed_wait_leader(&b);
    bed_kill(first);
    struct bed_node *second = bed_wait_leader(&b);
    bed_kill(second); /* three of five are left */
    struct bed_node *third = bed_wait_leader(&b);
    if (!w.n->cluster)
        w.n = third;
    write_some(&w, 20);
    expect_written(&w, third);
    bed_close_cluster(&b);
}
