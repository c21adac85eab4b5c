/* The raw limit of a database for jobs on this machine: the rows of new jobs, with all indexes of the store's own tables, and nothing
 * else: no agent, nothing read back, nothing checked.
 *
 *   limit_rows --socket S --user U --database D --like L --rows R --batch B --connections C --form text|arrays [--end 1]
 *
 * Makes D's tables like those of store L, writes R jobs (three rows each, prepared beforehand) on C connections, B jobs a transaction.
 * With --end each transaction is followed by one that marks its jobs as fired and done, as one-shots end: all get the same values in
 * one statement, the cheapest there is. A thread a connection. Prints one line of JSON. */
#include <mysql.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "tests/bench/bench.h"

#define TEXT_MAX ((size_t)64 << 20)
#define TABLES   3
#define ENDED_MS 1794000001000LL
#define FIELDS   9 /* of a job that differ from the next one's */

enum field { UID, SLOT, ID, CHANGE, DUE, AT, DEFINITION, PAYLOAD, NO_FIELD };

/* What "?" stand for is FIELDS; all else is the same in all jobs. */
static const struct table {
    const char *head;
    const char *values;
    enum field fields[FIELDS];
} tables[TABLES] = {
    {"INSERT INTO jobs (uid, slot, ns, id, change_id, due_ms, wake_ms, created_ms, updated_ms, rev, version, state, seq, "
     "succeeded, dead, skipped, coalesced, cancelled, scheduled, last_seq, last_outcome, last_reason, "
     "consecutive_failures, backfill_pending, tzdata, ring) VALUES ",
     "(?, ?, 'default', ?, ?, ?, ?, ?, ?, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '2025b', '')",
     {UID, SLOT, ID, CHANGE, DUE, DUE, AT, AT, NO_FIELD}},
    {"INSERT INTO job_specs (uid, definition, payload) VALUES ",
     "(?, ?, ?)",
     {UID, DEFINITION, PAYLOAD, NO_FIELD}},
    {"INSERT INTO revisions (ns, id, change_id, at_ms, actor, op, uid, version, seq, state, due_ms) VALUES ",
     "('default', ?, ?, ?, 'local', 'create', ?, 1, 0, 0, ?)",
     {ID, CHANGE, AT, UID, DUE, NO_FIELD}},
};

struct job {
    uint8_t uid[16];
    int64_t numbers[NO_FIELD]; /* SLOT, CHANGE, DUE, AT */
    char id[32];
    char definition[640];
    char payload[32];
};

struct limit {
    int argc;
    char **argv;
    struct job *jobs;
    size_t rows, batch, connections;
    bool arrays, end;
};

/* One connection and its share of the jobs. */
struct share {
    struct limit *limit;
    struct job *jobs;
    size_t rows;
    MYSQL *mysql;
    MYSQL_STMT *stmts[TABLES];
    struct buf text;
    struct bench_samples us;
    pthread_t thread;
};

/* --- jobs ------------------------------------------------------------------------------------------------------------ */

static int compare_jobs(const void *a, const void *b)
{
    return memcmp(((const struct job *)a)->uid, ((const struct job *)b)->uid, sizeof(((struct job *)0)->uid));
}

