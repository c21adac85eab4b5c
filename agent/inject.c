#include "agent/inject.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/inject_private.h"

#define API_VERSION       "admission.k8s.io/v1"
#define UID_BYTES_MAX     255
#define WARNING_BYTES_MAX 256 /* Kubernetes cuts longer ones */
#define PATCH_BYTES_MAX   ((size_t)4 << 20)

/* --- the template -------------------------------------------------------------------------------------------------- */

const json_t *inject_template_role(const struct inject_template *t, const char *role)
{
    return json_object_get(t->roles, role);
}

const json_t *inject_part_container(const json_t *part)
{
    return json_array_get(json_object_get(part, "initContainers"), 0);
}

/* What the patch relies on; that the whole is a pod's spec is for Kubernetes to say. */
static void check_part(const json_t *part, const char *role, struct problems *p)
{
    struct json_at at_role = json_at_key(NULL, role), at_list = json_at_key(&at_role, "initContainers");
    struct json_at at_volumes = json_at_key(&at_role, "volumes"), at = json_at_index(&at_list, 0);
    const char *name;
    int64_t grace;
    size_t i;
    const json_t *volume, *volumes;
    if (!json_expect_object(part, &at_role, p))
        return;
    if (json_array_size(json_object_get(part, "initContainers")) != 1)
        json_problem(p, &at_list, NULL, "must be a list of one container");
    else if (json_expect_object(inject_part_container(part), &at, p)) {
        const json_t *container = inject_part_container(part);
        if (json_require(container, "name", &at, p))
            (void)json_field_string(container, "name", 1, 63, &name, NULL, &at, p); /* tells P */
        if (!json_is_array(json_object_get(container, "args")))
            json_problem(p, &at, "args", "must be a list");
    }
    volumes = json_field_array(part, "volumes", 100, &at_role, p);
    json_array_foreach(volumes, i, volume) if (!json_is_string(json_object_get(volume, "name")))
        json_problem(p, &at_volumes, NULL, "volume %zu has no name", i);
    (void)json_field_int(part, "terminationGracePeriodSeconds", 0, 86400, &grace, &at_role, p); /* tells P */
}

int inject_template_read(const char *text, size_t len, struct inject_template **ret, struct err *e)
{
    AUTO(problems_fini) struct problems p = {0};
    AUTO(inject_template_free) struct inject_template *t = mem_new(struct inject_template);
    const char *role;
    json_t *part;
    int rc = json_read(text, len, INJECT_TEMPLATE_BYTES_MAX, &t->roles, e);
    if (rc < 0)
        return err_wrap(e, "sidecar");
    if (!json_is_object(t->roles) || !json_object_get(t->roles, "client"))
        return err_set(e, ERR_INVALID, "sidecar: must be an object with \"client\"");
    json_object_foreach(t->roles, role, part)
    {
        check_part(part, role, &p);
    }
    rc = problems_check(&p, e);
    if (rc < 0)
        return err_wrap(e, "sidecar");
    *ret = TAKE(t);
    return 0;
}

void inject_template_free(struct inject_template *t)
{
    if (!t)
        return;
    json_decref(t->roles);
    mem_free(t);
}

/* --- the review ---------------------------------------------------------------------------------------------------- */

struct review {
    struct inject_template *t;
    const char *uid;
    const json_t *request, *pod;
    json_t *ops, *warnings;
    struct problems problems;
    struct inject_verdict *verdict;
    struct err *e;
};

void inject_cut(char *text, size_t max)
{
    size_t len = strlen(text);
    len = len < max ? len : max;
    while (len > 0 && !text_utf8_valid(text, len))
        len--;
    text[len] = '\0';
}

int inject_warn(json_t *warnings, struct err *e, const char *fmt, ...)
{
    char text[WARNING_BYTES_MAX * 2];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap); /* cut when too long */
    va_end(ap);
    inject_cut(text, WARNING_BYTES_MAX);
    if (json_array_size(warnings) >= INJECT_WARNINGS_MAX)
        return 0;
    return json_array_append_new(warnings, json_string(text)) < 0
               ? err_set(e, ERR_NOMEM, "out of memory for a warning")
               : 0;
}

