/* One ownership machine, "a.1", beside a store that is a few arrays; the test plays everybody else. */
#ifndef CARILLON_TESTS_OWNERSHIP_STORY_H
#define CARILLON_TESTS_OWNERSHIP_STORY_H

#include "agent/core/ownership/ownership.h"

#define STORY_SLOTS 8
#define ROWS_MAX    6
#define SEEN_MAX    400

/* A copy of an action, with what the tests ask of it. */
struct seen {
    enum ownership_action_kind kind;
    char member[RECORD_MEMBER_MAX];
    char via[RECORD_MEMBER_MAX];
    uint64_t beat, question;
    int64_t until_ms;
    uint16_t slots[STORY_SLOTS];
    uint64_t epochs[STORY_SLOTS];
    size_t count;
    bool yes, leaving;
};

struct story {
    struct ownership *o;
    struct ownership_actions actions;
    int64_t now_ms;
    struct ownership_member rows[ROWS_MAX];
    bool silent[ROWS_MAX]; /* its beat does not move */
    size_t rows_count;
    struct ownership_slot all[STORY_SLOTS];
    bool dead; /* I am, in the store */
    bool beats_fail, reads_fail;
    bool hold_beats, hold_reads, hold_changes; /* the test answers them itself */
    bool changes_fail;
    struct slot_change *changes; /* out */
    size_t changes_count;
    int64_t beat_sent_ms;
    bool beat_out, read_out;
    struct seen seen[SEEN_MAX];
    size_t seen_count;
};

void story_feed(struct story *t, struct ownership_event ev);
size_t story_own_slots(const struct story *t, struct ownership_slot *mine);
void story_answer_beat_with(struct story *t, bool ok, const struct ownership_slot *mine, size_t count);
void story_answer_beat(struct story *t);
void story_answer_read(struct story *t);
void story_run_changes(struct story *t);
void story_answer_changes(struct story *t, bool ok);
/* Answer now whatever is out and not held. */
void story_answers(struct story *t);
/* Time passes; what is asked is answered after LATENCY_MS unless it is held. */
void story_pass(struct story *t, int64_t ms);
void story_row(struct story *t, const char *id);
void story_owner(struct story *t, size_t slot, const char *id, uint64_t epoch);
/* a.1 and OTHERS (NULL-terminated); all slots belong to OF_SLOTS with epoch 7. */
struct story *story_begin(const char *of_slots, const char *const *others);
void story_end(struct story *t);
void story_forget(struct story *t);
size_t story_count(const struct story *t, enum ownership_action_kind kind);
size_t story_count_slots(const struct story *t, enum ownership_action_kind kind);
/* The newest action of its kind; fails when there is none. */
const struct seen *story_last(const struct story *t, enum ownership_action_kind kind);
size_t story_held(const struct story *t);
void story_refused(struct story *t, const char *id);
void story_looked(struct story *t, bool ok, bool yes);
void story_declared(struct story *t, const char *id, bool ok, bool yes);
void story_consul(struct story *t, bool key_held, const char *const *ids);
void story_given_to(struct story *t, const char *to, uint16_t slot, uint64_t epoch);
void story_agreed(struct story *t, size_t of_them);
/* The planner's batch for the newest MOVE. */
void story_moved(struct story *t, bool ok);
void story_offered(struct story *t, const char *to, bool leaving, size_t slots);

#define STORY(of_slots, ...) story_begin(of_slots, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define CONSUL(t, key_held, ...) \
    story_consul(t, key_held, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

#endif
