/* Agents that find their voters while they die, come back, lose their folders, and Consul its key; against a log that is as simple as
 * can be: it has a configuration, and a leader while most of it is alive. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/core/voters.h"
#include "tests/lib/seed.h"

#define AGENTS      6
#define FOLDERS_MAX 4000
#define STEP_MS     500
#define STORIES     60
#define EVENTS      60

struct agent {
    struct voters_me me; /* with what the folder remembers */
    struct voters_seen seen;
    bool alive;
    uint64_t runs; /* the voter that it is; 0: none */
    int64_t silent_since_ms;
    bool cut; /* from Consul */
    struct voters_doc view;
    bool has_view;
    uint64_t view_index;
};

struct world {
    struct rng rng;
    uint64_t seed;
    int64_t now_ms;
    struct agent agents[AGENTS];
    unsigned folders;
    struct voters_doc doc;
    bool has_doc;
    uint64_t index;

    /* the log */
    bool made;
    struct voters_log_voter config[VOTERS_MAX];
    size_t config_count;
    int leader; /* an agent, or -1 */
    struct {
        uint64_t number;
        char folder[VOTERS_FOLDER_SIZE];
    } given[FOLDERS_MAX];
    size_t given_count;
    struct voters_doc first;
};

static void new_folder(struct world *w, size_t i)
{
    struct voters_me *me = &w->agents[i].me;
    *me = (struct voters_me){.wanted = 3};
    snprintf(me->folder, sizeof(me->folder), "f%u", ++w->folders);
    snprintf(me->name, sizeof(me->name), "agent%zu", i);
    snprintf(me->address, sizeof(me->address), "agent%zu:7422", i);
    w->agents[i].seen = (struct voters_seen){0};
}

/* --- the log ------------------------------------------------------------------------------------------------------- */

static int agent_of(const struct world *w, uint64_t number)
{
    for (int i = 0; i < AGENTS; i++)
        if (w->agents[i].alive && w->agents[i].runs == number)
            return i;
    return -1;
}

static size_t votes_alive(const struct world *w, size_t *ret_all)
{
    size_t alive = 0;
    *ret_all = 0;
    for (size_t i = 0; i < w->config_count; i++) {
        *ret_all += w->config[i].votes;
        alive += w->config[i].votes && agent_of(w, w->config[i].number) >= 0;
    }
    return alive;
}

/* For whoever reads the failure. */
static void tell(const struct world *w)
{
    for (size_t i = 0; i < w->doc.count; i++)
        fprintf(stderr, "document: %" PRIu64 " %s %s %s\n", w->doc.list[i].number,
                voter_state_name(w->doc.list[i].state), w->doc.list[i].folder, w->doc.list[i].name);
    for (size_t i = 0; i < w->config_count; i++)
        fprintf(stderr, "log: %" PRIu64 " %s, silent for %lld ms\n", w->config[i].number,
                w->config[i].votes ? "votes" : "joins", (long long)w->config[i].silent_ms);
    for (size_t i = 0; i < AGENTS; i++)
        fprintf(stderr, "agent %zu: %s, %s, number %" PRIu64 ", runs %" PRIu64 "%s\n", i,
                w->agents[i].me.folder, w->agents[i].alive ? "alive" : "dead", w->agents[i].me.number,
                w->agents[i].runs, (int)i == w->leader ? ", leads" : "");
}

static bool has_majority(const struct world *w)
{
    size_t all, alive = votes_alive(w, &all);
    return w->made && 2 * alive > all;
}

static void elect(struct world *w)
{
    if (!has_majority(w)) {
        w->leader = -1;
        return;
    }
    if (w->leader >= 0 && w->agents[w->leader].alive) {
        for (size_t i = 0; i < w->config_count; i++)
            if (w->config[i].votes && w->config[i].number == w->agents[w->leader].runs)
                return;
    }
    do
        w->leader = agent_of(w, w->config[rng_below(&w->rng, w->config_count)].number);
    while (w->leader < 0);
    for (size_t i = 0; i < w->config_count; i++) /* a new leader counts the silence anew */
        w->config[i].silent_ms = agent_of(w, w->config[i].number) < 0;
}

