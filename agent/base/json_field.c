/* Problem lists, pointers and typed fields of json.h. */
#include "agent/base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"

/* --- problems ---------------------------------------------------------------------------------------------------- */

void problems_init(struct problems *p)
{
    *p = (struct problems){0};
}

void problems_fini(struct problems *p)
{
    for (size_t i = 0; i < p->count; i++) {
        mem_free(p->items[i].pointer);
        mem_free(p->items[i].detail);
    }
    mem_free(p->items);
    problems_init(p);
}

static void keep_problem(struct problems *p, const char *pointer, const char *detail)
{
    if (!p->items)
        p->items = mem_try_array(JSON_PROBLEMS_MAX, sizeof(*p->items), NULL);
    char *pointer_copy = p->items ? mem_try_strndup(pointer, strlen(pointer), NULL) : NULL;
    char *detail_copy = pointer_copy ? mem_try_strndup(detail, strlen(detail), NULL) : NULL;
    if (!detail_copy) {
        mem_free(pointer_copy);
        p->nomem = true;
        return;
    }
    p->items[p->count++] = (struct problem){.pointer = pointer_copy, .detail = detail_copy};
}

static void __attribute__((format(printf, 3, 0)))
add_problem(struct problems *p, const char *pointer, const char *fmt, va_list ap)
{
    if (!p)
        return;
    if (p->count == JSON_PROBLEMS_MAX) {
        p->dropped++;
        return;
    }
    char detail[400];
    int n = vsnprintf(detail, sizeof(detail), fmt, ap);
    if (n >= (int)sizeof(detail))
        detail[text_utf8_cut(detail, sizeof(detail), sizeof(detail) - 1)] = '\0';
    keep_problem(p, pointer, detail);
}

void problems_add(struct problems *p, const char *pointer, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_problem(p, pointer, fmt, ap);
    va_end(ap);
}

int problems_check(const struct problems *p, struct err *e)
{
    if (p->nomem)
        return err_set(e, ERR_NOMEM, "no memory to list problems");
    if (p->count == 0)
        return 0;
    size_t others = p->count - 1 + p->dropped;
    if (others == 0)
        return err_set(e, ERR_INVALID, "%s: %s", p->items[0].pointer, p->items[0].detail);
    return err_set(e, ERR_INVALID, "%s: %s (and %zu more)", p->items[0].pointer, p->items[0].detail, others);
}

/* --- pointers ---------------------------------------------------------------------------------------------------- */

/* Append one reference token with RFC 6901's escapes. */
static void print_token(struct buf *out, const struct json_at *at)
{
    buf_add_char(out, '/');
    if (!at->key) {
        buf_add_u64(out, at->index);
        return;
    }
    for (const char *c = at->key; *c && out->len < JSON_POINTER_MAX; c++) {
        if (*c == '~')
            buf_add_str(out, "~0");
        else if (*c == '/')
            buf_add_str(out, "~1");
        else
            buf_add_char(out, *c);
    }
}

void json_at_print(const struct json_at *at, char ret[JSON_POINTER_MAX])
{
    const struct json_at *chain[2 * JSON_DEPTH_MAX];
    size_t depth = 0;
    for (; at && depth < 2 * JSON_DEPTH_MAX; at = at->parent)
        chain[depth++] = at;
    AUTO(buf_fini) struct buf text = BUF_INIT((size_t)JSON_POINTER_MAX * 2);
    buf_add_char(&text, '#');
    while (depth > 0)
        print_token(&text, chain[--depth]);
    size_t len = text_utf8_cut(buf_str(&text), text.len, JSON_POINTER_MAX - 1);
    memcpy(ret, buf_str(&text), len);
    ret[len] = '\0';
}

void json_problem(struct problems *p, const struct json_at *at, const char *key, const char *fmt, ...)
{
    struct json_at member = json_at_key(at, key);
    char pointer[JSON_POINTER_MAX];
    json_at_print(key ? &member : at, pointer);
    va_list ap;
    va_start(ap, fmt);
    add_problem(p, pointer, fmt, ap);
    va_end(ap);
}

/* --- fields ------------------------------------------------------------------------------------------------------ */

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number",  [JSON_TRUE] = "a boolean",
        [JSON_FALSE] = "a boolean",  [JSON_NULL] = "null",
    };
    return names[json_typeof(v)];
}

/* The member, NULL when absent or null. */
static const json_t *get_member(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v) ? v : NULL;
}

static bool wrong_type(const json_t *v, const char *wanted, const char *key, const struct json_at *at,
                       struct problems *p)
{
    json_problem(p, at, key, "must be %s, not %s", wanted, type_name(v));
    return false;
}

