#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/voters_doc.h"

static struct voters_doc sample(void)
{
    struct voters_doc doc = {.set = "f1", .wanted = 3, .next = 9, .fixed = true, .unsure = true};
    doc.first[doc.first_count++] = (struct voter){.number = 1, .state = VOTER_MEMBER, .address = "a:7422"};
    doc.list[doc.count++] =
        (struct voter){.number = 1, .state = VOTER_LOST, .folder = "f1", .name = "a-1", .address = "a:7422"};
    doc.list[doc.count++] = (struct voter){
        .number = 8, .state = VOTER_JOINING, .folder = "f2", .name = "b", .address = "[::1]:7422", .beat = 7};
    return doc;
}

static int read_text(const char *text, struct voters_doc *ret)
{
    struct err e = {0};
    return voters_doc_parse(text, strlen(text), ret, &e);
}

Test(voters_doc, what_was_printed_is_read_again)
{
    struct voters_doc doc = sample(), read = {0};
    struct buf text = BUF_INIT(VOTERS_DOC_MAX);
    struct err e = {0};
    cr_assert(zero(int, voters_doc_print(&doc, &text, &e)));
    cr_assert(zero(int, voters_doc_parse(buf_str(&text), text.len, &read, &e)), "%s", e.text);
    cr_assert(zero(int, memcmp(&doc, &read, sizeof(doc))), "%s", buf_str(&text));
    buf_fini(&text);
}

Test(voters_doc, what_makes_no_sense_is_refused_and_changes_nothing)
{
    static const char *const wrong[] = {
        "",
        "[]",
        "{}",
        "{\"version\":2,\"set\":\"x\",\"wanted\":3,\"next\":2,\"fixed\":true}",
        "{\"version\":1,\"set\":\"x\",\"wanted\":3,\"next\":2,\"fixed\":true,\"voters\":[]}",
        "{\"version\":1,\"set\":\"x\",\"wanted\":3,\"next\":2,\"fixed\":true,\"voters\":[{\"number\":1,"
        "\"state\":\"king\",\"address\":\"a:1\"}]}",
        "{\"version\":1,\"set\":\"x\",\"wanted\":3,\"next\":2,\"fixed\":true,\"voters\":[{\"number\":1,"
        "\"state\":\"voter\",\"address\":\"nowhere\"}]}",
        "{\"version\":1,\"set\":\"x\",\"wanted\":3,\"next\":2,\"fixed\":true,\"voters\":[7]}",
        "{\"version\":1,\"set\":\"x\",\"wanted\":3,\"next\":1,\"fixed\":true,\"voters\":[{\"number\":1,"
        "\"state\":\"voter\",\"address\":\"a:1\"}]}",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        struct voters_doc doc = sample(), before = sample();
        cr_assert(eq(int, read_text(wrong[i], &doc), -ERR_INVALID), "%s", wrong[i]);
        cr_assert(zero(int, memcmp(&doc, &before, sizeof(doc))));
    }
}

Test(voters_doc, reading_and_printing_survive_the_loss_of_any_allocation)
{
    struct voters_doc doc = sample();
    struct buf whole = BUF_INIT(VOTERS_DOC_MAX);
    cr_assert(zero(int, voters_doc_print(&doc, &whole, NULL)));
    for (unsigned k = 0;; k++) {
        struct voters_doc read = {0};
        struct buf text = BUF_INIT(VOTERS_DOC_MAX);
        struct err e = {0};
        fault_arm(k);
        int r = voters_doc_print(&doc, &text, &e);
        if (r == 0)
            r = voters_doc_parse(buf_str(&whole), whole.len, &read, &e);
        bool fired = fault_fired();
        buf_fini(&text);
        if (!fired) {
            cr_assert(zero(int, r), "%s", e.text);
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
    }
    buf_fini(&whole);
}
