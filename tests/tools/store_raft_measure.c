/* Figures of the Raft-log store on this machine:
 *   store_raft_measure DIR JOBS    fill an empty store in DIR with JOBS jobs, change them, take a snapshot meanwhile, open it again */
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/io/tzload.h"
#include "agent/store/raft/replica.h"
#include "agent/store/store_raft.h"

static void contract_fail(const char *file, int line, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), noreturn));

#include "tests/unit/store/store_contract.h"

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

#define BATCH 500

static int64_t now_ms(void *arg)
{
    (void)arg;
    return clock_wall_ms();
}

static void open_store(struct contract *t, const char *dir, struct tzload *zones)
{
    struct err e = {0};
    struct store_raft_options options = {.dir = (char *)dir, .snapshot_entries = 1000000};
    struct store_open_args args = {.loop = t->loop,
                                   .options = &options,
                                   .cluster = "measure",
                                   .slots = CONTRACT_SLOTS,
                                   .member = "m1",
                                   .zones = zones,
                                   .now_ms = now_ms};
    uint64_t start = clock_boot_us();
    CHECK(t->ops->open(&args, &t->self, &t->meta, &e) == 0, "%s", e.text);
    (void)printf("open: %.1f ms\n", (double)(clock_boot_us() - start) / 1e3);
}

static size_t memory_bytes(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%*u %lu", &pages) == 1, "%s", "statm");
    (void)fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void commit_range(struct contract *t, enum change_op op, struct job_spec *spec, uint32_t first,
                         uint32_t count, uint64_t rev)
{
    struct job_change *c = mem_new_array(struct job_change, count);
    for (uint32_t i = 0; i < count; i++) {
        char id[32];
        uint32_t n = first + i;
        (void)snprintf(id, sizeof(id), "job-%08u", n);
        struct job_row row = contract_row((uint16_t)(n % CONTRACT_SLOTS), n, "default", id);
        row.rev = rev;
        row.wake_ms += (int64_t)rev * 1000;
        row.counts.seq = row.counts.succeeded = rev;
        c[i] = contract_change(op, &row);
        c[i].spec = spec;
    }
    contract_commit(t, c, count);
    CHECK(c[count - 1].result == CHANGE_RESULT_OK, "%d", (int)c[count - 1].result);
    mem_free(c);
}

static struct replica_stats stats_of(struct contract *t)
{
    struct replica_stats s;
    store_raft_stats(t->self, &s);
    return s;
}

static void fill(struct contract *t, struct job_spec *spec, uint32_t jobs)
{
    size_t before = memory_bytes();
    uint64_t start = clock_boot_us();
    for (uint32_t n = 0; n < jobs; n += BATCH)
        commit_range(t, CHANGE_INSERT, spec, n, BATCH, 1);
    double s = (double)(clock_boot_us() - start) / 1e6;
    (void)printf("insert: %u jobs in %.1f s, %.0f a second, in batches of %d\n", jobs, s, jobs / s, BATCH);
    (void)printf("memory with the log: %zu bytes a job\n", (memory_bytes() - before) / jobs);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *what, uint64_t *us, size_t n)
{
    qsort(us, n, sizeof(*us), compare_u64);
    (void)printf("%s: %zu, ms p50 %.2f p99 %.2f max %.2f\n", what, n, (double)us[n / 2] / 1e3,
                 (double)us[n * 99 / 100] / 1e3, (double)us[n - 1] / 1e3);
}

#define TIMES_MAX 200000

/* Commits of one row, for MS at least, and as long as a snapshot that was ASKED for takes. */
static void change_some(struct contract *t, uint32_t first, uint32_t jobs, const char *what, bool asked)
{
    uint64_t *us = mem_new_array(uint64_t, TIMES_MAX), snapshots = stats_of(t).snapshots;
    size_t n = 0;
    uint64_t until = clock_boot_ms() + 2000;
    if (asked)
        store_raft_snapshot(t->self);
    while (n < TIMES_MAX && n < jobs &&
           (asked ? stats_of(t).snapshots == snapshots : clock_boot_ms() < until)) {
        uint64_t start = clock_boot_us();
        commit_range(t, CHANGE_UPDATE, NULL, first + (uint32_t)n, 1, 1);
        us[n++] = clock_boot_us() - start;
    }
    print_times(what, us, n);
    mem_free(us);
}

int main(int argc, char **argv)
{
    struct contract t = {.ops = &store_raft};
    struct err e = {0};
    struct tzload *zones;
    if (argc != 3)
        return 2;
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* only when lines appear */
    uint32_t jobs = (uint32_t)strtoul(argv[2], NULL, 10) / BATCH * BATCH;
    CHECK(loop_new(&t.loop, &e) == 0 && tzload_new(NULL, &zones, &e) == 0, "%s", e.text);
    open_store(&t, argv[1], zones);
    CHECK(contract_join(&t, "m1") == ERR_OK, "%s", "join");
    struct job_spec *spec =
        contract_spec("default", "a", "\"labels\":{\"team\":\"pay\"},\"payload\":{\"invoice\":42}");
    fill(&t, spec, jobs);
    change_some(&t, 0, jobs / 2, "commits of one row", false);
    change_some(&t, jobs / 2, jobs / 2, "commits of one row while a snapshot is written", true);
    struct replica_stats s = stats_of(&t);
    (void)malloc_trim(0);
    (void)printf("snapshot: %.1f MiB in %llu ms; memory of the process then %.0f MiB, %zu bytes a job\n",
                 (double)s.snapshot_bytes / 1048576, (unsigned long long)s.snapshot_ms,
                 (double)memory_bytes() / 1048576, memory_bytes() / jobs);
    t.ops->close(t.self);
    (void)malloc_trim(0);
    open_store(&t, argv[1], zones);
    (void)malloc_trim(0);
    (void)printf("after opening: %zu bytes a job\n", memory_bytes() / jobs);
    t.ops->close(t.self);
    job_spec_unref(spec);
    tzload_free(zones);
    loop_free(t.loop);
    return 0;
}
