#include "agent/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/json_plain.h"
#include "agent/base/text.h"

enum { RESERVE_MIN_BYTES = 256 };

/* jansson 2.14 ignores a failed append while it reads a token: it yields a shortened value, or reads and writes beyond its buffer
 * when what failed was the closing quote. So its allocator is ours, and remembers, per thread, that memory was out; and while
 * jansson reads, the first request that fails is served from a block kept for that, all later ones fail, and the text ends there. */
static _Thread_local bool out_of_memory;
static _Thread_local struct {
    void *block; /* NULL: jansson reads nothing now */
    size_t bytes;
    bool taken;
} reserve;

static void *take_reserve(size_t size)
{
    if (reserve.taken || size > reserve.bytes)
        return NULL;
    reserve.taken = true;
    return reserve.block;
}

static void *json_alloc(size_t size)
{
    void *p = reserve.taken || fault_hit() ? NULL : malloc(size);
    if (p)
        return p;
    out_of_memory = true;
    return take_reserve(size);
}

static void json_release(void *p)
{
    if (p != reserve.block)
        mem_free(p);
}

static void __attribute__((constructor)) json_install_allocator(void)
{
    json_set_alloc_funcs(json_alloc, json_release);
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

/* Nesting by a scan of our own: jansson's limit (2048) is fixed when it is compiled. Broken text is left to jansson. */
static bool too_deep(const char *text, size_t len)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > JSON_DEPTH_MAX)
                return true;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return false;
}

static int refuse_broken(const json_error_t *why, struct err *e)
{
    char quoted[160] = "";
    size_t n = strnlen(why->text, sizeof(quoted) - 1);
    for (size_t i = 0; i < n; i++)
        quoted[i] = why->text[i] >= 0x20 && why->text[i] < 0x7f ? why->text[i] : '?';
    return err_set(e, ERR_INVALID, "JSON line %d column %d: %s", why->line, why->column, quoted);
}

struct rest {
    const char *at;
    const char *end;
};

/* A byte at a time, so that nothing more comes once memory is out. */
static size_t feed(void *out, size_t max, void *arg)
{
    struct rest *rest = arg;
    (void)max;
    if (out_of_memory || rest->at == rest->end)
        return 0;
    *(char *)out = *rest->at++;
    return 1;
}