/* The leader makes the log's configuration what it last read, one change at a time. */
static void follow(struct world *w)
{
    if (w->leader < 0 || !w->agents[w->leader].has_view)
        return;
    const struct voters_doc *doc = &w->agents[w->leader].view;
    if (!doc->fixed || doc->unsure || w->agents[w->leader].view_index != w->index)
        return; /* only what is surely the newest */
    for (size_t i = 0; i < w->config_count; i++)
        if (!w->config[i].votes && agent_of(w, w->config[i].number) >= 0 && rng_below(&w->rng, 3) == 0) {
            w->config[i].votes = true;
            return;
        }
    for (size_t i = 0; i < doc->count; i++) {
        bool there = false;
        for (size_t k = 0; k < w->config_count; k++)
            there |= w->config[k].number == doc->list[i].number;
        if (!there && agent_of(w, doc->list[i].number) >= 0) {
            cr_assert(eq(int, doc->list[i].state, VOTER_JOINING), "seed %" PRIu64, w->seed);
            w->config[w->config_count++] = (struct voters_log_voter){.number = doc->list[i].number};
            return;
        }
    }
    for (size_t k = 0; k < w->config_count; k++)
        if (!voters_find(doc, w->config[k].number)) {
            memmove(&w->config[k], &w->config[k + 1], (--w->config_count - k) * sizeof(w->config[0]));
            if (!has_majority(w))
                tell(w);
            cr_assert(has_majority(w), "a majority was shrunk away, seed %" PRIu64, w->seed);
            return;
        }
}

static void begin(struct world *w, struct agent *a, const struct voters_place *place)
{
    if (!w->made) {
        w->made = true;
        w->first = a->view;
        for (size_t i = 0; i < a->view.first_count; i++)
            w->config[w->config_count++] =
                (struct voters_log_voter){.number = a->view.first[i].number, .votes = true};
    }
    cr_assert(eq(str, a->view.set, w->first.set), "a second beginning, seed %" PRIu64, w->seed);
    cr_assert(eq(sz, a->view.first_count, w->first.first_count));
    for (size_t i = 0; i < a->view.first_count; i++)
        cr_assert(eq(u64, a->view.first[i].number, w->first.first[i].number), "seed %" PRIu64, w->seed);
    cr_assert(gt(u64, place->number, 0));
}

/* --- an agent ------------------------------------------------------------------------------------------------------ */

static void look(struct world *w, struct agent *a)
{
    if (a->cut)
        return;
    a->has_view = w->has_doc;
    a->view = w->doc;
    a->view_index = w->index;
}

static void take_place(struct world *w, size_t i)
{
    struct agent *a = &w->agents[i];
    struct voters_place place;
    voters_place(a->has_view ? &a->view : NULL, &a->me, &place);
    if (place.role == VOTERS_ROLE_REMOVED && a->runs == 0) { /* the folder is moved away */
        new_folder(w, i);
        return;
    }
    cr_assert(ne(int, place.role, VOTERS_ROLE_REFUSED), "%s, seed %" PRIu64, place.why, w->seed);
    if (place.role != VOTERS_ROLE_VOTER || a->runs != 0)
        return;
    if (place.begin)
        begin(w, a, &place);
    a->runs = place.number;
    if (!a->me.has_data)
        memcpy(a->me.set, a->view.set, sizeof(a->me.set));
    a->me.number = place.number;
    a->me.used = a->me.has_data = true;
}

/* Claims bind nobody: a key that is lost is claimed in until the leader has written it again. */
static void check_numbers(struct world *w, const struct voters_doc *doc)
{
    for (size_t i = 0; doc->fixed && i < doc->count; i++) {
        const struct voter *v = &doc->list[i];
        size_t k = 0;
        if (v->folder[0] == '\0')
            continue;
        while (k < w->given_count && w->given[k].number != v->number)
            k++;
        if (k == w->given_count) {
            cr_assert(lt(sz, k, FOLDERS_MAX));
            w->given_count++;
            w->given[k].number = v->number;
            memcpy(w->given[k].folder, v->folder, VOTERS_FOLDER_SIZE);
        }
        cr_assert(eq(str, w->given[k].folder, (char *)v->folder), "number %" PRIu64 ", seed %" PRIu64,
                  v->number, w->seed);
    }
}

static void log_of(const struct world *w, size_t i, struct voters_log *ret)
{
    const struct agent *a = &w->agents[i];
    *ret = (struct voters_log){.has_leader = w->leader >= 0, .leads = (int)i == w->leader};
    if (a->runs == 0 || !w->made)
        return;
    ret->known = true;
    ret->count = w->config_count;
    memcpy(ret->list, w->config, sizeof(ret->list));
    for (size_t k = 0; k < ret->count; k++)
        snprintf(ret->list[k].address, VOTERS_ADDRESS_SIZE, "log%zu:7422", k);
}

