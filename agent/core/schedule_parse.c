#include "agent/core/schedule.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/schedule_impl.h"

#define INTERVAL_MAX_MS ((int64_t)3660 * 86400 * 1000) /* ten years */
#define AHEAD_S         ((int64_t)2 * 366 * 86400)     /* clock changes that are worth a warning */

struct parse {
    const struct schedule_options *o;
    struct schedule *s;
    struct schedule_issues *issues;
    size_t expr;
    bool failed;
    char first_error[200];
};

static void report(struct parse *p, enum schedule_issue_kind kind, enum schedule_field field, size_t offset,
                   const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static void report(struct parse *p, enum schedule_issue_kind kind, enum schedule_field field, size_t offset,
                   const char *fmt, ...)
{
    struct schedule_issue issue = {.kind = kind, .field = field, .expr = p->expr, .offset = offset};
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(issue.text, sizeof(issue.text), fmt, ap); /* cut when too long */
    va_end(ap);
    if (kind != SCHEDULE_WARNING && !p->failed) {
        memcpy(p->first_error, issue.text, sizeof(issue.text));
        p->failed = true;
    }
    struct schedule_issues *list = p->issues;
    if (list->count < SCHEDULE_ISSUES_MAX) {
        list->items[list->count++] = issue;
        return;
    }
    for (size_t i = 0; kind != SCHEDULE_WARNING && i < list->count; i++) {
        if (list->items[i].kind == SCHEDULE_WARNING) {
            list->items[i] = issue;
            return;
        }
    }
}

/* ---- @every, @at, @after --------------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The word that TEXT begins with is NAME in either case; RET_ARGUMENT is what follows it, without blanks around. */
static bool takes_word(const struct schedule_expr *x, const char *name, struct schedule_expr *ret_argument)
{
    size_t n = strlen(name);
    if (x->len < n || (x->len > n && !is_blank(x->text[n])))
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = x->text[i];
        if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != name[i])
            return false;
    }
    while (n < x->len && is_blank(x->text[n]))
        n++;
    *ret_argument = (struct schedule_expr){x->text + n, x->len - n};
    return true;
}

static bool parse_duration(struct parse *p, const char *word, const struct schedule_expr *x, size_t offset,
                           uint64_t *ret_ms)
{
    if (text_duration_ms(x->text, x->len, ret_ms, NULL) == 0)
        return true;
    report(p, SCHEDULE_ERROR, SCHEDULE_FIELD_SCHEDULE, offset,
           "%s: a duration such as 250ms, 90s, 1h30m or 7d must follow, at most 36500d", word);
    return false;
}

static void parse_every(struct parse *p, const struct schedule_expr *x, size_t offset, struct member *m)
{
    uint64_t interval_ms;
    int64_t least_ms = max_i64(p->o->min_interval_ms, 1);
    if (!parse_duration(p, "@every", x, offset, &interval_ms))
        return;
    if (interval_ms < (uint64_t)least_ms || interval_ms > INTERVAL_MAX_MS) {
        char least[TEXT_DURATION_SIZE], most[TEXT_DURATION_SIZE];
        (void)text_duration_print(least, (uint64_t)least_ms);
        (void)text_duration_print(most, INTERVAL_MAX_MS);
        report(p, SCHEDULE_ERROR, SCHEDULE_FIELD_SCHEDULE, offset,
               "@every: the interval must be from %s to %s", least, most);
        return;
    }
    m->kind = MEMBER_EVERY;
    m->interval_ms = (int64_t)interval_ms;
    m->at_ms = p->o->phase_ms % m->interval_ms;
    if (m->at_ms < 0)
        m->at_ms += m->interval_ms;
}

/* It was there before, so it has been judged: it does not come again, and is no mistake of this write. */
static bool was_there(const struct parse *p, int64_t at_ms)
{
    const struct schedule *before = p->o->before;
    for (size_t i = 0; before && i < before->count; i++)
        if (before->members[i].kind == MEMBER_AT && before->members[i].at_ms == at_ms)
            return true;
    return !before && p->o->before_unseen;
}

