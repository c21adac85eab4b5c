#include "agent/core/tz.h"

#include <assert.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/tz_rule.h"

#define DAY_S         86400
#define HEADER_BYTES  44
#define CHANGES_MAX   8192
#define OFFSET_MIN_S  (-89999) /* RFC 9636 section 3.2: what readers must take */
#define OFFSET_MAX_S  93599
#define BIG_BANG_S    (-((int64_t)1 << 59)) /* no earlier transition is allowed, ibidem */
#define RULE_YEAR_MIN 1900                  /* where a rule without any transition before it begins */
#define RULE_YEAR_END 2201                  /* of TZ_END_S */

/* One span, from at_s to the next one's at_s; the first begins at INT64_MIN. */
struct tz_change {
    int64_t at_s;
    int64_t shown_to_s;
    int64_t again_from_s;
    int32_t offset_s;
};

struct tz {
    char name[TZ_NAME_MAX + 1];
    size_t count; /* at least 1 */
    struct tz_change *changes;
};

static struct tz_change utc_change = {INT64_MIN, INT64_MIN, INT64_MAX, 0};
static const struct tz utc = {"UTC", 1, &utc_change};

const struct tz *tz_utc(void)
{
    return &utc;
}

const char *tz_name(const struct tz *z)
{
    return z->name;
}

