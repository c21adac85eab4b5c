#include "callback/safety.h"

#include <pthread.h>

#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/io/file.h"
#include "agent/io/loop.h"
#include "agent/io/worker.h"

static const struct log_ctx log_here = {.module = "safety"};

struct safety {
    pthread_mutex_t lock;
    struct safety_use now;           /* under lock */
    char *secrets_dir;               /* NULL: not configured */
    pthread_mutex_t reading;         /* the secrets: by the look, or for a write that names a new one */
    struct file_watch secrets_watch; /* under reading; path NULL: not configured, as below */
    struct file_watch keys_watch;    /* the look's */
    struct worker_pool *pool;
    struct work look;
    struct loop_timer *timer;
    int64_t look_ms;
};

/* --- taking over --------------------------------------------------------------------------------------------------- */

static void put_keys(struct safety *s, struct sign_keys *next)
{
    pthread_mutex_lock(&s->lock);
    struct sign_keys *before = s->now.keys;
    s->now.keys = next;
    pthread_mutex_unlock(&s->lock);
    sign_keys_unref(before);
}

static void put_secrets(struct safety *s, struct secrets *next)
{
    pthread_mutex_lock(&s->lock);
    struct secrets *before = s->now.secrets;
    s->now.secrets = next;
    pthread_mutex_unlock(&s->lock);
    secrets_unref(before);
}

static void put_guard(struct safety *s, struct guard *next)
{
    pthread_mutex_lock(&s->lock);
    struct guard *before = s->now.guard;
    s->now.guard = next;
    pthread_mutex_unlock(&s->lock);
    guard_unref(before);
}

/* What lies at the path is at fault: reading it again helps only when it has changed. */
static bool wait_for_change(int rc)
{
    return rc == -ERR_INVALID || rc == -ERR_TOO_BIG || rc == -ERR_NOT_FOUND;
}

/* --- the look ------------------------------------------------------------------------------------------------------ */

static void look_at_keys(struct safety *s)
{
    struct sign_keys *next;
    struct err e;
    if (!s->keys_watch.path || !file_watch_changed(&s->keys_watch))
        return;
    int rc = sign_keys_load(s->keys_watch.path, &next, &e);
    if (rc < 0) {
        log_error(&log_here, "signing keys not read again, the old ones stay in use", "error=%s",
                  LOGQ(e.text));
        if (!wait_for_change(rc))
            s->keys_watch.stamp = 0;
        return;
    }
    log_info(&log_here, "signing keys read again", "file=%s keys=%zu", LOGQ(s->keys_watch.path),
             sign_keys_count(next));
    put_keys(s, next);
}

static void read_secrets(struct safety *s)
{
    struct secrets *next;
    struct err e;
    if (!file_watch_changed(&s->secrets_watch))
        return;
    int rc = secrets_load(s->secrets_watch.path, &next, &e);
    if (rc < 0) {
        log_error(&log_here, "secrets not read again, the old ones stay in use", "error=%s", LOGQ(e.text));
        if (!wait_for_change(rc))
            s->secrets_watch.stamp = 0;
        return;
    }
    log_info(&log_here, "secrets read again", "folder=%s secrets=%zu", LOGQ(s->secrets_watch.path),
             secrets_count(next));
    put_secrets(s, next);
}

/* Any thread. */
static void look_at_secrets(struct safety *s)
{
    if (!s->secrets_dir)
        return;
    pthread_mutex_lock(&s->reading);
    read_secrets(s);
    pthread_mutex_unlock(&s->reading);
}

static void look_at_ports(struct safety *s)
{
    uint16_t ports[GUARD_PORTS_MAX];
    size_t count = guard_listening_ports(ports, GUARD_PORTS_MAX);
    struct safety_use use;
    struct guard *next;
    struct err e;
    safety_use(s, &use);
    bool same = guard_has_ports(use.guard, ports, count);
    int rc = same ? 0 : guard_with_ports(use.guard, ports, count, &next, &e);
    pthread_mutex_lock(&s->lock);
    if (!same && rc == 0 && s->now.guard == use.guard) { /* else: other networks meanwhile, with new ports */
        s->now.guard = next;
        next = use.guard; /* ours instead of the holder's */
    }
    pthread_mutex_unlock(&s->lock);
    if (!same && rc == 0)
        guard_unref(next);
    else if (rc < 0)
        log_warn(&log_here, "own ports not noted, trying again", "error=%s", LOGQ(e.text));
    safety_unuse(&use);
}

static void run_look(struct work *w, void *thread_context)
{
    struct safety *s = container_of(w, struct safety, look);
    (void)thread_context;
    look_at_keys(s);
    look_at_secrets(s);
    look_at_ports(s);
}

