/* The store's contract, a model test, faults and measurements of the MySQL driver against a real server, run by
 * tests/it/test_store_mysql.py:
 *   store_contract_mysql list            names of the tests
 *   store_contract_mysql NAME...         run them, each in a database of its own; exit status 0: passed
 *   store_contract_mysql open DATABASE   open a store there, print when it was made
 * The server is CARILLON_TEST_MYSQL (host:port), CARILLON_TEST_MYSQL_USER, CARILLON_TEST_MYSQL_PASSWORD_FILE. With
 * CARILLON_TEST_MYSQL_THROUGH (host:port) the store connects there, to something that misbehaves. */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "agent/base/clock.h"
#include "agent/base/text.h"
#include "agent/io/tzload.h"
#include "agent/store/store_mem.h"
#include "agent/store/store_mysql.h"
#include "agent/store/store_mysql_conn.h"
#include "agent/store/store_mysql_schema.h"

static void contract_fail(const char *file, int line, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), noreturn));

#include "tests/tools/store_contract_mysql_dump.h"
#include "tests/tools/store_contract_mysql_measure.h"
#include "tests/unit/store/store_contract_faults.h"
#include "tests/unit/store/store_contract_model.h"
#include "tests/unit/store/store_contract_tests.h"

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

static int try_open(struct server *s, struct contract *t, const char *cluster, struct err *e)
{
    struct store_mysql_options options = s->options;
    options.port = s->through ? s->through : options.port;
    struct store_open_args args = {.loop = t->loop,
                                   .options = &options,
                                   .cluster = cluster,
                                   .slots = CONTRACT_SLOTS,
                                   .member = "m1",
                                   .zones = s->zones,
                                   .now_ms = now_ms};
    return t->ops->open(&args, &t->self, &t->meta, e);
}

static void open_store(struct server *s, struct contract *t)
{
    struct err e = {0};
    *t = (struct contract){.ops = &store_mysql, .driver = s};
    CHECK(loop_new(&t->loop, &e) == 0, "%s", e.text);
    CHECK(try_open(s, t, "test", &e) == 0, "%s", e.text);
}

static void close_store(struct contract *t)
{
    if (t->self)
        t->ops->close(t->self);
    loop_free(t->loop);
}

/* --- beyond the contract ------------------------------------------------------------------------------------------- */

static void another_clusters_store_is_refused(struct contract *t)
{
    struct contract other = {.ops = t->ops, .loop = t->loop};
    struct err e = {0};
    CHECK(try_open(t->driver, &other, "other", &e) == -ERR_PERMANENT && strstr(e.text, "other"), "%s",
          e.text);
    CHECK(!other.self, "%s", "untouched");
}

static void a_newer_schema_is_refused(struct contract *t)
{
    struct server *s = t->driver;
    struct contract other = {.ops = t->ops, .loop = t->loop};
    struct err e = {0};
    char text[128];
    (void)snprintf(text, sizeof(text), "UPDATE %s.meta SET value = '99' WHERE name = 'schema'", s->database);
    run_sql(s, text);
    CHECK(try_open(s, &other, "test", &e) == -ERR_PERMANENT && strstr(e.text, "99"), "%s", e.text);
}

/* --- from version 1 to 2 --------------------------------------------------------------------------------------------- */

/* BEFORE, the database's name, BEHIND. */
static void run_in(struct server *s, const char *before, const char *behind)
{
    char text[256];
    (void)snprintf(text, sizeof(text), "%s %s.%s", before, s->database, behind);
    run_sql(s, text);
}

/* The tables as version 1 left them, with a fire of its. */
static void go_back(struct contract *t)
{
    contract_join(t, "m1");
    struct uid uid = contract_uid(1, 1);
    struct fire_change f = {.op = CHANGE_INSERT, .row = contract_fire(&uid, 1)};
    struct job_change c = {.op = CHANGE_NONE, .row.uid = uid, .fires = &f, .fires_count = 1};
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    run_in(t->driver, "ALTER TABLE", "fires DROP COLUMN trace");
    run_in(t->driver, "DELETE FROM", "meta WHERE name = 'migrated'");
}

