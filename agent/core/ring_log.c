#include "agent/core/ring_log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/text.h"

enum { FORMAT = 1 };

/* First byte of an entry. */
enum { SAME_STATUS = 1, SAME_ENDPOINT = 2, SAME_ANY = 3, WAITED_SHIFT = 2, FLAGS_ALL = 15 };
_Static_assert(FIRE_WAIT_COUNT_ <= 4, "two bits of the first byte");

/* First byte of an endpoint: what follows its length. */
enum { ENDPOINT_TEXT, ENDPOINT_IPV4, ENDPOINT_IPV6 };

#define ENDPOINT_BYTES_MAX RING_LOG_ENDPOINT_MAX /* kind and text without NUL */

/* An entry whose endpoint is still packed: most entries of a ring are only carried over. */
struct packed {
    uint64_t seq;
    int64_t due_ms;
    uint32_t late_ms;
    uint32_t duration_ms;
    int32_t status;
    uint8_t waited; /* enum fire_wait */
    uint8_t endpoint_bytes;
    uint8_t endpoint[ENDPOINT_BYTES_MAX];
};

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
};

struct writer {
    uint8_t *out;
    size_t len;
    size_t max;
    bool full;
};

static void put_byte(struct writer *w, uint8_t b)
{
    if (w->len >= w->max)
        w->full = true;
    else
        w->out[w->len++] = b;
}

static void put_varint(struct writer *w, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        put_byte(w, (uint8_t)(v | 0x80));
    put_byte(w, (uint8_t)v);
}

static void put_signed(struct writer *w, int64_t v)
{
    put_varint(w, ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0));
}

static uint8_t get_byte(struct reader *r)
{
    if (r->at < r->end)
        return *r->at++;
    r->bad = true;
    return 0;
}

static uint64_t get_varint(struct reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t b = get_byte(r);
        if (shift == 63 && b > 1)
            break;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    r->bad = true;
    return 0;
}

static int64_t get_signed(struct reader *r)
{
    uint64_t v = get_varint(r);
    return (int64_t)((v >> 1) ^ (0 - (v & 1)));
}

static uint32_t get_u32(struct reader *r)
{
    uint64_t v = get_varint(r);
    r->bad |= v > UINT32_MAX;
    return (uint32_t)v;
}

static int32_t get_i32(struct reader *r)
{
    int64_t v = get_signed(r);
    r->bad |= v < INT32_MIN || v > INT32_MAX;
    return (int32_t)v;
}

static bool pack_address(struct packed *p, uint8_t kind, int family, size_t address_bytes, const char *host,
                         uint16_t port)
{
    if (inet_pton(family, host, p->endpoint + 1) != 1)
        return false;
    p->endpoint[0] = kind;
    p->endpoint[1 + address_bytes] = (uint8_t)(port >> 8);
    p->endpoint[2 + address_bytes] = (uint8_t)port;
    p->endpoint_bytes = (uint8_t)(address_bytes + 3);
    return true;
}

static void pack_endpoint(struct packed *p, const char *text)
{
    size_t len = strnlen(text, RING_LOG_ENDPOINT_MAX - 1), host_at, host_len;
    char host[RING_LOG_ENDPOINT_MAX] = {0};
    uint16_t port;
    if (text_host_port(text, len, true, &host_at, &host_len, &port, NULL) == 0) {
        memcpy(host, text + host_at, host_len);
        if (pack_address(p, ENDPOINT_IPV4, AF_INET, 4, host, port) ||
            pack_address(p, ENDPOINT_IPV6, AF_INET6, 16, host, port))
            return;
    }
    p->endpoint[0] = ENDPOINT_TEXT;
    memcpy(p->endpoint + 1, text, len);
    p->endpoint_bytes = (uint8_t)(len + 1);
}

static bool unpack_address(const struct packed *p, int family, size_t address_bytes,
                           char text[RING_LOG_ENDPOINT_MAX])
{
    char host[INET6_ADDRSTRLEN];
    if (p->endpoint_bytes != address_bytes + 3 || !inet_ntop(family, p->endpoint + 1, host, sizeof(host)))
        return false;
    unsigned port = (unsigned)p->endpoint[1 + address_bytes] << 8 | p->endpoint[2 + address_bytes];
    bool ipv6 = family == AF_INET6;
    int n = snprintf(text, RING_LOG_ENDPOINT_MAX, "%s%s%s:%u", ipv6 ? "[" : "", host, ipv6 ? "]" : "", port);
    return n > 0 && n < RING_LOG_ENDPOINT_MAX;
}

/* False: not an endpoint. */
static bool unpack_endpoint(const struct packed *p, char text[RING_LOG_ENDPOINT_MAX])
{
    size_t len = (size_t)p->endpoint_bytes - 1;
    switch (p->endpoint[0]) {
    case ENDPOINT_TEXT:
        if (memchr(p->endpoint + 1, 0, len))
            return false;
        memcpy(text, p->endpoint + 1, len);
        text[len] = 0;
        return true;
    case ENDPOINT_IPV4:
        return unpack_address(p, AF_INET, 4, text);
    case ENDPOINT_IPV6:
        return unpack_address(p, AF_INET6, 16, text);
    default:
        return false;
    }
}

/* Whether it is one that unpack_endpoint() takes. */
static bool endpoint_holds(const struct packed *p)
{
    switch (p->endpoint[0]) {
    case ENDPOINT_TEXT:
        return !memchr(p->endpoint + 1, 0, (size_t)p->endpoint_bytes - 1);
    case ENDPOINT_IPV4:
        return p->endpoint_bytes == 4 + 3;
    case ENDPOINT_IPV6:
        return p->endpoint_bytes == 16 + 3;
    default:
        return false;
    }
}

