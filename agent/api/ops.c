/* For those who run agents: probes, metrics, the description of the API; and the peers' own messages. */
#include <stdint.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/clock.h"

#define LOOP_STUCK_MS 5000
#define METRICS_MAX   (64 << 20)

/* agent/api/openapi.yaml, put into the program as it is. */
__asm__(".section .rodata\n"
        ".global carillon_openapi_begin\n"
        ".global carillon_openapi_end\n"
        "carillon_openapi_begin:\n"
        ".incbin \"agent/api/openapi.yaml\"\n"
        "carillon_openapi_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const char carillon_openapi_begin[];
extern const char carillon_openapi_end[];

static void reply_text(struct exchange *x, int status, const char *text)
{
    struct buf out = BUF_INIT(256);
    buf_add_str(&out, text);
    exchange_reply(x, status, "text/plain; charset=utf-8", NULL, 0, &out);
}

/* A loop that does not turn cannot answer, so the server's thread does. */
void api_livez(struct exchange *x)
{
    bool alive = (int64_t)clock_boot_ms() - node_last_turn_ms(x->api->node) < LOOP_STUCK_MS;
    reply_text(x, alive ? 200 : 503, alive ? "ok\n" : "the loop is stuck\n");
}

void api_readyz(struct exchange *x)
{
    bool ready = node_ready(x->api->node);
    reply_text(x, ready ? 200 : 503, ready ? "ok\n" : "not joined\n");
}

void api_openapi(struct exchange *x)
{
    struct buf out = BUF_INIT(1 << 20);
    buf_add(&out, carillon_openapi_begin,
            (uintptr_t)carillon_openapi_end - (uintptr_t)carillon_openapi_begin);
    exchange_reply(x, 200, "application/yaml", NULL, 0, &out);
}

void api_metrics(struct exchange *x)
{
    struct buf out = BUF_INIT(METRICS_MAX);
    node_print_metrics(x->api->node, &out);
    exchange_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, 0, &out);
}

static void on_peer_answer(void *arg, int status, const char *body)
{
    struct exchange *x = arg;
    struct buf out = BUF_INIT(16 << 20);
    buf_add_str(&out, body ? body : "");
    exchange_json(x, status, &out);
}

void api_peer(struct exchange *x)
{
    size_t bytes;
    const char *body = httpd_body(x->rq, &bytes);
    node_peer_message(x->api->node, x->req.arg, body, bytes, on_peer_answer, x);
}