static int take_number(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    CHECK(row[0] && text_u64(row[0], lengths[0], 0, UINT64_MAX, arg, e) == 0, "%s", "no number");
    return 0;
}

/* What TEXT answers; UINT64_MAX: no row. */
static uint64_t ask(struct my_conn *c, const char *text)
{
    struct my_script script;
    struct err e = {0};
    uint64_t n = UINT64_MAX;
    CHECK(my_conn_ensure(c, true, &e) == 0, "%s", e.text);
    my_script_init(&script, c);
    buf_add_str(&script.text, text);
    int r = my_script_end_rows(&script, take_number, &n, &e);
    r = r == 0 ? my_script_run(&script, &e) : r;
    CHECK(r == 0, "%s: %s", text, e.text);
    my_script_fini(&script);
    return n;
}

/* The fire of version 1 is there, one with a trace can be written, and an agent of version 1 may still be started: to it nothing has
 * changed. */
static void check_migrated(struct contract *t)
{
    struct contract next = {.ops = t->ops, .driver = t->driver, .loop = t->loop};
    struct server *s = t->driver;
    struct uid uid = contract_uid(1, 1);
    struct err e = {0};
    struct my_conn c;
    int r;
    while ((r = try_open(s, &next, "test", &e)) ==
           -ERR_UNAVAILABLE) /* as an agent does, which goes on meanwhile */
        (void)poll(NULL, 0, 200);
    CHECK(r == 0, "%s", e.text);
    CHECK(next.meta.schema == 2, "version %u", next.meta.schema);
    struct contract_answer *a = contract_fires(&next, &uid, 0, 9);
    CHECK(a->fires_count == 1 && !a->fires[0].trace, "%zu fires", a->fires_count);
    contract_free(a);
    CHECK(keeps_trace(&next, &uid, 2, "00-1-2-3 a=b"), "%s", "no trace");
    next.ops->close(next.self);
    my_conn_init(&c, &s->options, 10);
    CHECK(ask(&c, "SELECT value FROM meta WHERE name = 'schema'") == 1, "%s", "version 1 is locked out");
    CHECK(ask(&c, "SELECT value FROM meta WHERE name = 'migrated'") == 2, "%s", "not noted");
    my_conn_close(&c);
}

static void a_store_of_version_1_is_migrated(struct contract *t)
{
    struct server *s = t->driver;
    struct store_meta meta;
    struct my_conn c;
    struct err e = {0};
    bool copying;
    go_back(t);
    my_conn_init(&c, &s->options, 10);
    CHECK(my_schema_look(&c, &meta, &copying, &e) == -ERR_PERMANENT && strstr(e.text, "start an agent"), "%s",
          e.text); /* `store copy` changes nothing */
    my_conn_close(&c);
    check_migrated(t);
}

/* Killed before it could say that it was done. */
static void a_migration_that_was_cut_short_is_done_again(struct contract *t)
{
    go_back(t);
    run_in(t->driver, "ALTER TABLE", "fires ADD COLUMN trace VARBINARY(600) NULL");
    check_migrated(t);
}

static void a_server_that_cannot_do_it_instantly_does_it_otherwise(struct contract *t)
{
    go_back(t);
    run_sql(t->driver, "SET GLOBAL innodb_instant_alter_column_allowed = never");
    check_migrated(t);
    run_sql(t->driver, "SET GLOBAL innodb_instant_alter_column_allowed = add_drop_reorder");
}

struct holder {
    struct server *server;
    struct my_conn conn;
    pthread_t thread;
};

