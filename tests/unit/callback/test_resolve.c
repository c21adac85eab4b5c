#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/io/loop.h"
#include "callback/resolve.h"
#include "tests/lib/patience.h"

static struct bed {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct resolver *r;
    struct resolve asked[40];
    size_t done, stop_at;
} bed;

static void too_long(void *arg)
{
    (void)arg;
    cr_fatal("the test waited in vain: %zu answered", bed.done);
}

static void bed_begin(void)
{
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    loop_timer_arm(bed.watchdog, PATIENCE_MS);
    bed.r = resolver_new(bed.loop, 1);
}

static void bed_end(void)
{
    resolver_free(bed.r);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
}

static void on_done(struct resolve *q)
{
    (void)q;
    if (++bed.done == bed.stop_at)
        loop_stop(bed.loop);
}

static struct resolve *ask(size_t i, const char *host)
{
    struct resolve *q = &bed.asked[i];
    q->port = 50051;
    if (!q->until_ms)
        q->until_ms = INT64_MAX / 2;
    q->done = on_done;
    list_init(&q->link);
    snprintf(q->host, sizeof(q->host), "%s", host);
    resolver_ask(bed.r, q);
    return q;
}

static void wait_for(size_t count)
{
    bed.stop_at = count;
    if (bed.done < count)
        loop_run(bed.loop);
}

static void assert_address(const struct resolve *q, size_t i, const char *ip)
{
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr_storage *a = &q->addresses[i];
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;
    bool six = a->ss_family == AF_INET6;
    inet_ntop(a->ss_family, six ? (const void *)&v6->sin6_addr : &v4->sin_addr, text, sizeof(text));
    cr_assert(eq(str, text, (char *)ip));
    cr_assert(eq(int, ntohs(six ? v6->sin6_port : v4->sin_port), 50051));
}

Test(resolve, an_address_is_known_at_once, .init = bed_begin, .fini = bed_end)
{
    struct resolve *q = ask(0, "10.1.2.3");
    cr_assert(eq(sz, bed.done, 1));
    cr_assert(eq(sz, q->count, 1));
    assert_address(q, 0, "10.1.2.3");
    q = ask(1, "fd00::1");
    cr_assert(eq(sz, bed.done, 2));
    assert_address(q, 0, "fd00::1");
}

Test(resolve, a_name_is_looked_up_off_the_loop_and_then_known, .init = bed_begin, .fini = bed_end)
{
    struct resolve *q = ask(0, "localhost");
    cr_assert(zero(sz, bed.done), "the loop does not wait for a name server");
    wait_for(1);
    cr_assert(gt(sz, q->count, 0), "%s", q->error);
    ask(1, "localhost");
    cr_assert(eq(sz, bed.done, 2), "the answer is kept");
    cr_assert(eq(sz, bed.asked[1].count, q->count));
}

Test(resolve, a_name_that_nobody_knows_is_explained, .init = bed_begin, .fini = bed_end)
{
    struct resolve *q = ask(0, "no-such-host.invalid");
    wait_for(1);
    cr_assert(zero(sz, q->count));
    cr_assert(zero(int, strncmp(q->error, "could not resolve host no-such-host.invalid: ", 45)), "%s",
              q->error);
}

Test(resolve, questions_for_one_name_share_a_lookup, .init = bed_begin, .fini = bed_end)
{
    for (size_t i = 0; i < 40; i++)
        ask(i, "localhost");
    wait_for(40);
    for (size_t i = 0; i < 40; i++)
        cr_assert(gt(sz, bed.asked[i].count, 0));
}

Test(resolve, more_names_than_threads_are_all_answered, .init = bed_begin, .fini = bed_end)
{
    for (size_t i = 0; i < 40; i++) {
        char host[40];
        snprintf(host, sizeof(host), "no-such-host-%zu.invalid", i);
        ask(i, host);
    }
    wait_for(40);
    for (size_t i = 0; i < 40; i++)
        cr_assert(zero(sz, bed.asked[i].count));
}

Test(resolve, what_is_open_at_the_end_is_answered_with_nothing, .init = bed_begin, .fini = bed_end)
{
    for (size_t i = 0; i < 40; i++) {
        char host[40];
        snprintf(host, sizeof(host), "no-such-host-%zu.invalid", i);
        ask(i, host);
    }
    resolver_free(bed.r);
    bed.r = NULL;
    cr_assert(eq(sz, bed.done, 40));
    cr_assert(eq(str, bed.asked[39].error, "stopped"));
}

Test(resolve, nobody_waits_for_longer_than_said, .init = bed_begin, .fini = bed_end)
{
    bed.asked[0].until_ms = loop_now_ms(bed.loop) - 1; /* the answer cannot come sooner than the loop looks */
    struct resolve *q = ask(0, "no-such-host.invalid");
    wait_for(1);
    cr_assert(zero(sz, q->count));
    cr_assert(eq(str, q->error, "looking up the host's name timed out"));
}

Test(resolve, whatever_fails_is_an_answer)
{
    for (unsigned k = 0;; k++) {
        memset(&bed, 0, sizeof(bed));
        bed_begin();
        fault_arm(k);
        struct resolve *q = ask(0, "localhost");
        bool fired = fault_fired();
        wait_for(1);
        cr_assert(eq(int, q->count == 0, fired), "k=%u", k);
        cr_assert(eq(int, q->error[0] != '\0', fired), "k=%u", k);
        bed_end();
        if (!fired) {
            cr_assert(ge(uint, k, 2), "a table and a thread");
            break;
        }
    }
}
