#include "agent/api/route.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/tokens.h"

#define DRY  (API_Q_DRY_RUN | API_Q_COUNT | API_Q_FROM)
#define LIST (API_Q_PREFIX | API_Q_LABEL)
#define DEAD (API_Q_NS | LIST | API_Q_JOB | API_Q_SERVICE | API_Q_FROM | API_Q_TO)

/* Literal segments before patterns that would match them too. */
static const struct api_route routes[] = {
    {.method = API_POST,
     .pattern = "/v1/jobs",
     .action = API_JOB_CREATE,
     .query = API_Q_NS | DRY,
     .body = API_BODY_JSON,
     .conditions = API_C_KEY},
    {.method = API_GET,
     .pattern = "/v1/jobs",
     .action = API_JOB_LIST,
     .all_namespaces = true,
     .query = API_Q_NS | LIST | API_Q_STATE | API_Q_LAST_OUTCOME | API_Q_LIMIT | API_Q_CURSOR},
    {.method = API_DELETE,
     .pattern = "/v1/jobs",
     .action = API_JOB_DELETE_MANY,
     .query = API_Q_NS | LIST | API_Q_ALL},
    {.method = API_GET,
     .pattern = "/v1/jobs/{id}",
     .action = API_JOB_GET,
     .argument = API_ARG_ID,
     .query = API_Q_NS,
     .conditions = API_C_IF_NONE_MATCH},
    {.method = API_PUT,
     .pattern = "/v1/jobs/{id}",
     .action = API_JOB_PUT,
     .argument = API_ARG_ID,
     .query = API_Q_NS | DRY,
     .body = API_BODY_JSON,
     .conditions = API_C_IF_MATCH | API_C_IF_NONE_MATCH_ANY},
    {.method = API_PATCH,
     .pattern = "/v1/jobs/{id}",
     .action = API_JOB_PATCH,
     .argument = API_ARG_ID,
     .query = API_Q_NS | DRY,
     .body = API_BODY_MERGE_PATCH,
     .conditions = API_C_IF_MATCH},
    {.method = API_DELETE,
     .pattern = "/v1/jobs/{id}",
     .action = API_JOB_DELETE,
     .argument = API_ARG_ID,
     .query = API_Q_NS | API_Q_DRY_RUN,
     .body = API_BODY_NONE,
     .conditions = API_C_IF_MATCH},
    {.method = API_POST,
     .pattern = "/v1/jobs/{id}/run",
     .action = API_JOB_RUN,
     .can = TOKEN_CAN_OPERATE,
     .argument = API_ARG_ID,
     .query = API_Q_NS,
     .body = API_BODY_OPTIONAL,
     .conditions = API_C_IF_MATCH | API_C_KEY},
    {.method = API_POST,
     .pattern = "/v1/jobs/{id}/backfill",
     .action = API_JOB_BACKFILL,
     .can = TOKEN_CAN_OPERATE,
     .argument = API_ARG_ID,
     .query = API_Q_NS,
     .body = API_BODY_JSON,
     .conditions = API_C_IF_MATCH},
    {.method = API_POST,
     .pattern = "/v1/jobs/{id}/pause",
     .action = API_JOB_PAUSE,
     .can = TOKEN_CAN_OPERATE,
     .argument = API_ARG_ID,
     .query = API_Q_NS,
     .body = API_BODY_OPTIONAL,
     .conditions = API_C_IF_MATCH},
    {.method = API_POST,
     .pattern = "/v1/jobs/{id}/resume",
     .action = API_JOB_RESUME,
     .can = TOKEN_CAN_OPERATE,
     .argument = API_ARG_ID,
     .query = API_Q_NS,
     .body = API_BODY_OPTIONAL,
     .conditions = API_C_IF_MATCH},
    {.method = API_GET,
     .pattern = "/v1/jobs/{id}/next",
     .action = API_JOB_NEXT,
     .argument = API_ARG_ID,
     .query = API_Q_NS | API_Q_COUNT | API_Q_FROM},
    {.method = API_GET,
     .pattern = "/v1/jobs/{id}/fires",
     .action = API_JOB_FIRES,
     .argument = API_ARG_ID,
     .query = API_Q_NS | API_Q_LIMIT | API_Q_CURSOR},
    {.method = API_GET,
     .pattern = "/v1/jobs/{id}/explain",
     .action = API_JOB_EXPLAIN,
     .argument = API_ARG_ID,
     .query = API_Q_NS | API_Q_AT | API_Q_FROM | API_Q_TO | API_Q_LIMIT},
    {.method = API_GET,
     .pattern = "/v1/jobs/{id}/revisions",
     .action = API_JOB_REVISIONS,
     .argument = API_ARG_ID,
     .query = API_Q_NS | API_Q_LIMIT | API_Q_CURSOR},
    {.method = API_GET,
     .pattern = "/v1/fires",
     .action = API_FIRE_SEARCH,
     .query = DEAD | API_Q_OUTCOME | API_Q_LIMIT | API_Q_CURSOR},
    {.method = API_GET, .pattern = "/v1/fires/{fire}", .action = API_FIRE_GET, .argument = API_ARG_FIRE},
    {.method = API_GET,
     .pattern = "/v1/deadletters",
     .action = API_DEADLETTERS,
     .query = DEAD | API_Q_LIMIT | API_Q_CURSOR},
    {.method = API_POST,
     .pattern = "/v1/fires/{fire}/retry",
     .action = API_FIRE_RETRY,
     .can = TOKEN_CAN_OPERATE,
     .argument = API_ARG_FIRE,
     .body = API_BODY_OPTIONAL},
    {.method = API_POST,
     .pattern = "/v1/fires/{fire}/cancel",
     .action = API_FIRE_CANCEL,
     .can = TOKEN_CAN_OPERATE,
     .argument = API_ARG_FIRE,
     .body = API_BODY_OPTIONAL},
    {.method = API_POST,
     .pattern = "/v1/fires/{fire}/complete",
     .action = API_FIRE_COMPLETE,
     .argument = API_ARG_FIRE,
     .query = API_Q_KEY,
     .body = API_BODY_JSON,
     .keyed = true},
    {.method = API_POST,
     .pattern = "/v1/fires/{fire}/heartbeat",
     .action = API_FIRE_HEARTBEAT,
     .argument = API_ARG_FIRE,
     .query = API_Q_KEY,
     .body = API_BODY_OPTIONAL,
     .keyed = true},
    {.method = API_DELETE,
     .pattern = "/v1/deadletters",
     .action = API_DEADLETTERS_DISCARD,
     .can = TOKEN_CAN_OPERATE,
     .query = DEAD | API_Q_ALL | API_Q_DRY_RUN},
    {.method = API_POST,
     .pattern = "/v1/deadletters/redrive",
     .action = API_DEADLETTERS_REDRIVE,
     .can = TOKEN_CAN_OPERATE,
     .query = DEAD | API_Q_ALL | API_Q_DRY_RUN | API_Q_RATE,
     .body = API_BODY_OPTIONAL},
    {.method = API_POST,
     .pattern = "/v1/bulk",
     .action = API_BULK,
     .can = TOKEN_CAN_WRITE | TOKEN_CAN_OPERATE, /* each line by what it does */
     .query = API_Q_NS,
     .body = API_BODY_NDJSON},
    {.method = API_GET,
     .pattern = "/v1/export",
     .action = API_EXPORT,
     .query = API_Q_NS | LIST | API_Q_CURSOR,
     .all_namespaces = true},
    {.method = API_GET,
     .pattern = "/v1/events",
     .action = API_EVENTS,
     .query = API_Q_NS | API_Q_ALL,
     .all_namespaces = true},
    {.method = API_GET,
     .pattern = "/v1/forecast",
     .action = API_FORECAST,
     .query = API_Q_NS | API_Q_WINDOW | API_Q_STEP,
     .all_namespaces = true},
    {.method = API_GET,
     .pattern = "/v1/audit",
     .action = API_AUDIT,
     .query = API_Q_NS,
     .all_namespaces = true},
    {.method = API_GET, .pattern = "/v1/cluster", .action = API_CLUSTER},
    {.method = API_GET,
     .pattern = "/v1/cluster/owner/{id}",
     .action = API_OWNER,
     .argument = API_ARG_ID,
     .query = API_Q_NS},
    {.method = API_GET, .pattern = "/v1/services/{name}", .action = API_SERVICE, .argument = API_ARG_SERVICE},
    {.method = API_GET, .pattern = "/v1/health", .action = API_HEALTH},
    {.method = API_GET, .pattern = "/livez", .action = API_LIVEZ, .probe = true, .open = true},
    {.method = API_GET, .pattern = "/readyz", .action = API_READYZ, .probe = true, .open = true},
    {.method = API_GET, .pattern = "/metrics", .action = API_METRICS, .probe = true},
    {.method = API_GET, .pattern = "/openapi.yaml", .action = API_OPENAPI},
    {.method = API_GET, .pattern = "/ui", .action = API_UI_FOLDER, .open = true},
    {.method = API_GET, .pattern = "/ui/", .action = API_UI, .open = true},
    {.method = API_GET, .pattern = "/ui/ui.css", .action = API_UI_CSS, .open = true},
    {.method = API_GET, .pattern = "/ui/ui.js", .action = API_UI_JS, .open = true},
    {.method = API_POST,
     .pattern = "/peer/v1/*",
     .action = API_PEER,
     .argument = API_ARG_REST,
     .body = API_BODY_JSON,
     .peer_only = true},
};