/* The migration waits for who has the table; an agent's statement comes behind it, and gets through while the table is still held. */
static void *work_beside(void *arg)
{
    static const char waits[] =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND "
        "state LIKE 'Waiting for table metadata lock%'";
    struct holder *h = arg;
    struct my_conn agent;
    mysql_thread_init();
    my_conn_init(&agent, &h->server->options, 20);
    while (ask(&agent, waits) == 0)
        (void)poll(NULL, 0, 5);
    CHECK(ask(&agent, "SELECT COUNT(*) FROM fires") == 1, "%s", "fires");
    CHECK(ask(&h->conn, "SELECT COUNT(*) FROM fires") == 1, "%s", "fires");
    my_rollback(&h->conn);
    my_conn_close(&agent);
    mysql_thread_end();
    return NULL;
}

static void a_migration_behind_a_dump_keeps_nobody_waiting(struct contract *t)
{
    struct holder h = {.server = t->driver};
    struct err e = {0};
    go_back(t);
    my_conn_init(&h.conn, &h.server->options, 20);
    CHECK(my_conn_ensure(&h.conn, true, &e) == 0, "%s", e.text);
    CHECK(my_exec(&h.conn, "SET SESSION idle_transaction_timeout = 0", false, &e) == 0, "%s", e.text);
    CHECK(my_exec(&h.conn, "START TRANSACTION", false, &e) == 0, "%s", e.text);
    CHECK(ask(&h.conn, "SELECT COUNT(*) FROM fires") == 1, "%s", "fires");
    CHECK(pthread_create(&h.thread, NULL, work_beside, &h) == 0, "%s", "thread");
    check_migrated(t);
    CHECK(pthread_join(h.thread, NULL) == 0, "%s", "thread");
    my_conn_close(&h.conn);
}

static void an_absent_server_is_unavailable(struct contract *t)
{
    struct server s = *(struct server *)t->driver;
    struct contract other = {.ops = t->ops, .loop = t->loop};
    struct err e = {0};
    s.options.port = 1;
    CHECK(try_open(&s, &other, "test", &e) == -ERR_UNAVAILABLE, "%s", e.text);
}

/* It accepts and says nothing, as one that is stopped. An agent that waits for it asks on its loop. */
static void a_silent_server_is_given_up_soon(struct contract *t)
{
    struct server s = *(struct server *)t->driver;
    struct contract other = {.ops = t->ops, .loop = t->loop};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    struct err e = {0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&at, len) == 0 && listen(fd, 16) == 0 &&
              getsockname(fd, (struct sockaddr *)&at, &len) == 0,
          "%s", "no listener");
    s.options.port = ntohs(at.sin_port);
    s.through = 0;
    uint64_t begun_ms = clock_boot_ms();
    int r = try_open(&s, &other, "test", &e);
    uint64_t took_ms = clock_boot_ms() - begun_ms;
    CHECK(r == -ERR_UNAVAILABLE && took_ms < 20000, "%d after %" PRIu64 " ms: %s", r, took_ms, e.text);
    fd_close(fd);
}

static void a_wrong_password_is_permanent(struct contract *t)
{
    struct server s = *(struct server *)t->driver;
    struct contract other = {.ops = t->ops, .loop = t->loop};
    struct err e = {0};
    s.options.user = "nobody-knows";
    CHECK(try_open(&s, &other, "test", &e) == -ERR_PERMANENT, "%s", e.text);
}

/* TEXTS become statements of one script; what running it says. */
static int run_script(struct contract *t, bool commits, const char *const *texts, struct err *e)
{
    struct server *s = t->driver;
    struct my_conn c;
    struct my_script script;
    my_conn_init(&c, &s->options, 10);
    CHECK(my_conn_ensure(&c, true, e) == 0, "%s", e->text);
    my_script_init(&script, &c);
    script.commits = commits;
    int r = 0;
    for (size_t i = 0; r == 0 && texts[i]; i++) {
        buf_add_str(&script.text, texts[i]);
        r = my_script_end(&script, MY_ANY, 0, e);
    }
    r = r < 0 ? r : my_script_run(&script, e);
    CHECK((r == 0) == (c.mysql != NULL), "%d %s", r, e->text);
    my_script_fini(&script);
    my_conn_close(&c);
    return r;
}

