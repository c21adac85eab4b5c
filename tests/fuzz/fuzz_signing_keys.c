/* A file of signing keys as somebody wrote it, then the same bytes as a header's value and as a network: what is refused says why in a
 * line that shows no key, what is taken signs. */
#include <assert.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/core/header_value.h"
#include "callback/guard.h"
#include "callback/sign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void keys(const char *text, size_t len)
{
    AUTO(sign_keys_unref) struct sign_keys *k = NULL;
    AUTO(buf_fini) struct buf out = BUF_INIT(1000);
    struct err e = {0};
    struct sign_message m = {.ns = "default", .service = "billing", .id = "i", .timestamp_s = 1};
    int rc = sign_keys_parse(text, len, &k, &e);
    assert((rc == 0) == (k != NULL));
    if (rc < 0) {
        assert(strncmp(e.text, "line ", 5) == 0 && !strstr(e.text, "whsec_A"));
        return;
    }
    assert(sign_message(k, &m, &out, &e) == 0);
    assert(out.len == 0 || out.len % 48 == 47); /* 47 bytes each, and a space between */
}

/* The pieces are the value, in order and without a gap. */
static void pieces(const char *value)
{
    const char *at = value;
    for (struct header_piece p; (p = header_value_next(&at)).kind != HEADER_PIECE_END;) {
        assert(p.len > 0 && p.text >= value && p.text + p.len <= at);
        assert(p.kind != HEADER_PIECE_SECRET || header_secret_name_ok(p.text, p.len));
        assert(p.kind != HEADER_PIECE_BROKEN || *at == '\0');
        assert(p.kind != HEADER_PIECE_TEXT || p.len == 2 || !memmem(p.text, p.len, "${", 2));
    }
    assert(at == value + strlen(value));
}

static void network(const char *text)
{
    char why[GUARD_WHY_SIZE];
    struct guard *g;
    if (guard_check_network(text, NULL) < 0)
        return;
    assert(guard_new(&(struct guard_options){.deny = &text, .deny_count = 1}, &g, NULL) == 0);
    char address[64];
    size_t cut = strcspn(text, "/");
    assert(cut < sizeof(address));
    memcpy(address, text, cut);
    address[cut] = '\0';
    assert(!guard_permits_ip(g, address, 80, false, why)); /* a network holds its own address */
    guard_unref(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e;
    char *text = mem_try_strndup((const char *)data, size, &e);
    if (!text)
        return 0;
    keys(text, size);
    pieces(text);
    network(text);
    mem_free(text);
    return 0;
}
