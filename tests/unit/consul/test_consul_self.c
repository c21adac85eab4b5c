#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "consul/consul_self.h"

#define ANSWER \
    "{\"Config\":{\"NodeName\":\"rack-7\",\"Datacenter\":\"dc1\"},\"Member\":{\"Addr\":\"10.1.2.3\"}}"

static int parse(const char *body, struct consul_self *ret, struct err *e)
{
    return consul_self_parse(body, strlen(body), ret, e);
}

Test(consul_self, tells_node_and_address)
{
    struct consul_self self;
    struct err e = {0};
    cr_assert(zero(int, parse(ANSWER, &self, &e)), "%s", e.text);
    cr_assert(eq(str, self.node, "rack-7"));
    cr_assert(eq(str, self.address, "10.1.2.3"));
    cr_assert(zero(int, parse("{\"Config\":{\"NodeName\":\"n\"}}", &self, &e)), "%s", e.text);
    cr_assert(eq(str, self.node, "n"));
    cr_assert(eq(str, self.address, ""));
}

Test(consul_self, nonsense_changes_nothing)
{
    char longer[400];
    snprintf(longer, sizeof(longer), "{\"Config\":{\"NodeName\":\"%0200d\"}}", 7);
    const char *const bodies[] = {"",
                                  "x",
                                  "{}",
                                  "[]",
                                  "{\"Config\":7}",
                                  "{\"Config\":{\"NodeName\":7}}",
                                  "{\"Config\":{\"NodeName\":\"\"}}",
                                  longer};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct consul_self self = {.node = "as before"};
        struct err e = {0};
        cr_assert(eq(int, parse(bodies[i], &self, &e), -ERR_PROTOCOL), "%s", bodies[i]);
        cr_assert(eq(str, self.node, "as before"));
    }
}

Test(consul_self, every_failure_is_clean)
{
    for (unsigned k = 0;; k++) {
        struct consul_self self = {.node = "as before"};
        struct err e = {0};
        fault_arm(k);
        int rc = parse(ANSWER, &self, &e);
        bool fired = fault_fired();
        fault_disarm();
        if (!fired) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(lt(int, rc, 0), "k=%u", k);
        cr_assert(eq(str, self.node, "as before"), "k=%u", k);
    }
}
