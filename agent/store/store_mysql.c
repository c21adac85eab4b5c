#include "agent/store/store_mysql.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/base/option.h"
#include "agent/store/store_mysql_private.h"
#include "agent/store/store_mysql_schema.h"

/* The beat's connection gives up sooner than the others: a lease outlasts two tries, not one of many seconds. */
#define BEAT_TIMEOUT_S 2
#define BEAT_TRY_MS    1000

/* How long the start waits for another agent that is making or migrating the tables. */
#define SCHEMA_WAIT_MS   60000
#define SCHEMA_TIMEOUT_S 30
/* A server that is asked again and again until it is there is asked on the agent's loop, which must not stand still for long. */
#define LOOK_TIMEOUT_S 2

static const struct log_ctx log_store = {.module = "store"};

/* --- options ------------------------------------------------------------------------------------------------------- */

#define AT(field) offsetof(struct store_mysql_options, field)

static const char *const tls_modes[] = {"off", "require", "verify", NULL};

static const struct option_row option_rows[] = {
    {.key = "store.mysql.host",
     .type = OPTION_STRING,
     .offset = AT(host),
     .def = "127.0.0.1",
     .min = 1,
     .max = 255,
     .help = "Name or address of the server."},
    {.key = "store.mysql.port",
     .type = OPTION_INT,
     .offset = AT(port),
     .def = "3306",
     .min = 1,
     .max = 65535,
     .help = "Its port."},
    {.key = "store.mysql.socket",
     .type = OPTION_PATH,
     .offset = AT(socket),
     .help = "Unix socket of the server, instead of host and port."},
    {.key = "store.mysql.user",
     .type = OPTION_STRING,
     .offset = AT(user),
     .def = "carillon",
     .min = 1,
     .max = 128,
     .help = "User to connect as."},
    {.key = "store.mysql.password_file",
     .type = OPTION_PATH,
     .offset = AT(password_file),
     .help = "File with the user's password, read again for every connection."},
    {.key = "store.mysql.database",
     .type = OPTION_STRING,
     .offset = AT(database),
     .def = "carillon",
     .min = 1,
     .max = 64,
     .help = "Database; made at the first start if the user may."},
    {.key = "store.mysql.connections",
     .type = OPTION_INT,
     .offset = AT(connections),
     .def = "2",
     .min = 2,
     .max = 32,
     .help =
         "Connections beside the beat's: one for results and writes, the others for reads. One more while more than a batch waits to be written."},
    {.key = "store.mysql.timeout",
     .type = OPTION_DURATION,
     .offset = AT(timeout_ms),
     .def = "5s",
     .min = 1000,
     .max = 60000,
     .help = "How long a call is tried, and how long one connect, read or write may take."},
    {.key = "store.mysql.tls_mode",
     .type = OPTION_ENUM,
     .offset = AT(tls_mode),
     .def = "off",
     .allowed = tls_modes,
     .help = "TLS to the server: off, require it, or verify the server's certificate and name too."},
    {.key = "store.mysql.tls_ca",
     .type = OPTION_PATH,
     .offset = AT(tls_ca),
     .help =
         "Certificate authorities (PEM) that may sign the server's certificate; the system's if not given."},
    {.key = "store.mysql.tls_cert",
     .type = OPTION_PATH,
     .offset = AT(tls_cert),
     .help = "Own certificate (PEM)."},
    {.key = "store.mysql.tls_key",
     .type = OPTION_PATH,
     .offset = AT(tls_key),
     .help = "Key of the own certificate (PEM)."},
    {.key = NULL}};

static void options_copy(struct store_mysql_options *to, const struct store_mysql_options *from)
{
    *to = *from;
    to->host = mem_strdup(from->host);
    to->socket = mem_strdup(from->socket);
    to->user = mem_strdup(from->user);
    to->password_file = mem_strdup(from->password_file);
    to->database = mem_strdup(from->database);
    to->tls_ca = mem_strdup(from->tls_ca);
    to->tls_cert = mem_strdup(from->tls_cert);
    to->tls_key = mem_strdup(from->tls_key);
}