/* As an agent makes them: a slot in front of a random uid, so that keys lie apart. */
static void make_jobs(struct limit *l)
{
    struct rng rng;
    rng_init(&rng, 1);
    l->jobs = mem_new_array(struct job, l->rows);
    for (size_t i = 0; i < l->rows; i++) {
        struct job *j = &l->jobs[i];
        uint64_t high = rng_u64(&rng), low = rng_u64(&rng);
        memcpy(j->uid, &high, sizeof(high));
        memcpy(j->uid + 8, &low, sizeof(low));
        j->uid[0] &= 15;
        j->numbers[SLOT] = j->uid[0] << 8 | j->uid[1];
        j->numbers[CHANGE] = (int64_t)(rng_u64(&rng) >> 1);
        j->numbers[DUE] = INT64_C(1795000000000) + (int64_t)i;
        j->numbers[AT] = INT64_C(1794000000000);
        (void)snprintf(j->id, sizeof(j->id), "b-%zu", i);
        (void)snprintf(j->payload, sizeof(j->payload), "{\"n\":%zu}", i);
        (void)snprintf(
            j->definition, sizeof(j->definition),
            "{\"id\":\"%s\",\"namespace\":\"default\",\"schedule\":\"@after 1d\",\"timezone\":\"UTC\","
            "\"callback\":{\"http\":{\"service\":\"bench\",\"path\":\"/fire\",\"method\":\"POST\"},"
            "\"timeout\":\"30s\",\"to\":\"one\",\"success\":[\"2xx\"],\"give_up_on\":[],"
            "\"allow_control\":false},\"retry\":{\"max_attempts\":null,\"min_backoff\":\"1s\",\"factor\":2.0,"
            "\"max_backoff\":\"1h\",\"jitter\":0.2,\"max_age\":\"1d\"},\"misfire\":{\"policy\":\"last\","
            "\"window\":\"1d\"},\"concurrency\":\"allow\",\"max_pending\":16,\"ttl_after_done\":\"1d\"}",
            j->id);
    }
    for (size_t i = 0; i < l->rows; i += l->batch)
        qsort(l->jobs + i, l->rows - i < l->batch ? l->rows - i : l->batch, sizeof(*l->jobs), compare_jobs);
}

static const void *bytes_of(const struct job *j, enum field f, size_t *ret_len)
{
    const char *text = f == ID ? j->id : f == DEFINITION ? j->definition : j->payload;
    if (f == UID) {
        *ret_len = sizeof(j->uid);
        return j->uid;
    }
    *ret_len = strlen(text);
    return text;
}

static bool is_number(enum field f)
{
    return f == SLOT || f == CHANGE || f == DUE || f == AT;
}

/* --- writing them ------------------------------------------------------------------------------------------------------ */

static void run(struct share *s)
{
    BENCH_CHECK(!buf_failed(&s->text), "out of memory");
    BENCH_CHECK(mysql_real_query(s->mysql, buf_str(&s->text), (unsigned long)s->text.len) == 0, "%s",
                mysql_error(s->mysql));
    for (int more = 0; more == 0; more = mysql_next_result(s->mysql)) {
        BENCH_CHECK(mysql_errno(s->mysql) == 0, "%s", mysql_error(s->mysql));
        MYSQL_RES *result = mysql_store_result(s->mysql);
        mysql_free_result(result);
    }
    BENCH_CHECK(mysql_errno(s->mysql) == 0, "%s", mysql_error(s->mysql));
    buf_reset(&s->text);
}

static void run_text(struct share *s, const char *text)
{
    buf_add_str(&s->text, text);
    run(s);
}

static void add_value(struct buf *b, const struct job *j, enum field f)
{
    static const char digits[] = "0123456789abcdef";
    size_t len;
    if (is_number(f)) {
        buf_add_i64(b, j->numbers[f]);
        return;
    }
    const uint8_t *bytes = bytes_of(j, f, &len);
    buf_add_str(b, f == DEFINITION ? "_utf8mb4 x'" : "x'");
    for (size_t i = 0; i < len; i++)
        buf_add(b, (const char[]){digits[bytes[i] >> 4], digits[bytes[i] & 15]}, 2);
    buf_add_char(b, '\'');
}

static void add_rows(struct buf *b, const struct table *t, const struct job *jobs, size_t count)
{
    buf_add_str(b, t->head);
    for (size_t i = 0; i < count; i++) {
        const enum field *f = t->fields;
        buf_add_str(b, i ? "," : "");
        for (const char *c = t->values; *c; c++)
            if (*c == '?')
                add_value(b, &jobs[i], *f++);
            else
                buf_add_char(b, *c);
    }
}

