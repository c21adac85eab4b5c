/* The HTTP API of an agent: its listeners (public, ops, peers), the routes of design "HTTP API contract", and the way of a
 * write to the owner of its job. Start and stop on the loop thread. */
#ifndef CARILLON_AGENT_API_API_H
#define CARILLON_AGENT_API_API_H

#include "agent/base/err.h"
#include "agent/config.h"
#include "agent/node.h"

struct api;

/* Open api.listen, ops.listen and, unless NULL, PEER_LISTEN ("host:port") of C, which must live until the process ends.
 * Requests are served from now on, so N must be able to answer already. Errors as httpd_start(). */
int api_start(struct node *n, const struct config *c, const char *peer_listen, struct api **ret,
              struct err *e);
/* Port of the peer listener, 0: there is none. */
unsigned api_peer_port(const struct api *api);
/* Address of the I-th public listener with the port the kernel gave; NULL: there are not so many. */
const char *api_address(const struct api *api, size_t i);
/* First step of an end: the public listeners take no new connections; peers are served on. */
void api_quiesce_public(struct api *api);
/* Look at once whether the files of the API have changed, as is done every few seconds. */
void api_reload(struct api *api);
/* Close all listeners; who still waits gets 503. Before http_client_free() of node_http(), before the planner and the store
 * are closed; their answers to what was handed to them may come later and do nothing any more. */
void api_stop(struct api *api);

#endif