static void options_fini(struct store_mysql_options *o)
{
    mem_free(o->host);
    mem_free(o->socket);
    mem_free(o->user);
    mem_free(o->password_file);
    mem_free(o->database);
    mem_free(o->tls_ca);
    mem_free(o->tls_cert);
    mem_free(o->tls_key);
}

/* --- operations ---------------------------------------------------------------------------------------------------- */

bool my_grow(void **items, size_t count, size_t *cap, size_t size_bytes, struct err *e)
{
    if (count < *cap)
        return true;
    size_t wanted = *cap ? 2 * *cap : 16;
    void *grown = mem_try_realloc(*items, wanted, size_bytes, e);
    if (!grown)
        return false;
    *items = grown;
    *cap = wanted;
    return true;
}

/* Waits in slices so that a close need not wait for it. False: closing. */
static bool wait_ms(struct store_mysql *s, uint64_t ms)
{
    uint64_t until = clock_boot_ms() + ms;
    for (uint64_t now; (now = clock_boot_ms()) < until;) {
        if (atomic_load(&s->closing))
            return false;
        uint64_t left = until - now;
        (void)poll(NULL, 0, (int)(left < 50 ? left : 50)); /* only time can pass */
    }
    return !atomic_load(&s->closing);
}

static bool is_passing(int r)
{
    return r == -ERR_RETRY || r == -ERR_UNAVAILABLE || r == -ERR_UNKNOWN_OUTCOME;
}

/* Back-off with jitter, from a few ms after a deadlock to a tenth of a second and more while the server is away. */
static uint64_t pause_ms(struct my_conn *c, int r, unsigned tries)
{
    uint64_t base = r == -ERR_RETRY ? 5 : 50;
    uint64_t top = base << (tries < 4 ? tries : 4);
    return base + rng_below(&c->rng, top);
}

static int try_once(struct my_op *op, struct my_conn *c)
{
    err_clear(&op->err);
    int r = my_conn_ensure(c, true, &op->err);
    if (r == 0)
        r = op->run(op, c, &op->err);
    else if (r == -ERR_NOT_FOUND)
        r = err_set(&op->err, ERR_PERMANENT, "the database is gone");
    if (r == -ERR_UNKNOWN_OUTCOME)
        op->maybe_done = true;
    return r;
}

/* "Nothing happened" may only be said when no earlier try left it open. */
static void conclude(struct my_op *op, int r)
{
    if (r == 0)
        err_clear(&op->err);
    else if (op->maybe_done && r != -ERR_FENCED)
        op->err.code = ERR_UNKNOWN_OUTCOME;
}

static void op_run(struct work *w, void *context)
{
    struct my_op *op = container_of(w, struct my_op, work);
    struct my_conn *c = context;
    uint64_t start_us = clock_boot_us();
    uint64_t limit_ms = op->pool == MY_POOL_BEAT ? BEAT_TRY_MS : op->store->options.timeout_ms;
    uint64_t until = clock_boot_ms() + limit_ms;
    int r;
    for (unsigned tries = 0;; tries++) {
        r = try_once(op, c);
        if (!is_passing(r) || clock_boot_ms() >= until || !wait_ms(op->store, pause_ms(c, r, tries)))
            break;
    }
    conclude(op, r);
    op->spent_us = clock_boot_us() - start_us;
}

static void note_outcome(struct store_mysql *s, const struct my_op *op)
{
    /* The store answered, whatever it said. */
    bool reached = op->err.code != ERR_UNAVAILABLE && op->err.code != ERR_UNKNOWN_OUTCOME &&
                   op->err.code != ERR_PERMANENT;
    if (reached == s->stats.ok)
        return;
    s->stats.ok = reached;
    s->stats.since_ms = s->now_ms(s->arg);
    (void)snprintf(s->stats.detail, sizeof(s->stats.detail), "%.159s", op->err.text); /* cut: for people */
    if (reached)
        log_info(&log_store, "store reached again", "driver=mysql");
    else
        log_warn(&log_store, "store cannot be used; trying again", "driver=mysql error=%s",
                 LOGQ(op->err.text));
}

