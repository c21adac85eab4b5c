#include "agent/base/option_value.h"

#include <assert.h>
#include <float.h>
#include <string.h>

#include "agent/base/text.h"

#define STRING_MAX    4096
#define PATH_MAX_LEN  4095
#define ITEM_MAX      1024
#define ITEMS_MAX     256
#define UNIX_PATH_MAX 107 /* sun_path less its NUL */

static bool has_range(const struct option_row *row)
{
    return row->min != 0 || row->max != 0;
}

/* The error for a value that parsed but lies outside the row's limits. */
static int out_of_range(const struct option_row *row, const char *text, size_t len, struct err *e)
{
    AUTO(buf_fini) struct buf allowed = BUF_INIT(150);
    option_print_allowed(row, &allowed);
    return err_set(e, ERR_INVALID, "'%s' is out of range, allowed: %s", TEXTQ(text, len), buf_str(&allowed));
}

static int set_u64(const struct option_row *row, void *base, const char *text, size_t len, struct err *e)
{
    uint64_t v;
    int r = row->type == OPTION_SIZE ? text_size_bytes(text, len, &v, e) : text_duration_ms(text, len, &v, e);
    if (r < 0)
        return r;
    if (has_range(row) && ((double)v < row->min || (double)v > row->max))
        return out_of_range(row, text, len, e);
    *(uint64_t *)option_field(row, base) = v;
    return 0;
}

static int set_int(const struct option_row *row, void *base, const char *text, size_t len, struct err *e)
{
    int64_t min = has_range(row) ? (int64_t)row->min : INT64_MIN;
    int64_t max = has_range(row) ? (int64_t)row->max : INT64_MAX;
    return text_i64(text, len, min, max, option_field(row, base), e);
}

static int set_double(const struct option_row *row, void *base, const char *text, size_t len, struct err *e)
{
    double min = has_range(row) ? row->min : -DBL_MAX, max = has_range(row) ? row->max : DBL_MAX;
    return text_double(text, len, min, max, option_field(row, base), e);
}

static int set_enum(const struct option_row *row, void *base, const char *text, size_t len, struct err *e)
{
    for (unsigned i = 0; row->allowed[i]; i++) {
        if (strlen(row->allowed[i]) == len && memcmp(row->allowed[i], text, len) == 0) {
            *(unsigned *)option_field(row, base) = i;
            return 0;
        }
    }
    AUTO(buf_fini) struct buf allowed = BUF_INIT(150);
    option_print_allowed(row, &allowed);
    return err_set(e, ERR_INVALID, "'%s' is not %s", TEXTQ(text, len), buf_str(&allowed));
}

static int check_plain_text(const char *text, size_t len, struct err *e)
{
    if (!text_utf8_valid(text, len))
        return err_set(e, ERR_INVALID, "'%s' is not UTF-8", TEXTQ(text, len));
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return err_set(e, ERR_INVALID, "'%s' contains control characters", TEXTQ(text, len));
    return 0;
}

static int check_string(const struct option_row *row, const char *text, size_t len, struct err *e)
{
    size_t max = row->type == OPTION_PATH ? PATH_MAX_LEN : has_range(row) ? (size_t)row->max : STRING_MAX;
    size_t min = row->type == OPTION_PATH ? 0 : (size_t)row->min;
    if (len > max || len < min)
        return out_of_range(row, text, len, e);
    if (row->type == OPTION_HOST_PORT)
        return text_host_port(text, len, false, NULL, NULL, NULL, e);
    return check_plain_text(text, len, e);
}

static int check_item(const struct option_row *row, const char *text, size_t len, struct err *e)
{
    if (len < 1 || len > ITEM_MAX)
        return err_set(e, ERR_INVALID, "'%s' has %zu bytes, allowed are 1 to %d", TEXTQ(text, len), len,
                       ITEM_MAX);
    if (row->type == OPTION_STRING_LIST)
        return check_plain_text(text, len, e);
    if (len > 5 && memcmp(text, "unix:", 5) == 0) {
        if (text[5] != '/' || len - 5 > UNIX_PATH_MAX)
            return err_set(e, ERR_INVALID, "'%s': write unix:/path, up to %d bytes", TEXTQ(text, len),
                           UNIX_PATH_MAX);
        return check_plain_text(text, len, e);
    }
    if (text_host_port(text, len, true, NULL, NULL, NULL, NULL) < 0)
        return err_set(e, ERR_INVALID, "'%s' is no listener: write host:port, [::1]:port or unix:/path",
                       TEXTQ(text, len));
    return 0;
}

/* A checked copy of one text or item. */
static int copy_text(const struct option_row *row, const char *text, size_t len, char **ret, struct err *e)
{
    int r = option_is_list(row) ? check_item(row, text, len, e) : check_string(row, text, len, e);
    if (r < 0)
        return r;
    AUTO(mem_free) char *copy = mem_try_strndup(text, len, e);
    if (!copy)
        return err_wrap(e, "option %s", row->key);
    r = row->check ? row->check(copy, e) : 0;
    if (r < 0)
        return r;
    *ret = TAKE(copy);
    return 0;
}

static int set_string(const struct option_row *row, void *base, const char *text, size_t len, struct err *e)
{
    char *copy = NULL, **field = option_field(row, base);
    int r = len == 0 && row->min < 1 ? 0 : copy_text(row, text, len, &copy, e);
    if (r < 0)
        return r;
    mem_free(*field);
    *field = copy;
    return 0;
}

static void list_fini(struct option_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mem_free(list->items[i]);
    mem_free(list->items);
    *list = (struct option_list){0};
}

