/* Printing of options: values, effective configuration, commented sample, list. */
#include <inttypes.h>
#include <string.h>

#include "agent/base/option.h"
#include "agent/base/option_value.h"
#include "agent/base/text.h"
#include "agent/base/json.h"

/* --- values ------------------------------------------------------------------------------------------------------ */

static void print_double(struct buf *out, double v)
{
    buf_addf(out, "%.15g", v);
}

static void print_u64(const struct option_row *row, uint64_t v, struct buf *out)
{
    char text[TEXT_DURATION_SIZE];
    buf_add(out, text, row->type == OPTION_SIZE ? text_size_print(text, v) : text_duration_print(text, v));
}

/* A field's value that is one text. */
static void print_scalar(const struct option_row *row, const void *config, struct buf *out)
{
    const void *field = option_field(row, config);
    switch (row->type) {
    case OPTION_BOOL:
        buf_add_str(out, *(const bool *)field ? "true" : "false");
        break;
    case OPTION_INT:
        buf_add_i64(out, *(const int64_t *)field);
        break;
    case OPTION_DOUBLE:
        print_double(out, *(const double *)field);
        break;
    case OPTION_DURATION:
    case OPTION_SIZE:
        print_u64(row, *(const uint64_t *)field, out);
        break;
    case OPTION_ENUM:
        buf_add_str(out, row->allowed[*(const unsigned *)field]);
        break;
    case OPTION_STRING:
    case OPTION_PATH:
    case OPTION_HOST_PORT:
        buf_add_str(out, *(char *const *)field ? *(char *const *)field : "");
        break;
    case OPTION_STRING_LIST:
    case OPTION_LISTEN_LIST:
    case OPTION_TYPE_COUNT_:
        break;
    }
}

static bool is_given(const struct option_row *row, const void *config)
{
    if (option_is_list(row))
        return ((const struct option_list *)option_field(row, config))->count > 0;
    if (row->type == OPTION_STRING || row->type == OPTION_PATH || row->type == OPTION_HOST_PORT)
        return *(char *const *)option_field(row, config) != NULL;
    return true;
}

void option_print_value(const struct option_row *row, const void *config, struct buf *out)
{
    if (!is_given(row, config))
        return;
    if (row->flags & OPTION_SECRET) {
        buf_add_str(out, "***");
        return;
    }
    if (!option_is_list(row)) {
        print_scalar(row, config, out);
        return;
    }
    const struct option_list *list = option_field(row, config);
    for (size_t i = 0; i < list->count; i++)
        buf_addf(out, "%s%s", i ? "," : "", list->items[i]);
}

static const char *type_name(const struct option_row *row)
{
    static const char *const names[OPTION_TYPE_COUNT_] = {
        [OPTION_BOOL] = "true or false",
        [OPTION_INT] = "a whole number",
        [OPTION_DOUBLE] = "a number",
        [OPTION_DURATION] = "a duration",
        [OPTION_SIZE] = "a size",
        [OPTION_STRING] = "a text",
        [OPTION_PATH] = "a path",
        [OPTION_ENUM] = "one of",
        [OPTION_HOST_PORT] = "host:port",
        [OPTION_STRING_LIST] = "a list of texts",
        [OPTION_LISTEN_LIST] = "a list of host:port or unix:/path",
    };
    return names[row->type];
}

static void print_bound(const struct option_row *row, double v, struct buf *out)
{
    if (row->type == OPTION_SIZE || row->type == OPTION_DURATION)
        print_u64(row, (uint64_t)v, out);
    else
        print_double(out, v);
}

void option_print_allowed(const struct option_row *row, struct buf *out)
{
    bool text = row->type == OPTION_STRING || row->type == OPTION_HOST_PORT;
    buf_add_str(out, type_name(row));
    for (size_t i = 0; row->type == OPTION_ENUM && row->allowed[i]; i++)
        buf_addf(out, "%s%s", i ? ", " : " ", row->allowed[i]);
    if ((row->min == 0 && row->max == 0) || row->type == OPTION_ENUM || row->type == OPTION_BOOL)
        return;
    buf_add_str(out, text || option_is_list(row) ? " of " : " from ");
    print_bound(row, row->min, out);
    buf_add_str(out, " to ");
    print_bound(row, row->max, out);
    if (text || option_is_list(row))
        buf_add_str(out, text ? " bytes" : " items");
}

/* --- YAML -------------------------------------------------------------------------------------------------------- */

/* As YAML, quoted unless it surely needs no quotes. */
static void print_yaml_text(const char *s, struct buf *out)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-:";
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/.";
    size_t len = strlen(s);
    bool plain = len > 0 && strspn(s, safe) == len && strchr(first, s[0]) && s[len - 1] != ':' &&
                 strcasecmp(s, "null") != 0 && strncmp(s, "...", 3) != 0;
    if (plain)
        buf_add_str(out, s);
    else
        json_print_string(out, s, len); /* YAML's double quoted style reads JSON strings */
}

