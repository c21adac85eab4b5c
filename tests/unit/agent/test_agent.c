/* One step of the agent's main thread fails, at its start or while it runs: it ends with one line that says so, or goes on; what it
 * had acknowledged is there the next time, and nothing else is left. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/base/mem.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif

enum {
    LANES = 8,            /* at once: closing a log waits for the kernel most of the time */
    ROUNDS_A_PROCESS = 8, /* a message is written ten times in ten seconds */
    ROUNDS_MAX = 500,
    LOOK_MS = 2,
    PATIENCE_MS = 60000,
    EXIT_TEST_FAILED = 99,
    OUTPUT_MAX = 1 << 16
};

/* What a process of the test tells the one that began it. */
struct told {
    unsigned round; /* under way, or over; in the first nothing fails */
    bool over, fired;
    int rc;
    char why[512]; /* the test itself failed */
};

/* Every so manyth step fails here, one a round, each in an agent that begins with what the one before has left. */
struct lane {
    unsigned number, next; /* the first round of the next process */
    char dir[64], socket[96], output[96];
    struct told *told;
    pid_t pid;
    bool over;
};

static struct lane lanes[LANES];

/* --- the process with the agents ----------------------------------------------------------------------------------- */

static struct lane *lane; /* its */

/* The other one prints this, and the log of the round. */
static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(lane->told->why, sizeof(lane->told->why), format, args);
    va_end(args);
    _exit(EXIT_TEST_FAILED);
}

static unsigned count_files(const char *path)
{
    unsigned count = 0;
    DIR *d = opendir(path);
    while (d && readdir(d))
        count++;
    closedir(d);
    return count;
}

/* The status of the answer; 0: none. */
static int ask(const char *head, const char *body)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    char text[1024], answer[64] = "";
    AUTO(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", lane->socket);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    int length =
        snprintf(text, sizeof(text),
                 "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 head, strlen(body), body);
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        send(fd, text, (size_t)length, MSG_NOSIGNAL) != length ||
        recv(fd, answer, sizeof(answer) - 1, MSG_WAITALL) < 0)
        return 0;
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? (int)strtol(answer + 9, NULL, 10) : 0;
}

/* Whether it is there, or puts it there. */
static int ask_for_job(bool there)
{
    return there ? ask("GET /v1/jobs/kept", "")
                 : ask("PUT /v1/jobs/kept", "{\"schedule\":\"@every 1h\","
                                            "\"callback\":{\"http\":{\"url\":\"http://127.0.0.1:9/\"}}}");
}

struct user {
    atomic_bool over; /* the agent has ended */
    bool keeps;       /* the job was acknowledged before */
    bool was_ready;
};

/* Asks until the answer is WANTED; false: the agent has ended. */
static bool asks_until(struct user *u, int wanted, int (*ask_once)(bool keeps))
{
    int status = 0;
    for (int waited_ms = 0; (status = ask_once(u->keeps)) != wanted; waited_ms += LOOK_MS) {
        if (atomic_load(&u->over))
            return false;
        if (waited_ms > PATIENCE_MS)
            fail("it did not end, and the status is %d, not %d", status, wanted);
        (void)poll(NULL, 0, LOOK_MS);
    }
    return true;
}

static int ask_ready(bool keeps)
{
    (void)keeps;
    return ask("GET /readyz", "");
}

/* Waits for the agent, looks whether it has what it has acknowledged, and ends it. */
static void *use(void *arg)
{
    struct user *u = arg;
    u->was_ready = asks_until(u, 200, ask_ready);
    if (u->was_ready && asks_until(u, u->keeps ? 200 : 201, ask_for_job))
        (void)kill(getpid(), SIGTERM);
    return NULL;
}

static struct config *load(void)
{
    char data[128], listen[128];
    const char *const sets[] = {data, listen, "cluster.slots=8", "callback.allow_loopback=true"};
    struct option_errors errors = {0};
    struct config *c = NULL;
    struct err e = {0};
    (void)snprintf(data, sizeof(data), "agent.data_dir=%s", lane->dir);
    (void)snprintf(listen, sizeof(listen), "api.listen=unix:%s", lane->socket);
    if (config_load(NULL, sets, sizeof(sets) / sizeof(sets[0]), NULL, &c, &errors, &e) < 0)
        fail("%s %s", e.text, errors.lines.count ? errors.lines.items[0] : "");
    option_errors_fini(&errors);
    return c;
}

static void read_output(const struct lane *l, char ret[OUTPUT_MAX])
{
    AUTO(fd_close) int fd = open(l->output, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, ret, OUTPUT_MAX - 1);
    ret[n > 0 ? n : 0] = '\0';
}

static unsigned count_of(const char *text, const char *what)
{
    unsigned count = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        count++;
    return count;
}

/* What a person finds in the log of an agent that could not go on. */
static bool tells_once(const char *log)
{
    const char *at = strstr(log, "level=error");
    return count_of(log, "level=error") == 1 && strstr(at, "msg=\"cannot go on\" error=\"") != NULL &&
           strstr(at, "error=\"\"") == NULL && strstr(at, ": \"") == NULL;
}

