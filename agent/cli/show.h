/* What commands print for people: tables, instants, values. Everything from outside is made harmless for a terminal. */
#ifndef CARILLON_AGENT_CLI_SHOW_H
#define CARILLON_AGENT_CLI_SHOW_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/base/buf.h"

/* Something that was to be shown found no memory: cli_run() says so at the end, as it does for a stream that has failed, and the
 * command counts as failed. */
void show_set_lost(void);
/* Whether that happened since the last call. */
bool show_take_lost(void);

/* What TEXT holds; when an append to it was lost, that is noted as show_set_lost() does. */
const char *show_text(const struct buf *text);

/* Columns as wide as their widest cell; the last one is not padded. */
struct show_table {
    size_t columns;
    size_t cells;    /* so far, heads included */
    struct buf text; /* the cells, each ends with NUL */
};

/* HEADS: names of COLUMNS columns; NULL: a table without headline. */
void show_table_init(struct show_table *t, size_t columns, const char *const *heads);
void show_table_fini(struct show_table *t);
static inline void show_table_fini_auto_(struct show_table *t)
{
    show_table_fini(t);
}
/* The next cell. An empty text is shown as "-". */
void show_cell(struct show_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* All of it, or nothing and show_set_lost(). */
void show_table_print(const struct show_table *t, FILE *out);

/* "2026-11-23T08:00:00Z"; with milliseconds when there are some. */
#define SHOW_INSTANT_SIZE 32
void show_instant(char ret[SHOW_INSTANT_SIZE], int64_t ms);
/* "in 2h 5m", "3d 4h ago", "now". */
#define SHOW_RELATIVE_SIZE 32
void show_relative(char ret[SHOW_RELATIVE_SIZE], int64_t ms, int64_t now_ms);
/* Both, of a JSON string with an instant: "2026-11-23T08:00:00Z (in 2h 5m)"; "" for anything else. */
#define SHOW_BOTH_SIZE (SHOW_INSTANT_SIZE + SHOW_RELATIVE_SIZE + 4)
void show_both(char ret[SHOW_BOTH_SIZE], const json_t *instant, int64_t now_ms);
/* A job's state, for people: one that is done but for fires that are still tried says so. */
#define SHOW_STATE_SIZE 48
void show_state(char ret[SHOW_STATE_SIZE], const json_t *status);

/* When a job is due next: "" for one that is paused (its dues are skipped) or never due again. */
void show_next_due(char ret[SHOW_BOTH_SIZE], const json_t *status, int64_t now_ms);

/* The member KEY as text, "" when it is none. Borrowed. */
const char *show_string(const json_t *obj, const char *key);
/* What a write warned of (`warnings` of its ANSWER), a line each that begins with ID. */
void show_warnings(FILE *out, const char *id, const json_t *answer);
/* V as JSON, indented, and a newline; without V, or memory, show_set_lost(). */
void show_json(FILE *out, const json_t *v);
/* V as JSON on a line of its own, whole or not at all. ERR_NOMEM, ERR_TOO_BIG. */
int show_line(FILE *out, const json_t *v, struct err *e);
/* S as a JSON string; "(not text)" when it is no UTF-8. A new reference; NULL: no memory. */
json_t *show_text_json(const char *s, size_t len);
/* Add ITEM, which is taken, to the LIST that is to be shown; without either, or memory, show_set_lost(). */
void show_append(json_t *list, json_t *item);
/* V on one line, a string bare; cut after MAX bytes. For mem_free(). */
char *show_compact(const json_t *v, size_t max);
/* S with control characters as '?', and newlines too unless KEEP_NEWLINES. For mem_free(). */
char *show_clean(const char *s, bool keep_newlines);

#endif
