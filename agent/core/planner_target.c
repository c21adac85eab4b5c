#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/planner_private.h"

/* A host given directly shares its pace over all of its paths. */
static void target_name(const struct job_spec *spec, char name[PTARGET_NAME_MAX])
{
    static const char service[] = "service ";
    size_t at = spec->callback.service ? sizeof(service) - 1 : 0;
    memcpy(name, service, at);
    job_callee(spec, name + at);
}

static bool has_room(const struct planner *p, size_t out)
{
    return p->options.out_max == 0 || out < p->options.out_max;
}

static void target_timer(struct wheel_timer *t, void *arg)
{
    struct ptarget *target = container_of(t, struct ptarget, timer);
    struct planner *p = arg;
    size_t out = target->out;
    while (!list_empty(&target->paced) && planner_starts_allowed(p) && has_room(p, out) &&
           ptarget_token(p, target)) {
        struct pstart *s = container_of(list_first(&target->paced), struct pstart, link);
        list_remove(&s->link);
        p->paced_count--;
        s->waits = false;
        s->paced = true;
        list_push_back(&p->ready, &s->link);
        p->ready_count++;
        out++;
    }
    if (list_empty(&target->paced))
        list_remove(&target->paced_link);
    else
        planner_arm(p, &target->timer, p->now_ms + 20);
}

/* No memory for a target means no pace and no window for it, which is better than no fire. */
struct ptarget *ptarget_get(struct planner *p, const struct job_spec *spec)
{
    char name[PTARGET_NAME_MAX];
    target_name(spec, name);
    struct ptarget *t = map_get(&p->targets, name, strlen(name));
    if (!t) {
        t = mem_new(struct ptarget);
        memcpy(t->name, name, sizeof(t->name));
        t->spilled_ms = PLANNER_NEVER;
        t->tokens = 1;
        t->tokens_ms = p->now_ms;
        list_init(&t->fires);
        list_init(&t->paced);
        list_init(&t->paced_link);
        wheel_timer_init(&t->timer, target_timer, p);
        if (map_put(&p->targets, t->name, strlen(t->name), t, NULL, NULL) < 0) {
            mem_free(t);
            return NULL;
        }
    }
    t->users++;
    return t;
}

void ptarget_put(struct planner *p, struct ptarget *t)
{
    if (!t || --t->users > 0 || t->spilled_ms != PLANNER_NEVER)
        return;
    assert(list_empty(&t->paced) && list_empty(&t->fires) && t->waiting == 0 && t->out == 0);
    wheel_cancel(p->wheel, &t->timer);
    list_remove(&t->paced_link);
    (void)map_remove(&p->targets, t->name, strlen(t->name));
    mem_free(t);
}

/* Time gives tokens at the base rate, each success gives one more. So a target that answers is caught up with at a rate that
 * grows with what it takes, as TCP's window grows by acknowledgements, and one that fails gets no more than the base rate.
 * With the base rate alone a load above it that once fell behind would stay behind for ever. */
bool ptarget_token(struct planner *p, struct ptarget *t)
{
    double rate = (double)p->options.catch_up_per_s, burst = rate / 20 > 1 ? rate / 20 : 1;
    if (p->now_ms > t->tokens_ms && t->tokens < burst) {
        t->tokens += (double)(p->now_ms - t->tokens_ms) * rate / 1000;
        if (t->tokens > burst)
            t->tokens = burst;
    }
    t->tokens_ms = p->now_ms;
    if (t->tokens < 1)
        return false;
    t->tokens -= 1;
    return true;
}

bool ptarget_full(const struct planner *p, const struct ptarget *t)
{
    return !has_room(p, t->out);
}

void ptarget_enter_line(struct planner *p, struct ptarget *t, struct pstart *s)
{
    list_push_back(&t->paced, &s->link);
    s->waits = true;
    p->paced_count++;
    if (!list_linked(&t->paced_link))
        list_push_back(&p->paced, &t->paced_link);
    if (!wheel_timer_armed(&t->timer))
        planner_arm(p, &t->timer, p->now_ms + 1);
}

void pfire_out(struct planner *p, struct pfire *f)
{
    f->out = ptarget_get(p, f->spec);
    if (f->out)
        f->out->out++;
}