/* All that json_plain_read() gives back. */
static int read_any(const char *text, size_t len, json_t **ret_json, struct err *e)
{
    json_error_t why;
    if (too_deep(text, len))
        return err_set(e, ERR_INVALID, "JSON is nested deeper than %d levels", JSON_DEPTH_MAX);
    struct rest rest = {.at = text, .end = text + len};
    reserve.bytes = RESERVE_MIN_BYTES + 2 * len; /* jansson's buffer for a token doubles */
    reserve.block = mem_try_alloc(reserve.bytes, e);
    if (!reserve.block)
        return err_wrap(e, "reading JSON");
    json_t *v =
        json_load_callback(feed, &rest, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (out_of_memory) {
        json_decref(v); /* it may stand on the reserve */
        v = NULL;
    }
    void *block = reserve.block;
    memset(&reserve, 0, sizeof(reserve));
    mem_free(block);
    *ret_json = v;
    return v || out_of_memory ? 0 : refuse_broken(&why, e);
}

int json_read(const char *text, size_t len, size_t max_bytes, json_t **ret_json, struct err *e)
{
    if (len > max_bytes)
        return err_set(e, ERR_TOO_BIG, "%zu bytes of JSON, allowed are %zu", len, max_bytes);
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        return err_set(e, ERR_INVALID, "JSON begins with a byte order mark; send it without");
    out_of_memory = false;
    json_t *v = json_plain_read(text, len);
    int r = v || out_of_memory ? 0 : read_any(text, len, &v, e);
    if (r < 0)
        return r;
    if (out_of_memory) {
        json_decref(v);
        return err_set(e, ERR_NOMEM, "no memory to read %zu bytes of JSON", len);
    }
    *ret_json = v;
    return 0;
}

/* --- merge patch (RFC 7396) ---------------------------------------------------------------------------------------- */

/* jansson counts references inside the value, so sharing a constant needs the cast. */
static json_t *share(const json_t *v)
{
    return json_incref((json_t *)v);
}

static json_t *merge(const json_t *target, const json_t *patch, unsigned depth, struct err *e);

/* Set OBJ[KEY] to what PATCH makes of OLD (either may be NULL); null removes. */
static int merge_member(json_t *obj, const char *key, const json_t *old, const json_t *patch, unsigned depth,
                        struct err *e)
{
    if (patch && json_is_null(patch))
        return 0;
    json_t *v = patch ? merge(old, patch, depth + 1, e) : share(old);
    if (!v)
        return err_wrap(e, "'%s'", TEXTQ(key, strlen(key)));
    return json_set(obj, key, v, e);
}

static int merge_members(json_t *obj, const json_t *target, const json_t *patch, unsigned depth,
                         struct err *e)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)target, key, v)
    {
        int r = merge_member(obj, key, v, json_object_get(patch, key), depth, e);
        if (r < 0)
            return r;
    }
    json_object_foreach((json_t *)patch, key, v)
    {
        int r = json_object_get(target, key) ? 0 : merge_member(obj, key, NULL, v, depth, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static json_t *merge(const json_t *target, const json_t *patch, unsigned depth, struct err *e)
{
    if (!json_is_object(patch))
        return share(patch);
    if (depth >= JSON_DEPTH_MAX) {
        (void)err_set(e, ERR_TOO_BIG, "nested deeper than %d levels",
                      JSON_DEPTH_MAX); /* NULL tells the caller */
        return NULL;
    }
    json_t *obj = json_object();
    if (!obj) {
        (void)err_set(e, ERR_NOMEM, "no memory for an object"); /* as above */
        return NULL;
    }
    if (merge_members(obj, target, patch, depth, e) < 0) {
        json_decref(obj);
        return NULL;
    }
    return obj;
}

int json_merge_patch(const json_t *target, const json_t *patch, json_t **ret_json, struct err *e)
{
    json_t *v = merge(target, patch, 0, e);
    if (!v)
        return err_wrap(e, "merge patch");
    *ret_json = v;
    return 0;
}

/* --- printing: ours, since jansson writes 0.1 as 0.10000000000000001 -------------------------------------------------- */

/* What people write has few decimals. A quotient of integers that a double holds exactly is rounded as reading its decimal
 * form is, so comparing finds the same shortest form as below, without printing and reading it. */
static bool print_short_real(struct buf *out, double v)
{
    if (!(v >= 0.001 && v < 1e9))
        return false;
    static const unsigned scales[] = {10, 100, 1000};
    for (size_t i = 0; i < sizeof(scales) / sizeof(*scales); i++) {
        uint64_t scaled = (uint64_t)(v * scales[i] + 0.5);
        if ((double)scaled / scales[i] != v)
            continue;
        buf_add_u64(out, scaled / scales[i]);
        buf_add_char(out, '.');
        for (unsigned place = scales[i] / 10; place > 0; place /= 10)
            buf_add_char(out, (char)('0' + scaled / place % 10));
        return true;
    }
    return false;
}

void json_print_real(struct buf *out, double v)
{
    char text[40];
    if (print_short_real(out, v))
        return;
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, v); /* 17 digits and an exponent fit */
        if (strtod(text, NULL) == v)
            break;
    }
    char *comma = strchr(text, ','); /* a locale's decimal point */
    if (comma)
        *comma = '.';
    buf_add_str(out, text);
    if (!strpbrk(text, ".e"))
        buf_add_str(out, ".0"); /* stays a real when it is read again */
}

static void print_escape(struct buf *out, unsigned char c)
{
    static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (const char *s = short_forms; *s; s += 2) {
        if ((unsigned char)s[0] == c) {
            buf_add(out, (char[]){'\\', s[1]}, 2);
            return;
        }
    }
    buf_addf(out, "\\u%04x", c);
}

/* Bytes from S on that stand for themselves in a string. */
static size_t plain_span(const char *s, size_t len)
{
    size_t n = 0;
    while (n < len && (unsigned char)s[n] >= 0x20 && s[n] != '"' && s[n] != '\\')
        n++;
    return n;
}

static void print_escaped(struct buf *out, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        size_t n = plain_span(s + i, len - i);
        buf_add(out, s + i, n);
        i += n;
        if (i < len)
            print_escape(out, (unsigned char)s[i]);
    }
}

