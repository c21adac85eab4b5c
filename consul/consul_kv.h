/* One key of Consul's store that several agents read and change by compare-and-set. What is told was read consistently: the watch
 * only says that there is news, for a follower of Consul's may be behind. Loop thread only.
 * Source: Consul, "KV Store Endpoints", "Consistency Modes". */
#ifndef CARILLON_CONSUL_KV_H
#define CARILLON_CONSUL_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "consul/consul_client.h"

#define CONSUL_KV_MAX ((size_t)512 << 10) /* Consul's own limit */

struct consul_kv;

/* After each good read, also of what is known. VALUE NULL: there is no such key, and INDEX is 0; else NUL follows. INDEX is what
 * consul_kv_put() wants. The key may be freed in the call. */
typedef void consul_kv_told(void *arg, const char *value, size_t bytes, uint64_t index);

struct consul_kv *consul_kv_new(struct consul_client *c, const char *key, uint64_t seed, consul_kv_told *told,
                                void *arg);
void consul_kv_free(struct consul_kv *kv);
DEFINE_AUTO(consul_kv_free, struct consul_kv *);

/* Read it now; TOLD follows, as soon as Consul can. */
void consul_kv_read(struct consul_kv *kv);
/* Write VALUE if the key still is as it was when INDEX was told (0: not there). It is read again whatever comes of it; nothing may be
 * written before that is told. */
void consul_kv_put(struct consul_kv *kv, const char *value, size_t bytes, uint64_t index);
/* A write was begun, and what came of it has not been told yet. */
bool consul_kv_is_writing(const struct consul_kv *kv);
/* Why it could not be read or written the last time; "" if it could. Valid until the next turn. */
const char *consul_kv_trouble(const struct consul_kv *kv);

/* Read what /v1/kv/<key> answers: the value for mem_free(), with a NUL behind it. ERR_PROTOCOL: not such an answer; ERR_NOMEM. */
int consul_kv_parse(const char *body, size_t bytes, char **ret, size_t *ret_bytes, uint64_t *ret_index,
                    struct err *e);

#endif
