/* Services in Consul: this agent's own (with the TTL check that its loop keeps passing), the application's, and the healthy
 * instances of others. Loop thread only. */
#ifndef CARILLON_CONSUL_SERVICE_H
#define CARILLON_CONSUL_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "consul/consul_client.h"

#define CONSUL_NAME_MAX 128

struct consul_service {
    const char *id, *name, *address;
    uint16_t port;
    const char *const *tags;            /* NULL-terminated, may be NULL */
    const char *zone;                   /* Meta.zone; NULL: none */
    const char *meta_name, *meta_value; /* one more; NULL: none */
    const char *check_id;
    int64_t check_ttl_ms;   /* TTL check when > 0, starts passing */
    const char *check_http; /* HTTP check of this URL each 10 s when set */
    const char *check_tcp;  /* TCP check of host:port each 10 s when set */
};

/* PUT /v1/agent/service/register; idempotent. */
struct consul_call *consul_service_register(struct consul_client *c, const struct consul_service *s,
                                            consul_done *done, void *arg);
struct consul_call *consul_service_deregister(struct consul_client *c, const char *id, consul_done *done,
                                              void *arg);
/* Say that the TTL check passes; no Raft entry as long as its output does not change, so there is none. */
struct consul_call *consul_check_pass(struct consul_client *c, const char *check_id, consul_done *done,
                                      void *arg);

struct consul_instance {
    char id[CONSUL_NAME_MAX]; /* service id */
    char address[256];        /* Service.Address, else the node's */
    uint16_t port;
    char node[CONSUL_NAME_MAX];
    char zone[64];    /* Service.Meta.zone, else Node.Meta.zone, else "" */
    char cluster[64]; /* Service.Meta.cluster, which members carry; "" else */
    uint32_t weight;  /* Service.Weights.Passing, 1 when absent */
    char **tags;      /* NULL-terminated; owned by the list */
};

struct consul_instances {
    struct consul_instance *items;
    size_t count;
};

/* Read what /v1/health/service answers. Entries without a usable address or port are left out. ERR_PROTOCOL: not such an answer;
 * ERR_NOMEM: RET is untouched. */
int consul_instances_parse(const char *body, size_t bytes, struct consul_instances *ret, struct err *e);
void consul_instances_fini(struct consul_instances *list);

/* Watches the passing instances of NAME in DATACENTER (NULL or "": the agent's). An answer that cannot be read changes nothing. */
struct consul_service_watch;
typedef void consul_service_changed(void *arg, const struct consul_instances *list);
struct consul_service_watch *consul_service_watch_new(struct consul_client *c, const char *name,
                                                      const char *datacenter, bool poll, uint64_t seed,
                                                      consul_service_changed *changed, void *arg);
void consul_service_watch_free(struct consul_service_watch *w);
DEFINE_AUTO(consul_service_watch_free, struct consul_service_watch *);
bool consul_service_watch_ok(const struct consul_service_watch *w);

#endif
