/* YAML of any kind: read, turned into JSON, and used to fill a struct of options. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "agent/base/json.h"
#include "agent/base/option.h"
#include "agent/base/yaml_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct config {
    int64_t number;
    char *text;
    struct option_list list;
    struct option_group_items items;
};
struct item {
    char *name;
    uint64_t wait_ms;
};

static const struct option_row rows[] = {
    {.key = "a.number",
     .type = OPTION_INT,
     .offset = offsetof(struct config, number),
     .def = "1",
     .min = 0,
     .max = 9},
    {.key = "a.b.text", .type = OPTION_STRING, .offset = offsetof(struct config, text)},
    {.key = "a.list", .type = OPTION_LISTEN_LIST, .offset = offsetof(struct config, list)},
    {0},
};
static const struct option_row item_rows[] = {
    {.key = "wait", .type = OPTION_DURATION, .offset = offsetof(struct item, wait_ms), .def = "1s"},
    {0},
};
static const struct option_group groups[] = {
    {.section = "s",
     .rows = item_rows,
     .size_bytes = sizeof(struct item),
     .offset = offsetof(struct config, items),
     .items_max = 10},
    {0},
};
static const struct option_table table = {
    .rows = rows, .groups = groups, .size_bytes = sizeof(struct config), .env_prefix = "X"};

static void fill(const struct yaml_tree *t)
{
    struct config c;
    AUTO(option_errors_fini) struct option_errors errors = {0};
    struct option_sources src = {.file = t};
    struct err e;
    if (option_fill(&table, &src, &c, &errors, &e) < 0)
        return;
    AUTO(buf_fini) struct buf out = BUF_INIT(16 << 20);
    option_print_config(&table, &c, &out);
    AUTO(yaml_tree_free) struct yaml_tree *again = NULL;
    struct config back;
    if (yaml_tree_read("printed", buf_str(&out), out.len, &again, &e) < 0)
        abort();
    src.file = again;
    if (option_fill(&table, &src, &back, &errors, &e) < 0)
        abort();
    for (const struct option_row *row = rows; row->key; row++)
        if (!option_equal(row, &c, &back))
            abort();
    option_fini(&table, &c);
    option_fini(&table, &back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    AUTO(yaml_tree_free) struct yaml_tree *t = NULL;
    AUTO(json_decref) json_t *v = NULL;
    struct err e;
    if (yaml_tree_read("fuzz", text, size, &t, &e) == 0) {
        (void)yaml_tree_to_json(t, &v, &e); /* numbers out of range may fail */
        fill(t);
    }
    struct yaml_tree **trees = NULL;
    size_t count = 0;
    if (yaml_tree_read_all("fuzz", text, size, 4, &trees, &count, &e) == 0) {
        for (size_t i = 0; i < count; i++)
            yaml_tree_free(trees[i]);
        mem_free(trees);
    }
    return 0;
}
