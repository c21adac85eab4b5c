/* The agent beside us is told by a signal: it needs neither a token nor a socket, and nobody outside of the container can send it. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/text.h"
#include "agent/cli/commands.h"

#define PID_MAX   ((uint64_t)4 << 20) /* of Linux */
#define NAME_SIZE 64
#define WAIT_MS   3600000u /* --wait is at most this */

/* Whether process PID runs our program, by whatever path. */
static bool runs_carillon(uint64_t pid)
{
    struct stat own, other;
    char path[NAME_SIZE];
    (void)snprintf(path, sizeof(path), "/proc/%llu/exe", (unsigned long long)pid);
    return stat("/proc/self/exe", &own) == 0 && stat(path, &other) == 0 && own.st_dev == other.st_dev &&
           own.st_ino == other.st_ino;
}

/* Whether what it runs is `carillon agent`: others would die of the signal. */
static bool is_agent(uint64_t pid)
{
    char path[NAME_SIZE], line[4096];
    if (!runs_carillon(pid))
        return false;
    (void)snprintf(path, sizeof(path), "/proc/%llu/cmdline", (unsigned long long)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t len = fread(line, 1, sizeof(line) - 1, f);
    (void)fclose(f); /* it was only read */
    line[len] = '\0';
    size_t first = strlen(line) + 1;
    return first < len && strcmp(line + first, "agent") == 0;
}

/* The only agent that this user sees. */
static int find_agent(uint64_t *ret, struct err *e)
{
    uint64_t pid, found = 0;
    int rc = 0;
    DIR *all = opendir("/proc");
    if (!all)
        return err_sys(e, errno, "open '/proc'");
    for (const struct dirent *d; rc == 0 && (d = readdir(all)) != NULL;) {
        if (text_u64(d->d_name, strlen(d->d_name), 1, PID_MAX, &pid, NULL) < 0 || !is_agent(pid))
            continue;
        if (found)
            rc = err_set(e, ERR_INVALID, "several agents run here, as %llu and %llu; name one by --pid",
                         (unsigned long long)found, (unsigned long long)pid);
        found = pid;
    }
    (void)closedir(all); /* it was only read */
    if (rc == 0 && !found)
        rc = err_set(e, ERR_NOT_FOUND, "no agent of this program and this user runs here");
    if (rc == 0)
        *ret = found;
    return rc;
}

int cmd_drain(struct cli *cli, const struct cli_args *args)
{
    uint64_t pid = 0, wait_ms = 0;
    struct err e = {0};
    int rc = args_u64(args, "--pid", 1, PID_MAX, &pid, &e);
    if (rc == 0)
        rc = args_duration_ms(args, "--wait", &wait_ms, &e);
    if (rc == 0 && wait_ms > WAIT_MS)
        rc = err_set(&e, ERR_INVALID, "--wait: at most 1h");
    if (rc < 0)
        return cli_fail(cli, CLI_USAGE, "%s", e.text);
    if (!pid)
        rc = find_agent(&pid, &e);
    else if (!is_agent(pid))
        rc = err_set(&e, ERR_NOT_FOUND, "process %llu is no agent of this program", (unsigned long long)pid);
    if (rc == 0 && kill((pid_t)pid, SIGUSR1) < 0)
        rc = err_sys(&e, errno, "signal process %llu", (unsigned long long)pid);
    if (rc < 0)
        return cli_fail(cli, rc == -ERR_NOT_FOUND ? CLI_NOT_FOUND : CLI_FAILED, "%s", e.text);
    (void)poll(NULL, 0, (int)wait_ms); /* only time can pass */
    return CLI_OK;
}
