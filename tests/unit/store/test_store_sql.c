#include "agent/store/store_sql.h"

#include <criterion/criterion.h>
#include <mysqld_error.h>
#include <errmsg.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/store/store_mysql_conn.h"

Test(store_sql, no_text_leaves_its_literal)
{
    struct buf b = BUF_INIT(1024);
    sql_add_ascii(&b, "'; --\\");
    buf_add_char(&b, ' ');
    sql_add_blob(&b, NULL, 0);
    buf_add_char(&b, ' ');
    sql_add_blob(&b, "", 0);
    buf_add_char(&b, ' ');
    sql_add_ms(&b, RECORD_NONE);
    buf_add_char(&b, ' ');
    sql_add_ms(&b, -5);
    cr_assert_str_eq(buf_str(&b), "_ascii x'273b202d2d5c' COLLATE ascii_bin NULL x'' NULL -5");
    buf_fini(&b);
}

Test(store_sql, a_full_buffer_fails_at_its_check)
{
    struct buf b = BUF_INIT(8);
    struct err e = {0};
    sql_add_hex(&b, "12345678", 8);
    cr_assert_eq(buf_check(&b, &e), -ERR_TOO_BIG);
    buf_fini(&b);
}

/* A row as the server would send it back: numbers as digits, instants as digits or NULL, bytes as they are. */
struct sent {
    char texts[40][512];
    char *row[40];
    unsigned long lengths[40];
};

static void send_fire(struct sent *s)
{
    const struct sql_table *t = sql_fires();
    for (size_t i = 0; i < t->count; i++) {
        const char *text = t->columns[i].type == SQL_UID  ? "0123456789abcdef"
                           : t->columns[i].type == SQL_MS ? "-7"
                                                          : "1";
        s->lengths[i] = strlen(text);
        memcpy(s->texts[i], text, strlen(text) + 1);
        s->row[i] = s->texts[i];
    }
}

Test(store_sql, a_row_reads_back)
{
    struct sent s;
    struct fire_row row;
    struct err e = {0};
    send_fire(&s);
    cr_assert_eq(sql_read_row(sql_fires(), s.row, s.lengths, &row, &e), 0, "%s", e.text);
    cr_assert(row.seq == 1 && row.state == FIRE_STATE_HELD && row.due_ms == -7 &&
              strcmp(row.holder, "1") == 0);
    cr_assert(row.log_bytes == 1 && strcmp(row.log, "1") == 0 && row.payload_bytes == 1);
    fire_row_fini(&row);
}

Test(store_sql, every_column_refuses_what_is_not_its_kind)
{
    const struct sql_table *t = sql_fires();
    for (size_t i = 0; i < t->count; i++) {
        if (t->columns[i].type == SQL_BLOB)
            continue;
        struct sent s;
        struct fire_row row;
        struct err e = {0};
        send_fire(&s);
        memset(s.texts[i], 'x', 300);
        s.lengths[i] = 300;
        cr_assert_eq(sql_read_row(t, s.row, s.lengths, &row, &e), -ERR_PERMANENT, "%s", t->columns[i].name);
        cr_assert(strstr(e.text, t->columns[i].name), "%s", e.text);
    }
}

Test(store_sql, an_unknown_state_is_a_newer_agents)
{
    struct sent s;
    struct fire_row row;
    size_t i = 0;
    while (strcmp(sql_fires()->columns[i].name, "state") != 0)
        i++;
    send_fire(&s);
    s.texts[i][0] = '0' + FIRE_STATE_COUNT_;
    cr_assert_eq(sql_read_row(sql_fires(), s.row, s.lengths, &row, NULL), -ERR_PERMANENT);
}

Test(store_sql, reading_without_memory_leaves_nothing_behind)
{
    for (unsigned k = 0;; k++) {
        struct sent s;
        struct fire_row row;
        send_fire(&s);
        fault_arm(k);
        int r = sql_read_row(sql_fires(), s.row, s.lengths, &row, NULL);
        if (!fault_fired()) {
            cr_assert_eq(r, 0);
            cr_assert_eq(k, 4, "%u allocations", k);
            fire_row_fini(&row);
            return;
        }
        cr_assert_eq(r, -ERR_NOMEM);
    }
}

Test(store_sql, every_changing_column_counts_in_a_comparison)
{
    const struct sql_table *t = sql_jobs();
    for (size_t i = 0; i < t->count; i++) {
        struct job_row a, b;
        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        a.ring_bytes = b.ring_bytes = 1;
        *((char *)&b + t->columns[i].offset) = 1;
        cr_assert_eq(sql_rows_equal(t, &a, &b), t->columns[i].fixed, "%s", t->columns[i].name);
    }
}

