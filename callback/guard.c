#include "callback/guard.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/text.h"

#define V4_BITS 96 /* in front of an IPv4 address that is written as an IPv6 one */

/* All addresses are IPv6 ones here. */
struct address {
    uint8_t bytes[16];
};

struct network {
    struct address address;
    unsigned bits;
};

struct guard {
    atomic_uint refs;
    bool allow_loopback;
    struct network *allow, *deny;
    size_t allow_count, deny_count;
    uint16_t ports[GUARD_PORTS_MAX];
    size_t ports_count;
};

#define V4(a, b, c, d, bits_)                                \
    {                                                        \
        {{[10] = 0xff, 0xff, a, b, c, d}}, V4_BITS + (bits_) \
    }
#define V6(bits_, ...)           \
    {                            \
        {{__VA_ARGS__}}, (bits_) \
    }

/* Denied unless allowed by name. */
static const struct {
    struct network network;
    const char *what;
} builtin[] = {
    {V4(169, 254, 0, 0, 16), "link-local"},
    {V6(10, 0xfe, 0x80), "link-local"},
    {V4(100, 100, 100, 200, 32), "metadata"},
    {V4(168, 63, 129, 16, 32), "metadata"},
    {V4(192, 0, 0, 192, 32), "metadata"},
    {V6(128, 0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, 0x54), "metadata"},
    {V6(128, 0xfd, 0x20, 0x00, 0xce, [14] = 0x02, 0x54), "metadata"},
    {V4(224, 0, 0, 0, 4), "multicast"},
    {V6(8, 0xff), "multicast"},
    {V4(255, 255, 255, 255, 32), "broadcast"},
    {V4(0, 0, 0, 0, 8), "unspecified"},
    {V6(128, 0), "unspecified"},
};

static const struct network loopback_v4 = V4(127, 0, 0, 0, 8), loopback_v6 = V6(128, [15] = 1);
static const struct network this_v4 = V4(0, 0, 0, 0, 8), none_v6 = V6(128, 0), low_v6 = V6(127, 0);
static const struct network compatible = V6(96, 0), nat64 = V6(96, 0x00, 0x64, 0xff, 0x9b);
static const struct network six_to_four = V6(16, 0x20, 0x02);

/* --- networks ------------------------------------------------------------------------------------------------------ */

static struct address from_v4(const void *v4)
{
    struct address a = {{[10] = 0xff, [11] = 0xff}};
    memcpy(a.bytes + 12, v4, 4);
    return a;
}

static bool parse_address(const char *text, struct address *ret, unsigned *ret_bits_before)
{
    struct in_addr v4;
    struct in6_addr v6;
    *ret_bits_before = 0;
    if (inet_pton(AF_INET6, text, &v6) == 1) {
        memcpy(ret->bytes, &v6, sizeof(ret->bytes));
        return true;
    }
    if (inet_pton(AF_INET, text, &v4) != 1)
        return false;
    *ret = from_v4(&v4);
    *ret_bits_before = V4_BITS;
    return true;
}

static bool bit(const struct address *a, unsigned i)
{
    return a->bytes[i / 8] >> (7 - i % 8) & 1;
}

static bool within(const struct address *a, const struct network *n)
{
    if (memcmp(a->bytes, n->address.bytes, n->bits / 8) != 0)
        return false;
    for (unsigned i = n->bits / 8 * 8; i < n->bits; i++)
        if (bit(a, i) != bit(&n->address, i))
            return false;
    return true;
}

static int parse_network(const char *text, struct network *ret, struct err *e)
{
    char address[INET6_ADDRSTRLEN];
    size_t len = strlen(text), cut = strcspn(text, "/");
    struct network n;
    unsigned before;
    uint32_t bits;
    if (cut >= sizeof(address))
        return err_set(e, ERR_INVALID, "'%s' is no network", TEXTQ(text, len));
    memcpy(address, text, cut);
    address[cut] = '\0';
    if (!parse_address(address, &n.address, &before))
        return err_set(e, ERR_INVALID, "'%s' is no network; write 10.0.0.0/8, fd00::/8 or an address",
                       TEXTQ(text, len));
    n.bits = 128;
    if (text[cut] == '/') {
        if (text_u32(text + cut + 1, len - cut - 1, 0, 128 - before, &bits, NULL) < 0)
            return err_set(e, ERR_INVALID, "'%s': the prefix must be 0 to %u", TEXTQ(text, len),
                           128 - before);
        n.bits = before + bits;
    }
    for (unsigned i = n.bits; i < 128; i++)
        if (bit(&n.address, i))
            return err_set(e, ERR_INVALID, "'%s' has bits set beyond its prefix", TEXTQ(text, len));
    *ret = n;
    return 0;
}

