/* What the files of the configuration share. */
#ifndef CARILLON_AGENT_CONFIG_PRIVATE_H
#define CARILLON_AGENT_CONFIG_PRIVATE_H

#include "agent/base/option.h"
#include "agent/config.h"

enum {
    CONFIG_PLACE = 1 << 8
}; /* option flag: differs between agents of one cluster by nature, so not in the digest */

enum { CONFIG_LOOPBACK_AUTO, CONFIG_LOOPBACK_FALSE, CONFIG_LOOPBACK_TRUE };

/* A driver that store.driver can name, and where its options stand in struct config. */
struct config_driver {
    const struct store_ops *ops;
    size_t offset;
};
/* DRIVERS_COUNT of them. */
const struct config_driver *config_drivers(size_t *ret_count);

/* Check and complete what the rows could not: effective defaults, then one line in ERRORS for each problem. FILE may be NULL,
 * for the line numbers. ERR_NOMEM only. */
int config_finish(struct config *c, struct err *e);
int config_check(const struct config *c, const struct yaml_tree *file, struct option_errors *errors,
                 struct err *e);

bool config_endpoints_equal(const struct config_service *a, const struct config_service *b);

#endif
