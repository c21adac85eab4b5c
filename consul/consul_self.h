/* Who the local Consul agent is: its node's name, by which endpoints on this machine are known, and the address it advertises. */
#ifndef CARILLON_CONSUL_SELF_H
#define CARILLON_CONSUL_SELF_H

#include <stddef.h>

#include "agent/base/err.h"
#include "consul/consul_service.h"

#define CONSUL_SELF_PATH "/v1/agent/self"

struct consul_self {
    char node[CONSUL_NAME_MAX]; /* never "" */
    char address[128];          /* of Member; "" when it is not told */
};

/* Read what CONSUL_SELF_PATH answers. ERR_PROTOCOL: not such an answer; ERR_NOMEM: RET is untouched. */
int consul_self_parse(const char *body, size_t bytes, struct consul_self *ret, struct err *e);

#endif
