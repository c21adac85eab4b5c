/* What the files of the model share: ownership_sim.c the queue and the processes, ownership_sim_store.c the store and the
 * oracle, ownership_sim_world.c life and death, Consul and the network. */
#ifndef CARILLON_TESTS_OWNERSHIP_SIM_PRIVATE_H
#define CARILLON_TESTS_OWNERSHIP_SIM_PRIVATE_H

#include "tests/lib/ownership_sim.h"

#define STORE_TIMEOUT_MS 2000
#define FIRST_EPOCH      1000

enum op_kind { OP_BEAT, OP_DECLARE, OP_CHANGE, OP_READ, OP_MOVE };

struct sim_op {
    struct sim_op *next;
    enum op_kind kind;
    int proc;
    int victim;
    uint64_t beat;
    int64_t sent_ms; /* local */
    struct slot_change *changes;
    size_t changes_count;
    bool by_refusal, witnessed;
    bool never_runs, reply_lost, late; /* what goes wrong with it */
    bool answered;
    bool ran, alive, yes, fenced;
    struct ownership_member *members;
    size_t members_count;
    struct ownership_slot *slots;
    size_t slots_count;
};

struct sim_query {
    int asker;
    uint64_t question;
    char about[RECORD_MEMBER_MAX];
};

struct sim_item {
    int64_t at_ms;
    uint64_t order;
    void (*fn)(struct sim *s, struct sim_item *it);
    int proc;
    struct sim_op *op;
    struct ownership_event ev;
    char member[RECORD_MEMBER_MAX];
    char to[RECORD_MEMBER_MAX];
    struct ownership_slot *slots;
};

void sim_broken(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct sim_item *sim_after(struct sim *s, int64_t delay_ms, int proc,
                           void (*fn)(struct sim *, struct sim_item *));
void sim_push(struct sim *s, struct sim_item *it);
void sim_mark_dead(struct sim *s, struct sim_proc *p);
int64_t sim_between(struct sim *s, int64_t lo, int64_t hi);
bool sim_chance(struct sim *s, int percent);
int64_t sim_local_ms(const struct sim *s, const struct sim_proc *p);
int sim_proc_of(const char *id);
bool sim_in_trouble(const struct sim *s, const struct sim_proc *p);
bool sim_lease_holds(const struct sim *s, const struct sim_proc *p);
void sim_at_tick(struct sim *s, struct sim_item *it);
void sim_feed(struct sim *s, struct sim_proc *p, struct ownership_event *ev);
void sim_check_proc(struct sim *s, const struct sim_proc *p);
void sim_measure_gaps(struct sim *s);
bool sim_refuses_lately(const struct sim *s, const struct sim_proc *p);
bool sim_excused(struct sim *s);
void sim_at_execute(struct sim *s, struct sim_item *it);
void sim_issue(struct sim *s, struct sim_proc *p, struct sim_op *op, int connection);
struct sim_op *sim_op_new(struct sim *s, enum op_kind kind);
void sim_move_issue(struct sim *s, struct sim_item *it);
void sim_proc_end(struct sim *s, struct sim_proc *p);
void sim_at_rejoin(struct sim *s, struct sim_item *it);
void sim_at_left(struct sim *s, struct sim_item *it);
void sim_at_consul(struct sim *s, struct sim_item *it);
void sim_at_links(struct sim *s, struct sim_item *it);
void sim_set_links(struct sim *s, struct sim_proc *p, const struct ownership_action *a);
uint64_t sim_query(struct sim *s, const struct sim_proc *p, const struct ownership_action *a);
void sim_do_peers(struct sim *s, struct sim_proc *p, const struct ownership_action *a);

#endif