/* As when something between the two splits or joins them. */
static void answers_that_do_not_fit_the_statements_end_the_connection(struct contract *t)
{
    static const char *const right[] = {"SELECT 1", "SELECT 2", NULL};
    static const char *const too_many[] = {"SELECT 1", "SELECT 2; SELECT 3", NULL};
    static const char *const too_few[] = {"SELECT 1 /* ", " */", NULL};
    struct err e = {0};
    CHECK(run_script(t, false, right, &e) == 0, "%s", e.text);
    CHECK(run_script(t, false, too_many, &e) == -ERR_UNAVAILABLE, "%s", e.text);
    CHECK(run_script(t, false, too_few, &e) == -ERR_UNAVAILABLE, "%s", e.text);
    CHECK(run_script(t, true, too_few, &e) == -ERR_UNKNOWN_OUTCOME, "%s", e.text);
}

/* What only the server refuses: found by halving, alone. */
static void a_row_that_the_server_refuses_is_alone(struct contract *t)
{
    struct server *s = t->driver;
    struct job_change c[33];
    char text[192];
    contract_join(t, "m1");
    (void)snprintf(
        text, sizeof(text),
        "ALTER TABLE %s.jobs MODIFY tzdata VARCHAR(5) CHARACTER SET ascii COLLATE ascii_bin NOT NULL",
        s->database);
    run_sql(s, text);
    for (uint32_t i = 0; i < 33; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%u", i);
        struct job_row row = contract_make(t, 1, i, "default", id, "");
        c[i] = contract_change(CHANGE_UPDATE, &row);
        if (i % 16 == 3)
            memcpy(c[i].row.tzdata, "longer", 7);
    }
    contract_commit(t, c, 33);
    for (uint32_t i = 0; i < 33; i++)
        CHECK(c[i].result == (i % 16 == 3 ? CHANGE_RESULT_REFUSED : CHANGE_RESULT_OK), "job %u: %d %s", i,
              (int)c[i].result, c[i].problem);
    CHECK(strstr(c[3].problem, "too long"), "%s", c[3].problem);
}

/* Four jobs go and others of their names come, whose uids are lower, in one batch with a row that the server refuses: parts of it are
 * written one by one, and none of the new ones may come before the old one has gone. */
static void names_change_hands_in_a_batch_in_parts(struct contract *t)
{
    struct job_change c[9];
    char text[256];
    contract_join(t, "m1");
    for (uint32_t i = 0; i < 4; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "n%u", i);
        struct job_row old = contract_make(t, 1, 100 + i, "default", id, ""),
                       next = contract_row(1, 10 + i, "default", id);
        c[2 * i] = contract_change(CHANGE_INSERT, &next);
        c[2 * i].spec = contract_spec("default", id, "");
        c[2 * i + 1] = contract_change(CHANGE_DELETE, &old);
    }
    struct job_row bad = contract_row(1, 50, "default", "bad");
    c[8] = contract_change(CHANGE_INSERT, &bad);
    c[8].spec = contract_spec("default", "bad", "");
    (void)snprintf(text, sizeof(text),
                   "CREATE TRIGGER %s.bad BEFORE INSERT ON %s.jobs FOR EACH ROW SET NEW.tzdata = "
                   "IF(NEW.id = 'bad', REPEAT('x', 99), NEW.tzdata)",
                   ((struct server *)t->driver)->database, ((struct server *)t->driver)->database);
    run_sql(t->driver, text);
    contract_commit(t, c, 9);
    for (uint32_t i = 0; i < 9; i++) {
        CHECK(c[i].result == (i == 8 ? CHANGE_RESULT_REFUSED : CHANGE_RESULT_OK), "change %u: %d %s", i,
              (int)c[i].result, c[i].problem);
        job_spec_unref(c[i].spec);
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct contract_answer *a = contract_get(t, "default", c[2 * i].row.id);
        contract_same_row(&a->jobs[0].row, &c[2 * i].row);
        contract_free(a);
    }
}

