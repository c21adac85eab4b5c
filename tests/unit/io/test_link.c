#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/link.h"
#include "agent/io/listener.h"
#include "agent/io/loop.h"
#include "tests/unit/io/client.h"

static struct loop *loop;
static struct err e;
static enum link_event last;
static int events, stop_at; /* stop when EVENTS reached this, or LAST is STOP_ON */
static enum link_event stop_on;
static char address[64];

static void on_link(void *arg, enum link_event ev)
{
    (void)arg;
    last = ev;
    events++;
    if (events == stop_at || ev == stop_on)
        loop_stop(loop);
}

static void open_loop(void)
{
    cr_assert(zero(int, loop_new(&loop, &e)), "%s", e.text);
    stop_on = LINK_EVENT_COUNT_;
}
static void close_loop(void)
{
    loop_free(loop);
}

TestSuite(link, .init = open_loop, .fini = close_loop, .timeout = 600);

static void run_until(enum link_event ev)
{
    stop_on = ev;
    loop_run(loop);
    cr_assert(eq(int, last, ev));
}

/* A process that listens, accepts, and keeps what it accepted. */
struct peer {
    pid_t pid;
    unsigned port;
};

static struct peer peer_start(const char *listen_on)
{
    struct listener l;
    cr_assert(zero(int, listener_open(&l, listen_on, 0, &e)), "%s", e.text);
    struct peer p = {.port = l.port, .pid = fork()};
    if (p.pid == 0) {
        struct pollfd fd = {.fd = l.fd, .events = POLLIN};
        for (;;)
            if (poll(&fd, 1, -1) == 1)
                (void)!accept(l.fd, NULL, NULL);
    }
    snprintf(address, sizeof address, "%s", l.address);
    listener_fini(&l); /* ours; the peer has its own */
    return p;
}
static void peer_kill(struct peer *p)
{
    kill(p->pid, SIGKILL);
}
static void peer_end(struct peer *p)
{
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
}

Test(link, it_says_up_and_within_milliseconds_of_a_kill_refused)
{
    struct peer p = peer_start("127.0.0.1:0");
    struct link *l = link_new(loop, address, 1000, on_link, NULL);
    cr_assert(zero(int, events), "never before link_new() returned");
    run_until(LINK_UP);
    uint64_t killed_ns = clock_mono_ns();
    peer_kill(&p);
    run_until(LINK_REFUSED);
    uint64_t took_us = (clock_mono_ns() - killed_ns) / 1000;
    cr_log_info("refused %lu us after the kill", took_us);
    cr_assert(lt(u64, took_us, 10000000), "%lu us", took_us);
    link_free(l);
    peer_end(&p);
}

Test(link, a_stopped_process_stays_up)
{
    struct peer p = peer_start("127.0.0.1:0");
    int status;
    struct link *l = link_new(loop, address, 1000, on_link, NULL);
    run_until(LINK_UP);
    kill(p.pid, SIGSTOP);
    waitpid(p.pid, &status, WUNTRACED);
    cr_assert(ne(int, WIFSTOPPED(status), 0));
    events = 0;
    link_probe(loop, address, 1000, on_link, NULL);
    run_until(LINK_UP); /* the probe's: the kernel answers for the process */
    cr_assert(eq(int, events, 1), "the link itself said something");
    link_free(l);
    peer_end(&p);
}

Test(link, it_comes_up_again_when_a_process_listens_again)
{
    struct peer p = peer_start("127.0.0.1:0");
    struct link *l = link_new(loop, address, 200, on_link, NULL);
    run_until(LINK_UP);
    peer_end(&p);
    run_until(LINK_REFUSED);
    char same[64];
    snprintf(same, sizeof same, "127.0.0.1:%u", p.port);
    p = peer_start(same);
    run_until(LINK_UP);
    link_free(l);
    peer_end(&p);
}

Test(link, refused_is_told_once_however_often_it_is_tried)
{
    struct listener l;
    cr_assert(zero(int, listener_open(&l, "127.0.0.1:0", 0, &e)));
    snprintf(address, sizeof address, "%s", l.address);
    listener_close(&l);
    struct link *link = link_new(loop, address, 5, on_link, NULL);
    struct link *other = link_new(loop, "127.0.0.1:0x", 1, on_link, NULL);
    stop_at = 2;
    loop_run(loop);
    for (int i = 0; i < 10; i++) { /* each probe takes as long as a try of the link */
        link_probe(loop, address, 1000, on_link, NULL);
        stop_at = events + 1;
        loop_run(loop);
        cr_assert(eq(int, last, LINK_REFUSED));
    }
    cr_assert(eq(int, events, 12));
    link_free(link);
    link_free(other);
    listener_fini(&l);
}

