/* Deliveries for every endpoint of a service (`callback.to` other than one): naming the endpoints, and sending the pending parts
 * of a fire to theirs. A part is a ticket as any other, in its target's line, under the same limits; only its endpoint is given. */
#include <assert.h>
#include <string.h>

#include "agent/core/fire_parts.h"
#include "agent/io/loop.h"
#include "callback/dispatch_private.h"

/* --- naming the endpoints ------------------------------------------------------------------------------------------ */

bool dispatch_names_endpoints(const struct delivery *delivery)
{
    return delivery->spec->callback.to != JOB_TO_ONE && !delivery->parts;
}

/* Copies: the list may change before the answer is told. */
int dispatch_name_endpoints(struct ticket *k, struct err *e)
{
    const struct balance *b = k->target->balance;
    struct balance_view view;
    size_t count = 0, bytes = 0;
    for (size_t at = 0; balance_next(b, &at, &view); count++)
        bytes += strlen(view.address) + 1;
    char **list = mem_try_alloc(count * sizeof(*list) + bytes, e);
    if (!list)
        return -ERR_NOMEM;
    char *text = (char *)&list[count];
    size_t n = 0;
    for (size_t at = 0; balance_next(b, &at, &view);) {
        size_t size = strlen(view.address) + 1;
        list[n++] = memcpy(text, view.address, size);
        text += size;
    }
    k->attempt.result.endpoints = (const char *const *)list;
    k->attempt.result.endpoints_count = count;
    k->names = list;
    return 0;
}

/* --- sending the parts --------------------------------------------------------------------------------------------- */

/* All parts of one delivery while they are here. */
struct fan {
    struct dispatch *d;
    struct delivery *delivery;
    struct attempt result;    /* the worst so far */
    size_t open;              /* tickets that have not ended */
    size_t count;             /* of `tickets` */
    struct ticket *tickets[]; /* by part; NULL: none, or ended */
};

static struct fan *fan_new(struct dispatch *d, struct delivery *delivery)
{
    size_t count = delivery->parts->count;
    struct fan *fan =
        mem_alloc_or_die(1, sizeof(*fan) + count * sizeof(struct ticket *)); /* FIRE_PARTS_MAX at most */
    fan->d = d;
    fan->delivery = delivery;
    fan->count = count;
    fan->result = (struct attempt){.result = ATTEMPT_OK, .status = -1, .retry_after_ms = -1};
    return fan;
}

void dispatch_fan_out(struct dispatch *d, struct delivery *delivery)
{
    const struct fire_parts *parts = delivery->parts;
    struct fan *fan = fan_new(d, delivery);
    for (size_t i = 0; i < parts->count; i++) {
        if (parts->items[i].state != FIRE_PART_PENDING)
            continue;
        struct ticket *k = dispatch_ticket_new(d, delivery);
        k->fan = fan;
        k->attempt.part = (unsigned)i + 1;
        k->attempt.parts = (unsigned)parts->count;
        fan->tickets[i] = k;
        fan->open++;
    }
    assert(fan->open > 0);
    delivery->driver = fan;
    for (size_t i = 0; i < fan->count; i++)
        if (fan->tickets[i])
            dispatch_enter(d, fan->tickets[i]);
}

/* A part's endpoint is given. One that has left: a shard is work that somebody has to do, so another endpoint does it; of `all`
 * the part is void. */
enum balance_choice dispatch_choose_part(struct ticket *k, bool *ret_gone)
{
    struct balance *b = k->target->balance;
    const struct delivery *delivery = k->attempt.delivery;
    const char *endpoint = delivery->parts->items[k->attempt.part - 1].endpoint;
    *ret_gone = false;
    if (balance_count(b) == 0)
        return BALANCE_NONE_EMPTY;
    k->endpoint_key = balance_key(endpoint);
    enum balance_choice choice = balance_start(b, k->endpoint_key);
    if (choice != BALANCE_NONE_EMPTY)
        return choice;
    if (delivery->spec->callback.to == JOB_TO_SHARDS)
        return dispatch_choose(k);
    *ret_gone = true;
    return BALANCE_NONE_EMPTY;
}

/* From what says least about the fire to what decides it. */
static int gravity(enum attempt_result r)
{
    static const int order[ATTEMPT_RESULT_COUNT_] = {
        [ATTEMPT_OK] = 0,          [ATTEMPT_GONE] = 0,    [ATTEMPT_NOT_STARTED] = 1,
        [ATTEMPT_NO_ENDPOINT] = 2, [ATTEMPT_GIVE_UP] = 3, [ATTEMPT_RETRY] = 4};
    return order[r];
}

static void take_result(struct fan *fan, const struct attempt *r)
{
    int64_t retry_after_ms = fan->result.retry_after_ms;
    if (gravity(r->result) > gravity(fan->result.result))
        fan->result = *r;
    if (retry_after_ms > fan->result.retry_after_ms)
        fan->result.retry_after_ms = retry_after_ms;
    if (r->retry_after_ms > fan->result.retry_after_ms)
        fan->result.retry_after_ms = r->retry_after_ms;
}

/* K has ended and is freed; with the last one the delivery has. */
void dispatch_part_done(struct ticket *k)
{
    struct fan *fan = k->fan;
    struct dispatch *d = fan->d;
    size_t part = k->attempt.part - 1;
    fan->tickets[part] = NULL;
    take_result(fan, &k->attempt.result);
    d->options.part(d->options.arg, fan->delivery, part, &k->attempt.result);
    mem_free(k);
    if (--fan->open > 0)
        return;
    fan->delivery->driver = NULL;
    d->options.done(d->options.arg, fan->delivery, &fan->result);
    mem_free(fan);
}

/* Ended tickets are told of later, so none goes while this runs. */
void dispatch_revoke_parts(struct delivery *delivery)
{
    struct fan *fan = delivery->driver;
    for (size_t i = 0; i < fan->count; i++)
        if (fan->tickets[i])
            dispatch_revoke_ticket(fan->d, fan->tickets[i]);
}

void dispatch_abort_parts(struct delivery *delivery)
{
    struct fan *fan = delivery->driver;
    for (size_t i = 0; i < fan->count; i++)
        if (fan->tickets[i])
            dispatch_abort_ticket(fan->d, fan->tickets[i]);
}

bool dispatch_fan_has(const struct ticket *k)
{
    const struct fan *fan = k->fan;
    return fan == k->attempt.delivery->driver && fan->tickets[k->attempt.part - 1] == k;
}
