/* Allocation. mem_new* abort when memory is out: for small fixed sizes only, where going on makes no sense (whoever
 * runs us starts us again, and the store has the state). Sizes that come from a peer, a file or a user go through
 * mem_try_*, which are capped and may fail. All memory is malloc's and may be released with free(). Any thread. */
#ifndef CARILLON_BASE_MEM_H
#define CARILLON_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

struct err;

/* No single mem_try_* request may be larger: a length of this size is a mistake or an attack. */
#define MEM_TRY_MAX_BYTES ((size_t)1 << 30)

/* Zeroed; never NULL. */
#define mem_new(type)          ((type *)mem_alloc_or_die(1, sizeof(type)))
#define mem_new_array(type, n) ((type *)mem_alloc_or_die((n), sizeof(type)))

/* Implementation of mem_new*: zeroed, aborts when N * SIZE_BYTES overflows or memory is out. */
void *mem_alloc_or_die(size_t n, size_t size_bytes);

/* Resize P (may be NULL); new bytes are not zeroed. Aborts when memory is out. */
void *mem_realloc_or_die(void *p, size_t size_bytes);

/* Copy of the NUL-terminated S, which must be small and ours; aborts without memory. NULL gives NULL. */
char *mem_strdup(const char *s);

/* SIZE_BYTES zeroed bytes (at least 1), or NULL with ERR_TOO_BIG (over MEM_TRY_MAX_BYTES) or ERR_NOMEM. */
void *mem_try_alloc(size_t size_bytes, struct err *e);

/* N zeroed elements, the product checked. Errors as mem_try_alloc. */
void *mem_try_array(size_t n, size_t size_bytes, struct err *e);

/* Resize P (may be NULL) to N elements; new bytes are not zeroed. On failure NULL, and P stays valid and the caller's.
 * Errors as mem_try_alloc. */
void *mem_try_realloc(void *p, size_t n, size_t size_bytes, struct err *e);

/* NUL-terminated copy of LEN bytes. Errors as mem_try_alloc. */
char *mem_try_strndup(const char *s, size_t len, struct err *e);

/* free(); NULL does nothing. */
void mem_free(void *p);

/* Overwrite a secret such that the compiler cannot drop it, then free. NULL does nothing. */
void mem_free_secret(void *p, size_t size_bytes);

/* AUTO(fn) T *x = …; calls fn(x) when x goes out of scope (fn gets the value, not its address; fn(NULL) must do
 * nothing). TAKE(x) hands x out and leaves NULL behind. AUTO needs DEFINE_AUTO(fn, T *) once, in the header of fn. */
#define AUTO(fn) __attribute__((cleanup(fn##_auto_)))
#define DEFINE_AUTO(fn, type)              \
    static inline void fn##_auto_(type *p) \
    {                                      \
        fn(*p);                            \
    }                                      \
    struct fn##_auto_needs_semicolon_
#define TAKE(p)                    \
    __extension__({                \
        __typeof__(p) take_ = (p); \
        (p) = NULL;                \
        take_;                     \
    })

/* AUTO(mem_free) for a pointer of any type, so it is written out: cleanup hands over the address of the variable. */
static inline void mem_free_auto_(void *p)
{
    mem_free(*(void **)p);
}

/* close() unless negative; keeps errno. For AUTO(fd_close). */
void fd_close(int fd);
DEFINE_AUTO(fd_close, int);
/* TAKE() for a descriptor: hands *FD out and leaves -1 behind. */
static inline int fd_take(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Faults for tests, per thread: after fault_arm(K) the K-th fallible step from now (0 = the next) fails, once; after
 * fault_arm_threads(K) the K-th of all threads, for what works on threads of its own. mem_try_*, the JSON and YAML readers and every
 * I/O wrapper ask fault_hit() before they do their work. Compiled in with CARILLON_TEST only; otherwise fault_hit() is the constant
 * false. */
#ifdef CARILLON_TEST
void fault_arm(unsigned k);
void fault_arm_threads(unsigned k);
bool fault_fired(void); /* whether it struck since fault_arm; disarms */
bool fault_waits(void); /* whether fault_arm's has not struck yet */
void fault_disarm(void);
bool fault_hit(void); /* for wrappers: true = fail now */
/* While HOLD, the steps of this thread do not count: for what stands in for something outside of the process. */
void fault_hold(bool hold);
#else
static inline void fault_hold(bool hold)
{
    (void)hold;
}
static inline bool fault_hit(void)
{
    return false;
}
#endif

#endif