static void set_instant(struct parse *p, const char *word, int64_t at_ms, size_t offset, struct member *m)
{
    if (at_ms >= SCHEDULE_END_MS)
        report(p, SCHEDULE_ERROR, SCHEDULE_FIELD_SCHEDULE, offset,
               "%s: the instant must be before the year 2200", word);
    else if (p->o->arming && at_ms <= p->o->accepted_ms - SCHEDULE_PAST_MS && !was_there(p, at_ms))
        report(p, SCHEDULE_ERROR_PAST, SCHEDULE_FIELD_SCHEDULE, offset,
               "%s: the instant is more than 24h ago", word);
    m->kind = MEMBER_AT;
    m->at_ms = at_ms;
}

static void parse_at(struct parse *p, const struct schedule_expr *x, size_t offset, struct member *m)
{
    int64_t at_ms;
    if (text_instant_ms(x->text, x->len, &at_ms, NULL) == 0)
        set_instant(p, "@at", at_ms, offset, m);
    else
        report(p, SCHEDULE_ERROR, SCHEDULE_FIELD_SCHEDULE, offset,
               "@at: an RFC 3339 instant with its offset must follow, such as 2030-01-31T09:00:00Z or "
               "2030-01-31T09:00:00+01:00");
}

static void parse_after(struct parse *p, const struct schedule_expr *x, size_t offset, struct member *m)
{
    uint64_t delay_ms;
    if (!parse_duration(p, "@after", x, offset, &delay_ms))
        return;
    if (!p->o->arming) {
        report(p, SCHEDULE_ERROR, SCHEDULE_FIELD_SCHEDULE, 0,
               "@after: counts from a write; what is stored has @at");
        return;
    }
    set_instant(p, "@after", p->o->accepted_ms + (int64_t)delay_ms, offset, m);
}

/* ---- warnings -------------------------------------------------------------------------------------------------- */

#define MONTHS_OF_30 (1U << 4 | 1U << 6 | 1U << 9 | 1U << 11)

static void warn_short_months(struct parse *p, const struct cron *c)
{
    uint32_t days = c->days | c->near_days;
    if (c->short_month_last || c->days_star || days == UINT32_C(0xfffffffe))
        return;
    bool has_31 = days >> 31 & 1, has_30 = days >> 30 & 1, has_29 = days >> 29 & 1,
         in_february = c->months >> 2 & 1;
    if (!((has_31 && c->months & (MONTHS_OF_30 | 1U << 2)) || ((has_30 || has_29) && in_february)))
        return;
    if (has_29 && !has_30 && !has_31)
        report(
            p, SCHEDULE_WARNING, SCHEDULE_FIELD_SCHEDULE, 0,
            "29 February exists in leap years only; short_month \"last\" takes the month's last day instead");
    else
        report(
            p, SCHEDULE_WARNING, SCHEDULE_FIELD_SCHEDULE, 0,
            "day of month %d is skipped in months that lack it; short_month \"last\" takes their last day instead",
            has_31 ? 31 : 30);
}

static void warn_either_day(struct parse *p, const struct cron *c)
{
    if (!c->days_star && !c->weekdays_star)
        report(p, SCHEDULE_WARNING, SCHEDULE_FIELD_SCHEDULE, 0,
               "day of month and day of week are both given: a day that matches either of them is due");
}

static void warn_uneven(struct parse *p, const struct cron *c)
{
    for (unsigned f = CRON_SECOND; f <= CRON_HOUR; f++)
        if (c->uneven >> f & 1)
            report(
                p, SCHEDULE_WARNING, SCHEDULE_FIELD_SCHEDULE, 0,
                "%s: the step begins anew with each %s, so the last interval is shorter; @every keeps it even",
                cron_field_name((enum cron_field)f),
                f == CRON_HOUR ? "day" : cron_field_name((enum cron_field)(f + 1)));
}

/* WALL_S as "2027-03-28 02:30:00". */
static void print_wall(char text[TEXT_LOCAL_SIZE], int64_t wall_s)
{
    (void)text_local_print(text, wall_s * 1000, 0);
    text[10] = ' ';
    text[19] = '\0';
}