void tz_free(struct tz *z)
{
    if (!z)
        return;
    assert(z != &utc);
    mem_free(z->changes);
    mem_free(z);
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

static bool is_letter(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_name_char(char c)
{
    return is_letter(c) || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '_';
}

static bool has_prefix(const char *s, size_t len, const char *prefix)
{
    size_t n = strlen(prefix);
    return len >= n && memcmp(s, prefix, n) == 0;
}

static bool equals(const char *s, size_t len, const char *word)
{
    return len == strlen(word) && memcmp(s, word, len) == 0;
}

int tz_check_name(const char *s, size_t len, struct err *e)
{
    static const char *const not_zones[] = {"localtime", "posixrules", "Factory"};
    bool ok = len > 0 && len <= TZ_NAME_MAX;
    for (size_t i = 0, part = 0; ok && i <= len; i++) {
        if (i < len && s[i] != '/')
            ok = is_name_char(s[i]) && (i > part || is_letter(s[i]));
        else if (i == part)
            ok = false;
        else
            part = i + 1;
    }
    for (size_t i = 0; ok && i < sizeof(not_zones) / sizeof(not_zones[0]); i++)
        ok = !equals(s, len, not_zones[i]);
    if (!ok || has_prefix(s, len, "posix/") || has_prefix(s, len, "right/"))
        return err_set(e, ERR_INVALID,
                       "not an IANA time zone name; allowed are names such as Europe/Berlin or UTC");
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* RFC 9636 section 3.1 */
struct header {
    unsigned char version;
    uint32_t isutcnt, isstdcnt, leapcnt, timecnt, typecnt, charcnt;
};

static uint32_t read_u32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static int64_t read_i64(const unsigned char *p)
{
    return (int64_t)((uint64_t)read_u32(p) << 32 | read_u32(p + 4));
}

static int read_header(const unsigned char *p, size_t len, struct header *ret, struct err *e)
{
    if (len < HEADER_BYTES || memcmp(p, "TZif", 4) != 0)
        return err_set(e, ERR_INVALID, "not a TZif file");
    *ret = (struct header){
        .version = p[4],
        .isutcnt = read_u32(p + 20),
        .isstdcnt = read_u32(p + 24),
        .leapcnt = read_u32(p + 28),
        .timecnt = read_u32(p + 32),
        .typecnt = read_u32(p + 36),
        .charcnt = read_u32(p + 40),
    };
    return 0;
}

static uint64_t block_bytes(const struct header *h, unsigned time_bytes)
{
    return (uint64_t)h->timecnt * (time_bytes + 1) + (uint64_t)h->typecnt * 6 + h->charcnt +
           (uint64_t)h->leapcnt * (time_bytes + 4) + h->isstdcnt + h->isutcnt;
}

/* The second, 64-bit block of the file and what follows it. */
struct block {
    struct header header;
    const unsigned char *times;
    const unsigned char *indexes;
    const unsigned char *types;
    const char *footer;
    size_t footer_len;
};

static int find_footer(const unsigned char *p, size_t len, struct block *b, struct err *e)
{
    const unsigned char *end = len > 1 && p[0] == '\n' ? memchr(p + 1, '\n', len - 1) : NULL;
    if (!end)
        return err_set(e, ERR_INVALID, "the file ends within its footer");
    b->footer = (const char *)p + 1;
    b->footer_len = (size_t)(end - p) - 1;
    return 0;
}

static int find_block(const unsigned char *p, size_t len, struct block *b, struct err *e)
{
    struct header first;
    if (read_header(p, len, &first, e) < 0)
        return err_wrap(e, "header");
    if (first.version < '2')
        return err_set(e, ERR_INVALID,
                       "version 1 of the format tells nothing after 2037; version 2 or later is needed");
    uint64_t skip = HEADER_BYTES + block_bytes(&first, 4);
    if (skip > len || read_header(p + skip, len - skip, &b->header, e) < 0)
        return err_set(e, ERR_INVALID, "the file ends before its 64-bit data");
    p += skip + HEADER_BYTES;
    len -= skip + HEADER_BYTES;
    uint64_t size = block_bytes(&b->header, 8);
    if (size > len)
        return err_set(e, ERR_INVALID, "the file ends within its 64-bit data");
    b->times = p;
    b->indexes = p + (size_t)b->header.timecnt * 8;
    b->types = b->indexes + b->header.timecnt;
    return find_footer(p + size, len - size, b, e);
}

static int check_block(const struct block *b, struct err *e)
{
    const struct header *h = &b->header;
    if (h->leapcnt > 0)
        return err_set(e, ERR_INVALID, "the file counts leap seconds (as those under right/ do)");
    if (h->typecnt < 1 || h->typecnt > 256 || h->timecnt > CHANGES_MAX)
        return err_set(e, ERR_INVALID, "%u types and %u transitions are not those of a zone", h->typecnt,
                       h->timecnt);
    for (uint32_t i = 0; i < h->typecnt; i++) {
        int32_t offset_s = (int32_t)read_u32(b->types + (size_t)i * 6);
        if (offset_s < OFFSET_MIN_S || offset_s > OFFSET_MAX_S)
            return err_set(e, ERR_INVALID, "an offset of %d s is not one of a zone", offset_s);
    }
    int64_t before_s = BIG_BANG_S - 1;
    for (uint32_t i = 0; i < h->timecnt; i++) {
        int64_t at_s = read_i64(b->times + (size_t)i * 8);
        if (at_s <= before_s || at_s > -BIG_BANG_S || b->indexes[i] >= h->typecnt)
            return err_set(e, ERR_INVALID, "transition %u is out of order or of an unknown type", i + 1);
        before_s = at_s;
    }
    return 0;
}

/* ---- building -------------------------------------------------------------------------------------------------- */

/* Take over the offset from AT_S on. A change at the same instant as the last one replaces it: so a rule whose summer
 * time ends when the next one begins (all year, RFC 9636 section 3.3.1) leaves no empty span. */
static void append(struct tz *z, int64_t at_s, int32_t offset_s)
{
    struct tz_change *last = &z->changes[z->count - 1];
    if (last->at_s == at_s && z->count > 1) {
        z->count--;
        last--;
    }
    if (last->offset_s != offset_s)
        z->changes[z->count++] = (struct tz_change){.at_s = at_s, .offset_s = offset_s};
}

static int32_t type_offset_s(const struct block *b, unsigned type)
{
    return (int32_t)read_u32(b->types + (size_t)type * 6);
}

static void add_transitions(struct tz *z, const struct block *b)
{
    z->changes[0] = (struct tz_change){.at_s = INT64_MIN, .offset_s = type_offset_s(b, 0)};
    z->count = 1;
    for (uint32_t i = 0; i < b->header.timecnt; i++)
        append(z, read_i64(b->times + (size_t)i * 8), type_offset_s(b, b->indexes[i]));
}

/* Lay RULE out after LAST_S, the last transition of the file. */
static void add_rule(struct tz *z, const struct tz_rule *r, int64_t last_s)
{
    int64_t year = RULE_YEAR_MIN;
    unsigned month, day;
    if (last_s >= TZ_END_S)
        return;
    if (last_s > text_days_from_civil(year, 1, 1) * DAY_S)
        text_civil_from_days(last_s / DAY_S - 1, &year, &month, &day);
    for (; year < RULE_YEAR_END; year++) {
        int64_t from_s = tz_rule_dst_from_s(r, year), to_s = tz_rule_dst_to_s(r, year);
        if (from_s <= to_s && from_s > last_s)
            append(z, from_s, r->dst_s);
        if (to_s > last_s)
            append(z, to_s, r->std_s);
        if (from_s > to_s && from_s > last_s)
            append(z, from_s, r->dst_s);
    }
}

static bool is_ordered(const struct tz *z)
{
    for (size_t i = 1; i < z->count; i++)
        if (z->changes[i].at_s <= z->changes[i - 1].at_s)
            return false;
    return true;
}

/* What each span's clock shows that the others' showed or will show. */
static void mark_walls(struct tz *z)
{
    struct tz_change *c = z->changes;
    c[0].shown_to_s = INT64_MIN;
    for (size_t i = 1; i < z->count; i++) {
        int64_t reached_s = c[i].at_s + c[i - 1].offset_s;
        c[i].shown_to_s = reached_s > c[i - 1].shown_to_s ? reached_s : c[i - 1].shown_to_s;
    }
    c[z->count - 1].again_from_s = INT64_MAX;
    for (size_t i = z->count - 1; i > 0; i--) {
        int64_t begins_s = c[i].at_s + c[i].offset_s;
        c[i - 1].again_from_s = begins_s < c[i].again_from_s ? begins_s : c[i].again_from_s;
    }
}

static int build(struct tz *z, const struct block *b, struct err *e)
{
    struct tz_rule rule = {0};
    if (b->footer_len > 0 && tz_rule_parse(b->footer, b->footer_len, &rule, e) < 0)
        return err_wrap(e, "footer");
    size_t room = 1 + b->header.timecnt + (rule.has_dst ? 2 * (RULE_YEAR_END - RULE_YEAR_MIN + 2) : 0);
    z->changes = mem_try_array(room, sizeof(*z->changes), e);
    if (!z->changes)
        return err_wrap(e, "allocate %zu changes", room);
    add_transitions(z, b);
    uint32_t n = b->header.timecnt;
    if (rule.has_dst)
        add_rule(z, &rule, n > 0 ? read_i64(b->times + (size_t)(n - 1) * 8) : BIG_BANG_S);
    if (!is_ordered(z))
        return err_set(e, ERR_INVALID, "the footer's rule runs backwards");
    mark_walls(z);
    return 0;
}

int tz_parse(const char *name, const void *data, size_t len, struct tz **ret, struct err *e)
{
    struct block b;
    if (len > TZ_FILE_MAX_BYTES)
        return err_set(e, ERR_TOO_BIG, "%zu bytes are more than a zone has (%d)", len, TZ_FILE_MAX_BYTES);
    if (tz_check_name(name, strlen(name), e) < 0 || find_block(data, len, &b, e) < 0 ||
        check_block(&b, e) < 0)
        return err_wrap(e, "zone data");
    AUTO(tz_free) struct tz *z = mem_try_alloc(sizeof(*z), e);
    if (!z)
        return err_wrap(e, "zone data");
    memcpy(z->name, name, strlen(name) + 1);
    if (build(z, &b, e) < 0)
        return err_wrap(e, "zone data");
    *ret = TAKE(z);
    return 0;
}

/* ---- looking up ------------------------------------------------------------------------------------------------ */

static size_t index_at(const struct tz *z, int64_t at_s)
{
    size_t lo = 0, hi = z->count; /* changes[lo].at_s <= at_s < changes[hi].at_s */
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (z->changes[mid].at_s <= at_s)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static int64_t end_s(const struct tz *z, size_t i)
{
    return i + 1 < z->count ? z->changes[i + 1].at_s : INT64_MAX;
}

int32_t tz_offset_s(const struct tz *z, int64_t at_s)
{
    return z->changes[index_at(z, at_s)].offset_s;
}

int64_t tz_next_change_s(const struct tz *z, int64_t at_s)
{
    return end_s(z, index_at(z, at_s));
}

void tz_span_at(const struct tz *z, int64_t at_s, struct tz_span *ret)
{
    size_t i = index_at(z, at_s);
    const struct tz_change *c = &z->changes[i];
    *ret = (struct tz_span){
        .start_s = c->at_s,
        .end_s = end_s(z, i),
        .offset_s = c->offset_s,
        .before_s = i > 0 ? c[-1].offset_s : c->offset_s,
        .shown_to_s = c->shown_to_s,
        .again_from_s = c->again_from_s,
    };
}

void tz_from_wall(const struct tz *z, int64_t wall_s, struct tz_wall *ret)
{
    struct tz_wall w = {.kind = TZ_WALL_COUNT_};
    int64_t gap_s = 0;
    for (size_t i = index_at(z, wall_s - OFFSET_MAX_S - 1); i < z->count; i++) {
        const struct tz_change *c = &z->changes[i];
        if (i > 0 && c->at_s > wall_s - OFFSET_MIN_S)
            break;
        int64_t at_s = wall_s - c->offset_s;
        if (at_s >= c->at_s && at_s < end_s(z, i)) {
            w.kind = w.kind == TZ_WALL_COUNT_ ? TZ_WALL_ONCE : TZ_WALL_TWICE;
            w.first_s = w.kind == TZ_WALL_ONCE ? at_s : w.first_s;
            w.second_s = at_s;
        } else if (i > 0 && at_s < c->at_s && wall_s - c[-1].offset_s >= c->at_s) {
            gap_s = wall_s - c[-1].offset_s;
        }
    }
    if (w.kind == TZ_WALL_COUNT_)
        w = (struct tz_wall){TZ_WALL_GAP, gap_s, gap_s};
    *ret = w;
}