int guard_check_network(const char *text, struct err *e)
{
    struct network n;
    return parse_network(text, &n, e);
}

static int parse_networks(const char *const *texts, size_t count, struct network **ret, struct err *e)
{
    if (count > GUARD_NETWORKS_MAX)
        return err_set(e, ERR_TOO_BIG, "more than %d networks", GUARD_NETWORKS_MAX);
    AUTO(mem_free) struct network *list = mem_try_array(count ? count : 1, sizeof(*list), e);
    if (!list)
        return -ERR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        int rc = parse_network(texts[i], &list[i], e);
        if (rc < 0)
            return rc;
    }
    *ret = TAKE(list);
    return 0;
}

/* --- making -------------------------------------------------------------------------------------------------------- */

int guard_new(const struct guard_options *options, struct guard **ret, struct err *e)
{
    AUTO(guard_unref) struct guard *g = mem_try_alloc(sizeof(*g), e);
    if (!g)
        return -ERR_NOMEM;
    atomic_init(&g->refs, 1);
    g->allow_loopback = options->allow_loopback;
    g->allow_count = options->allow_count;
    g->deny_count = options->deny_count;
    int rc = parse_networks(options->allow, options->allow_count, &g->allow, e);
    if (rc < 0)
        return err_wrap(e, "callback.allow");
    rc = parse_networks(options->deny, options->deny_count, &g->deny, e);
    if (rc < 0)
        return err_wrap(e, "callback.deny");
    *ret = TAKE(g);
    return 0;
}

static int copy_networks(const struct network *from, size_t count, struct network **ret, struct err *e)
{
    *ret = mem_try_array(count ? count : 1, sizeof(**ret), e);
    if (!*ret)
        return -ERR_NOMEM;
    memcpy(*ret, from, count * sizeof(**ret));
    return 0;
}

int guard_with_ports(const struct guard *g, const uint16_t *ports, size_t count, struct guard **ret,
                     struct err *e)
{
    AUTO(guard_unref) struct guard *copy = mem_try_alloc(sizeof(*copy), e);
    if (!copy)
        return -ERR_NOMEM;
    atomic_init(&copy->refs, 1);
    copy->allow_loopback = g->allow_loopback;
    copy->allow_count = g->allow_count;
    copy->deny_count = g->deny_count;
    copy->ports_count = count < GUARD_PORTS_MAX ? count : GUARD_PORTS_MAX;
    memcpy(copy->ports, ports, copy->ports_count * sizeof(*ports));
    if (copy_networks(g->allow, g->allow_count, &copy->allow, e) < 0 ||
        copy_networks(g->deny, g->deny_count, &copy->deny, e) < 0)
        return -ERR_NOMEM;
    *ret = TAKE(copy);
    return 0;
}

struct guard *guard_ref(struct guard *g)
{
    if (g)
        atomic_fetch_add(&g->refs, 1);
    return g;
}

void guard_unref(struct guard *g)
{
    if (!g || atomic_fetch_sub(&g->refs, 1) > 1)
        return;
    mem_free(g->allow);
    mem_free(g->deny);
    mem_free(g);
}

/* --- judging ------------------------------------------------------------------------------------------------------- */

static bool deny(char why[GUARD_WHY_SIZE], const struct address *a, const char *reason)
{
    char text[INET6_ADDRSTRLEN];
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    bool v4 = memcmp(a->bytes, mapped, sizeof(mapped)) == 0;
    (void)inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? a->bytes + 12 : a->bytes, text,
                    sizeof(text));                                      /* has room for any */
    (void)snprintf(why, GUARD_WHY_SIZE, "address %s %s", text, reason); /* 46 and our own words fit */
    return false;
}

static bool same_host(const struct address *a, const struct sockaddr *b)
{
    struct address other;
    if (b && b->sa_family == AF_INET)
        other = from_v4(&((const struct sockaddr_in *)(const void *)b)->sin_addr);
    else if (b && b->sa_family == AF_INET6)
        memcpy(other.bytes, &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr, sizeof(other.bytes));
    else
        return false;
    return memcmp(a->bytes, other.bytes, sizeof(other.bytes)) == 0;
}

static bool is_loopback(const struct address *a)
{
    return within(a, &loopback_v4) || within(a, &loopback_v6);
}

/* Cannot tell: yes, so that it is not called. */
static bool is_own(const struct address *a)
{
    struct ifaddrs *list;
    bool found = is_loopback(a) || within(a, &this_v4) || within(a, &none_v6);
    if (found || getifaddrs(&list) < 0)
        return true;
    for (const struct ifaddrs *i = list; i && !found; i = i->ifa_next)
        found = same_host(a, i->ifa_addr);
    freeifaddrs(list);
    return found;
}

