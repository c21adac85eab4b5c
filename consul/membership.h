/* Who is there: this member's service, session and key in Consul, and the list of all members' keys. Consul's word decides
 * nothing about ownership (the store does); it brings news within milliseconds and the addresses.
 *
 *   register service (TTL check, passing) -> create session -> acquire the own key -> watch the prefix
 *
 * Each step is repeated until it works; whatever Consul forgets (restart with an empty store, session invalidated, check gone)
 * is made again from the step that is missing. The check is passed once a second by the loop itself, so a stuck loop shows.
 * Source: design "An agent's life"; Consul "Sessions". Loop thread only. */
#ifndef CARILLON_CONSUL_MEMBERSHIP_H
#define CARILLON_CONSUL_MEMBERSHIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/mem.h"
#include "consul/consul_client.h"

struct membership;

struct membership_options {
    const char *cluster;
    const char *member; /* "<name>.<random>", of [A-Za-z0-9_.-] as Consul's keys want */
    const char *name;
    const char *host; /* of the peer listener */
    uint16_t port;
    const char *zone;
    uint32_t weight;
    const char *version;
    const char *config_digest;
    const char *tzdata;
    int64_t started_ms; /* wall clock */
    const char *register_as;
    int64_t check_ttl_ms;
    int64_t session_ttl_ms;
    bool node_check; /* bind the session to serfHealth as well */
    uint64_t seed;
};

struct membership_member {
    char id[96];
    char name[64];
    char address[128]; /* host:port */
    char zone[64];
    char version[32];
    char config_digest[24];
    char tzdata[16];
    uint32_t weight;
    int64_t started_ms;
    bool leaving;
};

struct membership_view {
    const struct membership_member *members; /* sorted by id; the last good list */
    size_t count;
    bool key_held; /* the list holds the own key */
    bool synced;   /* a list was read at least once since the start */
};

typedef void membership_changed(void *arg, const struct membership_view *view);

struct membership *membership_new(struct consul_client *c, const struct membership_options *options,
                                  membership_changed *changed, void *arg);
const struct membership_view *membership_view(const struct membership *m);
/* The own key's value says "leaving" from now on. */
void membership_leave(struct membership *m);
/* Destroy the session, deregister the service; DONE once both were answered or TIMEOUT_MS passed. Nothing is renewed any more. */
void membership_stop(struct membership *m, int64_t timeout_ms, void (*done)(void *arg), void *arg);
void membership_free(struct membership *m);
DEFINE_AUTO(membership_free, struct membership *);

/* Read a prefix listing of /v1/kv; entries that make no sense are left out (a lying store of names must not stop us).
 * ERR_PROTOCOL: not a listing. *ret for mem_free(). For tests and fuzzing. */
int membership_parse(const char *body, size_t bytes, struct membership_member **ret, size_t *ret_count,
                     struct err *e);

#endif
