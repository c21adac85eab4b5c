/* Who votes and who leads: what the leader changes step by step, and what everybody can look at. */
#include "agent/store/raft/replica_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"

#define RETRY_MS     500  /* after a change that failed */
#define HAND_OVER_MS 1000 /* a closing leader waits for the next one */
#define CLOSE_ENOUGH 64   /* entries that a new voter may be behind */

static const struct log_ctx log_here = {.module = "raft"};

/* --- addresses ----------------------------------------------------------------------------------------------------- */

void replica_put_address(char ret[REPLICA_ADDRESS_MAX], const struct mesh_node *node)
{
    (void)snprintf(ret, REPLICA_ADDRESS_MAX, "%llu/%s", (unsigned long long)node->id,
                   node->address); /* fits */
}

static const struct mesh_node *find_wanted(const struct replica *r, uint64_t id)
{
    for (size_t i = 0; i < r->wanted_count; i++)
        if (r->wanted[i].id == id)
            return &r->wanted[i];
    return NULL;
}

static const struct raft_server *find_server(const struct raft_configuration *c, uint64_t id)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == id)
            return &c->servers[i];
    return NULL;
}

/* Those that are wanted, and those that still count. */
void replica_look_nodes(struct replica *r)
{
    struct mesh_node nodes[MESH_NODES_MAX];
    size_t count = r->wanted_count;
    const struct raft_configuration *c = &r->raft.configuration;
    raft_index index = r->raft.configuration_committed_index + r->raft.configuration_uncommitted_index;
    if (!r->nodes_stale && (!r->voting || index == r->nodes_index))
        return;
    r->nodes_stale = false;
    r->nodes_index = index;
    memcpy(nodes, r->wanted, count * sizeof(nodes[0]));
    for (unsigned i = 0; r->voting && i < c->n && count < MESH_NODES_MAX; i++) {
        const char *slash = strchr(c->servers[i].address, '/');
        if (find_wanted(r, c->servers[i].id) || !slash)
            continue;
        nodes[count].id = c->servers[i].id;
        (void)snprintf(nodes[count].address, sizeof(nodes[count].address), "%.127s", slash + 1); /* fits */
        count++;
    }
    mesh_set_nodes(r->mesh, nodes, count, r->voting ? r->raft.id : 0);
}

/* --- changing who votes -------------------------------------------------------------------------------------------- */

static void on_changed(struct raft_change *req, int status)
{
    struct replica *r = req->data;
    r->changing = false;
    r->change_retry_ms = clock_boot_ms() + (status == 0 ? 0 : RETRY_MS);
    if (status != 0)
        log_warn(&log_here, "a change of the voters did not come about", "error=%s",
                 LOGQ(raft_strerror(status)));
}

static void changed(struct replica *r, int rv, uint64_t id, const char *what)
{
    if (rv != 0) {
        r->changing = false;
        r->change_retry_ms = clock_boot_ms() + RETRY_MS;
        log_debug(&log_here, "voters cannot be changed now", "id=%llu what=%s error=%s",
                  (unsigned long long)id, what, LOGQ(raft_errmsg(&r->raft)));
    } else {
        log_info(&log_here, "the voters are changed", "id=%llu what=%s", (unsigned long long)id, what);
    }
}

static void add(struct replica *r, const struct mesh_node *node)
{
    char address[REPLICA_ADDRESS_MAX];
    replica_put_address(address, node);
    r->changing = true;
    changed(r, raft_add(&r->raft, &r->change, node->id, address, on_changed), node->id, "added");
}

static void assign(struct replica *r, uint64_t id, int role)
{
    r->changing = true;
    changed(r, raft_assign(&r->raft, &r->change, id, role, on_changed), id,
            role == RAFT_VOTER ? "votes" : "gets the log");
}

static bool caught_up(struct replica *r, uint64_t id)
{
    raft_index match = 0;
    return mesh_reaches(r->mesh, id) && raft_match_index(&r->raft, id, &match) == 0 &&
           match + CLOSE_ENOUGH >= raft_last_index(&r->raft);
}

/* One step for who is wanted. True: somebody is on the way to vote. */
static bool bring_in(struct replica *r)
{
    bool busy = false;
    for (size_t i = 0; i < r->wanted_count && !r->changing; i++) {
        uint64_t id = r->wanted[i].id;
        const struct raft_server *s = find_server(&r->raft.configuration, id);
        busy |= !s || s->role != RAFT_VOTER;
        if (!s && mesh_reaches(r->mesh, id) && replica_can_read(r, id))
            add(r, &r->wanted[i]);
        else if (s && s->role == RAFT_SPARE)
            assign(r, id, RAFT_STANDBY);
        else if (s && s->role == RAFT_STANDBY && caught_up(r, id))
            assign(r, id, RAFT_VOTER);
    }
    return busy || r->changing;
}

static void on_transferred(struct raft_transfer *req)
{
    struct replica *r = req->data;
    r->transferring = false;
    r->transferred = true;
}

/* The voter that is wanted, can be reached, and has most of the log; 0: none. */
static uint64_t successor(struct replica *r)
{
    const struct raft_configuration *c = &r->raft.configuration;
    uint64_t best = 0;
    raft_index most = 0;
    for (unsigned i = 0; i < c->n; i++) {
        raft_index match = 0;
        uint64_t id = c->servers[i].id;
        if (id == r->raft.id || c->servers[i].role != RAFT_VOTER || !mesh_reaches(r->mesh, id) ||
            (r->wanted_count > 0 && !find_wanted(r, id)) || raft_match_index(&r->raft, id, &match) != 0)
            continue;
        if (best == 0 || match > most)
            best = id;
        most = match > most ? match : most;
    }
    return best;
}

