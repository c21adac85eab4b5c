#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/base/err.h"
#include "agent/io/loop.h"
#include "callback/handback.h"

enum { ATTEMPTS = 40 };

static struct loop *loop;
static struct handback *handback;
static struct callback_attempt attempts[ATTEMPTS];
static const struct callback_attempt *came[ATTEMPTS];
static size_t came_count, turns;

static void take(void *arg, struct callback_attempt *a)
{
    cr_assert(eq(ptr, arg, &loop));
    came[came_count++] = a;
}

static void end_turn(void *arg)
{
    (void)arg;
    turns++;
    loop_stop(loop);
}

static void prepare(void)
{
    struct err e;
    cr_assert(zero(int, loop_new(&loop, &e)), "%s", e.text);
    handback = handback_new(loop, take, &loop);
    loop_set_turn_hook(loop, end_turn, NULL);
    for (size_t i = 0; i < ATTEMPTS; i++)
        list_init(&attempts[i].link);
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
    handback_free(handback);
    loop_free(loop);
}

TestSuite(handback, .init = prepare, .fini = end, .timeout = 60);

Test(handback, a_finished_attempt_comes_at_once_unless_they_are_gathered)
{
    handback_add(handback, &attempts[0]);
    cr_assert(eq(sz, came_in_a_turn(), 1));
    handback_gather(handback);
    handback_add(handback, &attempts[1]);
    handback_add(handback, &attempts[2]);
    cr_assert(eq(sz, came_in_a_turn(), 0));
    handback_gathered(handback);
    cr_assert(eq(sz, came_in_a_turn(), 2));
    handback_add(handback, &attempts[3]);
    cr_assert(eq(sz, came_in_a_turn(), 1));
    for (size_t i = 0; i < 4; i++)
        cr_assert(eq(ptr, (void *)came[i], &attempts[i]));
}

Test(handback, many_that_are_gathered_do_not_wait_for_the_end)
{
    size_t added = 0, taken = 0;
    handback_gather(handback);
    while (taken == 0 && added < ATTEMPTS) {
        handback_add(handback, &attempts[added++]);
        taken = came_in_a_turn();
    }
    cr_assert(eq(sz, taken, added));
    cr_assert(gt(sz, added, 1));
    cr_assert(lt(sz, added, ATTEMPTS));
    handback_add(handback, &attempts[added]);
    cr_assert(eq(sz, came_in_a_turn(), 0), "the count begins anew");
    handback_gathered(handback);
    cr_assert(eq(sz, came_in_a_turn(), 1));
}

Test(handback, nothing_gathered_posts_nothing)
{
    handback_gather(handback);
    handback_gathered(handback);
    cr_assert(eq(sz, came_in_a_turn(), 0));
}

Test(handback, what_is_gathered_when_it_ends_is_handed_out)
{
    handback_gather(handback);
    handback_add(handback, &attempts[0]);
    handback_free(handback);
    handback = NULL;
    cr_assert(eq(sz, came_count, 1));
}
