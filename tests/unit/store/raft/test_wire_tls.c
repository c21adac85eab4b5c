#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/err.h"
#include "agent/store/raft/wire_tls.h"
#include "tests/unit/io/certificate.h"

static char dir[64];

/* Two of one authority, who differ by name, and one more whom it does not know. */
static void begin(void)
{
    snprintf(dir, sizeof dir, "%s/test-wire-tls-XXXXXX", P_tmpdir);
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    cr_assert(zero(int, chdir(dir)));
    make_certificate("carillon");
    make_certificate("another");
    make_certificate("stranger");
    cr_assert(zero(int, system("cat carillon.pem another.pem > ca.pem")));
}

static void end(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    cr_assert(zero(int, system(command)));
}

TestSuite(wire_tls, .init = begin, .fini = end, .timeout = 600);

static struct wire_tls *with(const char *name, const char *server_name)
{
    char cert[32], key[32];
    struct err e = {0};
    struct wire_tls *t = NULL;
    snprintf(cert, sizeof cert, "%s.pem", name);
    snprintf(key, sizeof key, "%s.key", name);
    struct wire_tls_options o = {.cluster = "test",
                                 .ca_file = "ca.pem",
                                 .cert_file = cert,
                                 .key_file = key,
                                 .server_name = server_name};
    cr_assert(zero(int, wire_tls_new(&o, &t, &e)), "%s", e.text);
    return t;
}

static void carry(SSL *from, SSL *to)
{
    char bytes[16384];
    int n = BIO_read(SSL_get_wbio(from), bytes, sizeof bytes);
    if (n > 0)
        cr_assert(eq(int, BIO_write(SSL_get_rbio(to), bytes, n), n));
}

/* Whether DIALS, who dials HOST, and ACCEPTS come to know each other. */
static bool meet(struct wire_tls *dials, struct wire_tls *accepts, const char *host)
{
    SSL *sides[2] = {wire_tls_side(dials, host), wire_tls_side(accepts, NULL)};
    int done[2] = {0, 0};
    cr_assert(sides[0] && sides[1]);
    for (unsigned turn = 0; turn < 10; turn++)
        for (unsigned i = 0; i < 2; i++) {
            done[i] = SSL_do_handshake(sides[i]);
            carry(sides[i], sides[1 - i]);
        }
    SSL_free(sides[0]);
    SSL_free(sides[1]);
    return done[0] == 1 && done[1] == 1;
}

Test(wire_tls, the_host_that_is_dialled_has_to_stand_in_the_certificate)
{
    struct wire_tls *a = with("carillon", NULL), *b = with("another", NULL);
    cr_assert(meet(a, b, "another"));
    cr_assert_not(meet(a, b, "carillon"));
    cr_assert_not(meet(a, b, "127.0.0.1"));
    wire_tls_free(a);
    wire_tls_free(b);
}

Test(wire_tls, the_name_of_all_stands_in_the_certificates_of_both_sides)
{
    struct wire_tls *a = with("carillon", "carillon"), *b = with("carillon", "carillon");
    struct wire_tls *mistaken = with("carillon", "another"), *other = with("another", "carillon");
    cr_assert(meet(a, b, "127.0.0.1"));
    cr_assert_not(meet(mistaken, b, "127.0.0.1"));
    cr_assert_not(meet(other, b, "127.0.0.1"), "whoever dials has another name");
    cr_assert_not(meet(a, other, "another"), "whoever is dialled has another name");
    wire_tls_free(a);
    wire_tls_free(b);
    wire_tls_free(mistaken);
    wire_tls_free(other);
}

Test(wire_tls, whom_the_authority_does_not_know_is_refused)
{
    struct wire_tls *a = with("carillon", NULL), *b = with("stranger", NULL);
    cr_assert_not(meet(a, b, "stranger"));
    cr_assert_not(meet(b, a, "carillon"));
    wire_tls_free(a);
    wire_tls_free(b);
}

Test(wire_tls, files_that_change_are_read_again_and_broken_ones_are_not)
{
    struct wire_tls *a = with("carillon", NULL), *b = with("another", NULL);
    cr_assert(zero(int, system("cp stranger.pem another.pem")));
    cr_assert(meet(a, b, "another"), "half of a change");
    cr_assert(zero(int, system("cp stranger.key another.key")));
    cr_assert_not(meet(a, b, "stranger"), "nobody has been told of the new one yet");
    cr_assert(zero(int, system("cat stranger.pem carillon.pem > ca.pem")));
    cr_assert(meet(a, b, "stranger"));
    cr_assert(zero(int, unlink("ca.pem")));
    cr_assert(meet(a, b, "stranger"), "the old ones stay in use");
    wire_tls_free(a);
    wire_tls_free(b);
}

Test(wire_tls, files_that_are_none_are_refused)
{
    struct err e = {0};
    struct wire_tls *t = NULL;
    struct wire_tls_options o = {
        .cluster = "test", .ca_file = "ca.pem", .cert_file = "carillon.pem", .key_file = "another.key"};
    cr_assert(eq(int, wire_tls_new(&o, &t, &e), -ERR_INVALID));
    o.cert_file = "nowhere.pem";
    cr_assert(eq(int, wire_tls_new(&o, &t, &e), -ERR_INVALID));
    cr_assert(eq(ptr, t, NULL));
}
