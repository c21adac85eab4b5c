/* The admission webhook's answers, document in and document out. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/inject_private.h"

static const char sidecar[] =
    "{\"client\": {\"initContainers\": [{\"name\": \"carillon\", \"image\": \"carillon:1\", \"restartPolicy\": \"Always\","
    " \"args\": [\"agent\", \"--set=agent.role=client\"], \"resources\": {\"limits\": {\"memory\": \"1Gi\"}}}],"
    " \"volumes\": [{\"name\": \"carillon-data\", \"emptyDir\": {}}, {\"name\": \"carillon-cluster\"}],"
    " \"terminationGracePeriodSeconds\": 30},"
    " \"member\": {\"initContainers\": [{\"name\": \"carillon\", \"args\": [\"agent\"]}]}}";

static struct inject_template *template;
static struct buf answer;
static struct inject_verdict verdict;
static struct err e;
static json_t *response, *ops;

static void begin(void)
{
    buf_init(&answer, 1 << 20);
    cr_assert(zero(int, inject_template_read(sidecar, sizeof(sidecar) - 1, &template, &e)), "%s", e.text);
}

static void forget(void)
{
    json_decref(response);
    json_decref(ops);
    response = ops = NULL;
    buf_reset(&answer);
}

static void end(void)
{
    forget();
    buf_fini(&answer);
    inject_template_free(template);
}

TestSuite(inject, .init = begin, .fini = end, .timeout = 600);

/* The response, and the patch's operations if there is one. */
static void read_answer(void)
{
    AUTO(json_decref) json_t *doc = NULL;
    AUTO(buf_fini) struct buf patch = BUF_INIT(1 << 20);
    cr_assert(zero(int, json_read(buf_str(&answer), answer.len, 1 << 20, &doc, &e)), "%s", e.text);
    cr_assert(
        zero(int, strcmp(json_string_value(json_object_get(doc, "apiVersion")), "admission.k8s.io/v1")));
    cr_assert(zero(int, strcmp(json_string_value(json_object_get(doc, "kind")), "AdmissionReview")));
    response = json_incref(json_object_get(doc, "response"));
    cr_assert(zero(int, strcmp(json_string_value(json_object_get(response, "uid")), "u-1")));
    const char *text = json_string_value(json_object_get(response, "patch"));
    cr_assert(eq(int, text != NULL, verdict.result == INJECT_PATCHED));
    cr_assert(eq(int, json_is_true(json_object_get(response, "allowed")), verdict.result != INJECT_REFUSED));
    if (!text)
        return;
    cr_assert(zero(int, strcmp(json_string_value(json_object_get(response, "patchType")), "JSONPatch")));
    cr_assert(zero(int, text_base64_decode(&patch, text, strlen(text), &e)));
    cr_assert(zero(int, json_read(buf_str(&patch), patch.len, 1 << 20, &ops, &e)), "%s", e.text);
}

static int ask_as(const char *operation, const char *kind, const char *pod)
{
    AUTO(buf_fini) struct buf body = BUF_INIT(1 << 20);
    forget();
    buf_addf(
        &body,
        "{\"apiVersion\": \"admission.k8s.io/v1\", \"kind\": \"AdmissionReview\", \"request\": {\"uid\": \"u-1\","
        " \"kind\": {\"group\": \"\", \"version\": \"v1\", \"kind\": \"%s\"}, \"namespace\": \"prod\","
        " \"operation\": \"%s\", \"object\": %s}}",
        kind, operation, pod);
    int rc = inject_review(template, buf_str(&body), body.len, &answer, &verdict, &e);
    if (rc == 0)
        read_answer();
    return rc;
}

static void ask(const char *annotations, const char *spec)
{
    AUTO(buf_fini) struct buf pod = BUF_INIT(1 << 20);
    buf_addf(&pod, "{\"metadata\": {\"generateName\": \"app-\", \"annotations\": {%s}}, \"spec\": %s}",
             annotations, spec);
    cr_assert(zero(int, ask_as("CREATE", "Pod", buf_str(&pod))), "%s", e.text);
}

