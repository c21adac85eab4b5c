#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/core/header_value.h"

/* "text|<secret>|!broken": VALUE's pieces as one text. */
static const char *pieces(const char *value)
{
    static char out[1024];
    size_t len = 0;
    out[0] = '\0';
    for (struct header_piece p; (p = header_value_next(&value)).kind != HEADER_PIECE_END;) {
        static const char *const begin[] = {"", "", "<", "!"}, *const end[] = {"", "", ">", ""};
        len += (size_t)snprintf(out + len, sizeof(out) - len, "%s%s%.*s%s", len ? "|" : "", begin[p.kind],
                                (int)p.len, p.text, end[p.kind]);
    }
    return out;
}

#define PIECES(value, expected) cr_assert(eq(str, (char *)pieces(value), expected))

Test(header_value, names_of_secrets_are_found_inside_text)
{
    PIECES("", "");
    PIECES("plain", "plain");
    PIECES("${secret:tok}", "<tok>");
    PIECES("Bearer ${secret:tok}", "Bearer |<tok>");
    PIECES("a${secret:b}c${secret:d-1_e.f}", "a|<b>|c|<d-1_e.f>");
    PIECES("${secret:.hidden}", "<.hidden>");
}

Test(header_value, a_doubled_dollar_is_a_plain_one)
{
    PIECES("$${", "${");
    PIECES("$${secret:tok}", "${|secret:tok}");
    PIECES("$$${secret:tok}", "$|${|secret:tok}");
    PIECES("$", "$");
    PIECES("$5 and $$", "$5 and $$");
    PIECES("}{$}", "}{$}");
}

Test(header_value, what_begins_no_secret_is_broken)
{
    PIECES("${", "!${");
    PIECES("a ${HOME} b", "a |!${HOME} b");
    PIECES("${secret:}", "!${secret:}");
    PIECES("${secret:tok", "!${secret:tok");
    PIECES("${secret:a/b}", "!${secret:a/b}");
    PIECES("${secret:../other/tok}", "!${secret:../other/tok}");
    PIECES("${secret:..}", "!${secret:..}");
    PIECES("${secret:..data}", "!${secret:..data}");
    PIECES("${secret:.}", "!${secret:.}");
    PIECES("${secret:a b}", "!${secret:a b}");
    PIECES("${secret: tok}", "!${secret: tok}");
    PIECES("${SECRET:tok}", "!${SECRET:tok}");
    PIECES("${secret:${secret:a}}", "!${secret:${secret:a}}");
}

Test(header_value, a_name_has_a_length_that_a_file_can_have)
{
    char name[HEADER_SECRET_NAME_MAX + 2];
    memset(name, 'n', sizeof(name));
    cr_assert(header_secret_name_ok(name, HEADER_SECRET_NAME_MAX));
    cr_assert(not(header_secret_name_ok(name, HEADER_SECRET_NAME_MAX + 1)));
    cr_assert(not(header_secret_name_ok("", 0)));
    cr_assert(not(header_secret_name_ok("a\0b", 3)));
}
