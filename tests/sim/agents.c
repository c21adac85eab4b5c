/* Lives of agents: what agent/agent.c does with an engine, without the API's listeners. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/clock_guard.h"
#include "agent/config.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"
#include "agent/metrics.h"
#include "consul/consul_client.h"
#include "tests/sim/sim.h"

struct sim_proc *sim_proc_at(const char *address)
{
    for (unsigned i = 0; i < sim.hosts_count; i++) {
        struct sim_host *h = &sim.hosts[i];
        if (strcmp(h->address, address) == 0)
            return h->proc && !h->proc->dead ? h->proc : NULL;
    }
    return NULL;
}

struct sim_proc *sim_owner(uint16_t slot)
{
    for (unsigned i = 0; i < sim.hosts_count; i++) {
        struct sim_proc *p = sim.hosts[i].proc;
        if (p && !p->dead && !p->paused && p->engine && engine_owns(p->engine, slot))
            return p;
    }
    return NULL;
}

unsigned sim_alive(unsigned *list)
{
    unsigned n = 0;
    for (unsigned i = 0; i < sim.hosts_count; i++)
        if (sim.hosts[i].proc && !sim.hosts[i].proc->dead && !sim.hosts[i].proc->left)
            list[n++] = i;
    return n;
}

/* --- lives --------------------------------------------------------------------------------------------------------- */

static void on_joined(void *arg)
{
    sim_note("%s has joined", ((struct sim_proc *)arg)->member);
}

static void new_life(void *arg);

static void retire(void *arg)
{
    struct sim_proc *p = arg;
    engine_retire(p->engine, new_life, p);
}

static void on_rejoin(void *arg)
{
    struct sim_proc *p = arg;
    sim_note("%s was declared dead and joins again", p->member);
    if (sim.all_live)
        sim_broken("%s was declared dead, and nothing was wrong with it or the store", p->member);
    sim_after(1, p, retire, p);
}

static void new_life(void *arg)
{
    struct sim_proc *p = arg;
    (void)snprintf(p->member, sizeof(p->member), "%s.%04x%02x", p->host->name, p->number, ++p->lives);
    struct engine_options options = {.loop = p->loop,
                                     .config = sim.config,
                                     .store = &store_mem,
                                     .store_self = p->store,
                                     .slots = SIM_SLOTS,
                                     .consul = p->consul,
                                     .http = p->http,
                                     .clock = p->clock,
                                     .metrics = p->metrics,
                                     .tzdata = SIM_TZDATA,
                                     .member = p->member,
                                     .peer_port = SIM_PORT,
                                     .config_digest = "",
                                     .started_ms = sim_wall_ms(),
                                     .seed = rng_u64(&sim.rng),
                                     .memory_max_bytes = sim.memory_max_bytes,
                                     .load_page = sim.load_page,
                                     .owned = p->owned,
                                     .joined = on_joined,
                                     .rejoin = on_rejoin,
                                     .arg = p};
    char host[32];
    (void)snprintf(host, sizeof(host), "%.*s", (int)strcspn(p->host->address, ":"), p->host->address);
    options.peer_host = strdup(host); /* the story's end takes it */
    if (engine_new(&options, &p->engine, NULL) < 0)
        sim_broken("an engine cannot be made");
}

static void on_clock(void *arg, bool sure)
{
    struct sim_proc *p = arg;
    (void)sure;
    if (p->engine)
        engine_clock_changed(p->engine);
}

static void begin(void *arg)
{
    struct sim_proc *p = arg;
    struct consul_client_options consul = {.address = "127.0.0.1:8500"};
    p->metrics = metrics_new();
    if (loop_new(&p->loop, NULL) < 0 || http_client_new(p->loop, 16, &p->http, NULL) < 0 ||
        consul_client_new(p->loop, &consul, &p->consul, NULL) < 0 ||
        clock_guard_new(p->loop, true, on_clock, p, &p->clock, NULL) < 0)
        sim_broken("an agent cannot be made");
    sim_store_open(p);
    new_life(p);
}

void sim_start(unsigned host)
{
    struct sim_host *h = &sim.hosts[host];
    if (h->proc && !h->proc->dead)
        return;
    struct sim_proc *p = mem_new(struct sim_proc);
    p->host = h;
    p->number = ++sim.procs_count;
    p->started_us = sim.now_us;
    p->parked_end = &p->parked;
    p->next = sim.procs;
    sim.procs = h->proc = p;
    sim_note("%s starts", h->name);
    sim_enter(p, begin, p);
    sim_links_look(h->address);
}

static void died(struct sim_proc *p)
{
    p->dead = true;
    p->paused = false;
    p->died_us = sim.now_us;
    sim_links_look(p->host->address);
}

void sim_kill(unsigned host)
{
    struct sim_proc *p = sim.hosts[host].proc;
    if (!p || p->dead)
        return;
    sim_note("%s is killed", p->host->name);
    died(p);
    sim_store_die(p);
}

static void on_left(void *arg, bool clean)
{
    struct sim_proc *p = arg;
    sim_note("%s has left%s", p->member, clean ? "" : ", not clean");
    died(p);
}

static void leave(void *arg)
{
    struct sim_proc *p = arg;
    engine_leave(p->engine, 20000, on_left, p);
}

void sim_leave(unsigned host)
{
    struct sim_proc *p = sim.hosts[host].proc;
    if (!p || p->dead || p->left || !p->engine)
        return;
    sim_note("%s is told to leave", p->host->name);
    p->left = true;
    sim_after(0, p, leave, p);
}

/* --- the world ----------------------------------------------------------------------------------------------------- */

void sim_open(uint64_t seed, unsigned hosts, FILE *trace)
{
    const char *const sets[] = {
        "cluster.mode=consul",   "store.driver=mysql",
        "cluster.insecure=true", "agent.name=sim",
        "store.mysql.user=sim",  sim.scale > 1 ? "store.horizon=60s" : "store.horizon=5s"};
    struct option_errors errors = {0};
    struct err e = {0};
    sim.seed = seed;
    sim.trace = trace;
    sim.hosts_count = hosts;
    for (unsigned i = 0; i < hosts; i++) {
        struct sim_host *h = &sim.hosts[i];
        h->index = i;
        (void)snprintf(h->name, sizeof(h->name), "a%u", i + 1);
        (void)snprintf(h->address, sizeof(h->address), "10.0.0.%u:%d", i + 1, SIM_PORT);
        h->boot_us = sim_between(1000000, 1000000000000);
        h->drift_ppm = sim_between(-50, 50);
    }
    if (config_load(NULL, sets, sizeof(sets) / sizeof(sets[0]), NULL, &sim.config, &errors, &e) < 0)
        sim_broken("configuration: %s", e.text);
    if (sim.batch_rows)
        sim.config->store.batch_rows = sim.batch_rows;
    sim_consul_open();
}
