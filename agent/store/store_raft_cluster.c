/* This agent's part in a cluster: made before the store is opened, and there until after it is closed. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/io/file.h"
#include "agent/store/raft/folder.h"
#include "agent/store/raft/folder_private.h"
#include "agent/store/raft/folder_read.h"
#include "agent/store/store_raft_private.h"

#define NUMBER_MAX 64

_Static_assert(STORE_RAFT_VOTERS_MAX == MESH_NODES_MAX, "the one is given as the other");
_Static_assert((int)STORE_RAFT_ROLE_COUNT_ == (int)REPLICA_ROLE_COUNT_, "the one is told as the other");

const char *store_raft_role_name(enum store_raft_role role)
{
    static const char *const names[] = {"client",    "waiting", "learning", "follower",
                                        "candidate", "leader",  "removed",  "broken"};
    assert(role < STORE_RAFT_ROLE_COUNT_);
    return names[role];
}

/* --- the number in the folder -------------------------------------------------------------------------------------- */

static int number_path(const char *dir, char *ret, size_t size, struct err *e)
{
    if ((size_t)snprintf(ret, size, "%s/" FOLDER_NUMBER, dir) >= size)
        return err_set(e, ERR_PERMANENT, "the path of the data folder is too long");
    return 0;
}

static int read_number(const char *dir, uint64_t *ret_id, struct err *e)
{
    char path[4200];
    AUTO(buf_fini) struct buf text = BUF_INIT(NUMBER_MAX);
    int r = number_path(dir, path, sizeof(path), e);
    if (r == 0)
        r = file_read(path, &text, e);
    if (r < 0)
        return r;
    while (text.len > 0 && buf_str(&text)[text.len - 1] == '\n')
        buf_truncate(&text, text.len - 1);
    r = text_u64(buf_str(&text), text.len, 1, UINT64_MAX, ret_id, e);
    return r < 0 ? err_set(e, ERR_PERMANENT, "the voter's number in %.150s cannot be read", path) : 0;
}

static int write_number(const char *dir, uint64_t id, struct err *e)
{
    char path[4200], text[NUMBER_MAX];
    int r = number_path(dir, path, sizeof(path), e);
    if (r < 0)
        return r;
    int n = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)id);
    return file_write(path, text, (size_t)n, 0600, e);
}

static int is_used(const char *dir, bool *ret, struct err *e)
{
    struct folder f = {.dir = dir};
    int r = folder_list(&f, e);
    *ret = f.used;
    folder_fini(&f);
    return r;
}

int store_raft_cluster_number(const char *dir, uint64_t *ret_id, struct err *e)
{
    struct err why = {0};
    bool used = false;
    int r = access(dir, F_OK) < 0 && errno == ENOENT ? -ERR_NOT_FOUND : read_number(dir, ret_id, &why);
    if (r == 0)
        return 0;
    if (r != -ERR_NOT_FOUND)
        return err_set(e, why.code, "%s", why.text);
    r = access(dir, F_OK) < 0 && errno == ENOENT ? 0 : is_used(dir, &used, e);
    if (r == 0 && used)
        return err_set(e, ERR_EXISTS,
                       "%.60s was written by an agent alone (cluster.mode: standalone). A voter of a cluster "
                       "begins with an empty folder",
                       dir);
    if (r == 0)
        *ret_id = 0;
    return r;
}

/* The number stands before the first entry, so that a folder with a log always tells whose it is. */
static int claim_number(const char *dir, uint64_t id, struct err *e)
{
    uint64_t present = 0;
    int r = store_raft_cluster_number(dir, &present, e);
    if (r < 0)
        return r;
    if (present == 0)
        return write_number(dir, id, e);
    if (present != id)
        return err_set(e, ERR_PERMANENT, "%.100s is the log of voter %llu, not of voter %llu", dir,
                       (unsigned long long)present, (unsigned long long)id);
    return 0;
}

/* --- making -------------------------------------------------------------------------------------------------------- */

static void on_changed(void *arg)
{
    struct store_raft_cluster *c = arg;
    if (c->watch)
        c->watch(c->watch_arg);
}

static int open_parts(struct store_raft_cluster *c, struct err *e)
{
    const struct store_raft_cluster_options *o = &c->options;
    struct replica_options options = {.loop = o->loop,
                                      .dir = c->dir,
                                      .make = {.slots = o->slots, .created_ms = o->now_ms(o->arg)},
                                      .snapshot_entries = (uint64_t)o->snapshot_entries,
                                      .patience_ms = o->patience_ms,
                                      .election_ms = o->election_ms,
                                      .cluster = c->name,
                                      .changed = on_changed,
                                      .arg = c};
    int r = o->tls ? wire_tls_new(o->tls, &c->tls, e) : 0;
    options.tls = c->tls;
    return r < 0 ? r : rs_open_replica(&options, &c->leader, c->name, &c->replica, e);
}

