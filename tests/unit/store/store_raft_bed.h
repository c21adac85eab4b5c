/* A cluster of the Raft-log store in one process, over loopback and with real files: voters and clients, each with a store of its own
 * on the one loop. Before including, include criterion and define contract_fail (store_contract.h). */
#ifndef CARILLON_TESTS_STORE_RAFT_BED_H
#define CARILLON_TESTS_STORE_RAFT_BED_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/io/listener.h"
#include "agent/io/tzload.h"
#include "agent/store/raft/folder.h"
#include "agent/store/raft/folder_read.h"
#include "agent/store/raft/replica.h"
#include "agent/store/raft/wire_tls.h"
#include "agent/store/store_raft.h"
#include "tests/lib/patience.h"
#include "tests/unit/store/store_contract.h"

enum { BED_MAX = 6 };

struct bed_node {
    struct contract t;
    char dir[64];
    uint64_t id; /* 0: a client */
    struct store_raft_cluster *cluster;
    struct listener listener;
};

struct cluster_bed {
    struct loop *loop;
    struct loop_timer *timer;
    struct tzload *zones;
    struct bed_node nodes[BED_MAX];
    size_t count;
    struct store_raft_voter voters[BED_MAX]; /* as the cluster shall have them */
    size_t voters_count;
    const char *secret;
    uint64_t patience_ms; /* of those that start from now on */
    unsigned election_ms;
    int64_t snapshot_entries;
};

static inline int64_t bed_now_ms(void *arg)
{
    (void)arg;
    return clock_wall_ms();
}

static inline void bed_stop(void *arg)
{
    loop_stop(arg);
}

static inline void bed_turn(struct cluster_bed *b)
{
    loop_timer_arm(b->timer, 5);
    loop_run(b->loop);
}

#define BED_WAIT(b, condition)                                               \
    do {                                                                     \
        uint64_t until_ms_ = clock_boot_ms() + PATIENCE_MS;                  \
        while (!(condition)) {                                               \
            CHECK(clock_boot_ms() < until_ms_, "%s", "waited for too long"); \
            bed_turn(b);                                                     \
        }                                                                    \
    } while (0)

static inline struct store_raft_status bed_status(const struct bed_node *n)
{
    struct store_raft_status s;
    store_raft_cluster_status(n->cluster, &s);
    return s;
}

static inline struct replica_stats bed_stats(const struct bed_node *n)
{
    struct replica_stats s;
    store_raft_cluster_stats(n->cluster, &s);
    return s;
}

/* The part of node N, with the folder it had before, if any; it does not vote yet. */
static inline void bed_make(struct cluster_bed *b, struct bed_node *n)
{
    struct err e = {0};
    struct wire_tls_options tls = {
        .cluster = "test", .secret = b->secret, .secret_bytes = b->secret ? strlen(b->secret) : 0};
    struct store_raft_cluster_options options = {.loop = b->loop,
                                                 .dir = n->dir,
                                                 .name = "test",
                                                 .slots = CONTRACT_SLOTS,
                                                 .snapshot_entries = b->snapshot_entries,
                                                 .patience_ms = b->patience_ms,
                                                 .election_ms = b->election_ms,
                                                 .tls = &tls,
                                                 .now_ms = bed_now_ms};
    CHECK(store_raft_cluster_new(&options, &n->cluster, &e) == 0, "%s", e.text);
}

/* At the address it had before, if any. FIRST: an empty folder begins with the voters. */
static inline int bed_vote(struct cluster_bed *b, struct bed_node *n, bool first, struct err *e)
{
    int fd = n->listener.fd;
    if (fd < 0) {
        struct listener again;
        CHECK(listener_open(&again, n->listener.address, 0, e) == 0, "%s", e->text);
        fd = fd_take(&again.fd);
        listener_fini(&again);
    }
    n->listener.fd = -1;
    return store_raft_cluster_vote(n->cluster, n->id, fd, b->voters, first ? b->voters_count : 0, e);
}

/* All of that. */
static inline void bed_start(struct cluster_bed *b, struct bed_node *n, bool first)
{
    struct err e = {0};
    bed_make(b, n);
    if (n->id != 0)
        CHECK(bed_vote(b, n, first, &e) == 0, "%s", e.text);
    store_raft_cluster_set_voters(n->cluster, b->voters, b->voters_count);
}

static inline void bed_attach(struct cluster_bed *b, struct bed_node *n)
{
    struct err e = {0};
    struct store_raft_options options = {.dir = n->dir, .snapshot_entries = 100, .cluster = n->cluster};
    struct store_open_args args = {.loop = b->loop,
                                   .options = &options,
                                   .cluster = "test",
                                   .slots = CONTRACT_SLOTS,
                                   .member = "m1",
                                   .zones = b->zones,
                                   .now_ms = bed_now_ms};
    n->t.ops = &store_raft;
    n->t.loop = b->loop;
    BED_WAIT(b, bed_status(n).made);
    CHECK(store_raft.open(&args, &n->t.self, &n->t.meta, &e) == 0, "%s", e.text);
}

static inline struct bed_node *bed_add(struct cluster_bed *b, uint64_t id)
{
    struct err e = {0};
    struct bed_node *n = &b->nodes[b->count++];
    *n = (struct bed_node){.id = id, .dir = "/tmp/carillon-test-XXXXXX"};
    CHECK(mkdtemp(n->dir) != NULL, "%s", n->dir);
    n->listener.fd = -1;
    if (id != 0)
        CHECK(listener_open(&n->listener, "127.0.0.1:0", 0, &e) == 0, "%s", e.text);
    return n;
}

