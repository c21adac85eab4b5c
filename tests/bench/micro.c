/* What single functions of the hot path take: choosing an endpoint, and finding the next due of a schedule.
 *
 *   micro --rounds N
 *
 * One thread. Prints one line of JSON: nanoseconds a call, by name. */
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "agent/core/balance.h"
#include "agent/core/schedule.h"
#include "agent/io/tzload.h"
#include "tests/bench/bench.h"

#define NOW_MS INT64_C(1795424400000) /* 2026-11-23T09:00:00Z */

static void add(json_t *result, const char *name, uint64_t began_ns, int64_t calls)
{
    double ns = (double)(clock_mono_ns() - began_ns) / (double)calls;
    json_object_set_new(result, name, json_real(ns));
}

struct address {
    char text[32];
};

static struct balance *balancer(enum balance_policy policy, size_t count)
{
    struct balance_options options = balance_options_default();
    struct balance_endpoint *list = mem_new_array(struct balance_endpoint, count);
    struct address *names = mem_new_array(struct address, count);
    struct err e = {0};
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(names[i].text, sizeof(names[i].text), "10.0.%zu.%zu:80", i / 250, i % 250); /* fits */
        list[i] = (struct balance_endpoint){.address = names[i].text, .weight = 1 + (uint32_t)i % 3};
    }
    options.policy = policy;
    options.slow_start_ms = 0;
    struct balance *b = balance_new(&options);
    BENCH_CHECK(balance_set_endpoints(b, list, count, 0, &e) == 0, "%s", e.text);
    mem_free(names);
    mem_free(list);
    return b;
}

static void measure_choice(json_t *result, enum balance_policy policy, const char *policy_name, size_t count,
                           int64_t rounds)
{
    struct balance *b = balancer(policy, count);
    struct rng rng;
    char name[64];
    rng_init(&rng, 1);
    uint64_t began_ns = clock_mono_ns();
    for (int64_t i = 0; i < rounds; i++) {
        struct balance_request request = {.job_hash = rng_u64(&rng)};
        uint64_t key, now_ms = (uint64_t)i / 10;
        BENCH_CHECK(balance_choose(b, &request, now_ms, &rng, &key) == BALANCE_CHOSEN, "no endpoint");
        balance_done(b, key, BALANCE_OK, 1000 + (uint64_t)i % 500, now_ms);
    }
    (void)snprintf(name, sizeof(name), "choose of %zu, %s", count, policy_name); /* fits */
    add(result, name, began_ns, rounds);
    balance_free(b);
}

static void measure_schedule(json_t *result, const char *text, const struct tz *tz, const char *where,
                             int64_t rounds)
{
    struct schedule_expr expr = {text, strlen(text)};
    struct schedule_options options = {.tz = tz,
                                       .starts_ms = SCHEDULE_NONE,
                                       .ends_ms = SCHEDULE_NONE,
                                       .phase_ms = NOW_MS,
                                       .accepted_ms = NOW_MS};
    struct schedule *s;
    struct schedule_due due = {.due_ms = NOW_MS};
    struct err e = {0};
    char name[96];
    BENCH_CHECK(schedule_parse(&expr, 1, &options, &s, NULL, &e) == 0, "%s", e.text);
    uint64_t began_ns = clock_mono_ns();
    for (int64_t i = 0; i < rounds; i++)
        if (!schedule_next(s, due.due_ms, &due))
            due.due_ms = NOW_MS; /* it came to the end of all dues */
    (void)snprintf(name, sizeof(name), "next due of '%s'%s", text, where); /* fits */
    add(result, name, began_ns, rounds);
    schedule_free(s);
}

int main(int argc, char **argv)
{
    static const struct {
        enum balance_policy policy;
        const char *name;
    } policies[] = {{BALANCE_P2C, "p2c"},
                    {BALANCE_ROUND_ROBIN, "round_robin"},
                    {BALANCE_LEAST_REQUEST, "least_request"},
                    {BALANCE_CONSISTENT_HASH, "consistent_hash"}};
    int64_t rounds = bench_number(argc, argv, "rounds", 200000);
    json_t *result = json_object();
    struct tzload *zones;
    const struct tz *berlin;
    struct err e = {0};
    BENCH_CHECK(tzload_new(NULL, &zones, &e) == 0 && tzload_get(zones, "Europe/Berlin", 13, &berlin, &e) == 0,
                "%s", e.text);
    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
        measure_choice(result, policies[i].policy, policies[i].name, 3, rounds);
        measure_choice(result, policies[i].policy, policies[i].name, 1000, rounds / 10);
    }
    measure_schedule(result, "@every 1s", NULL, "", rounds);
    measure_schedule(result, "*/5 * * * *", NULL, "", rounds);
    measure_schedule(result, "30 2 * * MON-FRI", berlin, ", Europe/Berlin", rounds);
    measure_schedule(result, "0 0 29 2 *", berlin, ", Europe/Berlin", rounds);
    tzload_free(zones);
    bench_print(result);
    return 0;
}
