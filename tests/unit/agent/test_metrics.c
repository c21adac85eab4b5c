#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/metrics.h"

static struct metrics *m;
static struct buf page = BUF_INIT(64 << 20);

static void begin(void)
{
    m = metrics_new();
}

static void end(void)
{
    metrics_free(m);
    buf_fini(&page);
}

TestSuite(metrics, .init = begin, .fini = end);

static const char *print(void)
{
    buf_reset(&page);
    metrics_print(m, &page);
    cr_assert(zero(int, buf_check(&page, NULL)));
    return buf_str(&page);
}

static void check_line(const char *line)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "\n%s\n", line);
    cr_assert(ne(ptr, (void *)strstr(print(), text), NULL), "no line %s in\n%s", line, buf_str(&page));
}

static size_t lines_with(const char *start)
{
    size_t count = 0;
    for (const char *at = print(); (at = strstr(at, start)); at++)
        count += at == buf_str(&page) || at[-1] == '\n';
    return count;
}

Test(metrics, counters_add_up_by_their_labels)
{
    metrics_add(m, METRIC_FIRES, "default", "succeeded", NULL, 2);
    metrics_add(m, METRIC_FIRES, "default", "succeeded", NULL, 3);
    metrics_add(m, METRIC_FIRES, "default", "skipped", "late", 1);
    check_line("carillon_fires_total{namespace=\"default\",outcome=\"succeeded\",reason=\"\"} 5");
    check_line("carillon_fires_total{namespace=\"default\",outcome=\"skipped\",reason=\"late\"} 1");
    check_line("# TYPE carillon_fires_total counter");
}

Test(metrics, gauges_are_set_and_cleared)
{
    metrics_set(m, METRIC_IN_FLIGHT, "billing", NULL, NULL, 7);
    metrics_set(m, METRIC_IN_FLIGHT, "billing", NULL, NULL, 4);
    check_line("carillon_in_flight{service=\"billing\"} 4");
    metrics_clear(m, METRIC_IN_FLIGHT);
    cr_assert(zero(sz, lines_with("carillon_in_flight{")));
    metrics_set(m, METRIC_IN_FLIGHT, "billing", NULL, NULL, 1);
    check_line("carillon_in_flight{service=\"billing\"} 1");
}

Test(metrics, a_histogram_counts_each_value_in_all_buckets_above_it)
{
    metrics_observe(m, METRIC_STORE_BATCH_ROWS, NULL, NULL, 1);
    metrics_observe(m, METRIC_STORE_BATCH_ROWS, NULL, NULL, 7);
    metrics_observe(m, METRIC_STORE_BATCH_ROWS, NULL, NULL, 1e9);
    check_line("carillon_store_batch_rows_bucket{le=\"1\"} 1");
    check_line("carillon_store_batch_rows_bucket{le=\"5\"} 1");
    check_line("carillon_store_batch_rows_bucket{le=\"10\"} 2");
    check_line("carillon_store_batch_rows_bucket{le=\"2000\"} 2");
    check_line("carillon_store_batch_rows_bucket{le=\"+Inf\"} 3");
    check_line("carillon_store_batch_rows_count 3");
    check_line("carillon_store_batch_rows_sum 1000000008");
}

Test(metrics, every_family_is_named_and_typed_once)
{
    cr_assert(eq(sz, lines_with("# TYPE carillon_"), METRIC_COUNT_));
    cr_assert(eq(sz, lines_with("# HELP carillon_"), METRIC_COUNT_));
}

Test(metrics, labels_cannot_break_the_page)
{
    metrics_set(m, METRIC_IN_FLIGHT, "a\"b\\c\nd", NULL, NULL, 1);
    check_line("carillon_in_flight{service=\"a\\\"b\\\\c\\nd\"} 1");
}

Test(metrics, a_long_label_is_cut_between_two_characters)
{
    char label[201] = "";
    for (size_t i = 0; i < 100; i++)
        memcpy(label + 2 * i, "é", 2);
    metrics_set(m, METRIC_IN_FLIGHT, label, NULL, NULL, 1);
    const char *text = print();
    cr_assert(text_utf8_valid(text, strlen(text)));
    cr_assert(eq(sz, lines_with("carillon_in_flight{"), 1));
}

Test(metrics, equal_labels_in_other_places_are_other_series)
{
    metrics_add(m, METRIC_FIRES, "a", "", "", 1);
    metrics_add(m, METRIC_FIRES, "", "a", "", 1);
    cr_assert(eq(sz, lines_with("carillon_fires_total{"), 2));
}

Test(metrics, beyond_the_bound_labels_become_other)
{
    char label[32];
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 700; i++) {
            (void)snprintf(label, sizeof(label), "service-%d", i);
            metrics_set(m, METRIC_IN_FLIGHT, label, NULL, NULL, 1);
        }
    cr_assert(eq(sz, lines_with("carillon_in_flight{"), 501));
    check_line("carillon_in_flight{service=\"other\"} 1");
}

static void *add_many(void *arg)
{
    for (int i = 0; i < 10000; i++)
        metrics_add(m, METRIC_ATTEMPTS, arg, i % 2 ? "ok" : "failed", NULL, 1);
    return NULL;
}

Test(metrics, threads_may_count_at_the_same_time)
{
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        cr_assert(zero(int, pthread_create(&threads[i], NULL, add_many, i % 2 ? "http" : "grpc")));
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    check_line("carillon_attempts_total{transport=\"http\",result=\"ok\"} 10000");
    check_line("carillon_attempts_total{transport=\"grpc\",result=\"failed\"} 10000");
}

Test(metrics, a_value_that_finds_no_memory_is_lost_and_nothing_else)
{
    for (unsigned k = 0;; k++) {
        fault_arm(k);
        metrics_add(m, METRIC_FIRES, "ns", "dead", NULL, 1);
        if (!fault_fired())
            break;
        cr_assert(zero(sz, lines_with("carillon_fires_total{")), "k=%u", k);
    }
    check_line("carillon_fires_total{namespace=\"ns\",outcome=\"dead\",reason=\"\"} 1");
}

Test(metrics, a_gauge_with_too_many_labels_sums_the_rest_up)
{
    char name[16];
    for (int i = 0; i < 600; i++) {
        (void)snprintf(name, sizeof(name), "s%d", i);
        metrics_set_more(m, METRIC_IN_FLIGHT, name, 2);
    }
    check_line("carillon_in_flight{service=\"s499\"} 2");
    check_line("carillon_in_flight{service=\"other\"} 200");
    metrics_clear(m, METRIC_IN_FLIGHT);
    metrics_set_more(m, METRIC_IN_FLIGHT, "s7", 1);
    check_line("carillon_in_flight{service=\"s7\"} 1");
    cr_assert(eq(sz, lines_with("carillon_in_flight{"), 1));
}