bool json_expect_object(const json_t *v, const struct json_at *at, struct problems *p)
{
    if (json_is_object(v))
        return true;
    json_problem(p, at, NULL, "must be an object%s%s", v ? ", not " : "", v ? type_name(v) : "");
    return false;
}

bool json_require(const json_t *obj, const char *key, const struct json_at *at, struct problems *p)
{
    if (get_member(obj, key))
        return true;
    json_problem(p, at, key, "is required");
    return false;
}

json_t *json_field_object(const json_t *obj, const char *key, const struct json_at *at, struct problems *p)
{
    const json_t *v = get_member(obj, key);
    if (v && !json_is_object(v)) {
        (void)wrong_type(v, "an object", key, at, p);
        return NULL;
    }
    return (json_t *)v;
}

json_t *json_field_array(const json_t *obj, const char *key, size_t max_items, const struct json_at *at,
                         struct problems *p)
{
    const json_t *v = get_member(obj, key);
    if (v && !json_is_array(v)) {
        (void)wrong_type(v, "an array", key, at, p);
        return NULL;
    }
    if (v && json_array_size(v) > max_items) {
        json_problem(p, at, key, "has %zu items, allowed are %zu", json_array_size(v), max_items);
        return NULL;
    }
    return (json_t *)v;
}

/* Checks the string V, which stands at AT, or at its member KEY. */
static bool check_string(const json_t *v, size_t min_bytes, size_t max_bytes, const char *key,
                         const struct json_at *at, struct problems *p)
{
    if (!json_is_string(v))
        return wrong_type(v, "a string", key, at, p);
    size_t len = json_string_length(v);
    if (len < min_bytes && len == 0)
        json_problem(p, at, key, "may not be empty");
    else if (len < min_bytes || len > max_bytes)
        json_problem(p, at, key, "has %zu bytes, allowed are %zu to %zu", len, min_bytes, max_bytes);
    else if (memchr(json_string_value(v), '\0', len))
        json_problem(p, at, key, "contains a NUL character");
    else
        return true;
    return false;
}

bool json_field_string(const json_t *obj, const char *key, size_t min_bytes, size_t max_bytes,
                       const char **ret, size_t *ret_len, const struct json_at *at, struct problems *p)
{
    const json_t *v = get_member(obj, key);
    if (!v || !check_string(v, min_bytes, max_bytes, key, at, p))
        return false;
    *ret = json_string_value(v);
    if (ret_len)
        *ret_len = json_string_length(v);
    return true;
}

bool json_field_copy(const json_t *obj, const char *key, size_t min_bytes, char *ret, size_t size,
                     const struct json_at *at, struct problems *p)
{
    const char *text;
    size_t len;
    if (min_bytes > 0 && !json_require(obj, key, at, p))
        return false;
    if (!json_field_string(obj, key, min_bytes, size - 1, &text, &len, at, p))
        return false;
    memcpy(ret, text, len + 1);
    return true;
}

bool json_field_bool(const json_t *obj, const char *key, bool *ret, const struct json_at *at,
                     struct problems *p)
{
    const json_t *v = get_member(obj, key);
    if (!v)
        return false;
    if (!json_is_boolean(v))
        return wrong_type(v, "true or false", key, at, p);
    *ret = json_is_true(v);
    return true;
}

bool json_field_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
                    const struct json_at *at, struct problems *p)
{
    const json_t *v = get_member(obj, key);
    if (!v)
        return false;
    if (json_is_real(v)) {
        json_problem(p, at, key, "must be a whole number, not %g", json_real_value(v));
        return false;
    }
    if (!json_is_integer(v))
        return wrong_type(v, "a whole number", key, at, p);
    int64_t n = json_integer_value(v);
    if (n < min || n > max) {
        json_problem(p, at, key, "must be from %" PRId64 " to %" PRId64 ", not %" PRId64, min, max, n);
        return false;
    }
    *ret = n;
    return true;
}

bool json_field_double(const json_t *obj, const char *key, double min, double max, double *ret,
                       const struct json_at *at, struct problems *p)
{
    const json_t *v = get_member(obj, key);
    if (!v)
        return false;
    if (!json_is_number(v))
        return wrong_type(v, "a number", key, at, p);
    double n = json_number_value(v);
    if (n < min || n > max) {
        json_problem(p, at, key, "must be from %g to %g, not %g", min, max, n);
        return false;
    }
    *ret = n;
    return true;
}

