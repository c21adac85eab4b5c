/* Starting the API, and who is let in, while each fallible step fails in turn. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "tests/lib/api_bed.h"
#include "tests/unit/io/certificate.h"

#define PUT_JOB "{\"schedule\":\"0 0 1 1 *\",\"callback\":{\"http\":{\"url\":\"http://127.0.0.1:9/\"}}}"

static struct api_bed bed;
static char dir[] = "/tmp/carillon-api-XXXXXX";

static void setup(void)
{
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    cr_assert(zero(int, chdir(dir)));
}

static void teardown(void)
{
    static const char *const files[] = {"t.yaml", "t.new", "localhost.pem", "localhost.key"};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        (void)unlink(files[i]); /* a test makes some of them */
    cr_assert(zero(int, chdir("/")));
    cr_assert(zero(int, rmdir(dir)));
}

TestSuite(api, .init = setup, .fini = teardown);

/* One token that may do all, one that may read in one namespace; their secrets end in NUMBER. */
static void write_tokens(unsigned number)
{
    static const char *const names[] = {"all", "team"}, *const rights[] = {
                                                            "namespaces: ['*'], can: [read, write, operate]",
                                                            "namespaces: [team], can: [read, write]"};
    FILE *f = fopen("t.new", "w");
    for (size_t i = 0; i < 2; i++) {
        char secret[40], hex[65];
        uint8_t digest[32];
        int len = snprintf(secret, sizeof(secret), "%s-%u", names[i], number);
        cr_assert(eq(int, EVP_Digest(secret, (size_t)len, digest, NULL, EVP_sha256(), NULL), 1));
        text_hex_encode(digest, sizeof(digest), hex);
        (void)fprintf(f, "- {name: %s, sha256: %.64s, %s}\n", names[i], hex, rights[i]);
    }
    (void)fclose(f);
    cr_assert(zero(int, rename("t.new", "t.yaml")));
}

static const char *const with_tokens[] = {"api.tokens_file=t.yaml", NULL};
static const char *const with_tls[] = {"api.tokens_file=t.yaml", "api.tls_cert=localhost.pem",
                                       "api.tls_key=localhost.key", NULL};

Test(api, a_start_in_which_a_step_fails_leaves_nothing)
{
    unsigned k = 0;
    make_certificate("localhost");
    write_tokens(0);
    api_bed_open(&bed, with_tls);
    api_bed_stop(&bed);
    for (bool fired = true; fired; k++) {
        struct err e = {0};
        fault_arm(k);
        int rc = api_bed_start(&bed, "127.0.0.1:0", &e);
        fired = fault_fired();
        fault_disarm();
        cr_assert(eq(int, rc < 0, fired), "step %u: %s", k, e.text);
        cr_assert(eq(int, bed.api != NULL, !fired), "step %u", k);
        cr_assert(eq(int, e.text[0] != '\0', fired), "step %u", k);
    }
    cr_assert(gt(u32, k, 20), "seeds, threads, the tokens, two listeners with TLS");
    api_reload(bed.api);
    api_bed_close(&bed);
}

Test(api, who_is_let_in_under_faults_is_who_is_without)
{
    static const struct api_case all[] = {
        {.method = "GET", .target = "/v1/jobs?ns=*", .status = 200},
        {.method = "GET", .target = "/v1/jobs/j?ns=team", .status = 200},
    };
    static char fire[120];
    static const struct api_case team[] = {
        {.method = "GET", .target = "/v1/jobs?ns=team", .status = 200},
        {.method = "GET", .target = "/v1/jobs?ns=*", .status = 403, .varying = " instance "},
        {.method = "GET", .target = "/v1/jobs/j", .status = 403, .varying = " instance "},
        {.method = "GET", .target = fire, .status = 403, .varying = " instance "},
    };
    static const struct api_case nobody[] = {
        {.method = "GET", .target = "/v1/jobs", .status = 401, .varying = " instance "},
    };
    write_tokens(0);
    api_bed_open(&bed, with_tokens);
    bed.authorization = "Bearer all-0";
    api_bed_put(&bed, "j", "0 0 1 1 *");
    api_bed_write(&bed, "PUT", "/v1/jobs/j?ns=team", PUT_JOB, 201);
    const struct api_answer *a = api_bed_write(&bed, "POST", "/v1/jobs/j/run", NULL, 202);
    char id[56];
    cr_assert(eq(int, sscanf(a->body, "{\"fire\":\"%55[0-9a-f.]", id), 1), "%s", a->body);
    (void)snprintf(fire, sizeof(fire), "/v1/fires/%s", id);
    api_bed_until(&bed, "/v1/jobs/j", "\"succeeded\":1,");
    api_bed_run(&bed, all, sizeof(all) / sizeof(all[0]));
    bed.authorization = "Bearer team-0";
    api_bed_run(&bed, team, sizeof(team) / sizeof(team[0]));
    bed.authorization = "Bearer none-0";
    api_bed_run(&bed, nobody, sizeof(nobody) / sizeof(nobody[0]));
    api_bed_close(&bed);
}

/* A token that was taken out of the file must not stay in use because its reading failed once. */
Test(api, tokens_that_could_not_be_read_are_read_at_the_next_look)
{
    unsigned k = 0;
    write_tokens(0);
    api_bed_open(&bed, with_tokens);
    for (bool fired = true; fired; k++) {
        char now[40], before[40];
        int64_t end_ms = (int64_t)clock_boot_ms() + API_BED_WAIT_MS;
        (void)snprintf(before, sizeof(before), "Bearer all-%u", k);
        (void)snprintf(now, sizeof(now), "Bearer all-%u", k + 1);
        write_tokens(k + 1);
        bed.authorization = now;
        fault_arm_threads(k);
        do {
            cr_assert(lt(i64, (int64_t)clock_boot_ms(), end_ms), "step %u: never read again", k);
            api_reload(bed.api);
        } while (api_bed_ask(&bed, "GET", "/v1/jobs", NULL, NULL)->status != 200);
        fired = fault_fired();
        fault_disarm();
        bed.authorization = before;
        cr_assert(eq(int, api_bed_ask(&bed, "GET", "/v1/jobs", NULL, NULL)->status, 401));
    }
    cr_assert(gt(u32, k, 5), "the file, its tree, the table");
    api_bed_close(&bed);
}
