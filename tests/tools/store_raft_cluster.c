/* Figures of the Raft-log store with three voters on this machine, each a thread of this process, over loopback with the secret's TLS:
 *   store_raft_cluster ROUNDS    what is committed in a second, and for how long nothing is when the leader is lost, ROUNDS times
 *   store_raft_cluster 0 JOBS    for how long a voter is not heard that takes over a snapshot of JOBS jobs */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void contract_fail(const char *file, int line, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), noreturn));

#include "tests/unit/store/store_raft_bed.h"

static void contract_fail(const char *file, int line, const char *what, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)fprintf(stderr, "%s:%d: %s: ", file, line, what);
    (void)vfprintf(stderr, fmt, ap);
    (void)fprintf(stderr, "\n");
    va_end(ap);
    abort();
}

#define SECONDS_MS 3000
#define ROWS_MAX   500
#define BEHIND     400

static uint32_t made;

/* New jobs, BATCH in a commit, one commit after the other. */
static void measure_commits(struct contract *t, const char *where, size_t batch)
{
    struct job_change *c = mem_new_array(struct job_change, batch);
    struct job_spec *spec = contract_spec("default", "x", "\"payload\":{\"n\":1}");
    uint64_t began_us = clock_boot_us(), commits = 0, rows = 0;
    while (clock_boot_us() - began_us < SECONDS_MS * 1000) {
        for (size_t i = 0; i < batch; i++) {
            char id[32];
            (void)snprintf(id, sizeof(id), "job-%08u", made);
            struct job_row row = contract_row((uint16_t)(made % CONTRACT_SLOTS), made, "default", id);
            made++;
            c[i] = contract_change(CHANGE_INSERT, &row);
            c[i].spec = spec;
        }
        contract_commit(t, c, batch);
        commits++;
        rows += batch;
    }
    double s = (double)(clock_boot_us() - began_us) / 1e6;
    (void)printf("%s, %zu rows a commit: %.0f commits/s, %.0f rows/s, %.2f ms each\n", where, batch,
                 (double)commits / s, (double)rows / s, s * 1e3 / (double)commits);
    job_spec_unref(spec);
    mem_free(c);
}

static void measure_reads(struct contract *t, const char *where)
{
    uint64_t began_us = clock_boot_us(), reads = 0;
    while (clock_boot_us() - began_us < SECONDS_MS * 1000 / 3) {
        contract_free(contract_get(t, "default", "job-00000000"));
        reads++;
    }
    (void)printf("%s: a read takes %.2f ms\n", where,
                 (double)(clock_boot_us() - began_us) / 1e3 / (double)reads);
}

/* From the moment the leader is gone to the next commit. */
static uint64_t lose_leader(struct cluster_bed *b, struct contract *t, bool planned)
{
    struct bed_node *leader = bed_wait_leader(b);
    uint64_t began_ms = clock_boot_ms();
    if (planned)
        bed_end(leader);
    else
        store_raft_cluster_cut(leader->cluster, true);
    char member[32];
    (void)snprintf(member, sizeof(member), "m%u", ++made);
    CHECK(contract_join(t, member) == ERR_OK, "%s", member);
    uint64_t ms = clock_boot_ms() - began_ms;
    if (!planned) {
        bed_end(leader);
    }
    bed_start(b, leader, true);
    bed_attach(b, leader);
    return ms;
}

static void measure_losses(struct cluster_bed *b, struct contract *t, unsigned rounds, bool planned)
{
    uint64_t sum = 0, worst = 0;
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t ms = lose_leader(b, t, planned);
        sum += ms;
        worst = ms > worst ? ms : worst;
    }
    (void)printf("%s, %u times: the next commit after %.0f ms on average, %llu ms at worst\n",
                 planned ? "the leader is stopped" : "the leader vanishes without a word", rounds,
                 (double)sum / rounds, (unsigned long long)worst);
}

/* --- a snapshot ---------------------------------------------------------------------------------------------------- */

/* Up to JOBS of them, BATCH in an entry. */
static void fill(struct contract *t, uint32_t jobs, size_t batch)
{
    struct job_change *c = mem_new_array(struct job_change, ROWS_MAX);
    struct job_spec *spec = contract_spec("default", "x", "\"payload\":{\"n\":1}");
    while (made < jobs) {
        for (size_t i = 0; i < batch; i++, made++) {
            char id[32];
            (void)snprintf(id, sizeof(id), "job-%08u", made);
            struct job_row row = contract_row((uint16_t)(made % CONTRACT_SLOTS), made, "default", id);
            c[i] = contract_change(CHANGE_INSERT, &row);
            c[i].spec = spec;
        }
        contract_commit(t, c, batch);
    }
    job_spec_unref(spec);
    mem_free(c);
}