bool json_field_duration_ms(const json_t *obj, const char *key, uint64_t min_ms, uint64_t max_ms,
                            uint64_t *ret_ms, const struct json_at *at, struct problems *p)
{
    const json_t *v = get_member(obj, key);
    if (!v)
        return false;
    if (!json_is_string(v))
        return wrong_type(v, "a duration like \"10s\"", key, at, p);
    struct err e;
    uint64_t ms;
    if (text_duration_ms(json_string_value(v), json_string_length(v), &ms, &e) < 0) {
        json_problem(p, at, key, "%s", e.text);
        return false;
    }
    if (ms < min_ms || ms > max_ms) {
        char low[TEXT_DURATION_SIZE], high[TEXT_DURATION_SIZE];
        (void)text_duration_print(low, min_ms); /* the lengths are not needed */
        (void)text_duration_print(high, max_ms);
        json_problem(p, at, key, "must be from %s to %s", low, high);
        return false;
    }
    *ret_ms = ms;
    return true;
}

bool json_field_instant_ms(const json_t *obj, const char *key, int64_t *ret_ms, const struct json_at *at,
                           struct problems *p)
{
    const json_t *v = get_member(obj, key);
    if (!v)
        return false;
    if (!json_is_string(v))
        return wrong_type(v, "an instant like \"2026-11-23T08:00:00Z\"", key, at, p);
    struct err e;
    if (text_instant_ms(json_string_value(v), json_string_length(v), ret_ms, &e) < 0) {
        json_problem(p, at, key, "%s", e.text);
        return false;
    }
    return true;
}

static void enum_problem(const char *given, size_t len, const char *const *names, const char *key,
                         const struct json_at *at, struct problems *p)
{
    AUTO(buf_fini) struct buf allowed = BUF_INIT(300);
    for (size_t i = 0; names[i]; i++)
        buf_addf(&allowed, "%s%s", i ? ", " : "", names[i]);
    json_problem(p, at, key, "'%s' is not one of %s", TEXTQ(given, len), buf_str(&allowed));
}

bool json_field_enum(const json_t *obj, const char *key, const char *const *names, unsigned *ret,
                     const struct json_at *at, struct problems *p)
{
    const json_t *v = get_member(obj, key);
    if (!v)
        return false;
    if (!json_is_string(v))
        return wrong_type(v, "a string", key, at, p);
    const char *given = json_string_value(v);
    size_t len = json_string_length(v);
    for (unsigned i = 0; names[i]; i++) {
        if (strlen(names[i]) == len && memcmp(names[i], given, len) == 0) {
            *ret = i;
            return true;
        }
    }
    enum_problem(given, len, names, key, at, p);
    return false;
}

/* All problems of an array's items, not only the first. */
static bool check_items(const json_t *array, size_t max_bytes, const struct json_at *at, struct problems *p)
{
    bool ok = true;
    for (size_t i = 0; i < json_array_size(array); i++) {
        struct json_at item = json_at_index(at, i);
        ok = check_string(json_array_get(array, i), 1, max_bytes, NULL, &item, p) && ok;
    }
    return ok;
}

bool json_field_strings(const json_t *obj, const char *key, size_t max_items, size_t max_bytes,
                        const char ***ret, size_t *ret_count, const struct json_at *at, struct problems *p)
{
    const json_t *v = get_member(obj, key);
    struct json_at here = json_at_key(at, key);
    if (!v)
        return false;
    if (!json_is_array(v) && !json_is_string(v))
        return wrong_type(v, "a string or an array of strings", key, at, p);
    size_t count = json_is_array(v) ? json_array_size(v) : 1;
    if (count < 1 || count > max_items) {
        json_problem(p, at, key, "has %zu items, allowed are 1 to %zu", count, max_items);
        return false;
    }
    if (!(json_is_array(v) ? check_items(v, max_bytes, &here, p) : check_string(v, 1, max_bytes, key, at, p)))
        return false;
    const char **items = mem_try_array(count, sizeof(*items), NULL);
    if (!items) {
        if (p)
            p->nomem = true;
        return false;
    }
    for (size_t i = 0; i < count; i++)
        items[i] = json_string_value(json_is_array(v) ? json_array_get(v, i) : v);
    *ret = items;
    *ret_count = count;
    return true;
}

static bool is_known(const char *key, const char *const *known)
{
    for (; *known; known++)
        if (strcmp(*known, key) == 0)
            return true;
    return false;
}

void json_unknown_fields(const json_t *obj, const char *const *known, const struct json_at *at,
                         struct problems *p)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)obj, key, v)
    {
        if (is_known(key, known))
            continue;
        const char *near = text_nearest(key, strlen(key), known);
        if (near)
            json_problem(p, at, key, "is not a known field; did you mean '%s'?", near);
        else
            json_problem(p, at, key, "is not a known field");
    }
}
