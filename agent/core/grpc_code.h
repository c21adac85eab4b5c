/* The status codes of gRPC by name, 0 "OK" to 16 "UNAUTHENTICATED". */
#ifndef CARILLON_CORE_GRPC_CODE_H
#define CARILLON_CORE_GRPC_CODE_H

#include <stdbool.h>

#define GRPC_CODE_COUNT 17

/* "?" for a number that is none. */
const char *grpc_code_name(int code);
/* The number of NAME, -1: there is no such. */
int grpc_code_find(const char *name);
/* Whether CODE speaks against the endpoint that answered so, as a 5xx does in HTTP; the others speak about the request. */
bool grpc_code_is_failure(int code);

#endif
