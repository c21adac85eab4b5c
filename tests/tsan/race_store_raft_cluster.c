/* Three voters and a client of the Raft-log store in one process: all commit, read and look at each other, while leaders are stopped and
 * started again. Run under ThreadSanitizer by `make check-tsan`. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void contract_fail(const char *file, int line, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), noreturn));

#include "tests/unit/store/store_raft_bed.h"

enum { LIVES = 2, ROUNDS = 15, BATCH = 20 };

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

static void commit_round(struct contract *t, struct job_spec *spec, uint32_t first)
{
    struct job_change c[BATCH];
    for (uint32_t i = 0; i < BATCH; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "job-%08u", first + i);
        struct job_row row = contract_row((uint16_t)(i % CONTRACT_SLOTS), first + i, "default", id);
        c[i] = contract_change(CHANGE_INSERT, &row);
        c[i].spec = spec;
    }
    contract_commit(t, c, BATCH);
}

static void look(struct cluster_bed *b)
{
    for (size_t i = 0; i < b->count; i++) {
        struct bed_node *n = &b->nodes[i];
        (void)bed_status(n); /* races with the threads of all */
        (void)bed_stats(n);
        store_raft_snapshot(n->t.self);
        contract_free(contract_get(&n->t, "default", "job-00000000"));
    }
}

int main(void)
{
    struct cluster_bed b;
    struct job_spec *spec = contract_spec("default", "x", "\"payload\":{\"n\":1}");
    uint32_t made = 0;
    bed_open_cluster(&b, 3, 1, "a secret");
    CHECK(contract_join(&b.nodes[3].t, "m1") == ERR_OK, "%s", "join");
    for (unsigned life = 0; life < LIVES; life++) {
        for (unsigned round = 0; round < ROUNDS; round++, made += BATCH) {
            commit_round(&b.nodes[round % 4].t, spec, made);
            contract_free(contract_beat(&b.nodes[3].t, "m1"));
            look(&b);
        }
        struct bed_node *leader = bed_wait_leader(&b);
        bed_end(leader);
        bed_start(&b, leader, true);
        bed_attach(&b, leader);
    }
    (void)printf("%u jobs, %llu calls asked again\n", made,
                 (unsigned long long)bed_stats(&b.nodes[3]).repeats);
    job_spec_unref(spec);
    bed_close_cluster(&b);
    return 0;
}
