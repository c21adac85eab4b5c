#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "consul/consul_service.h"

static int parse(const char *body, struct consul_instances *ret)
{
    struct err e = {0};
    return consul_instances_parse(body, strlen(body), ret, &e);
}

#define FULL                                                                                                         \
    "{\"Node\":{\"Node\":\"n1\",\"Address\":\"10.1.0.1\",\"Meta\":{\"zone\":\"z-node\"}},"                           \
    "\"Service\":{\"ID\":\"b-1\",\"Service\":\"b\",\"Tags\":[\"v1\",\"v2\"],\"Address\":\"10.2.0.1\",\"Port\":8080," \
    "\"Weights\":{\"Passing\":5,\"Warning\":1},\"Meta\":{\"zone\":\"z-service\"}},\"Checks\":[]}"

Test(consul_service, reads_all_of_an_entry)
{
    struct consul_instances list;
    cr_assert(zero(int, parse("[" FULL "]", &list)));
    cr_assert(eq(sz, list.count, 1));
    const struct consul_instance *i = &list.items[0];
    cr_assert(eq(str, (char *)i->id, "b-1"));
    cr_assert(eq(str, (char *)i->address, "10.2.0.1"));
    cr_assert(eq(u16, i->port, 8080));
    cr_assert(eq(str, (char *)i->node, "n1"));
    cr_assert(eq(str, (char *)i->zone, "z-service"));
    cr_assert(eq(u32, i->weight, 5));
    cr_assert(eq(str, i->tags[0], "v1"));
    cr_assert(eq(str, i->tags[1], "v2"));
    cr_assert(zero(ptr, i->tags[2]));
    consul_instances_fini(&list);
    cr_assert(zero(sz, list.count));
}

Test(consul_service, takes_the_nodes_address_and_zone_and_weight_one_when_the_service_has_none)
{
    struct consul_instances list;
    cr_assert(zero(int, parse("[{\"Node\":{\"Address\":\"10.1.0.1\",\"Meta\":{\"zone\":\"zn\"}},"
                              "\"Service\":{\"Address\":\"\",\"Port\":1,\"Meta\":null,\"Tags\":null}}]",
                              &list)));
    cr_assert(eq(sz, list.count, 1));
    cr_assert(eq(str, list.items[0].address, "10.1.0.1"));
    cr_assert(eq(str, list.items[0].zone, "zn"));
    cr_assert(eq(u32, list.items[0].weight, 1));
    cr_assert(zero(ptr, list.items[0].tags[0]));
    consul_instances_fini(&list);
}

Test(consul_service, leaves_out_what_has_no_usable_address)
{
    char long_entry[1024], host[300];
    struct consul_instances list;
    memset(host, 'a', sizeof(host) - 1);
    host[sizeof(host) - 1] = '\0';
    snprintf(long_entry, sizeof(long_entry),
             "[{\"Node\":{\"Address\":\"10.1.0.1\"},\"Service\":{\"Address\":\"%s\",\"Port\":1}}]", host);
    const char *const bodies[] = {"[]",
                                  "[null,1,\"x\",[],{}]",
                                  "[{\"Service\":{\"Address\":\"a\"}}]",
                                  "[{\"Service\":{\"Address\":\"a\",\"Port\":0}}]",
                                  "[{\"Service\":{\"Address\":\"a\",\"Port\":65536}}]",
                                  "[{\"Service\":{\"Address\":\"a\",\"Port\":-1}}]",
                                  "[{\"Service\":{\"Address\":\"a\",\"Port\":\"80\"}}]",
                                  "[{\"Service\":{\"Address\":7,\"Port\":80}}]",
                                  "[{\"Service\":7,\"Node\":7}]",
                                  long_entry};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(*bodies); i++) {
        cr_assert(zero(int, parse(bodies[i], &list)), "%s", bodies[i]);
        cr_assert(zero(sz, list.count), "%s", bodies[i]);
        consul_instances_fini(&list);
    }
}

Test(consul_service, clamps_weights)
{
    static const struct {
        const char *weight;
        uint32_t expected;
    } cases[] = {{"0", 1}, {"-3", 1}, {"65535", 65535}, {"70000", 65535}, {"\"5\"", 1}, {"1.5", 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char body[256];
        struct consul_instances list;
        snprintf(body, sizeof(body),
                 "[{\"Service\":{\"Address\":\"a\",\"Port\":1,\"Weights\":{\"Passing\":%s}}}]",
                 cases[i].weight);
        cr_assert(zero(int, parse(body, &list)));
        cr_assert(eq(u32, list.items[0].weight, cases[i].expected), "%s", cases[i].weight);
        consul_instances_fini(&list);
    }
}

Test(consul_service, refuses_what_is_no_list)
{
    const char *const bodies[] = {"", "{}", "null", "7", "[", "<html>", "[1]x"};
    struct consul_instances list = {.count = 77};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(*bodies); i++) {
        cr_assert(eq(int, parse(bodies[i], &list), -ERR_PROTOCOL), "%s", bodies[i]);
        cr_assert(eq(sz, list.count, 77));
    }
}

Test(consul_service, without_memory_fails_and_leaves_nothing)
{
    struct consul_instances list = {.count = 77};
    struct err e = {0};
    unsigned k = 0;
    for (;; k++) {
        fault_arm(k);
        int rc = consul_instances_parse("[" FULL "," FULL "]", strlen("[" FULL "," FULL "]"), &list, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(lt(int, rc, 0), "k=%u", k);
        cr_assert(eq(sz, list.count, 77), "k=%u", k);
    }
    cr_assert(gt(uint, k, 3));
    cr_assert(eq(sz, list.count, 2));
    consul_instances_fini(&list);
}
