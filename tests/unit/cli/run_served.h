/* A command that runs until a signal ends it, with one of its steps failing: visited once it is ready. */
#ifndef CARILLON_TESTS_CLI_RUN_SERVED_H
#define CARILLON_TESTS_CLI_RUN_SERVED_H

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "tests/unit/cli/run.h"

struct run_served {
    const char *ready; /* what it prints on its error output then; an address follows */
    void (*visit)(void *arg, const char *address);
    void *arg;
    /* private */
    FILE *out, *err;
    atomic_bool over;
};

/* What FILE holds. */
static inline char *run_read(FILE *file)
{
    AUTO(buf_fini) struct buf text = BUF_INIT_OR_DIE(1 << 20);
    char piece[4096];
    ssize_t n;
    for (off_t at = 0; (n = pread(fileno(file), piece, sizeof(piece), at)) > 0; at += n)
        buf_add(&text, piece, (size_t)n);
    return buf_steal(&text, NULL, NULL);
}

static inline void *run_visitor(void *arg)
{
    struct run_served *s = arg;
    for (bool ended = false; !ended; (void)poll(NULL, 0, 1)) {
        ended = atomic_load(&s->over);
        AUTO(mem_free) char *said = run_read(s->err);
        char *address = strstr(said, s->ready);
        if (ended || !address || !strchr(address, '\n'))
            continue;
        address += strlen(s->ready);
        address[strcspn(address, " \n\"")] = '\0';
        if (s->visit)
            s->visit(s->arg, address);
        (void)kill(getpid(), SIGTERM); /* its handler is there since before it was ready, until this comes */
        return NULL;
    }
    return NULL;
}

static inline struct run run_served(struct run_served *s, const char *const *words, long k)
{
    static const char *const no_env[] = {NULL};
    struct run r = {0};
    pthread_t visitor;
    int argc = 0;
    while (words[argc])
        argc++;
    struct cli cli = {.out = s->out = tmpfile(), .err = s->err = tmpfile(), .env = no_env, .now_ms = run_now};
    (void)setvbuf(cli.err, NULL, _IONBF, 0);
    atomic_store(&s->over, false);
    cr_assert(zero(int, pthread_create(&visitor, NULL, run_visitor, s)));
    if (k >= 0)
        fault_arm((unsigned)k);
    r.code = cli_run(&cli, argc, words);
    r.fired = k >= 0 && fault_fired();
    fault_disarm();
    atomic_store(&s->over, true);
    cr_assert(zero(int, pthread_join(visitor, NULL)));
    (void)fflush(cli.out);
    r.out = run_read(cli.out);
    r.err = run_read(cli.err);
    (void)fclose(cli.out);
    (void)fclose(cli.err);
    return r;
}

/* Each number behind KEY becomes 0: it depends on the clock. */
static inline void run_mask(char *text, const char *key)
{
    for (char *at = text; (at = strstr(at, key));) {
        at += strlen(key);
        size_t digits = strspn(at, "-0123456789");
        if (digits > 0)
            memmove(at + 1, at + digits, strlen(at + digits) + 1);
        *at = digits > 0 ? '0' : *at;
    }
}

#endif
