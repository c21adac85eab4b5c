/* Threads that log while others change level and format, and the log is stopped and started. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/base/log.h"

enum { THREADS = 4, LINES = 5000 };

static void *chatter(void *arg)
{
    struct log_ctx ctx = {.module = "race", .id = arg};
    for (int i = 0; i < LINES; i++) {
        log_info(&ctx, "limited", "i=%d", i);
        log_debug(&ctx, "free", "i=%d value=%s", i, LOGQ("a b"));
    }
    return NULL;
}

static void *turn_knobs(void *arg)
{
    (void)arg;
    for (int i = 0; i < LINES; i++)
        log_set(i % 2 ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, i % 3 ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT);
    return NULL;
}

int main(void)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    pthread_t threads[THREADS + 1];
    if (fd < 0 || log_start(fd, NULL) < 0)
        return 1;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, chatter, "x") != 0)
            return 1;
    if (pthread_create(&threads[THREADS], NULL, turn_knobs, NULL) != 0)
        return 1;
    for (int i = 0; i < 20; i++) {
        log_stop(10000);
        if (log_start(fd, NULL) < 0)
            return 1;
    }
    for (int i = 0; i <= THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    log_stop(10000);
    (void)close(fd);
    printf("race_log: done, %llu lines dropped\n", (unsigned long long)log_dropped());
    return 0;
}
