#include "agent/peer_auth.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/text.h"

#define VERSION      "v1"
#define DIGEST_BYTES 32
#define DIGEST_HEX   (2 * DIGEST_BYTES + 1)
#define CLIENT       "-" /* stands for the empty member id */
#define FIELDS       6
#define STAMP_SIZE   (PEER_AUTH_SIZE - DIGEST_HEX)

static int digest(const void *data, size_t bytes, uint8_t ret[DIGEST_BYTES], struct err *e)
{
    if (fault_hit() || EVP_Digest(data, bytes, ret, NULL, EVP_sha256(), NULL) != 1)
        return err_set(e, ERR_NOMEM, "no memory for a digest");
    return 0;
}

static bool member_valid(const char *member)
{
    size_t len = strlen(member);
    for (size_t i = 0; i < len; i++)
        if (member[i] <= ' ' || member[i] >= 127)
            return false;
    return len > 0 && len < RECORD_MEMBER_MAX;
}

/* Every part ends in a line feed, which none of them can hold, so no two messages have the same text. */
static int mac(const struct peer_auth_secret *secret, const struct peer_auth_message *msg, const char *stamp,
               uint8_t ret[DIGEST_BYTES], struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(1 << 20);
    buf_addf(&text, "carillon peer %s\n", VERSION);
    buf_add_str(&text, msg->method);
    buf_add_char(&text, '\n');
    buf_add_str(&text, msg->target);
    buf_add_char(&text, '\n');
    buf_add_str(&text, msg->context);
    buf_add_char(&text, '\n');
    buf_add_str(&text, stamp);
    if (buf_check(&text, e) < 0)
        return err_wrap(e, "sign");
    unsigned len = DIGEST_BYTES;
    if (fault_hit() || secret->bytes > INT32_MAX ||
        !HMAC(EVP_sha256(), secret->data, (int)secret->bytes, (const unsigned char *)buf_str(&text), text.len,
              ret, &len))
        return err_set(e, ERR_NOMEM, "no memory to sign");
    return 0;
}

int peer_auth_sign(const struct peer_auth_secret *secret, const struct peer_auth_message *msg,
                   const char *member, int64_t now_ms, uint64_t nonce, char ret[PEER_AUTH_SIZE],
                   struct err *e)
{
    uint8_t body[DIGEST_BYTES], code[DIGEST_BYTES];
    char body_hex[DIGEST_HEX], code_hex[DIGEST_HEX], stamp[STAMP_SIZE];
    if (*member == '\0')
        member = CLIENT;
    if (!member_valid(member))
        return err_set(e, ERR_INVALID, "member id '%s' cannot stand in a header",
                       TEXTQ(member, strlen(member)));
    if (digest(msg->body, msg->body_bytes, body, e) < 0)
        return -ERR_NOMEM;
    text_hex_encode(body, sizeof(body), body_hex);
    (void)snprintf(stamp, sizeof(stamp), "%s %s %lld %016llx %s", VERSION, member, (long long)now_ms,
                   (unsigned long long)nonce, body_hex); /* fits: the id's length is checked */
    int rc = mac(secret, msg, stamp, code, e);
    if (rc < 0)
        return rc;
    text_hex_encode(code, sizeof(code), code_hex);
    (void)snprintf(ret, PEER_AUTH_SIZE, "%s %s", stamp, code_hex);
    return 0;
}

/* VALUE's fields: where each begins and how long it is. */
static bool split(const char *value, const char *at[FIELDS], size_t len[FIELDS])
{
    for (size_t i = 0; i < FIELDS; i++) {
        at[i] = value;
        len[i] = strcspn(value, " ");
        value += len[i];
        if (len[i] == 0 || (*value == '\0') != (i == FIELDS - 1))
            return false;
        value += i < FIELDS - 1;
    }
    return true;
}

int peer_auth_verify(const struct peer_auth_secret *secret, const char *value,
                     const struct peer_auth_message *msg, int64_t now_ms, struct peer_auth *ret,
                     struct err *e)
{
    const char *at[FIELDS];
    size_t len[FIELDS];
    struct peer_auth auth = {.member = ""};
    uint8_t given[DIGEST_BYTES], code[DIGEST_BYTES];
    int64_t sent_ms = 0;
    char stamp[STAMP_SIZE];
    if (!value)
        return err_set(e, ERR_AUTH, "the header %s is missing", PEER_AUTH_HEADER);
    if (strlen(value) >= PEER_AUTH_SIZE || !split(value, at, len) || len[1] >= RECORD_MEMBER_MAX ||
        text_i64(at[2], len[2], 0, INT64_MAX / 2, &sent_ms, NULL) < 0 ||
        text_hex_decode(at[4], len[4], auth.body_digest, sizeof(auth.body_digest), NULL) < 0 ||
        text_hex_decode(at[5], len[5], given, sizeof(given), NULL) < 0)
        return err_set(e, ERR_AUTH, "the header %s is not understood", PEER_AUTH_HEADER);
    size_t stamp_len = (size_t)(at[5] - value) - 1; /* the code takes the rest of PEER_AUTH_SIZE */
    memcpy(stamp, value, stamp_len);
    stamp[stamp_len] = '\0';
    int rc = mac(secret, msg, stamp, code, e);
    if (rc < 0)
        return rc;
    if (CRYPTO_memcmp(code, given, sizeof(code)) != 0)
        return err_set(e, ERR_AUTH, "the signature is of another secret or another request");
    if (sent_ms < now_ms - PEER_AUTH_WINDOW_MS || sent_ms > now_ms + PEER_AUTH_WINDOW_MS)
        return err_set(e, ERR_AUTH, "signed %lld ms %s our clock; at most %d ms are allowed",
                       (long long)(sent_ms < now_ms ? now_ms - sent_ms : sent_ms - now_ms),
                       sent_ms < now_ms ? "before" : "after", PEER_AUTH_WINDOW_MS);
    if (len[1] != 1 || at[1][0] != CLIENT[0])
        memcpy(auth.member, at[1], len[1]); /* shorter than the zeroed array */
    memcpy(&auth.tag, code, sizeof(auth.tag));
    *ret = auth;
    return 0;
}

int peer_auth_verify_body(const struct peer_auth *auth, const void *body, size_t bytes, struct err *e)
{
    uint8_t found[DIGEST_BYTES];
    int rc = digest(body, bytes, found, e);
    if (rc < 0)
        return rc;
    if (CRYPTO_memcmp(found, auth->body_digest, sizeof(found)) != 0)
        return err_set(e, ERR_AUTH, "the body is not the one that was signed");
    return 0;
}
