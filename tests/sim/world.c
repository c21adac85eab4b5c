#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/mem.h"

struct sim sim;

struct sim_event {
    int64_t at_us;
    uint64_t order;
    struct sim_proc *proc;
    sim_fn *fn;
    void *arg;
    struct sim_event *next; /* parked, or free for another use */
};

static struct sim_event *unused;

/* --- chance and words ---------------------------------------------------------------------------------------------- */

int64_t sim_between(int64_t lo, int64_t hi)
{
    return rng_range(&sim.rng, lo, hi);
}

bool sim_chance(unsigned percent)
{
    return percent > 0 && rng_below(&sim.rng, 100) < percent;
}

int64_t sim_plan_between(int64_t lo, int64_t hi)
{
    return rng_range(&sim.plan, lo, hi);
}

unsigned sim_plan_below(unsigned n)
{
    return (unsigned)rng_below(&sim.plan, n);
}

void sim_note(const char *fmt, ...)
{
    if (!sim.trace)
        return;
    fprintf(sim.trace, "%9.3f %-4s ", (double)sim.now_us / 1e6, sim.current ? sim.current->host->name : "");
    va_list args;
    va_start(args, fmt);
    vfprintf(sim.trace, fmt, args);
    va_end(args);
    fputc('\n', sim.trace);
}

void sim_broken(const char *fmt, ...)
{
    char text[SIM_BROKEN_MAX - 100];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sim_note("BROKEN: %s", text);
    if (sim.broken)
        (void)snprintf(sim.broken, SIM_BROKEN_MAX, "%lld ms: %s", (long long)sim.now_us / 1000, text);
    fflush(NULL);
    _exit(SIM_BROKEN);
}

/* --- time ---------------------------------------------------------------------------------------------------------- */

int64_t sim_local_us(const struct sim_proc *p)
{
    return p->host->boot_us + sim.now_us + sim.now_us / 1000 * p->host->drift_ppm / 1000;
}

int64_t sim_wall_ms(void)
{
    return sim.epoch_ms + sim.now_us / 1000;
}

/* --- events -------------------------------------------------------------------------------------------------------- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order);
}

static void push(struct sim_event *ev)
{
    if (sim.heap_count == sim.heap_capacity) {
        sim.heap_capacity = sim.heap_capacity ? 2 * sim.heap_capacity : 1024;
        sim.heap = realloc(sim.heap, sim.heap_capacity * sizeof(struct sim_event *));
    }
    size_t i = sim.heap_count++;
    for (; i > 0 && earlier(ev, sim.heap[(i - 1) / 2]); i = (i - 1) / 2)
        sim.heap[i] = sim.heap[(i - 1) / 2];
    sim.heap[i] = ev;
}

static struct sim_event *pop(void)
{
    struct sim_event *top = sim.heap[0], *last = sim.heap[--sim.heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= sim.heap_count)
            break;
        if (child + 1 < sim.heap_count && earlier(sim.heap[child + 1], sim.heap[child]))
            child++;
        if (!earlier(sim.heap[child], last))
            break;
        sim.heap[i] = sim.heap[child];
        i = child;
    }
    sim.heap[i] = last;
    return top;
}

void sim_after(int64_t delay_us, struct sim_proc *proc, sim_fn *fn, void *arg)
{
    struct sim_event *ev = unused;
    if (ev)
        unused = ev->next;
    else
        ev = mem_new(struct sim_event);
    *ev = (struct sim_event){.at_us = sim.now_us + (delay_us > 0 ? delay_us : 0),
                             .order = ++sim.order,
                             .proc = proc,
                             .fn = fn,
                             .arg = arg};
    push(ev);
}

void sim_enter(struct sim_proc *p, sim_fn *fn, void *arg)
{
    struct sim_proc *before = sim.current;
    sim.current = p;
    fn(arg);
    sim_turn_end(p);
    sim.current = before;
}

static void park(struct sim_proc *p, struct sim_event *ev)
{
    ev->next = NULL;
    *p->parked_end = ev;
    p->parked_end = &ev->next;
}

void sim_run_ms(int64_t ms)
{
    int64_t until_us = sim.now_us + ms * 1000;
    while (sim.heap_count > 0 && sim.heap[0]->at_us <= until_us) {
        struct sim_event *ev = pop();
        struct sim_proc *p = ev->proc;
        if (ev->at_us > sim.now_us)
            sim.now_us = ev->at_us;
        sim.events++;
        if (p && p->paused && !p->dead) {
            park(p, ev);
            continue;
        }
        if (p && !p->dead) {
            sim_enter(p, ev->fn, ev->arg);
            sim_oracle_check();
        } else if (!p) {
            ev->fn(ev->arg);
        }
        ev->next = unused;
        unused = ev;
    }
    sim.now_us = until_us;
}

/* What came while it was stopped comes now, in order. */
void sim_pause(unsigned host, bool on)
{
    struct sim_proc *p = sim.hosts[host].proc;
    if (!p || p->paused == on)
        return;
    sim_note("%s %s", p->host->name, on ? "is stopped" : "goes on");
    p->paused = on;
    for (struct sim_event *ev = p->parked, *next; !on && ev; ev = next) {
        next = ev->next;
        ev->at_us = sim.now_us;
        ev->order = ++sim.order;
        push(ev);
    }
    if (!on) {
        p->parked = NULL;
        p->parked_end = &p->parked;
    }
}
