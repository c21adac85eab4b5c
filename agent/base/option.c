#define _GNU_SOURCE
#include "agent/base/option.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/option_value.h"
#include "agent/base/text.h"

#define KEY_MAX        200 /* of a dotted key from outside that is looked up */
#define CANDIDATES_MAX 256

/* What one call of option_fill works on. */
struct fill {
    const struct option_table *table;
    void *config;
    struct option_errors *errors;
    const char *file;
    struct err *e;
};

/* --- errors ------------------------------------------------------------------------------------------------------ */

void option_errors_fini(struct option_errors *errors)
{
    for (size_t i = 0; i < errors->lines.count; i++)
        mem_free(errors->lines.items[i]);
    mem_free(errors->lines.items);
    *errors = (struct option_errors){0};
}

int option_error_add(struct option_errors *errors, struct err *e, const char *fmt, ...)
{
    if (errors->lines.count == OPTION_ERRORS_MAX) {
        errors->dropped++;
        return 0;
    }
    if (!errors->lines.items)
        errors->lines.items = mem_try_array(OPTION_ERRORS_MAX, sizeof(*errors->lines.items), e);
    if (!errors->lines.items)
        return err_wrap(e, "list errors");
    char line[600];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, ap); /* cut when too long */
    va_end(ap);
    char *copy = mem_try_strndup(line, text_utf8_cut(line, strlen(line), sizeof(line) - 4), e);
    if (!copy)
        return err_wrap(e, "list errors");
    errors->lines.items[errors->lines.count++] = copy;
    return 0;
}

/* A failed set: what is wrong with the value is a line of the list, anything else ends the fill. */
static int note_failure(struct fill *f, const char *where, const char *key, int r, const struct err *why)
{
    if (r == 0)
        return 0;
    if (r != -ERR_INVALID)
        return err_set(f->e, (enum err_code) - r, "%s", why->text);
    return option_error_add(f->errors, f->e, "%s: %s: %s", where, key, why->text);
}

static int note_unknown(struct fill *f, const char *where, const char *key, const char *const *known)
{
    const char *near = text_nearest(key, strlen(key), known);
    if (near)
        return option_error_add(f->errors, f->e, "%s: '%s' is not known; did you mean '%s'?", where,
                                TEXTQ(key, strlen(key)), near);
    return option_error_add(f->errors, f->e, "%s: '%s' is not known", where, TEXTQ(key, strlen(key)));
}

/* --- tables ------------------------------------------------------------------------------------------------------ */

static const struct option_row *find_row(const struct option_row *rows, const char *key)
{
    for (; rows->key; rows++)
        if (strcmp(rows->key, key) == 0)
            return rows;
    return NULL;
}

static const struct option_group *first_group(const struct option_table *t)
{
    static const struct option_group none = {0};
    return t->groups ? t->groups : &none;
}

/* Whether a row's key begins with PREFIX and a dot. */
static bool is_section(const struct option_row *rows, const char *prefix)
{
    size_t len = strlen(prefix);
    for (; rows->key; rows++)
        if (strncmp(rows->key, prefix, len) == 0 && rows->key[len] == '.')
            return true;
    return false;
}

/* The row of "services.<name>.<key>", where <name> may have dots: the longest key at the end wins. */
static const struct option_row *find_group_row(const struct option_table *t, const char *key,
                                               const struct option_group **ret_group, size_t *ret_name_len)
{
    const struct option_row *best = NULL;
    size_t key_len = strlen(key), best_len = 0;
    for (const struct option_group *g = first_group(t); g->section; g++) {
        size_t section_len = strlen(g->section);
        if (strncmp(key, g->section, section_len) != 0 || key[section_len] != '.')
            continue;
        for (const struct option_row *row = g->rows; row->key; row++) {
            size_t len = strlen(row->key);
            if (len <= best_len || key_len < section_len + len + 3 || key[key_len - len - 1] != '.' ||
                strcmp(key + key_len - len, row->key) != 0)
                continue;
            best = row;
            best_len = len;
            *ret_group = g;
            *ret_name_len = key_len - len - 2 - section_len;
        }
    }
    return best;
}

