#include "agent/core/trace.h"

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/text.h"

#define MEMBERS_MAX  32
#define MEMBER_LONG  128 /* such entries go first when there is no room */
#define KEY_MAX      256
#define VALUE_MAX    256
#define OWN_KEY      "carillon="
#define OWN_BYTES    (sizeof(OWN_KEY) - 1 + TRACE_PARENT_SIZE - 1)
#define FLAG_SAMPLED 1

/* --- traceparent ----------------------------------------------------------------------------------------------------- */

static const char lower_hex[] = "0123456789abcdef";

static bool is_hex(const char *s, size_t len)
{
    return strspn(s, lower_hex) >= len;
}

static bool is_zero(const char *s, size_t len)
{
    return strspn(s, "0") >= len;
}

/* Versions to come may say more behind a further dash; what we know of keeps its place. */
static bool parent_valid(const char *s)
{
    if (strlen(s) < TRACE_PARENT_SIZE - 1 || s[2] != '-' || s[35] != '-' || s[52] != '-')
        return false;
    bool known = s[0] == '0' && s[1] == '0';
    char next = s[TRACE_PARENT_SIZE - 1];
    if (!is_hex(s, 2) || memcmp(s, "ff", 2) == 0 || (next != '\0' && (known || next != '-')))
        return false;
    return is_hex(s + 3, 32) && !is_zero(s + 3, 32) && is_hex(s + 36, 16) && !is_zero(s + 36, 16) &&
           is_hex(s + 53, 2);
}

/* Of the flags only `sampled` is known, and what is not known is not passed on. */
static char flags_of(const char *parent)
{
    size_t low = (size_t)(strchr(lower_hex, parent[54]) - lower_hex);
    return low & FLAG_SAMPLED ? '1' : '0';
}

/* --- tracestate ------------------------------------------------------------------------------------------------------ */

struct member {
    const char *at;
    size_t len, key_len;
};

struct members {
    struct member items[MEMBERS_MAX];
    size_t count;
};

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '*' || c == '/';
}

/* "vendor" or "tenant@vendor". */
static bool key_valid(const char *key, size_t len)
{
    const char *at_sign = memchr(key, '@', len);
    size_t tenant = at_sign ? (size_t)(at_sign - key) : 0;
    if (len == 0 || len > KEY_MAX || (at_sign && (tenant == 0 || tenant > 241 || len - tenant - 1 > 14)))
        return false;
    const char *vendor = at_sign ? at_sign + 1 : key;
    if (vendor == key + len || *vendor < 'a' || *vendor > 'z')
        return false;
    bool begins = (key[0] >= 'a' && key[0] <= 'z') || (at_sign && key[0] >= '0' && key[0] <= '9');
    for (size_t i = 0; i < len; i++)
        begins &= key + i == at_sign || is_key_char(key[i]);
    return begins;
}

