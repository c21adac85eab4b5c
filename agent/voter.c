#include "agent/voter.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "agent/config.h"
#include "agent/io/listener.h"
#include "agent/io/loop.h"
#include "agent/store/raft/wire_tls.h"
#include "agent/voter_folder.h"
#include "agent/voters_doc.h"
#include "consul/consul_kv.h"

#define LOOK_MS 500
/* Of a voter whose address nobody here has heard; it tells it itself. */
#define NOWHERE "unknown.invalid:7422"

static const struct log_ctx log_here = {.module = "voters"};

struct voter_agent {
    struct voter_agent_options o;
    const char *dir;
    struct store_raft_cluster *cluster;
    struct consul_kv *kv;
    struct loop_timer *timer;
    struct listener listener;
    struct voter_folder folder;
    struct voters_me me;
    struct voters_seen seen;
    struct voters_doc doc;
    bool has_doc, heard, sensible; /* Consul's key: read once, there, and made sense the last time */
    uint64_t index, complained;    /* of the document; the last one that does not fit */
    bool votes;                    /* store_raft_cluster_vote() was called */
    bool leads, removed;
    bool fresh; /* the document was read since this agent leads */
    bool failed;
    struct {
        uint64_t number;
        int64_t since_ms;
    } silent[VOTERS_MAX];
    size_t silent_count;
    struct store_raft_status status;
    char waits[VOTERS_WHY_SIZE];
    char unwritable[VOTERS_WHY_SIZE]; /* why the folder could not be written; "": it could */
    char key[128];
};

/* --- what the log says --------------------------------------------------------------------------------------------- */

static const struct voter *known_voter(const struct voter_agent *v, uint64_t number)
{
    const struct voter *found = v->has_doc ? voters_find(&v->doc, number) : NULL;
    for (size_t i = 0; !found && i < v->folder.known_count; i++)
        if (v->folder.known[i].number == number)
            found = &v->folder.known[i];
    return found;
}

static int64_t silent_since(const struct voter_agent *v, uint64_t number)
{
    for (size_t i = 0; i < v->silent_count; i++)
        if (v->silent[i].number == number)
            return v->silent[i].since_ms;
    return 0;
}

/* Since when the leader cannot reach whom; a new leader begins anew. */
static void note_silence(struct voter_agent *v, int64_t now_ms)
{
    struct voter_agent before = {.silent_count = v->leads ? v->silent_count : 0};
    memcpy(before.silent, v->silent, sizeof(before.silent));
    v->silent_count = 0;
    for (size_t i = 0; i < v->status.voters; i++) {
        uint64_t number = v->status.list[i].id;
        if (v->status.list[i].reached || number == v->status.self)
            continue;
        int64_t since = silent_since(&before, number);
        v->silent[v->silent_count].number = number;
        v->silent[v->silent_count++].since_ms = since ? since : now_ms;
    }
}

/* Its number is used up, and libraft cannot be given another one while it runs. */
static void look_removed(struct voter_agent *v)
{
    bool removed = v->status.role == STORE_RAFT_REMOVED;
    if (removed && !v->removed && !v->me.leaving)
        log_warn(&log_here, "this agent's voter was replaced, it uses the others now",
                 "voter=%llu hint=\"start the agent anew to let it vote again; its log is then moved away\"",
                 (unsigned long long)v->status.self);
    v->removed = removed;
}

static void look_at_log(struct voter_agent *v)
{
    bool led = v->leads;
    int64_t now_ms = (int64_t)clock_boot_ms();
    store_raft_cluster_status(v->cluster, &v->status);
    note_silence(v, now_ms);
    look_removed(v);
    v->leads = v->status.role == STORE_RAFT_LEADER;
    if (v->leads && !led) {
        v->fresh = false;
        consul_kv_read(v->kv);
        log_info(&log_here, "this agent leads the log", "voter=%llu term=%llu",
                 (unsigned long long)v->status.self, (unsigned long long)v->status.term);
    } else if (led && !v->leads) {
        log_info(&log_here, "this agent does not lead the log any more", "voter=%llu",
                 (unsigned long long)v->status.self);
    }
}

