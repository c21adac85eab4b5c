/* The application beside this agent as a service in Consul (app.register): registered at the start, again when Consul forgot it,
 * deregistered on the way out. Loop thread only. */
#ifndef CARILLON_AGENT_APP_SERVICE_H
#define CARILLON_AGENT_APP_SERVICE_H

#include <stdint.h>

struct app_service;
struct config;
struct consul_client;

/* HOST: where others reach this machine, used when app.address is loopback. */
struct app_service *app_service_new(struct consul_client *c, const struct config *config, const char *host);
/* Deregister; DONE once answered or after TIMEOUT_MS. */
void app_service_stop(struct app_service *a, int64_t timeout_ms, void (*done)(void *arg), void *arg);
void app_service_free(struct app_service *a);

#endif
