/* Which endpoint of one service gets an attempt. Fed with the endpoint list and with what became of each attempt;
 * knows policies, limits, failing endpoints, new endpoints and distance. No clock (now_ms is any monotonic one), no
 * randomness of its own, no I/O. One thread at a time.
 *
 * An endpoint is its address: its key is a hash of it, equal on every agent and over updates and restarts, and what
 * is known of it survives an update that still lists it.
 *
 * Policies:
 *   p2c              two different endpoints are drawn in proportion to weight; the second is taken if it is clearly
 *                    cheaper (by a fifth). Cost = (in_flight / relative weight + 1) * latency * (1 + failures in a row).
 *                    Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (1996); latency as in
 *                    Finagle's Peak EWMA: up at once, down slowly. The 1 is not divided by the weight, and near-equal
 *                    costs keep the first draw, so that an idle service still follows the weights. O(log endpoints)
 *   round_robin      nginx's smooth weighted round robin. O(endpoints)
 *   least_request    lowest in_flight / weight; equal ones by weight. O(endpoints)
 *   consistent_hash  weighted rendezvous hashing (Thaler and Ravishankar, 1998) on the job: same job, same endpoint;
 *                    when one goes only its jobs move, and they come back with it. O(endpoints)
 *
 * In each policy an endpoint at its limit, ejected, or (preferably) already tried by this fire is passed over, and
 * nearer ranks come before farther ones. A new endpoint has no latency yet and counts as average, never as free. */
#ifndef CARILLON_CORE_BALANCE_H
#define CARILLON_CORE_BALANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"

struct rng;
struct balance;

#define BALANCE_ENDPOINTS_MAX 10000u
#define BALANCE_ADDRESS_MAX   300u   /* bytes */
#define BALANCE_WEIGHT_MAX    65535u /* Consul's range */
#define BALANCE_RANKS         3u     /* 0 same node, 1 same zone, 2 the rest */
#define BALANCE_TRIED_MAX     8u

enum balance_policy {
    BALANCE_P2C,
    BALANCE_ROUND_ROBIN,
    BALANCE_LEAST_REQUEST,
    BALANCE_CONSISTENT_HASH,
    BALANCE_POLICY_COUNT_
};

#define BALANCE_IN_FLIGHT_MAX_DEFAULT          500u /* callback.max_in_flight_per_service */
#define BALANCE_ENDPOINT_IN_FLIGHT_MAX_DEFAULT 64u  /* callback.max_in_flight_per_endpoint */
#define BALANCE_FAILURES_IN_A_ROW_DEFAULT      5u
#define BALANCE_ERROR_PERCENT_DEFAULT          50u
#define BALANCE_ERROR_WINDOW_DEFAULT_MS        30000u
#define BALANCE_ERROR_MIN_RESULTS_DEFAULT      20u
#define BALANCE_EJECT_BASE_DEFAULT_MS          10000u
#define BALANCE_EJECT_MAX_DEFAULT_MS           300000u
#define BALANCE_SLOW_START_DEFAULT_MS          10000u

struct balance_options {
    enum balance_policy policy;
    bool near;                       /* nearer ranks first */
    uint32_t in_flight_max;          /* of the service; 0: no limit */
    uint32_t endpoint_in_flight_max; /* 0: no limit */
    uint32_t failures_in_a_row;      /* eject after so many; 0: never for that */
    uint32_t error_percent; /* eject when this share of the results in the window failed; 0: never for that */
    uint32_t error_window_ms;   /* >= 2 */
    uint32_t error_min_results; /* fewer results in the window say nothing */
    uint32_t eject_base_ms; /* n-th ejection lasts base * n; n falls by one for each base without ejection */
    uint32_t eject_max_ms;
    uint32_t slow_start_ms; /* new and returning endpoints rise to their weight in this time; 0: at once */
};

/* p2c and the constants above; not near. */
struct balance_options balance_options_default(void);

struct balance_endpoint {
    const char *address; /* "host:port", 1..BALANCE_ADDRESS_MAX bytes; copied */
    uint32_t weight;     /* values outside 1..BALANCE_WEIGHT_MAX count as the nearest inside */
    uint8_t rank;        /* < BALANCE_RANKS; values above count as the farthest */
};

/* A balancer without endpoints. Aborts without memory. */
struct balance *balance_new(const struct balance_options *options);
/* NULL does nothing. Attempts still in flight are forgotten. */
void balance_free(struct balance *b);

