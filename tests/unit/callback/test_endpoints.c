#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/io/loop.h"
#include "callback/endpoints.h"

static struct {
    struct loop *loop;
    struct endpoints *table;
    char events[512];
    size_t changes;
} bed;

static void note(const char *sign, const char *service, const char *datacenter)
{
    size_t len = strlen(bed.events);
    snprintf(bed.events + len, sizeof(bed.events) - len, "%s%s@%s ", sign, service, datacenter);
}

static void on_want(void *arg, const char *service, const char *datacenter)
{
    (void)arg;
    note("+", service, datacenter);
}

static void on_unwant(void *arg, const char *service, const char *datacenter)
{
    (void)arg;
    note("-", service, datacenter);
}

static void on_changed(void *arg, struct endpoints_service *s)
{
    (void)arg;
    (void)s;
    bed.changes++;
}

static void open_table(bool watched, int64_t idle_ms)
{
    memset(&bed, 0, sizeof(bed));
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    struct endpoints_options o = {.loop = bed.loop,
                                  .node = "node-a",
                                  .zone = "zone-1",
                                  .idle_ms = idle_ms,
                                  .want = watched ? on_want : NULL,
                                  .unwant = watched ? on_unwant : NULL};
    bed.table = endpoints_new(&o);
    endpoints_listen(bed.table, on_changed, NULL);
}

static void close_table(void)
{
    endpoints_free(bed.table);
    loop_free(bed.loop);
}

static void stop_loop(void *arg)
{
    loop_stop(arg);
}

static void run_for(int64_t ms)
{
    struct loop_timer *t = loop_timer_new(bed.loop, stop_loop, bed.loop);
    loop_timer_arm(t, ms);
    loop_run(bed.loop);
    loop_timer_free(t);
}

static size_t count(const struct endpoints_service *s, const char *const *tags, size_t tags_count)
{
    struct endpoints_view view;
    size_t n = 0;
    for (size_t at = 0; endpoints_next(s, tags, tags_count, &at, &view);)
        n++;
    return n;
}

static void update(const char *service, const struct endpoints_instance *list, size_t n)
{
    struct err e = {0};
    cr_assert(zero(int, endpoints_update(bed.table, service, "", list, n, &e)), "%s", e.text);
}

static const struct endpoints_instance one = {.host = "10.0.0.1", .port = 80, .weight = 1};

Test(endpoints, a_service_is_wanted_once_and_given_up_when_nobody_needed_it_for_a_while)
{
    open_table(true, 40);
    struct endpoints_service *a = endpoints_use(bed.table, "billing", NULL);
    cr_assert(eq(ptr, endpoints_use(bed.table, "billing", ""), a));
    endpoints_use(bed.table, "billing", "dc2");
    cr_assert(eq(str, bed.events, "+billing@ +billing@dc2 "));
    endpoints_release(a);
    run_for(100);
    cr_assert(eq(str, bed.events, "+billing@ +billing@dc2 "), "both are in use");
    endpoints_release(a);
    run_for(130);
    cr_assert(eq(str, bed.events, "+billing@ +billing@dc2 -billing@ "));
    cr_assert(eq(sz, endpoints_count(bed.table), 1));
    endpoints_release(endpoints_use(bed.table, "billing", "dc2"));
    endpoints_release(endpoints_use(bed.table, "billing", "dc2"));
    struct endpoints_service *other = endpoints_use(bed.table, "billing", "dc2");
    endpoints_release(other);
    endpoints_release(other);
    close_table();
}

Test(endpoints, tells_what_was_heard)
{
    open_table(true, 0);
    cr_assert(eq(int, endpoints_state(bed.table, "billing", NULL), ENDPOINTS_UNHEARD));
    update("billing", &one, 1);
    cr_assert(eq(int, endpoints_state(bed.table, "billing", NULL), ENDPOINTS_UNHEARD), "nobody wanted it");
    struct endpoints_service *s = endpoints_use(bed.table, "billing", NULL);
    cr_assert(eq(int, endpoints_state(bed.table, "billing", NULL), ENDPOINTS_UNHEARD));
    cr_assert(not(endpoints_heard(s)));
    update("billing", NULL, 0);
    cr_assert(eq(int, endpoints_state(bed.table, "billing", NULL), ENDPOINTS_NONE));
    update("billing", &one, 1);
    cr_assert(eq(int, endpoints_state(bed.table, "billing", NULL), ENDPOINTS_SOME));
    cr_assert(eq(sz, bed.changes, 2));
    endpoints_release(s);
    close_table();
}

