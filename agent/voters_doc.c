#include "agent/voters_doc.h"

#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"

#define VERSION 1

/* --- reading ------------------------------------------------------------------------------------------------------- */

static uint64_t read_number(const json_t *obj, const char *key, int64_t min, int64_t max,
                            const struct json_at *at, struct problems *p)
{
    int64_t value = 0;
    if (!json_field_int(obj, key, min, max, &value, at, p) && min > 0)
        (void)json_require(obj, key, at, p);
    return (uint64_t)value;
}

static void read_address(const json_t *obj, struct voter *v, const struct json_at *at, struct problems *p)
{
    struct err why = {0};
    (void)json_field_copy(obj, "address", 1, v->address, sizeof(v->address), at, p);
    if (v->address[0] && text_host_port(v->address, strlen(v->address), false, NULL, NULL, NULL, &why) < 0)
        json_problem(p, at, "address", "%s", why.text);
}

static void read_voter(const json_t *obj, bool whole, struct voter *v, const struct json_at *at,
                       struct problems *p)
{
    char state[16] = "";
    if (!json_expect_object(obj, at, p))
        return;
    *v = (struct voter){.number = read_number(obj, "number", 1, INT64_MAX, at, p), .state = VOTER_MEMBER};
    read_address(obj, v, at, p);
    if (!whole)
        return;
    (void)json_field_copy(obj, "state", 1, state, sizeof(state), at, p);
    (void)json_field_copy(obj, "folder", 0, v->folder, sizeof(v->folder), at, p);
    (void)json_field_copy(obj, "name", 0, v->name, sizeof(v->name), at, p);
    v->beat = read_number(obj, "beat", 0, INT64_MAX, at, p);
    v->state = voter_state_parse(state);
    if (v->state == VOTER_STATE_COUNT_)
        json_problem(p, at, "state", "is not known");
}

static size_t read_list(const json_t *doc, const char *key, bool whole, struct voter *list,
                        struct problems *p)
{
    const json_t *items = json_field_array(doc, key, VOTERS_MAX, NULL, p);
    struct json_at at = json_at_key(NULL, key);
    for (size_t i = 0; i < json_array_size(items); i++) {
        struct json_at item = json_at_index(&at, i);
        read_voter(json_array_get(items, i), whole, &list[i], &item, p);
    }
    return json_array_size(items);
}

int voters_doc_parse(const char *text, size_t bytes, struct voters_doc *ret, struct err *e)
{
    AUTO(problems_fini) struct problems p = {0};
    AUTO(json_decref) json_t *doc = NULL;
    char why[VOTERS_WHY_SIZE];
    int rc = json_read(text, bytes, VOTERS_DOC_MAX, &doc, e);
    if (rc < 0)
        return rc == -ERR_NOMEM ? rc : err_set(e, ERR_INVALID, "it is no JSON");
    struct voters_doc read = {0};
    if (json_expect_object(doc, NULL, &p)) {
        if (read_number(doc, "version", 1, INT64_MAX, NULL, &p) > VERSION)
            return err_set(e, ERR_INVALID, "a newer carillon wrote it");
        (void)json_field_copy(doc, "set", 1, read.set, sizeof(read.set), NULL, &p);
        read.wanted = (uint32_t)read_number(doc, "wanted", 1, VOTERS_MAX, NULL, &p);
        read.next = read_number(doc, "next", 1, INT64_MAX, NULL, &p);
        (void)json_field_bool(doc, "fixed", &read.fixed, NULL, &p);   /* false if absent */
        (void)json_field_bool(doc, "unsure", &read.unsure, NULL, &p); /* the same */
        read.first_count = read_list(doc, "first", false, read.first, &p);
        read.count = read_list(doc, "voters", true, read.list, &p);
    }
    rc = problems_check(&p, e);
    if (rc < 0)
        return rc;
    if (!voters_valid(&read, why))
        return err_set(e, ERR_INVALID, "%s", why);
    *ret = read;
    return 0;
}

/* --- printing ------------------------------------------------------------------------------------------------------ */

static json_t *voter_json(const struct voter *v, bool whole)
{
    if (!whole)
        return json_pack("{s:I,s:s}", "number", (json_int_t)v->number, "address", v->address);
    return json_pack("{s:I,s:s,s:s,s:s,s:s,s:I}", "number", (json_int_t)v->number, "state",
                     voter_state_name(v->state), "folder", v->folder, "name", v->name, "address", v->address,
                     "beat", (json_int_t)v->beat);
}

static json_t *list_json(const struct voter *list, size_t count, bool whole)
{
    json_t *items = json_array();
    for (size_t i = 0; items && i < count; i++)
        if (json_array_append_new(items, voter_json(&list[i], whole)) < 0) {
            json_decref(items);
            return NULL;
        }
    return items;
}

int voters_doc_print(const struct voters_doc *doc, struct buf *out, struct err *e)
{
    AUTO(json_decref)
    json_t *json = json_pack(
        "{s:i,s:s,s:i,s:I,s:b,s:b,s:o,s:o}", "version", VERSION, "set", doc->set, "wanted", (int)doc->wanted,
        "next", (json_int_t)doc->next, "fixed", (int)doc->fixed, "unsure", (int)doc->unsure, "first",
        list_json(doc->first, doc->first_count, false), "voters", list_json(doc->list, doc->count, true));
    if (!json)
        return err_set(e, ERR_NOMEM, "no memory for the list of voters");
    return json_print(json, out, e);
}