const struct option_row *option_find(const struct option_table *t, const char *key)
{
    const struct option_group *group;
    size_t name_len;
    const struct option_row *row = find_row(t->rows, key);
    return row ? row : find_group_row(t, key, &group, &name_len);
}

/* --- entries of groups --------------------------------------------------------------------------------------------- */

static struct option_group_items *group_items(const struct option_group *g, const void *config)
{
    return (struct option_group_items *)((char *)(uintptr_t)config + g->offset);
}

static char **item_name(void *item)
{
    return item; /* the struct begins with it */
}

static void *find_item(const struct option_group_items *items, const char *name)
{
    for (size_t i = 0; i < items->count; i++)
        if (strcmp(*item_name(items->items[i]), name) == 0)
            return items->items[i];
    return NULL;
}

static void item_free(const struct option_group *g, void *item)
{
    if (!item)
        return;
    if (g->fini_extra)
        g->fini_extra(item);
    for (const struct option_row *row = g->rows; row->key; row++)
        option_value_fini(row, item);
    mem_free(*item_name(item));
    mem_free(item);
}

static int check_item_name(const struct option_group *g, const char *name, struct err *e)
{
    if (g->check_name)
        return g->check_name(name, e);
    size_t len = strlen(name);
    if (len < 1 || len > 63 ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != len)
        return err_set(e, ERR_INVALID, "'%s' is no name: 1 to 63 of A-Z a-z 0-9 . _ -", TEXTQ(name, len));
    return 0;
}

