/* The routes of the API as one constant table. Any thread. */
#ifndef CARILLON_AGENT_API_ROUTE_H
#define CARILLON_AGENT_API_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

enum api_method {
    API_GET = 1,
    API_POST = 2,
    API_PUT = 4,
    API_PATCH = 8,
    API_DELETE = 16,
    API_METHODS_COUNT_ = 5
};

enum api_action {
    API_JOB_CREATE,
    API_JOB_PUT,
    API_JOB_PATCH,
    API_JOB_DELETE,
    API_JOB_RUN,
    API_JOB_BACKFILL,
    API_JOB_PAUSE,
    API_JOB_RESUME,
    API_JOB_GET,
    API_JOB_NEXT,
    API_JOB_FIRES,
    API_JOB_EXPLAIN,
    API_JOB_REVISIONS,
    API_JOB_LIST,
    API_JOB_DELETE_MANY,
    API_FIRE_GET,
    API_FIRE_SEARCH,
    API_DEADLETTERS,
    API_DEADLETTERS_REDRIVE,
    API_DEADLETTERS_DISCARD,
    API_FIRE_RETRY,
    API_FIRE_CANCEL,
    API_FIRE_COMPLETE,
    API_FIRE_HEARTBEAT,
    API_BULK,
    API_EXPORT,
    API_EVENTS,
    API_FORECAST,
    API_AUDIT,
    API_CLUSTER,
    API_OWNER,
    API_SERVICE,
    API_HEALTH,
    API_LIVEZ,
    API_READYZ,
    API_METRICS,
    API_OPENAPI,
    API_UI_FOLDER,
    API_UI,
    API_UI_CSS,
    API_UI_JS,
    API_PEER,
    API_ACTION_COUNT_
};

/* Query parameters, as bits of what a route knows. `ns` goes with every route that has a namespace. */
enum {
    API_Q_NS = 1 << 0,
    API_Q_PREFIX = 1 << 1,
    API_Q_LABEL = 1 << 2,
    API_Q_STATE = 1 << 3,
    API_Q_LAST_OUTCOME = 1 << 4,
    API_Q_LIMIT = 1 << 5,
    API_Q_CURSOR = 1 << 6,
    API_Q_COUNT = 1 << 7,
    API_Q_FROM = 1 << 8,
    API_Q_DRY_RUN = 1 << 9,
    API_Q_ALL = 1 << 10,
    API_Q_KEY = 1 << 11,
    API_Q_TO = 1 << 12,
    API_Q_JOB = 1 << 13,
    API_Q_SERVICE = 1 << 14,
    API_Q_OUTCOME = 1 << 15,
    API_Q_RATE = 1 << 20,
    API_Q_AT = 1 << 16,
    API_Q_WINDOW = 1 << 17,
    API_Q_STEP = 1 << 18,
};

enum api_body { API_BODY_NONE, API_BODY_JSON, API_BODY_MERGE_PATCH, API_BODY_OPTIONAL, API_BODY_NDJSON };

enum api_conditions { /* bits */
                      API_C_IF_MATCH = 1,
                      API_C_IF_NONE_MATCH_ANY = 2, /* only "*" */
                      API_C_IF_NONE_MATCH = 4,     /* an ETag: 304 */
                      API_C_KEY = 8,               /* Idempotency-Key */
};

enum api_argument { API_ARG_NONE, API_ARG_ID, API_ARG_FIRE, API_ARG_SERVICE, API_ARG_REST };

struct api_route {
    enum api_method method;
    /* "{x}" stands for one segment, a trailing "*" for the rest; also the metrics' label */
    const char *pattern;
    enum api_action action;
    enum api_argument argument; /* what {x} or * is */
    unsigned query;             /* API_Q_… */
    enum api_body body;
    unsigned conditions; /* API_C_… */
    bool all_namespaces; /* ns=* is allowed */
    bool probe;          /* also on the ops listeners, and without the rules of Host */
    bool peer_only;
    bool keyed; /* for callees: whoever has the key of a fire may, so nothing else is asked of the head */
    bool open;  /* asks for no token: tells nothing but whether the agent is there */
    /* Enum token_can, what a token must be good for, one of them; 0: read for a GET, else write */
    unsigned can;
};

/* One of which a token must be good for; 0: none is asked for. */
unsigned api_route_can(const struct api_route *route);

/* The route of METHOD ("HEAD" counts as GET) and PATH as sent. NULL: none; then *ret_allow holds the methods that PATH has
 * otherwise (0: no such path). The argument of the path, still encoded, is *ret_arg, *ret_arg_len (untouched when it has
 * none). */
const struct api_route *api_route_find(const char *method, const char *path, const char **ret_arg,
                                       size_t *ret_arg_len, unsigned *ret_allow);
/* The route of ACTION. */
const struct api_route *api_route_of(enum api_action action);
/* All of them, for the test that compares them with openapi.yaml. */
const struct api_route *api_routes(size_t *ret_count);
/* "GET, HEAD, PUT" for the header Allow. */
#define API_ALLOW_SIZE 48
void api_allow_print(unsigned methods, char ret[API_ALLOW_SIZE]);

#endif