/* Whether dues are touched by the change that begins SPAN: a wall time that is jumped over or shown twice. */
static bool warn_change(struct parse *p, const struct cron *c, const struct tz_span *span)
{
    static const char *const repeat[] = {"the first counts", "the second counts", "both count"};
    int64_t before_s = span->start_s + span->before_s, after_s = span->start_s + span->offset_s, wall_s;
    char wall[TEXT_LOCAL_SIZE];
    if (!cron_next(c, min_i64(before_s, after_s), max_i64(before_s, after_s), &wall_s, NULL))
        return false;
    print_wall(wall, wall_s);
    if (after_s > before_s)
        report(p, SCHEDULE_WARNING, SCHEDULE_FIELD_SCHEDULE, 0, "%s does not exist in %s: %s (dst.gap)", wall,
               tz_name(p->s->tz),
               p->o->gap == SCHEDULE_GAP_SHIFT ? "due later by the length of the gap" : "not due");
    else
        report(p, SCHEDULE_WARNING, SCHEDULE_FIELD_SCHEDULE, 0, "%s occurs twice in %s: %s (dst.repeat)",
               wall, tz_name(p->s->tz), repeat[p->o->repeat]);
    return true;
}

/* The next gap and the next repetition that a fixed hour meets. */
static void warn_changes(struct parse *p, const struct cron *c)
{
    bool warned[2] = {false, false};
    struct tz_span span;
    tz_span_at(p->s->tz, p->o->accepted_ms / 1000, &span);
    int64_t until_s = min_i64(p->o->accepted_ms / 1000 + AHEAD_S, p->s->ends_ms / 1000);
    while (!c->elapsed && span.end_s < until_s) {
        tz_span_at(p->s->tz, span.end_s, &span);
        bool gap = span.offset_s > span.before_s;
        if (!warned[gap])
            warned[gap] = warn_change(p, c, &span);
    }
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static void parse_cron(struct parse *p, const struct schedule_expr *x, size_t offset, struct member *m)
{
    const struct schedule_options *o = p->o;
    struct cron_options options = {o->short_month == SCHEDULE_SHORT_MONTH_LAST, o->ns ? o->ns : "",
                                   o->id ? o->id : ""};
    struct cron_error problem;
    m->kind = MEMBER_CRON;
    if (cron_parse(x->text, x->len, &options, &m->cron, &problem) < 0) {
        report(p, SCHEDULE_ERROR, SCHEDULE_FIELD_SCHEDULE, offset + problem.offset, "%s", problem.text);
        return;
    }
    if (!o->arming)
        return;
    warn_short_months(p, &m->cron);
    warn_either_day(p, &m->cron);
    warn_uneven(p, &m->cron);
    warn_changes(p, &m->cron);
}

/* Single spaces; instants in UTC. */
static char *canonical(const struct member *m, const struct schedule_expr *x, struct err *e)
{
    struct buf b = BUF_INIT(SCHEDULE_TEXT_MAX);
    if (m->kind == MEMBER_AT) {
        char at[TEXT_INSTANT_SIZE];
        text_instant_print(at, m->at_ms);
        buf_add_str(&b, "@at ");
        buf_add_str(&b, at);
    } else {
        for (size_t i = 0; i < x->len; i++)
            if (!is_blank(x->text[i]))
                buf_add_char(&b, x->text[i]);
            else if (!is_blank(x->text[i - 1])) /* the first one is none */
                buf_add_char(&b, ' ');
    }
    char *text = buf_steal(&b, NULL, e);
    buf_fini(&b);
    return text;
}

static int parse_one(struct parse *p, const struct schedule_expr *given, struct member *m, struct err *e)
{
    struct schedule_expr x = *given, argument;
    while (x.len > 0 && is_blank(x.text[0]))
        x.text++, x.len--;
    while (x.len > 0 && is_blank(x.text[x.len - 1]))
        x.len--;
    if (given->len > SCHEDULE_TEXT_MAX) {
        report(p, SCHEDULE_ERROR, SCHEDULE_FIELD_SCHEDULE, 0, "an expression may have at most %d bytes",
               SCHEDULE_TEXT_MAX);
        return 0;
    }
    size_t offset = (size_t)(x.text - given->text);
    if (takes_word(&x, "@every", &argument))
        parse_every(p, &argument, (size_t)(argument.text - given->text), m);
    else if (takes_word(&x, "@at", &argument))
        parse_at(p, &argument, (size_t)(argument.text - given->text), m);
    else if (takes_word(&x, "@after", &argument))
        parse_after(p, &argument, (size_t)(argument.text - given->text), m);
    else
        parse_cron(p, &x, offset, m);
    if (p->failed)
        return 0;
    m->text = canonical(m, &x, e);
    return m->text ? 0 : err_wrap(e, "keep the schedule's text");
}

/* Recurring dues count from the write, so an instant that passed before it would stand out of order among them. */
static void check_mixed_past(struct parse *p)
{
    const struct schedule *s = p->s;
    if (p->failed || !p->o->arming || !schedule_is_recurring(s))
        return;
    for (p->expr = 0; p->expr < s->count; p->expr++) {
        const struct member *m = &s->members[p->expr];
        if (m->kind == MEMBER_AT && m->at_ms < p->o->accepted_ms && m->at_ms >= s->starts_ms &&
            m->at_ms < s->ends_ms && !was_there(p, m->at_ms))
            report(p, SCHEDULE_ERROR_PAST, SCHEDULE_FIELD_SCHEDULE, 0,
                   "an @at that has passed does not go with a recurring schedule; make it a job of its own");
    }
}

static void check_bounds(struct parse *p)
{
    const struct schedule_options *o = p->o;
    struct schedule_due due;
    p->expr = 0;
    if (o->starts_ms != SCHEDULE_NONE && o->ends_ms != SCHEDULE_NONE && o->starts_ms >= o->ends_ms)
        report(p, SCHEDULE_ERROR, SCHEDULE_FIELD_ENDS_AT, 0, "ends_at must be after starts_at");
    else if (!p->failed && o->arming && !schedule_next_accepted(p->s, o->accepted_ms, SCHEDULE_NONE, &due))
        report(p, SCHEDULE_WARNING, SCHEDULE_FIELD_SCHEDULE, 0,
               "nothing is due: no instant lies ahead and within the bounds");
}

static void check_jitter(struct parse *p)
{
    const struct schedule_options *o = p->o;
    if (p->failed || !o->arming || o->jitter_ms <= 0)
        return;
    int64_t gap_ms = schedule_min_gap_ms(p->s, o->accepted_ms);
    if (o->jitter_ms <= gap_ms)
        return;
    char gap[TEXT_DURATION_SIZE];
    (void)text_duration_print(gap, (uint64_t)gap_ms);
    report(p, SCHEDULE_ERROR, SCHEDULE_FIELD_JITTER, 0,
           "jitter must not be longer than the shortest gap between two dues, which is %s", gap);
}

static int parse_all(struct parse *p, const struct schedule_expr *exprs, size_t n, struct err *e)
{
    for (p->expr = 0; p->expr < n; p->expr++) {
        p->s->count = p->expr + 1;
        if (parse_one(p, &exprs[p->expr], &p->s->members[p->expr], e) < 0)
            return -ERR_NOMEM;
    }
    check_mixed_past(p);
    check_bounds(p);
    check_jitter(p);
    return 0;
}

static int64_t clamp_bound(int64_t ms, int64_t if_none_ms)
{
    return ms == SCHEDULE_NONE ? if_none_ms : max_i64(SCHEDULE_MIN_MS, min_i64(ms, SCHEDULE_END_MS));
}

int schedule_parse(const struct schedule_expr *exprs, size_t n, const struct schedule_options *o,
                   struct schedule **ret, struct schedule_issues *issues, struct err *e)
{
    assert((unsigned)o->gap < SCHEDULE_GAP_COUNT_ && (unsigned)o->repeat < SCHEDULE_REPEAT_COUNT_);
    struct schedule_issues ignored = {.count = 0};
    struct parse p = {.o = o, .issues = issues ? issues : &ignored};
    p.issues->count = 0;
    if (n < 1 || n > SCHEDULE_EXPRS_MAX) {
        report(&p, SCHEDULE_ERROR, SCHEDULE_FIELD_SCHEDULE, 0, "a schedule has 1 to %d expressions",
               SCHEDULE_EXPRS_MAX);
        return err_set(e, ERR_INVALID, "%s", p.first_error);
    }
    AUTO(schedule_free) struct schedule *s = mem_try_alloc(sizeof(*s) + n * sizeof(s->members[0]), e);
    if (!s)
        return err_wrap(e, "parse schedule");
    s->tz = o->tz ? o->tz : tz_utc();
    s->gap = o->gap;
    s->repeat = o->repeat;
    s->starts_ms = clamp_bound(o->starts_ms, SCHEDULE_MIN_MS);
    s->ends_ms = clamp_bound(o->ends_ms, SCHEDULE_END_MS);
    p.s = s;
    if (parse_all(&p, exprs, n, e) < 0)
        return -ERR_NOMEM;
    if (p.failed)
        return err_set(e, ERR_INVALID, "%s", p.first_error);
    *ret = TAKE(s);
    return 0;
}
