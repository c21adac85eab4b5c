/* How a member's store comes to be: opened at the start, or waited for; in a log's cluster, once its voters have found each other. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/core/ownership/ownership.h"
#include "agent/io/file.h"
#include "agent/node_private.h"
#include "agent/voter_folder.h"

#define RETRY_MS      1000
#define RETRY_RAFT_MS 200 /* asking costs nothing there */

static const struct log_ctx log_here = {.module = "agent"};

static int64_t store_clock(void *arg)
{
    return node_now_ms(arg);
}

static bool passes(int rc)
{
    return rc == -ERR_UNAVAILABLE || rc == -ERR_RETRY || rc == -ERR_UNKNOWN_OUTCOME || rc == -ERR_TIMEOUT;
}

_Static_assert(CAPABILITY_SECRET_BYTES == STORE_SECRET_BYTES, "the one is made of the other");

static void note_open(struct node *n, const struct store_ops *ops)
{
    n->store = ops;
    memcpy(n->capability.secret, n->meta.secret, sizeof(n->capability.secret));
    const char *url = n->config->api.advertise_url;
    (void)snprintf(n->capability.url, sizeof(n->capability.url), "%s",
                   url ? url : ""); /* shorter, by its option */
    n->owned = mem_new_array(_Atomic uint64_t, n->meta.slots / 64 + 1);
    atomic_store(&n->store_open, true); /* what other threads ask first: slots and owned stand from here on */
}

/* Says once what is waited for, and again when that is another thing. */
static void note_waiting(struct node *n, const char *why)
{
    if (strcmp(n->store_trouble.text, why) != 0)
        log_warn(&log_here, "store cannot be opened yet, trying again", "error=%s", LOGQ(why));
    (void)snprintf(n->store_trouble.text, sizeof(n->store_trouble.text), "%s", why); /* cut: for people */
}

/* A database that is not there yet is waited for: in a cluster everything starts at once, and an agent that ended because of it
 * could not say what it lacks. 0 with n->store NULL: not yet. Blocks for as long as connecting takes. */
int node_try_store(struct node *n, struct err *e)
{
    const void *options;
    struct err why = {0};
    struct store_raft_options raft = n->config->store.raft;
    const struct store_ops *ops = config_store_driver(n->config, &options);
    struct store_open_args args = {.loop = n->loop,
                                   .options = options,
                                   .cluster = n->config->cluster.name,
                                   .slots = (uint32_t)n->config->cluster.slots,
                                   .member = n->config->agent.name,
                                   .zones = n->zones,
                                   .now_ms = store_clock,
                                   .arg = n};
    if (n->voter) {
        raft.cluster = voter_agent_cluster(n->voter);
        args.options = &raft;
    }
    int rc = ops->open(&args, &n->store_self, &n->meta, &why);
    if (passes(rc)) {
        const char *waits = n->voter ? voter_agent_waits(n->voter) : "";
        note_waiting(n, waits[0] ? waits : why.text);
        return 0;
    }
    if (rc < 0)
        return err_set(e, why.code, "open the store: %s", why.text);
    note_open(n, ops);
    return 0;
}

/* A store of one node that is given a folder of many would forget the others. */
int node_check_alone(struct node *n, struct err *e)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(VOTER_FOLDER_PATH_MAX);
    if (n->consul || strcmp(n->config->store.driver, store_raft.name) != 0)
        return 0;
    buf_addf(&path, "%s/%s", n->config->store.raft.dir, VOTER_FOLDER_FILE);
    if (file_stamp(buf_str(&path)) == 0)
        return 0;
    return err_set(
        e, ERR_PERMANENT,
        "open the store: %.100s holds a voter's log of a cluster; set cluster.mode: consul, or give "
        "this agent another folder",
        n->config->store.raft.dir);
}

/* --- on the loop --------------------------------------------------------------------------------------------------- */

void node_retry_store(void *arg)
{
    struct node *n = arg;
    struct err e = {0};
    if (n->store || n->ending)
        return;
    int rc = node_try_store(n, &e);
    if (rc == 0 && !n->store)
        loop_timer_arm(n->store_timer, n->voter ? RETRY_RAFT_MS : RETRY_MS);
    else if (rc < 0 || node_begin_firing(n, &e) < 0)
        node_fail(n, &e);
}

static void on_voters(void *arg)
{
    struct node *n = arg;
    if (!n->store && !n->ending)
        loop_timer_arm(n->store_timer, 0);
}