/* N is to vote, as far as the others are told. */
static inline void bed_name(struct cluster_bed *b, const struct bed_node *n)
{
    struct store_raft_voter *v = &b->voters[b->voters_count++];
    v->id = n->id;
    (void)snprintf(v->address, sizeof(v->address), "%s", n->listener.address);
}

/* The voter that leads and answers; NULL: none now. */
static inline struct bed_node *bed_leader(struct cluster_bed *b)
{
    struct bed_node *found = NULL;
    uint64_t term = 0;
    for (size_t i = 0; i < b->count; i++) {
        if (!b->nodes[i].cluster || b->nodes[i].id == 0)
            continue;
        struct replica_view v;
        store_raft_cluster_view(b->nodes[i].cluster, &v);
        if (v.ready && v.term > term) {
            found = &b->nodes[i];
            term = v.term;
        }
    }
    return found;
}

static inline struct bed_node *bed_wait_leader(struct cluster_bed *b)
{
    struct bed_node *leader;
    BED_WAIT(b, (leader = bed_leader(b)) != NULL);
    return leader;
}

static inline struct bed_node *bed_follower(struct cluster_bed *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->nodes[i].cluster && b->nodes[i].id != 0 && &b->nodes[i] != bed_leader(b))
            return &b->nodes[i];
    return NULL;
}

static inline void bed_open_loop(struct cluster_bed *b, const char *secret)
{
    struct err e = {0};
    *b = (struct cluster_bed){.secret = secret, .snapshot_entries = 100};
    CHECK(loop_new(&b->loop, &e) == 0, "%s", e.text);
    CHECK(tzload_new(NULL, &b->zones, &e) == 0, "%s", e.text);
    b->timer = loop_timer_new(b->loop, bed_stop, b->loop);
}

static inline void bed_open_all(struct cluster_bed *b, size_t voters, size_t clients)
{
    for (size_t i = 0; i < voters; i++)
        bed_name(b, bed_add(b, i + 1));
    for (size_t i = 0; i < clients; i++)
        (void)bed_add(b, 0); /* it is in the list */
    for (size_t i = 0; i < b->count; i++)
        bed_start(b, &b->nodes[i], true);
    (void)bed_wait_leader(b); /* there is one */
    for (size_t i = 0; i < b->count; i++)
        bed_attach(b, &b->nodes[i]);
}

/* Voters and clients, all open. Calls wait for as long as a test may: a busy machine fails none. */
static inline void bed_open_cluster(struct cluster_bed *b, size_t voters, size_t clients, const char *secret)
{
    bed_open_loop(b, secret);
    b->patience_ms = PATIENCE_MS;
    bed_open_all(b, voters, clients);
}

/* The first leader is there sooner. */
static inline void bed_open_quick(struct cluster_bed *b, size_t voters, size_t clients, const char *secret)
{
    bed_open_loop(b, secret);
    b->patience_ms = PATIENCE_MS;
    b->election_ms = 120;
    bed_open_all(b, voters, clients);
}

static inline void bed_open_impatient(struct cluster_bed *b, size_t voters, uint64_t patience_ms)
{
    bed_open_loop(b, NULL);
    b->patience_ms = patience_ms;
    bed_open_all(b, voters, 0);
}

static inline void bed_detach(struct bed_node *n)
{
    if (n->t.self)
        n->t.ops->close(n->t.self);
    n->t.self = NULL;
}

/* As a planned stop. */
static inline void bed_end(struct bed_node *n)
{
    bed_detach(n);
    store_raft_cluster_free(n->cluster);
    n->cluster = NULL;
}

/* As a crash: what others see is that it has gone without a word. */
static inline void bed_kill(struct bed_node *n)
{
    store_raft_cluster_cut(n->cluster, true);
    bed_end(n);
}

static inline void bed_remove_files(const char *dir)
{
    DIR *d = opendir(dir);
    CHECK(d != NULL, "%s", dir);
    for (struct dirent *f; (f = readdir(d));)
        if (f->d_name[0] != '.')
            CHECK(unlinkat(dirfd(d), f->d_name, 0) == 0, "%s", f->d_name);
    closedir(d);
    CHECK(rmdir(dir) == 0, "%s", dir);
}

static inline void bed_on_problem(void *arg, const char *text)
{
    CHECK(text == NULL, "%s: %s", (const char *)arg, text);
}

/* As `carillon store check` looks at a folder. */
static inline void bed_check_files(struct bed_node *n)
{
    struct folder_seen seen;
    struct err e = {0};
    struct machine *m = machine_new();
    CHECK(folder_check(n->dir, &e) == 0, "%s", e.text);
    int r = folder_read(n->dir, m, false, bed_on_problem, n->dir, &seen, &e);
    CHECK(r == 0 || r == -ERR_NOT_FOUND, "%s", e.text);
    machine_validate(m);
    machine_free(m);
}

static inline void bed_close_cluster(struct cluster_bed *b)
{
    for (size_t i = 0; i < b->count; i++)
        bed_detach(&b->nodes[i]);
    for (size_t i = 0; i < b->count; i++) {
        store_raft_cluster_free(b->nodes[i].cluster);
        if (b->nodes[i].id != 0) {
            listener_fini(&b->nodes[i].listener);
            bed_check_files(&b->nodes[i]);
        }
        bed_remove_files(b->nodes[i].dir);
    }
    loop_timer_free(b->timer);
    loop_free(b->loop);
    tzload_free(b->zones);
}

#endif