static void write_text(struct share *s, const struct job *jobs, size_t count)
{
    buf_add_str(&s->text, "START TRANSACTION");
    for (size_t k = 0; k < TABLES; k++) {
        buf_add_str(&s->text, ";");
        add_rows(&s->text, &tables[k], jobs, count);
    }
    run(s);
    run_text(s, "COMMIT");
}

static void bind_field(MYSQL_BIND *b, enum field f, const struct job *jobs, size_t count)
{
    int64_t *numbers = is_number(f) ? mem_new_array(int64_t, count) : NULL;
    const void **bytes = numbers ? NULL : mem_new_array(const void *, count);
    unsigned long *lengths = mem_new_array(unsigned long, count);
    for (size_t i = 0; i < count; i++) {
        size_t len = 0;
        if (numbers)
            numbers[i] = jobs[i].numbers[f];
        else
            bytes[i] = bytes_of(&jobs[i], f, &len);
        lengths[i] = len;
    }
    *b = (MYSQL_BIND){.buffer_type = numbers           ? MYSQL_TYPE_LONGLONG
                                     : f == DEFINITION ? MYSQL_TYPE_STRING
                                                       : MYSQL_TYPE_BLOB,
                      .buffer = numbers ? (void *)numbers : (void *)bytes,
                      .length = lengths};
}

static void execute(struct share *s, size_t table, const struct job *jobs, size_t count)
{
    MYSQL_BIND binds[FIELDS];
    unsigned rows = (unsigned)count;
    size_t n = 0;
    for (const enum field *f = tables[table].fields; *f != NO_FIELD; f++)
        bind_field(&binds[n++], *f, jobs, count);
    MYSQL_STMT *stmt = s->stmts[table];
    BENCH_CHECK(!mysql_stmt_attr_set(stmt, STMT_ATTR_ARRAY_SIZE, &rows) &&
                    !mysql_stmt_bind_param(stmt, binds) && !mysql_stmt_execute(stmt),
                "%s", mysql_stmt_error(stmt));
    while (n-- > 0) {
        mem_free(binds[n].buffer);
        mem_free(binds[n].length);
    }
}

static void write_arrays(struct share *s, const struct job *jobs, size_t count)
{
    run_text(s, "START TRANSACTION");
    for (size_t k = 0; k < TABLES; k++)
        execute(s, k, jobs, count);
    run_text(s, "COMMIT");
}

/* The columns of a job that change when its only fire succeeded. */
static void end_jobs(struct share *s, const struct job *jobs, size_t count)
{
    buf_addf(
        &s->text,
        "START TRANSACTION;UPDATE jobs SET rev = 2, state = 2, seq = 1, succeeded = 1, last_seq = 1, "
        "last_due_ms = due_ms, last_outcome = 1, due_ms = NULL, wake_ms = %lld, last_finished_ms = %lld, "
        "last_success_ms = %lld WHERE uid IN (",
        ENDED_MS + 86400000, ENDED_MS, ENDED_MS);
    for (size_t i = 0; i < count; i++) {
        buf_add_str(&s->text, i ? "," : "");
        add_value(&s->text, &jobs[i], UID);
    }
    buf_add_str(&s->text, ")");
    run(s);
    run_text(s, "COMMIT");
}

static void *write_share(void *arg)
{
    struct share *s = arg;
    struct limit *l = s->limit;
    mysql_thread_init();
    for (size_t i = 0; i < s->rows; i += l->batch) {
        size_t count = s->rows - i < l->batch ? s->rows - i : l->batch;
        uint64_t start_ns = clock_mono_ns();
        (l->arrays ? write_arrays : write_text)(s, s->jobs + i, count);
        if (l->end)
            end_jobs(s, s->jobs + i, count);
        bench_samples_add(&s->us, (int64_t)(clock_mono_ns() - start_ns) / 1000);
    }
    mysql_thread_end();
    return NULL;
}

/* --- connections --------------------------------------------------------------------------------------------------------- */

