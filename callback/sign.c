#include "callback/sign.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/text.h"
#include "agent/io/file.h"

#define PREFIX            "whsec_"
#define SCOPE_MAX         (TEXT_NAMESPACE_MAX + 1 + 128)
#define KEY_ID_MAX        64
#define SIGNED_BYTES_MAX  ((size_t)64 << 20)
#define NAME_CHARS        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
#define SIGNATURE_VERSION "v1,"

struct key {
    char scope[SCOPE_MAX + 1];
    char id[KEY_ID_MAX + 1];
    unsigned line;
    unsigned char bytes[SIGN_KEY_MAX_BYTES];
    size_t bytes_count;
};

struct sign_keys {
    atomic_uint refs;
    struct key *keys; /* by scope, then by line */
    size_t count, capacity;
};

/* --- reading ------------------------------------------------------------------------------------------------------- */

struct field {
    const char *text;
    size_t len;
};

/* The next of LINE's fields, cut off its front; of length 0 at its end. */
static struct field next_field(struct field *line)
{
    while (line->len > 0 && (*line->text == ' ' || *line->text == '\t'))
        line->text++, line->len--;
    struct field f = {line->text, 0};
    while (f.len < line->len && f.text[f.len] != ' ' && f.text[f.len] != '\t')
        f.len++;
    line->text += f.len;
    line->len -= f.len;
    return f;
}

static bool is_name(const char *s, size_t len, size_t max)
{
    if (len == 0 || len > max)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!s[i] || !strchr(NAME_CHARS, s[i]))
            return false;
    return true;
}

static bool is_scope(const struct field *f)
{
    const char *slash = memchr(f->text, '/', f->len);
    size_t ns = slash ? (size_t)(slash - f->text) : f->len;
    if (f->len == 1 && f->text[0] == '*')
        return true;
    return text_check_namespace(f->text, ns, NULL) == 0 &&
           (!slash || is_name(slash + 1, f->len - ns - 1, 128));
}

static int read_secret(struct key *key, const struct field *f, struct err *e)
{
    struct buf bytes = BUF_INIT(SIGN_KEY_MAX_BYTES);
    size_t prefix = strlen(PREFIX);
    int rc = -ERR_INVALID;
    if (f->len > prefix && memcmp(f->text, PREFIX, prefix) == 0)
        rc = text_base64_decode(&bytes, f->text + prefix, f->len - prefix, NULL);
    if (rc == 0 && bytes.len >= SIGN_KEY_MIN_BYTES) {
        memcpy(key->bytes, bytes.data, bytes.len);
        key->bytes_count = bytes.len;
    } else if (rc != -ERR_NOMEM) {
        rc = -ERR_INVALID;
    }
    mem_free_secret(bytes.data, bytes.len);
    if (rc == -ERR_NOMEM)
        return err_set(e, ERR_NOMEM, "no memory for a signing key");
    return rc < 0 ? err_set(e, ERR_INVALID, "the key must be whsec_ and the base64 of %d to %d bytes",
                            SIGN_KEY_MIN_BYTES, SIGN_KEY_MAX_BYTES)
                  : 0;
}

static int read_key(struct key *key, struct field line, struct err *e)
{
    struct field scope = next_field(&line), id = next_field(&line), secret = next_field(&line);
    if (secret.len == 0 || next_field(&line).len > 0)
        return err_set(e, ERR_INVALID, "must be a scope, a key id and a key");
    if (!is_scope(&scope))
        return err_set(e, ERR_INVALID, "the scope must be a namespace, namespace/service or *");
    if (!is_name(id.text, id.len, KEY_ID_MAX))
        return err_set(e, ERR_INVALID, "the key id must be 1 to %d of [A-Za-z0-9._-]", KEY_ID_MAX);
    memcpy(key->scope, scope.text, scope.len);
    memcpy(key->id, id.text, id.len);
    return read_secret(key, &secret, e);
}

static int add_line(struct sign_keys *k, struct field line, unsigned number, struct err *e)
{
    struct field rest = line, first = next_field(&rest);
    if (first.len == 0 || first.text[0] == '#')
        return 0;
    if (k->count == SIGN_KEYS_MAX)
        return err_set(e, ERR_TOO_BIG, "more than %d keys", SIGN_KEYS_MAX);
    if (k->count == k->capacity) { /* moved by hand: realloc() would leave keys behind */
        size_t capacity = k->capacity ? 2 * k->capacity : 16;
        struct key *keys = mem_try_array(capacity, sizeof(*keys), e);
        if (!keys)
            return -ERR_NOMEM;
        if (k->count > 0)
            memcpy(keys, k->keys, k->count * sizeof(*keys));
        mem_free_secret(k->keys, k->capacity * sizeof(*keys));
        k->keys = keys;
        k->capacity = capacity;
    }
    struct key *key = &k->keys[k->count++];
    key->line = number;
    return read_key(key, line, e);
}

static int compare_keys(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    int by_scope = strcmp(x->scope, y->scope);
    return by_scope ? by_scope : (x->line > y->line) - (x->line < y->line);
}

/* Sorted: what one scope may not have. */
static int check_scopes(const struct sign_keys *k, struct err *e)
{
    for (size_t i = 0, begin = 0; i < k->count; i++) {
        if (strcmp(k->keys[begin].scope, k->keys[i].scope) != 0)
            begin = i;
        if (i - begin >= SIGN_KEYS_PER_SCOPE_MAX)
            return err_set(e, ERR_INVALID, "line %u: a scope has at most %d keys", k->keys[i].line,
                           SIGN_KEYS_PER_SCOPE_MAX);
        for (size_t j = begin; j < i; j++)
            if (strcmp(k->keys[j].id, k->keys[i].id) == 0)
                return err_set(e, ERR_INVALID, "line %u: line %u has the same scope and key id",
                               k->keys[i].line, k->keys[j].line);
    }
    return 0;
}

