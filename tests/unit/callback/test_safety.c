#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/io/file.h"
#include "agent/io/loop.h"
#include "callback/safety.h"

#define KEY_A "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define KEY_B "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

static struct bed {
    char dir[64], keys[128], secrets[128];
    struct loop *loop;
    struct loop_timer *timer;
    bool (*reached)(void);
    unsigned looks;
    struct safety *safety;
} bed;

static void put(const char *name, const char *text)
{
    char path[256];
    struct err e;
    snprintf(path, sizeof(path), "%s/%s", bed.dir, name);
    cr_assert(zero(int, file_write(path, text, strlen(text), 0600, &e)), "%s", e.text);
}

static void make(void)
{
    struct err e;
    log_set(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
    snprintf(bed.dir, sizeof(bed.dir), "/tmp/test-safety-XXXXXX");
    cr_assert(mkdtemp(bed.dir) != NULL);
    snprintf(bed.keys, sizeof(bed.keys), "%s/keys", bed.dir);
    snprintf(bed.secrets, sizeof(bed.secrets), "%s/secrets", bed.dir);
    mkdir(bed.secrets, 0700);
    char ns[160];
    snprintf(ns, sizeof(ns), "%s/default", bed.secrets);
    mkdir(ns, 0700);
    put("keys", "* a " KEY_A "\n");
    put("secrets/default/token", "one");
    cr_assert(zero(int, loop_new(&bed.loop, &e)));
}

static void clean(void)
{
    char command[128];
    safety_free(bed.safety);
    if (bed.timer)
        loop_timer_free(bed.timer);
    loop_free(bed.loop);
    snprintf(command, sizeof(command), "rm -rf '%s'", bed.dir);
    cr_assert(zero(int, system(command)));
}

TestSuite(safety, .init = make, .fini = clean);

static struct safety_options options(void)
{
    return (struct safety_options){.loop = bed.loop,
                                   .signing_keys_file = bed.keys,
                                   .secrets_dir = bed.secrets,
                                   .guard = {.allow_loopback = true},
                                   .look_ms = 1};
}

static void open_safety(void)
{
    struct err e = {0};
    struct safety_options o = options();
    cr_assert(zero(int, safety_new(&o, &bed.safety, &e)), "%s", e.text);
}

static void look_again(void *arg)
{
    (void)arg;
    cr_assert(lt(uint, ++bed.looks, 5000), "waited in vain");
    if (bed.reached())
        loop_stop(bed.loop);
    else
        loop_timer_arm(bed.timer, 1);
}

static void run_until(bool (*reached)(void))
{
    bed.reached = reached;
    bed.looks = 0;
    if (!bed.timer)
        bed.timer = loop_timer_new(bed.loop, look_again, NULL);
    loop_timer_arm(bed.timer, 0);
    loop_run(bed.loop);
}

static size_t signatures(const struct sign_keys *keys)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(1000);
    struct sign_message m = {.ns = "default", .id = "i", .timestamp_s = 1};
    size_t count = 0;
    cr_assert(zero(int, sign_message(keys, &m, &out, NULL)));
    for (const char *at = buf_str(&out); (at = strstr(at, "v1,")); at++)
        count++;
    return count;
}

static size_t keys_now(void)
{
    struct safety_use use;
    safety_use(bed.safety, &use);
    size_t count = signatures(use.keys);
    safety_unuse(&use);
    return count;
}

static bool two_keys(void)
{
    return keys_now() == 2;
}

static const char *token(void)
{
    static char copy[64];
    struct safety_use use;
    const char *value = "none";
    safety_use(bed.safety, &use);
    (void)secrets_find(use.secrets, "default", "token", 5, &value, NULL);
    snprintf(copy, sizeof(copy), "%s", value);
    safety_unuse(&use);
    return copy;
}

static bool token_changed(void)
{
    return strcmp(token(), "one") != 0;
}

Test(safety, changed_files_are_read_again_and_users_keep_what_they_have)
{
    struct safety_use before;
    const char *value;
    open_safety();
    safety_use(bed.safety, &before);
    put("keys", "* a " KEY_A "\n* b " KEY_B "\n");
    put("secrets/default/token", "another");
    run_until(two_keys);
    run_until(token_changed);
    cr_assert(eq(str, (char *)token(), "another"));
    cr_assert(eq(sz, signatures(before.keys), 1));
    cr_assert(zero(int, secrets_find(before.secrets, "default", "token", 5, &value, NULL)));
    cr_assert(eq(str, (char *)value, "one"));
    safety_free(bed.safety);
    bed.safety = NULL;
    cr_assert(eq(str, (char *)value, "one"));
    safety_unuse(&before);
}

static unsigned turns;
static bool some_looks_later(void)
{
    return ++turns > 30;
}

Test(safety, a_broken_or_missing_keys_file_leaves_the_old_in_use)
{
    open_safety();
    put("keys", "* a " KEY_A "\n* b nonsense\n");
    turns = 0;
    run_until(some_looks_later);
    cr_assert(eq(sz, keys_now(), 1));
    cr_assert(zero(int, unlink(bed.keys)));
    turns = 0;
    run_until(some_looks_later);
    cr_assert(eq(sz, keys_now(), 1));
    put("keys", "* a " KEY_A "\n* b " KEY_B "\n");
    run_until(two_keys);
}

