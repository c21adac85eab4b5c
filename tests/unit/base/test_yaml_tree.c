#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/rng.h"
#include "agent/base/yaml_tree.h"

static struct yaml_tree *tree(const char *text)
{
    struct yaml_tree *t = NULL;
    struct err e = {0};
    cr_assert(zero(int, yaml_tree_read("f.yaml", text, strlen(text), &t, &e)), "%s", e.text);
    return t;
}

static void check_refused(const char *text, int code, const char *message)
{
    struct yaml_tree *t = NULL;
    struct err e = {0};
    int r = yaml_tree_read("f.yaml", text, strlen(text), &t, &e);
    cr_assert(eq(int, r, -code), "'%s': %d %s", text, r, e.text);
    cr_assert(t == NULL);
    cr_assert(eq(str, e.text, (char *)message));
}

Test(yaml_tree, nodes_remember_their_lines)
{
    AUTO(yaml_tree_free) struct yaml_tree *t = tree("# head\na: 1\nb:\n  - x\n  - y: 'z'\n\nc: {d: e}\n");
    const struct yaml_node *root = yaml_tree_root(t);
    cr_assert(eq(sz, root->count, 3));
    cr_assert(eq(uint, yaml_node_get(root, "a")->line, 2));
    const struct yaml_node *b = yaml_node_get(root, "b");
    cr_assert(b->kind == YAML_LIST && b->count == 2);
    cr_assert(eq(uint, b->items[1].line, 5));
    const struct yaml_node *y = yaml_node_get(&b->items[1], "y");
    cr_assert(eq(str, (char *)y->text, "z"));
    cr_assert(not(y->plain));
    cr_assert(eq(uint, root->key_lines[2], 7));
    cr_assert(eq(str, (char *)yaml_tree_name(t), "f.yaml"));
    cr_assert(yaml_node_get(root, "x") == NULL);
    cr_assert(yaml_node_get(b, "x") == NULL);
}

Test(yaml_tree, nothing_is_an_empty_map)
{
    static const char *const empty[] = {"", "# only a comment\n", "---\n", "~", "--- null\n...\n"};
    for (size_t k = 0; k < sizeof(empty) / sizeof(empty[0]); k++) {
        AUTO(yaml_tree_free) struct yaml_tree *t = tree(empty[k]);
        cr_assert(yaml_tree_root(t)->kind == YAML_MAP && yaml_tree_root(t)->count == 0, "%s", empty[k]);
    }
}

Test(yaml_tree, what_is_not_supported_is_refused_with_its_line)
{
    check_refused("a: 1\nb: *x\n", ERR_INVALID, "f.yaml:2: aliases are not supported");
    check_refused("a: &x 1\n", ERR_INVALID, "f.yaml:1: anchors are not supported");
    check_refused("\n\na: !foo 1\n", ERR_INVALID, "f.yaml:3: the tag '!foo' is not supported");
    check_refused("a: 1\nb: 2\na: 3\n", ERR_INVALID, "f.yaml:3: the key 'a' stands here twice");
    check_refused("? [a]\n: 1\n", ERR_INVALID, "f.yaml:1: a key must be a text");
    check_refused("a: \"x\\0y\"\n", ERR_INVALID, "f.yaml:1: a text contains a NUL character");
    check_refused("a: 1\n---\nb: 2\n", ERR_TOO_BIG, "f.yaml:3: more than 1 document");
    check_refused("a: \xff\n", ERR_INVALID, "f.yaml: not UTF-8");
    check_refused("a: 1\n b: 2\n", ERR_INVALID, "f.yaml:2: mapping values are not allowed in this context");
    check_refused("a: [1\n", ERR_INVALID, "f.yaml:2: did not find expected ',' or ']'");
    check_refused("a:\n\t- b\n", ERR_INVALID, "f.yaml:2: found character that cannot start any token");
}

Test(yaml_tree, depth_size_and_count_have_limits)
{
    char deep[100] = {0};
    memset(deep, '[', YAML_TREE_DEPTH_MAX);
    memset(deep + YAML_TREE_DEPTH_MAX, ']', YAML_TREE_DEPTH_MAX);
    yaml_tree_free(tree(deep));
    memset(deep, '[', YAML_TREE_DEPTH_MAX + 1);
    memset(deep + YAML_TREE_DEPTH_MAX + 1, ']', YAML_TREE_DEPTH_MAX + 1);
    check_refused(deep, ERR_TOO_BIG, "f.yaml:1: nested deeper than 32 levels");

    size_t big = YAML_TREE_SIZE_MAX + 1;
    AUTO(mem_free) char *text = mem_new_array(char, big + 1);
    memset(text, '[', big);
    struct yaml_tree *t = NULL;
    cr_assert(eq(int, yaml_tree_read("f", text, big, &t, NULL), -ERR_TOO_BIG));
    cr_assert(eq(int, yaml_tree_read("f", text, big - 1, &t, NULL), -ERR_TOO_BIG));
    for (size_t i = 0; i < big; i += 2)
        memcpy(text + i, "- ", 2);
    text[0] = '[';
    for (size_t i = 1; i + 1 < 500000; i += 2)
        memcpy(text + i, "a,", 2);
    text[500000] = ']';
    struct err e;
    cr_assert(eq(int, yaml_tree_read("f", text, 500001, &t, &e), -ERR_TOO_BIG));
    cr_assert(eq(str, e.text, "f:1: more than 200000 values"));
}