static void print_yaml_value(const struct option_row *row, const void *config, struct buf *out)
{
    if (row->flags & OPTION_SECRET) {
        buf_add_str(out, "\"***\"");
        return;
    }
    if (!option_is_list(row)) {
        AUTO(buf_fini) struct buf text = BUF_INIT(8192);
        print_scalar(row, config, &text);
        buf_fail_with(out, &text);
        print_yaml_text(buf_str(&text), out);
        return;
    }
    const struct option_list *list = option_field(row, config);
    buf_add_char(out, '[');
    for (size_t i = 0; i < list->count; i++) {
        if (i > 0)
            buf_add_str(out, ", ");
        json_print_string(out, list->items[i], strlen(list->items[i]));
    }
    buf_add_char(out, ']');
}

static void indent(struct buf *out, size_t level)
{
    for (size_t i = 0; i < level; i++)
        buf_add_str(out, "  ");
}

/* Segments that A and B have in common, their last ones aside. */
static size_t common_sections(const char *a, const char *b)
{
    size_t n = 0;
    for (;;) {
        size_t la = strcspn(a, "."), lb = strcspn(b, ".");
        if (a[la] != '.' || b[lb] != '.' || la != lb || memcmp(a, b, la) != 0)
            return n;
        n++;
        a += la + 1;
        b += lb + 1;
    }
}

static const char *section_help(const struct option_table *t, const char *section, size_t len)
{
    for (const char *const *h = t->section_help; h && h[0]; h += 2)
        if (strlen(h[0]) == len && memcmp(h[0], section, len) == 0)
            return h[1];
    return NULL;
}

static void print_comment(struct buf *out, size_t level, const char *mark, const char *text)
{
    while (*text) {
        size_t room = 106 - 2 * level - strlen(mark), len = strlen(text), n = len;
        if (len > room) {
            for (n = room; n > 0 && text[n] != ' ';)
                n--;
            n = n > 0 ? n : strcspn(text, " ");
        }
        indent(out, level);
        buf_add_str(out, mark);
        buf_add(out, text, n);
        buf_add_char(out, '\n');
        text += n;
        text += *text == ' ';
    }
}

/* Open the sections of KEY that PREVIOUS (may be "") did not open. HELP_OF: NULL = without comments. Returns the level
 * of the last segment, *RET_LEAF points at it. */
static size_t print_sections(const struct option_table *help_of, const char *previous, const char *key,
                             size_t base_level, const char *mark, struct buf *out, const char **ret_leaf)
{
    size_t common = common_sections(previous, key), level = 0;
    const char *at = key;
    for (const char *dot = strchr(at, '.'); dot; at = dot + 1, dot = strchr(at, '.'), level++) {
        if (level < common)
            continue;
        const char *help = help_of ? section_help(help_of, key, (size_t)(dot - key)) : NULL;
        if (help_of && level == 0 && out->len > 0)
            buf_add_char(out, '\n');
        if (help)
            print_comment(out, base_level + level, "# ", help);
        indent(out, base_level + level);
        buf_addf(out, "%s%.*s:\n", mark, (int)(dot - at), at);
    }
    *ret_leaf = at;
    return base_level + level;
}

static void print_rows_yaml(const struct option_row *rows, const void *config, size_t level, struct buf *out)
{
    const char *previous = "", *leaf;
    for (; rows->key; rows++) {
        if (!is_given(rows, config) && !rows->def) /* emptied against a default is shown */
            continue;
        size_t at = print_sections(NULL, previous, rows->key, level, "", out, &leaf);
        indent(out, at);
        buf_addf(out, "%s: ", leaf);
        print_yaml_value(rows, config, out);
        buf_add_char(out, '\n');
        previous = rows->key;
    }
}

void option_print_config(const struct option_table *t, const void *config, struct buf *out)
{
    print_rows_yaml(t->rows, config, 0, out);
    for (const struct option_group *g = t->groups; g && g->section; g++) {
        const struct option_group_items *items =
            (const struct option_group_items *)((const char *)config + g->offset);
        if (items->count > 0)
            buf_addf(out, "%s:\n", g->section);
        for (size_t i = 0; i < items->count; i++) {
            buf_add_str(out, "  ");
            print_yaml_text(*(char *const *)items->items[i], out);
            buf_add_str(out, ":\n");
            print_rows_yaml(g->rows, items->items[i], 2, out);
        }
    }
}

/* --- sample ------------------------------------------------------------------------------------------------------ */

static void print_variable(const struct option_table *t, const char *key, struct buf *out)
{
    buf_addf(out, "%s_", t->env_prefix);
    for (const char *c = key; *c; c++)
        buf_add_char(out, *c == '.' ? '_' : *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c);
}