int store_raft_cluster_new(const struct store_raft_cluster_options *options, struct store_raft_cluster **ret,
                           struct err *e)
{
    struct store_raft_cluster *c = mem_new(struct store_raft_cluster);
    c->options = *options;
    c->dir = mem_strdup(options->dir);
    c->name = mem_strdup(options->name);
    c->lock_fd = -1;
    int r = open_parts(c, e);
    c->options.tls = NULL; /* it was the caller's */
    if (r < 0) {
        store_raft_cluster_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void store_raft_cluster_free(struct store_raft_cluster *c)
{
    if (!c)
        return;
    c->watch = NULL;
    if (c->replica)
        replica_close(c->replica);
    wire_tls_free(c->tls);
    fd_close(c->lock_fd);
    mem_free(c->dir);
    mem_free(c->name);
    mem_free(c);
}

static void copy_nodes(struct mesh_node *ret, const struct store_raft_voter *voters, size_t count)
{
    assert(count <= MESH_NODES_MAX);
    for (size_t i = 0; i < count; i++) {
        ret[i] = (struct mesh_node){.id = voters[i].id};
        memcpy(ret[i].address, voters[i].address, sizeof(ret[i].address));
    }
}

int store_raft_cluster_vote(struct store_raft_cluster *c, uint64_t id, int listen_fd,
                            const struct store_raft_voter *first, size_t first_count, struct err *e)
{
    struct mesh_node nodes[MESH_NODES_MAX];
    struct err why = {0};
    int r = folder_lock(c->dir, &c->lock_fd, e);
    if (r == 0)
        r = rs_check_folder(c->dir, e);
    if (r == 0)
        r = claim_number(c->dir, id, &why);
    bool founds = r == -ERR_EXISTS && first_count == 1 && first[0].id == id;
    if (why.code != ERR_OK && !founds)
        r = err_set(e, why.code == ERR_EXISTS ? ERR_PERMANENT : why.code, "%s", why.text);
    if (r < 0 && !founds) {
        fd_close(listen_fd);
        return r;
    }
    copy_nodes(nodes, first, first_count);
    r = replica_vote(c->replica, id, listen_fd, nodes, first_count, founds, e);
    /* After a crash before this it becomes the same voter's log once more: nothing is lost by that. */
    return r == 0 && founds ? write_number(c->dir, id, e) : r;
}

void store_raft_cluster_set_voters(struct store_raft_cluster *c, const struct store_raft_voter *voters,
                                   size_t count)
{
    struct mesh_node nodes[MESH_NODES_MAX];
    if (count == 0)
        return;
    copy_nodes(nodes, voters, count);
    memcpy(c->voters, voters, count * sizeof(voters[0]));
    c->voters_count = count;
    replica_set_voters(c->replica, nodes, count);
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

void store_raft_cluster_status(struct store_raft_cluster *c, struct store_raft_status *ret)
{
    struct replica_view v;
    struct replica_stats stats;
    struct store_meta meta = {.schema = 0};
    replica_view(c->replica, &v);
    replica_stats(c->replica, &stats);
    *ret = (struct store_raft_status){.role = (enum store_raft_role)v.role,
                                      .self = v.self,
                                      .leader = v.leader,
                                      .term = v.term,
                                      .applied = v.applied,
                                      .last = v.last,
                                      .made = replica_meta(c->replica, &meta),
                                      .voters = v.servers_count,
                                      .queued = stats.queue,
                                      .queued_max = REPLICA_QUEUE_MAX,
                                      .elections = v.elections};
    ret->version = meta.schema;
    memcpy(ret->problem, v.problem, sizeof(ret->problem));
    for (size_t i = 0; i < v.servers_count; i++) {
        ret->list[i].id = v.servers[i].id;
        ret->list[i].votes = v.servers[i].votes;
        ret->list[i].reached = v.servers[i].reached;
        ret->list[i].lag = v.servers[i].lag;
    }
    for (size_t i = 0; i < c->voters_count; i++)
        if (c->voters[i].id == v.leader)
            memcpy(ret->leader_address, c->voters[i].address, sizeof(ret->leader_address));
}

void store_raft_cluster_watch(struct store_raft_cluster *c, void (*fn)(void *arg), void *arg)
{
    c->watch = fn;
    c->watch_arg = arg;
}

void store_raft_cluster_stats(struct store_raft_cluster *c, struct replica_stats *ret)
{
    replica_stats(c->replica, ret);
}

void store_raft_cluster_view(struct store_raft_cluster *c, struct replica_view *ret)
{
    replica_view(c->replica, ret);
}

void store_raft_cluster_cut(struct store_raft_cluster *c, bool cut)
{
    replica_cut(c->replica, cut);
}
