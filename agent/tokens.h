/* Who may use the API, and for what: the tokens of api.tokens_file. The file holds digests, never a token. A table is what the file
 * held when it was read, and never changes; any thread. */
#ifndef CARILLON_AGENT_TOKENS_H
#define CARILLON_AGENT_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

struct tokens;

enum token_can { TOKEN_CAN_READ = 1, TOKEN_CAN_WRITE = 2, TOKEN_CAN_OPERATE = 4 }; /* bits */

#define TOKENS_MAX           1000
#define TOKEN_NAME_SIZE      64
#define TOKEN_NAMESPACES_MAX 32
#define TOKEN_NAMESPACE_SIZE 64
#define TOKEN_DIGEST_BYTES   32

/* Of a table, and as long as it. */
struct token {
    char name[TOKEN_NAME_SIZE];
    bool is_uid; /* no secret, but whoever connects to a unix socket as this user */
    uint32_t uid;
    uint8_t sha256[TOKEN_DIGEST_BYTES];
    unsigned can;    /* enum token_can */
    bool everywhere; /* namespaces: ["*"] */
    char (*namespaces)[TOKEN_NAMESPACE_SIZE];
    size_t namespaces_count;
    int64_t expires_ms; /* wall clock; INT64_MAX: never */
    double rate;        /* requests a second; 0: as api.rate */
    size_t index;       /* in the table */
};

/* Read FILE, with one reference for the caller; blocks. The first problem ends it: ERR_INVALID with file and line; ERR_NOT_FOUND,
 * ERR_TOO_BIG, ERR_IO, ERR_NOMEM as file_read(). */
int tokens_load(const char *file, struct tokens **ret, struct err *e);
/* The same of TEXT; NAME stands in errors. */
int tokens_parse(const char *name, const char *text, size_t len, struct tokens **ret, struct err *e);
struct tokens *tokens_ref(struct tokens *t); /* NULL gives NULL */
void tokens_unref(struct tokens *t);         /* NULL does nothing */
DEFINE_AUTO(tokens_unref, struct tokens *);
size_t tokens_count(const struct tokens *t);

/* Whose token SECRET is, expired or not; NULL: nobody's, or there is no memory. Time depends on the length of SECRET and the number of
 * tokens only. */
const struct token *tokens_find(const struct tokens *t, const char *secret, size_t len);
/* The entry of a unix socket's peer; NULL: none. */
const struct token *tokens_find_uid(const struct tokens *t, uint32_t uid);
/* The entry with the digest or user of WHO, which may be another table's; NULL: none. */
const struct token *tokens_find_same(const struct tokens *t, const struct token *who);

/* Whether what the token may do it may do in NS. */
bool token_in_namespace(const struct token *t, const char *ns);
/* The same for a list as token_print_namespaces() made it. "" is every namespace. */
bool token_list_has(const char *list, const char *ns);
/* "a,b", "" for every namespace. */
#define TOKEN_LIST_SIZE (TOKEN_NAMESPACES_MAX * TOKEN_NAMESPACE_SIZE + 1)
void token_print_namespaces(const struct token *t, char ret[TOKEN_LIST_SIZE]);
/* "read", "write", "operate". */
const char *token_can_name(enum token_can can);

#endif
