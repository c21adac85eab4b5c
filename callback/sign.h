/* Signatures of callbacks as Standard Webhooks 1.0 has them, and the keys for it. The file of the keys has a line a key,
 *
 *     <namespace>[/<service>] or *   <key id>   whsec_<base64>
 *
 * with blank lines and lines that begin with # between them. The most specific scope that covers a target signs, with all of its
 * keys, so that a key is replaced by giving the scope both for a while. A table never changes; any thread. */
#ifndef CARILLON_CALLBACK_SIGN_H
#define CARILLON_CALLBACK_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/mem.h"

struct buf;
struct err;
struct sign_keys;

#define SIGN_FILE_MAX           (4u << 20)
#define SIGN_KEYS_MAX           20000
#define SIGN_KEYS_PER_SCOPE_MAX 8
#define SIGN_KEY_MIN_BYTES      24 /* as the standard has it */
#define SIGN_KEY_MAX_BYTES      64

/* Read the text of such a file, with one reference for the caller. ERR_INVALID names the line and never shows a key;
 * ERR_TOO_BIG; ERR_NOMEM. */
int sign_keys_parse(const char *text, size_t len, struct sign_keys **ret, struct err *e);
/* The same from the file at PATH; blocks. Also the errors of file_read(). */
int sign_keys_load(const char *path, struct sign_keys **ret, struct err *e);
struct sign_keys *sign_keys_ref(struct sign_keys *k); /* NULL gives NULL */
void sign_keys_unref(struct sign_keys *k);            /* NULL does nothing */
DEFINE_AUTO(sign_keys_unref, struct sign_keys *);
size_t sign_keys_count(const struct sign_keys *k);

struct sign_message {
    const char *ns;
    const char *service; /* NULL: a direct target */
    const char *id;
    int64_t timestamp_s;
    const void *body; /* NULL: empty */
    size_t body_bytes;
};
/* Append "v1,<base64>" for each key that covers M to OUT, separated by spaces; nothing when none does. ERR_NOMEM, ERR_TOO_BIG (OUT
 * or the body). */
int sign_message(const struct sign_keys *k, const struct sign_message *m, struct buf *out, struct err *e);
/* For a callee: whether one of SIGNATURES, a header's value with spaces between them, is M's by any key of K. Scopes do not count: M's
 * ns and service are not looked at, nor is how old M is. Takes as long for a wrong one as for a right one. ERR_NOMEM, ERR_TOO_BIG (the
 * body). */
int sign_verify(const struct sign_keys *k, const struct sign_message *m, const char *signatures,
                bool *ret_good, struct err *e);

#endif
