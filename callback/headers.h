/* The headers that every callback carries (design "Callbacks, HTTP request"), built for libcurl without copying: the list's nodes
 * and texts live in one block that is used again for the next request. One thread at a time. */
#ifndef CARILLON_CALLBACK_HEADERS_H
#define CARILLON_CALLBACK_HEADERS_H

#include <curl/curl.h>

#include "agent/base/buf.h"
#include "callback/callback.h"

#define HEADERS_NODES_MAX (JOB_HEADERS_MAX + 24)

struct headers {
    struct buf text;
    size_t starts[HEADERS_NODES_MAX];
    struct curl_slist nodes[HEADERS_NODES_MAX];
    size_t count;
};

void headers_init(struct headers *h);
void headers_fini(struct headers *h);

/* Whether requests of this METHOD carry the payload. */
bool headers_has_body(const char *method);

/* Build the list for A, whose request goes out about NOW_MS (corrected wall clock). NULL: no memory, or a text with CR or LF.
 * Valid until the next build. */
struct curl_slist *headers_build(struct headers *h, const struct callback_attempt *a, int64_t now_ms,
                                 const char *user_agent);

#endif
