#include "agent/store/store_mysql_fetch.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/io/tzload.h"
#include "agent/store/store_sql.h"

bool my_is_name(const char *s)
{
    for (; *s; s++)
        if (*s < 0x20 || *s > 0x7e)
            return false;
    return true;
}

void my_add_prefix(struct buf *b, const char *column, const char *prefix)
{
    char end[RECORD_ID_MAX];
    size_t len = strlen(prefix);
    memcpy(end, prefix, len + 1);
    end[len - 1]++; /* names are ASCII, so there always is a next one */
    buf_addf(b, " AND %s >= ", column);
    sql_add_ascii(b, prefix);
    buf_addf(b, " AND %s < ", column);
    sql_add_ascii(b, end);
}

size_t my_fetch_fitting(const struct my_key *keys, size_t count, bool *more)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += keys[i].absent ? 0 : keys[i].bytes;
        if (i > 0 && bytes > MY_FETCH_BYTES) {
            *more = true;
            return i;
        }
    }
    return count;
}

struct fetch {
    struct store_mysql *store;
    struct store_job *jobs;
    struct fire_row *fires;
    bool *found;
    size_t count;
};

static int bad_index(struct err *e)
{
    return err_set(e, ERR_PERMANENT, "the store answered what was not asked");
}

int my_spec_make(struct store_mysql *s, const char *definition, size_t bytes, const char *payload,
                 size_t payload_bytes, struct job_spec **ret, struct err *e)
{
    AUTO(job_spec_unref) struct job_spec *spec = NULL;
    int r = job_spec_decode(definition, bytes, payload, payload_bytes, &spec, e);
    if (r == 0)
        r = tzload_bind(s->zones, spec, e);
    if (r == 0)
        *ret = TAKE(spec);
    return r;
}

/* A definition that this agent cannot read is that job's trouble alone; memory is everyone's. */
static int read_job(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct fetch *f = arg;
    struct err own = {0};
    uint64_t i;
    size_t definition = 1 + sql_jobs()->count, payload = definition + 1;
    if (!sql_get_u64(row[0], lengths[0], &i) || i >= f->count || f->jobs[i].spec)
        return bad_index(e);
    struct store_job *job = &f->jobs[i];
    int r = sql_read_row(sql_jobs(), row + 1, lengths + 1, &job->row, e);
    if (r < 0)
        return r;
    if (!row[definition])
        r = err_set(&own, ERR_PERMANENT, "the definition is missing");
    else
        r = my_spec_make(f->store, row[definition], lengths[definition], row[payload], lengths[payload],
                         &job->spec, &own);
    if (r == -ERR_NOMEM)
        return err_set(e, ERR_NOMEM, "%s", own.text);
    if (r < 0)
        (void)snprintf(job->problem, sizeof(job->problem), "%.119s", own.text); /* cut: for people */
    return 0;
}

int my_fetch_jobs(struct store_mysql *s, struct my_conn *c, const struct my_key *keys, size_t count,
                  struct store_job *jobs, struct err *e)
{
    struct buf head = BUF_INIT(4096);
    struct fetch fetch = {.store = s, .jobs = jobs, .count = count};
    struct my_script script;
    my_script_init(&script, c);
    buf_add_str(&head, "SELECT k.n, ");
    sql_add_names(&head, sql_jobs(), "j", sql_all(sql_jobs()));
    buf_add_str(&head,
                ", s.definition, s.payload FROM (SELECT 0 AS n, uid FROM jobs WHERE FALSE UNION ALL SELECT ");
    struct my_rows rows = {.script = &script,
                           .head = buf_str(&head),
                           .sep = " UNION ALL SELECT ",
                           .tail = ") k STRAIGHT_JOIN jobs j FORCE INDEX (PRIMARY) ON j.uid = k.uid "
                                   "LEFT JOIN job_specs s ON s.uid = k.uid",
                           .expect = MY_ROWS,
                           .fn = read_job,
                           .arg = &fetch};
    int r = buf_check(&head, e);
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (keys[i].absent)
            continue;
        my_rows_begin_row(&rows);
        buf_addf(&script.text, "%zu,", i);
        sql_add_hex(&script.text, keys[i].uid.bytes, sizeof(struct uid));
        r = my_rows_end_row(&rows, e);
    }
    if (r == 0)
        r = my_rows_end(&rows, e);
    if (r == 0)
        r = my_script_run(&script, e);
    my_script_fini(&script);
    buf_fini(&head);
    return r;
}

void my_jobs_free(struct store_job *jobs, size_t count)
{
    for (size_t i = 0; jobs && i < count; i++)
        job_spec_unref(jobs[i].spec);
    mem_free(jobs);
}

static int read_fire(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct fetch *f = arg;
    uint64_t i;
    if (!sql_get_u64(row[0], lengths[0], &i) || i >= f->count || f->found[i])
        return bad_index(e);
    int r = sql_read_row(sql_fires(), row + 1, lengths + 1, &f->fires[i], e);
    if (r < 0) {
        memset(&f->fires[i], 0, sizeof(f->fires[i]));
        return r;
    }
    f->found[i] = true;
    return 0;
}

/* Those that went away between the two steps leave no gap. */
static size_t close_gaps(struct fetch *f)
{
    size_t n = 0;
    for (size_t i = 0; i < f->count; i++) {
        if (!f->found[i])
            continue;
        struct fire_row row = f->fires[i];
        memset(&f->fires[i], 0, sizeof(row));
        f->fires[n++] = row;
    }
    return n;
}

int my_fetch_fires(struct my_conn *c, const struct my_key *keys, size_t count, struct fire_row *fires,
                   size_t *ret_count, struct err *e)
{
    struct buf head = BUF_INIT(4096);
    struct my_script script;
    struct fetch fetch = {.fires = fires, .count = count};
    fetch.found = mem_try_array(count + 1, sizeof(*fetch.found), e);
    if (!fetch.found)
        return -ERR_NOMEM;
    my_script_init(&script, c);
    buf_add_str(&head, "SELECT k.n, ");
    sql_add_names(&head, sql_fires(), "f", sql_all(sql_fires()));
    buf_add_str(&head, " FROM (SELECT 0 AS n, uid, seq FROM fires WHERE FALSE UNION ALL SELECT ");
    struct my_rows rows = {
        .script = &script,
        .head = buf_str(&head),
        .sep = " UNION ALL SELECT ",
        .tail = ") k STRAIGHT_JOIN fires f FORCE INDEX (PRIMARY) ON f.uid = k.uid AND f.seq = k.seq",
        .expect = MY_ROWS,
        .fn = read_fire,
        .arg = &fetch};
    int r = buf_check(&head, e);
    for (size_t i = 0; r == 0 && i < count; i++) {
        my_rows_begin_row(&rows);
        buf_addf(&script.text, "%zu,", i);
        sql_add_hex(&script.text, keys[i].uid.bytes, sizeof(struct uid));
        buf_addf(&script.text, ",%llu", (unsigned long long)keys[i].seq);
        r = my_rows_end_row(&rows, e);
    }
    if (r == 0)
        r = my_rows_end(&rows, e);
    if (r == 0)
        r = my_script_run(&script, e);
    if (r == 0)
        *ret_count = close_gaps(&fetch);
    my_script_fini(&script);
    buf_fini(&head);
    mem_free(fetch.found);
    return r;
}

void my_fires_free(struct fire_row *rows, size_t count)
{
    for (size_t i = 0; rows && i < count; i++)
        fire_row_fini(&rows[i]);
    mem_free(rows);
}
