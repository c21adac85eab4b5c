/* The secrets that headers of callbacks may name: a folder a namespace, in it a file a secret, as Kubernetes mounts them. A table is
 * what the folder held when it was read, and never changes; any thread. */
#ifndef CARILLON_CALLBACK_SECRETS_H
#define CARILLON_CALLBACK_SECRETS_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/base/mem.h"

struct err;
struct secrets;

#define SECRETS_MAX             20000
#define SECRETS_VALUE_MAX       8192
#define SECRETS_VALUE_MAX_BYTES ((size_t)64 << 20) /* of all values */

/* Read DIR, with one reference for the caller; blocks. White space at the end of a file is cut off. Other files than
 * <namespace>/<name> are left out. A secret that cannot be used stays known, with the reason. ERR_NOT_FOUND or ERR_IO: DIR itself;
 * ERR_TOO_BIG: over the limits; ERR_NOMEM. */
int secrets_load(const char *dir, struct secrets **ret, struct err *e);
struct secrets *secrets_ref(struct secrets *s); /* NULL gives NULL */
void secrets_unref(struct secrets *s);          /* NULL does nothing */
DEFINE_AUTO(secrets_unref, struct secrets *);
size_t secrets_count(const struct secrets *s);

/* The value of NAME in NS, which header_secret_name_ok(): a header's text of 1 to SECRETS_VALUE_MAX bytes, borrowed from S.
 * ERR_NOT_FOUND; ERR_INVALID: it is there, but cannot be used. The texts of both name the secret, not its file. */
int secrets_find(const struct secrets *s, const char *ns, const char *name, size_t name_len, const char **ret,
                 struct err *e);
/* Whether there is a file for it, now, in DIR; blocks shortly. */
bool secrets_exists(const char *dir, const char *ns, const char *name, size_t name_len);

#endif
