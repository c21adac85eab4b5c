#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/err.h"
#include "callback/guard.h"

#define LIST(field, ...)                         \
    .field = (const char *const[]){__VA_ARGS__}, \
    .field##_count = sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)
#define ALLOW(...) LIST(allow, __VA_ARGS__)
#define DENY(...)  LIST(deny, __VA_ARGS__)

static struct guard *guard_of(struct guard_options o)
{
    struct guard *g = NULL;
    struct err e = {0};
    cr_assert(zero(int, guard_new(&o, &g, &e)), "%s", e.text);
    return g;
}

static char why[GUARD_WHY_SIZE];

static bool to(const struct guard *g, const char *ip)
{
    why[0] = '\0';
    return guard_permits_ip(g, ip, 80, true, why);
}

static bool to_service(const struct guard *g, const char *ip)
{
    why[0] = '\0';
    return guard_permits_ip(g, ip, 80, false, why);
}

static const char *const never[] = {"169.254.169.254", "169.254.0.0", "169.254.255.255", "fe80::1",
                                    "febf:ffff::1", "100.100.100.200", "168.63.129.16", "fd00:ec2::254",
                                    "fd20:ce::254", "224.0.0.1", "239.255.255.255", "255.255.255.255",
                                    "ff02::1", "0.0.0.0", "0.1.2.3", "::", "192.0.0.192",
                                    /* the same in other clothes */
                                    "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::169.254.169.254",
                                    "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1"};
static const char *const fine[] = {"10.0.0.1",        "192.168.1.1",     "8.8.8.8",         "169.253.255.255",
                                   "169.255.0.0",     "fec0::1",         "fd00:ec2::253",   "2001:db8::1",
                                   "100.100.100.201", "223.255.255.255", "64:ff9b::8.8.8.8"};

Test(guard, by_default_link_local_metadata_and_multicast_are_denied)
{
    struct guard *g = guard_of((struct guard_options){0});
    for (size_t i = 0; i < sizeof(never) / sizeof(*never); i++)
        cr_assert(not(to(g, never[i])), "%s", never[i]);
    for (size_t i = 0; i < sizeof(fine) / sizeof(*fine); i++)
        cr_assert(to(g, fine[i]), "%s: %s", fine[i], why);
    cr_assert(not(to(g, "169.254.169.254")));
    cr_assert(eq(str, why, "address 169.254.169.254 is denied by callback.deny (link-local, by default)"));
    cr_assert(not(to(g, "::ffff:169.254.169.254")));
    cr_assert(eq(str, why, "address 169.254.169.254 is denied by callback.deny (link-local, by default)"));
    guard_unref(g);
}

Test(guard, loopback_needs_its_own_permission)
{
    static const char *const own[] = {"127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"};
    struct guard *no = guard_of((struct guard_options){0}),
                 *yes = guard_of((struct guard_options){.allow_loopback = true});
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        cr_assert(not(to(no, own[i])), "%s", own[i]);
        cr_assert(to(yes, own[i]), "%s: %s", own[i], why);
        cr_assert(to_service(no, own[i]), "%s: %s", own[i], why);
    }
    guard_unref(no);
    guard_unref(yes);
}

Test(guard, deny_holds_for_services_too_and_beats_allow)
{
    struct guard *g =
        guard_of((struct guard_options){ALLOW("10.0.0.0/8", "fd00::/8"), DENY("10.1.0.0/16", "fd00:1::/32")});
    cr_assert(to(g, "10.0.255.255"));
    cr_assert(not(to(g, "10.1.0.0")));
    cr_assert(eq(str, why, "address 10.1.0.0 is denied by callback.deny"));
    cr_assert(not(to(g, "10.1.255.255")));
    cr_assert(to(g, "10.2.0.0"));
    cr_assert(not(to(g, "fd00:1:ffff::1")));
    cr_assert(to(g, "fd00:2::1"));
    cr_assert(not(to_service(g, "10.1.0.1")));
    cr_assert(not(to_service(g, "::ffff:10.1.0.1")));
    guard_unref(g);
}

