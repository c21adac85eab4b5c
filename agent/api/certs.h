/* The listeners' certificates, followed while the agent runs: looked at every few seconds, and at once after SIGHUP. Loop thread. */
#ifndef CARILLON_AGENT_API_CERTS_H
#define CARILLON_AGENT_API_CERTS_H

struct api;
struct certs;
struct err;

/* Once all listeners are there. *RET stays NULL when none has a certificate. ERR_IO: no thread for it. */
int certs_new(struct api *api, struct certs **ret, struct err *e);
/* Before the listeners go. NULL does nothing, here and below. */
void certs_free(struct certs *c);
/* Look now, as is done every few seconds anyway. */
void certs_look(struct certs *c);

#endif