#define YES "\"carillon/inject\": \"true\""
#define APP "{\"containers\": [{\"name\": \"app\"}], \"volumes\": [{\"name\": \"own\"}]}"

/* The value of the operation at PATH; NULL: there is none. */
static json_t *added(const char *path)
{
    size_t i;
    json_t *op, *found = NULL;
    json_array_foreach(ops, i, op)
    {
        cr_assert(zero(int, strcmp(json_string_value(json_object_get(op, "op")), "add")));
        if (strcmp(json_string_value(json_object_get(op, "path")), path) == 0)
            found = json_object_get(op, "value");
    }
    return found;
}

static const char *arg(const json_t *container, size_t i)
{
    const char *text = json_string_value(json_array_get(json_object_get(container, "args"), i));
    return text ? text : "";
}

static const char *warning(void)
{
    const char *text = json_string_value(json_array_get(json_object_get(response, "warnings"), 0));
    return text ? text : "";
}

static const char *message(void)
{
    const char *text = json_string_value(json_object_get(json_object_get(response, "status"), "message"));
    return text ? text : "";
}

Test(inject, a_pod_that_does_not_ask_is_left_as_it_is)
{
    static const char *const quiet[] = {"", "\"a\": \"b\"", "\"carillon/inject\": \"false\"",
                                        "\"carillon/port\": \"x\"",
                                        "\"carillon/inject\": \"false\", \"carillon/port\": \"80\""};
    for (size_t i = 0; i < sizeof(quiet) / sizeof(quiet[0]); i++) {
        ask(quiet[i], APP);
        cr_assert(eq(int, verdict.result, INJECT_UNCHANGED), "%s", quiet[i]);
        cr_assert(zero(ptr, json_object_get(response, "warnings")));
    }
    cr_assert(zero(int, ask_as("CREATE", "Pod", "{\"metadata\": {}, \"spec\": {}}")));
    cr_assert(eq(int, verdict.result, INJECT_UNCHANGED));
}

Test(inject, a_pod_that_asks_gets_container_volumes_and_mark)
{
    ask(YES, APP);
    cr_assert(eq(int, verdict.result, INJECT_PATCHED));
    cr_assert(zero(int, strcmp(verdict.ns, "prod")));
    cr_assert(zero(int, strcmp(verdict.pod, "app-")));
    json_t *container = json_array_get(added("/spec/initContainers"), 0);
    cr_assert(zero(int, strcmp(json_string_value(json_object_get(container, "image")), "carillon:1")));
    cr_assert(eq(sz, json_array_size(json_object_get(container, "args")), 2));
    cr_assert(ne(ptr, added("/metadata/annotations/carillon~1injected"), NULL));
    cr_assert(ne(ptr, added("/spec/volumes/-"), NULL));
    cr_assert(eq(sz, json_array_size(ops), 4));
}

Test(inject, the_sidecar_stands_before_other_init_containers)
{
    ask(YES, "{\"initContainers\": [{\"name\": \"migrate\"}], \"containers\": [{\"name\": \"app\"}]}");
    cr_assert(zero(int, strcmp(json_string_value(json_object_get(added("/spec/initContainers/0"), "name")),
                               "carillon")));
    cr_assert(eq(sz, json_array_size(added("/spec/volumes")), 2), "the pod had none");
}

Test(inject, what_annotations_say_is_in_the_container)
{
    ask(YES
        ", \"carillon/service\": \"billing\", \"carillon/port\": \"8080\", \"carillon/image\": \"r.example:5000/c@sha256:ab\","
        " \"carillon/resources\": \"{\\\"requests\\\": {\\\"cpu\\\": \\\"50m\\\", \\\"memory\\\": 1000}}\","
        " \"carillon/set\": \"log.level=debug\\n\\n  cluster.listen=$(POD_IP):7421\\n\"",
        APP);
    cr_assert(eq(int, verdict.result, INJECT_PATCHED), "%s", verdict.why);
    json_t *container = json_array_get(added("/spec/initContainers"), 0);
    static const char *const args[] = {"agent",
                                       "--set=agent.role=client",
                                       "--set=app.service=billing",
                                       "--set=app.port=8080",
                                       "--set=log.level=debug",
                                       "--set=cluster.listen=$(POD_IP):7421"};
    for (size_t i = 0; i < sizeof(args) / sizeof(args[0]); i++)
        cr_assert(zero(int, strcmp(arg(container, i), args[i])), "%s, not %s", arg(container, i), args[i]);
    cr_assert(zero(
        int, strcmp(json_string_value(json_object_get(container, "image")), "r.example:5000/c@sha256:ab")));
    json_t *resources = json_object_get(container, "resources");
    cr_assert(ne(ptr, json_object_get(json_object_get(resources, "requests"), "cpu"), NULL));
    cr_assert(zero(ptr, json_object_get(resources, "limits")));
}