/* A batch that is halved for what the server refuses moves its slots with the last part: no row of theirs comes behind. */
static void slots_of_a_batch_in_parts_move_last(struct contract *t)
{
    struct server *s = t->driver;
    struct slot_change move = {
        .slot = 5, .from = "m1", .from_epoch = (uint64_t)(t->meta.created_ms / 1000), .to = "m2"};
    struct job_change c[9], *list[9];
    char text[512];
    contract_join(t, "m1");
    for (uint32_t i = 0; i < 9; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%u", i);
        struct job_row row = contract_make(t, 5, i, "default", id, "");
        c[i] = contract_change(CHANGE_UPDATE, &row);
        list[i] = &c[i];
    }
    (void)snprintf(
        text, sizeof(text),
        "CREATE TRIGGER %s.late BEFORE UPDATE ON %s.jobs FOR EACH ROW SET NEW.tzdata = "
        "IF(NEW.id = 'j2' OR (SELECT owner FROM slots WHERE slot = 5) = 'm2', REPEAT('x', 99), NEW.tzdata)",
        s->database, s->database);
    run_sql(s, text);
    struct store_batch batch = {
        .member = "m1", .jobs = list, .jobs_count = 9, .slots = &move, .slots_count = 1};
    struct contract_answer *a = contract_ask(t);
    t->ops->commit(t->self, &batch, contract_on_done, a);
    contract_wait(a);
    contract_ok(a);
    contract_free(a);
    for (uint32_t i = 0; i < 9; i++)
        CHECK(c[i].result == (i == 2 ? CHANGE_RESULT_REFUSED : CHANGE_RESULT_OK), "job %u: %d %s", i,
              (int)c[i].result, c[i].problem);
    CHECK(move.changed, "%s", "the slot stayed");
}

/* Four rows of slot 2, two a page, read as the planner reads them: how often each was there, a bit each. Whoever lets the store connect
 * through it may move the second one away between the two reads of the first page (test_store_mysql.py). */
static unsigned load_in_twos(struct contract *t, bool fires)
{
    static const uint16_t slots[] = {2};
    struct store_load load = {
        .slots = slots, .slots_count = 1, .until_ms = CONTRACT_NOW + 100, .from_ms = RECORD_NONE, .limit = 2};
    unsigned seen = 0;
    for (bool more = true; more;) {
        struct contract_answer *a = contract_load(t, &load, fires);
        for (size_t i = 0; i < (fires ? a->fires_count : a->jobs_count); i++) {
            load.after.set = true;
            load.after.slot = fires ? a->fires[i].slot : a->jobs[i].row.slot;
            load.after.wake_ms = fires ? a->fires[i].wake_ms : a->jobs[i].row.wake_ms;
            load.after.uid = fires ? a->fires[i].uid : a->jobs[i].row.uid;
            load.after.seq = fires ? a->fires[i].seq : 0;
            seen |= 1u << (fires ? a->fires[i].seq : a->jobs[i].row.version);
        }
        more = a->more;
        contract_free(a);
    }
    return seen;
}

static void a_row_that_moves_meanwhile_hides_no_other(struct contract *t)
{
    struct fire_change f[4];
    contract_join(t, "m1");
    for (uint32_t i = 1; i <= 4; i++) {
        char id[8];
        (void)snprintf(id, sizeof(id), "j%u", i);
        struct job_row row = contract_make(t, 2, i, "default", id, "");
        struct job_change c = contract_change(CHANGE_UPDATE, &row);
        c.row.wake_ms = CONTRACT_NOW + i;
        c.row.version = i;
        f[i - 1] = (struct fire_change){.op = CHANGE_INSERT, .row = contract_fire(&row.uid, i)};
        f[i - 1].row.wake_ms = CONTRACT_NOW + i;
        c.fires = &f[i - 1];
        c.fires_count = 1;
        CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    }
    unsigned jobs = load_in_twos(t, false), fires = load_in_twos(t, true);
    CHECK((jobs | 4) == 0x1e && (fires | 4) == 0x1e, "jobs %x, fires %x", jobs, fires);
}

