/* The store in memory: exact and simple, for tests and for whole agents on virtual time. Several stores opened on one world
 * see the same rows, as agents of one cluster do. Loop thread only. */
#ifndef CARILLON_STORE_STORE_MEM_H
#define CARILLON_STORE_STORE_MEM_H

#include <stdint.h>

#include "agent/store/store.h"

struct loop_msg;
struct store_mem_world;

/* What becomes of one call. */
enum store_mem_fault {
    STORE_MEM_OK,
    STORE_MEM_LOST_BEFORE, /* ERR_UNAVAILABLE: nothing happened */
    STORE_MEM_LOST_AFTER, /* a write happened, but ERR_UNKNOWN_OUTCOME is answered (a read: ERR_UNAVAILABLE) */
};

struct store_mem_options {
    struct store_mem_world *world; /* borrowed; NULL: one of the store's own */
    /* How a call travels: MSG->run, later on this thread, does the work and answers. NULL: loop_defer on the loop of open.
     * Every message must be run before close(). */
    void (*send)(void *arg, struct loop_msg *msg);
    /* Asked when MSG is run; OP is the name in struct store_ops. NULL: never a fault. */
    enum store_mem_fault (*fault)(void *arg, const char *op);
    /* How its answer travels back: MSG->run, once more, gives it. NULL: the work and the answer are one. */
    void (*reply)(void *arg, struct loop_msg *msg);
    /* Virtual CLOCK_BOOTTIME; NULL: the real one. */
    int64_t (*boot_ms)(void *arg);
    void *arg;
};

/* MSG is on its way back, and its answer is lost there. */
void store_mem_lose(struct loop_msg *msg);

struct store_mem_world *store_mem_world_new(void);
/* All stores on it must have been closed. */
void store_mem_world_free(struct store_mem_world *world);

#endif
