/* What the programs of the benchmark share: samples with their distribution, and checks that end the program, because a measurement
 * that went wrong has no result. One thread. */
#ifndef CARILLON_TESTS_BENCH_H
#define CARILLON_TESTS_BENCH_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Print to standard error and end with status 1. */
void bench_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
#define BENCH_CHECK(condition, ...)  \
    do {                             \
        if (!(condition))            \
            bench_fail(__VA_ARGS__); \
    } while (0)

/* Numbers in the order they came. {0} is empty. */
struct bench_samples {
    int64_t *values;
    size_t count, room;
};
void bench_samples_add(struct bench_samples *s, int64_t value);
void bench_samples_fini(struct bench_samples *s);
/* {"count", "min", "p50", "p90", "p99", "p999", "max"}, in the samples' unit divided by UNIT; sorts them. */
json_t *bench_samples_json(struct bench_samples *s, double unit);

/* The value of "--NAME" in ARGV, or DEF. Ends the program when it is no number. */
const char *bench_option(int argc, char **argv, const char *name, const char *def);
int64_t bench_number(int argc, char **argv, const char *name, int64_t def);

/* User and system time of this process with all its threads. */
double bench_cpu_us(void);

/* Print as one line, and let go of it. */
void bench_print(json_t *result);

#endif
