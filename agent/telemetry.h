/* Spans for OpenTelemetry: OTLP over HTTP, as JSON. They wait in a bounded queue for the next request to the collector; one that is
 * away, slow or says no costs spans, which are counted, and nothing else. */
#ifndef CARILLON_AGENT_TELEMETRY_H
#define CARILLON_AGENT_TELEMETRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/trace.h"

struct err;
struct loop;
struct metrics;
struct telemetry;

#define TELEMETRY_QUEUE_BYTES ((size_t)4 << 20)
#define TELEMETRY_BATCH_MS    500
#define TELEMETRY_TRIES       4 /* for a batch that the collector may take later */

/* Texts are copied. */
struct telemetry_options {
    struct loop *loop;
    struct metrics *metrics; /* lives longer */
    const char *endpoint;    /* "http://collector:4318"; /v1/traces is put behind it */
    double ratio;
    const char *cluster, *instance, *version;
};

enum telemetry_kind { TELEMETRY_INTERNAL = 1, TELEMETRY_SERVER, TELEMETRY_CLIENT }; /* OTLP's numbers */

struct telemetry_attribute {
    const char *key;
    const char *text; /* NULL: a number */
    int64_t number;
};

/* All borrowed during the call. */
struct telemetry_span {
    struct trace_span span;
    const char *parent; /* a span's id, "": none */
    const char *link;   /* a traceparent, as trace_read() gives it; NULL: none */
    const char *name;
    enum telemetry_kind kind;
    int64_t started_us, ended_us; /* wall clock */
    const char *error;            /* NULL: it went well */
    const struct telemetry_attribute *attributes;
    size_t attributes_count;
};

/* Loop thread. ERR_NOMEM, ERR_BAD_STATE as http_client_new(). */
int telemetry_new(const struct telemetry_options *options, struct telemetry **ret, struct err *e);
/* Loop thread. What was not sent is lost. NULL does nothing. */
void telemetry_free(struct telemetry *t);
/* Any thread; the telemetry's. NULL gives NULL. */
const struct trace_rule *telemetry_rule(const struct telemetry *t);
/* Any thread. Does nothing when T is NULL or the span is not sampled. */
void telemetry_add(struct telemetry *t, const struct telemetry_span *span);

#endif
