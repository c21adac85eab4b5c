#include "agent/base/json_plain.h"

#include <string.h>

/* What a double and an int64_t hold without rounding, whatever the digits are. */
#define REAL_DIGITS_MAX    15
#define INTEGER_DIGITS_MAX 18

struct text {
    const char *at;
    const char *end;
    unsigned depth;
};

static json_t *read_value(struct text *t);

/* The next byte that is not blank; 0 at the end. */
static char look(struct text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\t' || *t->at == '\r'))
        t->at++;
    return t->at < t->end ? *t->at : '\0';
}

static bool take(struct text *t, char c)
{
    if (look(t) != c)
        return false;
    t->at++;
    return true;
}

/* The bytes between two quotes. False: they are not plain. */
static bool take_string(struct text *t, const char **ret, size_t *ret_len, bool *ret_ascii)
{
    unsigned char all = 0;
    if (look(t) != '"')
        return false;
    const char *s = t->at + 1;
    for (; s < t->end && *s != '"'; s++) {
        if ((unsigned char)*s < 0x20 || *s == '\\')
            return false;
        all |= (unsigned char)*s;
    }
    if (s == t->end)
        return false;
    *ret = t->at + 1;
    *ret_len = (size_t)(s - *ret);
    *ret_ascii = all < 0x80;
    t->at = s + 1;
    return true;
}

static json_t *read_string(struct text *t)
{
    const char *s;
    size_t len;
    bool ascii;
    if (!take_string(t, &s, &len, &ascii))
        return NULL;
    return ascii ? json_stringn_nocheck(s, len) : json_stringn(s, len);
}

static bool is_digit(const struct text *t)
{
    return t->at < t->end && *t->at >= '0' && *t->at <= '9';
}

/* Digits onto *v; how many. */
static unsigned take_digits(struct text *t, uint64_t *v)
{
    unsigned n = 0;
    for (; is_digit(t) && n <= INTEGER_DIGITS_MAX; t->at++, n++)
        *v = *v * 10 + (uint64_t)(*t->at - '0');
    return n;
}

/* A quotient of integers that a double holds exactly is rounded as strtod() rounds. */
static json_t *make_real(uint64_t digits, unsigned places, bool negative)
{
    double scale = 1;
    for (unsigned i = 0; i < places; i++)
        scale *= 10;
    double v = (double)digits / scale;
    return json_real(negative ? -v : v);
}

static json_t *read_number(struct text *t)
{
    bool negative = *t->at == '-';
    uint64_t v = 0;
    t->at += negative;
    bool zero = is_digit(t) && *t->at == '0';
    unsigned digits = take_digits(t, &v), places = 0;
    if (digits == 0 || digits > INTEGER_DIGITS_MAX || (zero && digits > 1))
        return NULL;
    bool point = t->at < t->end && *t->at == '.';
    if (point) {
        t->at++;
        places = take_digits(t, &v);
        if (places == 0 || digits + places > REAL_DIGITS_MAX)
            return NULL;
    }
    if (t->at < t->end && (*t->at == 'e' || *t->at == 'E'))
        return NULL;
    return point ? make_real(v, places, negative) : json_integer(negative ? -(json_int_t)v : (json_int_t)v);
}

static json_t *read_word(struct text *t)
{
    size_t left = (size_t)(t->end - t->at);
    if (left >= 4 && memcmp(t->at, "true", 4) == 0)
        return t->at += 4, json_true();
    if (left >= 5 && memcmp(t->at, "false", 5) == 0)
        return t->at += 5, json_false();
    if (left >= 4 && memcmp(t->at, "null", 4) == 0)
        return t->at += 4, json_null();
    return NULL;
}

/* False: not plain, or a key that was there. */
static bool read_member(struct text *t, json_t *object)
{
    const char *key;
    size_t len, before = json_object_size(object);
    bool ascii;
    if (!take_string(t, &key, &len, &ascii) || !ascii || !take(t, ':'))
        return false;
    json_t *v = read_value(t);
    return v && json_object_setn_new_nocheck(object, key, len, v) == 0 && json_object_size(object) > before;
}

static bool read_members(struct text *t, json_t *object)
{
    if (take(t, '}'))
        return true;
    do {
        if (!read_member(t, object))
            return false;
    } while (take(t, ','));
    return take(t, '}');
}

static bool read_items(struct text *t, json_t *array)
{
    if (take(t, ']'))
        return true;
    do {
        json_t *v = read_value(t);
        if (!v || json_array_append_new(array, v) < 0)
            return false;
    } while (take(t, ','));
    return take(t, ']');
}

static json_t *read_container(struct text *t)
{
    bool object = *t->at++ == '{';
    json_t *v = t->depth < JSON_DEPTH_MAX ? (object ? json_object() : json_array()) : NULL;
    if (!v)
        return NULL;
    t->depth++;
    if (!(object ? read_members(t, v) : read_items(t, v))) {
        json_decref(v);
        return NULL;
    }
    t->depth--;
    return v;
}

/* Depth: JSON_DEPTH_MAX. */
static json_t *read_value(struct text *t)
{
    char c = look(t);
    if (c == '{' || c == '[')
        return read_container(t);
    if (c == '"')
        return read_string(t);
    if (c == '-' || (c >= '0' && c <= '9'))
        return read_number(t);
    return read_word(t);
}

json_t *json_plain_read(const char *text, size_t len)
{
    struct text t = {.at = text, .end = text + len};
    if (len == 0 || memchr(text, '\\', len))
        return NULL;
    json_t *v = read_value(&t);
    if (v && look(&t) == '\0' && t.at == t.end)
        return v;
    json_decref(v);
    return NULL;
}