/* Larger than a statement may be, so cut into many; a page of them is cut by bytes. */
static void large_payloads_travel_in_pieces(struct contract *t)
{
    enum { COUNT = 80 };
    struct job_change c[COUNT];
    size_t bytes = 256 * 1024 - 2;
    char *more = mem_new_array(char, bytes + 64);
    (void)snprintf(more, 32, "\"payload\":\"");
    memset(more + 11, 'x', bytes - 2);
    memcpy(more + 11 + bytes - 2, "\"", 2);
    contract_join(t, "m1");
    for (uint32_t i = 0; i < COUNT; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%u", i);
        struct job_row row = contract_row(1, i, "default", id);
        c[i] = contract_change(CHANGE_INSERT, &row);
        c[i].spec = i ? job_spec_ref(c[0].spec) : contract_spec("default", id, more);
    }
    contract_commit(t, c, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        CHECK(c[i].result == CHANGE_RESULT_OK, "job %u: %d %s", i, (int)c[i].result, c[i].problem);
        job_spec_unref(c[i].spec);
    }
    struct store_filter all = {.state = -1, .last_outcome = -1, .limit = 1000};
    struct contract_answer *a = contract_list(t, &all);
    CHECK(a->jobs_count > 0 && a->jobs_count < COUNT && a->more, "%zu jobs", a->jobs_count);
    contract_free(a);
    CHECK(list_all(t, &all, 1000) == COUNT, "%s", "in pages");
    mem_free(more);
}

static void kill_connections(struct server *s)
{
    char text[256];
    (void)snprintf(
        text, sizeof(text),
        "BEGIN NOT ATOMIC FOR c IN (SELECT id FROM information_schema.processlist WHERE db = '%s') "
        "DO EXECUTE IMMEDIATE CONCAT('KILL ', c.id); END FOR; END",
        s->database);
    run_sql(s, text);
}

/* The connections of a store are killed between its calls, and while a commit waits for a lock. */
static void killed_connections_cost_no_call(struct contract *t)
{
    struct server *s = t->driver;
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    for (unsigned i = 0; i < 3; i++) {
        kill_connections(s);
        contract_free(contract_beat(t, "m1"));
        struct job_change c = contract_change(CHANGE_UPDATE, &row);
        CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
        row = c.row;
        struct contract_answer *a = contract_get(t, "default", "a");
        contract_same_row(&a->jobs[0].row, &row);
        contract_free(a);
    }
}

static void a_lock_that_stays_is_an_error_of_nothing_happened(struct contract *t)
{
    struct server *s = t->driver;
    struct my_conn c;
    struct err e = {0};
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct job_change change = contract_change(CHANGE_UPDATE, &row);
    my_conn_init(&c, &s->options, 30);
    CHECK(my_conn_ensure(&c, true, &e) == 0 &&
              my_exec(&c, "SET SESSION idle_transaction_timeout = 0", false, &e) == 0 &&
              my_exec(&c, "START TRANSACTION", false, &e) == 0 &&
              my_exec(&c, "UPDATE jobs SET due_ms = 0", false, &e) == 0,
          "%s", e.text);
    CHECK(contract_commit_as(t, "m1", &change, 1) == ERR_RETRY, "%s", "while the lock is held");
    my_conn_close(&c);
    CHECK(contract_one(t, &change) == CHANGE_RESULT_OK, "%d", (int)change.result);
}

/* A client that stopped in the middle of a transaction does not hold up a taker for long. */
static void an_idle_transaction_loses_its_locks(struct contract *t)
{
    struct server *s = t->driver;
    struct my_conn c;
    struct err e = {0};
    contract_join(t, "m1");
    my_conn_init(&c, &s->options, 30);
    CHECK(my_conn_ensure(&c, true, &e) == 0 && my_exec(&c, "START TRANSACTION", false, &e) == 0 &&
              my_exec(&c, "UPDATE members SET flush = flush + 1", false, &e) == 0,
          "%s", e.text);
    uint64_t start = clock_boot_ms();
    bool dead = false;
    while (!dead && clock_boot_ms() < start + 10000) {
        struct contract_answer *a = contract_ask(t);
        t->ops->declare_dead(t->self, "m1", UINT64_MAX, contract_on_bool, a);
        contract_wait(a);
        dead = a->err.code == ERR_OK && a->yes;
        contract_free(a);
    }
    CHECK(dead && clock_boot_ms() - start < 4500, "%" PRIu64 " ms", clock_boot_ms() - start);
    my_conn_close(&c);
}

