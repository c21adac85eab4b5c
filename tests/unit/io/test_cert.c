/* When certificates end. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/cert.h"

/* CN=x, valid from 2026-01-01T00:00:00Z to 2027-02-03T04:05:06Z. */
static const char pem[] = "-----BEGIN CERTIFICATE-----\n"
                          "MIH/MIGmAgEBMAoGCCqGSM49BAMCMAwxCjAIBgNVBAMMAXgwHhcNMjYwMTAxMDAw\n"
                          "MDAwWhcNMjcwMjAzMDQwNTA2WjAMMQowCAYDVQQDDAF4MFkwEwYHKoZIzj0CAQYI\n"
                          "KoZIzj0DAQcDQgAEdcxuPLbCuTCRaah3LUJ++dkTBDZgZeso9BM1DvyzL6HSTGcc\n"
                          "NG7+R2XEWuU9cR5ufPxCkasutHDkQdVaoPhmpDAKBggqhkjOPQQDAgNIADBFAiEA\n"
                          "tRHxnWtcdFzH7B7x05lyCrO7sTowwLmgFMqRLQANTyUCIBLiopO4DJYns4qlFYXp\n"
                          "94m6RHyE90IjNK5c4x6rFU6q\n"
                          "-----END CERTIFICATE-----\n";

static void with_file(const char *text, void (*check)(const char *path))
{
    char path[] = "/tmp/carillon-cert-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(ge(int, fd, 0));
    cr_assert(eq(sz, (size_t)write(fd, text, strlen(text)), strlen(text)));
    (void)close(fd);
    check(path);
    (void)unlink(path);
}

static void expect_expiry(const char *path)
{
    int64_t at_s = 0;
    struct err e;
    cr_assert(zero(int, cert_expiry_s(path, &at_s, &e)), "%s", e.text);
    cr_assert(eq(i64, at_s, 1801627506));
}

static void expect_invalid(const char *path)
{
    int64_t at_s = 7;
    struct err e;
    cr_assert(eq(int, cert_expiry_s(path, &at_s, &e), -ERR_INVALID));
    cr_assert(eq(i64, at_s, 7));
}

static void expect_fault_safe(const char *path)
{
    for (unsigned k = 0;; k++) {
        int64_t at_s = 7;
        struct err e;
        fault_arm(k);
        int r = cert_expiry_s(path, &at_s, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
        cr_assert(eq(i64, at_s, 7), "k=%u", k);
    }
}

Test(cert, the_first_certificate_of_a_file_tells_its_end)
{
    char two[2 * sizeof(pem)];
    with_file(pem, expect_expiry);
    (void)snprintf(two, sizeof(two), "a comment\n%snonsense", pem);
    with_file(two, expect_expiry);
}

Test(cert, what_holds_none_is_refused)
{
    int64_t at_s;
    struct err e;
    with_file("", expect_invalid);
    with_file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", expect_invalid);
    cr_assert(eq(int, cert_expiry_s("/nonexistent/cert.pem", &at_s, &e), -ERR_NOT_FOUND));
}

Test(cert, a_fault_leaves_the_result_alone)
{
    with_file(pem, expect_fault_safe);
}
