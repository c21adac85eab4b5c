/* The definition of a job: what a user gave, checked, with every default resolved. Immutable once made and counted by
 * references, so firing, retries and answers share it without copying. Reading, merging and printing are pure; the zone's
 * rules are handed in. Any thread; the reference count is atomic. Field by field: design "HTTP API contract, A job". */
#ifndef CARILLON_CORE_JOB_H
#define CARILLON_CORE_JOB_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/mem.h"
#include "agent/core/record.h"
#include "agent/core/retry.h"

struct buf;
struct problems;
struct schedule;
struct trace;
struct tz;

#define JOB_PAYLOAD_MAX   (256u * 1024u)
#define JOB_SCHEDULES_MAX 16 /* SCHEDULE_EXPRS_MAX */
#define JOB_LABELS_MAX    32
#define JOB_HEADERS_MAX   64
#define JOB_TAGS_MAX      8
#define JOB_CODES_MAX     32

enum job_transport { JOB_HTTP, JOB_GRPC };
enum job_to { JOB_TO_ONE, JOB_TO_ALL, JOB_TO_SHARDS };
enum job_dst_gap { JOB_GAP_SHIFT, JOB_GAP_SKIP };
enum job_dst_repeat { JOB_REPEAT_FIRST, JOB_REPEAT_SECOND, JOB_REPEAT_BOTH };
enum job_misfire { JOB_MISFIRE_ALL, JOB_MISFIRE_LAST };
enum job_concurrency { JOB_ALLOW, JOB_FORBID, JOB_QUEUE, JOB_REPLACE };

struct job_pair { /* header, metadata or label; sorted by name, whose order carries no meaning */
    const char *name;
    const char *value;
};

struct job_code_range { /* inclusive; HTTP status or gRPC status number */
    uint16_t low;
    uint16_t high;
};

/* Exactly one of service, url (HTTP) / address (gRPC) is set: "neither" was resolved to the accepting agent's application. */
struct job_callback {
    enum job_transport transport;
    const char *service; /* NULL: direct */
    const char *tags[JOB_TAGS_MAX];
    size_t tags_count;
    const char *datacenter;         /* NULL: the agent's */
    const char *scheme;             /* "http" or "https"; for gRPC tls says it */
    const char *url;                /* scheme://host[:port] + path + query, HTTP direct */
    const char *path;               /* with query; HTTP by service */
    const char *address;            /* host:port, gRPC direct */
    const char *method;             /* HTTP method, or "/pkg.Service/Method" */
    bool tls;                       /* gRPC */
    const struct job_pair *headers; /* or metadata */
    size_t headers_count;
    int64_t timeout_ms;
    enum job_to to;
    struct job_code_range success[JOB_CODES_MAX];
    size_t success_count;
    struct job_code_range give_up[JOB_CODES_MAX];
    size_t give_up_count;
    bool async;
    int64_t async_timeout_ms;
    int64_t async_max_ms;
    bool allow_control;
};

struct job_spec {
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    const struct schedule *schedule;          /* NULL until job_spec_bind() */
    const char *schedules[JOB_SCHEDULES_MAX]; /* as given, but @after as the @at it means */
    size_t schedules_count;
    bool schedule_is_list; /* given, and answered, as an array */
    const char *timezone;
    enum job_dst_gap dst_gap;
    enum job_dst_repeat dst_repeat;
    bool short_month_last;
    int64_t starts_ms; /* RECORD_NONE: no bound */
    int64_t ends_ms;
    uint64_t max_fires; /* 0: no bound */
    int64_t phase_ms;   /* of @every: starts_at, else the job's creation */
    bool has_every;
    uint32_t jitter_ms;
    bool one_shot; /* only @at and @after */
    struct job_callback callback;
    const void *payload; /* NULL: none */
    size_t payload_bytes;
    const char *content_type; /* "application/json" unless given */
    bool payload_is_json;     /* given as `payload`, not as `payload_base64` */
    struct retry_rule retry;
    enum job_misfire misfire;
    int64_t misfire_window_ms;
    enum job_concurrency concurrency;
    uint32_t max_pending;
    bool at_most_once;
    int64_t ttl_after_done_ms;
    const struct job_pair *labels;
    size_t labels_count;
    const char *description; /* NULL: none */
    const char *traceparent; /* of the write that gave this definition; NULL: none */
    const char *tracestate;  /* NULL: none */
    /* private: canonical definition, arena, references */
    struct job_spec_private *private;
};

/* What the accepting agent supplies: its defaults (resolved once, at the write), its limits, its application. */
struct job_defaults {
    int64_t timeout_ms;
    struct retry_rule retry;
    enum job_misfire misfire;
    int64_t misfire_window_ms;
    enum job_concurrency concurrency;
    int64_t min_interval_ms;
    const char *app_service; /* "the application" in consul mode; NULL: none (no_target) */
    const char *app_url;     /* http://address:port in standalone mode; NULL: none */
    bool allow_loopback;     /* false: a loopback url or address is refused (loopback_target) */
    /* Whether jobs of NS may name this secret in a header (a plain lookup); false: refused (unknown_secret). NULL: not judged. */
    bool (*secret_known)(void *arg, const char *ns, const char *name, size_t name_len);
    void *secret_arg;
};