/* A large batch is under way for long; here it waits for a row that another holds. Meanwhile what beats, moves and verdicts lock
 * is free at any time: it is looked at without waiting, so that a slow machine changes nothing. */
static void beats_never_wait_for_a_commit(struct contract *t)
{
    enum { LOOKS = 150 };
    struct server *s = t->driver;
    struct my_conn holder, looker;
    struct err e = {0};
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct job_change change = contract_change(CHANGE_UPDATE, &row);
    my_conn_init(&holder, &s->options, 30);
    my_conn_init(&looker, &s->options, 30);
    CHECK(my_conn_ensure(&looker, true, &e) == 0 && my_conn_ensure(&holder, true, &e) == 0 &&
              my_exec(&holder, "SET SESSION idle_transaction_timeout = 0", false, &e) == 0 &&
              my_exec(&holder, "START TRANSACTION", false, &e) == 0 &&
              my_exec(&holder, "UPDATE jobs SET due_ms = 0", false, &e) == 0,
          "%s", e.text);
    struct contract_commit w;
    contract_start(t, &w, "m1", &change, 1);
    for (unsigned i = 0; i < LOOKS && w.answer->calls == 0; i++) {
        contract_free(contract_beat(t, "m1"));
        CHECK(my_exec(&looker, "SELECT flush FROM members WHERE member = 'm1' FOR UPDATE NOWAIT", false,
                      &e) == 0,
              "look %u: %s", i, e.text);
        CHECK(my_exec(&looker, "SELECT owner FROM slots FOR UPDATE NOWAIT", false, &e) == 0, "look %u: %s", i,
              e.text);
        (void)poll(NULL, 0, 5);
    }
    my_conn_close(&holder);
    /* On a machine so slow that the time of the store was over before, nothing happened. */
    enum err_code code = contract_finish(&w);
    CHECK(code == ERR_OK || code == ERR_RETRY, "%s", err_code_name(code));
    my_conn_close(&looker);
}

/* It has a connection of its own, which the one in front, waiting for a row, does not hold up. */
static void a_second_commit_goes_meanwhile(struct contract *t)
{
    struct server *s = t->driver;
    struct my_conn holder;
    struct contract_commit waits, goes;
    struct err e = {0};
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct job_row other = contract_make(t, 1, 2, "default", "b", "");
    struct job_change held = contract_change(CHANGE_UPDATE, &row),
                      free_one = contract_change(CHANGE_UPDATE, &other);
    my_conn_init(&holder, &s->options, 30);
    CHECK(my_conn_ensure(&holder, true, &e) == 0 &&
              my_exec(&holder, "SET SESSION idle_transaction_timeout = 0", false, &e) == 0 &&
              my_exec(&holder, "START TRANSACTION", false, &e) == 0 &&
              my_exec(&holder, "UPDATE jobs SET due_ms = 0 WHERE id = 'a'", false, &e) == 0,
          "%s", e.text);
    contract_start(t, &waits, "m1", &held, 1);
    contract_start(t, &goes, "m1", &free_one, 1);
    CHECK(contract_finish(&goes) == ERR_OK && free_one.result == CHANGE_RESULT_OK, "%d",
          (int)free_one.result);
    CHECK(waits.answer->calls == 0 || waits.answer->err.code == ERR_RETRY, "%s", waits.answer->err.text);
    my_conn_close(&holder);
    enum err_code code = contract_finish(&waits);
    CHECK(code == ERR_OK || code == ERR_RETRY, "%s", err_code_name(code));
}

