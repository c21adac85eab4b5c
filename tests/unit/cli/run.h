/* A command line with one of its steps failing: what it prints, and its exit code. */
#ifndef CARILLON_TESTS_CLI_RUN_H
#define CARILLON_TESTS_CLI_RUN_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/cli/cli.h"

#define RUN_STEPS_MAX 5000

struct run {
    char *out, *err;
    int code;
    bool fired; /* there was such a step */
};

static inline int64_t run_now(void)
{
    return 1795420800000; /* 2026-11-23T08:00:00Z */
}

/* WORDS with what CLI has beside its streams; K < 0: nothing fails. */
static inline struct run run_words(struct cli cli, const char *const *words, long k)
{
    static const char *const no_env[] = {NULL};
    struct run r = {0};
    size_t out_len, err_len;
    int argc = 0;
    while (words[argc])
        argc++;
    cli.in = fmemopen((char[]){" "}, 1, "r");
    cli.out = open_memstream(&r.out, &out_len);
    cli.err = open_memstream(&r.err, &err_len);
    cli.env = cli.env ? cli.env : no_env;
    cli.now_ms = run_now;
    if (k >= 0)
        fault_arm((unsigned)k);
    r.code = cli_run(&cli, argc, words);
    r.fired = k >= 0 && fault_fired();
    fault_disarm();
    (void)fclose(cli.in);
    (void)fclose(cli.out);
    (void)fclose(cli.err);
    return r;
}

static inline void run_fini(struct run *r)
{
    free(r->out);
    free(r->err);
}

/* A run that met a fault says so in a line, and fails; or it shows all that one without a fault does. */
static inline void run_check(const struct run *r, const struct run *whole, const char *what, long k)
{
    bool same = r->code == whole->code && strcmp(r->out, whole->out) == 0 && strcmp(r->err, whole->err) == 0;
    bool said = r->code != CLI_OK && r->err[0];
    cr_assert(same || (r->fired && said), "%s, step %ld, code %d:\n%s\n%s", what, k, r->code, r->out, r->err);
}

/* RUN(arg, k) once for each step, which fails, after once without. AFTER, if not NULL, looks at what each left. */
static inline void run_each(struct run (*run)(void *arg, long k),
                            void (*after)(void *arg, const struct run *r), void *arg, const char *what)
{
    struct run whole = run(arg, -1);
    cr_assert(eq(int, whole.code, CLI_OK), "%s: %s%s", what, whole.out, whole.err);
    if (after)
        after(arg, &whole);
    long k = 0;
    for (bool fired = true; fired; k++) {
        struct run r = run(arg, k);
        fired = r.fired;
        cr_assert(lt(i64, k, RUN_STEPS_MAX), "%s never ends", what);
        run_check(&r, &whole, what, k);
        if (after)
            after(arg, &r);
        run_fini(&r);
    }
    cr_assert(gt(i64, k, 1), "%s has no step that can fail", what);
    run_fini(&whole);
}

#endif
