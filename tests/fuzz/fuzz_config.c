/* A configuration file as somebody wrote it: what is refused says why in lines, what is taken can be used, compared and merged. */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void count_difference(void *arg, const char *key, bool applied)
{
    (void)key;
    (void)applied;
    ++*(int *)arg;
}

static void check(struct config *c)
{
    char digest[CONFIG_DIGEST_SIZE] = "";
    struct job_defaults defaults;
    const void *options;
    int differences = 0;
    config_digest(c, digest);
    assert(strlen(digest) == CONFIG_DIGEST_SIZE - 1);
    config_job_defaults(c, &defaults);
    (void)config_store_driver(c, &options);
    config_diff(c, c, count_difference, &differences);
    assert(differences == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[40];
    struct config *c;
    struct option_errors errors = {0};
    struct err e = {0};
    int fd = memfd_create("config", 0);
    assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (config_load(path, NULL, 0, NULL, &c, &errors, &e) == 0) {
        check(c);
        config_free(c);
    } else {
        assert(e.text[0] && errors.lines.count > 0);
    }
    option_errors_fini(&errors);
    close(fd);
    return 0;
}
