#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "callback/sign.h"

/* The example of the Standard Webhooks libraries. */
#define KEY_A  "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define SIGN_A "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
#define KEY_B  "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
#define KEY_C  "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="

static struct sign_keys *keys_of(const char *text)
{
    struct sign_keys *k = NULL;
    struct err e = {0};
    cr_assert(zero(int, sign_keys_parse(text, strlen(text), &k, &e)), "%s", e.text);
    return k;
}

static const char *signatures(const struct sign_keys *k, const char *ns, const char *service)
{
    static char out[1024];
    struct buf text = BUF_INIT(sizeof(out) - 1);
    struct err e = {0};
    struct sign_message m = {.ns = ns,
                             .service = service,
                             .id = "msg_p5jXN8AQM9LWM0D4loKWxJek",
                             .timestamp_s = 1614265330,
                             .body = "{\"test\": 2432232314}",
                             .body_bytes = 20};
    cr_assert(zero(int, sign_message(k, &m, &text, &e)), "%s", e.text);
    snprintf(out, sizeof(out), "%s", buf_str(&text));
    buf_fini(&text);
    return out;
}

/* Which of the three keys have signed, in order: "ab". */
static const char *signers(const char *text, const char *ns, const char *service)
{
    static char out[8];
    static const char *const lines[] = {"* x " KEY_A, "* x " KEY_B, "* x " KEY_C};
    struct sign_keys *k = keys_of(text);
    char all[1024], *save = NULL;
    size_t n = 0;
    snprintf(all, sizeof(all), "%s", signatures(k, ns, service));
    for (char *at = strtok_r(all, " ", &save); at; at = strtok_r(NULL, " ", &save))
        for (size_t i = 0; i < 3; i++) {
            struct sign_keys *one = keys_of(lines[i]);
            if (strcmp(at, signatures(one, "n", NULL)) == 0)
                out[n++] = (char)('a' + i);
            sign_keys_unref(one);
        }
    out[n] = '\0';
    sign_keys_unref(k);
    return out;
}

Test(sign, the_standards_example_comes_out)
{
    struct sign_keys *k = keys_of("* main " KEY_A "\n");
    cr_assert(eq(str, (char *)signatures(k, "default", "billing"), SIGN_A));
    sign_keys_unref(k);
}

Test(sign, the_most_specific_scope_signs_alone)
{
    const char *text = "* any " KEY_A "\nteam-b any " KEY_B "\nteam-b/billing any " KEY_C "\n";
    cr_assert(eq(str, (char *)signers(text, "team-b", "billing"), "c"));
    cr_assert(eq(str, (char *)signers(text, "team-b", "mail"), "b"));
    cr_assert(eq(str, (char *)signers(text, "team-b", NULL), "b"));
    cr_assert(eq(str, (char *)signers(text, "team", "billing"), "a"));
    cr_assert(eq(str, (char *)signers(text, "team-bb", NULL), "a"));
}

Test(sign, all_keys_of_a_scope_sign_in_the_files_order)
{
    const char *text = "# rotation\n\n  default\tnew\t" KEY_C "\r\n* any " KEY_B "\n \t\ndefault old " KEY_A;
    cr_assert(eq(str, (char *)signers(text, "default", "billing"), "ca"));
    cr_assert(eq(str, (char *)signers(text, "other", "billing"), "b"));
}

Test(sign, without_a_key_that_covers_the_target_nothing_is_signed)
{
    cr_assert(eq(str, (char *)signers("team-b/billing x " KEY_A "\n", "team-b", NULL), ""));
    cr_assert(eq(str, (char *)signers("", "team-b", NULL), ""));
    cr_assert(eq(str, (char *)signers("# nothing\n", "team-b", "billing"), ""));
}

static void refused(const char *text, size_t len, const char *expected)
{
    struct sign_keys *k = NULL;
    struct err e = {0};
    cr_assert(eq(int, sign_keys_parse(text, len, &k, &e), -ERR_INVALID), "%s", text);
    cr_assert(zero(ptr, k));
    cr_assert(strncmp(e.text, expected, strlen(expected)) == 0, "%s: %s", text, e.text);
    cr_assert(zero(ptr, strstr(e.text, "AAECAwQF")), "a key is shown: %s", e.text);
}
#define REFUSED(text, expected) refused(text, sizeof(text) - 1, expected)

Test(sign, a_broken_file_names_its_line_and_shows_no_key)
{
    REFUSED("* a\n", "line 1: ");
    REFUSED("\n# x\n" KEY_B "\n", "line 3: ");
    REFUSED("* a " KEY_B " more\n", "line 1: ");
    REFUSED("* a whsec_\n", "line 1: ");
    REFUSED("* a AAECAwQFBgcICQoLDA0ODxAREhMUFRYX\n", "line 1: ");
    REFUSED("* a whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRY\n", "line 1: ");
    REFUSED("* a whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFQ==\n", "line 1: the key must be"); /* 22 bytes */
    REFUSED("* a whsec_AAECAwQF*gcICQoLDA0ODxAREhMUFRYX\n", "line 1: ");
    REFUSED("** a " KEY_B "\n", "line 1: the scope");
    REFUSED("Team a " KEY_B "\n", "line 1: the scope");
    REFUSED("a/ a " KEY_B "\n", "line 1: the scope");
    REFUSED("/b a " KEY_B "\n", "line 1: the scope");
    REFUSED("a/b/c a " KEY_B "\n", "line 1: the scope");
    REFUSED("*/b a " KEY_B "\n", "line 1: the scope");
    REFUSED("a k/1 " KEY_B "\n", "line 1: the key id");
    REFUSED("a k\0 " KEY_B "\n", "line 1: the key id");
    REFUSED("a k " KEY_B "\nb k " KEY_B "\na k " KEY_A "\n", "line 3: line 1 has");
    REFUSED("a 1 " KEY_B "\na 2 " KEY_B "\na 3 " KEY_B "\na 4 " KEY_B "\na 5 " KEY_B "\na 6 " KEY_B
            "\na 7 " KEY_B "\na 8 " KEY_B "\na 9 " KEY_B "\n",
            "line 9: a scope has");
}

