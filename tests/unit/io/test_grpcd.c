#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/grpcd.h"

/* What it does with calls is seen in tests/unit/callback/test_callback_grpc.c, whose callee it is. */

static void ignore(struct grpcd_call *call, void *arg)
{
    (void)arg;
    grpcd_reply(call, 0, NULL, NULL, 0);
}

Test(grpcd, the_kernel_chooses_a_port_and_a_taken_one_is_refused)
{
    struct grpcd_options o = {.listen = "127.0.0.1:0", .handle = ignore};
    struct grpcd *first, *second = NULL;
    struct err e = {0};
    cr_assert(zero(int, grpcd_start(&o, &first, &e)), "%s", e.text);
    cr_assert(gt(u16, grpcd_port(first), 0));
    o.listen = grpcd_address(first);
    cr_assert(eq(int, grpcd_start(&o, &second, &e), -ERR_UNAVAILABLE));
    cr_assert(zero(ptr, second));
    cr_assert(ne(ptr, strstr(e.text, grpcd_address(first)), NULL), "%s", e.text);
    grpcd_stop(first);
}

Test(grpcd, what_is_no_address_or_no_certificate_is_refused)
{
    struct grpcd_options o = {.listen = "nowhere", .handle = ignore};
    struct grpcd *g = NULL;
    struct err e = {0};
    cr_assert(eq(int, grpcd_start(&o, &g, &e), -ERR_INVALID));
    cr_assert(zero(ptr, g));
    grpcd_stop(NULL);
}

Test(grpcd, every_failure_of_its_start_leaves_nothing)
{
    struct grpcd_options o = {.listen = "127.0.0.1:0", .handle = ignore};
    struct grpcd *g = NULL;
    unsigned k = 0;
    for (;; k++) {
        struct err e = {0};
        fault_arm(k);
        int rc = grpcd_start(&o, &g, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc), "%s", e.text);
            break;
        }
        cr_assert(lt(int, rc, 0), "k=%u", k);
        cr_assert(ne(str, e.text, ""), "k=%u", k);
        cr_assert(zero(ptr, g), "k=%u", k);
    }
    cr_assert(eq(uint, k, 2), "the port, the thread");
    grpcd_stop(g);
}