Test(inject, one_pods_annotations_do_not_show_in_the_next)
{
    ask(YES ", \"carillon/service\": \"billing\"", APP);
    ask(YES, APP);
    json_t *container = json_array_get(added("/spec/initContainers"), 0);
    cr_assert(eq(sz, json_array_size(json_object_get(container, "args")), 2));
}

Test(inject, a_role_has_its_own_container)
{
    ask(YES ", \"carillon/role\": \"member\"", APP);
    json_t *container = json_array_get(added("/spec/initContainers"), 0);
    cr_assert(eq(sz, json_array_size(json_object_get(container, "args")), 1));
    cr_assert(eq(sz, json_array_size(ops), 2), "no volumes");
}

Test(inject, a_wrong_annotation_is_refused_with_what_is_wrong)
{
    static const struct {
        const char *annotations, *why;
    } cases[] = {
        {"\"carillon/inject\": \"yes\"", "carillon/inject: must be \"true\" or \"false\", not \"yes\""},
        {"\"carillon/inject\": true", "carillon/inject: must be a text"},
        {YES ", \"carillon/role\": \"boss\"",
         "carillon/role: there is no sidecar of role \"boss\" here, but client, member"},
        {YES ", \"carillon/service\": \"a b\"", "carillon/service: "},
        {YES ", \"carillon/service\": \"\"", "carillon/service: is empty"},
        {YES ", \"carillon/port\": \"0\"", "carillon/port: "},
        {YES ", \"carillon/port\": \"http\"", "carillon/port: "},
        {YES ", \"carillon/port\": \"65536\"", "carillon/port: "},
        {YES ", \"carillon/image\": \"\"", "carillon/image: "},
        {YES ", \"carillon/image\": \"a b\"", "carillon/image: \"a b\" is no image"},
        {YES ", \"carillon/image\": \"-a\"", "carillon/image: "},
        {YES ", \"carillon/resources\": \"{\"", "carillon/resources: must be JSON"},
        {YES ", \"carillon/resources\": \"[]\"", "carillon/resources: must be JSON"},
        {YES ", \"carillon/resources\": \"{\\\"claims\\\": []}\"",
         "\"claims\" is not known; allowed are requests and limits"},
        {YES ", \"carillon/resources\": \"{\\\"limits\\\": 1}\"", "limits must be an object"},
        {YES ", \"carillon/resources\": \"{\\\"limits\\\": {\\\"cpus\\\": \\\"1\\\"}}\"",
         "\"cpus\" is none of cpu"},
        {YES ", \"carillon/resources\": \"{\\\"limits\\\": {\\\"cpu\\\": \\\"1 core\\\"}}\"",
         "cpu is no quantity"},
        {YES ", \"carillon/resources\": \"{\\\"limits\\\": {\\\"cpu\\\": -1}}\"", "cpu is no quantity"},
        {YES ", \"carillon/set\": \"log.level\"", "carillon/set: \"log.level\" is not section.key=value"},
        {YES ", \"carillon/set\": \"log.level=loud\"", "log.level"},
        {YES ", \"carillon/set\": \"log.levle=info\"", "log.levle"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ask(cases[i].annotations, APP);
        cr_assert(eq(int, verdict.result, INJECT_REFUSED), "%s", cases[i].annotations);
        cr_assert(ne(ptr, strstr(message(), cases[i].why), NULL), "'%s' is not in '%s'", cases[i].why,
                  message());
        cr_assert(eq(
            int, (int)json_integer_value(json_object_get(json_object_get(response, "status"), "code")), 400));
        cr_assert(zero(ptr, json_object_get(response, "patch")));
    }
}

Test(inject, everything_that_is_wrong_is_said_at_once)
{
    ask(YES ", \"carillon/port\": \"x\", \"carillon/image\": \"\"", APP);
    cr_assert(ne(ptr, strstr(message(), "carillon/port"), NULL));
    cr_assert(ne(ptr, strstr(message(), "carillon/image"), NULL), "%s", message());
}

Test(inject, quantities_are_those_of_kubernetes)
{
    static const char *const good[] = {"1", "100m", "1.5", ".5", "2.", "64Mi", "1e3", "1E-3", "12E", "5k"};
    static const char *const bad[] = {"", "m", "1e", "1mi", "1 Mi", "+-1", "1e3Mi", "0x1", "1,5", "."};
    char text[200];
    for (size_t i = 0; i < 10; i++) {
        snprintf(text, sizeof text,
                 YES ", \"carillon/resources\": \"{\\\"limits\\\": {\\\"cpu\\\": \\\"%s\\\"}}\"", good[i]);
        ask(text, APP);
        cr_assert(eq(int, verdict.result, INJECT_PATCHED), "%s", good[i]);
        snprintf(text, sizeof text,
                 YES ", \"carillon/resources\": \"{\\\"limits\\\": {\\\"cpu\\\": \\\"%s\\\"}}\"", bad[i]);
        ask(text, APP);
        cr_assert(eq(int, verdict.result, INJECT_REFUSED), "%s", bad[i]);
    }
}

Test(inject, an_unknown_annotation_of_ours_is_a_warning)
{
    ask(YES ", \"carillon/prot\": \"80\"", APP);
    cr_assert(eq(int, verdict.result, INJECT_PATCHED));
    cr_assert(zero(int, strcmp(warning(), "annotation carillon/prot is not known; is it carillon/port")),
              "%s", warning());
}

Test(inject, asked_again_it_changes_nothing)
{
    ask(YES ", \"carillon/injected\": \"0.1.0\"",
        "{\"initContainers\": [{\"name\": \"carillon\"}], \"containers\": []}");
    cr_assert(eq(int, verdict.result, INJECT_UNCHANGED));
    cr_assert(zero(ptr, json_object_get(response, "warnings")));
    ask(YES, "{\"containers\": [{\"name\": \"carillon\"}]}");
    cr_assert(eq(int, verdict.result, INJECT_UNCHANGED));
    cr_assert(ne(ptr, strstr(warning(), "a container named 'carillon' already"), NULL));
}

Test(inject, a_copied_mark_without_the_container_does_not_keep_it_out)
{
    ask(YES ", \"carillon/injected\": \"0.1.0\"", APP);
    cr_assert(eq(int, verdict.result, INJECT_PATCHED));
}

Test(inject, a_pod_that_the_sidecar_does_not_fit_is_refused)
{
    ask(YES, "{\"containers\": [], \"volumes\": [{\"name\": \"carillon-cluster\"}]}");
    cr_assert(eq(int, verdict.result, INJECT_REFUSED));
    cr_assert(ne(ptr, strstr(message(), "a volume named 'carillon-cluster' of its own"), NULL), "%s",
              message());
    ask(YES, "{\"containers\": [], \"os\": {\"name\": \"windows\"}}");
    cr_assert(eq(int, verdict.result, INJECT_REFUSED));
}

Test(inject, the_pod_has_the_time_that_the_sidecar_needs_to_end)
{
    ask(YES, "{\"containers\": [], \"terminationGracePeriodSeconds\": 5}");
    cr_assert(eq(int, (int)json_integer_value(added("/spec/terminationGracePeriodSeconds")), 30));
    cr_assert(ne(ptr, strstr(warning(), "terminationGracePeriodSeconds is 30"), NULL));
    ask(YES, "{\"containers\": [], \"terminationGracePeriodSeconds\": 60}");
    cr_assert(zero(ptr, added("/spec/terminationGracePeriodSeconds")));
    ask(YES, "{\"containers\": []}");
    cr_assert(zero(ptr, added("/spec/terminationGracePeriodSeconds")), "Kubernetes' default is enough");
}

Test(inject, the_hosts_network_is_warned_of)
{
    ask(YES, "{\"containers\": [], \"hostNetwork\": true}");
    cr_assert(eq(int, verdict.result, INJECT_PATCHED));
    cr_assert(ne(ptr, strstr(warning(), "hostNetwork"), NULL));
}

Test(inject, what_is_no_new_pod_is_left_as_it_is)
{
    static const char pod[] = "{\"metadata\": {\"annotations\": {" YES "}}, \"spec\": " APP "}";
    cr_assert(zero(int, ask_as("UPDATE", "Pod", pod)));
    cr_assert(eq(int, verdict.result, INJECT_UNCHANGED));
    cr_assert(zero(int, ask_as("DELETE", "Pod", "null")));
    cr_assert(eq(int, verdict.result, INJECT_UNCHANGED));
    cr_assert(zero(int, ask_as("CREATE", "Deployment", pod)));
    cr_assert(eq(int, verdict.result, INJECT_UNCHANGED));
}

Test(inject, an_object_that_is_no_pod_is_refused)
{
    static const char *const odd[] = {
        "null",
        "[]",
        "{}",
        "{\"metadata\": {}}",
        "{\"metadata\": [], \"spec\": {}}",
        "{\"metadata\": {\"annotations\": []}, \"spec\": {}}",
        "{\"metadata\": {}, \"spec\": {\"containers\": {}}}",
        "{\"metadata\": {}, \"spec\": {\"volumes\": [1]}}",
        "{\"metadata\": {}, \"spec\": {\"initContainers\": \"x\"}}",
    };
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        cr_assert(zero(int, ask_as("CREATE", "Pod", odd[i])), "%s", odd[i]);
        cr_assert(eq(int, verdict.result, INJECT_REFUSED), "%s", odd[i]);
        cr_assert(ne(str, (char *)(uintptr_t)message(), ""));
    }
}