static bool begin_transfer(struct replica *r)
{
    uint64_t id = successor(r);
    if (id == 0)
        return false;
    r->transfer.data = r;
    r->transferring = true;
    if (raft_transfer(&r->raft, &r->transfer, id, on_transferred) != 0)
        r->transferring = false;
    return r->transferring;
}

/* At most once in a while: who gets it may refuse. */
void replica_give_lead(struct replica *r)
{
    if (r->changing || r->transferring || clock_boot_ms() < r->change_retry_ms)
        return;
    r->change_retry_ms = clock_boot_ms() + RETRY_MS;
    if (begin_transfer(r))
        log_warn(&log_here, "another shall lead the log", "id=%llu", (unsigned long long)r->transfer.id);
}

static void take_out(struct replica *r)
{
    const struct raft_configuration *c = &r->raft.configuration;
    for (unsigned i = 0; i < c->n; i++) {
        uint64_t id = c->servers[i].id;
        if (find_wanted(r, id) || id == r->raft.id)
            continue;
        r->changing = true;
        changed(r, raft_remove(&r->raft, &r->change, id, on_changed), id, "removed");
        return;
    }
    if (!find_wanted(r, r->raft.id) && !r->transferring && !r->in_flight) {
        replica_give_lead(r); /* the next leader removes this one; else again later */
    }
}

void replica_members_tick(struct replica *r)
{
    if (!replica_leads(r) || r->changing || r->wanted_count == 0 || clock_boot_ms() < r->change_retry_ms ||
        r->raft.configuration_uncommitted_index != 0)
        return;
    r->change.data = r;
    if (!bring_in(r))
        take_out(r);
}

bool replica_hand_over(struct replica *r)
{
    if (!r->mesh || !r->voting || r->cut || r->transferred || raft_state(&r->raft) != RAFT_LEADER ||
        clock_boot_ms() - r->closing_ms > HAND_OVER_MS)
        return true;
    return !r->transferring && !begin_transfer(r);
}

unsigned replica_majority(const struct replica *r)
{
    const struct raft_configuration *c = &r->raft.configuration;
    unsigned voters = 0;
    bool self = false;
    for (unsigned i = 0; i < c->n; i++) {
        voters += c->servers[i].role == RAFT_VOTER;
        self |= c->servers[i].role == RAFT_VOTER && c->servers[i].id == r->raft.id;
    }
    return voters / 2 + 1 - self;
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

static void look_member(struct replica *r)
{
    bool there = find_server(&r->raft.configuration_committed, r->raft.id) != NULL;
    if (there) {
        r->member = true;
    } else if (r->member && !r->removed) {
        r->removed = true;
        log_warn(&log_here, "is a voter no more", "id=%llu", (unsigned long long)r->raft.id);
    }
}

static enum replica_role role_of(struct replica *r)
{
    if (r->broken.code != ERR_OK)
        return REPLICA_BROKEN;
    if (!r->voting)
        return REPLICA_CLIENT;
    if (r->removed)
        return REPLICA_REMOVED;
    const struct raft_server *self = find_server(&r->raft.configuration, r->raft.id);
    if (!self)
        return REPLICA_WAITING;
    if (self->role != RAFT_VOTER)
        return REPLICA_LEARNING;
    enum raft_state state = raft_state(&r->raft);
    return state == RAFT_LEADER      ? REPLICA_LEADER
           : state == RAFT_CANDIDATE ? REPLICA_CANDIDATE
                                     : REPLICA_FOLLOWER;
}

static void look_servers(struct replica *r, struct replica_view *v)
{
    const struct raft_configuration *c = &r->raft.configuration;
    for (unsigned i = 0; r->voting && i < c->n && i < MESH_NODES_MAX; i++) {
        struct replica_server *s = &v->servers[v->servers_count++];
        raft_index match = 0;
        s->id = c->servers[i].id;
        s->votes = c->servers[i].role == RAFT_VOTER;
        s->reached = s->id == r->raft.id || mesh_reaches(r->mesh, s->id);
        if (v->role == REPLICA_LEADER && raft_match_index(&r->raft, s->id, &match) == 0)
            s->lag = raft_last_index(&r->raft) - match;
    }
}

static bool differs(const struct replica_view *a, const struct replica_view *b)
{
    bool same = a->role == b->role && a->ready == b->ready && a->leader == b->leader && a->term == b->term &&
                a->servers_count == b->servers_count;
    for (size_t i = 0; same && i < a->servers_count; i++)
        same = a->servers[i].id == b->servers[i].id && a->servers[i].votes == b->servers[i].votes;
    return !same;
}

void replica_look_view(struct replica *r)
{
    struct replica_view v = {.self = r->voting ? r->raft.id : 0, .leader = replica_leader(r)};
    if (r->voting) {
        look_member(r);
        replica_learn(r, machine_meta(r->machine));
        v.applied = raft_last_applied(&r->raft);
        v.last = raft_last_index(&r->raft);
    }
    v.term =
        r->voting && raft_current_term(&r->raft) > r->hint.term ? raft_current_term(&r->raft) : r->hint.term;
    v.role = role_of(r);
    v.ready = replica_leads(r);
    if (v.leader != 0 && v.leader != r->leader_seen) {
        r->leader_seen = v.leader;
        r->elections++;
    }
    v.elections = r->elections;
    look_servers(r, &v);
    if (r->broken.code != ERR_OK)
        memcpy(v.problem, r->broken.text, sizeof(v.problem));
    pthread_mutex_lock(&r->lock);
    bool news = differs(&v, &r->view);
    r->view = v;
    pthread_mutex_unlock(&r->lock);
    if (news)
        replica_changed(r);
}
