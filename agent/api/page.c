/* A page of jobs on its way from the store to an answer: taken over on the loop, printed on a thread of its own, because a page of
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