Test(inject, what_is_no_review_has_no_answer)
{
    static const char *const odd[] = {
        "",
        "x",
        "[]",
        "null",
        "{}",
        "{\"kind\": \"AdmissionReview\"}",
        "{\"kind\": \"AdmissionReview\", \"apiVersion\": \"admission.k8s.io/v1beta1\", \"request\": {\"uid\": \"u\"}}",
        "{\"kind\": \"Pod\", \"apiVersion\": \"v1\"}",
        "{\"kind\": \"AdmissionReview\", \"apiVersion\": \"admission.k8s.io/v1\"}",
        "{\"kind\": \"AdmissionReview\", \"apiVersion\": \"admission.k8s.io/v1\", \"request\": []}",
        "{\"kind\": \"AdmissionReview\", \"apiVersion\": \"admission.k8s.io/v1\", \"request\": {}}",
        "{\"kind\": \"AdmissionReview\", \"apiVersion\": \"admission.k8s.io/v1\", \"request\": {\"uid\": 1}}",
        "{\"kind\": \"AdmissionReview\", \"apiVersion\": \"admission.k8s.io/v1\", \"request\": {\"uid\": \"\"}}",
    };
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        int rc = inject_review(template, odd[i], strlen(odd[i]), &answer, &verdict, &e);
        cr_assert(eq(int, rc, -ERR_INVALID), "%s", odd[i]);
        cr_assert(zero(sz, answer.len));
    }
}