/* All defaults of the contract, no application. */
void job_defaults_init(struct job_defaults *d);

struct job_context {
    const char *ns;     /* checked already */
    const char *id;     /* from the path, or made; NULL: the body must carry one */
    int64_t now_ms;     /* acceptance: @after counts from here */
    int64_t created_ms; /* of the job that is replaced: the phase of its @every; RECORD_NONE: a new job */
    const struct job_defaults *defaults;
    const struct trace *trace; /* that the write belongs to; NULL: none */
    /* The job that is changed: a schedule that stays as it is, is not judged anew, and of one that changes no @at that
     * it had (it may have passed meanwhile); NULL: none */
    const struct job_spec *present;
    bool present_unseen; /* there may be one, which is not at hand: no @at has passed too long ago for it */
};

/* What refuses a whole job beside the list of problems: becomes `code` of the answer. */
enum job_refusal {
    JOB_REFUSED_INVALID,
    JOB_REFUSED_NO_TARGET,
    JOB_REFUSED_LOOPBACK,
    JOB_REFUSED_UNKNOWN_SECRET,
    JOB_REFUSED_DUE_IN_PAST,
    JOB_REFUSED_TOO_LARGE
};

/* Read a job as a user writes it (top-level `status`, `warnings` and `next` are ignored so that GET, edit, PUT works). Every
 * problem of the body goes to P; the result is -ERR_INVALID then and *ret_refusal tells the code. ZONE_OF finds the rules of
 * a zone by its name (a plain lookup the caller owns; NULL result: unknown name) and is called at most once.
 * *ret_paused: the body's `paused`, -1 absent. WARNINGS gets texts that answers show (may be NULL). */
int job_spec_parse(const json_t *doc, const struct job_context *ctx,
                   const struct tz *(*zone_of)(void *arg, const char *name), void *arg, struct problems *p,
                   enum job_refusal *ret_refusal, json_t *warnings, int *ret_paused, struct job_spec **ret,
                   struct err *e);

/* Read back what job_spec_definition() and job_spec_payload() gave; trusted input, but checked. The schedule is not bound. */
int job_spec_decode(const char *definition, size_t definition_bytes, const void *payload,
                    size_t payload_bytes, struct job_spec **ret, struct err *e);
/* Attach the zone's rules: parses the schedule. Before the spec is shared. */
int job_spec_bind(struct job_spec *spec, const struct tz *zone, struct err *e);

struct job_spec *job_spec_ref(struct job_spec *spec);
void job_spec_unref(struct job_spec *spec); /* NULL does nothing */
DEFINE_AUTO(job_spec_unref, struct job_spec *);

/* The canonical definition (compact JSON, effective values, no payload). Two specs say the same exactly when its bytes but those of
 * the trace, and the payload's, are equal: job_spec_equal(). A write in another trace changes nothing. */
const char *job_spec_definition(const struct job_spec *spec, size_t *ret_bytes);
bool job_spec_equal(const struct job_spec *a, const struct job_spec *b);
bool job_schedule_equal(const struct job_spec *a,
                        const struct job_spec *b); /* schedule, zone, bounds, dst rules alike */
size_t job_spec_memory_bytes(const struct job_spec *spec);

/* The job as GET answers it: definition, payload, then `status` from ROW (OWNER: name of the slot's owner, "" unknown).
 * One line, appended to OUT. */
int job_print(const struct job_spec *spec, const struct job_row *row, const char *owner, struct buf *out,
              struct err *e);
/* The same without `status`, as export and merge patch need it. */
int job_document(const struct job_spec *spec, const struct job_row *row, json_t **ret, struct err *e);

/* The first due of a job whose schedule was written at ACCEPTED_MS: recurring expressions count from then, instants also
 * when they passed less than a day before (they fire at once). AFTER_MS: only dues strictly after it (for a job that has
 * fired already under another schedule), RECORD_NONE for a new one. false: there is none. */
bool job_first_due(const struct job_spec *spec, int64_t accepted_ms, int64_t after_ms, int64_t *ret_due_ms);
/* First occurrence strictly after AFTER_MS of a bound spec: false at the end (ends_at, no more dues). */
bool job_next_due(const struct job_spec *spec, int64_t after_ms, int64_t *ret_due_ms);
/* Newest occurrence strictly before BEFORE_MS; how many lie in [FROM_MS, TO_MS), at most CAP: by arithmetic. */
bool job_last_due_before(const struct job_spec *spec, int64_t before_ms, int64_t *ret_due_ms);
uint64_t job_count_dues(const struct job_spec *spec, int64_t from_ms, int64_t to_ms, uint64_t cap);
/* The schedule of a bound SPEC as it would be if its rules for gaps, repeated hours and short months left nothing out; to
 * explain what they do. The caller frees. Errors as schedule_parse(). */
int job_schedule_unskipped(const struct job_spec *spec, struct schedule **ret, struct err *e);
/* The stable delay of one due, 0 … jitter_ms: a function of uid and due only. */
uint32_t job_jitter_ms(const struct job_spec *spec, const struct uid *uid, int64_t due_ms);

/* The callee as history tells it: name of the service, or host (with its port) of the address given directly. */
void job_callee(const struct job_spec *spec, char ret[RECORD_SERVICE_MAX]);

#endif
