/* One line of a bulk: what it asks, read from JSON; what became of it, printed; and both as they go between agents. No I/O
 * but zone files. Any thread. */
#ifndef CARILLON_AGENT_API_BULK_LINE_H
#define CARILLON_AGENT_API_BULK_LINE_H

#include "agent/api/write.h"
#include "agent/tokens.h"

/* What became of a line. */
struct bulk_result {
    int status;       /* 0: not known yet */
    uint64_t version; /* of dead letters: how many were changed */
    char *problem;    /* JSON text, owned; NULL: it went well */
};

struct bulk_line {
    struct api_write write;
    const char *text; /* the JSON, borrowed */
    size_t len;
    uint64_t number;        /* from 1; blank lines count */
    char ns[RECORD_NS_MAX]; /* if the text names none */
    bool of_letters;        /* about dead letters: from an agent */
    bool is_read;           /* false: only whose job it is; its owner reads the rest */
    struct bulk_result result;
};

/* What all lines of a body have in common. */
struct bulk_rules {
    const char *ns;                /* of lines that name none; an agent says it with each line */
    const struct api_context *ctx; /* as if the line had come in alone */
    bool internal;                 /* written by agents: dead letters may be named */
    bool from_peer;                /* each line begins with its ids (bulk_line_print_ids) */
    const struct api_ids *ids;
    struct tzload *zones;
    const struct token *who; /* NULL: may do everything */
};

/* The next line of TEXT[0..LEN) without its line feed; false at the end. Moves *at behind it. */
bool bulk_next_line(const char *text, size_t len, size_t *at, const char **ret_line, size_t *ret_len);
/* Read TEXT into LINE (storage of the caller's, cleared). What is wrong ends in its result. FULL: also when its slot is
 * not ours. */
void bulk_line_read(struct bulk_line *line, const struct bulk_rules *rules, const char *text, size_t len,
                    bool full);
/* A line that was not read in full, once its slot turned out to be ours after all. */
void bulk_line_read_rest(struct bulk_line *line, const struct bulk_rules *rules);
void bulk_line_fini(struct bulk_line *line);

/* "<uid> <change id> <flags> <namespace> <id> ": what a peer needs beside the text. */
void bulk_line_print_ids(const struct bulk_line *line, bool repeated, struct buf *out);
/* {"line":1,"status":201,…} with a line feed. */
void bulk_line_print_result(const struct bulk_line *line, struct buf *out);
/* What a peer printed so, into LINE's result; false: it is not that. *ret_owner (may be ""): who holds the slot, with 421. */
bool bulk_line_take_result(struct bulk_line *line, const char *text, size_t len,
                           char ret_owner[RECORD_MEMBER_MAX], uint64_t *ret_epoch);
/* One of several dead letters of one job, as a line; SEQS descending. */
struct bulk_letter {
    uint64_t seq;
    int64_t at_ms;
};
void bulk_line_print_letters(struct buf *out, bool redrive, const struct fire_row *of,
                             const struct bulk_letter *letters, size_t count);
/* Say that the line failed. */
void bulk_line_fail(struct bulk_line *line, enum api_code code, const char *detail);
void bulk_line_refuse(struct bulk_line *line, const struct api_problem *problem);
/* With 421: who holds the slot. */
void bulk_line_misdirected(struct bulk_line *line, const char *owner, uint64_t epoch);

#endif
