/* Changing dead letters page after page: what the owners are told, when each one is sent, and how it ends when something fails.
 * The store, the owners and the client are this file. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/api/bulk.h"
#include "agent/node.h"

#define NOW_MS    1790000000000
#define ROWS_MAX  1000
#define BULKS_MAX 8
#define TEXT_MAX  (1 << 17)

/* The store. */
static struct fire_row rows[ROWS_MAX];
static size_t rows_count, page_rows, pages_listed;
static bool store_away;
static struct store_fire_filter asked; /* for the newest page */
static char asked_service[20];

/* The owners. */
static struct bulk_call {
    void (*done)(void *arg, const struct bulk *b);
    void *arg;
    uint64_t letters;
} calls[BULKS_MAX];
static size_t calls_count, calls_done;
static char told[TEXT_MAX]; /* the bodies of all bulks */

/* The client. */
static unsigned replies;
static int status;
static enum api_code refused;
static char reply[300];
static const char *request_body;

static struct api api;
static struct api_route route;

static void list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done,
                       void *arg)
{
    (void)self;
    size_t from = filter->after.set ? (size_t)filter->after.seq : 0, left = rows_count - from;
    size_t count = left < page_rows ? left : page_rows;
    struct store_fire_page page = {.fires = rows + from, .fires_count = count};
    struct err e = {0};
    page.next = (struct store_fire_place){.set = count < left, .seq = from + count};
    asked = *filter;
    (void)snprintf(asked_service, sizeof(asked_service), "%s", filter->service);
    pages_listed++;
    if (store_away || fault_hit()) {
        (void)err_set(&e, ERR_UNAVAILABLE, "the store is away");
        page = (struct store_fire_page){0};
    }
    done(arg, &e, &page);
}

static const struct store_ops store = {.list_fires = list_fires};

const struct store_ops *node_store(const struct node *n, void **ret_self)
{
    (void)n;
    *ret_self = NULL;
    return &store;
}

int64_t node_now_ms(const struct node *n)
{
    (void)n;
    return NOW_MS;
}

static uint64_t letters_in(const char *text)
{
    uint64_t count = 0;
    for (const char *at = strstr(text, "\"letters\":["); at; at = strstr(at + 1, "\"letters\":["))
        for (const char *c = at + strlen("\"letters\":["); *c != '}'; c++)
            count += *c == '[';
    return count;
}

int bulk_run(struct api *a, const struct api_context *ctx, struct buf *body,
             void (*done)(void *arg, const struct bulk *b), void *arg, struct err *e)
{
    (void)a;
    (void)ctx;
    AUTO(mem_free) char *text = buf_steal(body, NULL, e);
    buf_fini(body);
    if (!text)
        return -ERR_NOMEM;
    cr_assert(lt(sz, calls_count, BULKS_MAX));
    calls[calls_count++] = (struct bulk_call){done, arg, letters_in(text)};
    size_t at = strlen(told);
    cr_assert(lt(sz, (size_t)snprintf(told + at, sizeof(told) - at, "%s", text), sizeof(told) - at));
    return 0;
}

/* The oldest bulk under way has ended; FAILED of its lines were not done. */
static void owners_answer(uint64_t failed)
{
    struct bulk_call *c = &calls[calls_done++];
    AUTO(mem_free) struct bulk *b = mem_new(struct bulk);
    b->letters = failed ? 0 : c->letters;
    b->failed = failed;
    c->done(c->arg, b);
}

const char *httpd_body(const struct httpd_request *rq, size_t *ret_bytes)
{
    (void)rq;
    *ret_bytes = strlen(request_body);
    return request_body;
}

void exchange_json(struct exchange *x, int s, struct buf *body)
{
    (void)x;
    replies++;
    status = buf_failed(body) ? 503 : s; /* as exchange_reply() does */
    (void)snprintf(reply, sizeof(reply), "%s", buf_str(body));
    buf_fini(body);
}

void exchange_refuse_with(struct exchange *x, enum api_code code, const char *detail)
{
    (void)x;
    replies++;
    status = api_code_status(code);
    refused = code;
    (void)snprintf(reply, sizeof(reply), "%s", detail);
}

void exchange_refuse_store(struct exchange *x, const struct err *e)
{
    exchange_refuse_with(x, API_STORE_UNAVAILABLE, e->text);
}

static void setup(void)
{
    memset(&api, 0, sizeof(api));
    memset(rows, 0, sizeof(rows));
    rows_count = pages_listed = calls_count = calls_done = 0;
    page_rows = ROWS_MAX;
    store_away = false;
    told[0] = reply[0] = 0;
    replies = 0;
    refused = API_OK;
    request_body = "";
}

TestSuite(redrive, .init = setup);

