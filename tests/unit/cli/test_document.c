#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/cli/document.h"

static void expect_ids(const char *text, const char *ids)
{
    AUTO(json_decref) json_t *jobs = NULL;
    struct err e;
    AUTO(buf_fini) struct buf found = BUF_INIT(1000);
    cr_assert(zero(int, document_jobs("f", text, strlen(text), &jobs, &e)), "%s: %s", text, e.text);
    for (size_t i = 0; i < json_array_size(jobs); i++)
        buf_addf(&found, "%s ", json_string_value(json_object_get(json_array_get(jobs, i), "id")));
    cr_assert(eq(str, (char *)buf_str(&found), (char *)ids));
}

Test(document, jobs_are_found_in_every_form)
{
    expect_ids("{\"id\":\"a\"}", "a ");
    expect_ids(" [{\"id\":\"a\"},\t{\"id\":\"b\"}]\n", "a b ");
    expect_ids("{\"jobs\":[{\"id\":\"a\"}],\"next_cursor\":null}", "a ");
    expect_ids("id: a\nschedule: '@daily'\n", "a ");
    expect_ids("---\nid: a\n---\nid: b\n---\n- id: c\n- id: d\n", "a b c d ");
    expect_ids("jobs:\n  - id: a\n", "a ");
    expect_ids("{id: a, schedule: '@daily'}\n", "a ");
    expect_ids("---\n{\"id\":\"a\"}\n---\n{\"id\":\"b\"}\n", "a b ");
}

Test(document, yaml_types_become_json_types)
{
    const char *text = "id: a\nmax_fires: 3\npaused: true\nretry: {factor: 1.5}\nschedule: 0 9 * * *\n";
    AUTO(json_decref) json_t *jobs = NULL;
    cr_assert(zero(int, document_jobs("f", text, strlen(text), &jobs, NULL)));
    AUTO(buf_fini) struct buf out = BUF_INIT(1000);
    cr_assert(zero(int, json_print(json_array_get(jobs, 0), &out, NULL)));
    cr_assert(eq(
        str, (char *)buf_str(&out),
        "{\"id\":\"a\",\"max_fires\":3,\"paused\":true,\"retry\":{\"factor\":1.5},\"schedule\":\"0 9 * * *\"}"));
}

Test(document, what_is_no_job_is_refused_by_name)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "f: holds no job"},
        {"[]", "f: holds no job"},
        {"# nothing\n", "f: holds no job"},
        {"[1]", "f: job 1 is no object"},
        {"- id: a\n- b\n", "f: job 2 is no object"},
        {"just text\n", "f: job 1 is no object"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *jobs = NULL;
        struct err e;
        cr_assert(eq(int, document_jobs("f", cases[i].text, strlen(cases[i].text), &jobs, &e), -ERR_INVALID));
        cr_assert(eq(str, e.text, (char *)cases[i].error));
        cr_assert(jobs == NULL);
    }
    struct err e;
    json_t *jobs = NULL;
    cr_assert(eq(int, document_jobs("f", "{\"id\":", 6, &jobs, &e), -ERR_INVALID));
    cr_assert(strncmp(e.text, "f: ", 3) == 0, "%s", e.text);
    cr_assert(eq(int, document_jobs("f", "a\0b", 3, &jobs, &e), -ERR_INVALID));
    cr_assert(eq(str, e.text, "f: contains a NUL"));
}

Test(document, every_failure_is_clean)
{
    const char *const texts[] = {"[{\"id\":\"a\"},{\"id\":\"b\"}]", "---\nid: a\n---\n- id: b\n"};
    for (size_t t = 0; t < 2; t++) {
        for (unsigned k = 0;; k++) {
            json_t *jobs = NULL;
            struct err e = {0};
            fault_arm(k);
            int r = document_jobs("f", texts[t], strlen(texts[t]), &jobs, &e);
            if (!fault_fired()) {
                cr_assert(zero(int, r), "%s", e.text);
                cr_assert(eq(sz, json_array_size(jobs), 2));
                json_decref(jobs);
                break;
            }
            /* A fault in the JSON reader may be made up for by the YAML reader. */
            cr_assert(r < 0 || json_array_size(jobs) == 2, "k=%u", k);
            cr_assert(r == 0 || jobs == NULL, "k=%u", k);
            json_decref(jobs);
        }
    }
}