static void fill_log(const struct voter_agent *v, struct voters_log *ret)
{
    int64_t now_ms = (int64_t)clock_boot_ms();
    *ret = (struct voters_log){.known = v->votes && v->status.voters > 0,
                               .leads = v->leads && v->fresh,
                               .has_leader = v->status.leader != 0};
    for (size_t i = 0; i < v->status.voters; i++) {
        uint64_t number = v->status.list[i].id;
        const struct voter *known = known_voter(v, number);
        int64_t since = silent_since(v, number);
        struct voters_log_voter *l = &ret->list[ret->count++];
        l->number = number;
        l->votes = v->status.list[i].votes;
        l->silent_ms = since ? now_ms - since + 1 : 0;
        (void)snprintf(l->address, sizeof(l->address), "%s", known ? known->address : NOWHERE);
    }
}

/* --- what the folder remembers ------------------------------------------------------------------------------------- */

static void give_up(struct voter_agent *v, const struct err *e)
{
    if (v->failed)
        return;
    v->failed = true;
    v->o.failed(v->o.arg, e);
}

static void remember(struct voter_agent *v)
{
    struct err e = {0};
    if (voter_folder_write(v->dir, &v->folder, &e) < 0)
        log_warn(&log_here, "who votes was not written down, Consul has it", "error=%s", LOGQ(e.text));
}

static bool same_known(const struct voter_agent *v)
{
    if (v->folder.known_count != v->doc.count)
        return false;
    for (size_t i = 0; i < v->doc.count; i++)
        if (v->folder.known[i].number != v->doc.list[i].number ||
            strcmp(v->folder.known[i].address, v->doc.list[i].address) != 0 ||
            strcmp(v->folder.known[i].name, v->doc.list[i].name) != 0)
            return false;
    return true;
}

/* Should Consul lose its key, this is how the voters find each other. */
static void remember_voters(struct voter_agent *v)
{
    if (!v->votes || !v->has_doc || !v->doc.fixed || strcmp(v->doc.set, v->folder.set) != 0 || same_known(v))
        return;
    v->folder.known_count = v->doc.count;
    for (size_t i = 0; i < v->doc.count; i++) {
        v->folder.known[i] = v->doc.list[i];
        v->folder.known[i].beat = 0;
    }
    remember(v);
}

static void describe(struct voter_agent *v)
{
    memcpy(v->me.folder, v->folder.folder, sizeof(v->me.folder));
    memcpy(v->me.set, v->folder.set, sizeof(v->me.set));
    v->me.used = v->folder.used;
    v->me.number = v->folder.number;
}

static int read_folder(struct voter_agent *v, struct err *e)
{
    uint64_t number = 0;
    struct err why = {0};
    int rc = voter_folder_open(v->dir, &v->folder, e);
    if (rc < 0)
        return rc;
    rc = store_raft_cluster_number(v->dir, &number, &why);
    if (rc < 0 && rc != -ERR_EXISTS)
        return err_set(e, why.code, "%s", why.text);
    describe(v);
    v->me.alone = rc == -ERR_EXISTS;
    v->me.has_data = number != 0;
    if (number != 0 && v->folder.number != 0 && number != v->folder.number)
        return err_set(e, ERR_PERMANENT, "%.100s: the log is voter %llu's, %s is voter %llu's", v->dir,
                       (unsigned long long)number, VOTER_FOLDER_FILE, (unsigned long long)v->folder.number);
    v->me.number = number ? number : v->folder.number;
    return 0;
}

/* Others have its place: its log is kept for people, under another name. */
static void retire(struct voter_agent *v)
{
    char to[VOTER_FOLDER_PATH_MAX];
    struct err e = {0};
    uint64_t number = v->me.number;
    if (voter_folder_retire(v->dir, number, to, &e) < 0 || read_folder(v, &e) < 0) {
        give_up(v, &e);
        return;
    }
    v->seen = (struct voters_seen){0};
    log_warn(&log_here, "this agent's voter was replaced, its log was moved away", "voter=%llu to=%s",
             (unsigned long long)number, LOGQ(to));
}

/* From now on a folder without a log is one that somebody emptied. */
static void note_used(struct voter_agent *v)
{
    if (!v->votes || v->folder.used || v->status.last == 0)
        return;
    v->folder.used = v->me.used = true;
    remember(v);
}

/* --- becoming a voter ---------------------------------------------------------------------------------------------- */

/* Who cannot write down that it votes does not vote yet, nor claims a place that others could take: a disk may be full for a while. */
static bool can_write(struct voter_agent *v, const struct voter_folder *f)
{
    struct err e = {0};
    bool could = v->unwritable[0] == '\0';
    bool can = voter_folder_write(v->dir, f, &e) == 0;
    (void)snprintf(v->unwritable, sizeof(v->unwritable), "%.*s", can ? 0 : VOTERS_WHY_SIZE - 1, e.text);
    if (could && !can)
        log_warn(&log_here, "cannot vote yet, trying again", "error=%s", LOGQ(e.text));
    return can;
}

