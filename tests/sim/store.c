/* How agents reach the store: their calls take time, fail, or are done without anybody learning of it. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/io/loop.h"
#include "agent/core/tz.h"
#include "agent/store/store_mem.h"
#include "tests/sim/sim.h"

struct call {
    struct sim_proc *proc;
    struct loop_msg *msg;
    bool run;
    struct call *next;
};

static struct call *calls; /* on the wire */

static enum store_mem_fault fate; /* of the call that runs */

static void run_message(void *arg)
{
    struct loop_msg *msg = arg;
    msg->run(msg);
}

static void forget(struct call *c)
{
    struct call **at = &calls;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
}

static bool is_away(const struct sim_proc *p)
{
    return sim.now_us < sim.store_away_until_us || sim.now_us < p->host->store_away_until_us ||
           p->host->cut_store;
}

/* The answer of a call that was done, unless the way is cut meanwhile: then its sender never learns. */
static void come_back(void *arg)
{
    struct loop_msg *msg = arg;
    if (sim.current->host->cut_store)
        store_mem_lose(msg);
    msg->run(msg);
}

static void reply(void *arg, struct loop_msg *msg)
{
    bool slow = sim_chance(sim.weather.store_slow_percent);
    sim_after(slow ? sim_between(10000, 1500000) : sim_between(50, 800), arg, come_back, msg);
}

static void arrive(void *arg)
{
    struct call *c = arg;
    if (c->run)
        return;
    if (sim.now_us < sim.store_hung_until_us) {
        sim_after(sim.store_hung_until_us - sim.now_us + sim_between(0, 5000), c->proc, arrive, c);
        return;
    }
    fate = STORE_MEM_OK;
    if (is_away(c->proc))
        fate = STORE_MEM_LOST_BEFORE;
    else if (sim_chance(sim.weather.store_flaky_percent))
        fate = sim_chance(50) ? STORE_MEM_LOST_BEFORE : STORE_MEM_LOST_AFTER;
    c->run = true;
    forget(c);
    sim_witness_before(c->msg);
    run_message(c->msg);
    sim_witness_after();
    mem_free(c);
}

static void send_call(void *arg, struct loop_msg *msg)
{
    struct sim_proc *p = arg;
    if (p->dead)
        return; /* as in net.c: reaches nobody */
    struct call *c = mem_new(struct call);
    *c = (struct call){.proc = p, .msg = msg, .next = calls};
    calls = c;
    int64_t delay_us = sim_between(300, 3000);
    if (is_away(p))
        delay_us = sim_chance(50) ? sim_between(500, 2000)
                                  : sim_between(1000000, 5000000); /* refused, or timed out */
    else if (sim_chance(sim.weather.store_slow_percent))
        delay_us += sim_between(10000, 1500000);
    sim_after(delay_us, p, arrive, c);
}

static enum store_mem_fault fault(void *arg, const char *op)
{
    (void)arg, (void)op;
    return fate;
}

/* What it had sent when it died is done or not; its own reaction reaches nobody. */
void sim_store_die(struct sim_proc *p)
{
    for (struct call *c = calls, *next; c; c = next) {
        next = c->next;
        if (c->proc != p)
            continue;
        forget(c);
        c->run = true; /* its event is dropped with the process */
        if (!sim_chance(50) || is_away(p))
            continue;
        fate = STORE_MEM_OK;
        sim_witness_before(c->msg);
        sim_enter(p, run_message, c->msg);
        sim_witness_after();
    }
}

static enum store_mem_fault restarted(void)
{
    return sim_chance(50) ? STORE_MEM_LOST_BEFORE : STORE_MEM_LOST_AFTER;
}

static void arrive_lost(void *arg)
{
    struct call *c = arg;
    fate = restarted();
    sim_witness_before(c->msg);
    run_message(c->msg);
    sim_witness_after();
    mem_free(c);
}

/* Every call that is on its way is done or not, and its reply lost. */
static void lose_calls(void)
{
    for (struct call *c = calls, *next; c; c = next) {
        next = c->next;
        struct call *lost = mem_new(struct call);
        *lost = (struct call){.proc = c->proc, .msg = c->msg};
        c->run = true; /* its event finds nothing to do */
        sim_after(sim_between(100, 1000), c->proc, arrive_lost, lost);
    }
    calls = NULL;
}

void sim_store_restart(int64_t away_us)
{
    sim_note("the store is started anew, and away for %lld ms", (long long)away_us / 1000);
    lose_calls();
    sim.store_away_until_us = sim.now_us + away_us;
}

/* As a store of several servers with one leader has it. */
void sim_store_leader_lost(int64_t election_us, int64_t clock_ms, const int64_t *found_us)
{
    sim_note("the store's leader is lost, the next one is there after %lld ms, its clock is off by %lld",
             (long long)election_us / 1000, (long long)clock_ms);
    lose_calls();
    sim.store_away_until_us = sim.now_us + election_us;
    sim.store_shift_ms = clock_ms;
    for (unsigned i = 0; i < sim.hosts_count; i++)
        sim.hosts[i].store_away_until_us = sim.store_away_until_us + found_us[i];
}

static int64_t store_now_ms(void *arg)
{
    (void)arg;
    return sim_wall_ms() + sim.store_shift_ms;
}

static void direct(void *arg, struct loop_msg *msg)
{
    (void)arg;
    fate = STORE_MEM_OK;
    msg->run(msg);
}

static void *open_on_world(struct store_mem_options *options, const char *member)
{
    struct store_meta meta;
    void *self = NULL;
    struct store_open_args args = {.loop = NULL,
                                   .options = options,
                                   .cluster = "default",
                                   .slots = SIM_SLOTS,
                                   .member = member,
                                   .now_ms = store_now_ms};
    if (store_mem.open(&args, &self, &meta, NULL) < 0)
        sim_broken("the store does not open");
    return self;
}

void sim_store_open(struct sim_proc *p)
{
    static struct store_mem_options reader;
    if (!sim.store) {
        sim.store = store_mem_world_new();
        reader = (struct store_mem_options){.world = sim.store, .send = direct, .fault = fault};
        sim.reader = open_on_world(&reader, "oracle");
    }
    p->store_options = (struct store_mem_options){
        .world = sim.store, .send = send_call, .fault = fault, .reply = reply, .arg = p};
    p->store = open_on_world(&p->store_options, p->host->name);
}