static void on_voter_failed(void *arg, const struct err *e)
{
    node_fail(arg, e);
}

int node_start_store(struct node *n, struct err *e)
{
    if (n->store)
        return node_begin_firing(n, e);
    if (config_is_raft_cluster(n->config)) {
        struct voter_agent_options options = {.loop = n->loop,
                                              .consul = n->consul,
                                              .config = n->start->config,
                                              .host = n->peer_host_own,
                                              .advertised = n->peer_host,
                                              .secret = n->secret,
                                              .secret_bytes = n->secret_bytes,
                                              .now_ms = store_clock,
                                              .changed = on_voters,
                                              .failed = on_voter_failed,
                                              .arg = n};
        int rc = voter_agent_new(&options, &n->voter, e);
        if (rc < 0)
            return rc;
    }
    loop_timer_arm(n->store_timer, RETRY_RAFT_MS);
    return 0;
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

/* Who votes gives its place away while the slots are given away, if there is somebody to take it. */
void node_leave_store(struct node *n)
{
    struct voter_agent_view view;
    if (!n->voter)
        return;
    voter_agent_view(n->voter, &view);
    bool spare = n->engine && engine_ownership_view(n->engine)->members > view.count;
    voter_agent_leave(n->voter, spare);
}

/* --- for the API --------------------------------------------------------------------------------------------------- */

struct node_raft_shown {
    struct voter_agent_view voters;
    struct node_raft_voter list[VOTERS_MAX];
    struct node_raft_view view;
};

const struct node_raft_view *node_show_raft(struct node *n)
{
    if (!n->voter)
        return NULL;
    if (!n->raft_shown)
        n->raft_shown = mem_new(struct node_raft_shown);
    struct node_raft_shown *s = n->raft_shown;
    voter_agent_view(n->voter, &s->voters);
    const struct store_raft_status *log = &s->voters.log;
    s->view = (struct node_raft_view){.role = store_raft_role_name(log->role),
                                      .self = log->self,
                                      .leader = log->leader,
                                      .term = log->term,
                                      .applied = log->applied,
                                      .elections = log->elections,
                                      .wanted = s->voters.wanted,
                                      .waits = voter_agent_waits(n->voter),
                                      .voters = s->list,
                                      .voters_count = s->voters.count};
    for (size_t i = 0; i < s->voters.count; i++)
        s->list[i] = (struct node_raft_voter){.number = s->voters.list[i].at.number,
                                              .name = s->voters.list[i].at.name,
                                              .address = s->voters.list[i].at.address,
                                              .state = voter_state_name(s->voters.list[i].at.state),
                                              .votes = s->voters.list[i].votes,
                                              .reached = s->voters.list[i].reached,
                                              .lag = s->voters.list[i].lag};
    return &s->view;
}

/* A log of several agrees on one later; one agent alone does so when it is opened. */
uint32_t node_store_version(struct node *n)
{
    struct voter_agent_view view;
    if (!n->voter)
        return !n->store ? 0 : n->store == &store_raft ? STORE_RAFT_SCHEMA : n->meta.schema;
    voter_agent_view(n->voter, &view);
    return view.log.version;
}

void node_set_raft_gauges(struct node *n)
{
    const struct node_raft_view *v = node_show_raft(n);
    size_t votes = 0, reached = 0;
    uint64_t lag = 0;
    if (!v)
        return;
    bool leads = v->self != 0 && v->leader == v->self;
    for (size_t i = 0; i < v->voters_count; i++) {
        votes += v->voters[i].votes;
        reached += v->voters[i].votes && v->voters[i].reached;
        if (v->voters[i].votes && v->voters[i].lag > lag)
            lag = v->voters[i].lag;
    }
    metrics_set(n->metrics, METRIC_RAFT_VOTERS, NULL, NULL, NULL, (double)votes);
    metrics_set(n->metrics, METRIC_RAFT_VOTERS_REACHED, NULL, NULL, NULL, (double)reached);
    metrics_set(n->metrics, METRIC_RAFT_LEADER, NULL, NULL, NULL, leads);
    metrics_set(n->metrics, METRIC_RAFT_LEADER_KNOWN, NULL, NULL, NULL, v->leader != 0);
    metrics_set(n->metrics, METRIC_RAFT_TERM, NULL, NULL, NULL, (double)v->term);
    metrics_set(n->metrics, METRIC_RAFT_LAG, NULL, NULL, NULL, leads ? (double)lag : 0);
}
