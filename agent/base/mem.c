#define _GNU_SOURCE

#include "agent/base/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/err.h"

#ifdef CARILLON_TEST
/* Per thread, so that a test's fault never strikes a thread it did not mean. */
static _Thread_local struct {
    bool armed;
    bool fired;
    unsigned left;
} fault;

static _Thread_local bool held;

/* Of fault_arm_threads(). */
static atomic_uint threads_left; /* the step that fails, from 1; 0: none */
static atomic_bool threads_fired;

void fault_arm(unsigned k)
{
    fault_disarm();
    fault.armed = true;
    fault.left = k;
}

void fault_arm_threads(unsigned k)
{
    fault_disarm();
    atomic_store(&threads_left, k + 1);
}

bool fault_fired(void)
{
    fault.armed = false;
    atomic_store(&threads_left, 0);
    return fault.fired || atomic_load(&threads_fired);
}

bool fault_waits(void)
{
    return fault.armed && !fault.fired;
}

void fault_disarm(void)
{
    fault.armed = false;
    fault.fired = false;
    atomic_store(&threads_left, 0);
    atomic_store(&threads_fired, false);
}

static bool thread_hit(void)
{
    if (!fault.armed || fault.fired)
        return false;
    if (fault.left > 0) {
        fault.left--;
        return false;
    }
    fault.fired = true;
    return true;
}

static bool threads_hit(void)
{
    unsigned left = atomic_load(&threads_left);
    while (left > 0 && !atomic_compare_exchange_weak(&threads_left, &left, left - 1))
        ;
    if (left == 1)
        atomic_store(&threads_fired, true);
    return left == 1;
}

bool fault_hit(void)
{
    return !held && (thread_hit() || threads_hit());
}

void fault_hold(bool hold)
{
    held = hold;
}
#endif

static void *or_die(void *p)
{
    if (!p) {
        (void)!write(STDERR_FILENO, "out of memory\n", 14); /* nothing is left to report a failure with */
        abort();
    }
    return p;
}

void *mem_alloc_or_die(size_t n, size_t size_bytes)
{
    return or_die(calloc(n ? n : 1, size_bytes ? size_bytes : 1));
}

void *mem_realloc_or_die(void *p, size_t size_bytes)
{
    return or_die(realloc(p, size_bytes ? size_bytes : 1));
}

char *mem_strdup(const char *s)
{
    if (!s)
        return NULL;
    size_t size = strlen(s) + 1;
    return memcpy(mem_alloc_or_die(1, size), s, size);
}

static int check_size(size_t n, size_t size_bytes, size_t *ret_total, struct err *e)
{
    size_t total;
    if (__builtin_mul_overflow(n, size_bytes, &total) || total > MEM_TRY_MAX_BYTES)
        return err_set(e, ERR_TOO_BIG, "refusing to allocate %zu times %zu bytes", n, size_bytes);
    *ret_total = total ? total : 1;
    return 0;
}

static void *no_memory(size_t total, struct err *e)
{
    (void)err_set(e, ERR_NOMEM, "no memory for %zu bytes", total); /* the caller returns NULL for it */
    return NULL;
}

void *mem_try_alloc(size_t size_bytes, struct err *e)
{
    return mem_try_array(1, size_bytes, e);
}

void *mem_try_array(size_t n, size_t size_bytes, struct err *e)
{
    size_t total;
    if (check_size(n, size_bytes, &total, e) < 0)
        return NULL;
    void *p = fault_hit() ? NULL : calloc(1, total);
    return p ? p : no_memory(total, e);
}

void *mem_try_realloc(void *p, size_t n, size_t size_bytes, struct err *e)
{
    size_t total;
    if (check_size(n, size_bytes, &total, e) < 0)
        return NULL;
    void *grown = fault_hit() ? NULL : realloc(p, total);
    return grown ? grown : no_memory(total, e);
}

char *mem_try_strndup(const char *s, size_t len, struct err *e)
{
    if (len >= MEM_TRY_MAX_BYTES) {
        (void)err_set(e, ERR_TOO_BIG, "refusing to copy %zu bytes", len); /* NULL tells the caller */
        return NULL;
    }
    char *copy = fault_hit() ? NULL : malloc(len + 1);
    if (!copy)
        return no_memory(len + 1, e);
    if (len)
        memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}

void mem_free(void *p)
{
    free(p);
}

void mem_free_secret(void *p, size_t size_bytes)
{
    if (!p)
        return;
    explicit_bzero(p, size_bytes);
    free(p);
}

void fd_close(int fd)
{
    if (fd < 0)
        return;
    int keep = errno;
    (void)close(fd); /* the descriptor is gone on Linux whatever close says */
    errno = keep;
}
