/* JSON as outsiders send it: strict reading on top of jansson, lists of problems so that everything wrong with a body is
 * reported at once, typed readers for fields, merge patch, canonical printing. Any thread; json_t is not shared between
 * threads. */
#ifndef CARILLON_BASE_JSON_H
#define CARILLON_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"

#define JSON_DEPTH_MAX    256 /* nesting of values accepted by json_read */
#define JSON_PROBLEMS_MAX 64  /* more are counted, not kept */
#define JSON_POINTER_MAX  256 /* bytes, longer ones are cut */

static inline void json_decref_auto_(json_t **p) /* for AUTO(json_decref) */
{
    json_decref(*p);
}

/* --- problems ------------------------------------------------------------------------------------------------------ */
/* What is wrong with one body. Zero-initialise or problems_init; problems_fini frees. Out of memory is remembered like
 * a problem (problems_count > 0, problems_nomem). */
struct problem {
    char *pointer; /* "#/callback/http/path"; "#" is the whole body */
    char *detail;  /* a sentence for people */
};
struct problems {
    struct problem *items; /* count of them */
    size_t count;          /* kept, <= JSON_PROBLEMS_MAX */
    size_t dropped;        /* found but not kept */
    bool nomem;
};
void problems_init(struct problems *p);
void problems_fini(struct problems *p);
static inline void problems_fini_auto_(struct problems *p)
{
    problems_fini(p);
}
/* Copies both texts. P may be NULL: then nothing is kept. */
void problems_add(struct problems *p, const char *pointer, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static inline bool problems_any(const struct problems *p)
{
    return p->count > 0 || p->dropped > 0 || p->nomem;
}
/* 0 when there is none; else -ERR_INVALID with the first one's text and the number of the others (-ERR_NOMEM). */
int problems_check(const struct problems *p, struct err *e);

/* --- pointers ------------------------------------------------------------------------------------------------------ */
/* A place in a body, built on the stack while walking down: struct json_at at = json_at_key(parent, "http");
 * parent NULL = the body itself. Keys are borrowed. */
struct json_at {
    const struct json_at *parent;
    const char *key; /* NULL: an index */
    size_t index;
};
static inline struct json_at json_at_key(const struct json_at *parent, const char *key)
{
    return (struct json_at){.parent = parent, .key = key};
}
static inline struct json_at json_at_index(const struct json_at *parent, size_t index)
{
    return (struct json_at){.parent = parent, .index = index};
}
/* "#/a~1b/0" (RFC 6901 escapes), cut at JSON_POINTER_MAX - 1 bytes, NUL-terminated. AT NULL gives "#". */
void json_at_print(const struct json_at *at, char ret[JSON_POINTER_MAX]);
/* problems_add at AT, or at its member KEY if that is not NULL. */
void json_problem(struct problems *p, const struct json_at *at, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* --- reading ------------------------------------------------------------------------------------------------------- */
/* Parse TEXT, any JSON value (RFC 8259) and nothing after it. Refused with ERR_INVALID and line and column: duplicate
 * keys, nesting over JSON_DEPTH_MAX, invalid UTF-8, NUL in keys, integers outside int64, numbers outside double, BOM.
 * NUL in string values is accepted as data; the typed readers below refuse it. ERR_TOO_BIG: over MAX_BYTES.
 * ERR_NOMEM. *ret_json is a new reference. */
int json_read(const char *text, size_t len, size_t max_bytes, json_t **ret_json, struct err *e);

/* --- typed fields of an object ------------------------------------------------------------------------------------- */
/* Each looks KEY up in OBJ (which stands at AT; a non-object or NULL counts as empty, so check once with
 * json_expect_object). Returns true and writes the result when the field is there and right; false when absent or null
 * (no problem, unless json_require is asked) or wrong (a problem was added). Defaults: fill the result beforehand. */

/* Whether V is an object; adds a problem otherwise. */
bool json_expect_object(const json_t *v, const struct json_at *at, struct problems *p);
/* Adds "is required" when KEY is absent or null; returns whether it is there. */
bool json_require(const json_t *obj, const char *key, const struct json_at *at, struct problems *p);
/* The member KEY as an object, NULL when absent, null or wrong. */
json_t *json_field_object(const json_t *obj, const char *key, const struct json_at *at, struct problems *p);
/* The member KEY as an array with at most MAX_ITEMS; NULL as above. */
json_t *json_field_array(const json_t *obj, const char *key, size_t max_items, const struct json_at *at,
                         struct problems *p);
/* String of MIN..MAX bytes without NUL. The result is borrowed from OBJ, NUL-terminated; RET_LEN may be NULL. */
bool json_field_string(const json_t *obj, const char *key, size_t min_bytes, size_t max_bytes,
                       const char **ret, size_t *ret_len, const struct json_at *at, struct problems *p);
/* The same into RET of SIZE bytes: MIN..SIZE - 1 of them and a NUL. With a MIN over 0 the member has to be there. */
bool json_field_copy(const json_t *obj, const char *key, size_t min_bytes, char *ret, size_t size,
                     const struct json_at *at, struct problems *p);
bool json_field_bool(const json_t *obj, const char *key, bool *ret, const struct json_at *at,
                     struct problems *p);
/* An integer (1.0 is none) in MIN..MAX. */
bool json_field_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
                    const struct json_at *at, struct problems *p);
/* Integer or real in MIN..MAX. */
bool json_field_double(const json_t *obj, const char *key, double min, double max, double *ret,
                       const struct json_at *at, struct problems *p);
/* Duration string in MIN_MS..MAX_MS. */
bool json_field_duration_ms(const json_t *obj, const char *key, uint64_t min_ms, uint64_t max_ms,
                            uint64_t *ret_ms, const struct json_at *at, struct problems *p);
/* RFC 3339 string. */
bool json_field_instant_ms(const json_t *obj, const char *key, int64_t *ret_ms, const struct json_at *at,
                           struct problems *p);
/* One of NAMES (NULL-terminated); the result is its index. The problem lists what is allowed. */
bool json_field_enum(const json_t *obj, const char *key, const char *const *names, unsigned *ret,
                     const struct json_at *at, struct problems *p);
/* A string, or an array of 1..MAX_ITEMS strings, of 1..MAX_BYTES bytes each. The result is an array of borrowed
 * strings in one block for mem_free. False, nothing to free, when absent or any item is wrong. */
bool json_field_strings(const json_t *obj, const char *key, size_t max_items, size_t max_bytes,
                        const char ***ret, size_t *ret_count, const struct json_at *at, struct problems *p);
/* A problem for each member that is not in KNOWN (NULL-terminated), with the nearest known name if one is near. */
void json_unknown_fields(const json_t *obj, const char *const *known, const struct json_at *at,
                         struct problems *p);

/* --- merge, print -------------------------------------------------------------------------------------------------- */
/* RFC 7396: a new value, TARGET (may be NULL) patched with PATCH; changes neither, may share parts with both, so treat
 * all three as constants afterwards. ERR_TOO_BIG: nesting over JSON_DEPTH_MAX. ERR_NOMEM. */
int json_merge_patch(const json_t *target, const json_t *patch, json_t **ret_json, struct err *e);

/* Compact with sorted keys: equal values print equally. Appends to OUT. ERR_TOO_BIG (OUT's ceiling), ERR_NOMEM. */
int json_print(const json_t *v, struct buf *out, struct err *e);
/* Compact with members in the order of their insertion, for answers. */
int json_print_ordered(const json_t *v, struct buf *out, struct err *e);
/* S as a JSON string with its quotes, escaped; invalid UTF-8 becomes U+FFFD. Fails only as appends do. */
void json_print_string(struct buf *out, const char *s, size_t len);
/* The shortest number that reads back as V (finite), always a real. */
void json_print_real(struct buf *out, double v);

/* Set OBJ[KEY] to V, stealing V also on failure; a NULL V (its own
 * allocation failed) is ERR_NOMEM too. */
int json_set(json_t *obj, const char *key, json_t *v, struct err *e);

#endif
