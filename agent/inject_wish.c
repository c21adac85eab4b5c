/* A pod's annotations: what may stand in them. */
#include <stdio.h>
#include <string.h>

#include "agent/base/option.h"
#include "agent/base/text.h"
#include "agent/config.h"
#include "agent/inject_private.h"

#define RESOURCES_BYTES_MAX 4096
#define IMAGE_BYTES_MAX     512
#define ALNUM               "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

struct reader {
    const struct inject_template *t;
    struct inject_wish *w;
    struct problems *p;
    const char *name; /* of the annotation */
    struct err *e;
};

/* A problem with the annotation under way. */
static void wrong(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void wrong(struct reader *r, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap); /* cut when too long */
    va_end(ap);
    inject_cut(text, sizeof(text));
    problems_add(r->p, "#/metadata/annotations", "annotation %s: %s", r->name, text);
}

static int nomem(struct reader *r)
{
    return err_set(r->e, ERR_NOMEM, "out of memory for a pod's annotations");
}

/* --- options ------------------------------------------------------------------------------------------------------- */

/* Kubernetes puts variables into arguments; what they will hold are addresses. */
static void expand(const char *text, struct buf *out)
{
    for (const char *at = text; *at;) {
        const char *end = at[0] == '$' && at[1] == '(' ? strchr(at, ')') : NULL;
        if (end)
            buf_add_str(out, "127.0.0.1");
        else
            buf_add_char(out, *at);
        at = end ? end + 1 : at + 1;
    }
}

/* SET is "section.key=value": whether the agent would take it. What options demand of each other is for the agent to say. */
static int check_option(struct reader *r, const char *set)
{
    AUTO(option_errors_fini) struct option_errors errors = {0};
    AUTO(buf_fini) struct buf text = BUF_INIT(RESOURCES_BYTES_MAX * 16);
    AUTO(mem_free) struct config *c = mem_try_alloc(sizeof(*c), r->e);
    struct err why = {0};
    if (!c)
        return -ERR_NOMEM;
    expand(set, &text);
    if (buf_check(&text, &why) == -ERR_NOMEM)
        return nomem(r);
    const char *one = buf_str(&text);
    struct option_sources sources = {.sets = &one, .sets_count = 1};
    int rc = buf_failed(&text) ? -ERR_TOO_BIG : option_fill(config_table(), &sources, c, &errors, &why);
    if (rc == 0)
        option_fini(config_table(), c);
    else if (rc == -ERR_NOMEM)
        return nomem(r);
    else
        wrong(r, "%s", why.text + (strncmp(why.text, "--set: ", 7) == 0 ? 7 : 0));
    return 0;
}

static int check_app(struct reader *r, const char *option, const char *value)
{
    AUTO(buf_fini) struct buf set = BUF_INIT(RESOURCES_BYTES_MAX);
    if (!*value) {
        wrong(r, "is empty");
        return 0;
    }
    buf_addf(&set, "%s=%s", option, value);
    if (buf_check(&set, NULL) == -ERR_NOMEM)
        return nomem(r);
    if (buf_failed(&set)) {
        wrong(r, "is too long");
        return 0;
    }
    return check_option(r, buf_str(&set));
}

/* --- one annotation each ------------------------------------------------------------------------------------------- */

static int read_inject(struct reader *r, const char *value)
{
    bool yes = strcmp(value, "true") == 0;
    r->w->asked = true;
    r->w->inject = yes;
    if (!yes && strcmp(value, "false") != 0)
        wrong(r, "must be \"true\" or \"false\", not \"%s\"", TEXTQ(value, strlen(value)));
    return 0;
}

static int read_mark(struct reader *r, const char *value)
{
    (void)value;
    r->w->injected = true;
    return 0;
}

static int read_role(struct reader *r, const char *value)
{
    AUTO(buf_fini) struct buf known = BUF_INIT(RESOURCES_BYTES_MAX);
    const char *role;
    json_t *part;
    r->w->role = value;
    if (inject_template_role(r->t, value))
        return 0;
    json_object_foreach(r->t->roles, role, part)
    {
        buf_addf(&known, "%s%s", known.len ? ", " : "", role);
    }
    wrong(r, "there is no sidecar of role \"%s\" here, but %s", TEXTQ(value, strlen(value)), buf_str(&known));
    return 0;
}

static int read_image(struct reader *r, const char *value)
{
    size_t len = strlen(value);
    r->w->image = value;
    if (len == 0 || len > IMAGE_BYTES_MAX || strspn(value, ALNUM "._-/:@") != len ||
        strspn(value, ALNUM "[") == 0)
        wrong(r, "\"%s\" is no image such as registry.example/carillon:0.1.0", TEXTQ(value, len));
    return 0;
}

static int read_service(struct reader *r, const char *value)
{
    r->w->service = value;
    return check_app(r, "app.service", value);
}

static int read_port(struct reader *r, const char *value)
{
    uint32_t port;
    struct err why;
    r->w->port = value;
    if (text_u32(value, strlen(value), 1, 65535, &port, &why) < 0)
        wrong(r, "%s", why.text);
    return 0;
}

/* As Kubernetes writes quantities: "100m", "64Mi", "1.5", "1e3". */
static bool is_quantity(const char *s)
{
    static const char *const units[] = {"",  "n", "u",  "m",  "k",  "M",  "G",  "T",
                                        "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    size_t whole = strspn(s, "0123456789"), part = s[whole] == '.' ? strspn(s + whole + 1, "0123456789") : 0;
    const char *unit = s + whole + (s[whole] == '.' ? part + 1 : 0);
    if (whole + part == 0 || strlen(s) > 40)
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(unit, units[i]) == 0)
            return true;
    if (*unit != 'e' && *unit != 'E')
        return false;
    unit += 1 + (unit[1] == '+' || unit[1] == '-');
    return *unit && unit[strspn(unit, "0123456789")] == '\0';
}