static const struct {
    const char *name;
    enum api_method method;
} methods[] = {
    {"GET", API_GET}, {"HEAD", API_GET},    {"POST", API_POST},
    {"PUT", API_PUT}, {"PATCH", API_PATCH}, {"DELETE", API_DELETE},
};

static bool path_matches(const char *pattern, const char *path, const char **ret_arg, size_t *ret_arg_len)
{
    size_t lead = strcspn(pattern, "{*");
    if (strncmp(pattern, path, lead) != 0)
        return false;
    pattern += lead;
    path += lead;
    if (*pattern == '\0')
        return *path == '\0';
    size_t len = *pattern == '*' ? strlen(path) : strcspn(path, "/");
    pattern += *pattern == '*' ? 1 : strcspn(pattern, "}") + 1;
    if (len == 0 || strcmp(pattern, path + len) != 0)
        return false;
    *ret_arg = path;
    *ret_arg_len = len;
    return true;
}

const struct api_route *api_route_find(const char *method, const char *path, const char **ret_arg,
                                       size_t *ret_arg_len, unsigned *ret_allow)
{
    unsigned wanted = 0, allow = 0;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (strcmp(methods[i].name, method) == 0)
            wanted = methods[i].method;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        const char *arg = NULL;
        size_t arg_len = 0;
        if (!path_matches(routes[i].pattern, path, &arg, &arg_len))
            continue;
        allow |= routes[i].method;
        if (routes[i].method != wanted)
            continue;
        if (arg) {
            *ret_arg = arg;
            *ret_arg_len = arg_len;
        }
        return &routes[i];
    }
    *ret_allow = allow;
    return NULL;
}

const struct api_route *api_route_of(enum api_action action)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
        if (routes[i].action == action)
            return &routes[i];
    assert(false && "every action has a route");
    return NULL;
}

unsigned api_route_can(const struct api_route *route)
{
    if (route->open || route->keyed || route->peer_only)
        return 0;
    return route->can ? route->can : route->method == API_GET ? TOKEN_CAN_READ : TOKEN_CAN_WRITE;
}

const struct api_route *api_routes(size_t *ret_count)
{
    *ret_count = sizeof(routes) / sizeof(routes[0]);
    return routes;
}

void api_allow_print(unsigned allow, char ret[API_ALLOW_SIZE])
{
    (void)snprintf(ret, API_ALLOW_SIZE, "%s%s%s%s%s", allow & API_GET ? ", GET, HEAD" : "",
                   allow & API_POST ? ", POST" : "", allow & API_PUT ? ", PUT" : "",
                   allow & API_PATCH ? ", PATCH" : "", allow & API_DELETE ? ", DELETE" : "");
    if (allow)
        memmove(ret, ret + 2, strlen(ret + 2) + 1);
}
