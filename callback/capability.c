#include "callback/capability.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"

#define MAC_BYTES 16 /* of the 32: nobody guesses 128 bits */

static void put_number(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (56 - 8 * i));
}

void capability_make(const struct capability *c, const struct uid *uid, uint64_t seq, uint32_t attempt,
                     char ret[CAPABILITY_SIZE])
{
    static const char purpose[] = "carillon complete"; /* with its NUL: this secret may get other uses */
    uint8_t message[sizeof(purpose) + sizeof(uid->bytes) + 16], mac[EVP_MAX_MD_SIZE];
    unsigned mac_bytes = 0;
    memcpy(message, purpose, sizeof(purpose));
    memcpy(message + sizeof(purpose), uid->bytes, sizeof(uid->bytes));
    put_number(message + sizeof(purpose) + sizeof(uid->bytes), seq);
    put_number(message + sizeof(purpose) + sizeof(uid->bytes) + 8, attempt);
    const void *made =
        HMAC(EVP_sha256(), c->secret, sizeof(c->secret), message, sizeof(message), mac, &mac_bytes);
    assert(made && mac_bytes >= MAC_BYTES && "SHA-256 is always there");
    int len = snprintf(ret, CAPABILITY_SIZE, "%u.", attempt);
    assert(len > 0 && (size_t)len + 2 * MAC_BYTES < CAPABILITY_SIZE);
    text_hex_encode(mac, MAC_BYTES, ret + len);
}

bool capability_check(const struct capability *c, const struct uid *uid, uint64_t seq, const char *text,
                      uint32_t *ret_attempt)
{
    char right[CAPABILITY_SIZE];
    size_t digits = strcspn(text, ".");
    uint32_t attempt;
    if (text_u32(text, digits, 1, UINT32_MAX, &attempt, NULL) < 0)
        return false;
    capability_make(c, uid, seq, attempt, right);
    size_t len = strlen(right);
    if (strlen(text) != len || CRYPTO_memcmp(text, right, len) != 0)
        return false;
    *ret_attempt = attempt;
    return true;
}
