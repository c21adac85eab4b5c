#include "agent/base/yaml_tree.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <yaml.h>

#include "agent/base/json.h"
#include "agent/base/map.h"
#include "agent/base/text.h"

struct yaml_tree {
    char *name;
    struct yaml_node root;
};

/* One reading of a text; the documents of a stream share its limits. */
struct reader {
    const char *name;
    yaml_parser_t parser;
    size_t nodes;
};

/* --- trees ------------------------------------------------------------------------------------------------------- */

/* Recursion is bounded by YAML_TREE_DEPTH_MAX, here and below. */
static void fini_node(struct yaml_node *n)
{
    for (size_t i = 0; i < n->count; i++) {
        if (n->keys)
            mem_free((char *)n->keys[i]);
        fini_node(&n->items[i]);
    }
    mem_free((char *)n->text);
    mem_free(n->keys);
    mem_free(n->key_lines);
    mem_free(n->items);
    *n = (struct yaml_node){0};
}

void yaml_tree_free(struct yaml_tree *t)
{
    if (!t)
        return;
    fini_node(&t->root);
    mem_free(t->name);
    mem_free(t);
}

const struct yaml_node *yaml_tree_root(const struct yaml_tree *t)
{
    return &t->root;
}

const char *yaml_tree_name(const struct yaml_tree *t)
{
    return t->name;
}

const struct yaml_node *yaml_node_get(const struct yaml_node *n, const char *key)
{
    for (size_t i = 0; n->kind == YAML_MAP && i < n->count; i++)
        if (strcmp(n->keys[i], key) == 0)
            return &n->items[i];
    return NULL;
}

static bool is_one_of(const char *s, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(s, *names) == 0)
            return true;
    return false;
}

bool yaml_node_is_null(const struct yaml_node *n)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    return n->kind == YAML_SCALAR && n->plain && is_one_of(n->text, nulls);
}

