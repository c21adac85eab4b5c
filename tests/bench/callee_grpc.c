/* The gRPC callee of the benchmark: answers each call with OK and an empty message.
 *
 *   callee_grpc --port P
 *
 * Runs until it is killed. What came, and how late, the agent's metrics tell: a call over gRPC ends only when it was answered. */
#include <stdio.h>
#include <unistd.h>

#include "agent/base/err.h"
#include "agent/io/grpcd.h"
#include "tests/bench/bench.h"

static void answer(struct grpcd_call *call, void *arg)
{
    (void)arg;
    grpcd_reply(call, 0, NULL, "", 0);
}

int main(int argc, char **argv)
{
    char listen[32];
    struct grpcd *server;
    struct err e = {0};
    (void)snprintf(listen, sizeof(listen), "127.0.0.1:%u", (unsigned)bench_number(argc, argv, "port", 0));
    struct grpcd_options options = {.listen = listen, .handle = answer};
    BENCH_CHECK(grpcd_start(&options, &server, &e) == 0, "%s", e.text);
    for (;;)
        (void)pause(); /* until a signal ends the process */
}
