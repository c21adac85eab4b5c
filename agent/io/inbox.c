#include "agent/io/inbox.h"

#include <pthread.h>

#include "agent/base/mem.h"
#include "agent/io/loop.h"

/* So many are worth a wake-up by themselves: the loop goes on with them while the rest is gathered. */
enum { GATHERED_MAX = 16 };

struct inbox {
    struct loop_msg msg;
    struct loop *loop;
    void (*take)(void *arg, struct list *item);
    void *arg;
    pthread_mutex_t lock;
    struct list items; /* under lock */
    bool posted;       /* under lock: `msg` is on its way */
    bool gathering;    /* under lock */
    unsigned gathered; /* under lock: of the items, added since the last post */
    bool gone;         /* loop thread: freed when the message has come */
};

static void inbox_destroy(struct inbox *b)
{
    pthread_mutex_destroy(&b->lock);
    mem_free(b);
}

static void hand_out(struct inbox *b, bool from_msg)
{
    struct list batch, *item;
    list_init(&batch);
    pthread_mutex_lock(&b->lock);
    list_splice_back(&batch, &b->items);
    b->gathered = 0;
    if (from_msg)
        b->posted = false;
    pthread_mutex_unlock(&b->lock);
    while ((item = list_pop_front(&batch)))
        b->take(b->arg, item);
}

static void on_msg(struct loop_msg *msg)
{
    struct inbox *b = container_of(msg, struct inbox, msg);
    if (b->gone)
        inbox_destroy(b);
    else
        hand_out(b, true);
}

struct inbox *inbox_new(struct loop *loop, void (*take)(void *arg, struct list *item), void *arg)
{
    struct inbox *b = mem_new(struct inbox);
    b->msg.run = on_msg;
    b->loop = loop;
    b->take = take;
    b->arg = arg;
    pthread_mutex_init(&b->lock, NULL);
    list_init(&b->items);
    return b;
}

/* Under the lock, which it leaves. */
static void unlock_and_post(struct inbox *b, bool due)
{
    bool post = due && b->gathered > 0 && !b->posted;
    if (post) {
        b->gathered = 0;
        b->posted = true;
    }
    pthread_mutex_unlock(&b->lock);
    if (post)
        loop_post(b->loop, &b->msg);
}

void inbox_add(struct inbox *b, struct list *item)
{
    pthread_mutex_lock(&b->lock);
    list_push_back(&b->items, item);
    b->gathered++;
    unlock_and_post(b, !b->gathering || b->gathered >= GATHERED_MAX);
}

void inbox_gather(struct inbox *b)
{
    pthread_mutex_lock(&b->lock);
    b->gathering = true;
    pthread_mutex_unlock(&b->lock);
}

void inbox_post(struct inbox *b)
{
    pthread_mutex_lock(&b->lock);
    unlock_and_post(b, true);
}

void inbox_gathered(struct inbox *b)
{
    pthread_mutex_lock(&b->lock);
    b->gathering = false;
    unlock_and_post(b, true);
}

/* A message under way cannot be called back, so it frees what it belongs to. */
void inbox_free(struct inbox *b)
{
    if (!b)
        return;
    hand_out(b, false);
    b->gone = true;
    if (!b->posted)
        inbox_destroy(b);
}
