#include "agent/cli/show.h"

#include <stdarg.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"

#define TABLE_MAX  ((size_t)256 << 20)
#define SECOND_MS  ((uint64_t)1000)
#define COLUMN_GAP 2

/* --- what could not be shown ----------------------------------------------------------------------------------------- */

static bool lost;

void show_set_lost(void)
{
    lost = true;
}

bool show_take_lost(void)
{
    bool was = lost;
    lost = false;
    return was;
}

const char *show_text(const struct buf *text)
{
    if (buf_failed(text))
        show_set_lost();
    return buf_str(text);
}

/* --- tables -------------------------------------------------------------------------------------------------------- */

void show_table_init(struct show_table *t, size_t columns, const char *const *heads)
{
    *t = (struct show_table){.columns = columns, .text = BUF_INIT(TABLE_MAX)};
    for (size_t i = 0; heads && i < columns; i++)
        show_cell(t, "%s", heads[i]);
}

void show_table_fini(struct show_table *t)
{
    buf_fini(&t->text);
}

void show_cell(struct show_table *t, const char *fmt, ...)
{
    size_t start = t->text.len;
    va_list ap;
    va_start(ap, fmt);
    buf_addfv(&t->text, fmt, ap);
    va_end(ap);
    if (t->text.len == start)
        buf_add_char(&t->text, '-');
    for (size_t i = start; i < t->text.len; i++)
        if ((unsigned char)t->text.data[i] < 0x20 || t->text.data[i] == 0x7f)
            t->text.data[i] = '?';
    buf_add_char(&t->text, '\0');
    t->cells += !buf_failed(&t->text);
}

/* Characters, as columns of a terminal: what is not ASCII counts one. */
static size_t width_of(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

void show_table_print(const struct show_table *t, FILE *out)
{
    size_t widths[16] = {0}, columns = t->columns < 16 ? t->columns : 16;
    const char *cell = buf_str(&t->text);
    if (buf_failed(&t->text)) {
        show_set_lost();
        return;
    }
    for (size_t i = 0; i < t->cells; i++, cell += strlen(cell) + 1)
        if (width_of(cell) > widths[i % columns])
            widths[i % columns] = width_of(cell);
    cell = buf_str(&t->text);
    for (size_t i = 0; i < t->cells; i++, cell += strlen(cell) + 1) {
        bool last = i % columns == columns - 1;
        int pad = last ? 0 : (int)(widths[i % columns] - width_of(cell) + COLUMN_GAP);
        (void)fprintf(out, "%s%*s%s", cell, pad, "",
                      last ? "\n" : ""); /* cli_run() looks for errors at the end */
    }
}

/* --- instants ------------------------------------------------------------------------------------------------------ */

void show_instant(char ret[SHOW_INSTANT_SIZE], int64_t ms)
{
    char text[TEXT_INSTANT_SIZE];
    text_instant_print(text, ms);
    if (memcmp(text + 19, ".000", 4) == 0)
        (void)snprintf(ret, SHOW_INSTANT_SIZE, "%.19sZ", text); /* 20 characters */
    else
        (void)snprintf(ret, SHOW_INSTANT_SIZE, "%s", text); /* 24 */
}

/* The two largest units of MS: enough to grasp, and short. */
static void print_span(char *ret, size_t size, uint64_t ms)
{
    static const struct {
        uint64_t ms;
        const char *name;
    } units[] = {{86400 * SECOND_MS, "d"},
                 {3600 * SECOND_MS, "h"},
                 {60 * SECOND_MS, "m"},
                 {SECOND_MS, "s"},
                 {1, "ms"}};
    size_t i = 0;
    while (i < 4 && ms < units[i].ms)
        i++;
    uint64_t rest = ms % units[i].ms;
    size_t n = (size_t)snprintf(ret, size, "%llu%s", (unsigned long long)(ms / units[i].ms), units[i].name);
    if (i < 3 && rest / units[i + 1].ms > 0 && n < size)
        (void)snprintf(ret + n, size - n, " %llu%s", (unsigned long long)(rest / units[i + 1].ms),
                       units[i + 1].name); /* fits the callers' buffers */
}

void show_relative(char ret[SHOW_RELATIVE_SIZE], int64_t ms, int64_t now_ms)
{
    char span[24];
    if (ms == now_ms) {
        (void)snprintf(ret, SHOW_RELATIVE_SIZE, "now");
        return;
    }
    print_span(span, sizeof(span),
               ms > now_ms ? (uint64_t)ms - (uint64_t)now_ms : (uint64_t)now_ms - (uint64_t)ms);
    (void)snprintf(ret, SHOW_RELATIVE_SIZE, ms > now_ms ? "in %s" : "%s ago", span); /* fits */
}

void show_both(char ret[SHOW_BOTH_SIZE], const json_t *instant, int64_t now_ms)
{
    const char *text = json_string_value(instant);
    int64_t ms;
    char at[SHOW_INSTANT_SIZE], relative[SHOW_RELATIVE_SIZE];
    ret[0] = '\0';
    if (!text || text_instant_ms(text, strlen(text), &ms, NULL) < 0)
        return;
    show_instant(at, ms);
    show_relative(relative, ms, now_ms);
    (void)snprintf(ret, SHOW_BOTH_SIZE, "%s (%s)", at, relative); /* fits */
}

/* --- values -------------------------------------------------------------------------------------------------------- */

const char *show_string(const json_t *obj, const char *key)
{
    const char *s = json_string_value(json_object_get(obj, key));
    return s ? s : "";
}

void show_state(char ret[SHOW_STATE_SIZE], const json_t *status)
{
    json_int_t pending = json_integer_value(json_object_get(json_object_get(status, "counts"), "pending"));
    const char *state = show_string(status, "state");
    if (strcmp(state, "done") == 0 && pending > 0)
        (void)snprintf(ret, SHOW_STATE_SIZE, "done, %lld pending", (long long)pending); /* 33 characters */
    else
        (void)snprintf(ret, SHOW_STATE_SIZE, "%s", state); /* a short word */
}

void show_next_due(char ret[SHOW_BOTH_SIZE], const json_t *status, int64_t now_ms)
{
    bool paused = strcmp(show_string(status, "state"), "paused") == 0;
    show_both(ret, paused ? NULL : json_object_get(status, "next_due"), now_ms);
}

void show_json(FILE *out, const json_t *v)
{
    if (json_dumpf(v, out, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15)) < 0)
        show_set_lost();
    (void)fputc('\n', out); /* cli_run() looks for errors at the end */
}

