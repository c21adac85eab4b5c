#include "callback/handback.h"

#include <pthread.h>

#include "agent/base/mem.h"

/* So many are worth a wake-up by themselves: the loop goes on with them while the rest is read. */
enum { GATHER_MAX = 16 };

struct handback {
    struct loop_msg msg;
    struct loop *loop;
    callback_done *done;
    void *arg;
    pthread_mutex_t lock;
    struct list finished; /* under lock */
    bool posted;          /* under lock: `msg` is on its way */
    bool gathering;       /* under lock */
    unsigned gathered;    /* under lock: in `finished`, not posted */
    bool gone;            /* loop thread: freed when the message has come */
};

static void handback_destroy(struct handback *h)
{
    pthread_mutex_destroy(&h->lock);
    mem_free(h);
}

static void hand_out(struct handback *h, bool from_msg)
{
    struct list batch, *link;
    list_init(&batch);
    pthread_mutex_lock(&h->lock);
    list_splice_back(&batch, &h->finished);
    h->gathered = 0;
    if (from_msg)
        h->posted = false;
    pthread_mutex_unlock(&h->lock);
    while ((link = list_pop_front(&batch)))
        h->done(h->arg, container_of(link, struct callback_attempt, link));
}

static void on_msg(struct loop_msg *msg)
{
    struct handback *h = container_of(msg, struct handback, msg);
    if (h->gone)
        handback_destroy(h);
    else
        hand_out(h, true);
}

struct handback *handback_new(struct loop *loop, callback_done *done, void *arg)
{
    struct handback *h = mem_new(struct handback);
    h->msg.run = on_msg;
    h->loop = loop;
    h->done = done;
    h->arg = arg;
    pthread_mutex_init(&h->lock, NULL);
    list_init(&h->finished);
    return h;
}

/* Under the lock: whether the message is to be posted now. */
static bool take_post(struct handback *h)
{
    if (h->posted || h->gathered == 0 || (h->gathering && h->gathered < GATHER_MAX))
        return false;
    h->gathered = 0;
    h->posted = true;
    return true;
}

void handback_add(struct handback *h, struct callback_attempt *a)
{
    pthread_mutex_lock(&h->lock);
    list_push_back(&h->finished, &a->link);
    h->gathered++;
    bool post = take_post(h);
    pthread_mutex_unlock(&h->lock);
    if (post)
        loop_post(h->loop, &h->msg);
}

void handback_gather(struct handback *h)
{
    pthread_mutex_lock(&h->lock);
    h->gathering = true;
    pthread_mutex_unlock(&h->lock);
}

void handback_gathered(struct handback *h)
{
    pthread_mutex_lock(&h->lock);
    h->gathering = false;
    bool post = take_post(h);
    pthread_mutex_unlock(&h->lock);
    if (post)
        loop_post(h->loop, &h->msg);
}

/* A message under way cannot be called back, so it frees what it belongs to. */
void handback_free(struct handback *h)
{
    if (!h)
        return;
    hand_out(h, false);
    h->gone = true;
    if (!h->posted)
        handback_destroy(h);
}
