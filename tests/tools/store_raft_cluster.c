/* Figures of the Raft-log store with three voters on this machine, each a thread of this process, over loopback with the secret's TLS:
 *   store_raft_cluster ROUNDS    what is committed in a second, and for how long nothing is when the leader is lost, ROUNDS times */
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

int main(int argc, char **argv)
{
    struct cluster_bed b;
    unsigned rounds = argc == 2 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    if (rounds == 0) {
        (void)fprintf(stderr, "usage: store_raft_cluster ROUNDS\n");
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
