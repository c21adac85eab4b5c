/* Whole clusters on virtual time. SEED=<n> SIM_KIND=<name> tells one story with all its lines, cut down when it breaks a promise
 * (SIM_SHRINK=<how many stories that may take>); SIM_STORIES=<n> tells so many of each kind (of quiet days, which take longer, a
 * quarter, unless SIM_KIND asks for them), SIM_FIRST=<n> those of the seeds from n on, SIM_GO_ON=1 also after one that breaks a promise, SIM_FRESH=1 those of new seeds. Otherwise the first seeds are always the same, the
 * others are new each time. What fails is printed with the command that tells it again. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "tests/sim/story.h"

#define FIXED   48 /* the first seeds of each kind are always these */
#define MINUTES 3

static unsigned env_number(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void tell_one(enum story_kind kind, uint64_t seed, unsigned minutes)
{
    struct story_plan plan;
    const char *keep = getenv("SIM_KEEP");
    uint64_t world = env_number("SIM_WORLD", 0);
    story_plan_draw(&plan, kind, seed, minutes);
    plan.hosts = env_number("SIM_HOSTS", plan.hosts);
    if (keep)
        story_plan_keep(&plan, keep);
    if (env_number("SIM_SHRINK", 0))
        story_shrink(&plan, &world, env_number("SIM_SHRINK", 0), stderr);
    struct story_result r = story_tell(&plan, world, stderr);
    story_plan_free(&plan);
    cr_assert_eq(r.code, 0, "SEED=%llu SIM_KIND=%s: %s", (unsigned long long)seed, story_name(kind),
                 r.broken);
}

/* Of the stories told so far. */
static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void report(enum story_kind kind, unsigned count, const struct story_result *sum, double seconds)
{
    double hours = (double)sum->simulated_ms / 3600000;
    fprintf(
        stderr,
        "sim %-8s %u stories, %.1f cluster-hours, %.0f a minute of one core, %llu events, %llu fires acknowledged, "
        "%llu further attempts\n",
        story_name(kind), count, hours, seconds > 0 ? hours / seconds * 60 : 0,
        (unsigned long long)sum->events, (unsigned long long)sum->fires, (unsigned long long)sum->repeats);
}

/* True: it keeps every promise. */
static bool tell_next(enum story_kind kind, uint64_t seed, unsigned minutes, struct story_result *sum)
{
    struct story_plan plan;
    story_plan_draw(&plan, kind, seed, minutes);
    struct story_result r = story_tell(&plan, 0, NULL);
    story_plan_free(&plan);
    if (r.code != 0)
        fprintf(stderr, "seed %llu, %s, %s\n  make sim SEED=%llu SIM_KIND=%s SIM_SHRINK=300\n",
                (unsigned long long)seed, story_name(kind), r.broken, (unsigned long long)seed,
                story_name(kind));
    sum->events += r.events;
    sum->fires += r.fires;
    sum->repeats += r.repeats;
    sum->simulated_ms += r.simulated_ms;
    return r.code == 0;
}

static unsigned stories_of(enum story_kind kind)
{
    unsigned count = env_number("SIM_STORIES", 2);
    return kind == STORY_DAYS && !getenv("SIM_KIND") ? (count + 3) / 4 : count;
}

static void tell(enum story_kind kind)
{
    const char *one = getenv("SEED");
    unsigned minutes = env_number("SIM_MINUTES", MINUTES), count = stories_of(kind), failed = 0;
    if (one) {
        tell_one(kind, strtoull(one, NULL, 10), minutes);
        return;
    }
    struct story_result sum = {0};
    uint64_t fresh = (uint64_t)time(NULL) * 1000, first = env_number("SIM_FIRST", 0);
    bool go_on = env_number("SIM_GO_ON", 0), anew = env_number("SIM_FRESH", 0);
    if (anew)
        fprintf(stderr, "sim %-8s fresh seeds from %llu on\n", story_name(kind), (unsigned long long)fresh);
    double before = cpu_seconds();
    for (unsigned i = 0; i < count && (failed == 0 || go_on); i++)
        failed += !tell_next(kind, first ? first + i : i < FIXED && !anew ? i + 1 : fresh + i, minutes, &sum);
    report(kind, count, &sum, cpu_seconds() - before);
    cr_assert_eq(failed, 0, "%u stories of kind %s break a promise", failed, story_name(kind));
}

static bool wanted(enum story_kind kind)
{
    const char *name = getenv("SIM_KIND");
    return !name || story_kind(name) == (int)kind;
}

#define STORY(name, kind) \
    Test(sim, name)       \
    {                     \
        if (wanted(kind)) \
            tell(kind);   \
    }

STORY(planned_changes_repeat_nothing, STORY_PLANNED)
STORY(crashes_lose_nothing, STORY_CRASHES)
STORY(a_store_in_trouble_loses_nothing, STORY_STORE)
STORY(a_consul_in_trouble_loses_nothing, STORY_CONSUL)
STORY(a_network_in_trouble_loses_nothing, STORY_NETWORK)
STORY(all_troubles_at_once_lose_nothing, STORY_ALL)
STORY(quiet_days_with_troubles_lose_nothing, STORY_DAYS)
