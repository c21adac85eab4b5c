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
#define API_AT_MAX      40 /* with NUL */
#define API_CURSOR_SIZE 512

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

/* A place in a search of fires: first the booked ones, newest first, then job by job those that succeeded at once. */
struct api_fire_cursor {
    bool in_rings;
    int64_t due_ms;               /* of the booked one behind which the list goes on */
    struct uid uid;               /* its job; in rings: the job in which the list goes on behind SEQ ... */
    uint64_t seq;                 /* ... 0: with the job's newest */
    char after_id[RECORD_ID_MAX]; /* in rings: the job before that one, "": the first */
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
    char fire_key[64]; /* of a keyed route, "" none; not checked here */

    char prefix[RECORD_ID_MAX]; /* "": none */
    struct api_label labels[API_LABELS_MAX];
    size_t labels_count;
    int state;        /* -1: any */
    int last_outcome; /* -1: any */
    uint32_t limit;
    uint32_t count;
    int64_t from_ms;                  /* RECORD_NONE: now */
    int64_t to_ms;                    /* RECORD_NONE: open */
    char at[API_AT_MAX];              /* "": none; an instant, local time or date: its zone is the job's */
    char job[RECORD_ID_MAX];          /* "": any */
    char service[RECORD_SERVICE_MAX]; /* "": any */
    int outcome;                      /* -1: any */
    uint64_t window_ms;               /* 0: not said */
    uint64_t step_ms;                 /* 0: not said */
    uint32_t rate;                    /* per second; 0: not said */
    bool dry_run;
    bool all;
    bool has_cursor;
    char after_ns[RECORD_NS_MAX]; /* cursor of jobs */
    char after_id[RECORD_ID_MAX];
    uint64_t before_seq;                /* cursor of fires; 0: the newest */
    struct api_fire_cursor fires_after; /* cursor of a search */
    int64_t before_ms;                  /* cursor of revisions */
    uint64_t before_change;

    bool if_match;
    struct uid match_uid;
    uint64_t match_version; /* 0: whichever there is */
    bool if_none_match;     /* "*" */
    char none_match[256];   /* GET: If-None-Match as it came; "" none */
    char key[API_KEY_MAX];  /* Idempotency-Key, "" none */
    bool body_is_json;      /* a content type was given and is one that the route takes */
};

/* Read HEAD into RET. 0, or -ERR_INVALID with the reason in PROBLEM (all errors of the query at once); RET then holds what
 * was understood, its route NULL when that is what failed. */
int api_request_read(const struct api_head *head, const struct api_rules *rules, struct api_request *ret,
                     struct api_problem *problem);

/* Cursors as clients get them: opaque, URL-safe text. */
void api_cursor_print(const char *ns, const char *id, char ret[API_CURSOR_SIZE]);
bool api_cursor_parse(const char *text, char ret_ns[RECORD_NS_MAX], char ret_id[RECORD_ID_MAX]);

void api_fire_cursor_print(const char *ns, const struct api_fire_cursor *c, char ret[API_CURSOR_SIZE]);
bool api_fire_cursor_parse(const char *text, char ret_ns[RECORD_NS_MAX], struct api_fire_cursor *ret);
#define API_REVISION_CURSOR_SIZE 48
void api_revision_cursor_print(int64_t at_ms, uint64_t change_id, char ret[API_REVISION_CURSOR_SIZE]);
bool api_revision_cursor_parse(const char *text, int64_t *ret_at_ms, uint64_t *ret_change_id);

/* "<uid>.<version>" with its quotes. */
#define API_ETAG_SIZE 64
/* What If-Match asks for. */
enum api_match {
    API_MATCH_ONE,   /* the ETag of a job */
    API_MATCH_ANY,   /* "*": whichever there is; RET_VERSION is 0, as no job's */
    API_MATCH_NONE,  /* an ETag that no job ever had, or a weak one */
    API_MATCH_BROKEN /* no single ETag */
};
enum api_match api_match_parse(const char *text, struct uid *ret_uid, uint64_t *ret_version);
void api_etag_print(const struct uid *uid, uint64_t version, char ret[API_ETAG_SIZE]);

/* The value of the only cookie-less check that a browser cannot pass: see api_request_read. Exposed for its tests. */
bool api_host_allowed(const char *host, const struct api_rules *rules);

#endif