const char *yaml_node_kind_name(const struct yaml_node *n)
{
    if (yaml_node_is_null(n))
        return "nothing";
    return n->kind == YAML_SCALAR ? "a text" : n->kind == YAML_MAP ? "a map" : "a list";
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

static unsigned line_of(const yaml_event_t *event)
{
    return (unsigned)event->start_mark.line + 1;
}

/* Next event; the caller deletes it. */
static int next_event(struct reader *r, yaml_event_t *ret, struct err *e)
{
    if (fault_hit())
        return err_set(e, ERR_NOMEM, "%s: no memory", r->name);
    if (yaml_parser_parse(&r->parser, ret))
        return 0;
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return err_set(e, ERR_NOMEM, "%s: no memory", r->name);
    if (p->error == YAML_READER_ERROR)
        return err_set(e, ERR_INVALID, "%s: byte %zu: %s", r->name, p->problem_offset, p->problem);
    return err_set(e, ERR_INVALID, "%s:%zu: %s", r->name, p->problem_mark.line + 1,
                   p->problem ? p->problem : "not YAML");
}

/* The events of all node kinds keep anchor and tag at other places. */
static void event_marks(const yaml_event_t *event, const yaml_char_t **ret_anchor,
                        const yaml_char_t **ret_tag)
{
    bool map = event->type == YAML_MAPPING_START_EVENT, list = event->type == YAML_SEQUENCE_START_EVENT;
    *ret_anchor = map    ? event->data.mapping_start.anchor
                  : list ? event->data.sequence_start.anchor
                         : event->data.scalar.anchor;
    *ret_tag = map    ? event->data.mapping_start.tag
               : list ? event->data.sequence_start.tag
                      : event->data.scalar.tag;
}

static int check_event(struct reader *r, const yaml_event_t *event, unsigned depth, struct err *e)
{
    static const char *const tags[] = {YAML_STR_TAG, YAML_MAP_TAG, YAML_SEQ_TAG, NULL};
    unsigned line = line_of(event);
    if (event->type == YAML_ALIAS_EVENT)
        return err_set(e, ERR_INVALID, "%s:%u: aliases are not supported", r->name, line);
    const yaml_char_t *anchor, *tag;
    event_marks(event, &anchor, &tag);
    if (anchor)
        return err_set(e, ERR_INVALID, "%s:%u: anchors are not supported", r->name, line);
    if (tag && !is_one_of((const char *)tag, tags))
        return err_set(e, ERR_INVALID, "%s:%u: the tag '%s' is not supported", r->name, line,
                       TEXTQ((const char *)tag, strlen((const char *)tag)));
    if (depth > YAML_TREE_DEPTH_MAX)
        return err_set(e, ERR_TOO_BIG, "%s:%u: nested deeper than %d levels", r->name, line,
                       YAML_TREE_DEPTH_MAX);
    if (++r->nodes > YAML_TREE_NODES_MAX)
        return err_set(e, ERR_TOO_BIG, "%s:%u: more than %d values", r->name, line, YAML_TREE_NODES_MAX);
    return 0;
}

static int take_scalar(struct reader *r, const yaml_event_t *event, struct yaml_node *n, struct err *e)
{
    const char *text = (const char *)event->data.scalar.value;
    size_t len = event->data.scalar.length;
    if (memchr(text, '\0', len))
        return err_set(e, ERR_INVALID, "%s:%u: a text contains a NUL character", r->name, line_of(event));
    n->text = mem_try_strndup(text, len, e);
    if (!n->text)
        return err_wrap(e, "%s", r->name);
    n->text_len = len;
    n->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !event->data.scalar.tag;
    return 0;
}

/* Room for one more entry in a map or list; the new one is zero. */
static int grow_node(struct yaml_node *n, size_t *cap, struct err *e)
{
    if (n->count == *cap) {
        size_t more = *cap ? *cap * 2 : 4;
        struct yaml_node *items = mem_try_realloc(n->items, more, sizeof(*items), e);
        if (!items)
            return err_wrap(e, "YAML");
        n->items = items;
        if (n->kind == YAML_MAP) {
            const char **keys = mem_try_realloc(n->keys, more, sizeof(*keys), e);
            if (!keys)
                return err_wrap(e, "YAML");
            n->keys = keys;
            unsigned *lines = mem_try_realloc(n->key_lines, more, sizeof(*lines), e);
            if (!lines)
                return err_wrap(e, "YAML");
            n->key_lines = lines;
        }
        *cap = more;
    }
    n->items[n->count] = (struct yaml_node){0};
    return 0;
}

static int read_node(struct reader *r, const yaml_event_t *event, struct yaml_node *n, unsigned depth,
                     struct err *e);

/* Read events into fresh entries of N until its end; SEEN finds duplicate keys. */
static int read_entries(struct reader *r, struct yaml_node *n, struct map *seen, unsigned depth,
                        struct err *e);

static int read_collection(struct reader *r, struct yaml_node *n, unsigned depth, struct err *e)
{
    struct map seen;
    map_init(&seen, (uintptr_t)n);
    int result = read_entries(r, n, &seen, depth, e);
    map_fini(&seen);
    return result;
}

static int take_key(struct reader *r, const yaml_event_t *event, struct yaml_node *n, struct map *seen,
                    struct err *e)
{
    unsigned line = line_of(event);
    if (event->type != YAML_SCALAR_EVENT)
        return err_set(e, ERR_INVALID, "%s:%u: a key must be a text", r->name, line);
    struct yaml_node key = {0};
    int result = check_event(r, event, 0, e);
    if (result == 0)
        result = take_scalar(r, event, &key, e);
    if (result < 0)
        return result;
    n->keys[n->count] = key.text; /* the entry counts from here on, so that fini_node frees it */
    n->key_lines[n->count] = line;
    n->count++;
    if (map_get(seen, key.text, key.text_len))
        return err_set(e, ERR_INVALID, "%s:%u: the key '%s' stands here twice", r->name, line,
                       TEXTQ(key.text, key.text_len));
    return map_put(seen, key.text, key.text_len, (void *)key.text, NULL, e);
}

static int read_entry(struct reader *r, const yaml_event_t *event, struct yaml_node *n, struct map *seen,
                      unsigned depth, struct err *e)
{
    if (n->kind == YAML_LIST) {
        n->count++;
        return read_node(r, event, &n->items[n->count - 1], depth, e);
    }
    int result = take_key(r, event, n, seen, e);
    if (result < 0)
        return result;
    yaml_event_t value;
    result = next_event(r, &value, e);
    if (result < 0)
        return result;
    result = read_node(r, &value, &n->items[n->count - 1], depth, e);
    yaml_event_delete(&value);
    return result;
}

static int read_entries(struct reader *r, struct yaml_node *n, struct map *seen, unsigned depth,
                        struct err *e)
{
    size_t cap = 0;
    for (;;) {
        yaml_event_t event;
        int result = next_event(r, &event, e);
        if (result < 0)
            return result;
        bool end = event.type == YAML_MAPPING_END_EVENT || event.type == YAML_SEQUENCE_END_EVENT;
        if (!end)
            result = grow_node(n, &cap, e);
        if (!end && result == 0)
            result = read_entry(r, &event, n, seen, depth + 1, e);
        yaml_event_delete(&event);
        if (end || result < 0)
            return result;
    }
}

static int read_node(struct reader *r, const yaml_event_t *event, struct yaml_node *n, unsigned depth,
                     struct err *e)
{
    int result = check_event(r, event, depth, e);
    if (result < 0)
        return result;
    n->line = line_of(event);
    if (event->type == YAML_SCALAR_EVENT) {
        n->kind = YAML_SCALAR;
        return take_scalar(r, event, n, e);
    }
    n->kind = event->type == YAML_MAPPING_START_EVENT ? YAML_MAP : YAML_LIST;
    return read_collection(r, n, depth, e);
}

static int new_tree(const char *name, struct yaml_tree **ret, struct err *e)
{
    AUTO(yaml_tree_free) struct yaml_tree *t = mem_try_alloc(sizeof(*t), e);
    if (!t)
        return err_wrap(e, "read '%s'", name);
    t->root = (struct yaml_node){.kind = YAML_MAP, .line = 1};
    t->name = mem_try_strndup(name, strlen(name), e);
    if (!t->name)
        return err_wrap(e, "read '%s'", name);
    *ret = TAKE(t);
    return 0;
}

/* The next document with a content; *RET is NULL at the end of the stream. */
static int read_document(struct reader *r, struct yaml_tree **ret, struct err *e)
{
    yaml_event_t event;
    int result = next_event(r, &event, e);
    if (result < 0)
        return result;
    AUTO(yaml_tree_free) struct yaml_tree *t = NULL;
    yaml_event_type_t type = event.type;
    if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT &&
        type != YAML_STREAM_END_EVENT && type != YAML_DOCUMENT_END_EVENT) {
        result = new_tree(r->name, &t, e);
        if (t)
            result = read_node(r, &event, &t->root, 1, e);
    }
    yaml_event_delete(&event);
    if (result < 0)
        return result;
    if (t && yaml_node_is_null(&t->root))
        yaml_tree_free(TAKE(t));
    if (!t && type != YAML_STREAM_END_EVENT)
        return 1;
    *ret = TAKE(t);
    return 0;
}

