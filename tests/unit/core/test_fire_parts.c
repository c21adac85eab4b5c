#include "agent/core/fire_parts.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

static const char *const three[] = {"10.0.0.9:80", "10.0.0.10:80", "10.0.0.1:80"};

static struct fire_parts *made(const char *const *list, size_t count)
{
    struct fire_parts *parts;
    struct err e = {0};
    cr_assert_eq(fire_parts_new(list, count, &parts, &e), 0, "%s", e.text);
    return parts;
}

static struct fire_parts *parsed(const struct buf *text)
{
    struct fire_parts *parts;
    struct err e = {0};
    cr_assert_eq(fire_parts_parse(text->data, text->len, &parts, &e), 0, "%s", e.text);
    return parts;
}

Test(fire_parts, the_order_depends_on_addresses_alone)
{
    static const char *const shuffled[] = {"10.0.0.10:80", "10.0.0.1:80", "10.0.0.9:80", "10.0.0.1:80"};
    AUTO(fire_parts_free) struct fire_parts *a = made(three, 3), *b = made(shuffled, 4);
    cr_assert_eq(a->count, 3);
    cr_assert_eq(b->count, 3, "doubles count once");
    for (size_t i = 0; i < 3; i++)
        cr_assert_str_eq(a->items[i].endpoint, b->items[i].endpoint);
    cr_assert_eq(fire_parts_count(a, FIRE_PART_PENDING), 3);
}

Test(fire_parts, what_is_printed_reads_back)
{
    AUTO(fire_parts_free) struct fire_parts *a = made(three, 3);
    AUTO(buf_fini) struct buf text = BUF_INIT(4096), again = BUF_INIT(4096);
    a->items[0].state = FIRE_PART_SUCCEEDED;
    a->items[0].status = 204;
    a->items[0].attempts = 2;
    a->items[1].attempts = 1;
    a->items[2].state = FIRE_PART_GONE;
    fire_parts_print(a, &text);
    cr_assert_str_eq(
        buf_str(&text),
        "[{\"part\":1,\"endpoint\":\"10.0.0.10:80\",\"outcome\":\"succeeded\",\"status\":204,\"attempts\":2},"
        "{\"part\":2,\"endpoint\":\"10.0.0.1:80\",\"outcome\":\"pending\",\"status\":null,\"attempts\":1},"
        "{\"part\":3,\"endpoint\":\"10.0.0.9:80\",\"outcome\":\"gone\",\"status\":null,\"attempts\":0}]");
    AUTO(fire_parts_free) struct fire_parts *b = parsed(&text);
    fire_parts_print(b, &again);
    cr_assert_str_eq(buf_str(&again), buf_str(&text));
}

Test(fire_parts, the_largest_list_reads_back)
{
    static char names[FIRE_PARTS_MAX][FIRE_PARTS_ENDPOINT_BYTES];
    const char *list[FIRE_PARTS_MAX + 1];
    struct fire_parts *none;
    for (size_t i = 0; i < FIRE_PARTS_MAX; i++) {
        memset(names[i], '"', sizeof(names[i]) - 1); /* the longest when escaped */
        (void)snprintf(names[i], 8, "%06zu", i);
        names[i][6] = '.';
        list[i] = names[i];
    }
    list[FIRE_PARTS_MAX] = "one too many";
    cr_assert_eq(fire_parts_new(list, FIRE_PARTS_MAX + 1, &none, NULL), -ERR_TOO_BIG);
    AUTO(fire_parts_free) struct fire_parts *a = made(list, FIRE_PARTS_MAX);
    AUTO(buf_fini) struct buf text = BUF_INIT(FIRE_PARTS_TEXT_MAX);
    fire_parts_print(a, &text);
    cr_assert_eq(buf_check(&text, NULL), 0);
    AUTO(fire_parts_free) struct fire_parts *b = parsed(&text);
    cr_assert_eq(b->count, FIRE_PARTS_MAX);
    cr_assert_str_eq(b->items[255].endpoint, names[255]);
}

Test(fire_parts, lists_that_cannot_be_are_refused)
{
    static const char *const nameless[] = {"a:1", ""};
    static const char *const texts[] = {"",
                                        "{}",
                                        "[]",
                                        "[1]",
                                        "[{}]",
                                        "[{\"endpoint\":\"a:1\"}]",
                                        "[{\"endpoint\":\"a:1\",\"outcome\":\"?\"}]",
                                        "[{\"endpoint\":7,\"outcome\":\"pending\"}]",
                                        "[{\"endpoint\":\"a:1\",\"outcome\":\"pending\",\"status\":-2}]"};
    struct fire_parts *none;
    cr_assert_eq(fire_parts_new(three, 0, &none, NULL), -ERR_INVALID);
    cr_assert_eq(fire_parts_new(nameless, 2, &none, NULL), -ERR_TOO_BIG);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        cr_assert_eq(fire_parts_parse(texts[i], strlen(texts[i]), &none, NULL), -ERR_INVALID, "%s", texts[i]);
}

Test(fire_parts, every_failed_allocation_is_an_error)
{
    AUTO(fire_parts_free) struct fire_parts *a = made(three, 3);
    AUTO(buf_fini) struct buf text = BUF_INIT(4096);
    fire_parts_print(a, &text);
    for (unsigned k = 0; k < 2; k++) {
        struct fire_parts *b = NULL;
        fault_arm(k);
        int r = fire_parts_new(three, 3, &b, NULL);
        cr_assert_eq(r == 0, !fault_fired());
        cr_assert_eq(r == 0, b != NULL);
        fire_parts_free(b);
    }
    for (unsigned k = 0, struck = 1; struck; k++) {
        struct fire_parts *b = NULL;
        fault_arm(k);
        int r = fire_parts_parse(text.data, text.len, &b, NULL);
        struck = fault_fired();
        cr_assert_eq(r == 0, !struck);
        cr_assert_eq(r == 0, b != NULL);
        fire_parts_free(b);
    }
}

Test(fire_parts, closing_leaves_what_has_ended)
{
    AUTO(fire_parts_free) struct fire_parts *a = made(three, 3);
    a->items[1].state = FIRE_PART_SUCCEEDED;
    fire_parts_close(a, FIRE_PART_CANCELLED);
    cr_assert_eq(fire_parts_count(a, FIRE_PART_CANCELLED), 2);
    cr_assert_eq(fire_parts_count(a, FIRE_PART_SUCCEEDED), 1);
}
