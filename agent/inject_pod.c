/* The patch (RFC 6902) that puts the sidecar into a pod. */
#include <string.h>

#include "agent/base/text.h"
#include "agent/inject_private.h"
#include "agent/version.h"

#define ARG_BYTES_MAX 8192
#define GRACE_DEFAULT 30 /* Kubernetes' own, when a pod does not say */

struct patcher {
    const json_t *part, *pod;
    const struct inject_wish *w;
    json_t *ops;
    struct problems *p;
    json_t *warnings;
    struct err *e;
};

static const json_t *spec_of(const json_t *pod)
{
    return json_object_get(pod, "spec");
}

/* Steals VALUE; NULL: there was no memory for it. */
static int add_op(struct patcher *k, const char *path, json_t *value)
{
    json_t *op = json_object();
    int rc = json_set(op, "op", json_string("add"), k->e);
    if (rc == 0)
        rc = json_set(op, "path", json_string(path), k->e);
    if (rc == 0)
        rc = json_set(op, "value", value, k->e);
    else
        json_decref(value);
    if (rc == 0 && json_array_append(k->ops, op) < 0)
        rc = err_set(k->e, ERR_NOMEM, "out of memory for a patch");
    json_decref(op);
    return rc;
}

/* --- the container ------------------------------------------------------------------------------------------------- */

static int add_arg(json_t *args, const char *option, const char *value, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(ARG_BYTES_MAX);
    buf_addf(&text, "--set=%s%s%s", option ? option : "", option ? "=" : "", value);
    int rc = buf_check(&text, e);
    if (rc == 0 && json_array_append_new(args, json_string(buf_str(&text))) < 0)
        rc = err_set(e, ERR_NOMEM, "out of memory for a container");
    return rc;
}

/* As the chart's own template puts them: service and port behind all others, and what a pod adds behind those. */
static int add_args(const struct inject_wish *w, json_t *args, struct err *e)
{
    int rc = w->service ? add_arg(args, "app.service", w->service, e) : 0;
    if (rc == 0 && w->port)
        rc = add_arg(args, "app.port", w->port, e);
    for (size_t i = 0; rc == 0 && i < json_array_size(w->sets); i++)
        rc = add_arg(args, NULL, json_string_value(json_array_get(w->sets, i)), e);
    return rc;
}

static int make_container(struct patcher *k, json_t **ret)
{
    json_t *made = json_deep_copy(inject_part_container(k->part));
    if (!json_equal(made, inject_part_container(k->part))) { /* it does not tell of a member left out */
        json_decref(made);
        return err_set(k->e, ERR_NOMEM, "out of memory for a container");
    }
    int rc = add_args(k->w, json_object_get(made, "args"), k->e);
    if (rc == 0 && k->w->image)
        rc = json_set(made, "image", json_string(k->w->image), k->e);
    if (rc == 0 && k->w->resources)
        rc = json_set(made, "resources", json_incref(k->w->resources), k->e);
    if (rc < 0)
        json_decref(made);
    else
        *ret = made;
    return rc;
}

/* Before the pod's other init containers, which may need it already. */
static int add_container(struct patcher *k)
{
    json_t *made, *list;
    int rc = make_container(k, &made);
    if (rc < 0)
        return rc;
    if (json_is_array(json_object_get(spec_of(k->pod), "initContainers")))
        return add_op(k, "/spec/initContainers/0", made);
    list = json_array();
    if (json_array_append_new(list, made) < 0) { /* which takes MADE in any case */
        json_decref(list);
        return err_set(k->e, ERR_NOMEM, "out of memory for a container");
    }
    return add_op(k, "/spec/initContainers", list);
}

/* --- what else ----------------------------------------------------------------------------------------------------- */

/* Whether LIST holds an object of this name. */
static bool has_name(const json_t *list, const char *name)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *is = json_string_value(json_object_get(item, "name"));
        if (is && strcmp(is, name) == 0)
            return true;
    }
    return false;
}

static int add_volumes(struct patcher *k)
{
    json_t *ours = json_object_get(k->part, "volumes"), *theirs = json_object_get(spec_of(k->pod), "volumes");
    json_t *volume;
    size_t i;
    int rc = 0;
    if (json_array_size(ours) == 0)
        return 0;
    if (!json_is_array(theirs))
        return add_op(k, "/spec/volumes", json_incref(ours));
    json_array_foreach(ours, i, volume)
    {
        const char *name = json_string_value(json_object_get(volume, "name"));
        if (has_name(theirs, name))
            problems_add(k->p, "#/spec/volumes",
                         "the pod has a volume named '%s' of its own, which the sidecar needs", name);
        if (rc == 0)
            rc = add_op(k, "/spec/volumes/-", json_incref(volume));
    }
    return rc;
}

/* The sidecar ends after the application, within the time that the pod has. */
static int raise_grace(struct patcher *k)
{
    const json_t *ours = json_object_get(k->part, "terminationGracePeriodSeconds");
    const json_t *theirs = json_object_get(spec_of(k->pod), "terminationGracePeriodSeconds");
    json_int_t needed = json_integer_value(ours);
    json_int_t given = json_is_integer(theirs) ? json_integer_value(theirs) : GRACE_DEFAULT;
    if (!ours || given >= needed)
        return 0;
    int rc = inject_warn(k->warnings, k->e,
                         "terminationGracePeriodSeconds is %lld now: the sidecar may need that long",
                         (long long)needed);
    return rc < 0 ? rc : add_op(k, "/spec/terminationGracePeriodSeconds", json_integer(needed));
}

static int look_at_host(struct patcher *k)
{
    const json_t *spec = spec_of(k->pod);
    const char *os = json_string_value(json_object_get(json_object_get(spec, "os"), "name"));
    if (os && strcmp(os, "linux") != 0)
        problems_add(k->p, "#/spec/os", "the sidecar runs on Linux alone");
    if (!json_is_true(json_object_get(spec, "hostNetwork")))
        return 0;
    return inject_warn(k->warnings, k->e,
                       "hostNetwork: everything on the node reaches the sidecar's API on localhost");
}

static bool has_container(const json_t *pod, const char *name)
{
    return has_name(json_object_get(spec_of(pod), "initContainers"), name) ||
           has_name(json_object_get(spec_of(pod), "containers"), name);
}

int inject_pod_patch(const struct inject_template *t, const json_t *pod, const struct inject_wish *w,
                     json_t *ops, struct problems *p, json_t *warnings, struct err *e)
{
    const json_t *part = inject_template_role(t, w->role ? w->role : "client");
    struct patcher k = {.part = part, .pod = pod, .w = w, .ops = ops, .p = p, .warnings = warnings, .e = e};
    const char *name = json_string_value(json_object_get(inject_part_container(part), "name"));
    if (has_container(pod, name))
        return w->injected
                   ? 0
                   : inject_warn(warnings, e, "there is a container named '%s' already: nothing was injected",
                                 name);
    int rc = look_at_host(&k);
    if (rc == 0)
        rc = add_op(&k, "/metadata/annotations/carillon~1injected", json_string(version_text()));
    if (rc == 0)
        rc = add_container(&k);
    if (rc == 0)
        rc = add_volumes(&k);
    return rc < 0 ? rc : raise_grace(&k);
}