/* Nearly all strings: ASCII without anything to escape. False: it is not such a one. */
static bool print_plain(struct buf *out, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((signed char)s[i] < 0x20 || s[i] == '"' || s[i] == '\\') /* what is beyond ASCII is negative */
            return false;
    char *at = buf_reserve(out, len + 2);
    if (!at)
        return true;
    at[0] = '"';
    memcpy(at + 1, s, len);
    at[len + 1] = '"';
    buf_commit(out, len + 2);
    return true;
}

void json_print_string(struct buf *out, const char *s, size_t len)
{
    if (print_plain(out, s, len))
        return;
    buf_add_char(out, '"');
    if (text_utf8_valid(s, len)) {
        print_escaped(out, s, len);
    } else {
        for (size_t i = 0; i < len;) {
            size_t n = len - i < 4 ? len - i : 4;
            while (n > 0 && !text_utf8_valid(s + i, n))
                n--;
            if (n > 0)
                print_escaped(out, s + i, n);
            else
                buf_add_str(out, "\xEF\xBF\xBD");
            i += n > 0 ? n : 1;
        }
    }
    buf_add_char(out, '"');
}

static int print_value(const json_t *v, struct buf *out, bool sorted, unsigned depth, struct err *e);

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int print_member(const json_t *obj, const char *key, bool first, struct buf *out, bool sorted,
                        unsigned depth, struct err *e)
{
    if (!first)
        buf_add_char(out, ',');
    json_print_string(out, key, strlen(key));
    buf_add_char(out, ':');
    return print_value(json_object_get(obj, key), out, sorted, depth + 1, e);
}

static int print_object(const json_t *obj, struct buf *out, bool sorted, unsigned depth, struct err *e)
{
    size_t count = json_object_size(obj), n = 0;
    AUTO(mem_free) const char **keys = mem_try_array(count, sizeof(*keys), e);
    if (!keys)
        return err_wrap(e, "print JSON");
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)obj, key, member) keys[n++] = key;
    if (sorted && n > 1)
        qsort(keys, n, sizeof(*keys), compare_keys);
    buf_add_char(out, '{');
    for (size_t i = 0; i < n; i++) {
        int r = print_member(obj, keys[i], i == 0, out, sorted, depth, e);
        if (r < 0)
            return r;
    }
    buf_add_char(out, '}');
    return 0;
}

static int print_array(const json_t *array, struct buf *out, bool sorted, unsigned depth, struct err *e)
{
    buf_add_char(out, '[');
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (i > 0)
            buf_add_char(out, ',');
        int r = print_value(json_array_get(array, i), out, sorted, depth + 1, e);
        if (r < 0)
            return r;
    }
    buf_add_char(out, ']');
    return 0;
}

static int print_value(const json_t *v, struct buf *out, bool sorted, unsigned depth, struct err *e)
{
    if (depth > 2 * JSON_DEPTH_MAX)
        return err_set(e, ERR_TOO_BIG, "JSON nested deeper than %d levels", 2 * JSON_DEPTH_MAX);
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return print_object(v, out, sorted, depth, e);
    case JSON_ARRAY:
        return print_array(v, out, sorted, depth, e);
    case JSON_STRING:
        json_print_string(out, json_string_value(v), json_string_length(v));
        return 0;
    case JSON_INTEGER:
        buf_add_i64(out, json_integer_value(v));
        return 0;
    case JSON_REAL:
        json_print_real(out, json_real_value(v));
        return 0;
    case JSON_TRUE:
        buf_add_str(out, "true");
        return 0;
    case JSON_FALSE:
        buf_add_str(out, "false");
        return 0;
    case JSON_NULL:
        buf_add_str(out, "null");
        return 0;
    default:
        abort(); /* jansson has no other types */
    }
}

int json_print(const json_t *v, struct buf *out, struct err *e)
{
    int r = print_value(v, out, true, 0, e);
    return r < 0 ? r : buf_check(out, e);
}

int json_print_ordered(const json_t *v, struct buf *out, struct err *e)
{
    int r = print_value(v, out, false, 0, e);
    return r < 0 ? r : buf_check(out, e);
}

/* --- building ------------------------------------------------------------------------------------------------------ */

int json_set(json_t *obj, const char *key, json_t *v, struct err *e)
{
    if (json_object_set_new(obj, key, v) < 0)
        return err_set(e, ERR_NOMEM, "no memory for member '%s'", key);
    return 0;
}
