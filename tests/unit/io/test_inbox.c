#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>

#include "agent/base/err.h"
#include "agent/io/inbox.h"
#include "agent/io/loop.h"

enum { ITEMS = 40 };

static struct loop *loop;
static struct inbox *inbox;
static struct list items[ITEMS];
static const struct list *came[ITEMS];
static size_t came_count, turns;

static void take(void *arg, struct list *item)
{
    cr_assert(eq(ptr, arg, &loop));
    came[came_count++] = item;
}

static void end_turn(void *arg)
{
    (void)arg;
    turns++;
    loop_stop(loop);
}

static void stop_when_all_came(void *arg)
{
    (void)arg;
    if (came_count == 3)
        loop_stop(loop);
}

static void prepare(void)
{
    struct err e;
    cr_assert(zero(int, loop_new(&loop, &e)), "%s", e.text);
    inbox = inbox_new(loop, take, &loop);
    loop_set_turn_hook(loop, end_turn, NULL);
    for (size_t i = 0; i < ITEMS; i++)
        list_init(&items[i]);
}

/* What the loop gets in one turn that does not wait. */
static size_t came_in_a_turn(void)
{
    struct loop_timer *now = loop_timer_new(loop, end_turn, NULL);
    size_t before = came_count;
    loop_timer_arm(now, 0);
    loop_run(loop);
    loop_timer_free(now);
    return came_count - before;
}

static void end(void)
{
    inbox_free(inbox);
    loop_free(loop);
}

TestSuite(inbox, .init = prepare, .fini = end, .timeout = 600);

Test(inbox, an_item_comes_at_once_unless_they_are_gathered)
{
    inbox_add(inbox, &items[0]);
    cr_assert(eq(sz, came_in_a_turn(), 1));
    inbox_gather(inbox);
    inbox_add(inbox, &items[1]);
    inbox_add(inbox, &items[2]);
    cr_assert(eq(sz, came_in_a_turn(), 0));
    inbox_gathered(inbox);
    cr_assert(eq(sz, came_in_a_turn(), 2));
    inbox_add(inbox, &items[3]);
    cr_assert(eq(sz, came_in_a_turn(), 1));
    for (size_t i = 0; i < 4; i++)
        cr_assert(eq(ptr, (void *)came[i], &items[i]));
}

Test(inbox, many_that_are_gathered_do_not_wait_for_the_end)
{
    size_t added = 0, taken = 0;
    inbox_gather(inbox);
    while (taken == 0 && added < ITEMS) {
        inbox_add(inbox, &items[added++]);
        taken = came_in_a_turn();
    }
    cr_assert(eq(sz, taken, added));
    cr_assert(gt(sz, added, 1));
    cr_assert(lt(sz, added, ITEMS));
    inbox_add(inbox, &items[added]);
    cr_assert(eq(sz, came_in_a_turn(), 0), "the count begins anew");
    inbox_gathered(inbox);
    cr_assert(eq(sz, came_in_a_turn(), 1));
}

Test(inbox, nothing_gathered_posts_nothing)
{
    inbox_gather(inbox);
    inbox_gathered(inbox);
    cr_assert(eq(sz, came_in_a_turn(), 0));
}

Test(inbox, gathering_goes_on_after_a_post)
{
    inbox_gather(inbox);
    inbox_post(inbox);
    cr_assert(eq(sz, came_in_a_turn(), 0), "there was nothing");
    inbox_add(inbox, &items[0]);
    inbox_post(inbox);
    inbox_add(inbox, &items[1]);
    cr_assert(eq(sz, came_in_a_turn(), 2), "what was added before the loop looked comes too");
    inbox_add(inbox, &items[2]);
    cr_assert(eq(sz, came_in_a_turn(), 0));
    inbox_post(inbox);
    cr_assert(eq(sz, came_in_a_turn(), 1));
}

static void *gather_three(void *arg)
{
    (void)arg;
    inbox_gather(inbox);
    for (size_t i = 0; i < 3; i++)
        inbox_add(inbox, &items[i]);
    inbox_gathered(inbox);
    return NULL;
}

Test(inbox, what_another_thread_gathers_wakes_a_loop_that_waits)
{
    pthread_t thread;
    cr_assert(zero(int, pthread_create(&thread, NULL, gather_three, NULL)));
    loop_set_turn_hook(loop, stop_when_all_came, NULL);
    loop_run(loop);
    cr_assert(zero(int, pthread_join(thread, NULL)));
}

Test(inbox, what_is_gathered_when_it_ends_is_handed_out)
{
    inbox_gather(inbox);
    inbox_add(inbox, &items[0]);
    inbox_free(inbox);
    inbox = NULL;
    cr_assert(eq(sz, came_count, 1));
}
