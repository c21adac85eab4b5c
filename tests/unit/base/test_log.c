#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"

/* The log of this process (Criterion forks one for each test) goes to a pipe that the test reads. */
static int out[2];

static void open_log(void)
{
    struct err e = {0};
    cr_assert(zero(int, pipe2(out, O_CLOEXEC)));
    cr_assert(zero(int, log_start(out[1], &e)), "%s", e.text);
}

/* Everything written after the log has ended. */
static char *read_log(void)
{
    static char text[1 << 20];
    log_stop(5000);
    (void)close(out[1]);
    size_t len = 0;
    for (ssize_t n; (n = read(out[0], text + len, sizeof(text) - 1 - len)) > 0;)
        len += (size_t)n;
    (void)close(out[0]);
    text[len] = '\0';
    return text;
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    return n;
}

Test(log, lines_arrive_in_order_and_levels_filter)
{
    open_log();
    struct log_ctx ctx = {.module = "t", .id = NULL};
    log_info(&ctx, "one", "n=%d", 1);
    log_debug(&ctx, "two", "n=%d", 2);
    log_set(LOG_LEVEL_DEBUG, LOG_FORMAT_JSON);
    log_debug(&ctx, "three");
    log_set(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
    log_warn(&ctx, "four");
    log_error(&ctx, "five", "n=%d", 5);
    const char *text = read_log();
    const char *one = strstr(text, "level=info module=t msg=one n=1\n");
    const char *three = strstr(text, "\"level\":\"debug\",\"module\":\"t\",\"msg\":\"three\"}\n");
    const char *five = strstr(text, "level=error module=t msg=five n=5\n");
    cr_assert(one && three && five && one < three && three < five, "%s", text);
    cr_assert(eq(sz, count(text, "\n"), 3));
}

Test(log, none_is_held_back_of_who_tells_every_one)
{
    open_log();
    struct log_ctx ctx = {.module = "audit", .every = true};
    for (int i = 0; i < 100; i++)
        log_info(&ctx, "again", "n=%d", i);
    cr_assert(eq(sz, count(read_log(), "msg=again"), 100));
}

Test(log, repeats_are_held_back)
{
    open_log();
    for (int i = 0; i < 100; i++)
        log_error(NULL, "again", "n=%d", i);
    cr_assert(eq(sz, count(read_log(), "msg=again"), LOG_BURST));
}

Test(log, a_stuck_reader_costs_lines_not_time)
{
    open_log();
    log_set(LOG_LEVEL_DEBUG, LOG_FORMAT_LOGFMT);
    uint64_t begin_ms = clock_boot_ms();
    for (int i = 0; i < 20000; i++)
        log_debug(NULL, "flood", "n=%d text=%s", i, "0123456789012345678901234567890123456789");
    cr_assert(lt(u64, clock_boot_ms() - begin_ms, 20000));
    cr_assert(gt(u64, log_dropped(), 0));
    log_stop(50); /* nobody reads: it has to give up */
    cr_assert(lt(u64, clock_boot_ms() - begin_ms, 30000));
    struct err e;
    cr_assert(eq(int, log_start(2, &e), -ERR_BAD_STATE));
}

static void *drain(void *arg)
{
    (void)arg;
    static char text[1 << 22];
    size_t len = 0;
    for (ssize_t n; (n = read(out[0], text + len, sizeof(text) - 1 - len)) > 0;)
        len += (size_t)n;
    return text;
}

static void *chatter(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++)
        log_debug(NULL, "chatter", "i=%d filler=%s", i, "xxxxxxxxxxxxxxxxxxxx");
    return NULL;
}

Test(log, threads_never_mix_their_lines_and_every_line_is_counted)
{
    open_log();
    log_set(LOG_LEVEL_DEBUG, LOG_FORMAT_LOGFMT);
    pthread_t reader, writers[4];
    cr_assert(zero(int, pthread_create(&reader, NULL, drain, NULL)));
    for (int i = 0; i < 4; i++)
        cr_assert(zero(int, pthread_create(&writers[i], NULL, chatter, NULL)));
    for (int i = 0; i < 4; i++)
        (void)pthread_join(writers[i], NULL);
    log_stop(5000);
    uint64_t dropped = log_dropped();
    (void)close(out[1]);
    void *text;
    (void)pthread_join(reader, &text);
    size_t lines = 0;
    for (char *at = text; *at; lines++) {
        char *end = strchr(at, '\n');
        cr_assert(end != NULL);
        *end = '\0';
        bool whole = strncmp(at, "ts=20", 5) == 0 &&
                     (strstr(at, " filler=xxxxxxxxxxxxxxxxxxxx") || strstr(at, "dropped"));
        cr_assert(whole, "%s", at);
        lines -= strstr(at, "dropped") != NULL;
        at = end + 1;
    }
    cr_assert(eq(sz, lines + dropped, 4000));
}

Test(log, errno_is_kept)
{
    open_log();
    errno = EXDEV;
    log_error(NULL, "x", "error=%s", LOGQ(strerror(ENOENT)));
    cr_assert(eq(int, errno, EXDEV));
    (void)read_log();
}

Test(log, a_failed_start_leaves_the_log_usable)
{
    cr_assert(zero(int, pipe2(out, O_CLOEXEC)));
    for (unsigned k = 0;; k++) {
        struct err e = {0};
        fault_arm(k);
        int r = log_start(out[1], &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
    }
    cr_assert(eq(int, log_start(out[1], NULL), -ERR_BAD_STATE));
    log_info(NULL, "works");
    cr_assert(eq(sz, count(read_log(), "msg=works"), 1));
}

Test(log, without_a_writer_lines_go_out_directly_or_are_dropped)
{
    open_log();
    log_set(LOG_LEVEL_DEBUG, LOG_FORMAT_LOGFMT);
    log_stop(1000);
    for (int i = 0; i < 5000; i++)
        log_debug(NULL, "direct", "i=%d filler=%s", i, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    uint64_t dropped = log_dropped();
    cr_assert(gt(u64, dropped, 0));
    cr_assert(eq(sz, count(read_log(), "msg=direct") + dropped, 5000));
}
