/* The raw limit of the Raft log on this machine: bare libraft, one node, durable appends.
 *
 *   limit_raft --dir D --in-flight F --bytes B --seconds T
 *
 * F entries of B bytes are kept under way. One thread. Prints one line of JSON. */
#include <raft.h>
#include <raft/uv.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "tests/bench/bench.h"

struct limit {
    struct uv_loop_s loop;
    struct raft_uv_transport transport;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft raft;
    struct uv_prepare_s look;
    uint64_t in_flight, bytes, under_way, applied, start_ns, end_ns;
    bool started, closing;
    struct bench_samples us;
};

struct append {
    struct raft_apply req; /* first: the library gives it back */
    struct limit *limit;
    uint64_t start_ns;
};

/* --- a node without peers ------------------------------------------------------------------------------------------- */

static int transport_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
    (void)t;
    (void)id;
    (void)address;
    return 0;
}

static int transport_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
    (void)t;
    (void)cb;
    return 0;
}

static int transport_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id,
                             const char *address, raft_uv_connect_cb cb)
{
    (void)t;
    (void)req;
    (void)id;
    (void)address;
    (void)cb;
    return RAFT_NOCONNECTION;
}

static void transport_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
    cb(t);
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    (void)fsm;
    (void)buf;
    *result = NULL;
    return 0;
}

/* --- appends --------------------------------------------------------------------------------------------------------- */

static void append(struct limit *l, struct append *a);

static void on_closed(struct raft *raft)
{
    struct limit *l = raft->data;
    raft_uv_close(&l->io);
    uv_close((uv_handle_t *)&l->look, NULL);
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
    struct append *a = (struct append *)req;
    struct limit *l = a->limit;
    (void)result;
    BENCH_CHECK(status == 0, "append: %s", raft_strerror(status));
    uint64_t now_ns = clock_mono_ns();
    bench_samples_add(&l->us, (int64_t)(now_ns - a->start_ns) / 1000);
    l->applied++;
    l->under_way--;
    if (now_ns < l->end_ns) {
        append(l, a);
        return;
    }
    mem_free(a);
}

static void append(struct limit *l, struct append *a)
{
    struct raft_buffer buf = {.base = raft_malloc(l->bytes), .len = l->bytes};
    BENCH_CHECK(buf.base, "out of memory");
    memset(buf.base, 'x', buf.len);
    a->start_ns = clock_mono_ns();
    l->under_way++;
    BENCH_CHECK(raft_apply(&l->raft, &a->req, &buf, 1, on_applied) == 0, "append: %s", raft_errmsg(&l->raft));
}

/* Each turn: the first appends when the node leads, the end when all are applied. */
static void on_turn(struct uv_prepare_s *look)
{
    struct limit *l = look->data;
    if (!l->started && raft_state(&l->raft) == RAFT_LEADER) {
        uint64_t for_ns = l->end_ns;
        l->started = true;
        l->start_ns = clock_mono_ns();
        l->end_ns = l->start_ns + for_ns;
        for (uint64_t i = 0; i < l->in_flight; i++) {
            struct append *a = mem_new(struct append);
            a->limit = l;
            append(l, a);
        }
    }
    if (!l->started || l->under_way > 0 || l->closing)
        return;
    l->closing = true;
    l->end_ns = clock_mono_ns();
    l->raft.data = l;
    raft_close(&l->raft, on_closed);
}

static void start_raft(struct limit *l, const char *dir)
{
    struct raft_configuration c;
    l->transport = (struct raft_uv_transport){.version = 1,
                                              .init = transport_init,
                                              .listen = transport_listen,
                                              .connect = transport_connect,
                                              .close = transport_close};
    l->fsm = (struct raft_fsm){.version = 1, .apply = fsm_apply};
    BENCH_CHECK(uv_loop_init(&l->loop) == 0 && raft_uv_init(&l->io, &l->loop, dir, &l->transport) == 0,
                "open %s: %s", dir, l->io.errmsg);
    BENCH_CHECK(raft_init(&l->raft, &l->io, &l->fsm, 1, "local") == 0, "raft_init: %s",
                raft_errmsg(&l->raft));
    raft_configuration_init(&c);
    BENCH_CHECK(raft_configuration_add(&c, 1, "local", RAFT_VOTER) == 0 && raft_bootstrap(&l->raft, &c) == 0,
                "%s must be empty: %s", dir, raft_errmsg(&l->raft));
    raft_configuration_close(&c);
    raft_set_snapshot_threshold(&l->raft, UINT32_MAX);
    BENCH_CHECK(raft_start(&l->raft) == 0, "raft_start: %s", raft_errmsg(&l->raft));
}

int main(int argc, char **argv)
{
    struct limit *l = mem_new(struct limit);
    l->in_flight = (uint64_t)bench_number(argc, argv, "in-flight", 1);
    l->bytes = ((uint64_t)bench_number(argc, argv, "bytes", 200) + 7) / 8 * 8;
    l->end_ns = (uint64_t)bench_number(argc, argv, "seconds", 2) * 1000000000u;
    start_raft(l, bench_option(argc, argv, "dir", NULL));
    (void)uv_prepare_init(&l->loop, &l->look); /* these cannot fail */
    l->look.data = l;
    (void)uv_prepare_start(&l->look, on_turn);
    (void)uv_run(&l->loop, UV_RUN_DEFAULT);
    double per_s = (double)l->applied * 1e9 / (double)(l->end_ns - l->start_ns);
    bench_print(json_pack("{s:f,s:f,s:o}", "entries_per_s", per_s, "mb_per_s", per_s * (double)l->bytes / 1e6,
                          "ms", bench_samples_json(&l->us, 1000)));
    (void)uv_loop_close(&l->loop);
    bench_samples_fini(&l->us);
    mem_free(l);
    return 0;
}
