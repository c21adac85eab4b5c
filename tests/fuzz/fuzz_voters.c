/* What stands in Consul of the log's voters: the answer of its key-value store, and the document itself; the first byte chooses. A document
 * that is taken is a valid one and prints to itself, and whatever an agent makes of it is a valid one again. */
#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/voters_doc.h"
#include "consul/consul_kv.h"
#include "consul/consul_self.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_valid(const struct voters_doc *doc)
{
    char why[VOTERS_WHY_SIZE];
    assert(voters_valid(doc, why));
}

static void check_printed(const struct voters_doc *doc)
{
    struct buf text = BUF_INIT(VOTERS_DOC_MAX);
    struct voters_doc again = {0};
    struct err e = {0};
    assert(voters_doc_print(doc, &text, &e) == 0);
    assert(voters_doc_parse(buf_str(&text), text.len, &again, &e) == 0);
    assert(memcmp(doc, &again, sizeof(again)) == 0);
    buf_fini(&text);
}

/* The one of NUMBER looks at DOC as the leader of a log whose voters are those of DOC, or as one that knows nothing of the log. */
static void check_step(const struct voters_doc *doc, const struct voter *v, bool leads)
{
    struct voters_me me = {
        .number = v->number, .used = leads, .has_data = leads, .wanted = doc->wanted, .name = "me"};
    struct voters_log log = {.known = leads, .leads = leads, .has_leader = leads};
    struct voters_seen seen = {0};
    struct voters_doc next;
    memcpy(me.folder, v->folder, sizeof(me.folder));
    memcpy(me.set, doc->set, sizeof(me.set));
    memcpy(me.address, v->address, sizeof(me.address));
    for (size_t i = 0; leads && i < doc->count; i++) {
        log.list[log.count].number = doc->list[i].number;
        log.list[log.count].votes = true;
        memcpy(log.list[log.count++].address, doc->list[i].address, VOTERS_ADDRESS_SIZE);
    }
    for (int64_t now_ms = 1000; now_ms < 60000; now_ms += 11000) {
        struct voters_now now = {.now_ms = now_ms, .wall_ms = now_ms, .doc = doc, .me = &me, .log = &log};
        if (voters_step(&seen, &now, &next))
            check_valid(&next);
    }
}

static void document(const char *text, size_t bytes)
{
    struct voters_doc doc = {0};
    if (voters_doc_parse(text, bytes, &doc, NULL) < 0)
        return;
    check_valid(&doc);
    check_printed(&doc);
    for (size_t i = 0; i < doc.count; i++) {
        check_step(&doc, &doc.list[i], false);
        check_step(&doc, &doc.list[i], true);
    }
}

static void answer(const char *body, size_t bytes)
{
    char *value;
    size_t value_bytes;
    uint64_t index;
    if (consul_kv_parse(body, bytes, &value, &value_bytes, &index, NULL) < 0)
        return;
    assert(value[value_bytes] == '\0');
    document(value, value_bytes);
    mem_free(value);
}

static void self(const char *body, size_t bytes)
{
    struct consul_self s;
    if (consul_self_parse(body, bytes, &s, NULL) == 0)
        assert(s.node[0] && memchr(s.node, '\0', sizeof(s.node)) &&
               memchr(s.address, '\0', sizeof(s.address)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    if (size == 0)
        return 0;
    if (data[0] == 'k')
        answer(text, size - 1);
    else if (data[0] == 's')
        self(text, size - 1);
    else
        document(text, size - 1);
    return 0;
}