static bool listens_on(const struct guard *g, unsigned port)
{
    for (size_t i = 0; i < g->ports_count; i++)
        if (g->ports[i] == port)
            return true;
    return false;
}

/* Whether a network of LIST that is at least BITS narrow holds A. */
static bool listed(const struct network *list, size_t count, const struct address *a, unsigned bits)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].bits >= bits && within(a, &list[i]))
            return true;
    return false;
}

static bool permits_builtin(const struct guard *g, const struct address *a, char why[GUARD_WHY_SIZE])
{
    for (size_t i = 0; i < sizeof(builtin) / sizeof(*builtin); i++) {
        const struct network *n = &builtin[i].network;
        char reason[64];
        if (!within(a, n) || listed(g->allow, g->allow_count, a, n->bits))
            continue;
        (void)snprintf(reason, sizeof(reason), "is denied by callback.deny (%s, by default)",
                       builtin[i].what); /* sized for all */
        return deny(why, a, reason);
    }
    return true;
}

static bool permits_one(const struct guard *g, const struct address *a, unsigned port, bool direct,
                        char why[GUARD_WHY_SIZE])
{
    if (listed(g->deny, g->deny_count, a, 0))
        return deny(why, a, "is denied by callback.deny");
    if (!direct)
        return true;
    if (listens_on(g, port) && is_own(a))
        return deny(why, a, "is denied: that port is this agent's own");
    if (is_loopback(a) && !g->allow_loopback)
        return deny(why, a, "is loopback, see callback.allow_loopback");
    return permits_builtin(g, a, why);
}

/* The IPv4 address inside A, where a gateway or the kernel would take it out. */
static bool inner_v4(const struct address *a, struct address *ret)
{
    if (within(a, &nat64) || (within(a, &compatible) && !within(a, &low_v6)))
        *ret = from_v4(a->bytes + 12);
    else if (within(a, &six_to_four))
        *ret = from_v4(a->bytes + 2);
    else
        return false;
    return true;
}

static bool permits(const struct guard *g, const struct address *a, unsigned port, bool direct,
                    char why[GUARD_WHY_SIZE])
{
    struct address inner;
    if (!permits_one(g, a, port, direct, why) ||
        (inner_v4(a, &inner) && !permits_one(g, &inner, port, direct, why)))
        return false;
    if (direct && g->allow_count > 0 && !listed(g->allow, g->allow_count, a, 0))
        return deny(why, a, "is not in callback.allow");
    return true;
}

bool guard_permits(const struct guard *g, const struct sockaddr *address, bool direct,
                   char why[GUARD_WHY_SIZE])
{
    struct address a;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
        a = from_v4(&v4->sin_addr);
        return permits(g, &a, ntohs(v4->sin_port), direct, why);
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
        memcpy(a.bytes, &v6->sin6_addr, sizeof(a.bytes));
        return permits(g, &a, ntohs(v6->sin6_port), direct, why);
    }
    (void)snprintf(why, GUARD_WHY_SIZE, "address is neither IPv4 nor IPv6"); /* fits */
    return false;
}

bool guard_permits_ip(const struct guard *g, const char *ip, unsigned port, bool direct,
                      char why[GUARD_WHY_SIZE])
{
    struct address a;
    unsigned before;
    if (parse_address(ip, &a, &before))
        return permits(g, &a, port, direct, why);
    (void)snprintf(why, GUARD_WHY_SIZE, "address '%s' is not understood", TEXTQ(ip, strlen(ip))); /* fits */
    return false;
}

/* --- own ports ----------------------------------------------------------------------------------------------------- */

static uint16_t listening_port(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address), flag_size = sizeof(int);
    int listening = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &flag_size) < 0 || !listening ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return 0;
    if (address.ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)(const void *)&address)->sin_port);
    if (address.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)&address)->sin6_port);
    return 0;
}

static int compare_ports(const void *a, const void *b)
{
    return (int)*(const uint16_t *)a - (int)*(const uint16_t *)b;
}

size_t guard_listening_ports(uint16_t *ret, size_t max)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;
    for (struct dirent *entry; dir && count < max && (entry = readdir(dir));) {
        uint32_t fd;
        if (text_u32(entry->d_name, strlen(entry->d_name), 0, INT32_MAX, &fd, NULL) < 0)
            continue;
        ret[count] = listening_port((int)fd);
        count += ret[count] != 0;
    }
    if (dir)
        closedir(dir);
    qsort(ret, count, sizeof(*ret), compare_ports);
    return count;
}

bool guard_has_ports(const struct guard *g, const uint16_t *ports, size_t count)
{
    return g->ports_count == count && memcmp(g->ports, ports, count * sizeof(*ports)) == 0;
}