Test(guard, a_service_may_be_anywhere_that_is_not_denied_by_name)
{
    struct guard *g = guard_of((struct guard_options){ALLOW("10.0.0.0/8"), DENY("192.0.2.0/24")});
    cr_assert(to_service(g, "169.254.7.7"));
    cr_assert(to_service(g, "172.16.0.1"));
    cr_assert(not(to_service(g, "192.0.2.1")));
    guard_unref(g);
}

Test(guard, given_an_allow_list_nothing_else_is_reached)
{
    struct guard *g =
        guard_of((struct guard_options){ALLOW("10.0.0.0/8", "2001:db8::/32"), .allow_loopback = true});
    cr_assert(to(g, "10.9.9.9"));
    cr_assert(to(g, "2001:db8::5"));
    cr_assert(not(to(g, "11.0.0.0")));
    cr_assert(eq(str, why, "address 11.0.0.0 is not in callback.allow"));
    cr_assert(not(to(g, "2001:db9::")));
    cr_assert(not(to(g, "127.0.0.1")));
    guard_unref(g);
}

Test(guard, a_wide_network_does_not_open_what_is_denied_by_default)
{
    struct guard *wide = guard_of((struct guard_options){ALLOW("0.0.0.0/0", "::/0")}),
                 *exact = guard_of((struct guard_options){ALLOW("169.254.0.0/16", "10.0.0.0/8")}),
                 *one = guard_of((struct guard_options){ALLOW("169.254.10.10")});
    cr_assert(to(wide, "8.8.8.8"));
    cr_assert(to(wide, "2001:db8::1"));
    cr_assert(not(to(wide, "169.254.169.254")));
    cr_assert(not(to(wide, "fe80::1")));
    cr_assert(to(exact, "169.254.169.254"));
    cr_assert(to(one, "169.254.10.10"));
    cr_assert(not(to(one, "169.254.169.254")));
    guard_unref(wide);
    guard_unref(exact);
    guard_unref(one);
}

Test(guard, every_prefix_has_its_edge)
{
    for (unsigned bits = 1; bits <= 32; bits++) {
        char network[32], inside[32], after[32];
        uint32_t size = bits == 32 ? 1 : 1u << (32 - bits), base = 0x50000000u / size * size;
        struct in_addr a = {htonl(base)}, b = {htonl(base + (size - 1))}, c = {htonl(base + size)};
        inet_ntop(AF_INET, &a, network, sizeof(network));
        inet_ntop(AF_INET, &b, inside, sizeof(inside));
        inet_ntop(AF_INET, &c, after, sizeof(after));
        snprintf(network + strlen(network), 4, "/%u", bits);
        struct guard *g =
            guard_of((struct guard_options){.deny = (const char *const[]){network}, .deny_count = 1});
        cr_assert(not(to_service(g, inside)), "%s in %s", inside, network);
        cr_assert(to_service(g, after), "%s after %s", after, network);
        guard_unref(g);
    }
}

Test(guard, zero_bits_are_all_of_one_family)
{
    struct guard *g =
        guard_of((struct guard_options){.deny = (const char *const[]){"0.0.0.0/0"}, .deny_count = 1});
    cr_assert(not(to_service(g, "8.8.8.8")));
    cr_assert(to_service(g, "2001:db8::1"));
    guard_unref(g);
}

Test(guard, what_is_no_network_is_refused)
{
    static const char *const texts[] = {
        "",
        "10",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        "10.0.0.0/08",
        "10.0.0.1/8",
        "fe80::/129",
        "fe80::1/10",
        "::ffff:10.0.0.0/8",
        "host.example",
        "10.0.0.0 /8",
        "010.0.0.0/8",
        "10.0.0.0/8 ",
        "/8",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee/1"};
    struct err e;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct guard *g = NULL;
        struct guard_options o = {.deny = &texts[i], .deny_count = 1};
        cr_assert(eq(int, guard_check_network(texts[i], &e), -ERR_INVALID), "%s", texts[i]);
        cr_assert(eq(int, guard_new(&o, &g, &e), -ERR_INVALID), "%s", texts[i]);
        cr_assert(zero(ptr, g));
    }
    cr_assert(zero(int, guard_check_network("::ffff:10.0.0.0/104", &e)));
}