/* "Help. (a duration from 1s to 1m; reloaded; CARILLON_X_Y)" */
static void print_row_help(const struct option_table *t, const struct option_row *row, size_t level,
                           const char *mark, bool variable, struct buf *out)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(4096);
    buf_addf(&text, "%s (", row->help ? row->help : "");
    option_print_allowed(row, &text);
    if (row->flags & OPTION_RELOAD)
        buf_add_str(&text, "; reloaded");
    if (variable) {
        buf_add_str(&text, "; ");
        print_variable(t, row->key, &text);
    }
    buf_add_char(&text, ')');
    buf_fail_with(out, &text);
    print_comment(out, level, mark, buf_str(&text));
}

static void print_default(const struct option_row *row, struct buf *out)
{
    if (!row->def)
        return;
    if (!option_is_list(row)) {
        print_yaml_text(row->def, out);
        return;
    }
    buf_add_char(out, '[');
    for (const char *at = row->def; *at;) {
        size_t n = strcspn(at, ",");
        json_print_string(out, at, n);
        at += n;
        if (*at == ',') {
            buf_add_str(out, ", ");
            at++;
        }
    }
    buf_add_char(out, ']');
}

static void print_sample_row(const struct option_table *t, const struct option_row *row, const char *previous,
                             struct buf *out)
{
    const char *leaf;
    size_t level = print_sections(t, previous, row->key, 0, "", out, &leaf);
    print_row_help(t, row, level, "# ", true, out);
    indent(out, level);
    buf_addf(out, "%s%s:%s", row->def ? "" : "#", leaf, row->def ? " " : "");
    print_default(row, out);
    buf_add_char(out, '\n');
}

/* Out of the way twice: without its mark it would be a value, not the default. */
static void print_sample_extra(const struct option_extra *extra, struct buf *out)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(4096);
    buf_addf(&text, "%s (%s%s)", extra->help, extra->allowed,
             extra->flags & OPTION_RELOAD ? "; reloaded" : "");
    buf_fail_with(out, &text);
    print_comment(out, 1, "#  # ", buf_str(&text));
    buf_addf(out, "  #  #%s: %s\n", extra->key, extra->sample);
}

static void print_sample_group(const struct option_table *t, const struct option_group *g, struct buf *out)
{
    buf_add_char(out, '\n');
    if (g->help)
        print_comment(out, 0, "# ", g->help);
    buf_addf(out, "%s:\n  #<name>:\n", g->section);
    const char *previous = "", *leaf;
    for (const struct option_row *row = g->rows; row->key; row++) {
        size_t level = print_sections(NULL, previous, row->key, 1, "#  ", out, &leaf);
        print_row_help(t, row, 1, "#  # ", false, out);
        buf_add_str(out, "  #");
        indent(out, level);
        buf_addf(out, "%s:%s", leaf, row->def ? " " : "");
        print_default(row, out);
        buf_add_char(out, '\n');
        previous = row->key;
    }
    for (const struct option_extra *x = g->extras; x && x->key; x++)
        print_sample_extra(x, out);
}

void option_print_sample(const struct option_table *t, struct buf *out)
{
    const char *previous = "";
    for (const struct option_row *row = t->rows; row->key; row++) {
        print_sample_row(t, row, previous, out);
        previous = row->key;
    }
    for (const struct option_group *g = t->groups; g && g->section; g++)
        print_sample_group(t, g, out);
}

/* --- list -------------------------------------------------------------------------------------------------------- */

static void print_row_line(const char *prefix, const struct option_row *row, struct buf *out)
{
    buf_addf(out, "%s%s\t", prefix, row->key);
    option_print_allowed(row, out);
    buf_addf(out, "\t%s\t%s\t%s\n", row->def ? row->def : "", row->flags & OPTION_RELOAD ? "yes" : "no",
             row->help ? row->help : "");
}

void option_print_rows(const struct option_table *t, struct buf *out)
{
    buf_add_str(out, "key\tvalue\tdefault\treload\thelp\n");
    for (const struct option_row *row = t->rows; row->key; row++)
        print_row_line("", row, out);
    for (const struct option_group *g = t->groups; g && g->section; g++) {
        AUTO(buf_fini) struct buf prefix = BUF_INIT(128);
        buf_addf(&prefix, "%s.<name>.", g->section);
        for (const struct option_row *row = g->rows; row->key; row++)
            print_row_line(buf_str(&prefix), row, out);
        for (const struct option_extra *x = g->extras; x && x->key; x++)
            buf_addf(out, "%s%s\t%s\t\t%s\t%s\n", buf_str(&prefix), x->key, x->allowed,
                     x->flags & OPTION_RELOAD ? "yes" : "no", x->help);
    }
}
