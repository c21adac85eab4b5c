/* Copies into a database and out of it with each of their steps failing: what broke off is no store to whoever reads it, and the next
 * copy, which begins over what is left, comes to its end. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_MYSQL_DUMP_H
#define CARILLON_TESTS_STORE_CONTRACT_MYSQL_DUMP_H

#include "tests/tools/store_contract_mysql_server.h"
#include "tests/unit/store/dump/dump_bed.h"
#include "tests/unit/store/store_contract_faults.h"

/* Whether P holds anything to who reads it: tables that were only made are an empty store. */
static inline bool dump_is_whole(struct dump_place *p)
{
    struct dump_record record;
    void *reader = NULL;
    struct err e = {0};
    if (p->driver->read_open(p, false, &reader, &e) < 0)
        return false;
    bool holds =
        p->driver->read_next(reader, &record, &e) == 1 && p->driver->read_next(reader, &record, &e) == 1;
    p->driver->read_close(reader);
    return holds;
}

static inline void dump_check_said(int r, const struct err *e, bool fired, const char *what, unsigned k)
{
    CHECK(r == 0 || fired, "%s, step %u: %s", what, k, e->text);
    CHECK(r == 0 || (-r == (int)e->code && e->text[0] && !strchr(e->text, '\n')), "%s, step %u: %d %s '%s'",
          what, k, r, err_code_name(e->code), e->text);
    CHECK(r == 0 || e->code == ERR_NOMEM || e->code == ERR_UNAVAILABLE || e->code == ERR_IO ||
              e->code == ERR_RETRY,
          "%s, step %u: %s %s", what, k, err_code_name(e->code), e->text);
}

/* As a source: nobody is there, then all of it. */
static inline int dump_read_all(struct dump_place *p, size_t *ret_count, struct err *e)
{
    struct dump_record record;
    void *reader = NULL;
    *ret_count = 0;
    p->seen_ = BUF_INIT(1 << 20);
    int r = p->driver->claim(p, false, e);
    if (r == 0)
        r = p->driver->read_open(p, false, &reader, e);
    while (r == 0 && (r = p->driver->read_next(reader, &record, e)) > 0) {
        r = 0;
        ++*ret_count;
    }
    if (reader)
        p->driver->read_close(reader);
    if (r == 0)
        r = p->driver->still_quiet(p, e);
    p->driver->release(p);
    return r;
}

/* Whether there was such a step. *RET_WHOLE: nothing came of it, as when a connection was made again. */
static inline bool dump_write_failing(struct dump_bed *from, struct dump_place *to, unsigned k,
                                      bool *ret_whole)
{
    struct dump_counts counts;
    struct err e = {0};
    size_t read;
    fault_arm(k);
    int r = dump_copy(&from->place, to, false, dump_bed_on_difference, NULL, &counts, &e);
    bool fired = fault_fired();
    fault_disarm();
    dump_check_said(r, &e, fired, "copy", k);
    *ret_whole = dump_is_whole(to);
    CHECK(*ret_whole == (r == 0), "step %u: %s", k, e.text);
    CHECK(!*ret_whole || (dump_read_all(to, &read, &e) == 0 && read == from->count), "step %u: %s", k,
          e.text);
    return fired;
}

static inline bool dump_read_failing(struct dump_place *p, size_t count, unsigned k)
{
    struct err e = {0};
    size_t read;
    fault_arm(k);
    int r = dump_read_all(p, &read, &e);
    bool fired = fault_fired();
    fault_disarm();
    dump_check_said(r, &e, fired, "read", k);
    CHECK(r < 0 || read == count, "step %u: %zu records of %zu", k, read, count);
    return fired;
}

/* Into the database of OPTIONS, which DROP removes, and out of it. */
static inline void dump_fail_each_step(const struct store_mysql_options *options, void (*drop)(void *arg),
                                       void *arg)
{
    struct dump_place to = {.driver = &dump_mysql, .mysql = options};
    struct dump_bed bed;
    unsigned written = 0, read = 0;
    drop(arg);
    dump_bed_init(&bed);
    for (bool whole; dump_write_failing(&bed, &to, written, &whole); written++) {
        CHECK(written < FAULT_STEPS_MAX, "%s", "a copy never ends");
        if (whole)
            drop(arg);
    }
    drop(arg);
    dump_bed_copy(&bed.place, &to);
    while (dump_read_failing(&to, bed.count, read))
        CHECK(++read < FAULT_STEPS_MAX, "%s", "reading never ends");
    (void)printf("copy: %u steps failed, read: %u\n", written, read);
    dump_bed_fini(&bed);
    drop(arg);
}

static inline void drop_any(void *server)
{
    drop_database(server);
}

static inline void copies_survive_each_fault(struct contract *t)
{
    struct server s = *(struct server *)t->driver;
    (void)snprintf(s.database, sizeof(s.database), "t_copy"); /* the one of the test has a store */
    s.options.database = s.database;
    run_sql(&s,
            "SET GLOBAL sync_binlog = 0, GLOBAL innodb_flush_log_at_trx_commit = 0"); /* some 400 copies */
    dump_fail_each_step(&s.options, drop_any, &s);
    run_sql(&s, "SET GLOBAL sync_binlog = 1, GLOBAL innodb_flush_log_at_trx_commit = 1");
}

#endif