Test(sign, a_key_has_24_to_64_bytes)
{
    char line[256] = "* a whsec_";
    for (int i = 0; i < 88; i++)
        strncat(line, i < 86 ? "A" : "=", 2);
    sign_keys_unref(keys_of(line)); /* 64 bytes */
    snprintf(line, sizeof(line), "* a whsec_%087d=", 0);
    for (char *c = line + 10; *c == '0'; c++)
        *c = 'A';
    refused(line, strlen(line), "line 1: the key must be"); /* 65 bytes */
}

Test(sign, an_empty_body_is_signed_as_such)
{
    struct sign_keys *k = keys_of("* a " KEY_A);
    struct buf with = BUF_INIT(200), without = BUF_INIT(200);
    struct err e;
    struct sign_message m = {.ns = "n", .id = "i", .timestamp_s = 1, .body = "", .body_bytes = 0};
    cr_assert(zero(int, sign_message(k, &m, &with, &e)));
    m.body = NULL;
    cr_assert(zero(int, sign_message(k, &m, &without, &e)));
    cr_assert(eq(str, (char *)buf_str(&with), (char *)buf_str(&without)));
    buf_fini(&with);
    buf_fini(&without);
    sign_keys_unref(k);
}

Test(sign, faults_lose_nothing)
{
    const char *text = "* a " KEY_A "\n* b " KEY_B "\nn c " KEY_C "\n";
    for (unsigned k = 0;; k++) {
        struct sign_keys *keys = NULL;
        struct err e = {0};
        fault_arm(k);
        int rc = sign_keys_parse(text, strlen(text), &keys, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            sign_keys_unref(keys);
            break;
        }
        cr_assert(eq(int, rc, -ERR_NOMEM), "k=%u %s", k, e.text);
        cr_assert(zero(ptr, keys));
    }
    struct sign_keys *keys = keys_of(text);
    for (unsigned k = 0;; k++) {
        struct buf out = BUF_INIT(500);
        struct err e = {0};
        struct sign_message m = {.ns = "x", .id = "i", .timestamp_s = 1, .body = "b", .body_bytes = 1};
        fault_arm(k);
        int rc = sign_message(keys, &m, &out, &e);
        bool fired = fault_fired();
        buf_fini(&out);
        cr_assert(eq(int, rc, fired ? -ERR_NOMEM : 0), "k=%u %s", k, e.text);
        if (!fired)
            break;
    }
    sign_keys_unref(keys);
}

static bool verified(const char *keys, const char *signatures)
{
    struct sign_keys *k = keys_of(keys);
    struct err e = {0};
    struct sign_message m = {.id = "msg_p5jXN8AQM9LWM0D4loKWxJek",
                             .timestamp_s = 1614265330,
                             .body = "{\"test\": 2432232314}",
                             .body_bytes = 20};
    bool good = false;
    cr_assert(zero(int, sign_verify(k, &m, signatures, &good, &e)), "%s", e.text);
    sign_keys_unref(k);
    return good;
}

Test(sign, one_good_signature_by_any_key_verifies)
{
    cr_assert(verified("* main " KEY_A "\n", SIGN_A));
    cr_assert(verified("* b " KEY_B "\nteam-b/billing a " KEY_A "\n", "v1,AAAA  v2,x " SIGN_A));
    cr_assert(not(verified("* b " KEY_B "\n", SIGN_A)));
    cr_assert(not(verified("# none\n", SIGN_A)));
    cr_assert(not(verified("* main " KEY_A "\n", "")));
    cr_assert(not(verified("* main " KEY_A "\n", SIGN_A "x")));
    cr_assert(not(verified("* main " KEY_A "\n", "v1,")));
}

Test(sign, verifying_survives_every_fault)
{
    struct sign_keys *k = keys_of("* main " KEY_A "\n* b " KEY_B "\n");
    struct sign_message m = {.id = "msg_p5jXN8AQM9LWM0D4loKWxJek",
                             .timestamp_s = 1614265330,
                             .body = "{\"test\": 2432232314}",
                             .body_bytes = 20};
    for (unsigned n = 0;; n++) {
        struct err e = {0};
        bool good = false;
        fault_arm(n);
        int r = sign_verify(k, &m, SIGN_A, &good, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            cr_assert(good);
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "n=%u", n);
        cr_assert(not(good), "n=%u", n);
    }
    sign_keys_unref(k);
}
