/* The raw limit of a database on this machine: bare statements of many rows, each a transaction, on one connection.
 *
 *   limit_mysql --socket S --user U --database D --rows R --batch B --seconds T --singles N
 *
 * The table has a job's key, its index by wake time and as much beside as a job's row; R rows are written in batches of B, then so
 * many are advanced for T seconds, then single rows are written, each a transaction. One thread. Prints one line of JSON. */
#include <mysql.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/clock.h"
#include "tests/bench/bench.h"

#define TEXT_MAX (8u << 20)

struct limit {
    MYSQL *mysql;
    struct buf text;
    uint64_t rows, batch;
};

static void run(struct limit *l)
{
    BENCH_CHECK(!buf_failed(&l->text), "out of memory");
    BENCH_CHECK(mysql_real_query(l->mysql, buf_str(&l->text), (unsigned long)l->text.len) == 0, "%s",
                mysql_error(l->mysql));
    buf_reset(&l->text);
}

static void run_text(struct limit *l, const char *text)
{
    buf_add_str(&l->text, text);
    run(l);
}

static void open_database(struct limit *l, int argc, char **argv)
{
    l->mysql = mysql_init(NULL);
    BENCH_CHECK(l->mysql, "out of memory");
    BENCH_CHECK(mysql_real_connect(l->mysql, NULL, bench_option(argc, argv, "user", NULL), NULL,
                                   bench_option(argc, argv, "database", NULL), 0,
                                   bench_option(argc, argv, "socket", NULL), 0),
                "%s", mysql_error(l->mysql));
    run_text(l, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    run_text(l, "DROP TABLE IF EXISTS bare");
    run_text(
        l,
        "CREATE TABLE bare (uid BINARY(16) NOT NULL, slot SMALLINT UNSIGNED NOT NULL, rev BIGINT UNSIGNED NOT NULL, "
        "wake_ms BIGINT NOT NULL, rest VARBINARY(400) NOT NULL, PRIMARY KEY (uid), KEY wake (slot, wake_ms, uid)) "
        "ENGINE=InnoDB");
}

/* Uids grow with time, so they are in order. */
static void add_uid(struct limit *l, uint64_t n)
{
    buf_addf(&l->text, "x'%032llx'", (unsigned long long)n);
}

static double insert_rows(struct limit *l)
{
    uint64_t start_ns = clock_mono_ns();
    for (uint64_t n = 0; n < l->rows; n += l->batch) {
        buf_add_str(&l->text, "INSERT INTO bare VALUES ");
        for (uint64_t i = n; i < n + l->batch; i++) {
            buf_add_str(&l->text, i == n ? "(" : ",(");
            add_uid(l, i);
            buf_addf(&l->text, ",%llu,1,1795000000000,REPEAT('x',160))",
                     (unsigned long long)(i * 2654435761u % 4096));
        }
        run(l);
    }
    return (double)l->rows * 1e9 / (double)(clock_mono_ns() - start_ns);
}

/* Compare-and-set of a batch of rows that lie apart, as those that are due together do. */
static void advance(struct limit *l, uint64_t first, uint64_t stride, uint64_t rev)
{
    buf_add_str(&l->text, "UPDATE (SELECT uid, rev AS was, wake_ms FROM bare WHERE FALSE");
    for (uint64_t i = 0; i < l->batch; i++) {
        buf_add_str(&l->text, " UNION ALL SELECT ");
        add_uid(l, first + i * stride);
        buf_addf(&l->text, ",%llu,%llu", (unsigned long long)rev, 1795000000000ull + rev * 1000ull);
    }
    buf_add_str(&l->text, ") k STRAIGHT_JOIN bare t FORCE INDEX (PRIMARY) ON t.uid = k.uid AND t.rev = k.was "
                          "SET t.rev = t.rev + 1, t.wake_ms = k.wake_ms");
    run(l);
    BENCH_CHECK(mysql_affected_rows(l->mysql) == l->batch, "%llu rows changed",
                (unsigned long long)mysql_affected_rows(l->mysql));
}

static double advance_rows(struct limit *l, double seconds, struct bench_samples *us)
{
    uint64_t start_ns = clock_mono_ns(), now_ns = start_ns, rows = 0, stride = l->rows / l->batch;
    for (uint64_t rev = 1; (double)(now_ns - start_ns) < seconds * 1e9; rev++)
        for (uint64_t first = 0; first < stride && (double)(now_ns - start_ns) < seconds * 1e9; first++) {
            uint64_t before_ns = now_ns;
            advance(l, first, stride, rev);
            now_ns = clock_mono_ns();
            bench_samples_add(us, (int64_t)(now_ns - before_ns) / 1000);
            rows += l->batch;
        }
    return rows > 0 ? (double)rows * 1e9 / (double)(now_ns - start_ns) : 0;
}

/* Single rows behind the others, a statement and a commit each. */
static void insert_singles(struct limit *l, uint64_t count, struct bench_samples *us)
{
    for (uint64_t i = l->rows; i < l->rows + count; i++) {
        uint64_t start_ns = clock_mono_ns();
        buf_add_str(&l->text, "INSERT INTO bare VALUES (");
        add_uid(l, i);
        buf_addf(&l->text, ",%llu,1,1795000000000,REPEAT('x',160))",
                 (unsigned long long)(i * 2654435761u % 4096));
        run(l);
        bench_samples_add(us, (int64_t)(clock_mono_ns() - start_ns) / 1000);
    }
}

int main(int argc, char **argv)
{
    struct limit l = {.rows = (uint64_t)bench_number(argc, argv, "rows", 20000),
                      .batch = (uint64_t)bench_number(argc, argv, "batch", 500)};
    struct bench_samples us = {0}, single_us = {0};
    BENCH_CHECK(l.batch > 0 && l.rows >= l.batch && l.rows % l.batch == 0,
                "--rows must be so many times --batch");
    buf_init(&l.text, TEXT_MAX);
    open_database(&l, argc, argv);
    double inserts = insert_rows(&l);
    double updates = advance_rows(&l, (double)bench_number(argc, argv, "seconds", 3), &us);
    insert_singles(&l, (uint64_t)bench_number(argc, argv, "singles", 500), &single_us);
    run_text(&l, "DROP TABLE bare");
    bench_print(json_pack("{s:f,s:f,s:o,s:o}", "inserts_per_s", inserts, "updates_per_s", updates, "batch_ms",
                          bench_samples_json(&us, 1000), "single_ms", bench_samples_json(&single_us, 1000)));
    mysql_close(l.mysql);
    buf_fini(&l.text);
    bench_samples_fini(&us);
    bench_samples_fini(&single_us);
    return 0;
}