static bool remember_place(struct voter_agent *v, const struct voters_place *place)
{
    struct voter_folder next = v->folder;
    if (!v->me.has_data)
        memcpy(next.set, v->doc.set, sizeof(next.set));
    next.number = place->number;
    bool same = next.number == v->folder.number && strcmp(next.set, v->folder.set) == 0;
    if (!same && !can_write(v, &next))
        return false;
    v->folder = next;
    v->unwritable[0] = '\0';
    return true;
}

static void begin_voting(struct voter_agent *v, const struct voters_place *place)
{
    struct store_raft_voter first[VOTERS_MAX] = {0};
    size_t count = place->begin ? v->doc.first_count : 0;
    struct err e = {0};
    int fd = v->listener.fd;
    if (!remember_place(v, place))
        return;
    for (size_t i = 0; i < count; i++) {
        first[i].id = v->doc.first[i].number;
        memcpy(first[i].address, v->doc.first[i].address, sizeof(first[i].address));
    }
    v->listener.fd = -1; /* the store's from now on */
    v->votes = true;
    if (store_raft_cluster_vote(v->cluster, place->number, fd, first, count, &e) < 0) {
        give_up(v, &e);
        return;
    }
    describe(v);
    v->me.has_data = true;
    v->me.alone = false;
    log_info(&log_here, "this agent votes for the log", "voter=%llu address=%s",
             (unsigned long long)place->number, LOGQ(v->me.address));
}

static void refused(struct voter_agent *v, const struct voters_place *place)
{
    struct err e = {0};
    if (v->votes && v->complained == v->index)
        return;
    if (v->votes) { /* what runs is not stopped because of what Consul says */
        v->complained = v->index;
        log_error(&log_here, "Consul's key does not fit this voter's log, going on", "key=%s why=%s",
                  LOGQ(v->key), LOGQ(place->why));
        return;
    }
    (void)err_set(&e, ERR_PERMANENT, "%.60s: %.130s", v->dir, place->why); /* what FAILED gets */
    give_up(v, &e);
}

static void take_place(struct voter_agent *v)
{
    struct voters_place place;
    voters_place(v->has_doc ? &v->doc : NULL, &v->me, &place);
    if (place.role == VOTERS_ROLE_REFUSED)
        refused(v, &place);
    else if (place.role == VOTERS_ROLE_REMOVED && !v->votes)
        retire(v);
    else if (place.role == VOTERS_ROLE_VOTER && !v->votes && !v->me.leaving)
        begin_voting(v, &place);
}

/* --- the list of voters -------------------------------------------------------------------------------------------- */

static void tell_store(struct voter_agent *v)
{
    struct store_raft_voter list[VOTERS_MAX] = {0};
    bool lost = !v->has_doc || !v->doc.fixed;
    const struct voter *from = lost ? v->folder.known : v->doc.list;
    size_t count = lost ? v->folder.known_count : v->doc.count;
    if (v->leads && (lost || v->doc.unsure || !v->fresh))
        return; /* a leader changes the log by what is surely wanted */
    if (!lost && v->votes && strcmp(v->doc.set, v->folder.set) != 0)
        return;
    for (size_t i = 0; i < count; i++) {
        list[i].id = from[i].number;
        memcpy(list[i].address, from[i].address, sizeof(list[i].address));
    }
    if (count > 0)
        store_raft_cluster_set_voters(v->cluster, list, count);
}

/* --- a look -------------------------------------------------------------------------------------------------------- */

static void write_doc(struct voter_agent *v, const struct voters_doc *next)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(VOTERS_DOC_MAX);
    struct err e = {0};
    if (voters_doc_print(next, &text, &e) < 0)
        log_warn(&log_here, "the list of voters was not written", "error=%s", LOGQ(e.text));
    else
        consul_kv_put(v->kv, buf_str(&text), text.len, v->index);
}

static void step(struct voter_agent *v)
{
    struct voters_log log;
    struct voters_doc next;
    fill_log(v, &log);
    struct voters_now now = {.now_ms = (int64_t)clock_boot_ms(),
                             .wall_ms = v->o.now_ms(v->o.arg),
                             .doc = v->has_doc ? &v->doc : NULL,
                             .me = &v->me,
                             .log = &log};
    if (voters_step(&v->seen, &now, &next))
        write_doc(v, &next);
}