static bool is_text(const json_t *object, const char *key, const char *wanted)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && strcmp(text, wanted) == 0;
}

/* Without these there is nobody to answer. */
static int read_envelope(struct review *v, const json_t *doc, struct err *e)
{
    struct problems p = {0};
    struct json_at at = json_at_key(NULL, "request");
    if (!is_text(doc, "kind", "AdmissionReview") || !is_text(doc, "apiVersion", API_VERSION))
        return err_set(e, ERR_INVALID, "this is no AdmissionReview of " API_VERSION);
    v->request = json_object_get(doc, "request");
    if (json_expect_object(v->request, &at, &p) && json_require(v->request, "uid", &at, &p))
        (void)json_field_string(v->request, "uid", 1, UID_BYTES_MAX, &v->uid, NULL, &at, &p); /* tells P */
    int rc = problems_check(&p, e);
    problems_fini(&p);
    return rc;
}

static void copy_name(char out[INJECT_NAME_SIZE], const json_t *object, const char *key, const char *other)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || !*text)
        text = other ? json_string_value(json_object_get(object, other)) : NULL;
    (void)snprintf(out, INJECT_NAME_SIZE, "%s", text ? text : ""); /* cut when too long */
}

/* Whether it is about a pod that is to be made. */
static bool is_new_pod(const struct review *v)
{
    const json_t *kind = json_object_get(v->request, "kind"),
                 *sub = json_object_get(v->request, "subResource");
    return is_text(v->request, "operation", "CREATE") && is_text(kind, "kind", "Pod") &&
           is_text(kind, "group", "") &&
           (!sub || json_is_null(sub) || is_text(v->request, "subResource", ""));
}

static void expect_list(struct review *v, const json_t *spec, const struct json_at *at, const char *key)
{
    const json_t *list = json_object_get(spec, key);
    size_t i;
    const json_t *item;
    if (list && !json_is_null(list) && !json_is_array(list))
        json_problem(&v->problems, at, key, "must be a list");
    json_array_foreach(list, i, item) if (!json_is_object(item))
        json_problem(&v->problems, at, key, "item %zu must be an object", i);
}

/* Kubernetes has read the pod already, so this is for others. */
static bool is_sound(struct review *v)
{
    struct json_at at_request = json_at_key(NULL, "request"), at = json_at_key(&at_request, "object");
    struct json_at at_spec = json_at_key(&at, "spec"), at_meta = json_at_key(&at, "metadata");
    const json_t *spec = json_object_get(v->pod, "spec"), *meta = json_object_get(v->pod, "metadata");
    if (!json_expect_object(v->pod, &at, &v->problems) || !json_expect_object(spec, &at_spec, &v->problems) ||
        !json_expect_object(meta, &at_meta, &v->problems))
        return false;
    (void)json_field_object(meta, "annotations", &at_meta, &v->problems); /* tells problems */
    expect_list(v, spec, &at_spec, "initContainers");
    expect_list(v, spec, &at_spec, "containers");
    expect_list(v, spec, &at_spec, "volumes");
    return !problems_any(&v->problems);
}

static int decide(struct review *v)
{
    struct inject_wish w = {0};
    int rc = 0;
    v->pod = json_object_get(v->request, "object");
    if (!is_new_pod(v) || !is_sound(v))
        return 0;
    copy_name(v->verdict->pod, json_object_get(v->pod, "metadata"), "name", "generateName");
    rc = inject_wish_read(v->t, v->pod, &w, &v->problems, v->warnings, v->e);
    if (rc == 0 && w.inject && !problems_any(&v->problems))
        rc = inject_pod_patch(v->t, v->pod, &w, v->ops, &v->problems, v->warnings, v->e);
    inject_wish_fini(&w);
    return rc;
}

/* --- the response -------------------------------------------------------------------------------------------------- */

static void say_why(const struct review *v, char *out, size_t size)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < v->problems.count && at < size - 1; i++) {
        int n = snprintf(out + at, size - at, "%s%s", i ? "; " : "", v->problems.items[i].detail);
        at += n > 0 ? (size_t)n : 0;
    }
    inject_cut(out, size);
}

