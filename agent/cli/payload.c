#include "agent/cli/payload.h"

#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/json.h"
#include "agent/cli/document.h"

#define PAYLOAD_MAX ((size_t)1 << 20) /* the agent's own limit is lower, and it says so itself */

int payload_set(json_t *job, const char *data, FILE *in, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(PAYLOAD_MAX);
    json_t *payload = NULL;
    if (!data)
        return 0;
    int r = 0;
    if (data[0] == '@')
        r = document_read_file(data + 1, in, &text, e);
    else
        buf_add_str(&text, data);
    if (r == 0)
        r = buf_check(&text, e);
    if (r == 0)
        r = json_read(buf_str(&text), text.len, PAYLOAD_MAX, &payload, e);
    if (r == -ERR_INVALID && data[0] != '@')
        return err_wrap(e, "no JSON (a text needs its quotes: '\"text\"')");
    return r < 0 ? r : json_set(job, "payload", payload, e);
}