static bool is_resource(const char *name)
{
    return strcmp(name, "cpu") == 0 || strcmp(name, "memory") == 0 ||
           strcmp(name, "ephemeral-storage") == 0 || strncmp(name, "hugepages-", 10) == 0;
}

static void check_amounts(struct reader *r, const char *kind, const json_t *amounts)
{
    const char *name;
    json_t *amount;
    if (strcmp(kind, "requests") != 0 && strcmp(kind, "limits") != 0)
        wrong(r, "\"%s\" is not known; allowed are requests and limits", TEXTQ(kind, strlen(kind)));
    else if (!json_is_object(amounts))
        wrong(r, "%s must be an object such as {\"cpu\": \"100m\", \"memory\": \"64Mi\"}", kind);
    json_object_foreach((json_t *)amounts, name, amount)
    { /* read only */
        const char *text = json_string_value(amount);
        if (!is_resource(name))
            wrong(r, "%s: \"%s\" is none of cpu, memory, ephemeral-storage", kind, TEXTQ(name, strlen(name)));
        else if (!(json_is_integer(amount) && json_integer_value(amount) >= 0) &&
                 !(text && is_quantity(text)))
            wrong(r, "%s: %s is no quantity such as \"100m\" or \"64Mi\"", kind, name);
    }
}

static int read_resources(struct reader *r, const char *value)
{
    struct err why;
    const char *kind;
    json_t *amounts;
    int rc = json_read(value, strlen(value), RESOURCES_BYTES_MAX, &r->w->resources, &why);
    if (rc == -ERR_NOMEM)
        return nomem(r);
    if (rc < 0 || !json_is_object(r->w->resources)) {
        wrong(r, "must be JSON such as {\"requests\": {\"cpu\": \"100m\"}}%s%s", rc < 0 ? ": " : "",
              rc < 0 ? why.text : "");
        return 0;
    }
    json_object_foreach(r->w->resources, kind, amounts)
    {
        check_amounts(r, kind, amounts);
    }
    return 0;
}

static int read_set(struct reader *r, const char *line, size_t len)
{
    struct err why;
    AUTO(mem_free) char *set = mem_try_strndup(line, len, &why);
    if (!set)
        return nomem(r);
    if (!strchr(set, '=')) {
        wrong(r, "\"%s\" is not section.key=value", TEXTQ(set, len));
        return 0;
    }
    return json_array_append_new(r->w->sets, json_string(set)) < 0 ? nomem(r) : check_option(r, set);
}

/* One a line, as after --set. */
static int read_sets(struct reader *r, const char *value)
{
    int rc = 0;
    r->w->sets = json_array();
    if (!r->w->sets)
        return nomem(r);
    for (const char *at = value; rc == 0 && *at; at += strspn(at, "\n")) {
        at += strspn(at, " \t\r");
        size_t line = strcspn(at, "\n"), len = line;
        while (len > 0 && strchr(" \t\r", at[len - 1]))
            len--;
        if (json_array_size(r->w->sets) == INJECT_SETS_MAX) {
            wrong(r, "has more than %d lines", INJECT_SETS_MAX);
            return 0;
        }
        if (len > 0)
            rc = read_set(r, at, len);
        at += line;
    }
    return rc;
}

static const struct {
    const char *name;
    int (*read)(struct reader *r, const char *value);
} known[] = {
    {INJECT_PREFIX "inject", read_inject},   {INJECT_PREFIX "role", read_role},
    {INJECT_PREFIX "service", read_service}, {INJECT_PREFIX "port", read_port},
    {INJECT_PREFIX "image", read_image},     {INJECT_PREFIX "resources", read_resources},
    {INJECT_PREFIX "set", read_sets},        {INJECT_MARK, read_mark},
};
#define KNOWN_COUNT (sizeof(known) / sizeof(known[0]))

/* --- all of them --------------------------------------------------------------------------------------------------- */

static int warn_unknown(const char *name, json_t *warnings, struct err *e)
{
    const char *names[KNOWN_COUNT + 1] = {0};
    for (size_t i = 0; i < KNOWN_COUNT; i++)
        names[i] = known[i].name;
    const char *near = text_nearest(name, strlen(name), names);
    return inject_warn(warnings, e, "annotation %s is not known%s%s", TEXTQ(name, strlen(name)),
                       near ? "; is it " : "", near ? near : "");
}

static int read_one(struct reader *r, const char *name, const json_t *value, json_t *warnings)
{
    const char *text = json_string_value(value);
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        if (strcmp(known[i].name, name) != 0)
            continue;
        r->name = known[i].name;
        if (text && strlen(text) == json_string_length(value))
            return known[i].read(r, text);
        wrong(r, "must be a text");
        return 0;
    }
    return warn_unknown(name, warnings, r->e);
}

int inject_wish_read(const struct inject_template *t, const json_t *pod, struct inject_wish *w,
                     struct problems *p, json_t *warnings, struct err *e)
{
    struct reader r = {.t = t, .w = w, .p = p, .e = e};
    json_t *annotations = json_object_get(json_object_get(pod, "metadata"), "annotations"), *value;
    const char *name;
    int rc = 0;
    if (!json_object_get(annotations, INJECT_PREFIX "inject"))
        return 0; /* whatever else stands there is not for us */
    json_object_foreach(annotations, name, value)
    {
        if (rc == 0 && strncmp(name, INJECT_PREFIX, sizeof(INJECT_PREFIX) - 1) == 0)
            rc = read_one(&r, name, value, warnings);
    }
    return rc;
}

void inject_wish_fini(struct inject_wish *w)
{
    json_decref(w->resources);
    json_decref(w->sets);
}
