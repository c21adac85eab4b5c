#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/core/grpc_code.h"

Test(grpc_code, names_and_numbers_lead_to_each_other)
{
    for (int i = 0; i < GRPC_CODE_COUNT; i++)
        cr_assert(eq(int, grpc_code_find(grpc_code_name(i)), i));
    cr_assert(eq(str, (char *)grpc_code_name(14), "UNAVAILABLE"));
    cr_assert(eq(int, grpc_code_find("unavailable"), -1));
    cr_assert(eq(str, (char *)grpc_code_name(17), "?"));
    cr_assert(eq(str, (char *)grpc_code_name(-1), "?"));
}

Test(grpc_code, what_speaks_of_the_request_is_no_failure_of_the_endpoint)
{
    cr_assert(not(grpc_code_is_failure(grpc_code_find("NOT_FOUND"))));
    cr_assert(not(grpc_code_is_failure(grpc_code_find("RESOURCE_EXHAUSTED"))));
    cr_assert(grpc_code_is_failure(grpc_code_find("INTERNAL")));
    cr_assert(grpc_code_is_failure(99));
}
