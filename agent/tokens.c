#include "agent/tokens.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/base/yaml_tree.h"
#include "agent/io/file.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)
#define UID_MAX        4294967294u /* the last one means "nobody" to the kernel's calls */

struct tokens {
    atomic_uint refs;
    size_t count;
    struct token items[TOKENS_MAX];
};

_Static_assert(TOKEN_NAMESPACE_SIZE == TEXT_NAMESPACE_MAX + 1, "a namespace fits");

struct tokens *tokens_ref(struct tokens *t)
{
    if (t)
        atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void tokens_unref(struct tokens *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < t->count; i++)
        mem_free(t->items[i].namespaces);
    mem_free(t);
}

size_t tokens_count(const struct tokens *t)
{
    return t->count;
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

struct reader {
    const char *file;
    struct tokens *t;
    struct token *now;
    bool has_digest;
};

static int wrong(const struct reader *r, const struct yaml_node *at, const char *key, const struct err *why,
                 struct err *e)
{
    return err_set(e, why->code, "%s:%u: %s: %s", r->file, at->line, key, why->text);
}

static int need_text(const struct yaml_node *n, struct err *e)
{
    return n->kind == YAML_SCALAR && !yaml_node_is_null(n)
               ? 0
               : err_set(e, ERR_INVALID, "must be a text, not %s", yaml_node_kind_name(n));
}

static int read_name(struct reader *r, const struct yaml_node *n, struct err *e)
{
    if (need_text(n, e) < 0)
        return -ERR_INVALID;
    if (text_check_id(n->text, n->text_len, e) < 0)
        return -ERR_INVALID;
    if (n->text_len >= sizeof(r->now->name))
        return err_set(e, ERR_INVALID, "is over %zu characters", sizeof(r->now->name) - 1);
    memcpy(r->now->name, n->text, n->text_len + 1);
    return 0;
}

/* What is wrong here is not quoted: it may be the token itself. */
static int read_sha256(struct reader *r, const struct yaml_node *n, struct err *e)
{
    if (n->kind != YAML_SCALAR || n->text_len != sizeof(r->now->sha256) * 2 ||
        text_hex_decode(n->text, n->text_len, r->now->sha256, sizeof(r->now->sha256), NULL) < 0)
        return err_set(e, ERR_INVALID, "must be 64 hexadecimal digits: printf %%s TOKEN | sha256sum");
    r->has_digest = true;
    return 0;
}

static int read_uid(struct reader *r, const struct yaml_node *n, struct err *e)
{
    r->now->is_uid = true;
    return need_text(n, e) < 0 ? -ERR_INVALID : text_u32(n->text, n->text_len, 0, UID_MAX, &r->now->uid, e);
}

static int read_can(struct reader *r, const struct yaml_node *n, struct err *e)
{
    if (n->kind != YAML_LIST || n->count == 0)
        return err_set(e, ERR_INVALID, "must be a list of read, write, operate");
    for (size_t i = 0; i < n->count; i++) {
        const struct yaml_node *item = &n->items[i];
        unsigned can = 0;
        for (unsigned bit = TOKEN_CAN_READ; bit <= TOKEN_CAN_OPERATE; bit <<= 1)
            if (item->kind == YAML_SCALAR && strcmp(item->text, token_can_name(bit)) == 0)
                can = bit;
        if (!can)
            return err_set(e, ERR_INVALID, "must be a list of read, write, operate");
        r->now->can |= can;
    }
    return 0;
}

static int read_namespaces(struct reader *r, const struct yaml_node *n, struct err *e)
{
    struct token *t = r->now;
    if (n->kind != YAML_LIST || n->count == 0 || n->count > TOKEN_NAMESPACES_MAX)
        return err_set(e, ERR_INVALID, "must be a list of 1 to %d namespaces, or [\"*\"]",
                       TOKEN_NAMESPACES_MAX);
    t->namespaces = (char(*)[TOKEN_NAMESPACE_SIZE])(void *)mem_try_array(n->count, sizeof(*t->namespaces), e);
    if (!t->namespaces)
        return -ERR_NOMEM;
    for (size_t i = 0; i < n->count; i++) {
        const struct yaml_node *item = &n->items[i];
        if (need_text(item, e) < 0)
            return -ERR_INVALID;
        if (strcmp(item->text, "*") == 0) {
            t->everywhere = true;
            continue;
        }
        if (text_check_namespace(item->text, item->text_len, e) < 0)
            return -ERR_INVALID;
        memcpy(t->namespaces[t->namespaces_count++], item->text, item->text_len + 1);
    }
    return 0;
}

/* A date is its first moment in UTC. */
static int read_expires(struct reader *r, const struct yaml_node *n, struct err *e)
{
    char text[48] = "";
    if (need_text(n, e) < 0)
        return -ERR_INVALID;
    bool date = n->text_len == 10;
    if (n->text_len <= 30)
        (void)snprintf(text, sizeof(text), "%s%s", n->text, date ? "T00:00:00Z" : ""); /* fits */
    if (text_instant_ms(text, strlen(text), &r->now->expires_ms, NULL) < 0)
        return err_set(e, ERR_INVALID,
                       "'%s' is neither a date (2027-01-01) nor an instant (2027-01-01T12:00:00Z)",
                       TEXTQ(n->text, n->text_len));
    return 0;
}

static int read_rate(struct reader *r, const struct yaml_node *n, struct err *e)
{
    return need_text(n, e) < 0 ? -ERR_INVALID : text_double(n->text, n->text_len, 0, 1e6, &r->now->rate, e);
}

static const struct {
    const char *key;
    int (*read)(struct reader *r, const struct yaml_node *n, struct err *e);
} fields[] = {
    {"name", read_name}, {"sha256", read_sha256},   {"uid", read_uid},   {"namespaces", read_namespaces},
    {"can", read_can},   {"expires", read_expires}, {"rate", read_rate},
};

static int read_field(struct reader *r, const char *key, const struct yaml_node *n, struct err *e)
{
    struct err why;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (strcmp(fields[i].key, key) == 0)
            return fields[i].read(r, n, &why) < 0 ? wrong(r, n, key, &why, e) : 0;
    return err_set(e, ERR_INVALID,
                   "%s:%u: '%s' is not known; allowed are name, sha256, uid, namespaces, can, expires, rate",
                   r->file, n->line, TEXTQ(key, strlen(key)));
}

static int check_entry(const struct reader *r, const struct yaml_node *at, struct err *e)
{
    const struct token *t = r->now;
    const char *lacks = !t->name[0]                                  ? "name"
                        : !r->has_digest && !t->is_uid               ? "sha256 (or uid)"
                        : !t->can                                    ? "can"
                        : !t->everywhere && t->namespaces_count == 0 ? "namespaces"
                                                                     : NULL;
    if (lacks)
        return err_set(e, ERR_INVALID, "%s:%u: the entry has no %s", r->file, at->line, lacks);
    if (r->has_digest && t->is_uid)
        return err_set(e, ERR_INVALID, "%s:%u: the entry has both sha256 and uid; make it two", r->file,
                       at->line);
    for (const struct token *other = r->t->items; other < t; other++) {
        if (strcmp(other->name, t->name) == 0)
            return err_set(e, ERR_INVALID, "%s:%u: name: '%s' is there twice", r->file, at->line, t->name);
        if (other->is_uid == t->is_uid &&
            (t->is_uid ? other->uid == t->uid : memcmp(other->sha256, t->sha256, sizeof(t->sha256)) == 0))
            return err_set(e, ERR_INVALID, "%s:%u: '%s' and '%s' have the same %s", r->file, at->line,
                           other->name, t->name, t->is_uid ? "uid" : "sha256");
    }
    return 0;
}

static int read_entry(struct reader *r, const struct yaml_node *n, struct err *e)
{
    if (n->kind != YAML_MAP)
        return err_set(e, ERR_INVALID, "%s:%u: must be {name, sha256, namespaces, can}, not %s", r->file,
                       n->line, yaml_node_kind_name(n));
    if (r->t->count == TOKENS_MAX)
        return err_set(e, ERR_TOO_BIG, "%s:%u: more than %d tokens", r->file, n->line, TOKENS_MAX);
    r->now = &r->t->items[r->t->count];
    r->has_digest = false;
    r->now->index = r->t->count++; /* counted at once: what it holds is freed with the table */
    r->now->expires_ms = INT64_MAX;
    for (size_t i = 0; i < n->count; i++) {
        int rc = read_field(r, n->keys[i], &n->items[i], e);
        if (rc < 0)
            return rc;
    }
    return check_entry(r, n, e);
}

int tokens_parse(const char *name, const char *text, size_t len, struct tokens **ret, struct err *e)
{
    AUTO(yaml_tree_free) struct yaml_tree *tree = NULL;
    int rc = yaml_tree_read(name, text, len, &tree, e);
    if (rc < 0)
        return rc;
    const struct yaml_node *root = yaml_tree_root(tree);
    if (root->kind != YAML_LIST)
        return err_set(e, ERR_INVALID, "%s: must be a list: - {name, sha256, namespaces, can}", name);
    AUTO(tokens_unref) struct tokens *t = mem_try_alloc(sizeof(*t), e);
    if (!t)
        return err_wrap(e, "%s", name);
    memset(t, 0, sizeof(*t));
    atomic_init(&t->refs, 1);
    struct reader r = {.file = name, .t = t};
    for (size_t i = 0; i < root->count; i++) {
        rc = read_entry(&r, &root->items[i], e);
        if (rc < 0)
            return rc;
    }
    *ret = TAKE(t);
    return 0;
}

int tokens_load(const char *file, struct tokens **ret, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(FILE_BYTES_MAX);
    int rc = file_read(file, &text, e);
    return rc < 0 ? rc : tokens_parse(file, buf_str(&text), text.len, ret, e);
}

/* --- asking -------------------------------------------------------------------------------------------------------- */

const struct token *tokens_find(const struct tokens *t, const char *secret, size_t len)
{
    uint8_t digest[TOKEN_DIGEST_BYTES];
    const struct token *found = NULL;
    if (EVP_Digest(secret, len, digest, NULL, EVP_sha256(), NULL) != 1)
        return NULL;
    /* All are compared, each in constant time: when it takes as long whoever asks, time tells nothing. */
    for (size_t i = 0; i < t->count; i++) {
        bool same = CRYPTO_memcmp(t->items[i].sha256, digest, sizeof(digest)) == 0;
        found = same && !t->items[i].is_uid ? &t->items[i] : found;
    }
    return found;
}

const struct token *tokens_find_uid(const struct tokens *t, uint32_t uid)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->items[i].is_uid && t->items[i].uid == uid)
            return &t->items[i];
    return NULL;
}

