/* Who is let in, and for what: tokens (agent/tokens.h), peers of unix sockets, rates; and the line of the audit. The decision is made
 * once, where a request comes in; what agents send each other is signed instead (agent/peer_auth.h). */
#ifndef CARILLON_AGENT_API_GATE_H
#define CARILLON_AGENT_API_GATE_H

#include "agent/tokens.h"

#define GATE_FROM_SIZE 64

struct api;
struct exchange;
struct gate;

/* Of an exchange. */
struct gate_caller {
    struct tokens *tokens;      /* a reference; NULL: none are asked for */
    const struct token *who;    /* of it; NULL: may do everything */
    char name[TOKEN_NAME_SIZE]; /* who did it, for revisions and the audit; "": not known here */
    char from[GATE_FROM_SIZE];
    const char *wrong; /* with what it showed; a constant */
    bool audited;
};

/* Reads api.tokens_file (blocks); errors as tokens_load(). Loop thread. */
int gate_new(struct api *api, struct gate **ret, struct err *e);
/* NULL does nothing. */
void gate_free(struct gate *g);
/* Loop thread: look now whether the file has changed, as is done every few seconds anyway. */
void gate_look(struct gate *g);

/* On the server's thread, before the head is read: who this is, whether what the route asks for is granted at all, the namespace as far
 * as it is plain to see, and the rate. 0, or -ERR_INVALID with x->problem. */
int gate_admit(struct exchange *x);
/* After the head was read: its namespace. As gate_admit(). */
int gate_authorize(struct exchange *x);
/* Whether the caller may see, or act, in NS: what a request named by a fire's id leads to. Any thread. */
bool gate_in_namespace(const struct exchange *x, const char *ns);
/* Whether there is a namespace in which the caller may not. */
bool gate_is_limited(const struct exchange *x);
void gate_caller_fini(struct gate_caller *c);

/* What was let in and goes on (a stream): whose token it came with, to be asked about now and then. */
struct gate_pass {
    bool needed; /* false: no token was asked for */
    struct token who;
    char ns[TOKEN_NAMESPACE_SIZE]; /* "": all */
};
/* Of X, which reads NS ("": all). */
void gate_pass_take(const struct exchange *x, const char *ns, struct gate_pass *ret);
/* Whether the token is still there, has not expired, and may read what it did. Any thread. */
bool gate_pass_holds(struct gate *g, const struct gate_pass *p);
/* The audit's line of X, answered with STATUS. Any thread. */
void gate_audit(const struct exchange *x, int status);

#endif
