#include "tests/sim/story.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"

#define HEAL_MS      25000 /* whoever was to start again has */
#define CALM_MS      60000
#define SCALE        60      /* of a quiet day's jobs */
#define AFTER_US     3000000 /* trouble goes on so long after the last part */
#define REFUSED_US   5000000 /* who could not connect anywhere is believed for so long after */
#define STORE_OFF_MS 100     /* clocks of the store's servers, less than what agents refuse */

static unsigned some_host(void)
{
    return sim_plan_below(sim.hosts_count);
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

/* How long a trouble lasts. In a quiet day one of four takes minutes. */
static int64_t lasting_us(int64_t least_ms, int64_t most_ms)
{
    int64_t us = sim_plan_between(least_ms, most_ms) * 1000;
    return sim.scale > 1 && sim_plan_below(4) == 0 ? us * sim.scale : us;
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
    start_later(host, sim_plan_between(5000, 25000));
}

/* One after the other, each when the one before is back. */
static void roll_on(void *arg)
{
    unsigned host = (unsigned)(uintptr_t)arg;
    if (host == sim.hosts_count)
        return;
    if (may_lose(host)) {
        sim_leave(host);
        start_later(host, 4000);
    }
    sim_after(9000000, NULL, roll_on, (void *)(uintptr_t)(host + 1));
}

static void roll(void)
{
    roll_on(NULL);
}

/* To some number of agents. */
static void scale(void)
{
    unsigned wanted = 1 + sim_plan_below(sim.hosts_count);
    sim_note("scaled to %u", wanted);
    for (unsigned i = 0; i < sim.hosts_count; i++) {
        if (i < wanted)
            sim_start(i);
        else if (may_lose(i))
            sim_leave(i);
    }
}

static void crash(void)
{
    unsigned host = some_host();
    if (!may_lose(host)) {
        sim_start(host);
        return;
    }
    sim_kill(host);
    start_later(host, sim_plan_between(10, 20000));
}

static void crash_all(void)
{
    for (unsigned i = 0; i < sim.hosts_count; i++) {
        sim_kill(i);
        start_later(i, sim_plan_between(10, 15000));
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
    sim_after(lasting_us(50, 15000), NULL, go_on, (void *)(uintptr_t)host);
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
        sim_consul_look();
        break;
    case 2:
        sim.hosts[a].cut_out = false;
        sim.hosts[a].refused_until_us = sim.now_us + REFUSED_US;
        break;
    default:
        sim.cut[a][b] = sim.cut[b][a] = false;
    }
    sim_note("cut %u of a%u is mended", what >> 16, a + 1);
}

static void cut_out(unsigned host)
{
    sim.hosts[host].cut_out = true;
    sim.hosts[host].refused_until_us = INT64_MAX;
}

static void cut(void)
{
    unsigned kind = sim_plan_below(4), a = some_host(), b = some_host();
    if (kind == 0)
        sim.hosts[a].cut_store = true;
    else if (kind == 1)
        sim.hosts[a].cut_consul = true;
    else if (kind == 2)
        cut_out(a);
    else if (a != b)
        sim.cut[a][b] = sim.cut[b][a] = true;
    sim_note("cut %u (store, consul, out, peer) of a%u, a%u", kind, a + 1, b + 1);
    sim_after(lasting_us(100, 20000), NULL, mend, (void *)(uintptr_t)(kind << 16 | a << 8 | b));
}

static void store_leader(void)
{
    int64_t election_us = sim_plan_between(50, 3000) * 1000, found_us[SIM_HOSTS_MAX];
    for (unsigned i = 0; i < SIM_HOSTS_MAX; i++)
        found_us[i] = sim_plan_below(2) ? sim_plan_between(0, 2000) * 1000 : 0;
    sim_store_leader_lost(election_us, sim_plan_between(-STORE_OFF_MS, STORE_OFF_MS), found_us);
}

/* It is away, hangs, is started anew, or changes its leader. */
static void store_trouble(void)
{
    unsigned kind = sim_plan_below(4);
    if (kind == 0)
        sim_store_restart(sim_plan_between(50, 4000) * 1000);
    else if (kind == 1)
        store_leader();
    if (kind <= 1)
        return;
    int64_t until_us = sim.now_us + lasting_us(50, 12000);
    bool away = sim_plan_below(2);
    *(away ? &sim.store_away_until_us : &sim.store_hung_until_us) = until_us;
    sim_note("the store is %s for %lld ms", away ? "away" : "hung",
             (long long)(until_us - sim.now_us) / 1000);
}

static void consul_back(void *arg)
{
    if (arg)
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
    unsigned kind = sim_plan_below(3);
    if (kind == 0) {
        sim_consul_down(true);
        sim_after(lasting_us(100, 30000), NULL, consul_back, sim_plan_below(2) ? &sim : NULL);
    } else if (kind == 1) {
        sim_consul_leaderless(true);
        sim_after(lasting_us(100, 20000), NULL, leader_back, NULL);
    } else {
        sim_consul_wipe();
    }
}

static void instances_trouble(void)
{
    sim_note("other instances");
    sim_consul_instances(sim_plan_below(8));
}

/* Clocks are stepped on hosts; what is right again comes back by itself. */
static void clock_back(void *arg)
{
    sim.clock_set_us = sim.now_us;
    sim.hosts[(uintptr_t)arg].wall_shift_us = 0;
    sim_note("the clock of a%u is right again", (unsigned)(uintptr_t)arg + 1);
}

static void step_clock(void)
{
    unsigned host = some_host();
    int64_t most_us =
        sim_plan_below(2) ? 240000 : 3000000; /* what the store's clock lets pass, and what not */
    sim.clock_set_us = sim.now_us;
    sim.hosts[host].wall_shift_us = sim_plan_between(-most_us, most_us);
    sim_note("the clock of a%u is set by %lld ms", host + 1, (long long)sim.hosts[host].wall_shift_us / 1000);
    sim_after(lasting_us(1000, 20000), NULL, clock_back, (void *)(uintptr_t)host);
}

static void trouble(enum story_trouble which)
{
    static void (*const troubles[TROUBLE_COUNT_])(void) = {[TROUBLE_DEPLOY] = deploy,
                                                           [TROUBLE_ROLL] = roll,
                                                           [TROUBLE_SCALE] = scale,
                                                           [TROUBLE_CRASH] = crash,
                                                           [TROUBLE_CRASH_ALL] = crash_all,
                                                           [TROUBLE_STOP] = stop,
                                                           [TROUBLE_CUT] = cut,
                                                           [TROUBLE_STORE] = store_trouble,
                                                           [TROUBLE_CONSUL] = consul_trouble,
                                                           [TROUBLE_INSTANCES] = instances_trouble,
                                                           [TROUBLE_CLOCK] = step_clock};
    troubles[which]();
}

/* --- telling ------------------------------------------------------------------------------------------------------- */

static void heal(void)
{
    sim_note("calm");
    sim.calm = true;
    sim.weather = (struct sim_weather){0};
    sim.store_away_until_us = sim.store_hung_until_us = 0;
    sim.clock_set_us = sim.now_us;
    memset(sim.cut, 0, sizeof(sim.cut));
    sim_consul_down(false);
    sim_consul_leaderless(false);
    sim_consul_instances(7);
    for (unsigned i = 0; i < sim.hosts_count; i++) {
        sim_pause(i, false);
        if (sim.hosts[i].cut_out)
            sim.hosts[i].refused_until_us = sim.now_us + REFUSED_US;
        sim.hosts[i].cut_store = sim.hosts[i].cut_consul = sim.hosts[i].cut_out = false;
        sim.hosts[i].wall_shift_us = sim.hosts[i].store_away_until_us = 0;
    }
    sim_consul_look();
}

static void tell_part(const struct story_part *part)
{
    rng_init(&sim.plan, part->seed);
    if (part->type == PART_WEATHER)
        ((unsigned *)&sim.weather)[part->what] = (unsigned)part->seed;
    else if (part->type == PART_WISH)
        sim_client_wish((enum sim_wish)part->what);
    else
        trouble((enum story_trouble)part->what);
}

static void tell(const struct story_plan *p, uint64_t world, FILE *trace)
{
    int64_t until_us = p->count > 0 ? p->parts[p->count - 1].at_us + AFTER_US : 0;
    int64_t calm_ms = CALM_MS * (p->kind == STORY_DAYS ? SCALE : 1);
    sim.scale = p->kind == STORY_DAYS ? SCALE : 1;
    log_set(trace ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
    rng_init(&sim.rng, p->seed + world);
    sim.epoch_ms = p->epoch_ms;
    sim.length_ms = until_us / 1000 + HEAL_MS + calm_ms;
    sim.memory_max_bytes = p->memory_max_bytes;
    sim.load_page = p->load_page;
    sim.batch_rows = p->batch_rows;
    sim.planned = p->troubles == STORY_PLANNED;
    sim.crashes_only = p->troubles == STORY_CRASHES;
    sim.all_live = p->troubles == STORY_PLANNED || p->troubles == STORY_CONSUL;
    sim_open(p->seed, p->hosts, trace);
    for (unsigned i = 0; i < sim.hosts_count; i++)
        sim_after(sim_between(0, 2000) * 1000, NULL, start_again, (void *)(uintptr_t)i);
    for (size_t i = 0; i < p->count; i++) {
        sim_run_ms((p->parts[i].at_us - sim.now_us) / 1000);
        tell_part(&p->parts[i]);
    }
    sim_run_ms((until_us - sim.now_us) / 1000);
    heal();
    sim_run_ms(HEAL_MS);
    for (unsigned i = 0; i < sim.hosts_count; i++)
        sim_start(i);
    sim_client_resume_all();
    sim_run_ms(calm_ms);
    sim_oracle_end();
}

struct story_result story_tell(const struct story_plan *p, uint64_t world, FILE *trace)
{
    struct story_result *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *shared = (struct story_result){0};
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int nowhere = trace ? -1 : open("/dev/null", O_WRONLY);
        if (nowhere >= 0)
            (void)dup2(nowhere, STDERR_FILENO); /* what agents log is told when the story is told again */
        sim.broken = shared->broken;
        tell(p, world, trace);
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
        (void)snprintf(result.broken, sizeof(result.broken), "ended by signal %d", -result.code);
    return result;
}