Test(safety, a_vanished_secret_is_gone)
{
    char path[256];
    open_safety();
    snprintf(path, sizeof(path), "%s/default/token", bed.secrets);
    cr_assert(zero(int, unlink(path)));
    run_until(token_changed);
    cr_assert(eq(str, (char *)token(), "none"));
    cr_assert(not(safety_secret_known(bed.safety, "default", "token", 5)));
}

Test(safety, a_secret_written_just_now_is_known_and_there)
{
    struct safety_options o = options();
    o.look_ms = 3600 * 1000;
    cr_assert(zero(int, safety_new(&o, &bed.safety, NULL)));
    cr_assert(not(safety_secret_known(bed.safety, "default", "new", 3)));
    put("secrets/default/new", "x");
    cr_assert(safety_secret_known(bed.safety, "default", "new", 3));
    cr_assert(not(safety_secret_known(bed.safety, "team-b", "new", 3)));
    struct safety_use use;
    const char *value;
    safety_use(bed.safety, &use);
    cr_assert(zero(int, secrets_find(use.secrets, "default", "new", 3, &value, NULL)));
    safety_unuse(&use);
}

Test(safety, without_files_nothing_is_signed_and_no_secret_judged)
{
    struct safety_options o = {.loop = bed.loop};
    struct safety_use use;
    cr_assert(zero(int, safety_new(&o, &bed.safety, NULL)));
    cr_assert(safety_secret_known(bed.safety, "default", "any", 3));
    safety_use(bed.safety, &use);
    cr_assert(zero(ptr, use.keys));
    cr_assert(zero(ptr, use.secrets));
    cr_assert(use.guard != NULL);
    safety_unuse(&use);
    safety_use(NULL, &use);
    cr_assert(zero(ptr, use.keys));
    cr_assert(zero(ptr, use.secrets));
    cr_assert(zero(ptr, use.guard));
    safety_unuse(&use);
}

static bool permitted(const char *ip, unsigned port)
{
    struct safety_use use;
    char why[GUARD_WHY_SIZE];
    safety_use(bed.safety, &use);
    bool yes = guard_permits_ip(use.guard, ip, port, true, why);
    safety_unuse(&use);
    return yes;
}

static int listen_somewhere(unsigned *ret_port)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(any);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(zero(int, bind(fd, (struct sockaddr *)&any, sizeof(any))));
    cr_assert(zero(int, listen(fd, 1)));
    getsockname(fd, (struct sockaddr *)&any, &size);
    *ret_port = ntohs(any.sin_port);
    return fd;
}

static unsigned late_port;
static bool late_port_is_denied(void)
{
    return !permitted("127.0.0.1", late_port);
}

Test(safety, own_listeners_are_noticed_when_told_and_by_looking)
{
    unsigned port;
    open_safety();
    int told = listen_somewhere(&port);
    safety_listeners_changed(bed.safety);
    cr_assert(not(permitted("127.0.0.1", port)));
    int found = listen_somewhere(&late_port);
    run_until(late_port_is_denied);
    close(told);
    close(found);
}

Test(safety, a_new_guard_counts_at_once_and_keeps_the_ports)
{
    unsigned port;
    struct err e = {0};
    open_safety();
    int fd = listen_somewhere(&port);
    struct guard_options next = {
        .deny = (const char *const[]){"10.0.0.0/8"}, .deny_count = 1, .allow_loopback = true};
    cr_assert(permitted("10.0.0.1", 80));
    cr_assert(zero(int, safety_set_guard(bed.safety, &next, &e)));
    cr_assert(not(permitted("10.0.0.1", 80)));
    cr_assert(not(permitted("127.0.0.1", port)));
    next.deny = (const char *const[]){"nonsense"};
    cr_assert(eq(int, safety_set_guard(bed.safety, &next, &e), -ERR_INVALID));
    cr_assert(not(permitted("10.0.0.1", 80)));
    close(fd);
}

Test(safety, what_cannot_be_read_at_the_start_is_an_error)
{
    struct err e = {0};
    struct safety_options o = options();
    put("keys", "nonsense\n");
    cr_assert(eq(int, safety_new(&o, &bed.safety, &e), -ERR_INVALID));
    cr_assert(strstr(e.text, "callback.signing_keys_file") && strstr(e.text, "line 1"), "%s", e.text);
    put("keys", "");
    o.secrets_dir = "/nowhere/at/all";
    cr_assert(eq(int, safety_new(&o, &bed.safety, &e), -ERR_NOT_FOUND));
    cr_assert(strstr(e.text, "callback.secrets_dir") != NULL, "%s", e.text);
    cr_assert(zero(ptr, bed.safety));
}

Test(safety, faults_leave_nothing_behind)
{
    for (unsigned k = 0;; k++) {
        struct err e = {0};
        struct safety_options o = options();
        o.look_ms = 3600 * 1000;
        fault_arm(k);
        int rc = safety_new(&o, &bed.safety, &e);
        bool fired = fault_fired();
        cr_assert(eq(int, rc == 0, bed.safety != NULL), "k=%u", k);
        safety_free(bed.safety);
        bed.safety = NULL;
        if (!fired)
            break;
    }
}
