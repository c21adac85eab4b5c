/* What the admission webhook answers: Kubernetes asks about a pod that is to be made, and gets the patch that puts the sidecar into it.
 * Bytes in, bytes out; the server is agent/cli/cmd_injector.c. Any thread, one at a time per template. */
#ifndef CARILLON_AGENT_INJECT_H
#define CARILLON_AGENT_INJECT_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"

#define INJECT_REVIEW_BYTES_MAX \
    ((size_t)8 << 20) /* an object has at most 1.5 MiB in Kubernetes, and a review may hold it twice */
#define INJECT_TEMPLATE_BYTES_MAX ((size_t)1 << 20) /* as a ConfigMap */
#define INJECT_NAME_SIZE          254

struct inject_template;

/* The sidecar by role, as the chart renders it: {"client": {"initContainers": [{…}], "volumes": […],
 * "terminationGracePeriodSeconds": 30}, "member": {…}}, each a pod's spec in part. "client" must be there. ERR_INVALID with the place,
 * ERR_TOO_BIG, ERR_NOMEM. */
int inject_template_read(const char *text, size_t len, struct inject_template **ret, struct err *e);
void inject_template_free(struct inject_template *t); /* NULL does nothing */
DEFINE_AUTO(inject_template_free, struct inject_template *);

enum inject_result {
    INJECT_UNCHANGED, /* not asked for, or there already */
    INJECT_PATCHED,
    INJECT_REFUSED, /* the pod may not be made: its annotations are wrong */
    INJECT_COUNT_
};

/* For the log. */
struct inject_verdict {
    enum inject_result result;
    char ns[INJECT_NAME_SIZE];
    char pod[INJECT_NAME_SIZE]; /* its name, or what its name begins with */
    char why[400];              /* of a refusal, and of a warning; else "" */
};

/* Answer the AdmissionReview (admission.k8s.io/v1) in BODY: the review with its response is appended to OUT. ERR_INVALID: BODY is no such
 * review, so there is nothing to answer (HTTP 400); ERR_TOO_BIG, ERR_NOMEM. OUT may hold a part then. */
int inject_review(struct inject_template *t, const char *body, size_t len, struct buf *out,
                  struct inject_verdict *ret, struct err *e);

#endif
