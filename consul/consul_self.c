#include "consul/consul_self.h"

#include <string.h>

#include "agent/base/json.h"

/* The text at DOC.SECTION.KEY; NULL: none, or longer than SIZE takes. */
static const char *text_at(const json_t *doc, const char *section, const char *key, size_t size)
{
    const char *text = json_string_value(json_object_get(json_object_get(doc, section), key));
    return text && text[0] && strlen(text) < size ? text : NULL;
}

int consul_self_parse(const char *body, size_t bytes, struct consul_self *ret, struct err *e)
{
    struct consul_self self = {0};
    json_t *doc = NULL;
    int rc = json_read(body, bytes, bytes, &doc, e);
    if (rc == -ERR_NOMEM)
        return rc;
    if (rc < 0)
        return err_set(e, ERR_PROTOCOL, "Consul's answer about itself is no JSON");
    const char *node = text_at(doc, "Config", "NodeName", sizeof(self.node));
    const char *address = text_at(doc, "Member", "Addr", sizeof(self.address));
    if (node)
        memcpy(self.node, node, strlen(node) + 1);
    if (address)
        memcpy(self.address, address, strlen(address) + 1);
    json_decref(doc);
    if (!node)
        return err_set(e, ERR_PROTOCOL, "Consul does not tell the name of its node");
    *ret = self;
    return 0;
}
