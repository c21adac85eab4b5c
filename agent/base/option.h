/* Options as rows: a table says for each key its type, place in a struct, default, limits and help. From the table a
 * struct is filled (defaults < file < environment < --set), printed, documented and compared for a reload. Lists of
 * errors are collected in full: each names where the value came from, the key, what is wrong and what is allowed.
 * Start and reload only; one thread at a time per struct. */
#ifndef CARILLON_BASE_OPTION_H
#define CARILLON_BASE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/base/yaml_tree.h"

struct option_errors;

enum option_type {                   /* field that the row's offset names: */
                   OPTION_BOOL,      /* bool */
                   OPTION_INT,       /* int64_t, min..max */
                   OPTION_DOUBLE,    /* double, min..max */
                   OPTION_DURATION,  /* uint64_t ms, min..max */
                   OPTION_SIZE,      /* uint64_t bytes, min..max */
                   OPTION_STRING,    /* char *, min..max bytes (0..4096); NULL = not given, never empty */
                   OPTION_PATH,      /* char *, as STRING, up to 4095 bytes */
                   OPTION_ENUM,      /* unsigned, index into allowed[] */
                   OPTION_HOST_PORT, /* char *: "host:port" */
                   OPTION_STRING_LIST, /* struct option_list, at most max items of 1..1024 bytes; file: list or one text;
                                   environment and --set: separated by commas */
                   OPTION_LISTEN_LIST, /* struct option_list of "host:port" (port 0 = any free one) or "unix:/path" */
                   OPTION_TYPE_COUNT_
};

enum {
    OPTION_RELOAD = 1, /* SIGHUP applies it */
    OPTION_SECRET = 2, /* printed as "***" */
};

struct option_list {
    char **items;
    size_t count;
};

/* One key. Rows of a table stand in the order in which they are documented; rows of one section stand together. */
struct option_row {
    /* dotted, "store.mysql.host"; inside a group's table relative: "policy", "outlier.interval" */
    const char *key;
    enum option_type type;
    unsigned flags;
    size_t offset;              /* of the field in the struct */
    const char *def;            /* text as in --set; NULL = not given (NULL, empty list, 0, false) */
    double min, max;            /* inclusive, in the field's unit; both 0 = the type's own range */
    const char *const *allowed; /* OPTION_ENUM: names, NULL-terminated */
    const char *help;           /* one or more sentences, no newline */
    /* Further check, e.g. of a list item or a URL; may be NULL. TEXT is the value as text (one item of a list). */
    int (*check)(const char *text, struct err *e);
};

/* A key of a group's entries that rows cannot express, as documentation shows it. */
struct option_extra {
    const char *key;
    const char *allowed; /* for people, as "a list of host:port" */
    const char *help;
    const char *sample; /* a value as YAML */
    unsigned flags;
};

/* A section whose second level users name: services.<name>.… Each name gets its own zero-initialised struct. */
struct option_group {
    const char *section;           /* "services" */
    const struct option_row *rows; /* ends with key == NULL */
    size_t size_bytes;             /* of the struct; it begins with char *name, filled by us */
    size_t offset;                 /* of the struct option_group_items in the main struct */
    size_t items_max;
    /* The name of an entry, NULL = any 1-63 of [A-Za-z0-9._-]. */
    int (*check_name)(const char *name, struct err *e);
    const char *help; /* shown above the sample */
    /* Reads keys that rows cannot express (e.g. lists of maps) from the file's node for the entry; may be NULL.
     * Keys it takes are listed in extras (ends with key == NULL). FILE is for errors; add problems with
     * option_error_add. ERR_NOMEM only. */
    const struct option_extra *extras;
    int (*read_extra)(void *item, const char *key, const struct yaml_node *n, const char *file,
                      struct option_errors *errors, struct err *e);
    void (*fini_extra)(void *item); /* frees what read_extra stored; may be NULL */
};

/* Pointers to structs of the group's kind, sorted by name. */
struct option_group_items {
    void **items;
    size_t count;
};

struct option_table {
    const struct option_row *rows;     /* ends with key == NULL */
    const struct option_group *groups; /* ends with section == NULL; may be NULL */
    size_t size_bytes;                 /* of the struct */
    const char *env_prefix;            /* "CARILLON" */
    /* Comment of a section in the sample: pairs section, text; ends with NULL. May be NULL. */
    const char *const *section_help;
};

/* Errors found, one line each: "carillon.yaml:12: store.batch_rows: 0 is out of range, allowed are 1 to 10000". */
#define OPTION_ERRORS_MAX 100
struct option_errors {
    struct option_list lines;
    size_t dropped;
};
void option_errors_fini(struct option_errors *errors);
static inline void option_errors_fini_auto_(struct option_errors *errors)
{
    option_errors_fini(errors);
}
/* ERR_NOMEM. */
int option_error_add(struct option_errors *errors, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct option_sources {
    const struct yaml_tree *file; /* may be NULL */
    const char *const *env;       /* "NAME=value", NULL-terminated (environ); may be NULL */
    const char *const *sets;      /* "section.key=value" */
    size_t sets_count;
};

/* Fill CONFIG (size_bytes of T, uninitialised) from the sources. All problems go to ERRORS (initialised to zero) and the
 * call then fails with ERR_INVALID and the first of them; ERR_NOMEM. On failure CONFIG holds nothing to free.
 * Unknown keys are problems, with the nearest known key. So are unknown variables whose first word is a section
 * (CARILLON_STORE_DRIVE), but for those that Kubernetes makes up for a Service named like a section ("…_SERVICE_HOST",
 * "…_PORT=tcp://…"). In names of entries a variable has '_' for '.' and '-'; it can change an entry of the file, not
 * make one. An empty text and a key without value mean "not given" or the default. */
int option_fill(const struct option_table *t, const struct option_sources *src, void *config,
                struct option_errors *errors, struct err *e);
/* Free what the struct's fields own and zero it. */
void option_fini(const struct option_table *t, void *config);

/* The row of a dotted key ("services.x.policy" too), or NULL. */
const struct option_row *option_find(const struct option_table *t, const char *key);
/* Whether the fields of ROW are equal in two structs of the row's kind. */
bool option_equal(const struct option_row *row, const void *a, const void *b);
/* Exchange the values of ROW between two structs of the row's kind. */
void option_swap(const struct option_row *row, void *a, void *b);
/* Call FN for each row whose value differs between two filled structs (a service that is only in one counts as
 * differing, once, with row NULL). KEY is valid during the call. Cannot fail. */
typedef void option_diff_fn(void *arg, const char *key, const struct option_row *row);
void option_diff(const struct option_table *t, const void *a, const void *b, option_diff_fn *fn, void *arg);

/* The value of ROW as text as --set takes it, secrets as "***"; "" when not given. */
void option_print_value(const struct option_row *row, const void *config, struct buf *out);
/* All effective values as YAML that option_fill reads back to an equal struct (secrets excepted). */
void option_print_config(const struct option_table *t, const void *config, struct buf *out);
/* The commented sample: every option at its default with its help, type, what is allowed and its variable. Reading it
 * gives the defaults. */
void option_print_sample(const struct option_table *t, struct buf *out);
/* A line per option: key, type and range, default, reloadable, help; tab separated with a head line. */
void option_print_rows(const struct option_table *t, struct buf *out);
/* "1 to 10000", "one of consul, standalone": what ROW allows, for people. */
void option_print_allowed(const struct option_row *row, struct buf *out);

#endif
