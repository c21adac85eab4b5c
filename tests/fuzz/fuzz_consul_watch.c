/* What Consul answers to the two kinds of watch: instances of a service and keys of members. Every entry that is taken must be
 * usable; the first byte chooses. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/text.h"
#include "consul/consul_service.h"
#include "consul/membership.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

static void instances(const char *body, size_t bytes)
{
    struct consul_instances list;
    if (consul_instances_parse(body, bytes, &list, NULL) < 0)
        return;
    for (size_t i = 0; i < list.count; i++) {
        const struct consul_instance *in = &list.items[i];
        check(in->address[0] != '\0' && in->port > 0 && in->weight >= 1 && in->weight <= 65535);
        check(memchr(in->zone, '\0', sizeof(in->zone)) && memchr(in->node, '\0', sizeof(in->node)));
        for (char **tag = in->tags; *tag; tag++)
            check(text_utf8_valid(*tag, strlen(*tag)));
    }
    consul_instances_fini(&list);
}

static void members(const char *body, size_t bytes)
{
    struct membership_member *list;
    size_t count;
    if (membership_parse(body, bytes, &list, &count, NULL) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        check(list[i].id[0] && list[i].name[0] && list[i].weight >= 1 && list[i].weight <= 1000);
        check(text_host_port(list[i].address, strlen(list[i].address), false, NULL, NULL, NULL, NULL) == 0);
        check(i == 0 || strcmp(list[i - 1].id, list[i].id) < 0);
    }
    mem_free(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        instances((const char *)data + 1, size - 1);
    else
        members((const char *)data + 1, size - 1);
    return 0;
}