Test(inject, a_template_that_cannot_serve_is_refused)
{
    static const char *const odd[] = {
        "",
        "[]",
        "{}",
        "{\"member\": {}}",
        "{\"client\": []}",
        "{\"client\": {}}",
        "{\"client\": {\"initContainers\": []}}",
        "{\"client\": {\"initContainers\": [{}]}}",
        "{\"client\": {\"initContainers\": [1]}}",
        "{\"client\": {\"initContainers\": [{\"name\": \"c\"}]}}",
        "{\"client\": {\"initContainers\": [{\"name\": \"c\", \"args\": []}, {}]}}",
        "{\"client\": {\"initContainers\": [{\"name\": \"c\", \"args\": []}], \"volumes\": [{}]}}",
        "{\"client\": {\"initContainers\": [{\"name\": \"c\", \"args\": []}], \"terminationGracePeriodSeconds\": \"x\"}}",
    };
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        struct inject_template *t = NULL;
        cr_assert(eq(int, inject_template_read(odd[i], strlen(odd[i]), &t, &e), -ERR_INVALID), "%s", odd[i]);
        cr_assert(zero(ptr, t));
    }
}

/* libjansson 2.14 walks past the end of a text for whose growth it found no memory: hence a document without
 * escapes here, one read beforehand below, and no template, whose words are long. */