Test(endpoints, an_instance_whose_address_is_none_is_left_out)
{
    char long_host[400];
    memset(long_host, 'a', sizeof(long_host) - 1);
    long_host[sizeof(long_host) - 1] = '\0';
    struct endpoints_instance list[] = {
        {.host = NULL, .port = 80},      {.host = "", .port = 80},
        {.host = "a b", .port = 80},     {.host = "evil\r\nHost: x", .port = 80},
        {.host = "10.0.0.1", .port = 0}, {.host = "evil:80:other", .port = 80},
        {.host = "a/b", .port = 80},     {.host = long_host, .port = 80},
        {.host = "::1", .port = 80},     {.host = "node-1.dc1.consul", .port = 8080}};
    struct endpoints_view view;
    open_table(true, 0);
    struct endpoints_service *s = endpoints_use(bed.table, "billing", NULL);
    update("billing", list, sizeof(list) / sizeof(*list));
    size_t at = 0;
    cr_assert(endpoints_next(s, NULL, 0, &at, &view));
    cr_assert(eq(str, (char *)view.address, "[::1]:80"));
    cr_assert(endpoints_next(s, NULL, 0, &at, &view));
    cr_assert(eq(str, (char *)view.address, "node-1.dc1.consul:8080"));
    cr_assert(not(endpoints_next(s, NULL, 0, &at, &view)));
    endpoints_release(s);
    close_table();
}

Test(endpoints, ranks_by_own_node_then_own_zone)
{
    struct endpoints_instance list[] = {
        {.host = "a", .port = 1, .node = "node-a", .zone = "zone-2"},
        {.host = "b", .port = 1, .node = "node-b", .zone = "zone-1"},
        {.host = "c", .port = 1, .node = "node-b", .zone = ""},
        {.host = "d", .port = 1},
    };
    static const uint8_t ranks[] = {0, 1, 2, 2};
    struct endpoints_view view;
    open_table(true, 0);
    struct endpoints_service *s = endpoints_use(bed.table, "billing", NULL);
    update("billing", list, 4);
    size_t at = 0;
    for (size_t i = 0; i < 4; i++) {
        cr_assert(endpoints_next(s, NULL, 0, &at, &view));
        cr_assert(eq(u8, view.rank, ranks[i]), "%zu", i);
    }
    endpoints_release(s);
    close_table();
}

Test(endpoints, a_node_that_is_learned_late_changes_ranks_at_once)
{
    struct endpoints_instance list[] = {{.host = "a", .port = 1, .node = "node-a"},
                                        {.host = "b", .port = 1, .node = "node-b", .zone = "zone-1"}};
    struct endpoints_view view;
    open_table(true, 0);
    struct endpoints_service *s = endpoints_use(bed.table, "billing", NULL);
    struct endpoints_service *unheard = endpoints_use(bed.table, "other", NULL);
    update("billing", list, 2);
    cr_assert(eq(sz, bed.changes, 1));
    endpoints_set_node(bed.table, "node-b");
    cr_assert(eq(sz, bed.changes, 2), "of the one that has instances");
    static const uint8_t ranks[] = {2, 0};
    size_t at = 0;
    for (size_t i = 0; i < 2; i++) {
        cr_assert(endpoints_next(s, NULL, 0, &at, &view));
        cr_assert(eq(u8, view.rank, ranks[i]), "%zu", i);
    }
    update("billing", list, 1);
    at = 0;
    cr_assert(endpoints_next(s, NULL, 0, &at, &view));
    cr_assert(eq(u8, view.rank, 2));
    endpoints_release(s);
    endpoints_release(unheard);
    close_table();
}

