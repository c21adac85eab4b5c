#include "tests/sim/story.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "tests/sim/sim.h"

#define CALM_MS 60000

static const char *const names[STORY_KIND_COUNT_] = {"planned", "crashes", "store",
                                                     "consul",  "network", "all"};

const char *story_name(enum story_kind kind)
{
    return names[kind];
}

int story_kind(const char *name)
{
    for (int i = 0; i < STORY_KIND_COUNT_; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static unsigned below(unsigned n)
{
    return (unsigned)rng_below(&sim.rng, n);
}

static unsigned some_host(void)
{
    return below(sim.hosts_count);
}

/* --- troubles, each of which ends ----------------------------------------------------------------------------------- */

static void start_again(void *arg)
{
    sim_start((unsigned)(uintptr_t)arg);
}

static void start_later(unsigned host, int64_t ms)
{
    sim_after(ms * 1000, NULL, start_again, (void *)(uintptr_t)host);
}

/* At least one agent stays that nobody has told to go. */
static bool may_lose(unsigned host)
{
    unsigned alive[SIM_HOSTS_MAX], n = sim_alive(alive);
    for (unsigned i = 0; i < n; i++)
        if (alive[i] == host)
            return n >= 2;
    return false;
}

static void deploy(void)
{
    unsigned host = some_host();
    if (!may_lose(host)) {
        sim_start(host);
        return;
    }
    sim_leave(host);
    start_later(host, sim_between(5000, 25000));
}

static void crash(void)
{
    unsigned host = some_host();
    if (!may_lose(host)) {
        sim_start(host);
        return;
    }
    sim_kill(host);
    start_later(host, sim_between(10, 20000));
}

static void crash_all(void)
{
    for (unsigned i = 0; i < sim.hosts_count; i++) {
        sim_kill(i);
        start_later(i, sim_between(10, 15000));
    }
}

static void go_on(void *arg)
{
    sim_pause((unsigned)(uintptr_t)arg, false);
}

static void stop(void)
{
    unsigned host = some_host();
    sim_pause(host, true);
    sim_after(sim_between(50, 15000) * 1000, NULL, go_on, (void *)(uintptr_t)host);
}

static void mend(void *arg)
{
    unsigned what = (unsigned)(uintptr_t)arg, a = what >> 8 & 15, b = what & 15;
    switch (what >> 16) {
    case 0:
        sim.hosts[a].cut_store = false;
        break;
    case 1:
        sim.hosts[a].cut_consul = false;
        break;
    case 2:
        sim.hosts[a].cut_out = false;
        break;
    default:
        sim.cut[a][b] = sim.cut[b][a] = false;
    }
    sim_note("cut %u of a%u is mended", what >> 16, a + 1);
}

static void cut(void)
{
    unsigned kind = below(4), a = some_host(), b = some_host();
    if (kind == 0)
        sim.hosts[a].cut_store = true;
    else if (kind == 1)
        sim.hosts[a].cut_consul = true;
    else if (kind == 2)
        sim.hosts[a].cut_out = true;
    else if (a != b)
        sim.cut[a][b] = sim.cut[b][a] = true;
    sim_note("cut %u (store, consul, out, peer) of a%u, a%u", kind, a + 1, b + 1);
    sim_after(sim_between(100, 20000) * 1000, NULL, mend, (void *)(uintptr_t)(kind << 16 | a << 8 | b));
}

static void store_trouble(void)
{
    int64_t until_us = sim.now_us + sim_between(50, 12000) * 1000;
    bool away = below(2);
    *(away ? &sim.store_away_until_us : &sim.store_hung_until_us) = until_us;
    sim_note("the store is %s for %lld ms", away ? "away" : "hung",
             (long long)(until_us - sim.now_us) / 1000);
}

static void consul_back(void *arg)
{
    (void)arg;
    if (below(2))
        sim_consul_wipe();
    sim_consul_down(false);
}

static void leader_back(void *arg)
{
    (void)arg;
    sim_consul_leaderless(false);
}

static void consul_trouble(void)
{
    unsigned kind = below(4);
    if (kind == 0) {
        sim_consul_down(true);
        sim_after(sim_between(100, 30000) * 1000, NULL, consul_back, NULL);
    } else if (kind == 1) {
        sim_consul_leaderless(true);
        sim_after(sim_between(100, 20000) * 1000, NULL, leader_back, NULL);
    } else if (kind == 2) {
        sim_consul_wipe();
    } else {
        sim_consul_instances(below(8));
    }
}

/* Clocks are stepped on hosts; what is right again comes back by itself. */
static void clock_back(void *arg)
{
    sim.hosts[(uintptr_t)arg].wall_shift_us = 0;
    sim_note("the clock of a%u is right again", (unsigned)(uintptr_t)arg + 1);
}

static void step_clock(void)
{
    unsigned host = some_host();
    int64_t most_us = below(2) ? 240000 : 3000000; /* what the store's clock lets pass, and what not */
    sim.hosts[host].wall_shift_us = sim_between(-most_us, most_us);
    sim_note("the clock of a%u is set by %lld ms", host + 1, (long long)sim.hosts[host].wall_shift_us / 1000);
    sim_after(sim_between(1000, 20000) * 1000, NULL, clock_back, (void *)(uintptr_t)host);
}

static void trouble(enum story_kind kind)
{
    static void (*const all[])(void) = {deploy, crash,         crash,          stop,      cut,
                                        cut,    store_trouble, consul_trouble, step_clock};
    switch (kind) {
    case STORY_PLANNED:
        deploy();
        break;
    case STORY_CRASHES:
        if (below(8) == 0)
            crash_all();
        else
            crash();
        break;
    case STORY_STORE:
        store_trouble();
        break;
    case STORY_CONSUL:
        consul_trouble();
        break;
    case STORY_NETWORK:
        if (below(4) == 0)
            step_clock();
        else if (below(3) == 0)
            stop();
        else
            cut();
        break;
    case STORY_ALL:
    case STORY_KIND_COUNT_:
        all[below(sizeof(all) / sizeof(all[0]))]();
        break;
    }
}

static void churn(void)
{
    switch (below(8)) {
    case 0:
    case 1:
    case 2:
        sim_client_create();
        break;
    case 3:
        sim_client_delete();
        break;
    case 4:
        sim_client_run();
        break;
    case 5:
        sim_client_pause(below(2));
        break;
    default:
        break;
    }
}

static void set_weather(enum story_kind kind)
{
    struct sim_weather *w = &sim.weather;
    bool all = kind == STORY_ALL;
    w->callee_slow_percent = below(2) ? 5 : 0;
    w->callee_fail_percent = below(2) ? 10 : 0;
    w->callee_hang_percent = kind != STORY_PLANNED && below(3) == 0 ? 2 : 0;
    w->store_slow_percent = below(3) == 0 ? 3 : 0;
    w->store_flaky_percent = (all || kind == STORY_STORE) && below(2) ? 1 + below(5) : 0;
    w->peer_lossy_percent = (all || kind == STORY_NETWORK) && below(2) ? 1 + below(20) : 0;
    sim.planned = kind == STORY_PLANNED;
    sim.crashes_only = kind == STORY_CRASHES;
    sim.all_live = kind == STORY_PLANNED || kind == STORY_CONSUL;
}

static void heal(void)
{
    sim_note("calm");
    sim.weather = (struct sim_weather){0};
    sim.store_away_until_us = sim.store_hung_until_us = 0;
    memset(sim.cut, 0, sizeof(sim.cut));
    sim_consul_down(false);
    sim_consul_leaderless(false);
    sim_consul_instances(7);
    for (unsigned i = 0; i < sim.hosts_count; i++) {
        sim_pause(i, false);
        sim.hosts[i].cut_store = sim.hosts[i].cut_consul = sim.hosts[i].cut_out = false;
        sim.hosts[i].wall_shift_us = 0;
    }
}

static void tell(enum story_kind kind, uint64_t seed, unsigned minutes, FILE *trace)
{
    log_set(trace ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
    rng_init(&sim.rng, seed);
    sim_open(seed, 2 + (unsigned)rng_below(&sim.rng, SIM_HOSTS_MAX - 1), trace);
    set_weather(kind);
    for (unsigned i = 0; i < sim.hosts_count; i++)
        start_later(i, sim_between(0, 2000));
    sim_run_ms(8000);
    for (int i = 0; i < 20; i++)
        sim_client_create();
    int64_t until_us = sim.now_us + (int64_t)minutes * 60000000, next_us = sim.now_us;
    int64_t pace_ms = kind == STORY_PLANNED ? 30000 : 20000;
    while (sim.now_us < until_us) {
        sim_run_ms(sim_between(10, 500));
        churn();
        if (sim.now_us < next_us)
            continue;
        trouble(kind);
        next_us = sim.now_us + sim_between(100, pace_ms) * 1000;
    }
    heal();
    sim_run_ms(25000); /* whoever was to start again has */
    for (unsigned i = 0; i < sim.hosts_count; i++)
        sim_start(i);
    sim_client_resume_all();
    sim_run_ms(CALM_MS);
    sim_oracle_end();
}

struct story_result story_run(enum story_kind kind, uint64_t seed, unsigned minutes, FILE *trace)
{
    struct story_result *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *shared = (struct story_result){0};
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        tell(kind, seed, minutes, trace);
        shared->events = sim.events;
        shared->simulated_ms = sim.now_us / 1000;
        for (size_t i = 0; i < sim_seen_count; i++) {
            shared->fires += sim_seen[i].acked_us != 0;
            shared->repeats += sim_seen[i].attempt > 1;
        }
        fflush(NULL);
        _exit(0);
    }
    int status = 0;
    (void)waitpid(child, &status, 0);
    struct story_result result = *shared;
    munmap(shared, sizeof(*shared));
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    if (result.code < 0)
        fprintf(stderr, "seed %llu: ended by signal %d\n", (unsigned long long)seed, -result.code);
    return result;
}
