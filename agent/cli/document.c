#include "agent/cli/document.h"

#include <errno.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/yaml_tree.h"
#include "agent/io/file.h"

static int read_stream(FILE *in, struct buf *out, struct err *e)
{
    char chunk[16384];
    size_t n;
    while ((n = fread(chunk, 1, sizeof(chunk), in)) > 0)
        buf_add(out, chunk, n);
    if (ferror(in))
        return err_sys(e, errno, "read standard input");
    return buf_check(out, e);
}

int document_read_file(const char *file, FILE *in, struct buf *out, struct err *e)
{
    return strcmp(file, "-") == 0 ? read_stream(in, out, e) : file_read(file, out, e);
}

static int add_job(json_t *jobs, json_t *job, struct err *e)
{
    if (!json_is_object(job))
        return err_set(e, ERR_INVALID, "job %zu is no object", json_array_size(jobs) + 1);
    if (json_array_size(jobs) == DOCUMENT_JOBS_MAX)
        return err_set(e, ERR_TOO_BIG, "more than %d jobs; `carillon job import` takes any number",
                       DOCUMENT_JOBS_MAX);
    return json_array_append(jobs, job) < 0 ? err_set(e, ERR_NOMEM, "out of memory for the jobs") : 0;
}

/* A document: a job, a list of jobs, or {"jobs": […]}. */
static int add_document(json_t *jobs, json_t *doc, struct err *e)
{
    json_t *list = json_is_array(doc) ? doc : json_object_get(doc, "jobs");
    if (!json_is_array(list))
        return add_job(jobs, doc, e);
    int r = 0;
    for (size_t i = 0; r == 0 && i < json_array_size(list); i++)
        r = add_job(jobs, json_array_get(list, i), e);
    return r;
}

static int add_yaml(json_t *jobs, const char *name, const char *text, size_t len, struct err *e)
{
    struct yaml_tree **trees = NULL;
    size_t count = 0;
    int r = yaml_tree_read_all(name, text, len, DOCUMENT_JOBS_MAX, &trees, &count, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++) {
        json_t *doc = NULL;
        if (r == 0)
            r = yaml_tree_to_json(trees[i], &doc, e);
        if (r == 0) {
            r = add_document(jobs, doc, e);
            if (r < 0)
                r = err_wrap(e, "%s", name);
        }
        json_decref(doc);
        yaml_tree_free(trees[i]);
    }
    mem_free(trees);
    return r;
}

/* JSON is read as such, for it may hold what YAML here does not take: large numbers, deep nesting, tabs. What begins like
 * JSON but is none may still be YAML's flow style, or several documents. */
static int add_text(json_t *jobs, const char *name, const char *text, size_t len, struct err *e)
{
    size_t at = strspn(text, " \t\r\n");
    bool json_like = at < len && (text[at] == '{' || text[at] == '[');
    json_t *doc = NULL;
    struct err json_error;
    if (json_like && json_read(text, len, DOCUMENT_BYTES_MAX, &doc, &json_error) == 0) {
        int r = add_document(jobs, doc, e);
        json_decref(doc);
        return r < 0 ? err_wrap(e, "%s", name) : 0;
    }
    int r = add_yaml(jobs, name, text, len, e);
    if (r == -ERR_INVALID && json_like) /* the complaint about JSON fits better */
        return err_set(e, ERR_INVALID, "%s: %s", name, json_error.text);
    return r;
}

int document_jobs(const char *name, const char *text, size_t len, json_t **ret, struct err *e)
{
    if (memchr(text, '\0', len))
        return err_set(e, ERR_INVALID, "%s: contains a NUL", name);
    json_t *jobs = json_array();
    int r = jobs ? add_text(jobs, name, text, len, e) : err_set(e, ERR_NOMEM, "out of memory for the jobs");
    if (r == 0 && json_array_size(jobs) == 0)
        r = err_set(e, ERR_INVALID, "%s: holds no job", name);
    if (r < 0) {
        json_decref(jobs);
        return r;
    }
    *ret = jobs;
    return 0;
}
