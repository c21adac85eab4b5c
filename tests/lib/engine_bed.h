/* Agents without their shell, for tests of the engine: several in one process and on one loop, over one store in memory, with
 * real lanes to a callee and real listeners for the messages between them. Time is real; tests wait by running the loop until
 * what they wait for is so. */
#ifndef CARILLON_TESTS_LIB_ENGINE_BED_H
#define CARILLON_TESTS_LIB_ENGINE_BED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "agent/clock_guard.h"
#include "agent/config.h"
#include "agent/engine.h"
#include "agent/io/http.h"
#include "agent/io/httpd.h"
#include "agent/io/loop.h"
#include "agent/metrics.h"
#include "agent/store/store_mem.h"

enum { BED_AGENTS = 4, BED_SLOTS = 64, BED_LIVES = 8, BED_FIRES_MAX = 4096, BED_HELD_MAX = 256 };

struct engine_bed;

struct bed_agent {
    struct engine_bed *bed;
    struct httpd *httpd; /* for peers */
    void *store;
    struct engine *engine; /* the present life; NULL: none */
    struct engine *lives[BED_LIVES];
    size_t lives_count;
    _Atomic uint64_t owned[BED_SLOTS / 64 + 1];
    struct loop_msg rebirth;
    struct store_mem_options options;
    bool joined, left, clean;
    unsigned told_of_moves; /* of others; messages that arrived */
    /* Calls of the store that are named here fail in this way, FAULTS_LEFT times. */
    const char *fault_op;
    enum store_mem_fault fault;
    int faults_left;
    bool
        fault_steps; /* each call but a beat is two fallible steps: lost on the way there, and on the way back */
    bool hang;       /* calls of the store stay without an answer until engine_bed_go_on() */
    struct loop_msg *hung[64];
    size_t hung_count;
};

struct bed_fire {
    char id[56];
    int attempts;
};

struct engine_bed {
    struct loop *loop;
    struct loop_timer *patience;
    struct clock_guard *clock;
    struct http_client *http;
    struct metrics *metrics;
    struct config *config;
    const struct store_ops *ops; /* store_mem unless the test sets another before it starts an agent */
    int64_t wall_shift_us;
    bool known_ids; /* jobs are created under ids of the caller's own, which must be looked up */
    struct store_mem_world *world;
    struct bed_agent agents[BED_AGENTS];
    struct httpd *callee;
    char url[64];
    size_t answered; /* API writes */
    enum planner_answer last_answer;

    pthread_mutex_t lock; /* for what the callee saw */
    struct bed_fire fires[BED_FIRES_MAX];
    size_t fires_count;
    bool hold; /* answers wait for engine_bed_let_go() */
    struct httpd_request *held[BED_HELD_MAX];
    size_t held_count;
};

void engine_bed_open(struct engine_bed *bed);
/* Every agent's life must have ended. */
void engine_bed_close(struct engine_bed *bed);

struct bed_agent *engine_bed_start(struct engine_bed *bed, size_t which);
/* The same, after each fallible step of making its engine has failed once, of which there are *RET_FAULTS. */
struct bed_agent *engine_bed_start_under_faults(struct engine_bed *bed, size_t which, unsigned *ret_faults);
/* The wall clock shows so much more than the store's; also before engine_bed_open(). */
void engine_bed_shift_wall(struct engine_bed *bed, int64_t shift_us);
void engine_bed_go_on(struct bed_agent *a);
void engine_bed_leave(struct bed_agent *a, int64_t grace_ms);
size_t engine_bed_owned(const struct bed_agent *a);
bool engine_bed_lives_ended(const struct bed_agent *a);

/* Create a job ID through agent A, which must own its slot, with SCHEDULE ("@every 1s"). */
void engine_bed_create(struct bed_agent *a, const char *id, const char *schedule);
/* The agent that owns the slot of job ID, or NULL. */
struct bed_agent *engine_bed_owner(struct engine_bed *bed, const char *id);

/* Distinct fires that the callee saw; REPEATS: attempts over the first ones. */
size_t engine_bed_fires(struct engine_bed *bed, size_t *ret_repeats);
size_t engine_bed_held(struct engine_bed *bed);
void engine_bed_hold(struct engine_bed *bed, bool hold);
void engine_bed_let_go(struct engine_bed *bed);

/* Run the loop until CONDITION; false: it did not become true. */
#define engine_bed_until(bed, condition)                          \
    __extension__({                                               \
        int64_t bed_end_ms_ = engine_bed_patience_ms(bed);        \
        while (!(condition) && engine_bed_turn(bed, bed_end_ms_)) \
            ;                                                     \
        (condition);                                              \
    })
int64_t engine_bed_patience_ms(struct engine_bed *bed);
/* One turn; false when END_MS has passed. */
bool engine_bed_turn(struct engine_bed *bed, int64_t end_ms);
/* Run the loop for a while, to see that something does not happen. */
void engine_bed_run_ms(struct engine_bed *bed, int64_t ms);

#endif