static bool value_valid(const char *value, size_t len)
{
    if (len == 0 || len > VALUE_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (value[i] < 0x20 || value[i] > 0x7e || value[i] == ',' || value[i] == '=')
            return false;
    return true; /* spaces at its end were cut off */
}

static bool add_member(struct members *m, const char *at, size_t len)
{
    const char *equals = memchr(at, '=', len);
    size_t key_len = equals ? (size_t)(equals - at) : 0;
    if (!equals || m->count == MEMBERS_MAX || !key_valid(at, key_len) ||
        !value_valid(equals + 1, len - key_len - 1))
        return false;
    for (size_t i = 0; i < m->count; i++)
        if (m->items[i].key_len == key_len && memcmp(m->items[i].at, at, key_len) == 0)
            return false;
    m->items[m->count++] = (struct member){.at = at, .len = len, .key_len = key_len};
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The entries point into TEXT. false: TEXT is no tracestate. */
static bool parse_state(const char *text, struct members *m)
{
    m->count = 0;
    for (const char *at = text;; at++) {
        size_t len = strcspn(at, ",");
        const char *next = at + len;
        while (len > 0 && is_blank(at[len - 1]))
            len--;
        while (len > 0 && is_blank(*at)) {
            at++;
            len--;
        }
        if (len > 0 && !add_member(m, at, len)) /* entries may be empty */
            return false;
        at = next;
        if (*at == '\0')
            return true;
    }
}

static size_t state_bytes(const struct members *m)
{
    size_t sum = m->count > 0 ? m->count - 1 : 0;
    for (size_t i = 0; i < m->count; i++)
        sum += m->items[i].len;
    return sum;
}

static void remove_member(struct members *m, size_t i)
{
    m->count--;
    memmove(m->items + i, m->items + i + 1, (m->count - i) * sizeof(*m->items));
}

static void fit(struct members *m, size_t bytes_max)
{
    for (size_t i = m->count; i-- > 0 && state_bytes(m) > bytes_max;)
        if (m->items[i].len > MEMBER_LONG)
            remove_member(m, i);
    while (state_bytes(m) > bytes_max)
        remove_member(m, m->count - 1);
}

static void print_state(const struct members *m, char *ret)
{
    for (size_t i = 0; i < m->count; i++) {
        if (i > 0)
            *ret++ = ',';
        memcpy(ret, m->items[i].at, m->items[i].len);
        ret += m->items[i].len;
    }
    *ret = '\0';
}

void trace_read(const char *parent, const char *state, struct trace *ret)
{
    struct members m;
    memset(ret, 0, sizeof(*ret));
    if (!parent || !parent_valid(parent))
        return;
    memcpy(ret->parent, "00", 2);
    memcpy(ret->parent + 2, parent + 2, 51);
    ret->parent[53] = '0';
    ret->parent[54] = flags_of(parent);
    if (!state || !parse_state(state, &m))
        return;
    fit(&m, TRACE_STATE_SIZE - 1);
    print_state(&m, ret->state);
}

size_t trace_print(const struct trace *t, char ret[TRACE_TEXT_SIZE])
{
    size_t parent = strlen(t->parent), state = strlen(t->state);
    memcpy(ret, t->parent, parent + 1);
    if (state == 0)
        return parent;
    ret[parent] = ' ';
    memcpy(ret + parent + 1, t->state, state + 1);
    return parent + 1 + state;
}

void trace_parse(const char *text, size_t bytes, struct trace *ret)
{
    char copy[TRACE_TEXT_SIZE] = "", *state = NULL;
    size_t parent = TRACE_PARENT_SIZE - 1;
    if (bytes > 0 && bytes < sizeof(copy))
        memcpy(copy, text, bytes);
    if (copy[0] && copy[parent] == ' ') {
        copy[parent] = '\0';
        state = copy + parent + 1;
    }
    trace_read(copy, state, ret);
}

/* --- a fire's own ---------------------------------------------------------------------------------------------------- */

/* An entry of ours that came in is of a job whose callee made this job: its link is told there. */
static void add_link(const char *parent, const char *state, char ret[TRACE_STATE_SIZE])
{
    struct members m = {.count = 0};
    char own[OWN_BYTES + 1];
    memcpy(own, OWN_KEY, sizeof(OWN_KEY) - 1);
    memcpy(own + sizeof(OWN_KEY) - 1, parent, TRACE_PARENT_SIZE);
    if (state && !parse_state(state, &m))
        m.count = 0;
    for (size_t i = 0; i < m.count; i++)
        if (m.items[i].key_len == sizeof(OWN_KEY) - 2 &&
            memcmp(m.items[i].at, OWN_KEY, m.items[i].key_len) == 0)
            remove_member(&m, i--);
    if (m.count == MEMBERS_MAX)
        m.count--;
    fit(&m, TRACE_STATE_SIZE - 1 - OWN_BYTES - 1);
    memmove(m.items + 1, m.items, m.count * sizeof(*m.items));
    m.items[0] = (struct member){.at = own, .len = OWN_BYTES};
    m.count++;
    print_state(&m, ret);
}

/* All zeros mean "none". The hashes are no promise: whoever keeps traces does not keep them for long. */
static void print_ids(const struct uid *uid, uint64_t seq, uint32_t attempt, uint64_t epoch, char *ret)
{
    struct {
        uint8_t uid[16];
        uint64_t seq, attempt, epoch;
    } key = {.seq = htobe64(seq), .attempt = htobe64(attempt), .epoch = htobe64(epoch)};
    XXH128_canonical_t trace;
    XXH64_canonical_t span;
    memcpy(key.uid, uid->bytes, sizeof(key.uid));
    XXH128_canonicalFromHash(&trace, XXH3_128bits(&key, sizeof(key.uid) + sizeof(key.seq)));
    XXH64_canonicalFromHash(&span, XXH3_64bits(&key, sizeof(key)));
    trace.digest[15] |= 1;
    span.digest[7] |= 1;
    text_hex_encode(trace.digest, sizeof(trace.digest), ret);
    ret[32] = '-';
    text_hex_encode(span.digest, sizeof(span.digest), ret + 33);
}

void trace_of_attempt(const char *parent, const char *state, const struct uid *uid, uint64_t seq,
                      uint32_t attempt, uint64_t epoch, struct trace *ret)
{
    assert(parent_valid(parent));
    memcpy(ret->parent, "00-", 3);
    print_ids(uid, seq, attempt, epoch, ret->parent + 3);
    ret->parent[52] = '-';
    ret->parent[53] = '0';
    ret->parent[54] = flags_of(parent);
    ret->parent[55] = '\0';
    add_link(parent, state, ret->state);
}

/* --- spans of our own ------------------------------------------------------------------------------------------------ */

/* The last 7 bytes are what the standard's second level wants to be random. */
static bool chosen(const struct trace_rule *rule, const char *trace)
{
    uint8_t low[8] = {0};
    uint64_t number = 0;
    (void)text_hex_decode(trace + 18, 14, low + 1, 7, NULL); /* our own digits */
    for (size_t i = 0; i < sizeof(low); i++)
        number = number << 8 | low[i];
    return (double)number < rule->ratio * (double)(UINT64_C(1) << 56);
}

void trace_span_read(const char *parent, struct trace_span *ret)
{
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->trace, parent + 3, TRACE_ID_SIZE - 1);
    memcpy(ret->id, parent + 36, TRACE_SPAN_SIZE - 1);
    ret->sampled = flags_of(parent) == '1';
}

void trace_span_of(const char *parent, const struct trace_rule *rule, const struct uid *uid, uint64_t seq,
                   uint32_t attempt, uint64_t epoch, struct trace_span *ret)
{
    char ids[TRACE_ID_SIZE + TRACE_SPAN_SIZE];
    print_ids(uid, seq, attempt, epoch, ids);
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->trace, ids, TRACE_ID_SIZE - 1);
    memcpy(ret->id, ids + TRACE_ID_SIZE, TRACE_SPAN_SIZE - 1);
    ret->sampled = parent ? flags_of(parent) == '1' : chosen(rule, ret->trace);
}

void trace_span_new(const struct trace_rule *rule, const uint64_t random[3], struct trace_span *ret)
{
    memset(ret, 0, sizeof(*ret));
    text_hex_encode(random, 16, ret->trace);
    text_hex_encode(random + 2, 8, ret->id);
    ret->trace[0] = ret->trace[0] == '0' ? '1' : ret->trace[0]; /* all zeros mean "none" */
    ret->id[0] = ret->id[0] == '0' ? '1' : ret->id[0];
    ret->sampled = chosen(rule, ret->trace);
}

void trace_of_untold_attempt(const struct trace_rule *rule, const struct uid *uid, uint64_t seq,
                             uint32_t attempt, uint64_t epoch, struct trace *ret)
{
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->parent, "00-", 3);
    print_ids(uid, seq, attempt, epoch, ret->parent + 3);
    memcpy(ret->parent + 52, "-0", 2);
    ret->parent[54] = chosen(rule, ret->parent + 3) ? '1' : '0';
}