static void step_agent(struct world *w, size_t i)
{
    struct agent *a = &w->agents[i];
    struct voters_log log;
    struct voters_doc next;
    char why[VOTERS_WHY_SIZE];
    if (rng_below(&w->rng, 3) > 0 || (int)i == w->leader)
        look(w, a);
    take_place(w, i);
    log_of(w, i, &log);
    struct voters_now now = {.now_ms = w->now_ms,
                             .wall_ms = 1800000000000 + w->now_ms,
                             .doc = a->has_view ? &a->view : NULL,
                             .me = &a->me,
                             .log = &log};
    if (a->cut || !voters_step(&a->seen, &now, &next))
        return;
    cr_assert(voters_valid(&next, why), "%s, seed %" PRIu64, why, w->seed);
    if (a->view_index != w->index)
        return; /* somebody was first */
    check_numbers(w, &next);
    w->doc = next;
    w->has_doc = true;
    w->index++;
    look(w, a);
    take_place(w, i);
}

static void listen_to_all(struct world *w, int64_t ms)
{
    for (size_t k = 0; k < w->config_count; k++)
        w->config[k].silent_ms = agent_of(w, w->config[k].number) >= 0 ? 0 : w->config[k].silent_ms + ms;
}

static void pass(struct world *w, int64_t ms)
{
    for (int64_t until = w->now_ms + ms; w->now_ms < until; w->now_ms += STEP_MS) {
        size_t first = rng_below(&w->rng, AGENTS);
        for (size_t k = 0; k < AGENTS; k++)
            if (w->agents[(first + k) % AGENTS].alive)
                step_agent(w, (first + k) % AGENTS);
        elect(w);
        follow(w);
        elect(w);
        listen_to_all(w, STEP_MS);
    }
}

static void start(struct world *w, size_t i)
{
    struct agent *a = &w->agents[i];
    a->alive = true;
    a->runs = 0;
    a->me.leaving = a->cut = a->has_view = false;
    a->seen = (struct voters_seen){0};
    look(w, a);
}

/* --- the story ----------------------------------------------------------------------------------------------------- */

static bool is_settled(const struct world *w)
{
    if (!w->has_doc || !w->doc.fixed || w->doc.unsure || w->leader < 0 || w->config_count != 3 ||
        w->doc.count != 3)
        return false;
    for (size_t i = 0; i < w->config_count; i++)
        if (!w->config[i].votes || agent_of(w, w->config[i].number) < 0 ||
            !voters_find(&w->doc, w->config[i].number))
            return false;
    return true;
}

static void settle(struct world *w)
{
    for (size_t i = 0; i < AGENTS; i++) {
        w->agents[i].cut = false;
        if (!w->agents[i].alive || w->agents[i].me.leaving)
            start(w, i);
    }
    for (int tries = 0; !is_settled(w) && tries < 60; tries++)
        pass(w, 5000);
    if (!is_settled(w))
        tell(w);
    cr_assert(is_settled(w), "seed %" PRIu64 ": leader %d, config %zu, document %zu", w->seed, w->leader,
              w->config_count, w->doc.count);
}

/* An emptied folder is a lost copy: one at a time, as whoever runs it has to see to. */
static void event(struct world *w)
{
    size_t i = rng_below(&w->rng, AGENTS);
    struct agent *a = &w->agents[i];
    switch (rng_below(&w->rng, 8)) {
    case 0:
    case 1:
        a->alive = false;
        break;
    case 2:
        if (!a->alive)
            start(w, i);
        break;
    case 3:
        settle(w);
        a->alive = false;
        pass(w, (int64_t)rng_below(&w->rng, 60000));
        new_folder(w, i);
        start(w, i);
        settle(w);
        break;
    case 4:
        settle(w);
        w->has_doc = false;
        w->index++;
        pass(w, 5000); /* nobody can know of a log whose voters are all away */
        break;
    case 5:
        a->cut = !a->cut;
        break;
    case 6:
        a->me.leaving = a->alive;
        a->me.spare = true;
        break;
    default:
        settle(w);
    }
    elect(w);
    listen_to_all(w, 1);
    pass(w, (int64_t)rng_below(&w->rng, 50000));
}

Test(voters_model, whatever_happens_there_is_one_set_and_no_number_twice, .timeout = 600)
{
    static struct world w;
    struct rng seeds;
    seed_rng(&seeds, "voters_model");
    for (unsigned story = 0; story < STORIES; story++) {
        w = (struct world){.seed = rng_u64(&seeds), .leader = -1};
        rng_init(&w.rng, w.seed);
        for (size_t i = 0; i < AGENTS; i++) {
            new_folder(&w, i);
            if (rng_below(&w.rng, 2))
                start(&w, i);
            pass(&w, (int64_t)rng_below(&w.rng, 3000));
        }
        settle(&w);
        for (unsigned k = 0; k < EVENTS; k++)
            event(&w);
        settle(&w);
    }
}
