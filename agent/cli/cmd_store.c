/* Data folders of stopped agents. */
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/base/mem.h"
#include "agent/cli/commands.h"
#include "agent/cli/load.h"
#include "agent/cli/show.h"
#include "agent/store/raft/folder_read.h"
#include "agent/store/raft/machine.h"

/* --- check --------------------------------------------------------------------------------------------------------- */

#define PROBLEMS_SHOWN 50
/* Of the log, under agent.data_dir, unless store.raft.dir says another. */
#define DEFAULT_FOLDER "raft"

struct check_problems {
    const struct cli *cli;
    bool json;
    json_t *list; /* with JSON */
    size_t count;
};

static void on_problem(void *arg, const char *text)
{
    struct check_problems *p = arg;
    if (++p->count > PROBLEMS_SHOWN)
        return;
    AUTO(mem_free) char *clean = show_clean(text, false);
    if (p->json)
        show_append(p->list, json_string(clean));
    else
        (void)fprintf(p->cli->out, "problem: %s\n", clean);
}

static void print_seen(const struct cli *cli, const char *dir, const struct machine *m,
                       const struct folder_seen *s)
{
    const struct store_meta *meta = machine_meta(m);
    struct machine_counts n;
    machine_count(m, &n);
    (void)fprintf(
        cli->out,
        "%s: cluster %s, %zu jobs, %zu fires (%zu dead letters), %zu revisions, %zu members, %u slots\n"
        "%zu snapshots, %zu closed and %zu open segments, %.1f MiB; log up to %llu, %llu entries behind "
        "the newest snapshot\n",
        dir, meta->cluster, n.jobs, n.fires, n.dead_letters, n.revisions, n.members, meta->slots,
        s->snapshots, s->closed, s->open, (double)s->bytes / 1048576, (unsigned long long)s->last_index,
        (unsigned long long)s->entries);
    if (s->cut_short)
        (void)fprintf(cli->out,
                      "the last write was cut short by a crash; nobody was told that it was done\n");
}

static void print_check_json(const struct cli *cli, const char *dir, const struct machine *m,
                             const struct folder_seen *s, const struct check_problems *p)
{
    struct machine_counts n;
    machine_count(m, &n);
    json_t *o =
        json_pack("{s:s,s:b,s:I,s:O,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "dir", dir, "ok", p->count == 0,
                  "problems_count", (json_int_t)p->count, "problems", p->list, "jobs", (json_int_t)n.jobs,
                  "fires", (json_int_t)n.fires, "dead_letters", (json_int_t)n.dead_letters, "revisions",
                  (json_int_t)n.revisions, "members", (json_int_t)n.members, "bytes", (json_int_t)s->bytes,
                  "last_index", (json_int_t)s->last_index, "entries", (json_int_t)s->entries);
    show_json(cli->out, o);
    json_decref(o);
}

/* Reads the folder that is locked. */
static int look(struct check_problems *p, const char *dir)
{
    struct folder_seen seen = {0};
    struct err e = {0};
    struct machine *m = machine_new();
    int r = folder_read(dir, m, false, on_problem, p, &seen, &e);
    if (r == 0)
        r = machine_audit(m, on_problem, p, &e);
    if (r == 0 || r == -ERR_PROTOCOL) {
        if (p->json)
            print_check_json(p->cli, dir, m, &seen, p);
        else if (r == 0)
            print_seen(p->cli, dir, m, &seen);
    }
    machine_free(m);
    if (r == -ERR_NOT_FOUND)
        return cli_fail(p->cli, CLI_NOT_FOUND, "%s", e.text);
    if (r < 0 && r != -ERR_PROTOCOL)
        return cli_fail(p->cli, CLI_FAILED, "%s", e.text);
    if (p->count == 0) {
        if (!p->json)
            (void)fprintf(p->cli->out, "ok\n");
        return CLI_OK;
    }
    (void)cli_fail(p->cli, CLI_FAILED, "%zu problems in %s", p->count, dir); /* what follows is returned */
    cli_hint(p->cli,
             "an agent must not run on this folder: put a copy of it back, or move it away to begin empty");
    return CLI_FAILED;
}

static int check_locked(struct cli *cli, const struct cli_args *args, const char *dir)
{
    struct check_problems p = {.cli = cli, .json = args_has(args, "--json")};
    struct err e = {0};
    AUTO(fd_close) int fd = -1;
    int r = folder_lock_existing(dir, &fd, &e);
    if (r < 0)
        return cli_fail(cli, r == -ERR_NOT_FOUND ? CLI_NOT_FOUND : CLI_FAILED, "%s", e.text);
    p.list = p.json ? json_array() : NULL; /* without memory nothing of it is shown, which cli_run() tells */
    int code = look(&p, dir);
    json_decref(p.list);
    return code;
}

/* An agent.data_dir is taken for the log's folder in it, which is what is meant. */
static int check_given(struct cli *cli, const struct cli_args *args, const char *dir)
{
    AUTO(buf_fini) struct buf inner = BUF_INIT(PATH_MAX);
    struct err e;
    buf_addf(&inner, "%s/" DEFAULT_FOLDER, dir);
    if (buf_check(&inner, &e) < 0)
        return cli_fail(cli, CLI_FAILED, "%s", e.text);
    return check_locked(cli, args, access(buf_str(&inner), F_OK) == 0 ? buf_str(&inner) : dir);
}

int cmd_store_check(struct cli *cli, const struct cli_args *args)
{
    const char *sets[ARGS_MAX];
    int code;
    if (args->count > 0)
        return check_given(cli, args,
                           strncmp(args->items[0], "raft:", 5) == 0 ? args->items[0] + 5 : args->items[0]);
    size_t sets_count = load_sets(args, sets);
    AUTO(config_free)
    struct config *c = load_config(cli, args_get(args, "--config"), sets, sets_count, &code);
    return c ? check_locked(cli, args, c->store.raft.dir) : code;
}