int show_line(FILE *out, const json_t *v, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(TABLE_MAX);
    int r = json_print_ordered(v, &text, e);
    if (r == 0)
        (void)fprintf(out, "%s\n", buf_str(&text)); /* cli_run() looks for errors at the end */
    return r;
}

json_t *show_text_json(const char *s, size_t len)
{
    return text_utf8_valid(s, len) ? json_stringn(s, len) : json_string("(not text)");
}

void show_append(json_t *list, json_t *item)
{
    if (json_array_append_new(list, item) < 0)
        show_set_lost();
}

char *show_clean(const char *s, bool keep_newlines)
{
    char *copy = mem_strdup(s);
    for (char *c = copy; *c; c++)
        if (((unsigned char)*c < 0x20 && !(keep_newlines && *c == '\n')) || *c == 0x7f)
            *c = '?';
    return copy;
}

char *show_compact(const json_t *v, size_t max)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(TABLE_MAX);
    int r = 0;
    if (json_is_string(v))
        buf_add(&text, json_string_value(v), json_string_length(v));
    else if (v)
        r = json_print_ordered(v, &text, NULL);
    if (r < 0 || buf_failed(&text))
        show_set_lost();
    if (text.len > max) {
        buf_truncate(&text, text_utf8_cut(buf_str(&text), text.len, max));
        buf_add_str(&text, "…");
    }
    return show_clean(buf_str(&text), false);
}

void show_warnings(FILE *out, const char *id, const json_t *answer)
{
    const json_t *warnings = json_object_get(answer, "warnings");
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        AUTO(mem_free) char *text = show_compact(json_array_get(warnings, i), 500);
        AUTO(mem_free) char *clean = show_clean(text, false);
        (void)fprintf(out, "%s: warning: %s\n", id, clean); /* cli_run() looks for errors at the end */
    }
}
