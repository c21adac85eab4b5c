#include "agent/cli/dues.h"

#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/show.h"

void dues_init(struct dues *d, const char *job, const char *timezone)
{
    d->doc = json_pack("{s:s?,s:s,s:[]}", "job", job, "timezone", timezone, "next");
}

void dues_fini(struct dues *d)
{
    json_decref(d->doc);
    d->doc = NULL;
}

void dues_add(struct dues *d, int64_t due_ms, const char *local, const char *note)
{
    char due[TEXT_INSTANT_SIZE];
    text_instant_print(due, due_ms);
    json_t *one = json_pack("{s:s,s:s,s:s?}", "due", due, "local", local, "note", note);
    show_append(json_object_get(d->doc, "next"), one);
}

/* "Mon" for the wall time "2026-11-23T…"; "" when it is none. */
static const char *weekday(const char *local)
{
    static const char *const names[] = {"Thu", "Fri", "Sat", "Sun",
                                        "Mon", "Tue", "Wed"}; /* 1970-01-01 was one */
    uint32_t year, month, day;
    if (strlen(local) < 10 || text_u32(local, 4, 1970, 9999, &year, NULL) < 0)
        return "";
    /* text_u32 takes no leading zeros */
    if (text_u32(local + 5 + (local[5] == '0'), 2 - (local[5] == '0'), 1, 12, &month, NULL) < 0 ||
        text_u32(local + 8 + (local[8] == '0'), 2 - (local[8] == '0'), 1, 31, &day, NULL) < 0)
        return "";
    return names[text_days_from_civil(year, month, day) % 7];
}

static const char *explain_note(const char *note)
{
    static const char *const notes[][2] = {
        {"dst_gap", "moved: the clocks skip this time"},
        {"dst_repeat", "the clocks show this time twice"},
        {"short_month", "moved: the month has no such day"},
    };
    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++)
        if (strcmp(notes[i][0], note) == 0)
            return notes[i][1];
    return note;
}

void dues_print_document(const struct cli *cli, const json_t *doc)
{
    static const char *const heads[] = {"DUE (UTC)", "LOCAL", "WHEN", "NOTE"};
    const json_t *next = json_object_get(doc, "next");
    int64_t now_ms = cli->now_ms(), ms;
    if (json_array_size(next) == 0) {
        (void)fputs("never due again\n", cli->out);
        return;
    }
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 4, heads);
    for (size_t i = 0; i < json_array_size(next); i++) {
        const json_t *one = json_array_get(next, i);
        const char *due = show_string(one, "due"), *local = show_string(one, "local"),
                   *note = show_string(one, "note");
        char at[SHOW_INSTANT_SIZE] = "", when[SHOW_RELATIVE_SIZE] = "";
        if (text_instant_ms(due, strlen(due), &ms, NULL) == 0) {
            show_instant(at, ms);
            show_relative(when, ms, now_ms);
        }
        show_cell(&t, "%s", at);
        show_cell(&t, "%s %s", weekday(local), local);
        show_cell(&t, "%s", when);
        show_cell(&t, "%s", explain_note(note));
    }
    show_table_print(&t, cli->out);
}

void dues_print(const struct dues *d, const struct cli *cli, bool json)
{
    if (!d->doc)
        show_set_lost();
    else if (json)
        show_json(cli->out, d->doc);
    else
        dues_print_document(cli, d->doc);
}