Test(endpoints, matches_by_all_tags)
{
    const char *const v1[] = {"v1", NULL}, *const v1_blue[] = {"blue", "v1", NULL};
    const char *const want_none[] = {"v2"}, *const want_both[] = {"v1", "blue"};
    struct endpoints_instance list[] = {{.host = "a", .port = 1, .tags = v1},
                                        {.host = "b", .port = 1, .tags = v1_blue},
                                        {.host = "c", .port = 1}};
    open_table(true, 0);
    struct endpoints_service *s = endpoints_use(bed.table, "billing", NULL);
    update("billing", list, 3);
    cr_assert(eq(sz, count(s, NULL, 0), 3));
    cr_assert(eq(sz, count(s, v1, 1), 2));
    cr_assert(eq(sz, count(s, want_both, 2), 1));
    cr_assert(zero(sz, count(s, want_none, 1)));
    endpoints_release(s);
    close_table();
}

Test(endpoints, standalone_knows_the_configured_services_and_no_others)
{
    struct endpoints_instance two[] = {one, {.host = "10.0.0.2", .port = 80, .weight = 1}};
    open_table(false, 20);
    cr_assert(eq(int, endpoints_state(bed.table, "billing", NULL), ENDPOINTS_NONE));
    cr_assert(zero(int, endpoints_set_static(bed.table, "billing", two, 2, NULL)));
    cr_assert(eq(int, endpoints_state(bed.table, "billing", "dc2"), ENDPOINTS_SOME));
    struct endpoints_service *s = endpoints_use(bed.table, "billing", "dc2");
    cr_assert(eq(sz, count(s, NULL, 0), 2));
    endpoints_release(s);
    run_for(60);
    cr_assert(eq(int, endpoints_state(bed.table, "billing", NULL), ENDPOINTS_SOME), "kept though idle");
    cr_assert(zero(int, endpoints_set_static(bed.table, "billing", NULL, 0, NULL)));
    cr_assert(eq(int, endpoints_state(bed.table, "billing", NULL), ENDPOINTS_NONE));
    s = endpoints_use(bed.table, "other", NULL);
    cr_assert(endpoints_heard(s));
    endpoints_release(s);
    close_table();
}

Test(endpoints, the_table_is_bounded_and_the_least_used_makes_room)
{
    char name[32];
    open_table(true, 0);
    struct endpoints_service *kept = endpoints_use(bed.table, "kept", NULL);
    for (int i = 0; i < ENDPOINTS_SERVICES_MAX + 10; i++) {
        snprintf(name, sizeof(name), "s%d", i);
        bed.events[0] = '\0';
        struct endpoints_service *s = endpoints_use(bed.table, name, NULL);
        cr_assert(ne(ptr, s, NULL));
        endpoints_release(s);
    }
    cr_assert(eq(sz, endpoints_count(bed.table), ENDPOINTS_SERVICES_MAX));
    cr_assert(eq(ptr, endpoints_use(bed.table, "kept", NULL), kept));
    cr_assert(zero(ptr, endpoints_use(bed.table, "a", (char[600]){[0 ... 598] = 'd'})), "no such datacenter");
    endpoints_release(kept);
    endpoints_release(kept);
    close_table();
}

Test(endpoints, a_list_that_does_not_fit_into_memory_changes_nothing)
{
    struct endpoints_instance two[] = {one, {.host = "10.0.0.2", .port = 80, .weight = 1}};
    struct err e = {0};
    open_table(true, 0);
    struct endpoints_service *s = endpoints_use(bed.table, "billing", NULL);
    update("billing", &one, 1);
    unsigned k = 0;
    for (;; k++) {
        fault_arm(k);
        int rc = endpoints_update(bed.table, "billing", "", two, 2, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(lt(int, rc, 0), "k=%u", k);
        cr_assert(eq(sz, count(s, NULL, 0), 1), "k=%u", k);
    }
    cr_assert(gt(uint, k, 0));
    cr_assert(eq(sz, count(s, NULL, 0), 2));
    endpoints_release(s);
    close_table();
}