static void note_op(struct store_mysql *s, const struct my_op *op)
{
    struct store_stats *st = &s->stats;
    uint64_t *counts[MY_POOL_COUNT_] = {&st->beats, &st->commits, &st->commits, &st->reads};
    uint64_t *times[MY_POOL_COUNT_] = {&st->beat_us, &st->commit_us, &st->commit_us, &st->read_us};
    *counts[op->pool] += 1;
    *times[op->pool] += op->spent_us;
    st->errors_retry += op->err.code == ERR_RETRY;
    st->errors_unavailable += op->err.code == ERR_UNAVAILABLE;
    st->errors_unknown += op->err.code == ERR_UNKNOWN_OUTCOME;
    st->errors_permanent += op->err.code == ERR_PERMANENT;
    note_outcome(s, op);
}

static void op_done(struct work *w, bool cancelled)
{
    struct my_op *op = container_of(w, struct my_op, work);
    if (cancelled)
        (void)err_set(&op->err, ERR_CANCELLED,
                      "the store is being closed"); /* the caller's completion tells it */
    else
        note_op(op->store, op);
    op->finish(op);
}

void my_op_submit(struct store_mysql *s, struct my_op *op, enum my_pool pool,
                  int (*run)(struct my_op *, struct my_conn *, struct err *), void (*finish)(struct my_op *))
{
    op->store = s;
    op->pool = pool;
    op->run = run;
    op->finish = finish;
    op->work.run = op_run;
    op->work.done = op_done;
    worker_submit(s->pools[pool], &op->work);
}

/* --- threads ------------------------------------------------------------------------------------------------------- */

static void *thread_context(struct store_mysql *s, unsigned timeout_s)
{
    struct my_conn *c = mem_new(struct my_conn);
    mysql_thread_init();
    my_conn_init(c, &s->options, timeout_s);
    return c;
}

static void *beat_context(void *arg)
{
    return thread_context(arg, BEAT_TIMEOUT_S);
}

static void *work_context(void *arg)
{
    struct store_mysql *s = arg;
    return thread_context(s, (unsigned)((s->options.timeout_ms + 999) / 1000));
}

static void context_free(void *context)
{
    my_conn_close(context);
    mem_free(context);
    mysql_thread_end();
}

static int pools_new(struct store_mysql *s, struct loop *loop, struct err *e)
{
    const struct {
        const char *name;
        unsigned threads;
    } pools[MY_POOL_COUNT_] = {[MY_POOL_BEAT] = {"store-beat", 1},
                               [MY_POOL_COMMIT] = {"store-commit", 1},
                               [MY_POOL_COMMIT_BESIDE] = {"store-commit-2", 1},
                               [MY_POOL_READ] = {"store-read", (unsigned)s->options.connections - 1}};
    for (int i = 0; i < MY_POOL_COUNT_; i++)
        if (worker_pool_new(loop, pools[i].name, pools[i].threads,
                            i == MY_POOL_BEAT ? beat_context : work_context, context_free, s, &s->pools[i],
                            e) < 0)
            return err_wrap(e, "threads of the store");
    return 0;
}

/* --- open, close --------------------------------------------------------------------------------------------------- */

static int refuse_unfinished(struct my_conn *c, struct err *e)
{
    struct store_meta meta;
    bool copying = false;
    int r = my_schema_look(c, &meta, &copying, e);
    if (r == 0 && copying)
        return err_set(e, ERR_PERMANENT,
                       "a copy into the database was not finished: run `carillon store copy` again");
    return r;
}

