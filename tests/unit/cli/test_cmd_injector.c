/* `carillon injector` with each step of its start failing: it serves, or says why not. */
#include "tests/unit/cli/run_served.h"

#include "tests/unit/io/certificate.h"

static char folder[64];

static struct run run_injector(void *arg, long k)
{
    struct run_served s = {.ready = "address="};
    (void)arg;
    struct run r = run_served(&s,
                              (const char *const[]){"carillon", "injector", "--listen", "127.0.0.1:0",
                                                    "--sidecar", "sidecar.yaml", "--tls-cert", "webhook.pem",
                                                    "--tls-key", "webhook.key", "--linger", "0s", NULL},
                              k);
    /* Lines of the log begin with the time. */
    bool listened = strstr(r.err, "listening") && strstr(r.err, "ending");
    cr_assert(eq(int, listened, r.code == CLI_OK), "%d\n%s", r.code, r.err);
    if (listened)
        *strstr(r.err, "ts=") = '\0';
    return r;
}

Test(cmd_injector, it_serves_or_says_why_not, .timeout = 300)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/carillon-test-XXXXXX");
    cr_assert(mkdtemp(folder) && chdir(folder) == 0);
    make_certificate("webhook");
    FILE *sidecar = fopen("sidecar.yaml", "w");
    (void)fputs(
        "{\"client\":{\"initContainers\":[{\"name\":\"carillon\",\"image\":\"carillon:1\",\"args\":[\"agent\"]}]}}",
        sidecar);
    (void)fclose(sidecar);
    run_each(run_injector, NULL, NULL, "injector");
    cr_assert(unlink("sidecar.yaml") == 0 && unlink("webhook.pem") == 0 && unlink("webhook.key") == 0);
    cr_assert(zero(int, chdir("/")));
    cr_assert(zero(int, rmdir(folder)));
}
