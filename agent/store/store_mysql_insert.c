#include "agent/store/store_mysql_insert.h"

#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"

/* Fewer rows are sent sooner as a part of one text than in round trips of their own. */
#define ARRAY_ROWS_MIN 32
#define COLUMNS_MAX    40

enum kind { KIND_COUNT, KIND_INSTANT, KIND_BYTES, KIND_UTF8 };

/* A column of MY_ROWS_MAX values. */
struct column {
    enum kind kind;
    union value {
        int64_t number;
        const void *data;
    } * values;
    unsigned long *lengths; /* of data */
    char *nulls;            /* enum enum_indicator_type */
};

struct my_arrays {
    struct column columns[COLUMNS_MAX];
    unsigned columns_count; /* known after the first row */
    unsigned rows;
    size_t bytes;
    bool nomem;
};

void my_insert_begin(struct my_insert *i, struct my_script *s, enum my_insert_into into, const char *head,
                     size_t rows)
{
    *i = (struct my_insert){.script = s, .head = head, .into = into};
    i->rows = (struct my_rows){.script = s, .head = head, .sep = "), (", .tail = ")", .expect = MY_ANY};
    if (s->conn->has_arrays && rows >= ARRAY_ROWS_MIN)
        i->array = mem_try_alloc(sizeof(*i->array), NULL);
    if (i->array)
        memset(i->array, 0, sizeof(*i->array));
}

/* --- values ---------------------------------------------------------------------------------------------------------- */

static bool column_make(struct column *c, enum kind kind)
{
    c->kind = kind;
    c->values = mem_try_array(MY_ROWS_MAX, sizeof(*c->values), NULL);
    c->lengths = mem_try_array(MY_ROWS_MAX, sizeof(*c->lengths), NULL);
    c->nulls = mem_try_array(MY_ROWS_MAX, sizeof(*c->nulls), NULL);
    return c->values && c->lengths && c->nulls;
}

static void array_add(struct my_insert *i, enum kind kind, union value value, bool null, size_t len)
{
    struct my_arrays *a = i->array;
    assert(i->column < COLUMNS_MAX);
    struct column *c = &a->columns[i->column++];
    if (a->nomem || (!c->values && !column_make(c, kind))) {
        a->nomem = true;
        return;
    }
    assert(c->kind == kind && a->rows < MY_ROWS_MAX);
    c->values[a->rows] = value;
    c->lengths[a->rows] = len;
    c->nulls[a->rows] = null ? STMT_INDICATOR_NULL : STMT_INDICATOR_NONE;
    a->bytes += len + sizeof(value);
}

/* Where the text of the next column goes. */
static struct buf *text_of(struct my_insert *i)
{
    if (i->column == 0)
        my_rows_begin_row(&i->rows);
    else
        buf_add_char(&i->script->text, ',');
    i->column++;
    return &i->script->text;
}

void my_insert_u64(struct my_insert *i, uint64_t v)
{
    if (i->array)
        array_add(i, KIND_COUNT, (union value){.number = (int64_t)v}, false, 0);
    else
        buf_add_u64(text_of(i), v);
}

void my_insert_ms(struct my_insert *i, int64_t ms)
{
    if (i->array)
        array_add(i, KIND_INSTANT, (union value){.number = ms}, ms == RECORD_NONE, 0);
    else
        sql_add_ms(text_of(i), ms);
}

void my_insert_bytes(struct my_insert *i, const void *data, size_t len)
{
    if (i->array)
        array_add(i, KIND_BYTES, (union value){.data = data}, !data, data ? len : 0);
    else
        sql_add_blob(text_of(i), data, len);
}

void my_insert_ascii(struct my_insert *i, const char *s)
{
    my_insert_bytes(i, s, strlen(s));
}

void my_insert_utf8(struct my_insert *i, const char *s, size_t len)
{
    if (i->array)
        array_add(i, KIND_UTF8, (union value){.data = s}, !s, s ? len : 0);
    else if (s)
        sql_add_utf8(text_of(i), s, len);
    else
        sql_add_blob(text_of(i), NULL, 0);
}

void my_insert_values(struct my_insert *i, const struct sql_table *t, const void *row)
{
    for (size_t k = 0; k < t->count; k++) {
        struct sql_value v = sql_value_of(&t->columns[k], row);
        if (v.form == SQL_NUMBER)
            my_insert_u64(i, v.number);
        else if (v.form == SQL_INSTANT)
            my_insert_ms(i, v.ms);
        else
            my_insert_bytes(i, v.data, v.len);
    }
}

/* --- sending --------------------------------------------------------------------------------------------------------- */