static void connect_share(struct share *s)
{
    struct limit *l = s->limit;
    buf_init(&s->text, TEXT_MAX);
    s->mysql = mysql_init(NULL);
    BENCH_CHECK(s->mysql, "out of memory");
    BENCH_CHECK(mysql_real_connect(s->mysql, NULL, bench_option(l->argc, l->argv, "user", NULL), NULL,
                                   bench_option(l->argc, l->argv, "database", NULL), 0,
                                   bench_option(l->argc, l->argv, "socket", NULL), CLIENT_MULTI_STATEMENTS),
                "%s", mysql_error(s->mysql));
    run_text(s, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    run_text(s, "SET SESSION sql_mode = 'STRICT_ALL_TABLES'");
}

static void prepare_share(struct share *s)
{
    for (size_t k = 0; k < TABLES; k++) {
        struct buf sql = BUF_INIT(TEXT_MAX);
        buf_addf(&sql, "%s%s", tables[k].head, tables[k].values);
        s->stmts[k] = mysql_stmt_init(s->mysql);
        BENCH_CHECK(s->stmts[k] &&
                        mysql_stmt_prepare(s->stmts[k], buf_str(&sql), (unsigned long)sql.len) == 0,
                    "%s", mysql_error(s->mysql));
        buf_fini(&sql);
    }
}

static void make_tables(struct share *s, const char *like)
{
    static const char *const names[TABLES] = {"jobs", "job_specs", "revisions"};
    for (size_t k = 0; k < TABLES; k++) {
        buf_addf(&s->text, "CREATE OR REPLACE TABLE %s LIKE %s.%s", names[k], like, names[k]);
        run(s);
    }
}

static void close_share(struct share *s)
{
    for (size_t k = 0; k < TABLES; k++)
        if (s->stmts[k])
            (void)mysql_stmt_close(s->stmts[k]);
    mysql_close(s->mysql);
    buf_fini(&s->text);
    bench_samples_fini(&s->us);
}

static double measure(struct limit *l, struct share *shares)
{
    uint64_t start_ns = clock_mono_ns();
    for (size_t i = 0; i < l->connections; i++)
        BENCH_CHECK(pthread_create(&shares[i].thread, NULL, write_share, &shares[i]) == 0, "no thread");
    for (size_t i = 0; i < l->connections; i++)
        (void)pthread_join(shares[i].thread, NULL); /* it was made */
    return (double)l->rows * 1e9 / (double)(clock_mono_ns() - start_ns);
}

int main(int argc, char **argv)
{
    struct limit l = {.argc = argc,
                      .argv = argv,
                      .rows = (size_t)bench_number(argc, argv, "rows", 20000),
                      .batch = (size_t)bench_number(argc, argv, "batch", 500),
                      .connections = (size_t)bench_number(argc, argv, "connections", 1),
                      .arrays = strcmp(bench_option(argc, argv, "form", "text"), "arrays") == 0,
                      .end = bench_number(argc, argv, "end", 0) != 0};
    BENCH_CHECK(l.batch > 0 && l.connections > 0 && l.rows % (l.batch * l.connections) == 0,
                "--rows must be so many times --batch times --connections");
    make_jobs(&l);
    struct share *shares = mem_new_array(struct share, l.connections);
    for (size_t i = 0; i < l.connections; i++) {
        shares[i] = (struct share){.limit = &l, .rows = l.rows / l.connections};
        shares[i].jobs = l.jobs + i * shares[i].rows;
        connect_share(&shares[i]);
        if (i == 0)
            make_tables(&shares[0], bench_option(argc, argv, "like", NULL));
        if (l.arrays)
            prepare_share(&shares[i]);
    }
    double per_s = measure(&l, shares);
    bench_print(
        json_pack("{s:f,s:o}", "jobs_per_s", per_s, "batch_ms", bench_samples_json(&shares[0].us, 1000)));
    for (size_t i = 0; i < l.connections; i++)
        close_share(&shares[i]);
    mem_free(shares);
    mem_free(l.jobs);
    return 0;
}
