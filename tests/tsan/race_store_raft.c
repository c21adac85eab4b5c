/* The Raft-log store at work: the loop commits, its readers' threads read, its own thread applies and writes snapshots, and it is closed
 * in the middle of that and opened again. Run under ThreadSanitizer by `make check-tsan`. */
#include <dirent.h>
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

enum { LIVES = 3, ROUNDS = 60, BATCH = 20, READS = 6 };

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

static unsigned pages, rows, cancelled;
static bool closing;
static const struct store_filter all_jobs = {.state = -1, .last_outcome = -1, .limit = 500};
static struct contract t = {.ops = &store_raft};

static int64_t now_ms(void *arg)
{
    (void)arg;
    return clock_wall_ms();
}

/* Each read is asked again as soon as it is answered. */
static void on_page(void *arg, const struct err *e, struct store_page *page)
{
    (void)arg;
    pages++;
    cancelled += e->code == ERR_CANCELLED;
    rows += page ? (unsigned)page->jobs_count : 0;
    if (!closing)
        t.ops->list_jobs(t.self, &all_jobs, on_page, NULL);
}

static void open_store(char *dir, struct tzload *zones)
{
    struct err e = {0};
    struct store_raft_options options = {.dir = dir, .snapshot_entries = 16};
    struct store_open_args args = {.loop = t.loop,
                                   .options = &options,
                                   .cluster = "race",
                                   .slots = CONTRACT_SLOTS,
                                   .member = "m1",
                                   .zones = zones,
                                   .now_ms = now_ms};
    closing = false;
    CHECK(t.ops->open(&args, &t.self, &t.meta, &e) == 0, "%s", e.text);
}

static void commit_round(struct job_spec *spec, uint32_t first)
{
    struct job_change c[BATCH];
    for (uint32_t i = 0; i < BATCH; i++) {
        char id[32];
        uint32_t n = first + i;
        (void)snprintf(id, sizeof(id), "job-%08u", n);
        struct job_row row = contract_row((uint16_t)(n % CONTRACT_SLOTS), n, "default", id);
        c[i] = contract_change(CHANGE_INSERT, &row);
        c[i].spec = spec;
    }
    contract_commit(&t, c, BATCH);
}

static void live(unsigned life, struct job_spec *spec)
{
    char member[16];
    struct replica_stats stats;
    (void)snprintf(member, sizeof(member), "m%u", life + 1);
    CHECK(contract_join(&t, member) == ERR_OK, "%s", member);
    for (int i = 0; i < READS; i++)
        t.ops->list_jobs(t.self, &all_jobs, on_page, NULL);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        if (life == 0) /* the contract commits as m1, which is dead after that */
            commit_round(spec, round * BATCH);
        contract_free(contract_beat(&t, member));
        store_raft_snapshot(t.self);
        store_raft_stats(t.self, &stats);
    }
    closing = true;
}

static void remove_all(const char *dir)
{
    DIR *d = opendir(dir);
    CHECK(d, "%s", dir);
    for (struct dirent *f; (f = readdir(d));)
        if (f->d_name[0] != '.')
            (void)unlinkat(dirfd(d), f->d_name, 0);
    (void)closedir(d);
    (void)rmdir(dir);
}

int main(void)
{
    struct err e = {0};
    struct tzload *zones;
    char dir[] = "/tmp/carillon-race-XXXXXX";
    CHECK(mkdtemp(dir), "%s", dir);
    CHECK(loop_new(&t.loop, &e) == 0 && tzload_new(NULL, &zones, &e) == 0, "%s", e.text);
    struct job_spec *spec = contract_spec("default", "a", "\"labels\":{\"team\":\"pay\"}");
    for (unsigned life = 0; life < LIVES; life++) {
        open_store(dir, zones);
        live(life, spec);
        t.ops->close(t.self);
    }
    job_spec_unref(spec);
    tzload_free(zones);
    loop_free(t.loop);
    remove_all(dir);
    printf("%u pages, %u jobs read, %u cancelled\n", pages, rows, cancelled);
    return rows >= ROUNDS * BATCH ? 0 : 1;
}