static bool may_step(struct voter_agent *v)
{
    return v->unwritable[0] == '\0' || can_write(v, &v->folder);
}

/* NEWS: the document was just read. */
static void look(struct voter_agent *v, bool news)
{
    look_at_log(v);
    note_used(v);
    if (!v->heard || v->failed)
        return;
    take_place(v);
    if (v->failed)
        return;
    if (news) {
        remember_voters(v);
        tell_store(v);
    }
    if (v->sensible && !consul_kv_is_writing(v->kv) && may_step(v))
        step(v);
}

static void on_told(void *arg, const char *value, size_t bytes, uint64_t index)
{
    struct voter_agent *v = arg;
    struct err e = {0};
    bool sensible = !value || voters_doc_parse(value, bytes, &v->doc, &e) == 0;
    if (!sensible)
        log_error(&log_here, "Consul's key makes no sense, it is left alone", "key=%s error=%s", LOGQ(v->key),
                  LOGQ(e.text));
    if (sensible)
        v->has_doc = value != NULL;
    v->sensible = sensible;
    v->heard = v->heard || sensible;
    v->fresh = sensible;
    v->index = index;
    look(v, sensible);
    v->o.changed(v->o.arg);
}

static void on_timer(void *arg)
{
    struct voter_agent *v = arg;
    look(v, false);
    loop_timer_arm(v->timer, LOOK_MS);
}

static void on_log(void *arg)
{
    struct voter_agent *v = arg;
    look(v, false);
    v->o.changed(v->o.arg);
}

/* --- making -------------------------------------------------------------------------------------------------------- */

static int open_listener(struct voter_agent *v, struct err *e)
{
    const struct config_raft *c = &v->o.config->store.raft_cluster;
    char listen[200], shown[16];
    bool six = strchr(v->o.host, ':') != NULL;
    int rc;
    (void)snprintf(listen, sizeof(listen), six ? "[%s]:%d" : "%s:%d", v->o.host, CONFIG_RAFT_PORT);
    if (c->listen)
        (void)snprintf(listen, sizeof(listen), "%s", c->listen);
    rc = config_check_peer_listen(v->o.config, listen, e);
    if (rc == 0)
        rc = listener_open(&v->listener, listen, 0, e);
    if (rc < 0)
        return err_wrap(e, "store.raft.listen");
    six = strchr(v->o.advertised, ':') != NULL;
    (void)snprintf(shown, sizeof(shown), "%u", v->listener.port);
    if (c->advertise)
        rc = snprintf(v->me.address, sizeof(v->me.address), "%s", c->advertise);
    else
        rc =
            snprintf(v->me.address, sizeof(v->me.address), six ? "[%s]:%s" : "%s:%s", v->o.advertised, shown);
    if ((size_t)rc >= sizeof(v->me.address))
        return err_set(e, ERR_INVALID, "store.raft.advertise: too long");
    return 0;
}

static int open_cluster(struct voter_agent *v, struct err *e)
{
    const struct config *c = v->o.config;
    struct wire_tls_options tls = {.cluster = c->cluster.name,
                                   .secret = v->o.secret,
                                   .secret_bytes = v->o.secret_bytes,
                                   .ca_file = c->cluster.tls_ca,
                                   .cert_file = c->cluster.tls_cert,
                                   .key_file = c->cluster.tls_key,
                                   .server_name = c->cluster.tls_server_name};
    struct store_raft_cluster_options options = {.loop = v->o.loop,
                                                 .dir = v->dir,
                                                 .name = c->cluster.name,
                                                 .slots = (uint32_t)c->cluster.slots,
                                                 .snapshot_entries = c->store.raft.snapshot_entries,
                                                 .tls = &tls,
                                                 .now_ms = v->o.now_ms,
                                                 .arg = v->o.arg};
    int rc = store_raft_cluster_new(&options, &v->cluster, e);
    if (rc == 0)
        store_raft_cluster_watch(v->cluster, on_log, v);
    return rc;
}

