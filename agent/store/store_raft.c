#include "agent/store/store_raft.h"

#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/base/option.h"
#include "agent/base/rng.h"
#include "agent/store/raft/folder.h"
#include "agent/store/store_raft_private.h"

#define SCHEMA         STORE_RAFT_SCHEMA
#define SNAPSHOT_BYTES ((uint64_t)32 << 20)
#define PATIENCE_MS    5000
#define READERS        2

/* --- options ------------------------------------------------------------------------------------------------------- */

#define AT(field) offsetof(struct store_raft_options, field)

static const struct option_row option_rows[] = {
    {.key = "store.raft.dir",
     .type = OPTION_PATH,
     .offset = AT(dir),
     .help =
         "Folder of the log and its snapshots; raft under agent.data_dir if not given. Each agent needs its own."},
    {.key = "store.raft.snapshot_entries",
     .type = OPTION_INT,
     .offset = AT(snapshot_entries),
     .def = "65536",
     .min = 16,
     .max = 10000000,
     .help = "A snapshot is written, and the log before it dropped, at the latest after so many writes."},
    {.key = NULL}};

/* --- open, close --------------------------------------------------------------------------------------------------- */

static void rs_close(void *self)
{
    struct store_raft *s = self;
    bool own = s->options.cluster == NULL;
    if (!own)
        replica_cancel(s->replica);
    if (s->readers)
        worker_pool_free(s->readers);
    if (own && s->replica)
        replica_close(s->replica);
    fd_close(s->lock_fd);
    mem_free(s->options.dir);
    mem_free(s);
}

int rs_open_replica(struct replica_options *options, struct rs_leader *leader, const char *cluster,
                    struct replica **ret, struct err *e)
{
    options->make.schema = leader->alone ? SCHEMA : 1; /* others may know no more: the leader asks them */
    options->service =
        (struct replica_service){.encode = rs_encode, .applied = rs_applied, .read = rs_read, .arg = leader};
    options->snapshot_bytes = SNAPSHOT_BYTES;
    if (options->patience_ms == 0)
        options->patience_ms = PATIENCE_MS;
    assert(strlen(cluster) < sizeof(options->make.cluster));
    memcpy(options->make.cluster, cluster, strlen(cluster) + 1);
    int r = rng_os_bytes(options->make.secret, sizeof(options->make.secret), e);
    return r < 0 ? r : replica_open(options, ret, e);
}

static int check_meta(const struct store_raft *s, const struct store_meta *meta, const char *cluster,
                      struct err *e)
{
    if (meta->schema > SCHEMA)
        return err_set(e, ERR_PERMANENT, "%.100s was written by a newer carillon (schema %u)", s->options.dir,
                       meta->schema);
    if (strcmp(meta->cluster, cluster) != 0)
        return err_set(e, ERR_PERMANENT, "%.60s belongs to cluster '%s', not '%s'", s->options.dir,
                       meta->cluster, cluster);
    return 0;
}

int rs_check_folder(const char *dir, struct err *e)
{
    struct err why = {0};
    int r = folder_check(dir, &why);
    if (r == -ERR_PROTOCOL)
        return err_set(e, ERR_PERMANENT,
                       "%.60s cannot be used: %.80s. Put a copy of it back, or move it away to begin empty",
                       dir, why.text);
    return r < 0 ? err_set(e, why.code, "%s", why.text) : 0;
}

static int open_alone(struct store_raft *s, const struct store_open_args *args, struct err *e)
{
    struct replica_options options = {.loop = args->loop,
                                      .dir = s->options.dir,
                                      .make = {.slots = args->slots, .created_ms = s->now_ms(s->arg)},
                                      .snapshot_entries = (uint64_t)s->options.snapshot_entries};
    s->leader.alone = true;
    int r = folder_lock(s->options.dir, &s->lock_fd, e);
    if (r == 0)
        r = rs_check_folder(s->options.dir, e);
    return r < 0 ? r : rs_open_replica(&options, &s->leader, args->cluster, &s->replica, e);
}

static int open_parts(struct store_raft *s, const struct store_open_args *args, struct store_meta *ret_meta,
                      struct err *e)
{
    int r = 0;
    if (s->options.cluster)
        s->replica = s->options.cluster->replica;
    else
        r = open_alone(s, args, e);
    if (r < 0)
        return r;
    if (!replica_meta(s->replica, ret_meta))
        return err_set(e, ERR_UNAVAILABLE, "the log's cluster has no leader that can be reached");
    r = check_meta(s, ret_meta, args->cluster, e);
    if (r == 0)
        r = worker_pool_new(args->loop, "store-read", READERS, NULL, NULL, NULL, &s->readers, e);
    return r;
}

static int rs_open(const struct store_open_args *args, void **ret_self, struct store_meta *ret_meta,
                   struct err *e)
{
    const struct store_raft_options *options = args->options;
    struct store_raft *s = mem_new(struct store_raft);
    struct store_meta meta;
    struct err own = {0};
    assert(options->dir);
    s->options = *options;
    s->options.dir = mem_strdup(options->dir);
    s->zones = args->zones;
    s->now_ms = args->now_ms;
    s->arg = args->arg;
    s->lock_fd = -1;
    if (open_parts(s, args, &meta, &own) < 0) {
        rs_close(s);
        return err_set(e, own.code, "%s", own.text);
    }
    s->stats.ok = true;
    s->stats.since_ms = s->now_ms(s->arg);
    *ret_meta = meta;
    *ret_self = s;
    return 0;
}

static const struct store_stats *rs_stats(void *self)
{
    struct store_raft *s = self;
    struct replica_stats stats;
    replica_stats(s->replica, &stats);
    s->stats.queue = (uint32_t)(stats.queue + worker_queue_length(s->readers));
    return &s->stats;
}

void store_raft_stats(void *self, struct replica_stats *ret)
{
    replica_stats(((struct store_raft *)self)->replica, ret);
}

void store_raft_snapshot(void *self)
{
    replica_ask_snapshot(((struct store_raft *)self)->replica);
}

const struct store_ops store_raft = {
    .name = "raft",
    .options = option_rows,
    .options_size = sizeof(struct store_raft_options),
    .open = rs_open,
    .close = rs_close,
    .join = rs_join,
    .beat = rs_beat,
    .declare_dead = rs_declare_dead,
    .slots_change = rs_slots_change,
    .slots_read = rs_slots_read,
    .commits_max = 1,
    .commit = rs_commit,
    .load_jobs = rs_load_jobs,
    .load_fires = rs_load_fires,
    .get_jobs = rs_get_jobs,
    .get_fires = rs_get_fires,
    .list_jobs = rs_list_jobs,
    .list_fires = rs_list_fires,
    .get_copy = rs_get_copy,
    .count_dead = rs_count_dead,
    .count_jobs = rs_count_jobs,
    .find_change = rs_find_change,
    .list_revisions = rs_list_revisions,
    .vacuum = rs_vacuum,
    .stats = rs_stats,
};
