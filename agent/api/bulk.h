/* Shared by bulk.c (reading, order, output) and bulk_send.c (to the owners); nobody else includes it. Loop thread unless a
 * function says otherwise. */
#ifndef CARILLON_AGENT_API_BULK_H
#define CARILLON_AGENT_API_BULK_H

#include "agent/api/api_private.h"
#include "agent/api/bulk_line.h"
#include "agent/base/map.h"

/* Lines read, sent and answered together. Those of a chunk are megabytes: few stay in the cache of who takes them from the reader, and
 * keep the loop from the next batch for a moment only. Many fill a call to a peer, of which they are the most. */
#define BULK_CHUNK_FEW   125
#define BULK_CHUNK_LINES 1000
#define BULK_CHUNKS_MAX  32 /* of few lines; under way at once */

struct bulk;
struct bulk_chunk;

struct bulk_item {
    struct bulk_line line;
    struct bulk_chunk *chunk;
    struct list link;       /* of the list that waits or is being sent */
    struct bulk_item *next; /* the next line of the same job: sent when this one is answered */
    char key[RECORD_NS_MAX + RECORD_ID_MAX];
    int64_t deadline_ms; /* 0: not sent yet */
    bool maybe_done;
};

struct bulk_chunk {
    struct list link;
    struct work work;
    struct bulk *bulk;
    struct bulk_item *items;
    size_t count;
    size_t open; /* not answered */
    bool is_read;
};

struct bulk {
    struct api *api;
    struct loop_msg msg;
    struct bulk_rules rules;
    struct tokens *tokens; /* of rules.who */
    struct api_context ctx;
    struct api_ids ids;
    struct rng rng; /* the worker's, while it reads */
    char ns[RECORD_NS_MAX];
    bool from_peer;
    bool routes; /* sends others' lines on */
    char *body;
    size_t body_bytes;
    size_t body_at; /* read so far; the worker's, while it reads */
    uint64_t lines;
    bool reading;
    bool read_all;
    bool cut_short;                           /* lines are left over: there is no last line of sums */
    size_t chunk_lines, chunks_max;           /* set when it begins */
    struct list chunks;                       /* in the order of the body */
    struct bulk_item *spare[BULK_CHUNKS_MAX]; /* items of chunks that are over, for the next */
    size_t spare_count;
    struct map last; /* key -> the last open item of that job */

    struct list ready; /* items whose predecessor was answered */
    struct list again; /* items that look for their owner again */
    struct api_wait wait;
    struct list reread; /* items that turned out to be ours */
    struct work reread_work;
    bool rereading;
    size_t calls; /* of peers, under way */

    struct httpd_stream *stream; /* NULL: nobody reads, results are only counted */
    struct buf out;
    bool gone; /* the client */
    atomic_bool room_posted;
    struct loop_msg room;
    uint64_t ok, failed;
    uint64_t absent;                               /* of the failed: 404 */
    uint64_t letters;                              /* dead letters changed */
    atomic_uint *counted;                          /* of the API, where it counts; NULL: nowhere */
    void (*done)(void *arg, const struct bulk *b); /* without stream */
    void *done_arg;
};

/* Send those of LIST to their owners, one by one or together. Takes all links out of LIST. */
void bulk_send(struct bulk *b, struct list *list);
/* ITEM's result is there; bulk_go_on() must follow. */
void bulk_item_answered(struct bulk_item *item);
/* What follows from answers: output, more reading, the end. B may be gone afterwards. */
void bulk_go_on(struct bulk *b);
/* Work through BODY (taken, also when it fails) without a client: lines as in a request; DONE(ARG) runs later, once. */
int bulk_run(struct api *api, const struct api_context *ctx, struct buf *body,
             void (*done)(void *arg, const struct bulk *b), void *arg, struct err *e);

#endif
