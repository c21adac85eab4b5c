/* What inject.c (the review), inject_wish.c (a pod's annotations) and inject_pod.c (the patch) share. */
#ifndef CARILLON_AGENT_INJECT_PRIVATE_H
#define CARILLON_AGENT_INJECT_PRIVATE_H

#include "agent/base/json.h"
#include "agent/inject.h"

#define INJECT_PREFIX       "carillon/"
#define INJECT_MARK         INJECT_PREFIX "injected"
#define INJECT_SETS_MAX     32
#define INJECT_WARNINGS_MAX 8

struct inject_template {
    json_t *roles;
};

/* The part of a pod's spec for ROLE; NULL: there is none. */
const json_t *inject_template_role(const struct inject_template *t, const char *role);
/* Its container. */
const json_t *inject_part_container(const json_t *part);

/* What a pod's annotations ask for. Zero-initialise; texts are borrowed from them. */
struct inject_wish {
    bool asked; /* there is an annotation carillon/inject */
    bool inject;
    bool injected; /* by us, as the mark says */
    const char *role, *image;
    const char *service, *port; /* checked texts; NULL: not given */
    json_t *resources;          /* NULL: the template's */
    json_t *sets;               /* texts "section.key=value"; NULL: none */
};

/* Read all of POD's annotations. What is wrong goes to P, what is merely odd to WARNINGS (texts). ERR_NOMEM. */
int inject_wish_read(const struct inject_template *t, const json_t *pod, struct inject_wish *w,
                     struct problems *p, json_t *warnings, struct err *e);
void inject_wish_fini(struct inject_wish *w);

/* Append the patch's operations for POD to OPS (none: there is one already). As above. */
int inject_pod_patch(const struct inject_template *t, const json_t *pod, const struct inject_wish *w,
                     json_t *ops, struct problems *p, json_t *warnings, struct err *e);

/* Cut TEXT, valid UTF-8 but for its end, to at most MAX bytes of whole characters. */
void inject_cut(char *text, size_t max);
/* Append a warning, cut to what Kubernetes shows. ERR_NOMEM. */
int inject_warn(json_t *warnings, struct err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