static int accepted;
static struct listener closing;
static void accept_and_close(void *arg, int ready)
{
    (void)arg;
    (void)ready;
    int fd = accept(closing.fd, NULL, NULL);
    accepted += fd >= 0;
    close(fd);
}

Test(link, a_peer_that_accepts_and_closes_does_not_make_it_spin)
{
    cr_assert(zero(int, listener_open(&closing, "127.0.0.1:0", 0, &e)));
    struct loop_fd *f = loop_fd_new(loop, closing.fd, accept_and_close, NULL);
    loop_fd_set(f, LOOP_READ);
    struct link *l = link_new(loop, closing.address, 100, on_link, NULL);
    uint64_t began_ms = clock_boot_ms();
    stop_at = 12;
    loop_run(loop);
    /* 0 2 4 8 16 32 64 100 100 … */
    cr_assert(ge(u64, clock_boot_ms() - began_ms, 300));
    link_free(l);
    loop_fd_free(f);
    listener_fini(&closing);
}

Test(link, names_are_resolved_and_all_their_addresses_tried)
{
    struct peer p = peer_start("127.0.0.1:0");
    snprintf(address, sizeof address, "localhost:%u", p.port); /* often ::1 first, where nobody listens */
    struct link *l = link_new(loop, address, 1000, on_link, NULL);
    run_until(LINK_UP);
    link_free(l);
    peer_end(&p);
}

Test(link, ipv6_works)
{
    struct peer p = peer_start("[::1]:0");
    struct link *l = link_new(loop, address, 1000, on_link, NULL);
    run_until(LINK_UP);
    peer_kill(&p);
    run_until(LINK_REFUSED);
    link_free(l);
    peer_end(&p);
}

Test(link, an_unknown_name_and_a_bad_address_are_lost)
{
    static const char *const wrong[] = {"name.invalid:80", "nonsense", "", "127.0.0.1:99999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        last = LINK_EVENT_COUNT_;
        link_probe(loop, wrong[i], 10000, on_link, NULL);
        stop_at = events + 1;
        loop_run(loop);
        cr_assert(eq(int, last, LINK_LOST), "%s", wrong[i]);
    }
}

/* A listener whose queue is full and that accepts nothing: connecting hangs, and that says nothing about a process. */
Test(link, an_address_that_does_not_answer_is_lost_in_time)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0), fillers[8];
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(zero(int, bind(fd, (struct sockaddr *)&addr, len)));
    cr_assert(zero(int, listen(fd, 0)));
    getsockname(fd, (struct sockaddr *)&addr, &len);
    for (int i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(fillers[i], (struct sockaddr *)&addr, len);
    }
    snprintf(address, sizeof address, "127.0.0.1:%u", ntohs(addr.sin_port));
    uint64_t began_ms = clock_boot_ms();
    link_probe(loop, address, 150, on_link, NULL);
    run_until(LINK_LOST);
    cr_assert(ge(u64, clock_boot_ms() - began_ms, 140));
    cr_assert(lt(u64, clock_boot_ms() - began_ms, 30000));
    for (int i = 0; i < 8; i++)
        close(fillers[i]);
    close(fd);
}

static void free_it(void *arg, enum link_event ev)
{
    (void)ev;
    link_free(*(struct link **)arg);
    loop_stop(loop);
}

Test(link, it_may_be_freed_in_its_callback_and_while_it_connects_or_resolves)
{
    struct peer p = peer_start("127.0.0.1:0");
    struct link *l;
    link_free(link_new(loop, address, 10, on_link, NULL));
    struct link *connecting = link_new(loop, address, 10, on_link, NULL);
    struct link *resolving = link_new(loop, "name.invalid:1", 10, on_link, NULL);
    l = link_new(loop, address, 10, free_it, &l);
    loop_run(loop);
    link_free(connecting);
    link_free(resolving);
    link_free(NULL);
    peer_end(&p);
}

Test(link, without_resources_it_is_lost_and_comes_up_later)
{
    struct peer p = peer_start("127.0.0.1:0");
    struct link *l = link_new(loop, address, 10, on_link, NULL);
    fault_arm(0);
    run_until(LINK_LOST);
    cr_assert(fault_fired());
    run_until(LINK_UP);
    link_free(l);
    peer_end(&p);
}
