/* Shared by the files of module job; nobody else includes it. */
#ifndef CARILLON_CORE_JOB_PRIVATE_H
#define CARILLON_CORE_JOB_PRIVATE_H

#include <stdatomic.h>

#include "agent/base/json.h"
#include "agent/core/job.h"
#include "agent/core/schedule.h"

/* Texts and arrays of one spec: freed together with it. */
struct job_chunk {
    struct job_chunk *next;
    max_align_t data[];
};

struct job_spec_private {
    atomic_uint refs;
    struct job_chunk *chunks;
    size_t memory_bytes;
    char *definition;
    size_t definition_bytes;
    size_t given_bytes; /* of the definition: what a user gave, without the closing brace */
    size_t same_bytes;  /* ... and what two specs that say the same have in common: all but the trace */
    struct schedule *schedule;
};

/* What reading a body carries along. The first allocation that fails stays in `failed`, so that readers need not stop. */
struct job_reader {
    struct job_spec *spec;
    const struct job_context *ctx;
    struct problems *problems;
    enum job_refusal refusal; /* the most telling one so far */
    struct err *e;
    bool failed;
};

int job_spec_new(struct job_spec **ret, struct err *e);
/* N zeroed bytes that live as long as SPEC; NULL: -ERR_NOMEM noted in E. */
void *job_alloc(struct job_spec *spec, size_t bytes, struct err *e);
char *job_strdup(struct job_spec *spec, const char *s, size_t len, struct err *e);
/* For readers: NULL is noted as failed. */
char *job_reader_strdup(struct job_reader *r, const char *s);
/* Say that the body is refused for WHY at AT/KEY. */
void job_refuse(struct job_reader *r, enum job_refusal why, const struct json_at *at, const char *key,
                const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* {"name":"value"} pairs, borrowed by nothing: copied into the spec. */
struct job_pairs_limits {
    size_t count_max;
    size_t value_max;
    bool (*check)(struct job_reader *r, const struct json_at *at, const char *name, const char *value);
    bool sort;
};
void job_read_pairs(struct job_reader *r, const json_t *obj, const struct json_at *at,
                    const struct job_pairs_limits *limits, const struct job_pair **ret, size_t *ret_count);

bool job_dst_is_default(const struct job_spec *s);
/* The member `callback` of a body, into r->spec->callback. */
void job_read_callback(struct job_reader *r, const json_t *doc);
/* Members of an object that is being printed into OUT; a comma goes before all but its first. KEY needs no escapes. */
void job_print_key(struct buf *out, const char *key);
void job_print_text(struct buf *out, const char *key, const char *text); /* NULL: left out */
void job_print_texts(struct buf *out, const char *key, const char *const *texts,
                     size_t count); /* not empty */
void job_print_pairs(struct buf *out, const char *key, const struct job_pair *pairs,
                     size_t count); /* empty: left out */
void job_print_number(struct buf *out, const char *key, uint64_t v);
void job_print_duration(struct buf *out, const char *key, uint64_t ms);
void job_print_instant(struct buf *out, const char *key, int64_t ms); /* RECORD_NONE: left out */
/* The callback as a definition holds it, an object. */
void job_print_callback(struct buf *out, const struct job_callback *cb);
/* Compile spec->schedules. ARMING: as a write that is accepted now, with its checks; NULL: as read back from the store. */
int job_schedule_parse(struct job_spec *spec, const struct tz *zone, const struct job_context *arming,
                       struct schedule_issues *issues, struct err *e);
/* Make spec->private->definition, when all else is there. */
int job_seal(struct job_spec *spec, struct err *e);

#endif