/* Whether the server answers at all: one that accepts and is silent would hold the loop for as long as a migration may take. */
static int look_for_server(struct store_mysql *s, struct err *e)
{
    struct my_conn c;
    my_conn_init(&c, &s->options, LOOK_TIMEOUT_S);
    int r = my_conn_ensure(&c, false, e);
    my_conn_close(&c);
    return r;
}

static int schema_make(struct store_mysql *s, const struct store_open_args *args, struct err *e)
{
    struct my_conn first, lock;
    uint64_t until = clock_boot_ms() + SCHEMA_WAIT_MS;
    int r;
    my_conn_init(&first, &s->options, SCHEMA_TIMEOUT_S);
    my_conn_init(&lock, &s->options, SCHEMA_TIMEOUT_S);
    do {
        err_clear(e);
        r = my_schema_open(&first, &lock, args->cluster, args->slots, &s->meta, e);
    } while (r == -ERR_RETRY && clock_boot_ms() < until && wait_ms(s, 100));
    if (r == 0)
        r = refuse_unfinished(&first, e);
    s->galera = first.is_galera;
    my_conn_close(&first);
    my_conn_close(&lock);
    return r;
}

static int schema_open(struct store_mysql *s, const struct store_open_args *args, struct err *e)
{
    int r = look_for_server(s, e);
    if (r == 0)
        r = schema_make(s, args, e);
    if (r == -ERR_UNKNOWN_OUTCOME ||
        r == -ERR_RETRY) /* making tables can be begun again, so nothing is lost */
        e->code = ERR_UNAVAILABLE;
    else if (r == -ERR_NOT_FOUND || r == -ERR_REFUSED)
        e->code = ERR_PERMANENT;
    return r < 0 ? -(int)e->code : 0;
}

static void my_close(void *self)
{
    struct store_mysql *s = self;
    atomic_store(&s->closing, true);
    for (int i = 0; i < MY_POOL_COUNT_; i++)
        worker_pool_free(s->pools[i]);
    options_fini(&s->options);
    mem_free(s);
}

static int my_open(const struct store_open_args *args, void **ret_self, struct store_meta *ret_meta,
                   struct err *e)
{
    struct err own = {0};
    struct store_mysql *s = mem_new(struct store_mysql);
    mysql_library_init(0, NULL, NULL);
    options_copy(&s->options, args->options);
    s->zones = args->zones;
    s->now_ms = args->now_ms;
    s->arg = args->arg;
    int r = schema_open(s, args, &own);
    if (r == 0)
        r = pools_new(s, args->loop, &own);
    if (r < 0) {
        my_close(s);
        return err_set(e, own.code, "%s", own.text);
    }
    s->stats.ok = true;
    s->stats.since_ms = s->now_ms(s->arg);
    *ret_meta = s->meta;
    *ret_self = s;
    return 0;
}

static const struct store_stats *my_stats(void *self)
{
    struct store_mysql *s = self;
    s->stats.queue = 0;
    for (int i = 0; i < MY_POOL_COUNT_; i++)
        s->stats.queue += (uint32_t)worker_queue_length(s->pools[i]);
    return &s->stats;
}

const struct store_ops store_mysql = {
    .name = "mysql",
    .options = option_rows,
    .options_size = sizeof(struct store_mysql_options),
    .open = my_open,
    .close = my_close,
    .join = my_join,
    .beat = my_beat,
    .declare_dead = my_declare_dead,
    .slots_change = my_slots_change,
    .slots_read = my_slots_read,
    .commits_max = 2,
    .commit = my_commit,
    .load_jobs = my_load_jobs,
    .load_fires = my_load_fires,
    .get_jobs = my_get_jobs,
    .get_fires = my_get_fires,
    .list_jobs = my_list_jobs,
    .list_fires = my_list_fires,
    .get_copy = my_get_copy,
    .count_dead = my_count_dead,
    .count_jobs = my_count_jobs,
    .find_change = my_find_change,
    .list_revisions = my_list_revisions,
    .vacuum = my_vacuum,
    .stats = my_stats,
};