static int set_status(const struct review *v, json_t *response, struct err *e)
{
    char why[2000];
    json_t *status = json_object();
    say_why(v, why, sizeof(why));
    int rc = json_set(status, "code", json_integer(400), e);
    if (rc == 0)
        rc = json_set(status, "reason", json_string("BadRequest"), e);
    if (rc == 0)
        rc = json_set(status, "message", json_string(why), e);
    if (rc < 0) {
        json_decref(status);
        return rc;
    }
    return json_set(response, "status", status, e);
}

static int set_patch(const struct review *v, json_t *response, struct err *e)
{
    AUTO(buf_fini) struct buf patch = BUF_INIT(PATCH_BYTES_MAX);
    AUTO(buf_fini) struct buf text = BUF_INIT(PATCH_BYTES_MAX * 2);
    int rc = json_print_ordered(v->ops, &patch, e);
    if (rc < 0)
        return rc;
    text_base64_encode(&text, buf_str(&patch), patch.len);
    rc = buf_check(&text, e);
    if (rc == 0)
        rc = json_set(response, "patchType", json_string("JSONPatch"), e);
    if (rc == 0)
        rc = json_set(response, "patch", json_string(buf_str(&text)), e);
    return rc;
}

static int fill_response(const struct review *v, json_t *response, struct err *e)
{
    enum inject_result result = v->verdict->result;
    int rc = json_set(response, "uid", json_string(v->uid), e);
    if (rc == 0)
        rc = json_set(response, "allowed", json_boolean(result != INJECT_REFUSED), e);
    if (rc == 0 && result == INJECT_REFUSED)
        rc = set_status(v, response, e);
    if (rc == 0 && result == INJECT_PATCHED)
        rc = set_patch(v, response, e);
    if (rc == 0 && json_array_size(v->warnings) > 0)
        rc = json_set(response, "warnings", json_incref(v->warnings), e);
    return rc;
}

static int print_answer(const struct review *v, struct buf *out, struct err *e)
{
    json_t *doc = json_object(), *response = json_object();
    int rc = fill_response(v, response, e);
    if (rc == 0)
        rc = json_set(doc, "apiVersion", json_string(API_VERSION), e);
    if (rc == 0)
        rc = json_set(doc, "kind", json_string("AdmissionReview"), e);
    if (rc == 0)
        rc = json_set(doc, "response", json_incref(response), e);
    if (rc == 0)
        rc = json_print_ordered(doc, out, e);
    json_decref(response);
    json_decref(doc);
    return rc;
}

static int conclude(struct review *v, struct buf *out, struct err *e)
{
    struct inject_verdict *verdict = v->verdict;
    if (v->problems.nomem)
        return err_set(e, ERR_NOMEM, "out of memory for what is wrong with a pod");
    verdict->result = problems_any(&v->problems)    ? INJECT_REFUSED
                      : json_array_size(v->ops) > 0 ? INJECT_PATCHED
                                                    : INJECT_UNCHANGED;
    say_why(v, verdict->why, sizeof(verdict->why));
    if (!verdict->why[0] && json_array_size(v->warnings) > 0)
        (void)snprintf(verdict->why, sizeof(verdict->why), "%s",
                       json_string_value(json_array_get(v->warnings, 0))); /* cut when too long */
    return print_answer(v, out, e);
}

int inject_review(struct inject_template *t, const char *body, size_t len, struct buf *out,
                  struct inject_verdict *ret, struct err *e)
{
    struct inject_verdict verdict = {0};
    struct review v = {.t = t, .verdict = &verdict, .e = e};
    json_t *doc = NULL;
    int rc = json_read(body, len, INJECT_REVIEW_BYTES_MAX, &doc, e);
    if (rc == 0)
        rc = read_envelope(&v, doc, e);
    if (rc == 0) {
        v.ops = json_array();
        v.warnings = json_array();
        rc = v.ops && v.warnings ? 0 : err_set(e, ERR_NOMEM, "out of memory for a review");
    }
    if (rc == 0) {
        copy_name(verdict.ns, v.request, "namespace", NULL);
        rc = decide(&v);
    }
    if (rc == 0)
        rc = conclude(&v, out, e);
    if (rc == 0)
        *ret = verdict;
    json_decref(v.ops);
    json_decref(v.warnings);
    problems_fini(&v.problems);
    json_decref(doc);
    return rc;
}
