#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "callback/capability.h"

static const struct capability own = {.secret = {1, 2, 3}};
static const struct uid uid = {.bytes = {0, 7, 42}};

Test(capability, a_key_says_its_attempt_and_proves_it)
{
    char key[CAPABILITY_SIZE];
    uint32_t attempt = 0;
    capability_make(&own, &uid, 9, 3, key);
    cr_assert(zero(int, strncmp(key, "3.", 2)));
    cr_assert(eq(sz, strlen(key), 2 + 32));
    cr_assert(capability_check(&own, &uid, 9, key, &attempt));
    cr_assert(eq(u32, attempt, 3));
    capability_make(&own, &uid, UINT64_MAX, UINT32_MAX, key);
    cr_assert(capability_check(&own, &uid, UINT64_MAX, key, &attempt));
    cr_assert(eq(u32, attempt, UINT32_MAX));
}

Test(capability, nothing_else_opens)
{
    char key[CAPABILITY_SIZE], wrong[CAPABILITY_SIZE];
    uint32_t attempt = 77;
    capability_make(&own, &uid, 9, 3, key);
    for (size_t i = 0; i < strlen(key); i++) {
        memcpy(wrong, key, sizeof(key));
        wrong[i] = wrong[i] == '0' ? '1' : '0';
        cr_assert(not(capability_check(&own, &uid, 9, wrong, &attempt)), "%s", wrong);
    }
    static const char *const others[] = {"",
                                         ".",
                                         "3",
                                         "3.",
                                         "03.",
                                         "-1.",
                                         "x",
                                         "4294967296.0",
                                         "3.00000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        cr_assert(not(capability_check(&own, &uid, 9, others[i], &attempt)), "%s", others[i]);
    cr_assert(not(capability_check(&own, &uid, 8, key, &attempt)), "another fire's");
    struct uid other = uid;
    other.bytes[15] = 1;
    cr_assert(not(capability_check(&own, &other, 9, key, &attempt)), "another job's");
    struct capability stranger = {.secret = {1, 2, 4}};
    cr_assert(not(capability_check(&stranger, &uid, 9, key, &attempt)), "another store's");
    cr_assert(eq(u32, attempt, 77));
}
