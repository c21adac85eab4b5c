/* A request's head, read: route, namespace, path argument, query, conditions, and the rules that keep other programs of the
 * machine and web pages out. No I/O. Any thread. */
#ifndef CARILLON_AGENT_API_REQUEST_H
#define CARILLON_AGENT_API_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/api/problem.h"
#include "agent/api/route.h"
#include "agent/base/option.h"
#include "agent/core/record.h"

#define API_LABELS_MAX  8
#define API_LABEL_NAME  64  /* with NUL */
#define API_LABEL_VALUE 257 /* with NUL */
#define API_KEY_MAX     256 /* with NUL */
#define API_LIMIT_MAX   1000
#define API_CURSOR_SIZE 400

enum api_face { API_FACE_TCP, API_FACE_UNIX, API_FACE_OPS, API_FACE_PEER };

/* What came in, borrowed. PATH and QUERY are as sent; HEADER looks a name up, ignoring case, NULL: absent. */
struct api_head {
    const char *method;
    const char *path;
    const char *query;
    const char *(*header)(const void *arg, const char *name);
    const void *arg;
    enum api_face face;
};

/* What Host may be beside loopback; both may be empty. */
struct api_rules {
    const struct option_list *hosts;
    const struct option_list *listen;
};

struct api_label {
    char name[API_LABEL_NAME];
    char value[API_LABEL_VALUE];
};

struct api_request {
    const struct api_route *route;
    enum api_face face;
    bool head; /* HEAD: the reply's body is not sent */
    char ns[RECORD_NS_MAX];
    bool ns_all;
    char arg[256]; /* decoded: a checked id, a fire id, a service's name, the rest of a peer's path */
    struct uid fire_uid;
    uint64_t fire_seq;

    char prefix[RECORD_ID_MAX]; /* "": none */
    struct api_label labels[API_LABELS_MAX];
    size_t labels_count;
    int state;        /* -1: any */
    int last_outcome; /* -1: any */
    uint32_t limit;
    uint32_t count;
    int64_t from_ms; /* RECORD_NONE: now */
    bool dry_run;
    bool all;
    bool has_cursor;
    char after_ns[RECORD_NS_MAX]; /* cursor of jobs */
    char after_id[RECORD_ID_MAX];
    uint64_t before_seq; /* cursor of fires; 0: the newest */

    bool if_match;
    struct uid match_uid;
    uint64_t match_version;
    bool if_none_match;       /* "*" */
    char none_match_etag[64]; /* GET: "" none */
    char key[API_KEY_MAX];    /* Idempotency-Key, "" none */
    bool body_is_json;        /* a content type was given and is one that the route takes */
};

/* Read HEAD into RET. 0, or -ERR_INVALID with the reason in PROBLEM (all errors of the query at once); RET then holds what
 * was understood, its route NULL when that is what failed. */
int api_request_read(const struct api_head *head, const struct api_rules *rules, struct api_request *ret,
                     struct api_problem *problem);

/* Cursors as clients get them: opaque, URL-safe text. */
void api_cursor_print(const char *ns, const char *id, char ret[API_CURSOR_SIZE]);
bool api_cursor_parse(const char *text, char ret_ns[RECORD_NS_MAX], char ret_id[RECORD_ID_MAX]);

/* "<uid>.<version>" with its quotes. */
#define API_ETAG_SIZE 64
/* One of ours, with its quotes; any other text: false. */
bool api_etag_parse(const char *text, struct uid *ret_uid, uint64_t *ret_version);
void api_etag_print(const struct uid *uid, uint64_t version, char ret[API_ETAG_SIZE]);

/* The value of the only cookie-less check that a browser cannot pass: see api_request_read. Exposed for its tests. */
bool api_host_allowed(const char *host, const struct api_rules *rules);

#endif
