/* Definitions of jobs as a reader of the contract understands them: drawn, written down as a client does, and their dues told
 * by looking at every second. No code of the agents decides when anything is due. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/base/mem.h"
#include "agent/core/tz.h"
#include "tests/lib/zones.h"
#include "tests/sim/sim.h"

#define AFTER_MS \
    INT64_C(     \
        300000) /* dues are known so long after the story's end, scaled: any end of a schedule is before */

/* --- zones --------------------------------------------------------------------------------------------------------- */

/* A zone around the one change of its clocks that a story may see. */
struct zone {
    const char *name;
    int64_t change_ms; /* 0: none */
    int before_min, after_min;
};

static const struct zone zones[] = {
    {"UTC", 0, 0, 0},
    {"Europe/Berlin", INT64_C(1792890000000), 120, 60},        /* 2026-10-25T01:00Z */
    {"Europe/Berlin", INT64_C(1806195600000), 60, 120},        /* 2027-03-28T01:00Z */
    {"America/New_York", INT64_C(1793512800000), -240, -300},  /* 2026-11-01T06:00Z */
    {"America/New_York", INT64_C(1805007600000), -300, -240},  /* 2027-03-14T07:00Z */
    {"Australia/Lord_Howe", INT64_C(1791041400000), 630, 660}, /* 2026-10-03T15:30Z */
    {"Australia/Lord_Howe", INT64_C(1806764400000), 660, 630}, /* 2027-04-03T15:00Z */
};
#define ZONES (sizeof(zones) / sizeof(zones[0]))

static const struct zone *here = &zones[0]; /* whose change this story sees */

int64_t sim_rules_epoch_ms(int64_t before_s)
{
    here = &zones[sim_plan_below(ZONES)];
    if (!here->change_ms)
        return INT64_C(1795420800000) + sim_plan_between(0, 86400) * 1000; /* 2026-11-23T08:00Z */
    return here->change_ms - sim_plan_between(20, before_s) * 1000;
}

const struct tz *sim_zone(void *arg, const char *name)
{
    static const struct tz *known[ZONES];
    (void)arg;
    for (size_t i = 1; i < ZONES; i++) {
        if (strcmp(zones[i].name, name) != 0)
            continue;
        if (!known[i])
            known[i] = zone_open(name);
        return known[i];
    }
    return strcmp(name, "UTC") == 0 ? tz_utc() : NULL;
}

/* --- one rhythm ---------------------------------------------------------------------------------------------------- */

struct cron {
    uint64_t seconds, minutes, hours;
    bool every_hour; /* its hour begins with '*': it follows elapsed time */
    bool gap_skips;
    unsigned repeat; /* first, second, both */
    const struct zone *zone;
};

static bool shows(const struct cron *c, int64_t local_s)
{
    int64_t day_s = ((local_s % 86400) + 86400) % 86400;
    return (c->seconds >> (day_s % 60) & 1) && (c->minutes >> (day_s / 60 % 60) & 1) &&
           (c->hours >> (day_s / 3600) & 1);
}

/* Whether a wall time that the clock shows twice counts in the pass that AT_S is in. */
static bool right_pass(const struct cron *c, int64_t at_s)
{
    int64_t change_s = c->zone->change_ms / 1000, again_s = (c->zone->before_min - c->zone->after_min) * 60;
    if (c->every_hour || c->repeat == 2 || !change_s || again_s <= 0)
        return true;
    if (at_s >= change_s - again_s && at_s < change_s)
        return c->repeat == 0;
    return at_s < change_s || at_s >= change_s + again_s || c->repeat == 1;
}

static bool cron_due(const struct cron *c, int64_t at_s)
{
    int64_t change_s = c->zone->change_ms / 1000, before_s = c->zone->before_min * 60,
            after_s = c->zone->after_min * 60;
    int64_t local_s = at_s + (change_s && at_s >= change_s ? after_s : before_s);
    if (shows(c, local_s) && right_pass(c, at_s))
        return true;
    bool jumped = change_s && at_s >= change_s && at_s < change_s + after_s - before_s;
    return jumped && !c->every_hour && !c->gap_skips && shows(c, at_s + before_s);
}

/* --- dues ---------------------------------------------------------------------------------------------------------- */

static void add_due(struct sim_rules *r, int64_t ms, int64_t starts_ms)
{
    static size_t capacity;
    static const struct sim_rules *of;
    if (of != r)
        capacity = 0;
    of = r;
    if ((starts_ms != RECORD_NONE && ms < starts_ms) || (r->ends_ms != RECORD_NONE && ms >= r->ends_ms))
        return;
    if (r->dues_count == capacity) {
        capacity = capacity ? 2 * capacity : 64;
        r->dues = realloc(r->dues, capacity * sizeof(*r->dues));
    }
    r->dues[r->dues_count++] = ms;
}

