/* The gRPC transport under load: names looked up, and an endpoint that refuses. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/io/grpcd.h"
#include "callback/fire_message.h"
#include "tests/lib/callback_bed.h"
#include "tests/lib/callback_race.h"

static void say_ok(struct grpcd_call *call, void *arg)
{
    (void)arg;
    grpcd_reply(call, 0, NULL, "", 0);
}

/* In a process of its own: what goes through the library from one thread of ours to another cannot be watched. Tells its port to
 * UP and ends with DOWN. */
static int serve(int up, int down)
{
    struct grpcd_options options = {.listen = "127.0.0.1:0", .handle = say_ok};
    struct grpcd *server;
    char byte;
    if (grpcd_start(&options, &server, NULL) < 0)
        return 1;
    uint16_t port = grpcd_port(server);
    if (write(up, &port, sizeof(port)) != sizeof(port))
        return 1;
    while (read(down, &byte, 1) > 0)
        continue;
    grpcd_stop(server);
    return 0;
}

static int race_with(uint16_t port)
{
    char address[64], name[64];
    snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    snprintf(name, sizeof(name), "localhost:%u", port);
    struct callback_race race = {.name = "race_callback_grpc",
                                 .transport = &callback_grpc,
                                 .spec = bed_spec("billing", NULL),
                                 .rounds = 4,
                                 .threads = 1,
                                 .endpoints = {address, name, address, name, address, name, "127.0.0.1:1"}};
    race.spec.callback.transport = JOB_GRPC;
    race.spec.callback.method = FIRE_METHOD;
    race.spec.callback.success[0] = (struct job_code_range){0, 0};
    return callback_race(&race);
}

int main(void)
{
    int up[2], down[2], status = 1;
    uint16_t port;
    if (pipe(up) < 0 || pipe(down) < 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        close(down[1]);
        return serve(up[1], down[0]);
    }
    int failed = child < 0 || read(up[0], &port, sizeof(port)) != sizeof(port) || race_with(port);
    close(down[1]);
    return waitpid(child, &status, 0) != child || status != 0 || failed;
}
