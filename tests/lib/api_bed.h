/* An agent's API over store_mem, asked over its real listener from the test's own thread: the engine, the node, the API and
 * libmicrohttpd are the product's; engine_bed is what is around them. Time is real; the test waits by running the loop. */
#ifndef CARILLON_TESTS_LIB_API_BED_H
#define CARILLON_TESTS_LIB_API_BED_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/api/api.h"
#include "agent/node_private.h"
#include "tests/lib/engine_bed.h"

enum { API_BED_HEAD_MAX = 4096, API_BED_SETS_MAX = 4, API_BED_WAIT_MS = 60000 };

/* What was answered last. */
struct api_answer {
    int status; /* 0: the connection ended before a head came */
    bool whole; /* false: it was broken off */
    char head[API_BED_HEAD_MAX];
    char *body; /* NUL-terminated */
    size_t bytes;
};

struct api_bed {
    struct engine_bed engines;
    struct bed_agent *agent;
    struct config *config; /* the API's */
    struct node node;
    struct api *api;
    const char *authorization; /* with each request; NULL: none */
    int fd;                    /* the client's connection; -1: none */
    struct loop_fd *watch;
    char *in; /* what came of an answer */
    size_t in_bytes, in_size;
    bool ended; /* the connection */
    struct api_answer answer;
};

/* An agent that owns all slots. SETS (NULL-terminated, may be NULL): "section.key=value" of the API's configuration. */
void api_bed_open(struct api_bed *bed, const char *const *sets);
void api_bed_close(struct api_bed *bed);
/* The same configuration's API with a peers' listener if PEER, in the place of the one that is there. */
int api_bed_start(struct api_bed *bed, const char *peer, struct err *e);
void api_bed_stop(struct api_bed *bed);

/* HEADERS: whole lines with their ends, NULL: none. BODY may be NULL. The answer is the bed's, until the next request. */
const struct api_answer *api_bed_ask(struct api_bed *bed, const char *method, const char *target,
                                     const char *headers, const char *body);
/* A write with a JSON body (NULL: none), which must be answered with STATUS. */
const struct api_answer *api_bed_write(struct api_bed *bed, const char *method, const char *target,
                                       const char *body, int status);
/* Put a job ID that calls the bed's callee by SCHEDULE. */
void api_bed_put(struct api_bed *bed, const char *id, const char *schedule);
/* Until GET TARGET is answered with a body that has TEXT in it. */
void api_bed_until(struct api_bed *bed, const char *target, const char *text);

/* One request that is made again and again, with each fallible step of all threads failing in turn, until none is left. */
struct api_case {
    const char *method, *target;
    const char *headers, *body; /* as for api_bed_ask(); body without a content type is JSON */
    int status;                 /* without a fault */
    bool stream;                /* may also break off, or end with a line that says what is wrong */
    const char *varying;        /* members of the answer that differ from time to time, each between spaces */
    void (*before)(struct api_bed *bed); /* without faults, before each time; NULL: nothing */
    /* Without faults, after each time: is it in the store as it was answered? NULL: it changes nothing. */
    void (*after)(struct api_bed *bed, bool acknowledged);
};
/* Every answer is that of a request without a fault, whole, or a problem with a status from 500 on; and the request after it is
 * answered as the first was. Returns how many steps failed; fails the test if there was none. */
unsigned api_bed_under_faults(struct api_bed *bed, const struct api_case *c);
/* All of them, one after the other. */
void api_bed_run(struct api_bed *bed, const struct api_case *cases, size_t count);

#endif
