#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/text.h"

Test(err, set_returns_the_negative_code_and_keeps_the_text)
{
    struct err e;
    cr_assert(eq(int, err_set(&e, ERR_RETRY, "row %d", 7), -ERR_RETRY));
    cr_assert(eq(int, (int)e.code, ERR_RETRY));
    cr_assert(eq(str, e.text, "row 7"));
}

Test(err, wrap_puts_newest_context_first)
{
    struct err e;
    (void)err_sys(&e, ENOENT, "open '%s'", "x");
    cr_assert(eq(int, err_wrap(&e, "load snapshot '%s'", "x"), -ERR_NOT_FOUND));
    cr_assert(eq(str, e.text, "load snapshot 'x': open 'x': No such file or directory"));
    cr_assert(eq(int, e.sys, ENOENT));
}

Test(err, wrap_without_a_record_returns_the_code_of_the_last_failure)
{
    (void)err_set(NULL, ERR_BUSY, "queue");
    cr_assert(eq(int, err_wrap(NULL, "post"), -ERR_BUSY));
    (void)err_sys(NULL, ETIMEDOUT, "connect");
    cr_assert(eq(int, err_wrap(NULL, "call"), -ERR_TIMEOUT));
}

Test(err, arguments_may_point_into_the_record)
{
    struct err e;
    (void)err_set(&e, ERR_INVALID, "inner");
    (void)err_set(&e, ERR_PROTOCOL, "outer(%s)", e.text);
    cr_assert(eq(str, e.text, "outer(inner)"));
}

Test(err, long_texts_are_cut_between_characters)
{
    for (size_t pad = 0; pad < 8; pad++) {
        char text[400];
        memset(text, 'a', pad);
        for (size_t i = pad; i + 3 < sizeof(text); i += 3)
            memcpy(text + i, "\xE2\x82\xAC", 4);
        struct err e;
        (void)err_set(&e, ERR_INVALID, "%s", text);
        cr_assert(lt(sz, strlen(e.text), sizeof(e.text)));
        cr_assert(ge(sz, strlen(e.text), sizeof(e.text) - 4));
        cr_assert(text_utf8_valid(e.text, strlen(e.text)), "pad %zu", pad);
        (void)err_wrap(&e, "context");
        cr_assert(text_utf8_valid(e.text, strlen(e.text)), "wrapped, pad %zu", pad);
    }
}

Test(err, every_code_has_a_name_of_its_own)
{
    for (int i = 0; i < ERR_COUNT_; i++) {
        const char *name = err_code_name((enum err_code)i);
        cr_assert(ne(str, (char *)name, "unknown"));
        for (int j = 0; j < i; j++)
            cr_assert(ne(str, (char *)name, (char *)err_code_name((enum err_code)j)));
    }
    cr_assert(eq(str, (char *)err_code_name(ERR_COUNT_), "unknown"));
}

Test(err, clear_makes_an_empty_record)
{
    struct err e;
    (void)err_sys(&e, EIO, "x");
    err_clear(&e);
    cr_assert(eq(int, (int)e.code, ERR_OK));
    cr_assert(eq(str, e.text, ""));
    err_clear(NULL);
}
