/* A body as somebody sent it to the admission webhook, then the same bytes as the sidecar's file, and as one annotation's value of a pod
 * that asks: whatever it is, there is an answer that is a review again, or an error; a patch is a list of additions. */
#include <assert.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/inject.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OUT_MAX ((size_t)4 << 20)

static const char sidecar[] =
    "{\"client\": {\"initContainers\": [{\"name\": \"carillon\", \"image\": \"c\", \"args\": [\"agent\"]}],"
    " \"volumes\": [{\"name\": \"carillon-data\"}], \"terminationGracePeriodSeconds\": 30}}";

static void check_patch(const char *text)
{
    AUTO(buf_fini) struct buf patch = BUF_INIT(OUT_MAX);
    json_t *ops = NULL, *op;
    size_t i;
    assert(text_base64_decode(&patch, text, strlen(text), NULL) == 0);
    assert(json_read(buf_str(&patch), patch.len, OUT_MAX, &ops, NULL) == 0 && json_array_size(ops) > 0);
    json_array_foreach(ops, i, op)
    {
        assert(strcmp(json_string_value(json_object_get(op, "op")), "add") == 0);
        assert(json_string_value(json_object_get(op, "path"))[0] == '/' && json_object_get(op, "value"));
    }
    json_decref(ops);
}

static void ask(struct inject_template *t, const char *body, size_t len)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(OUT_MAX * 4);
    struct inject_verdict v = {.result = INJECT_COUNT_};
    struct err e = {0};
    json_t *doc = NULL;
    int rc = inject_review(t, body, len, &out, &v, &e);
    assert((rc == 0) == (v.result != INJECT_COUNT_));
    if (rc < 0) {
        assert(e.text[0] != '\0');
        return;
    }
    assert(json_read(buf_str(&out), out.len, OUT_MAX * 4, &doc, NULL) == 0);
    const json_t *response = json_object_get(doc, "response");
    const char *patch = json_string_value(json_object_get(response, "patch"));
    assert(json_is_true(json_object_get(response, "allowed")) == (v.result != INJECT_REFUSED));
    assert((patch != NULL) == (v.result == INJECT_PATCHED));
    assert((json_object_get(response, "status") != NULL) == (v.result == INJECT_REFUSED));
    if (patch)
        check_patch(patch);
    json_decref(doc);
}

/* The first byte chooses the annotation. */
static void annotation(struct inject_template *t, const char *text, size_t len)
{
    static const char *const names[] = {"inject", "role",      "service", "port",
                                        "image",  "resources", "set",     "other"};
    AUTO(buf_fini) struct buf body = BUF_INIT(OUT_MAX);
    if (len == 0)
        return;
    buf_addf(
        &body,
        "{\"apiVersion\": \"admission.k8s.io/v1\", \"kind\": \"AdmissionReview\", \"request\": {\"uid\": \"u\","
        " \"kind\": {\"group\": \"\", \"kind\": \"Pod\"}, \"operation\": \"CREATE\", \"object\": {\"metadata\": {"
        "\"annotations\": {\"carillon/%s\": ",
        names[(unsigned char)text[0] % 8]);
    json_print_string(&body, text + 1, len - 1);
    buf_add_str(&body, (unsigned char)text[0] % 8 ? ", \"carillon/inject\": \"true\"" : "");
    buf_add_str(&body, "}}, \"spec\": {\"containers\": []}}}}");
    if (!buf_failed(&body))
        ask(t, buf_str(&body), body.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(inject_template_free) struct inject_template *t = NULL, *odd = NULL;
    const char *text = (const char *)data;
    assert(inject_template_read(sidecar, sizeof(sidecar) - 1, &t, NULL) == 0);
    ask(t, text, size);
    annotation(t, text, size);
    assert((inject_template_read(text, size, &odd, NULL) == 0) == (odd != NULL));
    if (odd)
        annotation(odd, "`true", 5);
    return 0;
}
