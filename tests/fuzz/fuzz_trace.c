/* traceparent and, on the next line, tracestate of any client: what is taken reads back as itself, and so does what callbacks send
 * because of it. */
#include <assert.h>
#include <string.h>

#include "agent/core/trace.h"

static void check_same(const struct trace *t)
{
    struct trace again;
    trace_read(t->parent, t->state, &again);
    assert(strcmp(again.parent, t->parent) == 0 && strcmp(again.state, t->state) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[4096];
    struct trace t, sent;
    struct uid uid = {.bytes = {1}};
    if (size >= sizeof(text))
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    char *state = strchr(text, '\n');
    if (state)
        *state++ = '\0';
    trace_read(text, state, &t);
    assert(t.parent[0] || !t.state[0]);
    if (!t.parent[0])
        return 0;
    check_same(&t);
    trace_of_attempt(t.parent, t.state, &uid, 1, 1, 1, &sent);
    assert(strcmp(sent.parent + 52, t.parent + 52) == 0);
    check_same(&sent);
    assert(strncmp(sent.state, "carillon=", 9) == 0 && strncmp(sent.state + 9, t.parent, 55) == 0);
    return 0;
}