/* The line may move: there is room for one more, and after a success a token as well. */
void pfire_back(struct planner *p, struct pfire *f, bool success)
{
    struct ptarget *t = TAKE(f->out);
    if (!t)
        return;
    t->out--;
    if (success && t->tokens < (double)p->options.catch_up_per_s)
        t->tokens += 1;
    if (!list_empty(&t->paced))
        planner_arm(p, &t->timer, p->now_ms);
    ptarget_put(p, t);
}

static struct planner_target_view view_of(const struct planner *p, const struct ptarget *t)
{
    static const char prefix[] = "service ";
    struct planner_target_view view = {.oldest_ms = RECORD_NONE};
    if (strncmp(t->name, prefix, sizeof(prefix) - 1) == 0)
        view.service = t->name + sizeof(prefix) - 1;
    LIST_FOR (l, &t->fires) {
        const struct pfire *f = container_of(l, struct pfire, target_link);
        int64_t from_ms = f->row.due_ms + f->row.jitter_ms;
        if (f->in_flight || f->ended || f->row.state != FIRE_STATE_WAITING)
            continue;
        view.retries_waiting += f->row.attempts > 0;
        if (f->row.attempts == 0 && from_ms <= p->now_ms &&
            (view.oldest_ms == RECORD_NONE || from_ms < view.oldest_ms))
            view.oldest_ms = from_ms;
    }
    return view;
}

void planner_each_target(const struct planner *p,
                         void (*fn)(void *arg, const struct planner_target_view *view), void *arg)
{
    for (struct map_iter it = {0}; map_next(&p->targets, &it);) {
        struct planner_target_view view = view_of(p, it.value);
        fn(arg, &view);
    }
}

/* --- release --------------------------------------------------------------------------------------------------------- */

static const struct prelease *release_find(const struct planner *p, uint64_t number)
{
    const struct prelease *r = &p->releases[number % PLANNER_RELEASES_MAX];
    return number > 0 && r->number == number ? r : NULL;
}

bool pfire_is_released(const struct planner *p, const struct pfire *f)
{
    const struct prelease *r = release_find(p, f->release);
    return r && f->target && strcmp(r->target, f->target->name) == 0;
}

bool planner_release_room(const struct planner *p, uint64_t release)
{
    const struct prelease *r = release_find(p, release);
    const struct ptarget *t = r ? map_get(&p->targets, r->target, strlen(r->target)) : NULL;
    return !t || t->waiting <= p->options.retry_window / 2;
}

static void release_loaded(struct planner *p, struct ptarget *t)
{
    t->users++; /* until all are through */
    LIST_FOR_SAFE(l, &t->fires)
    (void)pfire_release(p, container_of(l, struct pfire, target_link)); /* or it waits for something else */
    ptarget_put(p, t);
}

static void release_name(const char *service, char name[PTARGET_NAME_MAX])
{
    snprintf(name, PTARGET_NAME_MAX, "service %.*s", RECORD_SERVICE_MAX - 1, service); /* as target_name() */
}

static uint64_t release_before(const struct planner *p, const char *name)
{
    uint64_t before = 0;
    for (size_t i = 0; i < PLANNER_RELEASES_MAX; i++)
        if (p->releases[i].number > before && strcmp(p->releases[i].target, name) == 0)
            before = p->releases[i].number;
    return before;
}

/* Most of what waits for a service that was away for long is in the store only. */
void planner_on_release(struct planner *p, const char *service)
{
    char name[PTARGET_NAME_MAX] = "";
    release_name(service, name);
    struct ptarget *t = map_get(&p->targets, name, strlen(name));
    if (t)
        release_loaded(p, t);
    uint64_t before = release_before(p, name), number = ++p->release_last;
    struct prelease *r = &p->releases[number % PLANNER_RELEASES_MAX];
    r->number = number;
    memcpy(r->target, name, sizeof(r->target));
    planner_load_released(p, before, number);
}

void planner_targets_fini(struct planner *p)
{
    for (struct map_iter it = {0}; map_next(&p->targets, &it);) {
        struct ptarget *t = it.value;
        wheel_cancel(p->wheel, &t->timer);
        mem_free(t);
    }
    map_fini(&p->targets);
}
