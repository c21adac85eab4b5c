/* Delivery lanes under load. */
#include <stdio.h>

#include "tests/lib/callback_bed.h"
#include "tests/lib/callback_race.h"
#include "tests/lib/raw_server.h"

static bool say_ok(const struct raw_request *rq)
{
    raw_write(rq->fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    return true;
}

int main(void)
{
    struct raw_server *server = raw_server_start(false, say_ok, NULL);
    char endpoint[64];
    snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", raw_server_port(server));
    struct callback_race race = {.name = "race_callback_http",
                                 .transport = &callback_http,
                                 .spec = bed_spec("billing", NULL),
                                 .rounds = 8,
                                 .threads = 3,
                                 .endpoints = {endpoint}};
    int failed = callback_race(&race);
    raw_server_stop(server);
    return failed;
}