/* As a server may be set up, and while connections go that have statements prepared. */
static void many_jobs_need_no_prepared_statements(struct contract *t)
{
    struct server *s = t->driver;
    contract_join(t, "m1");
    insert_jobs(t, 0, 100);
    kill_connections(s);
    insert_jobs(t, 100, 100);
    kill_connections(s);
    run_sql(s, "SET GLOBAL max_prepared_stmt_count = 0");
    insert_jobs(t, 200, 100);
    run_sql(s, "SET GLOBAL max_prepared_stmt_count = DEFAULT");
    insert_jobs(t, 300, 100);
}

/* --- the list -------------------------------------------------------------------------------------------------------- */

#define MORE_TESTS(X)                                            \
    X(another_clusters_store_is_refused)                         \
    X(a_newer_schema_is_refused)                                 \
    X(a_store_of_version_1_is_migrated)                          \
    X(a_migration_that_was_cut_short_is_done_again)              \
    X(a_server_that_cannot_do_it_instantly_does_it_otherwise)    \
    X(a_migration_behind_a_dump_keeps_nobody_waiting)            \
    X(an_absent_server_is_unavailable)                           \
    X(a_silent_server_is_given_up_soon)                          \
    X(answers_that_do_not_fit_the_statements_end_the_connection) \
    X(a_wrong_password_is_permanent)                             \
    X(a_row_that_the_server_refuses_is_alone)                    \
    X(names_change_hands_in_a_batch_in_parts)                    \
    X(slots_of_a_batch_in_parts_move_last)                       \
    X(a_row_that_moves_meanwhile_hides_no_other)                 \
    X(large_payloads_travel_in_pieces)                           \
    X(killed_connections_cost_no_call)                           \
    X(many_jobs_need_no_prepared_statements)                     \
    X(a_lock_that_stays_is_an_error_of_nothing_happened)         \
    X(an_idle_transaction_loses_its_locks)                       \
    X(beats_never_wait_for_a_commit)                             \
    X(a_second_commit_goes_meanwhile)                            \
    X(copies_survive_each_fault)                                 \
    X(random_batches_leave_what_memory_holds)                    \
    X(measure)                                                   \
    X(measure_ring)                                              \
    X(measure_single)                                            \
    X(measure_beats)

static const struct test {
    const char *name;
    void (*run)(struct contract *t);
} tests[] = {
#define TEST_ROW(name) {#name, name},
    CONTRACT_TESTS(TEST_ROW) CONTRACT_FAULT_TESTS(TEST_ROW) MORE_TESTS(TEST_ROW)};
enum { TESTS = sizeof(tests) / sizeof(tests[0]) };

static void run_test(const struct test *test)
{
    struct server s;
    struct contract t;
    char database[64];
    (void)snprintf(database, sizeof(database), "t_%.50s", test->name);
    server_init(&s, database);
    drop_database(&s);
    open_store(&s, &t);
    test->run(&t);
    close_store(&t);
    drop_database(&s);
    tzload_free(s.zones);
}

static void open_and_tell(const char *database)
{
    struct server s;
    struct contract t;
    server_init(&s, database);
    open_store(&s, &t);
    CHECK(contract_join(&t, database) == ERR_OK, "%s", "join");
    (void)printf("%" PRId64 "\n", t.meta.created_ms);
    close_store(&t);
    tzload_free(s.zones);
}

static const struct test *find_test(const char *name)
{
    for (int i = 0; i < TESTS; i++)
        if (strcmp(tests[i].name, name) == 0)
            return &tests[i];
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        for (int i = 0; i < TESTS; i++)
            (void)printf("%s\n", tests[i].name);
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "open") == 0) {
        open_and_tell(argv[2]);
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        const struct test *test = find_test(argv[i]);
        if (!test) {
            (void)fprintf(stderr, "no test '%s'\n", argv[i]);
            return 2;
        }
        run_test(test);
    }
    return argc < 2 ? 2 : 0;
}
