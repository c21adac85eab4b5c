/* `carillon sink` with each of its loop's steps failing: what came is shown whole, or it is said that something is missing; nothing is
 * said of a signature that could not be checked. */
#include <assert.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/cli/run_served.h"

TestSuite(cmd_sink, .timeout = 300);

static char socket_path[64], keys_path[64];

static const char *const requests[] = {
    "POST /hook HTTP/1.1\r\nHost: s\r\nce-id: u.1\r\nce-subject: job\r\nce-time: 2026-11-23T08:00:00Z\r\nCarillon-Seq: 3\r\n"
    "webhook-id: u.1\r\nwebhook-timestamp: 1795420800\r\nwebhook-signature: v1,d3Jvbmc=\r\n"
    "Content-Length: 13\r\n\r\n{\"a\":[1,2,3]}",
    "PUT /other HTTP/1.1\r\nHost: s\r\nContent-Length: 4\r\n\r\ntext",
    "GET /none HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"};

static int dial(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    int r = connect(fd, (struct sockaddr *)&to, sizeof(to));
    assert(r == 0); /* on the visitor's thread, as all here */
    return fd;
}

/* One after the other, each answered. */
static void send_all(void *arg, const char *address)
{
    char answer[1024];
    (void)arg;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        int fd = dial(address + strlen("unix:"));
        ssize_t n = send(fd, requests[i], strlen(requests[i]), MSG_NOSIGNAL);
        assert(n == (ssize_t)strlen(requests[i]));
        n = recv(fd, answer, sizeof(answer) - 1, 0);
        assert(n > 12);
        answer[n] = '\0';
        assert(strncmp(answer, "HTTP/1.1 200", 12) == 0);
        (void)close(fd);
    }
}

static struct run run_sink(void *arg, long k)
{
    struct run_served s = {.ready = "sink listens on ", .visit = send_all};
    char listen[80];
    (void)snprintf(listen, sizeof(listen), "unix:%s", socket_path);
    const char *const words[] = {"carillon", "sink", "--listen", listen, "--signing-keys-file",
                                 keys_path,  arg,    NULL};
    struct run r = run_served(&s, words, k);
    run_mask(r.out, "lateness_ms=");
    run_mask(r.out, "lateness_ms\":");
    return r;
}

static void look_at_lines(void *arg, const struct run *r)
{
    cr_assert(eq(int, arg && r->code == CLI_OK,
                 arg && strstr(r->out, "\"body\":{\"a\":[1,2,3]}") && strstr(r->out, "\"body\":\"text\"") &&
                     strstr(r->out, "\"body\":null") && strstr(r->out, "\"signature\":\"wrong\"")),
              "%s%s", r->out, r->err);
}

Test(cmd_sink, what_came_is_shown_whole_or_missed)
{
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(socket_path, sizeof(socket_path), "%s/carillon-test-%ld.sock", folder, (long)getpid());
    (void)snprintf(keys_path, sizeof(keys_path), "%s/carillon-test-%ld.keys", folder, (long)getpid());
    FILE *keys = fopen(keys_path, "w");
    (void)fprintf(keys, "* a whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    (void)fclose(keys);
    run_each(run_sink, NULL, NULL, "sink");
    run_each(run_sink, look_at_lines, (void *)(uintptr_t) "--json", "sink --json");
    (void)unlink(keys_path);
}