static int array_prepare(struct my_insert *i, MYSQL_STMT **ret, struct err *e)
{
    struct my_conn *c = i->script->conn;
    MYSQL_STMT **stmt = &c->inserts[i->into];
    struct buf sql = BUF_INIT(4096);
    buf_add_str(&sql, i->head);
    for (unsigned k = 0; k < i->array->columns_count; k++)
        buf_add_str(&sql, k ? ",?" : "?");
    buf_add_char(&sql, ')');
    int r = buf_check(&sql, e);
    if (r == 0 && !*stmt && !(*stmt = mysql_stmt_init(c->mysql)))
        r = err_set(e, ERR_NOMEM, "no memory for a statement");
    if (r == 0 && mysql_stmt_prepare(*stmt, buf_str(&sql), (unsigned long)sql.len))
        r = my_conn_stmt_error(c, *stmt, "prepare", e);
    if (r < 0)
        my_conn_drop_insert(c, i->into);
    if (r ==
        -ERR_PERMANENT) { /* a server may allow no prepared statements; whatever else it is, the text meets it too */
        c->has_arrays = false;
        r = err_set(e, ERR_RETRY, "without prepared statements");
    }
    buf_fini(&sql);
    *ret = *stmt;
    return r;
}

static void array_bind(const struct my_arrays *a, MYSQL_BIND *binds)
{
    static const enum enum_field_types types[] = {[KIND_COUNT] = MYSQL_TYPE_LONGLONG,
                                                  [KIND_INSTANT] = MYSQL_TYPE_LONGLONG,
                                                  [KIND_BYTES] = MYSQL_TYPE_BLOB,
                                                  [KIND_UTF8] = MYSQL_TYPE_STRING};
    for (unsigned k = 0; k < a->columns_count; k++) {
        const struct column *c = &a->columns[k];
        binds[k] = (MYSQL_BIND){.buffer_type = types[c->kind],
                                .is_unsigned = c->kind == KIND_COUNT,
                                .buffer = c->values,
                                .length = c->lengths,
                                .u.indicator = c->nulls};
    }
}

static int array_execute(struct my_insert *i, struct err *e)
{
    struct my_arrays *a = i->array;
    struct my_conn *c = i->script->conn;
    MYSQL_STMT *stmt = c->inserts[i->into];
    MYSQL_BIND binds[COLUMNS_MAX];
    if (!c->mysql || fault_hit())
        return err_set(e, ERR_UNAVAILABLE, "not connected");
    int r = stmt ? 0 : array_prepare(i, &stmt, e);
    if (r < 0)
        return r;
    array_bind(a, binds);
    if (mysql_stmt_attr_set(stmt, STMT_ATTR_ARRAY_SIZE, &a->rows) || mysql_stmt_bind_param(stmt, binds) ||
        mysql_stmt_execute(stmt))
        return my_conn_stmt_error(c, stmt, "insert", e);
    return 0;
}

/* What the script has gathered goes first. */
static int array_send(struct my_insert *i, struct err *e)
{
    struct my_arrays *a = i->array;
    int r = my_script_run(i->script, e);
    if (r == 0 && a->nomem)
        r = err_set(e, ERR_NOMEM, "no memory for arrays of values");
    else if (r == 0 && a->bytes > i->script->conn->packet_max)
        r = err_set(e, ERR_REFUSED, "%zu bytes are too large for the store", a->bytes);
    else if (r == 0)
        r = array_execute(i, e);
    a->rows = 0;
    a->bytes = 0;
    return r;
}

int my_insert_row_end(struct my_insert *i, struct err *e)
{
    struct my_arrays *a = i->array;
    if (!a) {
        i->column = 0;
        return my_rows_end_row(&i->rows, e);
    }
    assert(a->rows == 0 || a->columns_count == i->column);
    a->columns_count = i->column;
    a->rows++;
    i->column = 0;
    if (a->rows < MY_ROWS_MAX && a->bytes < my_script_statement_bytes(i->script))
        return 0;
    return array_send(i, e);
}

static void array_free(struct my_arrays *a)
{
    for (size_t k = 0; k < COLUMNS_MAX; k++) {
        mem_free(a->columns[k].values);
        mem_free(a->columns[k].lengths);
        mem_free(a->columns[k].nulls);
    }
    mem_free(a);
}

int my_insert_end(struct my_insert *i, int r, struct err *e)
{
    if (r == 0 && i->array)
        r = i->array->rows ? array_send(i, e) : 0;
    else if (r == 0)
        r = my_rows_end(&i->rows, e);
    if (i->array)
        array_free(i->array);
    i->array = NULL;
    return r;
}