static void look_done(struct work *w, bool cancelled)
{
    struct safety *s = container_of(w, struct safety, look);
    if (!cancelled && s->timer)
        loop_timer_arm(s->timer, s->look_ms);
}

static void on_timer(void *arg)
{
    struct safety *s = arg;
    worker_submit(s->pool, &s->look);
}

/* --- making and freeing -------------------------------------------------------------------------------------------- */

/* With the ports of now. */
static int make_guard(const struct guard_options *options, struct guard **ret, struct err *e)
{
    uint16_t ports[GUARD_PORTS_MAX];
    size_t count = guard_listening_ports(ports, GUARD_PORTS_MAX);
    AUTO(guard_unref) struct guard *plain = NULL;
    int rc = guard_new(options, &plain, e);
    return rc < 0 ? rc : guard_with_ports(plain, ports, count, ret, e);
}

/* The state before the reading is what was read, or older: a change in between is seen at the next look. */
static int read_all(struct safety *s, const struct safety_options *o, struct err *e)
{
    int rc = make_guard(&o->guard, &s->now.guard, e);
    if (rc == 0 && o->signing_keys_file) {
        file_watch_init(&s->keys_watch, o->signing_keys_file);
        rc = sign_keys_load(o->signing_keys_file, &s->now.keys, e);
        if (rc < 0)
            return err_wrap(e, "callback.signing_keys_file");
    }
    if (rc == 0 && o->secrets_dir) {
        s->secrets_dir = mem_strdup(o->secrets_dir);
        file_watch_init(&s->secrets_watch, o->secrets_dir);
        rc = secrets_load(o->secrets_dir, &s->now.secrets, e);
        if (rc < 0)
            return err_wrap(e, "callback.secrets_dir");
    }
    return rc;
}

int safety_new(const struct safety_options *options, struct safety **ret, struct err *e)
{
    struct safety *s = mem_new(struct safety);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->reading, NULL);
    s->look_ms = options->look_ms > 0 ? options->look_ms : SAFETY_LOOK_MS;
    s->look = (struct work){.run = run_look, .done = look_done};
    list_init(&s->look.link);
    int rc = read_all(s, options, e);
    if (rc == 0)
        rc = worker_pool_new(options->loop, "safety", 1, NULL, NULL, NULL, &s->pool, e);
    if (rc < 0) {
        safety_free(s);
        return rc;
    }
    s->timer = loop_timer_new(options->loop, on_timer, s);
    loop_timer_arm(s->timer, s->look_ms);
    *ret = s;
    return 0;
}

void safety_free(struct safety *s)
{
    if (!s)
        return;
    if (s->timer)
        loop_timer_free(s->timer);
    s->timer = NULL;
    if (s->pool)
        worker_pool_free(s->pool);
    if (s->keys_watch.path)
        file_watch_fini(&s->keys_watch);
    if (s->secrets_watch.path)
        file_watch_fini(&s->secrets_watch);
    safety_unuse(&s->now);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->reading);
    mem_free(s->secrets_dir);
    mem_free(s);
}

int safety_set_guard(struct safety *s, const struct guard_options *guard, struct err *e)
{
    struct guard *next;
    int rc = make_guard(guard, &next, e);
    if (rc == 0)
        put_guard(s, next);
    return rc;
}

void safety_listeners_changed(struct safety *s)
{
    look_at_ports(s);
}

/* --- using --------------------------------------------------------------------------------------------------------- */

void safety_use(struct safety *s, struct safety_use *ret)
{
    *ret = (struct safety_use){0};
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    ret->keys = sign_keys_ref(s->now.keys);
    ret->secrets = secrets_ref(s->now.secrets);
    ret->guard = guard_ref(s->now.guard);
    pthread_mutex_unlock(&s->lock);
}

void safety_unuse(struct safety_use *use)
{
    sign_keys_unref(use->keys);
    secrets_unref(use->secrets);
    guard_unref(use->guard);
    *use = (struct safety_use){0};
}

static bool in_table(struct safety *s, const char *ns, const char *name, size_t name_len)
{
    struct safety_use use;
    const char *value;
    safety_use(s, &use);
    int rc = secrets_find(use.secrets, ns, name, name_len, &value, NULL);
    safety_unuse(&use);
    return rc != -ERR_NOT_FOUND;
}

bool safety_secret_known(void *arg, const char *ns, const char *name, size_t name_len)
{
    struct safety *s = arg;
    if (!s->secrets_dir || in_table(s, ns, name, name_len))
        return true;
    if (!secrets_exists(s->secrets_dir, ns, name, name_len))
        return false;
    look_at_secrets(s); /* else the job's first attempts would fail for want of it */
    return in_table(s, ns, name, name_len);
}
