/* A request's head from constants, for the API's tests. */
#ifndef CARILLON_TESTS_LIB_API_HEAD_H
#define CARILLON_TESTS_LIB_API_HEAD_H

#include <strings.h>

#include "agent/api/request.h"

struct test_header {
    const char *name;
    const char *value;
};

/* ARG: an array of headers that ends with a NULL name. */
static inline const char *test_header_of(const void *arg, const char *name)
{
    for (const struct test_header *h = arg; h->name; h++)
        if (strcasecmp(h->name, name) == 0)
            return h->value;
    return NULL;
}

#define HEAD(m, p, q, ...)                                                  \
    (struct api_head)                                                       \
    {                                                                       \
        .method = (m), .path = (p), .query = (q), .header = test_header_of, \
        .arg = (const struct test_header[])                                 \
        {                                                                   \
            {"Host", "localhost:7420"}, __VA_ARGS__                         \
            {                                                               \
                0                                                           \
            }                                                               \
        }                                                                   \
    }

#endif
