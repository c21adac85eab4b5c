#include "agent/core/grpc_code.h"

#include <string.h>

static const struct {
    const char *name;
    bool failure; /* what proxies translate into a 5xx */
} codes[GRPC_CODE_COUNT] = {
    {"OK", false},
    {"CANCELLED", false},
    {"UNKNOWN", true},
    {"INVALID_ARGUMENT", false},
    {"DEADLINE_EXCEEDED", true},
    {"NOT_FOUND", false},
    {"ALREADY_EXISTS", false},
    {"PERMISSION_DENIED", false},
    {"RESOURCE_EXHAUSTED", false},
    {"FAILED_PRECONDITION", false},
    {"ABORTED", false},
    {"OUT_OF_RANGE", false},
    {"UNIMPLEMENTED", true},
    {"INTERNAL", true},
    {"UNAVAILABLE", true},
    {"DATA_LOSS", true},
    {"UNAUTHENTICATED", false},
};

const char *grpc_code_name(int code)
{
    return code >= 0 && code < GRPC_CODE_COUNT ? codes[code].name : "?";
}

int grpc_code_find(const char *name)
{
    for (int i = 0; i < GRPC_CODE_COUNT; i++)
        if (strcmp(codes[i].name, name) == 0)
            return i;
    return -1;
}

bool grpc_code_is_failure(int code)
{
    return code < 0 || code >= GRPC_CODE_COUNT || codes[code].failure;
}
