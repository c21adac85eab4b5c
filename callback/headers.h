/* The headers that every callback carries (design "Callbacks, HTTP request"), or the metadata of a gRPC call, built without copying:
 * libcurl's list's nodes and texts live in one block that is used again for the next request. One thread at a time. */
#ifndef CARILLON_CALLBACK_HEADERS_H
#define CARILLON_CALLBACK_HEADERS_H

#include <curl/curl.h>

#include "agent/base/buf.h"
#include "callback/callback.h"
#include "callback/safety.h"

#define HEADERS_NODES_MAX   (JOB_HEADERS_MAX + 24)
#define HEADERS_SECRETS_MAX 64

struct headers {
    struct buf text;
    size_t starts[HEADERS_NODES_MAX];
    struct curl_slist nodes[HEADERS_NODES_MAX];
    size_t count;
    struct {
        size_t start, len;
    } secrets[HEADERS_SECRETS_MAX]; /* where they stand in the text */
    size_t secrets_count;
};

void headers_init(struct headers *h);
void headers_fini(struct headers *h);

/* Whether requests of this METHOD carry the payload. */
bool headers_has_body(const char *method);

/* Build the list for A, whose request goes out about NOW_MS (corrected wall clock), with secrets and signatures from USE. *RET is
 * valid until the next build. Errors, whose texts people may see: ERR_NOT_FOUND or ERR_INVALID (a secret), ERR_TOO_BIG, ERR_NOMEM. */
int headers_build(struct headers *h, const struct callback_attempt *a, int64_t now_ms, const char *user_agent,
                  const struct safety_use *use, struct curl_slist **ret, struct err *e);

/* The same for a request that is written without libcurl: read the headers with headers_next(), valid until the next build. What HTTP
 * itself needs (Host, Content-Length) is not among them. */
int headers_build_plain(struct headers *h, const struct callback_attempt *a, int64_t now_ms,
                        const char *user_agent, const struct safety_use *use, struct err *e);

/* The same as metadata of a gRPC call that times out at DEADLINE_MS: names in lower case, without those that are gRPC's own. Errors as
 * above. Read them with headers_next(), valid until the next build. */
int headers_build_metadata(struct headers *h, const struct callback_attempt *a, int64_t now_ms,
                           int64_t deadline_ms, const struct safety_use *use, struct err *e);
struct headers_pair {
    const char *name; /* not NUL-terminated */
    size_t name_len;
    const char *value;
};
/* for (size_t at = 0; headers_next(h, &at, &pair);) */
bool headers_next(const struct headers *h, size_t *at, struct headers_pair *ret);

/* Overwrite what of TEXT is a secret of the last build: a callee may send back what it got. */
void headers_hide_secrets(const struct headers *h, char *text, size_t len);
/* The secrets are needed no longer. */
void headers_forget(struct headers *h);

#endif