Test(guard, addresses_that_are_none_are_not_called)
{
    struct guard *g = guard_of((struct guard_options){0});
    struct sockaddr local = {.sa_family = AF_UNIX};
    cr_assert(not(to(g, "")));
    cr_assert(not(to(g, "/run/x.sock")));
    cr_assert(not(guard_permits(g, &local, false, why)));
    guard_unref(g);
}

Test(guard, own_ports_are_denied_on_own_addresses_only)
{
    struct guard *plain = guard_of(
                     (struct guard_options){ALLOW("127.0.0.1", "203.0.113.0/24"), .allow_loopback = true}),
                 *g;
    struct err e;
    uint16_t ports[] = {7420, 7421};
    cr_assert(zero(int, guard_with_ports(plain, ports, 2, &g, &e)));
    cr_assert(guard_has_ports(g, ports, 2) && !guard_has_ports(plain, ports, 2) &&
              !guard_has_ports(g, ports, 1));
    cr_assert(not(guard_permits_ip(g, "127.0.0.1", 7420, true, why)));
    cr_assert(eq(str, why, "address 127.0.0.1 is denied: that port is this agent's own"));
    cr_assert(not(guard_permits_ip(g, "::ffff:127.0.0.1", 7421, true, why)));
    cr_assert(guard_permits_ip(g, "127.0.0.1", 7422, true, why));
    cr_assert(guard_permits_ip(g, "203.0.113.5", 7420, true, why)); /* documentation's: nobody's */
    cr_assert(guard_permits_ip(g, "127.0.0.1", 7420, false, why));
    guard_unref(plain);
    guard_unref(g);
}

Test(guard, listening_sockets_are_found_whoever_opened_them)
{
    uint16_t ports[GUARD_PORTS_MAX];
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t size = sizeof(any);
    size_t before = guard_listening_ports(ports, GUARD_PORTS_MAX);
    int four = socket(AF_INET, SOCK_STREAM, 0), v6 = socket(AF_INET6, SOCK_STREAM, 0),
        idle = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(zero(int, bind(four, (struct sockaddr *)&any, sizeof(any))));
    cr_assert(zero(int, bind(idle, (struct sockaddr *)&any, sizeof(any)))); /* bound, not listening */
    cr_assert(zero(int, bind(v6, (struct sockaddr *)&six, sizeof(six))));
    cr_assert(zero(int, listen(four, 1)));
    cr_assert(zero(int, listen(v6, 1)));
    getsockname(four, (struct sockaddr *)&any, &size);
    size_t count = guard_listening_ports(ports, GUARD_PORTS_MAX);
    cr_assert(eq(sz, count, before + 2));
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        found |= ports[i] == ntohs(any.sin_port);
        cr_assert(i == 0 || ports[i - 1] <= ports[i]);
    }
    cr_assert(found);
    cr_assert(eq(sz, guard_listening_ports(ports, 1), 1));
    close(four);
    close(v6);
    close(idle);
}

Test(guard, faults_lose_nothing)
{
    for (unsigned k = 0;; k++) {
        struct guard *g = NULL, *copy = NULL;
        struct err e = {0};
        struct guard_options o = {ALLOW("10.0.0.0/8"), DENY("10.1.0.0/16")};
        fault_arm(k);
        int rc = guard_new(&o, &g, &e);
        if (rc == 0)
            rc = guard_with_ports(g, (const uint16_t[]){1}, 1, &copy, &e);
        bool fired = fault_fired();
        cr_assert(eq(int, rc, fired ? -ERR_NOMEM : 0), "k=%u", k);
        cr_assert(eq(int, copy != NULL, !fired), "k=%u", k);
        guard_unref(g);
        guard_unref(copy);
        if (!fired)
            break;
    }
}
