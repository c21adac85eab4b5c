/* What the parts of the witness share: a change as it was sent, and what an end of a fire needs. */
#ifndef CARILLON_TESTS_SIM_WITNESS_H
#define CARILLON_TESTS_SIM_WITNESS_H

#include "tests/sim/sim.h"

struct witness_change {
    struct uid uid;
    enum change_op op;
    uint64_t change_id; /* of its revision; 0: it has none */
    char revision[16];
    uint64_t *seqs; /* of fires */
    size_t seqs_count;
};

/* R, whose row is F, has ended: its outcome and reason are such as the job's rules, its callee and its clients allow. */
void witness_end(const struct sim_story *s, const struct sim_row *r, const struct fire_row *f);
/* Somebody acknowledged it. F: its row, NULL: the row is gone. */
void witness_success(const struct sim_story *s, const struct sim_row *r, const struct fire_row *f);
/* Number SEQ has no row, so it succeeded at its first attempt. */
void witness_first_success(const struct sim_story *s, uint64_t seq, int64_t due_ms);
/* What had ended as WAS goes on, or was discarded. */
void witness_reopened(const struct sim_story *s, const struct sim_row *was, struct sim_row *r);

#endif
