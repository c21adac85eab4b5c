/* The search of fires, over a store that changes while it is read. The store and the client are this file. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/core/ring_log.h"
#include "agent/node.h"

#define DUE_MS 1790000000000
#define UID    "0123456789abcdef0123456789abcdef"

/* The store: a booked fire, until it has succeeded at its first attempt; then the job's ring has it. */
static unsigned reads, ends_after;
static struct fire_row booked;
static struct store_job job;

/* The client. */
static struct api api;
static struct api_route route;
static struct exchange x;
static unsigned replies;
static char reply[4000];

static bool has_ended(void)
{
    return reads++ >= ends_after;
}

static void list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done,
                       void *arg)
{
    (void)self;
    (void)filter;
    struct store_fire_page page = {.fires = &booked, .fires_count = has_ended() ? 0 : 1};
    done(arg, &(struct err){0}, &page);
}

static void get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg)
{
    (void)self;
    (void)keys;
    (void)count;
    struct store_job found = job;
    if (!has_ended())
        found.row.ring_bytes = 0;
    done(arg, &(struct err){0}, &found, 1, false);
}

static const struct store_ops store = {.list_fires = list_fires, .get_jobs = get_jobs};

const struct store_ops *node_store(const struct node *n, void **ret_self)
{
    (void)n;
    *ret_self = NULL;
    return &store;
}

void node_owner_of(const struct node *n, uint16_t slot, struct node_owner *ret)
{
    (void)n;
    (void)slot;
    *ret = (struct node_owner){0};
}

int api_fires_take(struct fire_row *rows, size_t count, struct fire_row **ret, struct err *e)
{
    (void)count;
    (void)e;
    *ret = rows;
    return 0;
}

void api_fires_free(struct fire_row *rows, size_t count)
{
    (void)rows;
    (void)count;
}

void api_print_off_loop(struct exchange *asked, void (*print)(struct exchange *asked),
                        void (*done)(struct exchange *asked, bool cancelled))
{
    print(asked);
    done(asked, false);
}

void exchange_json(struct exchange *asked, int status, struct buf *body)
{
    (void)asked;
    cr_assert(eq(int, status, 200));
    replies++;
    (void)snprintf(reply, sizeof(reply), "%s", buf_str(body));
    buf_fini(body);
}

void exchange_refuse_with(struct exchange *asked, enum api_code code, const char *detail)
{
    (void)asked;
    cr_assert(code == API_OK, "refused: %s %s", api_code_name(code), detail);
}

void exchange_refuse_store(struct exchange *asked, const struct err *e)
{
    exchange_refuse_with(asked, API_STORE_UNAVAILABLE, e->text);
}

static size_t times(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what))
        n++;
    return n;
}

/* Fire 5 of job "a" ends after so many of the reads. */
static void search(unsigned reads_before)
{
    struct ring_entry entry = {.seq = 5, .due_ms = DUE_MS, .status = 200};
    reads = replies = 0;
    ends_after = reads_before;
    booked = (struct fire_row){.seq = 5, .seq_last = 5, .due_ms = DUE_MS, .outcome = FIRE_OUTCOME_PENDING};
    job = (struct store_job){.problem = "a definition that this test does without"};
    memcpy(booked.ns, "default", sizeof("default"));
    memcpy(booked.id, "a", sizeof("a"));
    memcpy(job.row.ns, "default", sizeof("default"));
    memcpy(job.row.id, "a", sizeof("a"));
    cr_assert(uid_parse(UID, strlen(UID), &booked.uid));
    job.row.uid = booked.uid;
    job.row.ring_bytes = ring_log_add(job.row.ring, 0, &entry, 16);
    x = (struct exchange){.api = &api, .req = {.route = &route, .limit = 10, .outcome = -1, .job = "a"}};
    x.req.from_ms = x.req.to_ms = RECORD_NONE;
    memcpy(x.req.ns, "default", sizeof("default"));
    api_fire_search(&x);
    cr_assert(eq(u32, replies, 1));
}

Test(search, a_fire_that_ends_meanwhile_is_listed_once)
{
    for (unsigned before = 0; before <= 2; before++) {
        search(before);
        cr_assert(eq(sz, times(reply, "\"fire\":\"" UID ".5\""), 1), "ended after %u reads: %s", before,
                  reply);
    }
}
