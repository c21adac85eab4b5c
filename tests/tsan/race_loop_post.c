/* Threads that post while the loop runs and frees what was posted. Run under ThreadSanitizer by `make check-tsan`. */
#include "agent/base/err.h"
#include "agent/base/list.h"
#include "agent/base/mem.h"
#include "agent/io/loop.h"

#include <pthread.h>
#include <stdio.h>

enum { THREADS = 4, POSTS = 20000 };

static struct loop *loop;
static unsigned seen; /* the loop's alone: a race here would show a missing barrier in loop_post() */

static void on_message(struct loop_msg *msg)
{
    mem_free(msg);
    if (++seen == THREADS * POSTS)
        loop_stop(loop);
}

static void *post_all(void *arg)
{
    (void)arg;
    for (int i = 0; i < POSTS; i++) {
        struct loop_msg *msg = mem_new(struct loop_msg);
        msg->run = on_message;
        loop_post(loop, msg);
        (void)loop_last_turn_ms(loop);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    struct err e;
    if (loop_new(&loop, &e) < 0)
        return 1;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, post_all, NULL) != 0)
            return 1;
    loop_run(loop);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    loop_free(loop);
    printf("%u messages\n", seen);
    return seen == THREADS * POSTS ? 0 : 1;
}
