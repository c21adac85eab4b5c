/* Where callbacks may go: the addresses that a connection is about to be made to, or is kept to, are held against networks that the
 * configuration allows and denies. A guard never changes; any thread.
 *
 * A direct target (a job's url or address) must pass all of:
 *   - none of this process's own ports on its own addresses: a job could use the agent's rights;
 *   - not in `deny`;
 *   - loopback only if that is allowed;
 *   - link-local, metadata, multicast and unspecified addresses only if a network of `allow` holds them that is at least as
 *     narrow as the built-in one (allow: 0.0.0.0/0 does not open the metadata service);
 *   - if `allow` has any networks, in one of them.
 * An endpoint of a service comes from Consul or the configuration, and only has to pass `deny`. IPv4 addresses that are written
 * inside IPv6 ones (mapped, compatible, NAT64, 6to4) must not be denied either. */
#ifndef CARILLON_CALLBACK_GUARD_H
#define CARILLON_CALLBACK_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "agent/base/mem.h"

struct err;
struct guard;

#define GUARD_NETWORKS_MAX 256
#define GUARD_PORTS_MAX    32
#define GUARD_WHY_SIZE     120

/* "10.0.0.0/8", "10.1.2.3", "fd00::/8", "::1": no bits may be set beyond the prefix. ERR_INVALID. */
int guard_check_network(const char *text, struct err *e);

struct guard_options {
    const char *const *allow;
    size_t allow_count; /* at most GUARD_NETWORKS_MAX, as deny_count */
    const char *const *deny;
    size_t deny_count;
    bool allow_loopback;
};
/* With one reference for the caller; borrows nothing. ERR_INVALID: a network; ERR_TOO_BIG; ERR_NOMEM. */
int guard_new(const struct guard_options *options, struct guard **ret, struct err *e);
/* The same with these own ports (at most GUARD_PORTS_MAX; more are left out). ERR_NOMEM. */
int guard_with_ports(const struct guard *g, const uint16_t *ports, size_t count, struct guard **ret,
                     struct err *e);
struct guard *guard_ref(struct guard *g); /* NULL gives NULL */
void guard_unref(struct guard *g);        /* NULL does nothing */
DEFINE_AUTO(guard_unref, struct guard *);

/* Whether a connection to ADDRESS is permitted to a target that is DIRECT or not. If not, WHY says so in a sentence. */
bool guard_permits(const struct guard *g, const struct sockaddr *address, bool direct,
                   char why[GUARD_WHY_SIZE]);
/* The same for an address as libcurl prints it. */
bool guard_permits_ip(const struct guard *g, const char *ip, unsigned port, bool direct,
                      char why[GUARD_WHY_SIZE]);

/* The TCP ports that this process listens on, whoever in it opened them: at most MAX into RET, ascending; how many. */
size_t guard_listening_ports(uint16_t *ret, size_t max);
bool guard_has_ports(const struct guard *g, const uint16_t *ports, size_t count);

#endif
