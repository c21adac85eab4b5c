#include "tests/bench/bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

void bench_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)fprintf(stderr, "bench: ");
    (void)vfprintf(stderr, fmt, ap);
    (void)fprintf(stderr, "\n");
    va_end(ap);
    exit(1);
}

void bench_samples_add(struct bench_samples *s, int64_t value)
{
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 4096;
        s->values = realloc(s->values, s->room * sizeof(*s->values));
        BENCH_CHECK(s->values, "out of memory for %zu samples", s->room);
    }
    s->values[s->count++] = value;
}

void bench_samples_fini(struct bench_samples *s)
{
    free(s->values);
    *s = (struct bench_samples){0};
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

json_t *bench_samples_json(struct bench_samples *s, double unit)
{
    static const struct {
        const char *name;
        double part;
    } places[] = {{"min", 0}, {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};
    json_t *result = json_pack("{s:I}", "count", (json_int_t)s->count);
    if (s->count == 0)
        return result;
    qsort(s->values, s->count, sizeof(*s->values), compare);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        size_t at = (size_t)((double)(s->count - 1) * places[i].part + 0.5);
        json_object_set_new(result, places[i].name, json_real((double)s->values[at] / unit));
    }
    return result;
}

const char *bench_option(int argc, char **argv, const char *name, const char *def)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, name) == 0)
            return argv[i + 1];
    BENCH_CHECK(def, "--%s is missing", name);
    return def;
}

int64_t bench_number(int argc, char **argv, const char *name, int64_t def)
{
    char *end;
    const char *text = bench_option(argc, argv, name, "");
    if (!*text)
        return def;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    BENCH_CHECK(errno == 0 && !*end && value >= 0, "--%s %s: no number", name, text);
    return value;
}

double bench_cpu_us(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u); /* cannot fail */
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

void bench_print(json_t *result)
{
    (void)json_dumpf(result, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    (void)printf("\n");
    (void)fflush(stdout);
    json_decref(result);
}