Test(inject, every_failed_allocation_is_an_error_and_nothing_else)
{
    static const char body[] =
        "{\"apiVersion\": \"admission.k8s.io/v1\", \"kind\": \"AdmissionReview\", \"request\": {\"uid\": \"u-1\","
        " \"kind\": {\"group\": \"\", \"version\": \"v1\", \"kind\": \"Pod\"}, \"operation\": \"CREATE\","
        " \"object\": {\"metadata\": {\"annotations\": {" YES ", \"carillon/prot\": \"1\"}},"
        " \"spec\": {\"containers\": []}}}}";
    AUTO(buf_fini) struct buf whole = BUF_INIT(1 << 20);
    cr_assert(zero(int, inject_review(template, body, sizeof(body) - 1, &whole, &verdict, &e)), "%s", e.text);
    cr_assert(eq(int, verdict.result, INJECT_PATCHED), "%s", verdict.why);
    for (unsigned k = 0;; k++) {
        struct inject_verdict v = {.result = INJECT_COUNT_};
        buf_reset(&answer);
        fault_arm(k);
        int r = inject_review(template, body, sizeof(body) - 1, &answer, &v, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r), "%s", e.text);
            break;
        }
        cr_assert(zero(int, r == 0 && strcmp(buf_str(&answer), buf_str(&whole)) != 0), "k=%u: %s", k,
                  buf_str(&answer));
        cr_assert(eq(int, r < 0, v.result == INJECT_COUNT_), "k=%u", k);
    }
}

static int patch(json_t *pod, size_t *ret_ops)
{
    struct inject_wish w = {0};
    AUTO(problems_fini) struct problems p = {0};
    AUTO(json_decref) json_t *list = json_array(), *warnings = json_array();
    int r = list && warnings ? inject_wish_read(template, pod, &w, &p, warnings, &e) : -ERR_NOMEM;
    if (r == 0 && !problems_any(&p))
        r = inject_pod_patch(template, pod, &w, list, &p, warnings, &e);
    if (r == 0 && problems_any(&p))
        r = -ERR_INVALID;
    *ret_ops = json_array_size(list);
    inject_wish_fini(&w);
    return r;
}

Test(inject, a_patch_that_finds_no_memory_is_none)
{
    static const char text[] =
        "{\"metadata\": {\"annotations\": {" YES ", \"carillon/service\": \"s\", \"carillon/prot\": \"1\","
        " \"carillon/resources\": \"{\\\"limits\\\": {\\\"cpu\\\": 1}}\", \"carillon/set\": \"log.level=debug\"}},"
        " \"spec\": {\"hostNetwork\": true, \"terminationGracePeriodSeconds\": 1, \"containers\": [],"
        " \"initContainers\": [], \"volumes\": []}}";
    AUTO(json_decref) json_t *pod = NULL;
    size_t whole, count;
    cr_assert(zero(int, json_read(text, sizeof(text) - 1, 1 << 20, &pod, &e)), "%s", e.text);
    cr_assert(zero(int, patch(pod, &whole)), "%s", e.text);
    for (unsigned k = 0;; k++) {
        fault_arm(k);
        int r = patch(pod, &count);
        if (!fault_fired()) {
            cr_assert(zero(int, r), "%s", e.text);
            break;
        }
        cr_assert(zero(int, r == 0 && count != whole), "k=%u", k);
    }
}