static bool is_reached(struct bed_node *from, uint64_t id)
{
    struct store_raft_status s = bed_status(from);
    for (size_t i = 0; i < s.voters; i++)
        if (s.list[i].id == id)
            return s.list[i].reached;
    return false;
}

/* Of calls that AWAY makes until it has taken over the snapshot and all behind it, the slowest; and whether the others lost it. */
static void measure_take_over(struct cluster_bed *b, struct bed_node *leader, struct bed_node *away)
{
    uint64_t began_ms = clock_boot_ms(), slowest_us = 0, silent_ms = 0, lost_ms = 0;
    while (bed_stats(away).installs == 0 || bed_status(away).applied + 50 < bed_status(leader).applied) {
        uint64_t call_us = clock_boot_us(), now_ms = clock_boot_ms();
        contract_free(contract_get(&away->t, "default", "job-00000000"));
        uint64_t took_us = clock_boot_us() - call_us;
        slowest_us = bed_stats(away).installs > 0 && took_us > slowest_us ? took_us : slowest_us;
        if (is_reached(leader, away->id))
            lost_ms = 0;
        else
            lost_ms = lost_ms ? lost_ms : now_ms;
        if (lost_ms && bed_stats(away).installs > 0 && now_ms - lost_ms > silent_ms)
            silent_ms = now_ms - lost_ms;
        bed_turn(b);
    }
    for (uint64_t until_ms = clock_boot_ms() + 5000; clock_boot_ms() < until_ms; bed_turn(b)) {
        uint64_t call_us = clock_boot_us();
        contract_free(contract_get(&away->t, "default", "job-00000000"));
        slowest_us = clock_boot_us() - call_us > slowest_us ? clock_boot_us() - call_us : slowest_us;
    }
    (void)printf(
        "a snapshot of %u jobs (%.1f MiB) is taken over: %llu ms; its slowest call %.1f ms, not reached for %llu ms; "
        "%llu elections\n",
        made, (double)bed_stats(away).snapshot_bytes / 1048576,
        (unsigned long long)(clock_boot_ms() - began_ms - 5000), (double)slowest_us / 1e3,
        (unsigned long long)silent_ms, (unsigned long long)bed_status(leader).elections);
}

static int take_over(uint32_t jobs)
{
    struct cluster_bed b;
    bed_open_loop(&b, "a secret");
    b.patience_ms = PATIENCE_MS;
    b.snapshot_entries = 1000000;
    bed_open_all(&b, 3, 0);
    struct bed_node *leader = bed_wait_leader(&b), *away = bed_follower(&b);
    CHECK(contract_join(&leader->t, "m1") == ERR_OK, "%s", "join");
    fill(&leader->t, jobs - BEHIND * 10, ROWS_MAX);
    store_raft_cluster_cut(away->cluster, true);
    fill(&leader->t, jobs, 10);                    /* more entries than are kept for who is behind */
    uint64_t before = bed_stats(leader).snapshots; /* many bytes bring about one, too */
    store_raft_snapshot(leader->t.self);
    BED_WAIT(&b, bed_stats(leader).snapshots > before);
    store_raft_cluster_cut(away->cluster, false);
    measure_take_over(&b, leader, away);
    bed_close_cluster(&b);
    return 0;
}

int main(int argc, char **argv)
{
    struct cluster_bed b;
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    if (argc == 3)
        return take_over((uint32_t)strtoul(argv[2], NULL, 10));
    if (rounds == 0) {
        (void)fprintf(stderr, "usage: store_raft_cluster ROUNDS | 0 JOBS\n");
        return 2;
    }
    bed_open_cluster(&b, 3, 1, "a secret");
    struct contract *client = &b.nodes[3].t, *leader = &bed_wait_leader(&b)->t;
    CHECK(contract_join(client, "m1") == ERR_OK, "%s", "join");
    measure_commits(leader, "at the leader", 1);
    measure_commits(client, "at a client", 1);
    measure_commits(leader, "at the leader", ROWS_MAX);
    measure_commits(client, "at a client", ROWS_MAX);
    measure_reads(&bed_wait_leader(&b)->t, "at the leader");
    measure_reads(client, "at a client");
    measure_losses(&b, client, rounds, false);
    measure_losses(&b, client, rounds, true);
    bed_close_cluster(&b);
    return 0;
}
