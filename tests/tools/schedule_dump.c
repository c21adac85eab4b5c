/* What agent/core says about zones and schedules, for tests/it/test_schedules.py to compare with other implementations.
 * Reads one question a line from stdin, fields separated by tabs, and answers each with one line:
 *
 *   zone NAME FROM_S TO_S        "at:offset" for the first instant and each change within, separated by spaces
 *   wall NAME WALL_S             "kind first second"
 *   next NAME GAP REPEAT SHORT_MONTH AFTER_MS COUNT EXPR...    "due:note" of the next dues, separated by spaces
 *   last NAME BEFORE_MS EXPR     the newest due before, or "none"
 *
 * or "error: " and the text. A wrong question ends it with status 1. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/schedule.h"
#include "agent/io/tzload.h"

#define FIELDS_MAX 24

struct question {
    char *fields[FIELDS_MAX];
    size_t count;
    const struct tz *tz;
};

static int64_t number(const struct question *q, size_t i)
{
    return strtoll(q->fields[i], NULL, 10);
}

static void answer_zone(const struct question *q)
{
    int64_t at_s = number(q, 2), end_s = number(q, 3);
    for (; at_s < end_s; at_s = tz_next_change_s(q->tz, at_s))
        printf("%" PRId64 ":%" PRId32 " ", at_s, tz_offset_s(q->tz, at_s));
}

static void answer_wall(const struct question *q)
{
    static const char *const kinds[] = {"once", "gap", "twice"};
    struct tz_wall w;
    tz_from_wall(q->tz, number(q, 2), &w);
    printf("%s %" PRId64 " %" PRId64, kinds[w.kind], w.first_s, w.second_s);
}

static struct schedule *compile(const struct question *q, size_t first, struct schedule_options *o)
{
    struct schedule_expr exprs[FIELDS_MAX];
    struct schedule *s = NULL;
    struct err e = {0};
    for (size_t i = first; i < q->count; i++)
        exprs[i - first] = (struct schedule_expr){q->fields[i], strlen(q->fields[i])};
    o->tz = q->tz;
    o->starts_ms = o->ends_ms = SCHEDULE_NONE;
    o->min_interval_ms = 1;
    if (schedule_parse(exprs, q->count - first, o, &s, NULL, &e) < 0)
        printf("error: %s", e.text);
    return s;
}

static void answer_next(const struct question *q)
{
    struct schedule_options o = {
        .gap = strcmp(q->fields[2], "skip") == 0 ? SCHEDULE_GAP_SKIP : SCHEDULE_GAP_SHIFT,
        .repeat = strcmp(q->fields[3], "second") == 0 ? SCHEDULE_REPEAT_SECOND
                  : strcmp(q->fields[3], "both") == 0 ? SCHEDULE_REPEAT_BOTH
                                                      : SCHEDULE_REPEAT_FIRST,
        .short_month =
            strcmp(q->fields[4], "last") == 0 ? SCHEDULE_SHORT_MONTH_LAST : SCHEDULE_SHORT_MONTH_SKIP,
    };
    AUTO(schedule_free) struct schedule *s = compile(q, 7, &o);
    struct schedule_due due = {.due_ms = number(q, 5)};
    for (int64_t left = number(q, 6); s && left > 0 && schedule_next(s, due.due_ms, &due); left--) {
        const char *note = schedule_note_name(due.note);
        printf("%" PRId64 ":%s ", due.due_ms, note ? note : "");
    }
}

static void answer_last(const struct question *q)
{
    struct schedule_options o = {0};
    AUTO(schedule_free) struct schedule *s = compile(q, 3, &o);
    struct schedule_due due;
    if (s && schedule_last_before(s, number(q, 2), &due))
        printf("%" PRId64, due.due_ms);
    else if (s)
        printf("none");
}

static const struct {
    const char *name;
    size_t fields_min;
    void (*answer)(const struct question *q);
} questions[] = {
    {"zone", 4, answer_zone}, {"wall", 3, answer_wall}, {"next", 8, answer_next}, {"last", 4, answer_last}};

static int answer(struct tzload *zones, char *line)
{
    struct question q = {.count = 0};
    struct err e = {0};
    line[strcspn(line, "\n")] = '\0';
    for (char *field; q.count < FIELDS_MAX && (field = strsep(&line, "\t"));)
        q.fields[q.count++] = field;
    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        if (strcmp(q.fields[0], questions[i].name) != 0 || q.count < questions[i].fields_min)
            continue;
        if (tzload_get(zones, q.fields[1], strlen(q.fields[1]), &q.tz, &e) < 0)
            printf("error: %s", e.text);
        else
            questions[i].answer(&q);
        putchar('\n');
        return 0;
    }
    fprintf(stderr, "not a question: '%s'\n", q.fields[0]);
    return -1;
}

int main(void)
{
    struct tzload *zones = NULL;
    char *line = NULL;
    size_t size = 0;
    int rc = tzload_new(NULL, &zones, NULL);
    while (rc == 0 && getline(&line, &size, stdin) > 0)
        rc = answer(zones, line);
    free(line);
    tzload_free(zones);
    return rc < 0;
}