static int item_init(const struct option_group *g, void *item, const char *name, struct err *e)
{
    *item_name(item) = mem_try_strndup(name, strlen(name), e);
    if (!*item_name(item))
        return err_wrap(e, "%s", g->section);
    for (const struct option_row *row = g->rows; row->key; row++) {
        int r = option_value_default(row, item, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The entry NAME, made when it is not there yet. */
static int get_item(const struct option_group *g, void *config, const char *name, void **ret, struct err *e)
{
    struct option_group_items *items = group_items(g, config);
    void *item = find_item(items, name);
    if (item) {
        *ret = item;
        return 0;
    }
    int r = check_item_name(g, name, e);
    if (r < 0)
        return r;
    if (items->count == g->items_max)
        return err_set(e, ERR_INVALID, "more than %zu entries", g->items_max);
    void **grown = mem_try_realloc(items->items, items->count + 1, sizeof(*grown), e);
    if (!grown)
        return err_wrap(e, "%s", g->section);
    items->items = grown;
    item = mem_try_alloc(g->size_bytes, e);
    if (!item)
        return err_wrap(e, "%s", g->section);
    r = item_init(g, item, name, e);
    if (r < 0) {
        item_free(g, item);
        return r;
    }
    items->items[items->count++] = item;
    *ret = item;
    return 0;
}

static int compare_items(const void *a, const void *b)
{
    return strcmp(*item_name(*(void *const *)a), *item_name(*(void *const *)b));
}

/* --- file -------------------------------------------------------------------------------------------------------- */

static int set_node(const struct option_row *row, void *base, const struct yaml_node *n, struct err *e)
{
    if (n->kind == YAML_SCALAR)
        return option_value_set(row, base, n->text, n->text_len, e);
    if (n->kind != YAML_LIST || !option_is_list(row))
        return err_set(e, ERR_INVALID, "must be a text%s, not %s", option_is_list(row) ? " or a list" : "",
                       yaml_node_kind_name(n));
    AUTO(mem_free) const char **items = mem_try_array(n->count, sizeof(*items), e);
    if (!items)
        return err_wrap(e, "option %s", row->key);
    for (size_t i = 0; i < n->count; i++) {
        if (n->items[i].kind != YAML_SCALAR)
            return err_set(e, ERR_INVALID, "item %zu must be a text, not %s", i + 1,
                           yaml_node_kind_name(&n->items[i]));
        items[i] = n->items[i].text;
    }
    return option_value_set_items(row, base, items, n->count, e);
}

/* Where the reader of a map stands: SHOWN_PREFIX is what errors call it, PREFIX what the rows do. */
struct place {
    const struct option_row *rows;
    const struct option_group *group; /* when inside one of its entries */
    void *base;
    const char *prefix;       /* "", "store." */
    const char *shown_prefix; /* "", "services.billing." */
    bool top;
};

static void where_in_file(const struct fill *f, unsigned line, char ret[300])
{
    (void)snprintf(ret, 300, "%s:%u", f->file, line); /* cut when too long */
}

static bool is_extra(const struct option_group *g, const char *key)
{
    for (const struct option_extra *x = g && g->read_extra ? g->extras : NULL; x && x->key; x++)
        if (strcmp(x->key, key) == 0)
            return true;
    return false;
}

/* Full keys that may stand at P, for "did you mean": cut after the segment that belongs here. */
static int unknown_key(struct fill *f, const struct place *p, const char *key, unsigned line)
{
    char names[CANDIDATES_MAX][64], where[300], shown[KEY_MAX + 80];
    const char *known[CANDIDATES_MAX + 1] = {0};
    size_t n = 0, prefix_len = strlen(p->prefix);
    for (const struct option_row *row = p->rows; row->key && n < CANDIDATES_MAX; row++) {
        if (strncmp(row->key, p->prefix, prefix_len) != 0)
            continue;
        (void)snprintf(names[n], sizeof(names[n]), "%.*s", (int)strcspn(row->key + prefix_len, "."),
                       row->key + prefix_len); /* keys are ours and short */
        known[n] = names[n];
        n++;
    }
    for (const struct option_group *g = first_group(f->table); p->top && g->section && n < CANDIDATES_MAX;
         g++)
        known[n++] = g->section;
    for (const struct option_extra *x = p->group && prefix_len == 0 ? p->group->extras : NULL;
         x && x->key && n < CANDIDATES_MAX; x++)
        known[n++] = x->key;
    const char *near = text_nearest(key, strlen(key), known);
    where_in_file(f, line, where);
    (void)snprintf(shown, sizeof(shown), "%s%s", p->shown_prefix, TEXTQ(key, strlen(key))); /* cut */
    if (near)
        return option_error_add(f->errors, f->e, "%s: '%s' is not known; did you mean '%s%s'?", where, shown,
                                p->shown_prefix, near);
    return option_error_add(f->errors, f->e, "%s: '%s' is not known", where, shown);
}

static int fill_map(struct fill *f, const struct place *p, const struct yaml_node *map);

static int fill_entries(struct fill *f, const struct option_group *g, const struct yaml_node *map)
{
    for (size_t i = 0; i < map->count; i++) {
        char where[300], shown[KEY_MAX];
        const char *name = map->keys[i];
        void *item;
        struct err why;
        where_in_file(f, map->key_lines[i], where);
        int r = get_item(g, f->config, name, &item, &why);
        if (r < 0) {
            r = note_failure(f, where, g->section, r, &why);
        } else {
            (void)snprintf(shown, sizeof(shown), "%s.%s.", g->section, name); /* names are checked: it fits */
            struct place inner = {g->rows, g, item, "", shown, false};
            r = fill_map(f, &inner, &map->items[i]);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

/* Whether the node is a map; a key without value counts as an empty one. Adds the error otherwise. */
static int expect_map(struct fill *f, const char *key, const struct yaml_node *n, bool *ret)
{
    *ret = n->kind == YAML_MAP;
    if (*ret || yaml_node_is_null(n))
        return 0;
    return option_error_add(f->errors, f->e, "%s:%u: %s: must be a map, not %s", f->file, n->line, key,
                            yaml_node_kind_name(n));
}

static int fill_group(struct fill *f, const struct option_group *g, const struct yaml_node *n)
{
    bool is_map;
    int r = expect_map(f, g->section, n, &is_map);
    return r < 0 || !is_map ? r : fill_entries(f, g, n);
}

static int fill_section(struct fill *f, const struct place *p, const char *key, const struct yaml_node *n)
{
    char prefix[2 * KEY_MAX + 2], shown[3 * KEY_MAX + 2];
    (void)snprintf(prefix, sizeof(prefix), "%s.", key); /* a known section: short */
    (void)snprintf(shown, sizeof(shown), "%s%s.", p->shown_prefix, key + strlen(p->prefix));
    struct place inner = {p->rows, p->group, p->base, prefix, shown, false};
    return fill_map(f, &inner, n);
}

/* Every item that a list may not have, each with its line. */
static int note_bad_items(struct fill *f, const char *shown, const struct option_row *row,
                          const struct yaml_node *n, bool *ret_any)
{
    *ret_any = false;
    for (size_t i = 0; i < n->count; i++) {
        const struct yaml_node *item = &n->items[i];
        char where[300];
        struct err why;
        if (item->kind != YAML_SCALAR)
            continue;
        int r = option_value_check_item(row, item->text, item->text_len, &why);
        where_in_file(f, item->line, where);
        *ret_any |= r < 0;
        r = note_failure(f, where, shown, r, &why);
        if (r < 0)
            return r;
    }
    return 0;
}

static int fill_row(struct fill *f, const struct place *p, const char *shown, const struct option_row *row,
                    const struct yaml_node *n)
{
    bool bad_items = false;
    char where[300];
    struct err why;
    if (n->kind == YAML_LIST && option_is_list(row)) {
        int r = note_bad_items(f, shown, row, n, &bad_items);
        if (r < 0 || bad_items)
            return r;
    }
    int r = yaml_node_is_null(n) ? 0 : set_node(row, p->base, n, &why);
    where_in_file(f, n->line, where);
    return note_failure(f, where, shown, r, &why);
}

static int fill_key(struct fill *f, const struct place *p, const char *name, unsigned line,
                    const struct yaml_node *n)
{
    char key[2 * KEY_MAX], shown[2 * KEY_MAX];
    if (strlen(p->prefix) + strlen(name) >= KEY_MAX || strchr(name, '.'))
        return unknown_key(f, p, name, line);
    (void)snprintf(key, sizeof(key), "%s%s", p->prefix, name); /* measured */
    (void)snprintf(shown, sizeof(shown), "%s%s", p->shown_prefix, name);
    const struct option_row *row = find_row(p->rows, key);
    if (row)
        return fill_row(f, p, shown, row, n);
    for (const struct option_group *g = first_group(f->table); p->top && g->section; g++)
        if (strcmp(g->section, name) == 0)
            return fill_group(f, g, n);
    if (is_extra(p->group, key))
        return p->group->read_extra(p->base, key, n, f->file, f->errors, f->e);
    if (is_section(p->rows, key))
        return fill_section(f, p, key, n);
    return unknown_key(f, p, name, line);
}

static int fill_map(struct fill *f, const struct place *p, const struct yaml_node *map)
{
    char shown[2 * KEY_MAX + 2];
    size_t len = strlen(p->shown_prefix);
    (void)snprintf(shown, sizeof(shown), "%.*s", len ? (int)len - 1 : 0, p->shown_prefix);
    bool is_map;
    int r = expect_map(f, *shown ? shown : "the file", map, &is_map);
    for (size_t i = 0; r == 0 && is_map && i < map->count; i++)
        r = fill_key(f, p, map->keys[i], map->key_lines[i], &map->items[i]);
    return r;
}

static int fill_from_file(struct fill *f, const struct yaml_tree *file)
{
    struct place top = {f->table->rows, NULL, f->config, "", "", true};
    f->file = yaml_tree_name(file);
    return fill_map(f, &top, yaml_tree_root(file));
}

/* --- environment --------------------------------------------------------------------------------------------------- */

/* Whether NAME (LEN bytes of it) is TEXT in capitals with '_' for '.' and '-'; the rest of NAME goes to *RET_REST. */
static bool env_prefix(const char *name, const char *text, const char **ret_rest)
{
    for (; *text; text++, name++) {
        char c = *text == '.' || *text == '-' ? '_' : (char)toupper((unsigned char)*text);
        if (*name != c)
            return false;
    }
    *ret_rest = name;
    return true;
}

static const struct option_row *env_row(const struct option_row *rows, const char *name)
{
    const char *rest;
    for (; rows->key; rows++)
        if (env_prefix(name, rows->key, &rest) && *rest == '\0')
            return rows;
    return NULL;
}

/* The row and struct that NAME (without the prefix) means; NULL when there is none. */
static const struct option_row *env_target(const struct fill *f, const char *name, void **ret_base,
                                           const char **ret_group, const char **ret_item)
{
    const struct option_row *row = env_row(f->table->rows, name);
    *ret_base = f->config;
    *ret_group = *ret_item = NULL;
    for (const struct option_group *g = first_group(f->table); !row && g->section; g++) {
        const struct option_group_items *items = group_items(g, f->config);
        const char *rest, *key;
        if (!env_prefix(name, g->section, &rest) || *rest != '_')
            continue;
        for (size_t i = 0; !row && i < items->count; i++) {
            *ret_item = *item_name(items->items[i]);
            if (env_prefix(rest + 1, *ret_item, &key) && *key == '_')
                row = env_row(g->rows, key + 1);
            *ret_base = items->items[i];
            *ret_group = g->section;
        }
    }
    return row;
}

static bool begins_with_section(const struct option_table *t, const char *name)
{
    const char *rest;
    for (const struct option_row *row = t->rows; row->key; row++) {
        char section[64];
        (void)snprintf(section, sizeof(section), "%.*s", (int)strcspn(row->key, "."), row->key); /* short */
        if (env_prefix(name, section, &rest) && *rest == '_')
            return true;
    }
    for (const struct option_group *g = first_group(t); g->section; g++)
        if (env_prefix(name, g->section, &rest) && *rest == '_')
            return true;
    return false;
}

/* Kubernetes puts such variables into every pod for each Service of the namespace; one named carillon-api makes
 * CARILLON_API_PORT=tcp://10.0.0.1:7420. */
static bool is_service_link(const char *name, const char *value)
{
    size_t len = strlen(name);
    static const char host[] = "_SERVICE_HOST";
    if (len >= sizeof(host) - 1 && strcmp(name + len - (sizeof(host) - 1), host) == 0)
        return true;
    if (strstr(name, "_SERVICE_PORT"))
        return true;
    const char *port = strstr(name, "_PORT_");
    if (port && isdigit((unsigned char)port[6]))
        return true;
    return strstr(name, "_PORT") && (strncmp(value, "tcp://", 6) == 0 || strncmp(value, "udp://", 6) == 0);
}

static int unknown_variable(struct fill *f, const char *name)
{
    char names[CANDIDATES_MAX][96], where[32];
    const char *known[CANDIDATES_MAX + 1] = {0};
    size_t n = 0;
    for (const struct option_row *row = f->table->rows; row->key && n < CANDIDATES_MAX; row++, n++) {
        (void)snprintf(names[n], sizeof(names[n]), "%s_%s", f->table->env_prefix, row->key); /* ours, short */
        for (char *c = names[n]; *c; c++)
            *c = *c == '.' ? '_' : (char)toupper((unsigned char)*c);
        known[n] = names[n];
    }
    (void)snprintf(where, sizeof(where), "environment");
    return note_unknown(f, where, name, known);
}

/* VARIABLE is "NAME=value". */
static int fill_variable(struct fill *f, const char *variable)
{
    char name[KEY_MAX], where[KEY_MAX + 16], key[KEY_MAX];
    size_t prefix_len = strlen(f->table->env_prefix);
    const char *equals = strchr(variable, '=');
    if (!equals || strncmp(variable, f->table->env_prefix, prefix_len) != 0 || variable[prefix_len] != '_' ||
        (size_t)(equals - variable) >= sizeof(name))
        return 0;
    (void)snprintf(name, sizeof(name), "%.*s", (int)(equals - variable), variable); /* measured */
    const char *tail = name + prefix_len + 1;
    if (is_service_link(name, equals + 1))
        return 0;
    void *base;
    const char *group, *item;
    const struct option_row *row = env_target(f, tail, &base, &group, &item);
    if (!row)
        return begins_with_section(f->table, tail) ? unknown_variable(f, name) : 0;
    struct err why;
    int r = option_value_set(row, base, equals + 1, strlen(equals + 1), &why);
    (void)snprintf(where, sizeof(where), "environment %s", name); /* fits */
    (void)snprintf(key, sizeof(key), "%s%s%s%s%s", group ? group : "", group ? "." : "", group ? item : "",
                   group ? "." : "", row->key);
    return note_failure(f, where, key, r, &why);
}

/* --- --set ------------------------------------------------------------------------------------------------------- */

/* "services.<name>.<tail>" */
static int unknown_in_group(struct fill *f, const char *key, const struct option_group *g)
{
    const char *known[CANDIDATES_MAX + 1] = {0};
    const char *name = key + strlen(g->section) + 1, *dot = strrchr(name, '.'), *tail = dot ? dot + 1 : name;
    size_t n = 0;
    if (is_extra(g, tail))
        return option_error_add(f->errors, f->e, "--set: '%s' is no single value: write it into the file",
                                TEXTQ(key, strlen(key)));
    for (const struct option_row *row = g->rows; row->key && n < CANDIDATES_MAX; row++)
        known[n++] = row->key;
    const char *near = text_nearest(tail, strlen(tail), known);
    return option_error_add(f->errors, f->e, "--set: '%s' is not known; %s.<name>.%s is",
                            TEXTQ(key, strlen(key)), g->section, near ? near : known[0]);
}

static int unknown_set(struct fill *f, const char *key)
{
    const char *known[CANDIDATES_MAX + 1] = {0};
    size_t n = 0;
    for (const struct option_group *g = first_group(f->table); g->section; g++)
        if (strncmp(key, g->section, strlen(g->section)) == 0 && key[strlen(g->section)] == '.')
            return unknown_in_group(f, key, g);
    for (const struct option_row *row = f->table->rows; row->key && n < CANDIDATES_MAX; row++)
        known[n++] = row->key;
    return note_unknown(f, "--set", key, known);
}

static int fill_set(struct fill *f, const char *set)
{
    char key[KEY_MAX], name[KEY_MAX];
    const char *equals = strchr(set, '=');
    if (!equals || equals == set || (size_t)(equals - set) >= sizeof(key))
        return option_error_add(f->errors, f->e, "--set: '%s': write section.key=value",
                                TEXTQ(set, strlen(set)));
    (void)snprintf(key, sizeof(key), "%.*s", (int)(equals - set), set); /* measured */
    void *base = f->config;
    const struct option_group *group = NULL;
    size_t name_len = 0;
    struct err why;
    const struct option_row *row = find_row(f->table->rows, key);
    int r = 0;
    if (!row) {
        row = find_group_row(f->table, key, &group, &name_len);
        if (!row)
            return unknown_set(f, key);
        (void)snprintf(name, sizeof(name), "%.*s", (int)name_len,
                       key + strlen(group->section) + 1); /* fits */
        r = get_item(group, f->config, name, &base, &why);
    }
    if (r == 0)
        r = option_value_set(row, base, equals + 1, strlen(equals + 1), &why);
    return note_failure(f, "--set", key, r, &why);
}

/* --- all --------------------------------------------------------------------------------------------------------- */

static int fill_defaults(struct fill *f)
{
    for (const struct option_row *row = f->table->rows; row->key; row++) {
        int r = option_value_default(row, f->config, f->e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int fill_all(struct fill *f, const struct option_sources *src)
{
    int r = fill_defaults(f);
    if (r == 0 && src->file)
        r = fill_from_file(f, src->file);
    for (size_t i = 0; r == 0 && src->env && src->env[i]; i++)
        r = fill_variable(f, src->env[i]);
    for (size_t i = 0; r == 0 && i < src->sets_count; i++)
        r = fill_set(f, src->sets[i]);
    for (const struct option_group *g = first_group(f->table); r == 0 && g->section; g++) {
        struct option_group_items *items = group_items(g, f->config);
        if (items->count > 1)
            qsort(items->items, items->count, sizeof(*items->items), compare_items);
    }
    return r;
}

int option_fill(const struct option_table *t, const struct option_sources *src, void *config,
                struct option_errors *errors, struct err *e)
{
    struct err own; /* the steps report through it, so that the result does not hang on E being given */
    struct fill f = {.table = t, .config = config, .errors = errors, .e = &own};
    memset(config, 0, t->size_bytes);
    int r = fill_all(&f, src);
    if (r < 0) {
        r = err_set(e, (enum err_code) - r, "%s", own.text);
    } else if (errors->lines.count == 1) {
        r = err_set(e, ERR_INVALID, "%s", errors->lines.items[0]);
    } else if (errors->lines.count > 1) {
        r = err_set(e, ERR_INVALID, "%zu errors, the first: %s", errors->lines.count + errors->dropped,
                    errors->lines.items[0]);
    }
    if (r < 0)
        option_fini(t, config);
    return r;
}

void option_fini(const struct option_table *t, void *config)
{
    for (const struct option_row *row = t->rows; row->key; row++)
        option_value_fini(row, config);
    for (const struct option_group *g = first_group(t); g->section; g++) {
        struct option_group_items *items = group_items(g, config);
        for (size_t i = 0; i < items->count; i++)
            item_free(g, items->items[i]);
        mem_free(items->items);
    }
    memset(config, 0, t->size_bytes);
}

/* --- comparing --------------------------------------------------------------------------------------------------- */

static bool equal_strings(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool equal_lists(const struct option_list *a, const struct option_list *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    return true;
}

bool option_equal(const struct option_row *row, const void *a, const void *b)
{
    const void *fa = option_field(row, a), *fb = option_field(row, b);
    switch (row->type) {
    case OPTION_BOOL:
        return *(const bool *)fa == *(const bool *)fb;
    case OPTION_DOUBLE:
        return !(*(const double *)fa < *(const double *)fb) && !(*(const double *)fa > *(const double *)fb);
    case OPTION_INT:
    case OPTION_DURATION:
    case OPTION_SIZE:
        return memcmp(fa, fb, sizeof(uint64_t)) == 0;
    case OPTION_ENUM:
        return *(const unsigned *)fa == *(const unsigned *)fb;
    case OPTION_STRING:
    case OPTION_PATH:
    case OPTION_HOST_PORT:
        return equal_strings(*(char *const *)fa, *(char *const *)fb);
    case OPTION_STRING_LIST:
    case OPTION_LISTEN_LIST:
        return equal_lists(fa, fb);
    case OPTION_TYPE_COUNT_:
        break;
    }
    assert(row->type < OPTION_TYPE_COUNT_);
    return true;
}

static void diff_items(const struct option_group *g, const void *a, const void *b, option_diff_fn *fn,
                       void *arg)
{
    char key[2 * KEY_MAX];
    for (const struct option_row *row = g->rows; row->key; row++) {
        if (option_equal(row, a, b))
            continue;
        (void)snprintf(key, sizeof(key), "%s.%s.%s", g->section, *item_name((void *)(uintptr_t)a), row->key);
        fn(arg, key, row);
    }
}

static void diff_group(const struct option_group *g, const void *a, const void *b, option_diff_fn *fn,
                       void *arg)
{
    const struct option_group_items *ia = group_items(g, a), *ib = group_items(g, b);
    size_t i = 0, j = 0;
    while (i < ia->count || j < ib->count) {
        int order = i == ia->count ? 1 : j == ib->count ? -1 : compare_items(&ia->items[i], &ib->items[j]);
        if (order == 0) {
            diff_items(g, ia->items[i++], ib->items[j++], fn, arg);
            continue;
        }
        char key[KEY_MAX];
        void *only = order < 0 ? ia->items[i++] : ib->items[j++];
        (void)snprintf(key, sizeof(key), "%s.%s", g->section,
                       *item_name(only)); /* names are checked: it fits */
        fn(arg, key, NULL);
    }
}

void option_diff(const struct option_table *t, const void *a, const void *b, option_diff_fn *fn, void *arg)
{
    for (const struct option_row *row = t->rows; row->key; row++)
        if (!option_equal(row, a, b))
            fn(arg, row->key, row);
    for (const struct option_group *g = first_group(t); g->section; g++)
        diff_group(g, a, b, fn, arg);
}
