#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/json_plain.h"
#include "agent/base/rng.h"
#include "tests/lib/seed.h"

static json_t *jansson(const char *text, size_t len)
{
    return json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

/* Printed by jansson itself, in the order of the members, with the types of the numbers and all digits. */
static char *shown(const json_t *v)
{
    return json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
}

static void check_same(const char *text, size_t len, const json_t *ours)
{
    json_t *theirs = jansson(text, len);
    cr_assert(theirs != NULL, "%.*s is no JSON", (int)len, text);
    char *a = shown(ours), *b = shown(theirs);
    cr_assert(eq(str, a, b));
    free(a);
    free(b);
    json_decref(theirs);
}

Test(json_plain, reads_what_jansson_reads)
{
    static const char *const texts[] = {"{}",
                                        "[]",
                                        " [ ] ",
                                        "\"\"",
                                        "true",
                                        "[true,false,null]",
                                        "{\"a\":{\"b\":[1,-2,0,-0]},\"c\":\"\"}",
                                        "\t{\r\n\"a\" : [ 1 , 2 ] }\n",
                                        "999999999999999999",
                                        "-999999999999999999",
                                        "0.1",
                                        "-0.0",
                                        "3.5",
                                        "123456789.012345",
                                        "0.00000000000001",
                                        "\"gr\xc3\xbc\xc3\x9f\"",
                                        "\"\x7f\""};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        json_t *v = json_plain_read(texts[i], strlen(texts[i]));
        cr_assert(v != NULL, "%s", texts[i]);
        check_same(texts[i], strlen(texts[i]), v);
        json_decref(v);
    }
    json_t *zero = json_plain_read("-0.0", 4);
    cr_assert(signbit(json_real_value(zero)));
    json_decref(zero);
}

Test(json_plain, leaves_what_is_unusual_or_broken_to_jansson)
{
    static const char *const texts[] = {"",
                                        " ",
                                        "\"\\n\"",
                                        "1e3",
                                        "1.5E3",
                                        "9999999999999999999",
                                        "1234567890.123456",
                                        "01",
                                        "-",
                                        "1.",
                                        ".5",
                                        "+1",
                                        "{\"a\":1,\"a\":2}",
                                        "{\"a\":1,}",
                                        "{\"a\" 1}",
                                        "{a:1}",
                                        "[1,]",
                                        "[1 2]",
                                        "[1",
                                        "{\"a\":1",
                                        "\"a",
                                        "\"a\nb\"",
                                        "\"\xff\"",
                                        "{\"\xc3\xbc\":1}",
                                        "nul",
                                        "truefalse",
                                        "{} {}",
                                        "]"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        cr_assert(json_plain_read(texts[i], strlen(texts[i])) == NULL, "%s", texts[i]);
    cr_assert(json_plain_read("{}\0", 3) == NULL);
}

Test(json_plain, nests_as_deep_as_is_allowed)
{
    char text[2 * JSON_DEPTH_MAX + 2];
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    json_t *v = json_plain_read(text, (size_t)2 * JSON_DEPTH_MAX);
    cr_assert(v != NULL);
    json_decref(v);
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    cr_assert(json_plain_read(text, sizeof(text)) == NULL);
}

/* Model test: pieces of JSON at random, most of them nearly right, read by both. */
Test(json_plain, never_reads_anything_otherwise)
{
    static const char *const pieces[] = {
        "{",    "}",        "[",   "]",    ",",     ":", "\"a\"",  "\"b\"", "\"\"",    "1",      "-1",
        "0",    "12.50",    "1e2", "true", "null",  " ", "\n",     "\\",    "\"a\":1", "[1,2]",  "{}",
        "-0.0", "\xc3\xbc", "\"",  "0.3",  "false", "9", "\"c\":", "[",     "]",       "{\"a\":"};
    struct rng rng;
    unsigned read = 0;
    (void)seed_rng(&rng, "json_plain");
    for (unsigned round = 0; round < 50000; round++) {
        char text[256];
        size_t len = 0;
        for (uint64_t n = 1 + rng_below(&rng, 9); n > 0; n--) {
            const char *piece = pieces[rng_below(&rng, sizeof(pieces) / sizeof(*pieces))];
            memcpy(text + len, piece, strlen(piece));
            len += strlen(piece);
        }
        json_t *v = json_plain_read(text, len);
        if (!v)
            continue;
        read++;
        check_same(text, len, v);
        json_decref(v);
    }
    cr_assert(gt(uint, read, 300));
}

/* Every decimal of few digits is the double that strtod() makes of it. */
Test(json_plain, rounds_decimals_as_strtod_does)
{
    struct rng rng;
    (void)seed_rng(&rng, "json_plain");
    for (unsigned round = 0; round < 50000; round++) {
        char text[64];
        int places = (int)(1 + rng_below(&rng, 14));
        uint64_t digits = rng_below(&rng, UINT64_C(1000000000000000)), scale = 1;
        for (int i = 0; i < places; i++)
            scale *= 10;
        int len = snprintf(text, sizeof(text), "%llu.%0*llu", (unsigned long long)(digits / scale), places,
                           (unsigned long long)(digits % scale));
        json_t *v = json_plain_read(text, (size_t)len);
        if (!v) /* a zero in front is a digit more */
            continue;
        cr_assert(json_real_value(v) == strtod(text, NULL), "%s", text);
        json_decref(v);
    }
}