/* Rows in the order of the store: oldest first. */
static void letter(uint8_t job, uint64_t seq, uint64_t version)
{
    struct fire_row *row = &rows[rows_count++];
    memset(row->uid.bytes, job, sizeof(row->uid.bytes));
    memcpy(row->ns, "default", 8);
    (void)snprintf(row->id, sizeof(row->id), "job-%u", job);
    row->seq = row->seq_last = seq;
    row->version = version;
}

static struct exchange *begin(enum api_action action, uint32_t rate, bool dry_run)
{
    struct exchange *x = mem_new(struct exchange);
    x->api = &api;
    route.action = action;
    x->req.route = &route;
    x->req.rate = rate;
    x->req.dry_run = dry_run;
    x->req.from_ms = x->req.to_ms = RECORD_NONE;
    memcpy(x->req.service, "shop", 5);
    api_deadletters_change(x);
    return x;
}

static void redrive_all(uint32_t rate)
{
    struct exchange *x = begin(API_DEADLETTERS_REDRIVE, rate, false);
    while (calls_done < calls_count)
        owners_answer(0);
    mem_free(x);
}

static bool is_told(const char *text)
{
    return strstr(told, text) != NULL;
}

/* The next line that an owner was told, without what comes before its letters; NULL: no more. */
static const char *next_line(const char **at)
{
    const char *letters = strstr(*at, "\"letters\":");
    if (letters)
        *at = letters + 1;
    return letters;
}

Test(redrive, letters_of_a_job_and_definition_are_one_line_and_go_by_their_age)
{
    letter(1, 4, 1);
    letter(2, 8, 3);
    letter(1, 5, 1);
    letter(1, 6, 2);
    redrive_all(2);
    const char *at = told;
    cr_assert(is_told("{\"op\":\"redrive\",\"namespace\":\"default\",\"id\":\"job-1\","
                      "\"uid\":\"01010101010101010101010101010101\",\"version\":1,\"letters\":"));
    cr_assert(zero(int, strncmp(next_line(&at), "\"letters\":[[5,1790000001000],[4,1790000000000]]}\n", 49)));
    cr_assert(zero(int, strncmp(next_line(&at), "\"letters\":[[6,1790000001500]]}\n", 31)));
    cr_assert(zero(int, strncmp(next_line(&at), "\"letters\":[[8,1790000000500]]}\n", 31)));
    cr_assert(zero(ptr, (void *)(uintptr_t)next_line(&at)));
    cr_assert(eq(int, status, 200));
    cr_assert(eq(str, reply, "{\"redriven\":4}"));
    cr_assert(eq(int, asked.outcome, FIRE_OUTCOME_DEAD));
    cr_assert(asked.oldest_first, "who waits longest goes first");
    cr_assert(eq(str, asked_service, "shop"));
    cr_assert(asked.from_ms == RECORD_NONE && asked.until_ms == RECORD_NONE);
}

Test(redrive, the_rate_goes_on_from_page_to_page)
{
    page_rows = 2;
    for (uint64_t seq = 1; seq <= 5; seq++)
        letter(1, seq, 1);
    redrive_all(1000);
    cr_assert(eq(sz, pages_listed, 3));
    cr_assert(is_told(":[[2,1790000000001],[1,1790000000000]]}"));
    cr_assert(is_told(":[[4,1790000000003],[3,1790000000002]]}"));
    cr_assert(is_told(":[[5,1790000000004]]}"));
    cr_assert(eq(str, reply, "{\"redriven\":5}"));
}

Test(redrive, without_a_rate_all_go_at_once)
{
    letter(1, 1, 1);
    letter(1, 2, 1);
    redrive_all(0);
    cr_assert(is_told(":[[2,1790000000000],[1,1790000000000]]}"));
}

Test(redrive, a_line_has_as_many_letters_as_its_owner_takes)
{
    for (uint64_t seq = 1; seq <= 2 * PLANNER_LETTERS_MAX + 1; seq++)
        letter(1, seq, 1);
    redrive_all(0);
    const char *at = told;
    cr_assert(zero(int, strncmp(next_line(&at), "\"letters\":[[401,", 16)));
    cr_assert(zero(int, strncmp(next_line(&at), "\"letters\":[[201,", 16)));
    cr_assert(zero(int, strncmp(next_line(&at), "\"letters\":[[1,", 14)));
    cr_assert(eq(str, reply, "{\"redriven\":401}"));
}

Test(redrive, a_dry_run_counts_all_pages_and_tells_nobody)
{
    page_rows = 2;
    for (uint64_t seq = 1; seq <= 5; seq++)
        letter(1, seq, 1);
    mem_free(begin(API_DEADLETTERS_REDRIVE, 1, true));
    cr_assert(zero(sz, calls_count));
    cr_assert(eq(str, reply, "{\"matched\":5}"));
}

