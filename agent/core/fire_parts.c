#include "agent/core/fire_parts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/json.h"

static const char *const state_names[FIRE_PART_STATE_COUNT_ + 1] = {"pending", "succeeded", "dead", "gone",
                                                                    "cancelled"};

/* Items and the texts behind them in one block. */
static int parts_alloc(size_t count, size_t text_bytes, struct fire_parts **ret, char **ret_text,
                       struct err *e)
{
    struct fire_parts *parts =
        mem_try_alloc(sizeof(*parts) + count * sizeof(parts->items[0]) + text_bytes, e);
    if (!parts)
        return -ERR_NOMEM;
    parts->count = count;
    *ret_text = (char *)&parts->items[count];
    *ret = parts;
    return 0;
}

static const char *put_text(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = *at;
    memcpy(copy, text, size);
    *at += size;
    return copy;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorts LIST, drops doubles. */
static size_t sort_unique(const char **list, size_t count)
{
    size_t kept = 0;
    qsort(list, count, sizeof(*list), compare_texts);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || strcmp(list[kept - 1], list[i]) != 0)
            list[kept++] = list[i];
    return kept;
}

int fire_parts_new(const char *const *endpoints, size_t count, struct fire_parts **ret, struct err *e)
{
    const char *list[FIRE_PARTS_MAX];
    size_t bytes = 0;
    struct fire_parts *parts;
    char *at;
    if (count == 0)
        return err_set(e, ERR_INVALID, "the service has no endpoint");
    if (count > FIRE_PARTS_MAX)
        return err_set(e, ERR_TOO_BIG,
                       "the service has %zu endpoints; `to` other than \"one\" takes at most %d", count,
                       FIRE_PARTS_MAX);
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(endpoints[i]);
        if (len == 0 || len >= FIRE_PARTS_ENDPOINT_BYTES)
            return err_set(e, ERR_TOO_BIG, "an endpoint's address is empty or has %d bytes or more",
                           FIRE_PARTS_ENDPOINT_BYTES);
        list[i] = endpoints[i];
        bytes += len + 1;
    }
    count = sort_unique(list, count);
    int r = parts_alloc(count, bytes, &parts, &at, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++)
        parts->items[i] = (struct fire_part){.endpoint = put_text(&at, list[i]), .status = -1};
    *ret = parts;
    return 0;
}

void fire_parts_free(struct fire_parts *parts)
{
    mem_free(parts);
}

/* --- text ------------------------------------------------------------------------------------------------------------ */

static void read_part(const json_t *item, const struct json_at *at, struct fire_part *ret, struct problems *p)
{
    unsigned state = FIRE_PART_STATE_COUNT_;
    int64_t number = 0;
    ret->status = -1;
    (void)json_require(item, "endpoint", at, p); /* each adds its own problem */
    (void)json_field_string(item, "endpoint", 1, FIRE_PARTS_ENDPOINT_BYTES - 1, &ret->endpoint, NULL, at, p);
    (void)json_require(item, "outcome", at, p);
    (void)json_field_enum(item, "outcome", state_names, &state, at, p);
    ret->state = (enum fire_part_state)state;
    if (json_field_int(item, "status", 0, INT32_MAX, &number, at, p))
        ret->status = (int)number;
    if (json_field_int(item, "attempts", 0, UINT32_MAX, &number, at, p))
        ret->attempts = (uint32_t)number;
}

static int read_parts(const json_t *doc, struct fire_part *items, size_t *ret_bytes, struct err *e)
{
    AUTO(problems_fini) struct problems p = {0};
    size_t bytes = 0;
    for (size_t i = 0; i < json_array_size(doc); i++) {
        struct json_at at = json_at_index(NULL, i);
        const json_t *item = json_array_get(doc, i);
        if (json_expect_object(item, &at, &p))
            read_part(item, &at, &items[i], &p);
        if (items[i].endpoint)
            bytes += strlen(items[i].endpoint) + 1;
    }
    *ret_bytes = bytes;
    return problems_check(&p, e);
}

int fire_parts_parse(const char *text, size_t len, struct fire_parts **ret, struct err *e)
{
    AUTO(json_decref) json_t *doc = NULL;
    struct fire_part items[FIRE_PARTS_MAX] = {0};
    struct fire_parts *parts = NULL;
    size_t bytes = 0;
    char *at = NULL;
    int r = json_read(text, len, FIRE_PARTS_TEXT_MAX, &doc, e);
    if (r == 0 && (!json_is_array(doc) || json_array_size(doc) == 0 || json_array_size(doc) > FIRE_PARTS_MAX))
        r = err_set(e, ERR_INVALID, "the parts of a fire are a list of 1 to %d", FIRE_PARTS_MAX);
    if (r == 0)
        r = read_parts(doc, items, &bytes, e);
    if (r == 0)
        r = parts_alloc(json_array_size(doc), bytes, &parts, &at, e);
    if (r != 0)
        return r;
    for (size_t i = 0; i < parts->count; i++) {
        assert(items[i].endpoint); /* what has none was refused */
        parts->items[i] = items[i];
        parts->items[i].endpoint = put_text(&at, items[i].endpoint);
    }
    *ret = parts;
    return 0;
}

void fire_parts_print(const struct fire_parts *parts, struct buf *out)
{
    for (size_t i = 0; i < parts->count; i++) {
        const struct fire_part *part = &parts->items[i];
        buf_addf(out, "%s{\"part\":%zu,\"endpoint\":", i ? "," : "[", i + 1);
        json_print_string(out, part->endpoint, strlen(part->endpoint));
        buf_addf(out, ",\"outcome\":\"%s\",\"status\":", state_names[part->state]);
        if (part->status < 0)
            buf_add_str(out, "null");
        else
            buf_addf(out, "%d", part->status);
        buf_addf(out, ",\"attempts\":%u}", part->attempts);
    }
    buf_add_char(out, ']');
}

/* --- states ---------------------------------------------------------------------------------------------------------- */

size_t fire_parts_count(const struct fire_parts *parts, enum fire_part_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < parts->count; i++)
        n += parts->items[i].state == state;
    return n;
}

void fire_parts_close(struct fire_parts *parts, enum fire_part_state state)
{
    for (size_t i = 0; i < parts->count; i++)
        if (parts->items[i].state == FIRE_PART_PENDING)
            parts->items[i].state = state;
}