int voter_agent_new(const struct voter_agent_options *options, struct voter_agent **ret, struct err *e)
{
    struct voter_agent *v = mem_new(struct voter_agent);
    const struct config *c = options->config;
    uint64_t seed = 0;
    v->o = *options;
    v->dir = c->store.raft.dir;
    v->listener.fd = -1;
    v->me.wanted = CONFIG_VOTERS(c->store.raft_cluster);
    (void)snprintf(v->me.name, sizeof(v->me.name), "%s", c->agent.name); /* shorter, by its option */
    (void)snprintf(v->key, sizeof(v->key), "carillon/%s/raft/voters", c->cluster.name);
    int rc = rng_seed_os(&seed, e);
    if (rc == 0)
        rc = read_folder(v, e);
    if (rc == 0)
        rc = open_listener(v, e);
    if (rc == 0)
        rc = open_cluster(v, e);
    if (rc < 0) {
        voter_agent_free(v);
        return rc;
    }
    v->kv = consul_kv_new(options->consul, v->key, seed, on_told, v);
    v->timer = loop_timer_new(options->loop, on_timer, v);
    loop_timer_arm(v->timer, LOOK_MS);
    *ret = v;
    return 0;
}

void voter_agent_free(struct voter_agent *v)
{
    if (!v)
        return;
    consul_kv_free(v->kv);
    loop_timer_free(v->timer);
    if (v->cluster)
        store_raft_cluster_free(v->cluster);
    listener_fini(&v->listener);
    mem_free(v);
}

struct store_raft_cluster *voter_agent_cluster(const struct voter_agent *v)
{
    return v->cluster;
}

/* --- telling ------------------------------------------------------------------------------------------------------- */

static void count_reached(const struct voter_agent *v, size_t *ret_reached, size_t *ret_all)
{
    *ret_reached = *ret_all = 0;
    for (size_t i = 0; i < v->status.voters; i++) {
        *ret_all += v->status.list[i].votes;
        *ret_reached +=
            v->status.list[i].votes && (v->status.list[i].reached || v->status.list[i].id == v->status.self);
    }
}

const char *voter_agent_waits(struct voter_agent *v)
{
    size_t reached, all;
    store_raft_cluster_status(v->cluster, &v->status);
    count_reached(v, &reached, &all);
    if (v->status.leader != 0 && v->status.made)
        v->waits[0] = '\0';
    else if (v->status.role == STORE_RAFT_BROKEN)
        (void)snprintf(v->waits, sizeof(v->waits), "%.190s", v->status.problem);
    else if (v->unwritable[0] != '\0')
        (void)snprintf(v->waits, sizeof(v->waits), "%s", v->unwritable);
    else if (!v->heard)
        (void)snprintf(v->waits, sizeof(v->waits), "Consul's key %.100s was not read yet%s%.60s", v->key,
                       consul_kv_trouble(v->kv)[0] ? ": " : "", consul_kv_trouble(v->kv));
    else if (!v->votes && (!v->has_doc || !v->doc.fixed))
        (void)snprintf(v->waits, sizeof(v->waits),
                       "the first voters are being found: %zu of %u have claimed their place",
                       v->has_doc ? v->doc.count : 0, v->has_doc ? v->doc.wanted : v->me.wanted);
    else
        (void)snprintf(v->waits, sizeof(v->waits), "the log has no leader: %zu of %zu voters can be reached",
                       reached, all);
    return v->waits;
}

void voter_agent_leave(struct voter_agent *v, bool spare)
{
    v->me.leaving = true;
    v->me.spare = spare;
    look(v, false);
}

bool voter_agent_left(const struct voter_agent *v)
{
    bool waits = v->me.spare && v->votes && !v->failed && v->has_doc;
    return !waits || !voters_find(&v->doc, v->folder.number);
}

void voter_agent_view(struct voter_agent *v, struct voter_agent_view *ret)
{
    *ret = (struct voter_agent_view){.set = v->has_doc ? v->doc.set : v->folder.set, .wanted = v->me.wanted};
    store_raft_cluster_status(v->cluster, &ret->log);
    ret->leads = ret->log.role == STORE_RAFT_LEADER;
    bool fixed = v->has_doc && v->doc.fixed;
    ret->count = v->has_doc ? v->doc.count : ret->log.voters;
    for (size_t i = 0; i < ret->count; i++) {
        const struct voter *known = v->has_doc ? &v->doc.list[i] : known_voter(v, ret->log.list[i].id);
        ret->list[i].at = known ? *known : (struct voter){.number = ret->log.list[i].id, .address = NOWHERE};
        if (!fixed && !v->has_doc)
            ret->list[i].at.state = VOTER_MEMBER;
        for (size_t k = 0; k < ret->log.voters; k++) {
            if (ret->log.list[k].id != ret->list[i].at.number)
                continue;
            ret->list[i].votes = ret->log.list[k].votes;
            ret->list[i].reached = ret->log.list[k].reached || ret->log.list[k].id == ret->log.self;
            ret->list[i].lag = ret->log.list[k].lag;
        }
    }
}
