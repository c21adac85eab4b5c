/* A YAML file as a tree that remembers the line of each node, so that errors can name it. Limits: size, depth, nodes,
 * no aliases or anchors, no tags but !!str !!map !!seq, one document, no duplicate keys, strict UTF-8. Any thread. */
#ifndef CARILLON_BASE_YAML_TREE_H
#define CARILLON_BASE_YAML_TREE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

#define YAML_TREE_SIZE_MAX  ((size_t)4 << 20)
#define YAML_TREE_DEPTH_MAX 32
#define YAML_TREE_NODES_MAX 200000

enum yaml_kind { YAML_SCALAR, YAML_MAP, YAML_LIST, YAML_KIND_COUNT_ };

/* Read-only for callers; lives as long as its tree. */
struct yaml_node {
    enum yaml_kind kind;
    unsigned line;           /* from 1 */
    bool plain;              /* a scalar without quotes: may mean null, a number or a boolean */
    const char *text;        /* scalar, NUL-terminated, no NUL inside */
    size_t text_len;         /* bytes of text */
    size_t count;            /* entries of a map or list */
    const char **keys;       /* of a map */
    unsigned *key_lines;     /* of a map */
    struct yaml_node *items; /* values, in the order of the file */
};

struct yaml_tree;

/* Parse TEXT; NAME (copied) stands in errors: "carillon.yaml:12: …". An empty text is an empty map. ERR_INVALID,
 * ERR_TOO_BIG (a limit above), ERR_NOMEM. */
int yaml_tree_read(const char *name, const char *text, size_t len, struct yaml_tree **ret, struct err *e);
/* As yaml_tree_read for text of several documents ("---"): RET_COUNT trees in one array for mem_free, each for
 * yaml_tree_free, at most DOCUMENTS_MAX (ERR_TOO_BIG). Empty documents are left out. */
int yaml_tree_read_all(const char *name, const char *text, size_t len, size_t documents_max,
                       struct yaml_tree ***ret, size_t *ret_count, struct err *e);
void yaml_tree_free(struct yaml_tree *t);
DEFINE_AUTO(yaml_tree_free, struct yaml_tree *);

const struct yaml_node *yaml_tree_root(const struct yaml_tree *t);
const char *yaml_tree_name(const struct yaml_tree *t);

/* Value of KEY in a map; NULL when absent or not a map. Linear. */
const struct yaml_node *yaml_node_get(const struct yaml_node *n, const char *key);
/* A plain empty scalar, ~ or null. */
bool yaml_node_is_null(const struct yaml_node *n);
/* "a text", "a map", "a list", "nothing": for errors. */
const char *yaml_node_kind_name(const struct yaml_node *n);

/* As JSON by the YAML 1.2 core schema: plain null, true/false, integers (int64) and floats (finite) get their type, all
 * else is a string. New reference. ERR_INVALID: a number out of range, with file and line. ERR_NOMEM. */
int yaml_tree_to_json(const struct yaml_tree *t, json_t **ret, struct err *e);

#endif
