#include "agent/cli/payload.h"

#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/document.h"

#define PAYLOAD_MAX ((size_t)1 << 20) /* the agent's own limit is lower, and it says so itself */

static int read_data(const char *data, FILE *in, struct buf *ret, struct err *e)
{
    if (data[0] == '@')
        return document_read_file(data + 1, in, ret, e);
    buf_add_str(ret, data);
    return buf_check(ret, e);
}

static int set_json(json_t *job, const struct buf *text, struct err *e)
{
    json_t *payload = NULL;
    int r = json_read(buf_str(text), text->len, PAYLOAD_MAX, &payload, e);
    if (r == -ERR_INVALID)
        return err_wrap(e, "no JSON (a text needs its quotes: '\"text\"')");
    return r < 0 ? r : json_set(job, "payload", payload, e);
}

static int set_bytes(json_t *job, const struct buf *bytes, const char *content_type, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(PAYLOAD_MAX * 4 / 3 + 4);
    text_base64_encode(&text, buf_str(bytes), bytes->len);
    int r = buf_check(&text, e);
    if (r == 0)
        r = json_set(job, "payload_base64", json_string(buf_str(&text)), e);
    return r < 0 ? r : json_set(job, "content_type", json_string(content_type), e);
}

int payload_set(json_t *job, const char *data, FILE *in, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(PAYLOAD_MAX);
    if (!data)
        return 0;
    int r = read_data(data, in, &text, e);
    return r < 0 ? r : set_json(job, &text, e);
}

int payload_set_any(json_t *job, const char *data, FILE *in, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(PAYLOAD_MAX);
    if (!data)
        return 0;
    int r = read_data(data, in, &text, e);
    if (r < 0)
        return r;
    r = set_json(job, &text, e);
    const char *first = buf_str(&text) + strspn(buf_str(&text), " \t\r\n");
    bool meant = !*first || strchr("{[\"", *first) != NULL;
    return r == -ERR_INVALID && !meant ? set_bytes(job, &text, "text/plain", e) : r;
}

int payload_set_bytes(json_t *job, const char *data, const char *content_type, FILE *in, struct err *e)
{
    AUTO(buf_fini) struct buf bytes = BUF_INIT(PAYLOAD_MAX);
    int r = read_data(data, in, &bytes, e);
    return r < 0 ? r : set_bytes(job, &bytes, content_type, e);
}
