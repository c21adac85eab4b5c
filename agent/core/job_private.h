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

/* The member `callback` of a body, into r->spec->callback. */
void job_read_callback(struct job_reader *r, const json_t *doc);
/* The callback as a definition holds it. NULL: out of memory. */
json_t *job_callback_document(const struct job_callback *cb);
/* Everything but payload, phase and id: shared by definition and answer. */
json_t *job_definition_document(const struct job_spec *spec);
/* Compile spec->schedules. ARMING: as a write that is accepted now, with its checks; NULL: as read back from the store. */
int job_schedule_parse(struct job_spec *spec, const struct tz *zone, const struct job_context *arming,
                       struct schedule_issues *issues, struct err *e);
/* Make spec->private->definition. */
int job_seal(struct job_spec *spec, struct err *e);

#endif