/* One whole agent, of which a step fails unless this is the first ROUND. */
static void live(unsigned round)
{
    char log[OUTPUT_MAX];
    struct err e = {0};
    struct user user = {.keeps = round > 0};
    struct agent_start start = {.config = load()};
    struct told *t = lane->told;
    pthread_t thread;
    atomic_init(&user.over, false);
    *t = (struct told){.round = round};
    if (ftruncate(STDERR_FILENO, 0) < 0 || pthread_create(&thread, NULL, use, &user) != 0)
        fail("the round was not prepared");
    if (round > 0)
        fault_arm((round - 1) * LANES + lane->number);
    t->rc = agent_run(&start, &e);
    t->fired = fault_fired();
    atomic_store(&user.over, true);
    (void)pthread_join(thread, NULL);
    read_output(lane, log);
    if (t->rc == 0 && !user.was_ready)
        fail("it ended well, but nobody had told it to");
    if (t->rc < 0 && (!t->fired || tells_once(log) == (e.text[0] != '\0')))
        fail("it did not end with one line: '%s'", e.text);
    if (access(lane->socket, F_OK) == 0)
        fail("its socket is left");
}

/* What is found is part of the output. A forked process has the number of the one before it in LSan's list, of which it warns. */
static void look_for_leaks(void)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_report_fd((void *)(intptr_t)STDERR_FILENO);
    if (__lsan_do_recoverable_leak_check())
        fail("it leaks");
#endif
}

static void live_often(unsigned round)
{
    sigset_t set;
    unsigned files = 0;
    int fd = open(lane->output, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    (void)dup2(fd, STDERR_FILENO);
    fd_close(fd);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (unsigned i = 0; i < ROUNDS_A_PROCESS; i++) {
        live(round + i);
        unsigned left = count_files("/proc/self/fd");
        if (i > 0 && left != files)
            fail("%u files are open after it, not %u", left, files);
        files = left;
        lane->told->over = true;
        if (round + i > 0 && !lane->told->fired)
            break;
    }
    look_for_leaks();
    _exit(EXIT_SUCCESS);
}

/* --- the process of the test --------------------------------------------------------------------------------------- */

static void make_lane(struct lane *l, unsigned number)
{
    l->number = number;
    (void)snprintf(l->dir, sizeof(l->dir), "/tmp/carillon-test-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(l->dir), NULL));
    (void)snprintf(l->socket, sizeof(l->socket), "%s/api.sock", l->dir);
    (void)snprintf(l->output, sizeof(l->output), "%s/output", l->dir);
    l->told = mmap(NULL, sizeof(*l->told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(ne(ptr, l->told, MAP_FAILED));
}

static void remove_all(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *f; d && (f = readdir(d));) {
        char at[400];
        (void)snprintf(at, sizeof(at), "%s/%s", path, f->d_name);
        if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0 && unlink(at) < 0)
            remove_all(at);
    }
    closedir(d);
    cr_assert(zero(int, rmdir(path)), "%s", path);
}

static void begin(struct lane *l)
{
    l->told->over = false;
    l->pid = fork();
    cr_assert(ge(int, l->pid, 0));
    if (l->pid == 0) {
        lane = l;
        live_often(l->next);
    }
}

/* Its process has ended: what became of its last round, and whether there is another one. */
static void judge(struct lane *l)
{
    char log[OUTPUT_MAX];
    int status;
    cr_assert(eq(int, waitpid(l->pid, &status, 0), l->pid));
    read_output(l, log);
    const struct told *t = l->told;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    /* One with work in flight ends the process, and may just then be told to end. */
    bool failed_alone = !t->over && (code == EXIT_FAILURE || code == -SIGTERM) && tells_once(log);
    bool well = code == EXIT_SUCCESS && t->over;
    cr_assert(ne(int, code, EXIT_TEST_FAILED), "lane %u round %u: %s: %s", l->number, t->round, t->why, log);
    cr_assert(failed_alone || well, "lane %u round %u: code %d: %s", l->number, t->round, code, log);
    l->next = t->round + 1;
    l->over = well && t->round > 0 && !t->fired;
    cr_assert(lt(u32, l->next, ROUNDS_MAX));
    cr_assert(le(u32, l->over && t->rc < 0, 0), "round %u", t->round);
}

Test(agent, keeps_what_it_acknowledged_whatever_fails_once)
{
    size_t going = LANES;
    for (unsigned i = 0; i < LANES; i++)
        make_lane(&lanes[i], i);
    while (going > 0) {
        for (size_t i = 0; i < going; i++)
            begin(&lanes[i]);
        size_t kept = 0;
        for (size_t i = 0; i < going; i++) {
            judge(&lanes[i]);
            if (lanes[i].over)
                remove_all(lanes[i].dir);
            else
                lanes[kept++] = lanes[i];
        }
        going = kept;
    }
}
