/* What the lanes need to send safely: signing keys, secrets, and where callbacks may go. Files are looked at every SAFETY_LOOK_MS on a
 * thread of its own and read again when they changed; who uses a table keeps it as long as needed, whatever takes its place. */
#ifndef CARILLON_CALLBACK_SAFETY_H
#define CARILLON_CALLBACK_SAFETY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "callback/guard.h"
#include "callback/secrets.h"
#include "callback/sign.h"

struct loop;
struct safety;

#define SAFETY_LOOK_MS 4000

struct safety_options {
    struct loop *loop;
    const char *signing_keys_file; /* NULL: nothing is signed */
    const char *secrets_dir;       /* NULL: there are no secrets */
    struct guard_options guard;
    int64_t look_ms; /* 0: SAFETY_LOOK_MS */
};

/* Reads everything; blocks. Errors as sign_keys_load(), secrets_load(), guard_new(), worker_pool_new(). */
int safety_new(const struct safety_options *options, struct safety **ret, struct err *e);
/* Loop thread. Waits for a look under way. NULL does nothing. Who still uses tables of it may go on. */
void safety_free(struct safety *s);
/* Loop thread: these networks from now on. As before after ERR_INVALID, ERR_TOO_BIG, ERR_NOMEM. */
int safety_set_guard(struct safety *s, const struct guard_options *guard, struct err *e);
/* Loop thread: this process has opened or closed listeners. Without it that is noticed at the next look. */
void safety_listeners_changed(struct safety *s);

/* Tables in force together; NULL: not configured. */
struct safety_use {
    struct sign_keys *keys;
    struct secrets *secrets;
    struct guard *guard;
};
/* Any thread. S may be NULL: nothing is configured. safety_unuse() must follow. */
void safety_use(struct safety *s, struct safety_use *ret);
/* Any thread; USE is empty then. */
void safety_unuse(struct safety_use *use);

/* Any thread: whether jobs of NS may name the secret; without secrets_dir this cannot be judged (another agent may own the job and have it), and is true. One that came after the
 * last look is read now, which blocks shortly. ARG is the struct safety. */
bool safety_secret_known(void *arg, const char *ns, const char *name, size_t name_len);

#endif
