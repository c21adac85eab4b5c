/* A page of jobs, or of fires, on its way from the store to an answer: taken over on the loop, printed on a thread of its own, because a page of
 * a thousand jobs takes as long as many due fires may wait. */
#include <string.h>

#include "agent/api/api_private.h"

static void run(struct work *w, void *context)
{
    struct api_page *p = container_of(w, struct api_page, work);
    (void)context;
    p->print(p);
    for (size_t i = 0; i < p->count; i++) { /* here: to free a definition takes a while, too */
        job_spec_unref(p->jobs[i].job.spec);
        p->jobs[i].job.spec = NULL;
    }
}

static void page_free(struct api_page *p)
{
    for (size_t i = 0; i < p->count; i++)
        job_spec_unref(p->jobs[i].job.spec);
    buf_fini(&p->out);
    mem_free(p->jobs);
    mem_free(p);
}

static void done(struct work *w, bool cancelled)
{
    struct api_page *p = container_of(w, struct api_page, work);
    p->done(p, cancelled);
    page_free(p);
}

static void take(struct api *api, struct api_page *p, const struct store_page *from)
{
    for (size_t i = 0; i < from->jobs_count; i++) {
        const struct store_job *job = &from->jobs[i];
        if (!job->spec)
            continue; /* of a newer agent, or of a zone that is unknown here: others can show it */
        struct api_page_job *to = &p->jobs[p->count++];
        to->job = *job;
        (void)job_spec_ref(job->spec); /* the same pointer */
        api_owner_name(api->node, job->row.slot, to->owner);
    }
    if (from->more)
        api_cursor_print(from->next_ns, from->next_id, p->cursor);
}

int api_page_print(struct api *api, const struct store_page *from, void (*print)(struct api_page *p),
                   void (*done_fn)(struct api_page *p, bool cancelled), void *arg, struct err *e)
{
    struct api_page *p = mem_new(struct api_page);
    buf_init(&p->out, API_PAGE_BYTES_MAX);
    p->jobs = mem_try_array(from->jobs_count + 1, sizeof(*p->jobs), e);
    if (!p->jobs) {
        mem_free(p);
        return -ERR_NOMEM;
    }
    p->print = print;
    p->done = done_fn;
    p->arg = arg;
    p->work.run = run;
    p->work.done = done;
    take(api, p, from);
    worker_submit(api->pages, &p->work);
    return 0;
}

void api_page_answer(struct exchange *x, const struct err *e, const struct store_page *from,
                     void (*print)(struct api_page *p), void (*done_fn)(struct api_page *p, bool cancelled))
{
    struct err own = {0};
    if (e->code != ERR_OK)
        exchange_refuse_store(x, e);
    else if (x->api->stopping)
        exchange_refuse_with(x, API_OVERLOADED, "the agent is stopping");
    else if (api_page_print(x->api, from, print, done_fn, x, &own) < 0)
        exchange_refuse_with(x, API_OVERLOADED, own.text);
}

/* --- fires --------------------------------------------------------------------------------------------------------- */

struct print_job {
    struct work work;
    struct exchange *x;
    void (*print)(struct exchange *x);
    void (*done)(struct exchange *x, bool cancelled);
};

static void print_run(struct work *w, void *context)
{
    struct print_job *p = container_of(w, struct print_job, work);
    (void)context;
    p->print(p->x);
}

static void print_done(struct work *w, bool cancelled)
{
    struct print_job *p = container_of(w, struct print_job, work);
    p->done(p->x, cancelled);
    mem_free(p);
}

void api_print_off_loop(struct exchange *x, void (*print)(struct exchange *x),
                        void (*done_fn)(struct exchange *x, bool cancelled))
{
    if (x->api->stopping) {
        done_fn(x, true);
        return;
    }
    struct print_job *p = mem_new(struct print_job);
    *p = (struct print_job){
        .work = {.run = print_run, .done = print_done}, .x = x, .print = print, .done = done_fn};
    worker_submit(x->api->pages, &p->work);
}

int api_fires_take(struct fire_row *rows, size_t count, struct fire_row **ret, struct err *e)
{
    struct fire_row *taken = mem_try_array(count + 1, sizeof(*taken), e);
    if (!taken)
        return -ERR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        taken[i] = rows[i];
        fire_row_taken(&rows[i]);
    }
    *ret = taken;
    return 0;
}

void api_fires_free(struct fire_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        fire_row_fini(&rows[i]);
    mem_free(rows);
}