Test(yaml_tree, big_maps_are_read_in_linear_time)
{
    struct buf text = BUF_INIT(YAML_TREE_SIZE_MAX);
    for (int i = 0; i < 90000; i++)
        buf_addf(&text, "key-%d: value\n", i);
    AUTO(yaml_tree_free) struct yaml_tree *t = NULL;
    cr_assert(zero(int, yaml_tree_read("f", text.data, text.len, &t, NULL)));
    cr_assert(eq(sz, yaml_tree_root(t)->count, 90000));
    buf_fini(&text);
}

Test(yaml_tree, several_documents)
{
    const char *text = "a: 1\n---\n# nothing\n---\n- b\n---\nc\n";
    struct yaml_tree **trees = NULL;
    size_t count = 0;
    cr_assert(zero(int, yaml_tree_read_all("f", text, strlen(text), 3, &trees, &count, NULL)));
    cr_assert(eq(sz, count, 3));
    cr_assert(yaml_tree_root(trees[1])->kind == YAML_LIST);
    cr_assert(eq(uint, yaml_tree_root(trees[2])->line, 7));
    for (size_t i = 0; i < count; i++)
        yaml_tree_free(trees[i]);
    mem_free(trees);
    cr_assert(eq(int, yaml_tree_read_all("f", text, strlen(text), 2, &trees, &count, NULL), -ERR_TOO_BIG));
}

static void check_json(const char *yaml, const char *json)
{
    AUTO(yaml_tree_free) struct yaml_tree *t = tree(yaml);
    AUTO(json_decref) json_t *v = NULL;
    struct err e = {0};
    cr_assert(zero(int, yaml_tree_to_json(t, &v, &e)), "%s: %s", yaml, e.text);
    AUTO(buf_fini) struct buf out = BUF_INIT(1000);
    cr_assert(zero(int, json_print_ordered(v, &out, NULL)));
    cr_assert(eq(str, (char *)buf_str(&out), (char *)json));
}

Test(yaml_tree, plain_scalars_get_the_types_of_the_core_schema)
{
    check_json("[1, -2, +3, 007, 0, -0]", "[1,-2,3,7,0,0]");
    check_json("[1.5, .5, 5., 1e3, -0.25, +1.0E-2, 007.5]", "[1.5,0.5,5.0,1000.0,-0.25,0.01,7.5]");
    check_json("[true, False, TRUE, null, ~, Null]", "[true,false,true,null,null,null]");
    check_json("['1', \"true\", '', !!str 5, yes, no, on, 1.2.3, 0x10, 1_000, 1e, '~']",
               "[\"1\",\"true\",\"\",\"5\",\"yes\",\"no\",\"on\",\"1.2.3\",\"0x10\",\"1_000\",\"1e\",\"~\"]");
    check_json("a: {b: [c, {d: }]}\n'1': |\n  text\n",
               "{\"a\":{\"b\":[\"c\",{\"d\":null}]},\"1\":\"text\\n\"}");
    check_json("9223372036854775807", "9223372036854775807");
}

Test(yaml_tree, numbers_out_of_range_are_refused_with_their_line)
{
    static const char *const bad[] = {"a:\n- 9223372036854775808", "a:\n- 1e999", "a:\n- -1e400"};
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        AUTO(yaml_tree_free) struct yaml_tree *t = tree(bad[k]);
        json_t *v = NULL;
        struct err e = {0};
        cr_assert(eq(int, yaml_tree_to_json(t, &v, &e), -ERR_INVALID));
        cr_assert(v == NULL);
        cr_assert(zero(int, strncmp(e.text, "f.yaml:2: ", 10)), "%s", e.text);
    }
}

Test(yaml_tree, every_failure_is_clean)
{
    const char *text = "a: 1\nb:\n  - x\n  - {y: z, w: [1, 2, 3, 4, 5, 6]}\nc: d\ne: f\ng: h\n";
    for (unsigned k = 0;; k++) {
        struct yaml_tree *t = NULL;
        json_t *v = NULL;
        struct err e = {0};
        fault_arm(k);
        int r = yaml_tree_read("f", text, strlen(text), &t, &e);
        if (r == 0)
            r = yaml_tree_to_json(t, &v, &e);
        bool fired = fault_fired();
        yaml_tree_free(t);
        if (!fired) {
            cr_assert(zero(int, r));
            json_decref(v);
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u: %s", k, e.text);
        cr_assert(v == NULL);
    }
}