static size_t items_max(const struct option_row *row)
{
    return has_range(row) ? (size_t)row->max : ITEMS_MAX;
}

/* Append a checked copy to LIST, which has room for items_max. */
static int list_add(const struct option_row *row, struct option_list *list, const char *text, size_t len,
                    struct err *e)
{
    if (list->count == items_max(row))
        return err_set(e, ERR_INVALID, "more than %zu items", items_max(row));
    int r = copy_text(row, text, len, &list->items[list->count], e);
    list->count += r == 0;
    return r;
}

static int list_begin(const struct option_row *row, struct option_list *list, struct err *e)
{
    list->items = mem_try_array(items_max(row), sizeof(*list->items), e);
    return list->items ? 0 : err_wrap(e, "option %s", row->key);
}

/* Put LIST into the field if R is 0, else drop it. */
static int list_finish(const struct option_row *row, void *base, struct option_list *list, int r,
                       struct err *e)
{
    if (r == 0 && list->count < (size_t)row->min)
        r = err_set(e, ERR_INVALID, "%zu items, at least %zu are needed", list->count, (size_t)row->min);
    if (r < 0) {
        list_fini(list);
        return r;
    }
    struct option_list *field = option_field(row, base);
    list_fini(field);
    *field = *list;
    return 0;
}

int option_value_check_item(const struct option_row *row, const char *text, size_t len, struct err *e)
{
    AUTO(mem_free) char *copy = NULL;
    return copy_text(row, text, len, &copy, e);
}

int option_value_set_items(const struct option_row *row, void *base, const char *const *items, size_t count,
                           struct err *e)
{
    assert(option_is_list(row));
    struct option_list list = {0};
    int r = list_begin(row, &list, e);
    for (size_t i = 0; r == 0 && i < count; i++)
        r = list_add(row, &list, items[i], strlen(items[i]), e);
    return list_finish(row, base, &list, r, e);
}

static int set_list(const struct option_row *row, void *base, const char *text, size_t len, struct err *e)
{
    struct option_list list = {0};
    int r = list_begin(row, &list, e);
    for (size_t at = 0; r == 0 && len > 0 && at <= len;) {
        const char *comma = memchr(text + at, ',', len - at);
        size_t n = comma ? (size_t)(comma - text) - at : len - at;
        r = list_add(row, &list, text + at, n, e);
        at += n + 1;
    }
    return list_finish(row, base, &list, r, e);
}

static int set_checked_scalar(const struct option_row *row, void *base, const char *text, size_t len,
                              struct err *e)
{
    switch (row->type) {
    case OPTION_BOOL:
        return text_bool(text, len, option_field(row, base), e);
    case OPTION_INT:
        return set_int(row, base, text, len, e);
    case OPTION_DOUBLE:
        return set_double(row, base, text, len, e);
    case OPTION_DURATION:
    case OPTION_SIZE:
        return set_u64(row, base, text, len, e);
    case OPTION_ENUM:
        return set_enum(row, base, text, len, e);
    case OPTION_STRING:
    case OPTION_PATH:
    case OPTION_HOST_PORT:
        return set_string(row, base, text, len, e);
    case OPTION_STRING_LIST:
    case OPTION_LISTEN_LIST:
        return set_list(row, base, text, len, e);
    case OPTION_TYPE_COUNT_:
        break;
    }
    assert(row->type < OPTION_TYPE_COUNT_);
    return 0;
}

int option_value_set(const struct option_row *row, void *base, const char *text, size_t len, struct err *e)
{
    int r = set_checked_scalar(row, base, text, len, e);
    if (r == -ERR_INVALID && (row->flags & OPTION_SECRET))
        return err_set(e, ERR_INVALID, "the value (not shown) is not allowed");
    return r;
}

int option_value_default(const struct option_row *row, void *base, struct err *e)
{
    option_value_fini(row, base);
    if (!row->def)
        return 0;
    int r = option_value_set(row, base, row->def, strlen(row->def), e);
    assert(r == 0 || r == -ERR_NOMEM);
    return r;
}

static size_t field_size(const struct option_row *row)
{
    static const size_t sizes[OPTION_TYPE_COUNT_] = {
        [OPTION_BOOL] = sizeof(bool),
        [OPTION_INT] = sizeof(int64_t),
        [OPTION_DOUBLE] = sizeof(double),
        [OPTION_DURATION] = sizeof(uint64_t),
        [OPTION_SIZE] = sizeof(uint64_t),
        [OPTION_STRING] = sizeof(char *),
        [OPTION_PATH] = sizeof(char *),
        [OPTION_ENUM] = sizeof(unsigned),
        [OPTION_HOST_PORT] = sizeof(char *),
        [OPTION_STRING_LIST] = sizeof(struct option_list),
        [OPTION_LISTEN_LIST] = sizeof(struct option_list),
    };
    return sizes[row->type];
}

void option_value_fini(const struct option_row *row, void *base)
{
    void *field = option_field(row, base);
    if (option_is_list(row))
        list_fini(field);
    else if (row->type == OPTION_STRING || row->type == OPTION_PATH || row->type == OPTION_HOST_PORT)
        mem_free(*(char **)field);
    memset(field, 0, field_size(row));
}

void option_swap(const struct option_row *row, void *a, void *b)
{
    char kept[sizeof(struct option_list)]; /* the largest field */
    size_t size = field_size(row);
    assert(size <= sizeof(kept));
    memcpy(kept, option_field(row, a), size);
    memcpy(option_field(row, a), option_field(row, b), size);
    memcpy(option_field(row, b), kept, size);
}