/* Documents into TREES (room for MAX); *RET_COUNT grows with each, also on failure. */
static int read_documents(struct reader *r, size_t max, struct yaml_tree **trees, size_t *ret_count,
                          struct err *e)
{
    for (;;) {
        struct yaml_tree *t = NULL;
        int result;
        while ((result = read_document(r, &t, e)) > 0)
            ;
        if (result < 0 || !t)
            return result;
        if (*ret_count == max) {
            unsigned line = t->root.line;
            yaml_tree_free(t);
            return err_set(e, ERR_TOO_BIG, "%s:%u: more than %zu document%s", r->name, line, max,
                           max == 1 ? "" : "s");
        }
        trees[(*ret_count)++] = t;
    }
}

static int read_stream(const char *name, const char *text, size_t len, size_t max, struct yaml_tree **trees,
                       size_t *ret_count, struct err *e)
{
    if (len > YAML_TREE_SIZE_MAX)
        return err_set(e, ERR_TOO_BIG, "%s: %zu bytes of YAML, allowed are %zu", name, len,
                       YAML_TREE_SIZE_MAX);
    if (!text_utf8_valid(text, len))
        return err_set(e, ERR_INVALID, "%s: not UTF-8", name);
    struct reader r = {.name = name};
    if (fault_hit() || !yaml_parser_initialize(&r.parser))
        return err_set(e, ERR_NOMEM, "%s: no memory", name);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    int result = read_documents(&r, max, trees, ret_count, e);
    yaml_parser_delete(&r.parser);
    for (size_t i = 0; result < 0 && i < *ret_count; i++)
        yaml_tree_free(TAKE(trees[i]));
    return result;
}

int yaml_tree_read(const char *name, const char *text, size_t len, struct yaml_tree **ret, struct err *e)
{
    struct yaml_tree *t = NULL;
    size_t count = 0;
    int result = read_stream(name, text, len, 1, &t, &count, e);
    if (result < 0)
        return result;
    if (count == 0)
        return new_tree(name, ret, e);
    *ret = t;
    return 0;
}