static int compare_dues(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Equal dues of a union are one fire. */
static void sort_dues(struct sim_rules *r)
{
    size_t kept = 0;
    if (r->dues_count > 0)
        qsort(r->dues, r->dues_count, sizeof(*r->dues), compare_dues);
    for (size_t i = 0; i < r->dues_count; i++)
        if (kept == 0 || r->dues[kept - 1] != r->dues[i])
            r->dues[kept++] = r->dues[i];
    r->dues_count = kept;
}

int64_t sim_rules_end_ms(void)
{
    return sim.epoch_ms + sim.length_ms + AFTER_MS * sim.scale;
}

static void list_dues(struct sim_rules *r, int64_t every_ms, int64_t phase_ms, const struct cron *cron,
                      int64_t starts_ms)
{
    int64_t from_ms = sim.epoch_ms - SIM_PAST_MS * sim.scale, to_ms = sim_rules_end_ms();
    if (every_ms)
        for (int64_t at = phase_ms - (phase_ms - from_ms) / every_ms * every_ms; at < to_ms; at += every_ms)
            if (at >= from_ms)
                add_due(r, at, starts_ms);
    if (cron)
        for (int64_t at_s = from_ms / 1000; at_s < to_ms / 1000; at_s++)
            if (cron_due(cron, at_s))
                add_due(r, at_s * 1000, starts_ms);
    sort_dues(r);
}

size_t sim_rules_at(const struct sim_rules *r, int64_t ms)
{
    size_t low = 0, high = r->dues_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->dues[middle] < ms)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool sim_rules_same_schedule(const struct sim_rules *a, const struct sim_rules *b)
{
    bool same = a->schedule_bytes == b->schedule_bytes && memcmp(a->text, b->text, a->schedule_bytes) == 0;
    return same && (!a->one_shot || a->dues[0] == b->dues[0]);
}

/* --- drawing ------------------------------------------------------------------------------------------------------- */

struct text {
    char *at, *end;
};

static __attribute__((format(printf, 2, 3))) void put(struct text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(t->at, (size_t)(t->end - t->at), fmt, args);
    va_end(args);
    if (n < 0 || n >= t->end - t->at)
        sim_broken("a job's text is too long");
    t->at += n;
}

static bool one_in(unsigned n)
{
    return sim_plan_below(n) == 0;
}

/* Of the seconds of a minute, or of the minutes of an hour. */
static uint64_t draw_sixtieths(struct text *t, bool rare)
{
    static const char *const texts[] = {"*/5", "*/10", "7,37", "*/20", "0"};
    static const unsigned steps[] = {5, 10, 0, 20, 60};
    uint64_t set = 0;
    unsigned s = sim_plan_below(5);
    if (rare && s == 0)
        s = 2;
    for (unsigned i = 0; i < 60; i++)
        if (steps[s] ? i % steps[s] == 0 : i == 7 || i == 37)
            set |= UINT64_C(1) << i;
    put(t, "%s ", texts[s]);
    return set;
}

/* One that a dense story sees, or in a quiet day one about the change of the zone's clocks. */
static unsigned draw_hour(const struct zone *zone)
{
    int64_t at_s = (sim.scale > 1 && zone->change_ms ? zone->change_ms : sim.epoch_ms) / 1000;
    unsigned hour = (unsigned)((at_s + zone->before_min * 60) / 3600 % 24);
    return sim.scale > 1 ? (hour + 22 + sim_plan_below(4)) % 24 : hour;
}

static void draw_cron(struct cron *c, struct text *t, bool rare)
{
    if (sim.scale > 1) {
        bool full = one_in(2);
        c->seconds = UINT64_C(1) << (full ? 0 : 7);
        put(t, full ? "0 " : "7 ");
        c->minutes = draw_sixtieths(t, rare);
    } else {
        c->seconds = draw_sixtieths(t, rare);
        bool odd = one_in(3);
        for (unsigned i = 0; i < 60; i += odd ? 2 : 1)
            c->minutes |= UINT64_C(1) << i;
        put(t, odd ? "*/2 " : "* ");
    }
    c->every_hour = one_in(2);
    c->hours = (UINT64_C(1) << 24) - 1;
    if (c->every_hour) {
        put(t, "*");
    } else {
        unsigned hour = draw_hour(c->zone);
        bool next = one_in(2);
        c->hours = UINT64_C(1) << hour | (next ? UINT64_C(1) << (hour + 1) % 24 : 0);
        put(t, next ? "%u,%u" : "%u", hour, (hour + 1) % 24);
    }
    put(t, " * * *");
}

static void put_instant(struct text *t, const char *key, int64_t ms)
{
    time_t s = ms / 1000;
    struct tm tm;
    char at[40];
    (void)strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%S", gmtime_r(&s, &tm));
    put(t, "%s%s.%03dZ\"", key, at, (int)(ms % 1000));
}

/* A story that sees clocks change has jobs of that zone. */
static const struct zone *draw_zone(void)
{
    return here->change_ms && !one_in(4) ? here : &zones[0];
}

static void draw_max_fires(struct sim_rules *r, struct text *t)
{
    if (!one_in(6))
        return;
    r->max_fires = (uint64_t)sim_plan_between(1, 30);
    put(t, ",\"max_fires\":%llu", (unsigned long long)r->max_fires);
}

/* That of BEFORE; one that counts from when it is accepted is not the same another time. */
static bool keep_schedule(struct sim_rules *r, struct text *t, const struct sim_rules *before)
{
    static const char after[] = "{\"schedule\":\"@after";
    if (!before || !one_in(3) || strncmp(before->text, after, sizeof(after) - 1) == 0)
        return false;
    t->at = r->text;
    put(t, "%.*s", (int)before->schedule_bytes, before->text);
    r->schedule_bytes = before->schedule_bytes;
    r->one_shot = before->one_shot;
    r->ends_ms = before->ends_ms;
    r->dues = before->dues;
    r->dues_count = before->dues_count;
    if (!r->one_shot)
        draw_max_fires(r, t);
    return true;
}

static void draw_schedule(struct sim_rules *r, struct text *t, int64_t created_ms)
{
    static const int64_t rhythms_s[] = {1, 2, 3, 5, 7, 10, 15, 20, 30, 60};
    struct cron cron = {.zone = draw_zone(), .gap_skips = one_in(3), .repeat = sim_plan_below(3)};
    int64_t every_ms = 0, starts_ms = RECORD_NONE;
    unsigned kind = sim_plan_below(8);
    put(t, "\"schedule\":");
    if (kind == 0) {
        r->one_shot = true;
        int64_t after_s = sim_plan_between(1, 60) * sim.scale;
        put(t, "\"@after %llds\"", (long long)after_s);
        add_due(r, r->accepted_ms + after_s * 1000, RECORD_NONE);
        r->schedule_bytes = (size_t)(t->at - r->text);
        return;
    }
    if (kind == 1) {
        r->one_shot = true;
        int64_t at_ms = r->accepted_ms + sim_plan_between(-20000, 60000) * sim.scale;
        put_instant(t, "\"@at ", at_ms);
        add_due(r, at_ms, RECORD_NONE);
        r->schedule_bytes = (size_t)(t->at - r->text);
        return;
    }
    bool both = kind == 2, with_cron = both || kind >= 6;
    if (both || !with_cron)
        every_ms = rhythms_s[sim_plan_below(10)] * 1000 * sim.scale;
    put(t, both ? "[" : "");
    if (every_ms)
        put(t, "\"@every %llds\"%s", (long long)every_ms / 1000, both ? "," : "");
    if (with_cron) {
        put(t, "\"");
        draw_cron(&cron, t, both);
        put(t, "\"");
    }
    put(t, both ? "]" : "");
    put(t, ",\"timezone\":\"%s\",\"dst\":{\"gap\":\"%s\",\"repeat\":\"%s\"}", cron.zone->name,
        cron.gap_skips ? "skip" : "shift",
        cron.repeat == 0   ? "first"
        : cron.repeat == 1 ? "second"
                           : "both");
    if (one_in(6)) {
        starts_ms = r->accepted_ms + sim_plan_between(-30000, 40000) * sim.scale;
        put_instant(t, ",\"starts_at\":\"", starts_ms);
    }
    if (one_in(6)) {
        r->ends_ms = r->accepted_ms + sim_plan_between(60000, 150000) * sim.scale;
        put_instant(t, ",\"ends_at\":\"", r->ends_ms);
    }
    r->schedule_bytes = (size_t)(t->at - r->text);
    draw_max_fires(r, t);
    if (!both && one_in(4)) { /* a union may have dues side by side */
        r->jitter_ms = 200;
        put(t, ",\"jitter\":\"200ms\"");
    }
    list_dues(r, every_ms, starts_ms != RECORD_NONE ? starts_ms : created_ms, with_cron ? &cron : NULL,
              starts_ms);
}

static void draw_callback(struct sim_rules *r, struct text *t)
{
    unsigned to = sim_plan_below(10);
    r->to = to == 0 ? SIM_TO_ALL : to == 1 ? SIM_TO_SHARDS : SIM_TO_ONE;
    r->async = r->to == SIM_TO_ONE && one_in(5);
    r->timeout_ms = 6000;
    put(t, ",\"callback\":{\"http\":{");
    if (r->to == SIM_TO_ONE && one_in(6))
        put(t, "\"url\":\"http://10.2.0.1:9000/v%u\"", r->number);
    else
        put(t, "\"service\":\"svc\",\"path\":\"/v%u\"", r->number);
    put(t, "},\"timeout\":\"6s\"");
    r->control = one_in(8);
    put(t, r->control ? ",\"allow_control\":true" : "");
    if (r->to != SIM_TO_ONE)
        put(t, ",\"to\":\"%s\"", r->to == SIM_TO_ALL ? "all" : "shards");
    if (r->async)
        put(t, ",\"async\":{\"timeout\":\"%llds\",\"max\":\"%llds\"}",
            (one_in(2) ? 5 : 10) * (long long)sim.scale, 30 * (long long)sim.scale);
    put(t, "}");
}

static void draw_delivery(struct sim_rules *r, struct text *t)
{
    r->at_most_once = one_in(7);
    if (r->at_most_once) {
        put(t, ",\"delivery\":\"at_most_once\"");
        return;
    }
    put(t, ",\"retry\":{\"min_backoff\":\"%lldms\",\"max_backoff\":\"%llds\"", 200 * (long long)sim.scale,
        2 * (long long)sim.scale);
    if (one_in(3)) {
        r->max_attempts = 1 + sim_plan_below(3);
        put(t, ",\"max_attempts\":%u", r->max_attempts);
    }
    put(t, "}");
}

static void draw_rules(struct sim_rules *r, struct text *t)
{
    static const char *const names[] = {"allow", "forbid", "queue", "replace"};
    if (!r->one_shot && one_in(3)) {
        r->misfire_last = one_in(2);
        if (one_in(2))
            r->window_ms = 5000 * sim.scale;
        put(t, ",\"misfire\":{\"policy\":\"%s\"", r->misfire_last ? "last" : "all");
        if (r->window_ms < SIM_DAY_MS)
            put(t, ",\"window\":\"%llds\"", (long long)r->window_ms / 1000);
        put(t, "}");
    }
    if (one_in(2)) {
        r->concurrency = (enum sim_concurrency)sim_plan_below(4);
        put(t, ",\"concurrency\":\"%s\"", names[r->concurrency]);
    }
    if (one_in(8))
        put(t, ",\"max_pending\":%u", 1 + sim_plan_below(4));
}

struct sim_rules *sim_rules_draw(unsigned number, int64_t accepted_ms, int64_t created_ms,
                                 const struct sim_rules *before)
{
    struct sim_rules *r = mem_new(struct sim_rules);
    struct text t = {r->text, r->text + sizeof(r->text)};
    r->number = number;
    r->accepted_ms = accepted_ms;
    r->ends_ms = RECORD_NONE;
    r->window_ms = SIM_DAY_MS;
    r->ttl_ms = SIM_DAY_MS;
    put(&t, "{");
    if (!keep_schedule(r, &t, before))
        draw_schedule(r, &t, created_ms);
    draw_callback(r, &t);
    draw_delivery(r, &t);
    draw_rules(r, &t);
    if (number == 1 && one_in(10)) {
        r->ttl_ms = 5000 * sim.scale;
        put(&t, ",\"ttl_after_done\":\"%llds\"", (long long)r->ttl_ms / 1000);
    }
    put(&t, "}");
    return r;
}

#define FLOOD_SCHEDULE \
    "{\"schedule\":\"@every 1s\",\"timezone\":\"UTC\",\"dst\":{\"gap\":\"shift\",\"repeat\":\"first\"}"

struct sim_rules *sim_rules_flood(int64_t accepted_ms)
{
    struct sim_rules *r = mem_new(struct sim_rules);
    r->number = 1;
    r->accepted_ms = accepted_ms;
    r->ends_ms = RECORD_NONE;
    r->window_ms = r->ttl_ms = SIM_DAY_MS;
    r->timeout_ms = 6000;
    r->max_fires = 30;
    r->schedule_bytes = strlen(FLOOD_SCHEDULE);
    (void)snprintf(r->text, sizeof(r->text),
                   FLOOD_SCHEDULE
                   ",\"max_fires\":30,\"callback\":{\"http\":{\"url\":\"" SIM_DEAD_URL
                   "/v1\"},\"timeout\":\"6s\"},\"retry\":{\"min_backoff\":\"5s\",\"max_backoff\":\"10s\"}}");
    list_dues(r, 1000, accepted_ms, NULL, RECORD_NONE);
    return r;
}