/* Take new options over; what is known of the endpoints stays. */
void balance_set_options(struct balance *b, const struct balance_options *options, uint64_t now_ms);

/* The endpoints are now these COUNT ones. Addresses listed twice are one endpoint with the larger weight and the nearer
 * rank. One that is not listed gets nothing more; it is remembered until its attempts in flight have ended. New ones
 * start slowly, unless no present one stays that could carry the load meanwhile.
 * ERR_TOO_BIG (over BALANCE_ENDPOINTS_MAX), ERR_INVALID (address empty or too long), ERR_NOMEM: nothing changed. */
int balance_set_endpoints(struct balance *b, const struct balance_endpoint *list, size_t count,
                          uint64_t now_ms, struct err *e);

/* Key of the endpoint with this ADDRESS, known or not. */
uint64_t balance_key(const char *address);

enum balance_choice {
    BALANCE_CHOSEN,
    BALANCE_NONE_EMPTY, /* no endpoint: wait for a list */
    BALANCE_NONE_LIMIT, /* all that may be used are at their limit, or the service is: wait for a balance_done */
    BALANCE_CHOICE_COUNT_
};

struct balance_request {
    uint64_t job_hash;     /* consistent_hash: any well mixed hash of namespace and id */
    const uint64_t *tried; /* keys of endpoints that failed this fire; unknown ones are ignored */
    size_t tried_count;    /* the last BALANCE_TRIED_MAX count */
};

/* Choose an endpoint and count the attempt as in flight; end it by one balance_done with *RET_KEY, also if nothing was
 * sent. An untried endpoint is preferred even to a nearer one; if all were tried, any will do. */
enum balance_choice balance_choose(struct balance *b, const struct balance_request *request, uint64_t now_ms,
                                   struct rng *rng, uint64_t *ret_key);

/* The same for an endpoint that was chosen by other means (`to: all`): limits hold, ejection does not. NONE_EMPTY when
 * KEY is not listed now. */
enum balance_choice balance_start(struct balance *b, uint64_t key);

/* Count an attempt at KEY that is under way already, whatever the limits. False when KEY is not listed now: nothing is
 * counted then, and no balance_done due. */
bool balance_join(struct balance *b, uint64_t key);

enum balance_result {
    BALANCE_OK,      /* the endpoint answered as one that works; a refusal of the job (4xx) is that too */
    BALANCE_FAILED,  /* refused, reset, timed out, 5xx */
    BALANCE_IGNORED, /* says nothing about the endpoint: cancelled, never sent */
    BALANCE_RESULT_COUNT_
};

/* The attempt at KEY (from balance_choose, balance_start or balance_join) has ended after LATENCY_US. Exactly one a choice; it may
 * come after the endpoint has left the list. A failure's latency counts only if it is worse than what was known: a
 * fast refusal must not look like a fast endpoint. */
void balance_done(struct balance *b, uint64_t key, enum balance_result result, uint64_t latency_us,
                  uint64_t now_ms);

/* Attempts in flight, those at endpoints that have left included. */
uint64_t balance_in_flight(const struct balance *b);
/* Listed endpoints; ejected ones among them. */
size_t balance_count(const struct balance *b);
size_t balance_ejected(const struct balance *b);

/* What /v1/services shows. */
struct balance_view {
    uint64_t key;
    const char *address; /* valid until the next balance_set_endpoints */
    uint32_t weight;
    uint8_t rank;
    uint32_t in_flight;
    uint64_t latency_us; /* 0: not known yet */
    uint32_t failures;   /* in a row */
    bool ejected;
    uint64_t ejected_until_ms; /* on the clock of now_ms; 0 unless ejected */
    uint32_t ramp_percent;     /* 100: slow start is over */
};

/* for (size_t at = 0; balance_next(b, &at, &view);): each listed endpoint once, in the order of keys. */
bool balance_next(const struct balance *b, size_t *at, struct balance_view *ret_view);
/* The listed endpoint KEY; false when it is not listed. */
bool balance_get(const struct balance *b, uint64_t key, struct balance_view *ret_view);

/* "p2c" …; -1 for an unknown name. */
const char *balance_policy_name(enum balance_policy policy);
int balance_policy_parse(const char *name);

/* Assert every invariant; walks all endpoints. For tests. */
void balance_validate(const struct balance *b);

#endif
