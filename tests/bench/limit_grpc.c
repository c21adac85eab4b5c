/* The raw limit of gRPC callbacks on this machine: unary calls of the bare C core over one connection, driven as cheaply as it can be,
 * with a callback's metadata and a message of its size.
 *
 *   limit_grpc --port P --requests N --in-flight F
 *
 * One thread of its own beside the library's. Prints one line of JSON, with the CPU that it took itself. */
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/io/grpc_library.h"
#include "tests/bench/bench.h"

#define METADATA      6
#define MESSAGE_BYTES 160 /* of a FireRequest with a small payload */

static const char *const metadata[METADATA][2] = {
    {"ce-id", "0199f0c2f9d07abf8d3c5a1f6e2b4c7d.1"},
    {"carillon-attempt", "1"},
    {"carillon-seq", "1"},
    {"carillon-epoch", "1795000000"},
    {"carillon-deadline", "2026-11-23T08:00:30.000Z"},
    {"idempotency-key", "\"0199f0c2f9d07abf8d3c5a1f6e2b4c7d.1\""},
};

struct limit {
    grpc_completion_queue *cq;
    grpc_channel *channel;
    grpc_metadata list[METADATA];
    uint64_t left;
    struct bench_samples us;
};

struct call {
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *request, *reply;
    grpc_status_code code;
    grpc_slice details;
    uint64_t start_ns;
};

static void start(struct limit *l, struct call *c)
{
    static const char text[MESSAGE_BYTES] = "";
    grpc_slice method = grpc_slice_from_static_string("/carillon.v1.Callback/Fire");
    grpc_slice body = grpc_slice_from_copied_buffer(text, sizeof(text));
    grpc_op ops[6] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},  {.op = GRPC_OP_SEND_MESSAGE},
                      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT}, {.op = GRPC_OP_RECV_INITIAL_METADATA},
                      {.op = GRPC_OP_RECV_MESSAGE},           {.op = GRPC_OP_RECV_STATUS_ON_CLIENT}};
    gpr_timespec until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(30, GPR_TIMESPAN));
    l->left--;
    c->start_ns = clock_mono_ns();
    c->call =
        grpc_channel_create_call(l->channel, NULL, GRPC_PROPAGATE_DEFAULTS, l->cq, method, NULL, until, NULL);
    c->request = grpc_raw_byte_buffer_create(&body, 1);
    grpc_slice_unref(body);
    grpc_metadata_array_init(&c->initial);
    grpc_metadata_array_init(&c->trailing);
    ops[0].data.send_initial_metadata.count = METADATA;
    ops[0].data.send_initial_metadata.metadata = l->list;
    ops[1].data.send_message.send_message = c->request;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &c->initial;
    ops[4].data.recv_message.recv_message = &c->reply;
    ops[5].data.recv_status_on_client.trailing_metadata = &c->trailing;
    ops[5].data.recv_status_on_client.status = &c->code;
    ops[5].data.recv_status_on_client.status_details = &c->details;
    BENCH_CHECK(grpc_call_start_batch(c->call, ops, 6, c, NULL) == GRPC_CALL_OK, "grpc_call_start_batch");
}

static void finish(struct limit *l, struct call *c)
{
    BENCH_CHECK(c->code == GRPC_STATUS_OK, "status %d", (int)c->code);
    bench_samples_add(&l->us, (int64_t)(clock_mono_ns() - c->start_ns) / 1000);
    grpc_metadata_array_destroy(&c->initial);
    grpc_metadata_array_destroy(&c->trailing);
    grpc_slice_unref(c->details);
    grpc_byte_buffer_destroy(c->request);
    grpc_byte_buffer_destroy(c->reply);
    grpc_call_unref(c->call);
    if (l->left > 0)
        start(l, c);
}

static void connect_callee(struct limit *l, unsigned port)
{
    char target[32];
    grpc_channel_credentials *creds = grpc_insecure_credentials_create();
    (void)snprintf(target, sizeof(target), "ipv4:127.0.0.1:%u", port);
    l->channel = grpc_channel_create(target, creds, NULL);
    grpc_channel_credentials_release(creds);
    l->cq = grpc_completion_queue_create_for_next(NULL);
    for (size_t i = 0; i < METADATA; i++)
        l->list[i] = (grpc_metadata){.key = grpc_slice_from_static_string(metadata[i][0]),
                                     .value = grpc_slice_from_static_string(metadata[i][1])};
}

int main(int argc, char **argv)
{
    struct limit l = {.left = (uint64_t)bench_number(argc, argv, "requests", 1000)};
    uint64_t requests = l.left;
    size_t in_flight = (size_t)bench_number(argc, argv, "in-flight", 64);
    struct call *calls = mem_new_array(struct call, in_flight);
    grpc_library_up();
    connect_callee(&l, (unsigned)bench_number(argc, argv, "port", 0));
    uint64_t start_ns = clock_mono_ns();
    for (size_t i = 0; i < in_flight && l.left > 0; i++)
        start(&l, &calls[i]);
    while (l.us.count < requests) {
        grpc_event event = grpc_completion_queue_next(l.cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        BENCH_CHECK(event.type == GRPC_OP_COMPLETE, "grpc_completion_queue_next");
        finish(&l, event.tag);
    }
    double seconds = (double)(clock_mono_ns() - start_ns) / 1e9;
    bench_print(json_pack("{s:f,s:f,s:f,s:o}", "seconds", seconds, "per_s", (double)requests / seconds,
                          "cpu_us_each", bench_cpu_us() / (double)requests, "ms",
                          bench_samples_json(&l.us, 1000)));
    grpc_channel_destroy(l.channel);
    grpc_completion_queue_shutdown(l.cq);
    while (grpc_completion_queue_next(l.cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        ;
    grpc_completion_queue_destroy(l.cq);
    grpc_library_down();
    bench_samples_fini(&l.us);
    mem_free(calls);
    return 0;
}
