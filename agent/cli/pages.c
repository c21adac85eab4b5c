#include "agent/cli/pages.h"

#include "agent/cli/client.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 16384
#define LIMIT_DEFAULT  100
#define LIMIT_MAX      1000000000
#define PAGE_MAX       1000

static void pages_fini(struct pages *p)
{
    json_decref(p->items);
    json_decref(p->page);
}

void pages_add_limit(struct buf *out, const struct pages *p)
{
    char number[24];
    uint64_t left = p->limit ? p->limit - json_array_size(p->items) : PAGE_MAX;
    (void)snprintf(number, sizeof(number), "%llu",
                   (unsigned long long)(left < PAGE_MAX ? left : PAGE_MAX)); /* 20 digits fit */
    client_query(out, "limit", number);
}

void pages_hint_more(const struct cli *cli, const struct pages *p)
{
    if (p->go_on)
        cli_hint(cli, "there are more than %zu; --limit 0 lists all", json_array_size(p->items));
}

static int read_page(const struct cli *cli, struct client *c, const struct cli_args *args, struct pages *p,
                     pages_path *make_path)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    json_t *page = NULL;
    make_path(&path, args, p);
    int code = client_ask(c, "GET", client_path_text(&path), NULL, &page);
    if (code != CLI_OK)
        return code;
    json_decref(p->page);
    p->page = page;
    p->go_on = json_string_value(json_object_get(page, p->next));
    if (json_array_extend(p->items, json_object_get(page, p->list)) < 0)
        return cli_fail(cli, CLI_FAILED, "no memory for all of %s, or the answer has none", p->list);
    return CLI_OK;
}

static int read_pages(struct cli *cli, const struct cli_args *args, struct pages *p, pages_path *make_path)
{
    int code;
    AUTO(client_free) struct client *c = client_open(cli, args);
    if (!c)
        return CLI_USAGE;
    do
        code = read_page(cli, c, args, p, make_path);
    while (code == CLI_OK && p->go_on && (p->limit == 0 || json_array_size(p->items) < p->limit));
    return code;
}

int pages_list(struct cli *cli, const struct cli_args *args, const char *list, const char *next,
               pages_path *path, pages_print *print)
{
    struct err e;
    struct pages p = {.list = list, .next = next, .limit = LIMIT_DEFAULT};
    if (args_u64(args, "--limit", 0, LIMIT_MAX, &p.limit, &e) < 0)
        return cli_fail(cli, CLI_USAGE, "%s", e.text);
    p.items = json_array();
    int code = read_pages(cli, args, &p, path);
    if (code == CLI_OK && args_has(args, "--json")) {
        if (json_object_set(p.page, list, p.items) < 0)
            show_set_lost();
        show_json(cli->out, p.page);
    } else if (code == CLI_OK) {
        print(cli, &p);
    }
    pages_fini(&p);
    return code;
}