int yaml_tree_read_all(const char *name, const char *text, size_t len, size_t documents_max,
                       struct yaml_tree ***ret, size_t *ret_count, struct err *e)
{
    AUTO(mem_free) struct yaml_tree **trees = mem_try_array(documents_max, sizeof(struct yaml_tree *), e);
    if (!trees)
        return err_wrap(e, "read '%s'", name);
    size_t count = 0;
    int result = read_stream(name, text, len, documents_max, trees, &count, e);
    if (result < 0)
        return result;
    *ret = TAKE(trees);
    *ret_count = count;
    return 0;
}

/* --- JSON, by the core schema of YAML 1.2 (section 10.3.2) ----------------------------------------------------------- */

static size_t digits(const char *s)
{
    return strspn(s, "0123456789");
}

/* [-+]? [0-9]+ */
static bool is_core_int(const char *s)
{
    s += *s == '-' || *s == '+';
    size_t n = digits(s);
    return n > 0 && s[n] == '\0';
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool is_core_float(const char *s)
{
    s += *s == '-' || *s == '+';
    size_t whole = digits(s), fraction = 0;
    s += whole;
    if (*s == '.') {
        fraction = digits(s + 1);
        s += 1 + fraction;
    }
    if (whole + fraction == 0)
        return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '-' || *s == '+';
        size_t n = digits(s);
        if (n == 0)
            return false;
        s += n;
    }
    return *s == '\0';
}

/* S without the freedoms that YAML has and JSON has not: plus sign, leading zeros, bare points. */
static size_t json_number_text(const char *s, char out[80])
{
    size_t n = 0;
    if (*s == '-')
        out[n++] = '-';
    s += *s == '-' || *s == '+';
    while (*s == '0' && s[1] >= '0' && s[1] <= '9')
        s++;
    if (*s == '.')
        out[n++] = '0';
    for (; *s && n < 76; s++) {
        out[n++] = *s;
        if (*s == '.' && digits(s + 1) == 0)
            out[n++] = '0';
    }
    out[n] = '\0';
    return n;
}

static int number_to_json(const struct yaml_tree *t, const struct yaml_node *n, json_t **ret, struct err *e)
{
    char text[80];
    size_t len = json_number_text(n->text, text);
    struct err why;
    if (is_core_int(n->text)) {
        int64_t v = 0;
        if (strcmp(text, "-0") != 0 && text_i64(text, len, INT64_MIN, INT64_MAX, &v, &why) < 0)
            return err_set(e, ERR_INVALID, "%s:%u: %s", t->name, n->line, why.text);
        *ret = json_integer(v);
    } else {
        double v;
        if (text_double(text, len, -1.7976931348623157e308, 1.7976931348623157e308, &v, &why) < 0)
            return err_set(e, ERR_INVALID, "%s:%u: %s", t->name, n->line, why.text);
        *ret = json_real(v);
    }
    return *ret ? 0 : err_set(e, ERR_NOMEM, "%s: no memory", t->name);
}

static int scalar_to_json(const struct yaml_tree *t, const struct yaml_node *n, json_t **ret, struct err *e)
{
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    if (n->plain && (is_core_int(n->text) || is_core_float(n->text)))
        return number_to_json(t, n, ret, e);
    if (yaml_node_is_null(n))
        *ret = json_null();
    else if (n->plain && is_one_of(n->text, trues))
        *ret = json_true();
    else if (n->plain && is_one_of(n->text, falses))
        *ret = json_false();
    else
        *ret = json_stringn(n->text, n->text_len);
    return *ret ? 0 : err_set(e, ERR_NOMEM, "%s: no memory", t->name);
}

static int node_to_json(const struct yaml_tree *t, const struct yaml_node *n, json_t **ret, struct err *e)
{
    if (n->kind == YAML_SCALAR)
        return scalar_to_json(t, n, ret, e);
    AUTO(json_decref) json_t *v = n->kind == YAML_MAP ? json_object() : json_array();
    if (!v)
        return err_set(e, ERR_NOMEM, "%s: no memory", t->name);
    for (size_t i = 0; i < n->count; i++) {
        json_t *item = NULL;
        int r = node_to_json(t, &n->items[i], &item, e);
        if (r < 0)
            return r;
        r = n->kind == YAML_MAP ? json_object_set_new(v, n->keys[i], item) : json_array_append_new(v, item);
        if (r < 0)
            return err_set(e, ERR_NOMEM, "%s: no memory", t->name);
    }
    *ret = TAKE(v);
    return 0;
}

int yaml_tree_to_json(const struct yaml_tree *t, json_t **ret, struct err *e)
{
    json_t *v = NULL;
    int r = node_to_json(t, &t->root, &v, e);
    if (r == 0)
        *ret = v;
    return r;
}