Test(store_sql, what_rows_have_in_common_is_assigned_as_a_value)
{
    struct job_row a = {.rev = 5, .due_ms = RECORD_NONE, .tzdata = "2025b"}, b = a;
    b.rev = 6;
    b.counts.seq = 9;
    sql_set alike = sql_alike(sql_jobs(), &a, &b, sql_short(sql_jobs()));
    sql_set unlike = sql_changing(sql_jobs()) & ~alike;
    struct buf names = BUF_INIT(4096), values = BUF_INIT(4096), set = BUF_INIT(16384);
    sql_add_names(&names, sql_jobs(), "", sql_keys(sql_jobs()) | unlike);
    cr_assert_str_eq(buf_str(&names), "uid, rev, seq");
    sql_add_values(&values, sql_jobs(), &b, sql_keys(sql_jobs()) | unlike);
    cr_assert_str_eq(buf_str(&values), "x'00000000000000000000000000000000',6,9");
    sql_add_assignments(&set, sql_jobs(), "t", "k", &a, alike);
    cr_assert(strstr(buf_str(&set), "t.rev = k.rev, t.version = 0, "));
    cr_assert(strstr(buf_str(&set), ", t.due_ms = NULL, "));
    cr_assert(strstr(buf_str(&set), ", t.seq = k.seq, "));
    cr_assert(strstr(buf_str(&set), ", t.tzdata = x'3230323562', t.ring = x''"));
    cr_assert_eq(sql_short(sql_fires()) & ~sql_changing(sql_fires()), 0);
    cr_assert_lt(sql_short(sql_fires()), sql_changing(sql_fires()), "blobs are not short");
    buf_fini(&names);
    buf_fini(&values);
    buf_fini(&set);
}

Test(store_sql, error_numbers_have_their_class)
{
    static const struct {
        unsigned number;
        const char *state;
        enum err_code code;
    } rows[] = {{ER_LOCK_DEADLOCK, "40001", ERR_RETRY},
                {ER_LOCK_WAIT_TIMEOUT, "HY000", ERR_RETRY},
                {1020, "HY000", ERR_RETRY},
                {9007, "HY000", ERR_RETRY},
                {CR_SERVER_GONE_ERROR, "HY000", ERR_UNAVAILABLE},
                {CR_SERVER_LOST, "HY000", ERR_UNAVAILABLE},
                {4031, "HY000", ERR_UNAVAILABLE},
                {1047, "08S01", ERR_UNAVAILABLE},
                {1290, "HY000", ERR_UNAVAILABLE},
                {3101, "HY000", ERR_RETRY},
                {ER_CON_COUNT_ERROR, "08004", ERR_UNAVAILABLE},
                {ER_CANT_CREATE_THREAD, "HY000", ERR_UNAVAILABLE},
                {ER_OUT_OF_RESOURCES, "HY000", ERR_UNAVAILABLE},
                {ER_STATEMENT_TIMEOUT, "70100", ERR_UNAVAILABLE},
                {3032, "HY000", ERR_UNAVAILABLE},
                {CR_SOCKET_CREATE_ERROR, "HY000", ERR_UNAVAILABLE},
                {CR_IPSOCK_ERROR, "HY000", ERR_UNAVAILABLE},
                {CR_COMMANDS_OUT_OF_SYNC, "HY000", ERR_UNAVAILABLE},
                {ER_DISK_FULL, "HY000", ERR_UNAVAILABLE},
                {ER_ERROR_ON_WRITE, "HY000", ERR_UNAVAILABLE},
                {ER_DUP_ENTRY, "23000", ERR_EXISTS},
                {ER_BAD_DB_ERROR, "42000", ERR_NOT_FOUND},
                {ER_DATA_TOO_LONG, "22001", ERR_REFUSED},
                {ER_BAD_NULL_ERROR, "23000", ERR_REFUSED},
                {ER_NET_PACKET_TOO_LARGE, "08S01", ERR_REFUSED},
                {ER_ACCESS_DENIED_ERROR, "28000", ERR_PERMANENT},
                {ER_NO_SUCH_TABLE, "42S02", ERR_PERMANENT},
                {ER_PARSE_ERROR, "42000", ERR_PERMANENT}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert_eq(my_error_code(rows[i].number, rows[i].state, false), rows[i].code, "%u", rows[i].number);
}

/* What a lost connection or a server that lost its cluster leaves open; a commit that was refused for another's is none of these. */
Test(store_sql, only_some_errors_leave_a_commit_open)
{
    static const unsigned open[] = {CR_SERVER_LOST, CR_SERVER_GONE_ERROR, ER_ERROR_DURING_COMMIT,
                                    1047,           ER_ERROR_ON_WRITE,    ER_STATEMENT_TIMEOUT};
    static const unsigned closed[] = {ER_LOCK_DEADLOCK, ER_LOCK_WAIT_TIMEOUT, ER_DUP_ENTRY, ER_DISK_FULL,
                                      3101};
    for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++) {
        cr_assert_eq(my_error_code(open[i], "HY000", true), ERR_UNKNOWN_OUTCOME, "%u", open[i]);
        cr_assert_neq(my_error_code(open[i], "HY000", false), ERR_UNKNOWN_OUTCOME, "%u", open[i]);
    }
    for (size_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++)
        cr_assert_eq(my_error_code(closed[i], "HY000", true), my_error_code(closed[i], "HY000", false), "%u",
                     closed[i]);
    cr_assert_eq(my_error_code(ER_LOCK_DEADLOCK, "40001", true), ERR_RETRY);
}