const struct token *tokens_find_same(const struct tokens *t, const struct token *who)
{
    if (who->is_uid)
        return tokens_find_uid(t, who->uid);
    for (size_t i = 0; i < t->count; i++)
        if (!t->items[i].is_uid && CRYPTO_memcmp(t->items[i].sha256, who->sha256, sizeof(who->sha256)) == 0)
            return &t->items[i];
    return NULL;
}

bool token_in_namespace(const struct token *t, const char *ns)
{
    for (size_t i = 0; i < t->namespaces_count; i++)
        if (strcmp(t->namespaces[i], ns) == 0)
            return true;
    return t->everywhere;
}

bool token_list_has(const char *list, const char *ns)
{
    size_t len = strlen(ns);
    if (*list == '\0')
        return true;
    for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == len && memcmp(at, ns, len) == 0)
            return true;
    return false;
}

void token_print_namespaces(const struct token *t, char ret[TOKEN_LIST_SIZE])
{
    size_t at = 0;
    ret[0] = '\0';
    for (size_t i = 0; !t->everywhere && i < t->namespaces_count; i++)
        at += (size_t)snprintf(ret + at, TOKEN_LIST_SIZE - at, "%s%s", i ? "," : "",
                               t->namespaces[i]); /* fits */
}

const char *token_can_name(enum token_can can)
{
    return can == TOKEN_CAN_READ ? "read" : can == TOKEN_CAN_WRITE ? "write" : "operate";
}