Test(redrive, discarding_says_so)
{
    letter(1, 1, 1);
    struct exchange *x = begin(API_DEADLETTERS_DISCARD, 0, false);
    cr_assert(is_told("{\"op\":\"discard\","));
    cr_assert(zero(uint, replies), "not before the owner has done it");
    owners_answer(0);
    cr_assert(eq(str, reply, "{\"discarded\":1}"));
    mem_free(x);
}

Test(redrive, nothing_found_is_an_answer)
{
    redrive_all(0);
    cr_assert(eq(str, reply, "{\"redriven\":0}"));
}

Test(redrive, a_body_is_refused_before_anything_is_done)
{
    request_body = "{\"rate\":5}";
    letter(1, 1, 1);
    redrive_all(0);
    cr_assert(eq(int, refused, API_INVALID_REQUEST));
    cr_assert(zero(sz, pages_listed));
}

Test(redrive, only_so_many_pages_are_under_way)
{
    page_rows = 1;
    for (uint64_t seq = 1; seq <= 6; seq++)
        letter(1, seq, 1);
    struct exchange *x = begin(API_DEADLETTERS_REDRIVE, 0, false);
    cr_assert(eq(sz, calls_count, 4));
    owners_answer(0);
    cr_assert(eq(sz, calls_count, 5));
    while (calls_done < calls_count)
        owners_answer(0);
    cr_assert(eq(uint, replies, 1));
    cr_assert(eq(str, reply, "{\"redriven\":6}"));
    mem_free(x);
}

Test(redrive, what_an_owner_could_not_do_is_told_with_what_was_done)
{
    page_rows = 1;
    for (uint64_t seq = 1; seq <= 6; seq++)
        letter(1, seq, 1);
    struct exchange *x = begin(API_DEADLETTERS_REDRIVE, 0, false);
    owners_answer(0);
    owners_answer(1);
    cr_assert(zero(uint, replies), "others are under way");
    while (calls_done < calls_count)
        owners_answer(0);
    cr_assert(eq(sz, calls_count, 5), "no page more was begun");
    cr_assert(eq(uint, replies, 1));
    cr_assert(eq(int, refused, API_NO_OWNER));
    cr_assert(eq(str, reply, "4 were redriven before: some letters could not be changed now"));
    mem_free(x);
}

Test(redrive, the_store_may_go_away_in_between)
{
    page_rows = 1;
    for (uint64_t seq = 1; seq <= 6; seq++)
        letter(1, seq, 1);
    struct exchange *x = begin(API_DEADLETTERS_REDRIVE, 0, false);
    store_away = true;
    while (calls_done < calls_count)
        owners_answer(0);
    cr_assert(eq(uint, replies, 1));
    cr_assert(eq(int, refused, API_STORE_UNAVAILABLE));
    cr_assert(eq(str, reply, "4 were redriven before: the store is away"));
    mem_free(x);
}

Test(redrive, a_stopping_agent_ends_it)
{
    page_rows = 1;
    for (uint64_t seq = 1; seq <= 6; seq++)
        letter(1, seq, 1);
    struct exchange *x = begin(API_DEADLETTERS_REDRIVE, 0, false);
    api.stopping = true;
    while (calls_done < calls_count)
        owners_answer(0);
    cr_assert(eq(sz, calls_count, 4));
    cr_assert(eq(int, refused, API_OVERLOADED));
    cr_assert(eq(str, reply, "4 were redriven before: the agent is stopping"));
    mem_free(x);
}

/* Whatever fails, there is one answer, and it names as many as the owners were told of. */
Test(redrive, any_fault_ends_in_one_true_answer)
{
    unsigned k = 0, short_ones = 0;
    bool fired = true;
    for (; fired; k++) {
        char expected[40];
        uint64_t done = 0;
        setup();
        page_rows = 2;
        for (uint64_t seq = 1; seq <= 5; seq++)
            letter(1, seq, 1);
        fault_arm(k);
        redrive_all(1);
        fired = fault_fired();
        for (size_t i = 0; i < calls_count; i++)
            done += calls[i].letters;
        (void)snprintf(expected, sizeof(expected),
                       refused ? "%llu were redriven before: " : "{\"redriven\":%llu}",
                       (unsigned long long)done);
        short_ones += done < 5;
        cr_assert(eq(uint, replies, 1), "step %u", k);
        cr_assert(refused || done == 5, "step %u: not all, and nobody is told", k);
        if (status == 503 && !refused) /* no memory for the last words */
            cr_assert(fired);
        else
            cr_assert(zero(int, strncmp(reply, expected, strlen(expected))), "step %u: %s", k, reply);
    }
    cr_assert(ge(uint, short_ones, 9), "the list, the letters, the text of three pages");
}