int sign_keys_parse(const char *text, size_t len, struct sign_keys **ret, struct err *e)
{
    AUTO(sign_keys_unref) struct sign_keys *k = mem_try_alloc(sizeof(*k), e);
    if (!k)
        return -ERR_NOMEM;
    atomic_init(&k->refs, 1);
    unsigned number = 0;
    for (size_t at = 0, end; at < len; at = end + 1) {
        const char *newline = memchr(text + at, '\n', len - at);
        end = newline ? (size_t)(newline - text) : len;
        size_t bytes = end - at;
        if (bytes > 0 && text[end - 1] == '\r')
            bytes--;
        number++;
        int rc = add_line(k, (struct field){text + at, bytes}, number, e);
        if (rc < 0)
            return err_wrap(e, "line %u", number);
    }
    if (k->count > 0)
        qsort(k->keys, k->count, sizeof(*k->keys), compare_keys);
    int rc = check_scopes(k, e);
    if (rc < 0)
        return rc;
    *ret = TAKE(k);
    return 0;
}

int sign_keys_load(const char *path, struct sign_keys **ret, struct err *e)
{
    struct buf text = BUF_INIT(SIGN_FILE_MAX);
    int rc = file_read(path, &text, e);
    if (rc == 0) {
        rc = sign_keys_parse(buf_str(&text), text.len, ret, e);
        if (rc < 0)
            rc = err_wrap(e, "'%s'", path);
    }
    mem_free_secret(text.data, text.len);
    return rc;
}

struct sign_keys *sign_keys_ref(struct sign_keys *k)
{
    if (k)
        atomic_fetch_add(&k->refs, 1);
    return k;
}

void sign_keys_unref(struct sign_keys *k)
{
    if (!k || atomic_fetch_sub(&k->refs, 1) > 1)
        return;
    mem_free_secret(k->keys, k->capacity * sizeof(*k->keys));
    mem_free(k);
}

size_t sign_keys_count(const struct sign_keys *k)
{
    return k->count;
}

/* --- signing ------------------------------------------------------------------------------------------------------- */

/* The first key of SCOPE; as many follow as have the same scope. NULL: none. */
static const struct key *find_scope(const struct sign_keys *k, const char *scope)
{
    size_t low = 0, high = k->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(k->keys[middle].scope, scope) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < k->count && strcmp(k->keys[low].scope, scope) == 0 ? &k->keys[low] : NULL;
}

static const struct key *find_keys(const struct sign_keys *k, const struct sign_message *m)
{
    char scope[SCOPE_MAX + 1];
    size_t ns = strlen(m->ns), service = m->service ? strlen(m->service) : 0;
    const struct key *found = NULL;
    if (m->service && ns + 1 + service <= SCOPE_MAX) {
        memcpy(scope, m->ns, ns);
        scope[ns] = '/';
        memcpy(scope + ns + 1, m->service, service + 1);
        found = find_scope(k, scope);
    }
    if (!found)
        found = find_scope(k, m->ns);
    return found ? found : find_scope(k, "*");
}

static int add_signed_text(struct buf *text, const struct sign_message *m, struct err *e)
{
    buf_addf(text, "%s.%lld.", m->id, (long long)m->timestamp_s);
    if (m->body)
        buf_add(text, m->body, m->body_bytes);
    return buf_check(text, e);
}

static int add_signature(struct buf *out, const struct key *key, struct buf *text, struct err *e)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned mac_bytes;
    if (fault_hit() || !HMAC(EVP_sha256(), key->bytes, (int)key->bytes_count,
                             (const unsigned char *)buf_str(text), text->len, mac, &mac_bytes))
        return err_set(e, ERR_NOMEM, "out of memory for a signature");
    buf_add_str(out, SIGNATURE_VERSION);
    text_base64_encode(out, mac, mac_bytes);
    return buf_check(out, e);
}

int sign_message(const struct sign_keys *k, const struct sign_message *m, struct buf *out, struct err *e)
{
    const struct key *key = find_keys(k, m), *first = key;
    if (!key)
        return 0;
    AUTO(buf_fini) struct buf text = BUF_INIT(SIGNED_BYTES_MAX);
    int rc = add_signed_text(&text, m, e);
    for (; rc == 0 && key < k->keys + k->count && strcmp(key->scope, first->scope) == 0; key++) {
        if (key != first)
            buf_add_char(out, ' ');
        rc = add_signature(out, key, &text, e);
    }
    return rc;
}

/* --- verifying ----------------------------------------------------------------------------------------------------- */

static bool is_among(struct field signatures, const char *wanted, size_t len)
{
    bool found = false;
    for (struct field f = next_field(&signatures); f.len > 0; f = next_field(&signatures))
        found |= f.len == len && CRYPTO_memcmp(f.text, wanted, len) == 0;
    return found;
}

int sign_verify(const struct sign_keys *k, const struct sign_message *m, const char *signatures,
                bool *ret_good, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(SIGNED_BYTES_MAX);
    AUTO(buf_fini) struct buf one = BUF_INIT(128);
    bool good = false;
    int rc = add_signed_text(&text, m, e);
    for (size_t i = 0; rc == 0 && i < k->count; i++) {
        buf_reset(&one);
        rc = add_signature(&one, &k->keys[i], &text, e);
        if (rc == 0)
            good |= is_among((struct field){signatures, strlen(signatures)}, buf_str(&one), one.len);
    }
    if (rc == 0)
        *ret_good = good;
    return rc;
}