static void read_endpoint(struct reader *r, struct packed *p)
{
    uint8_t n = get_byte(r);
    if (n == 0 || n > ENDPOINT_BYTES_MAX || n > r->end - r->at) {
        r->bad = true;
        return;
    }
    p->endpoint_bytes = n;
    memcpy(p->endpoint, r->at, n);
    r->at += n;
    r->bad |= !endpoint_holds(p);
}

/* BEFORE: the newer neighbour, NULL for the newest. */
static void read_entry(struct reader *r, const struct packed *before, struct packed *p)
{
    uint8_t flags = get_byte(r);
    if (flags & ~FLAGS_ALL || (!before && flags & SAME_ANY))
        r->bad = true;
    if (r->bad)
        return;
    uint64_t seq = get_varint(r);
    int64_t due = get_signed(r);
    /* Differences wrap around like the subtraction that made them. */
    p->seq = before ? before->seq - seq : seq;
    p->due_ms = before ? (int64_t)((uint64_t)before->due_ms - (uint64_t)due) : due;
    p->late_ms = get_u32(r);
    p->duration_ms = get_u32(r);
    p->waited = flags >> WAITED_SHIFT;
    p->status = before && flags & SAME_STATUS ? before->status : get_i32(r);
    if (before && flags & SAME_ENDPOINT) {
        p->endpoint_bytes = before->endpoint_bytes;
        memcpy(p->endpoint, before->endpoint, before->endpoint_bytes);
    } else {
        read_endpoint(r, p);
    }
}

/* Entries read into LIST of MAX, -1: not a ring. Reading may stop after MAX. */
static int read_packed(const uint8_t *ring, size_t bytes, struct packed *list, unsigned max, bool whole)
{
    struct reader r = {.at = ring, .end = ring + bytes};
    unsigned n = 0;
    if (bytes == 0)
        return 0;
    if (get_byte(&r) != FORMAT)
        return -1;
    while (r.at < r.end && n < max) {
        read_entry(&r, n ? &list[n - 1] : NULL, &list[n]);
        if (r.bad)
            return -1;
        n++;
    }
    return whole && r.at < r.end ? -1 : (int)n;
}

static void write_entry(struct writer *w, const struct packed *before, const struct packed *p)
{
    bool same_status = before && before->status == p->status;
    bool same_endpoint = before && before->endpoint_bytes == p->endpoint_bytes &&
                         memcmp(before->endpoint, p->endpoint, p->endpoint_bytes) == 0;
    put_byte(w, (uint8_t)((same_status ? SAME_STATUS : 0) | (same_endpoint ? SAME_ENDPOINT : 0) |
                          p->waited << WAITED_SHIFT));
    put_varint(w, before ? before->seq - p->seq : p->seq);
    put_signed(w, before ? (int64_t)((uint64_t)before->due_ms - (uint64_t)p->due_ms) : p->due_ms);
    put_varint(w, p->late_ms);
    put_varint(w, p->duration_ms);
    if (!same_status)
        put_signed(w, p->status);
    if (same_endpoint)
        return;
    put_byte(w, p->endpoint_bytes);
    for (unsigned i = 0; i < p->endpoint_bytes; i++)
        put_byte(w, p->endpoint[i]);
}

uint16_t ring_log_add(uint8_t ring[RECORD_RING_MAX], size_t bytes, const struct ring_entry *entry,
                      unsigned keep)
{
    assert(bytes <= RECORD_RING_MAX);
    struct packed list[RING_LOG_KEEP_MAX];
    keep = keep < RING_LOG_KEEP_MAX ? keep : RING_LOG_KEEP_MAX;
    if (keep == 0)
        return 0;
    int old = read_packed(ring, bytes, list + 1, keep - 1, false);
    unsigned count = 1 + (old > 0 ? (unsigned)old : 0);
    list[0] = (struct packed){.seq = entry->seq,
                              .due_ms = entry->due_ms,
                              .late_ms = entry->late_ms,
                              .duration_ms = entry->duration_ms,
                              .status = entry->status,
                              .waited = (uint8_t)entry->waited};
    pack_endpoint(&list[0], entry->endpoint);

    struct writer w = {.out = ring, .max = RECORD_RING_MAX};
    put_byte(&w, FORMAT);
    for (unsigned i = 0; i < count; i++) {
        size_t before = w.len;
        write_entry(&w, i ? &list[i - 1] : NULL, &list[i]);
        if (w.full) {
            w.len = before;
            break;
        }
    }
    return (uint16_t)w.len;
}

int ring_log_read(const uint8_t *ring, size_t bytes, struct ring_entry ret[RING_LOG_KEEP_MAX],
                  size_t *ret_count, struct err *e)
{
    struct packed list[RING_LOG_KEEP_MAX];
    int n = read_packed(ring, bytes, list, RING_LOG_KEEP_MAX, true);
    if (n < 0)
        return err_set(e, ERR_INVALID, "damaged ring of %zu bytes", bytes);
    for (int i = 0; i < n; i++) {
        const struct packed *p = &list[i];
        ret[i] = (struct ring_entry){.seq = p->seq,
                                     .due_ms = p->due_ms,
                                     .late_ms = p->late_ms,
                                     .duration_ms = p->duration_ms,
                                     .status = p->status,
                                     .waited = (enum fire_wait)p->waited};
        if (!unpack_endpoint(p, ret[i].endpoint))
            return err_set(e, ERR_INVALID, "entry %d of a ring has a damaged endpoint", i);
    }
    *ret_count = (size_t)n;
    return 0;
}
