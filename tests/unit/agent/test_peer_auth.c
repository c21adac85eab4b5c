#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/peer_auth.h"

#define NOW_MS ((int64_t)1790000000000)

static const struct peer_auth_secret secret = {"a secret of some length", 23};
static const struct peer_auth_message message = {.method = "PUT",
                                                 .target = "/v1/jobs/x?ns=a",
                                                 .context = "{\"hop\":2}",
                                                 .body = "{\"a\":1}",
                                                 .body_bytes = 7};

static void sign(char value[PEER_AUTH_SIZE])
{
    struct err e = {0};
    cr_assert(zero(int, peer_auth_sign(&secret, &message, "a1.77", NOW_MS, 42, value, &e)), "%s", e.text);
}

static int verify(const char *value, const struct peer_auth_message *m, int64_t now_ms)
{
    struct peer_auth auth;
    struct err e = {0};
    return peer_auth_verify(&secret, value, m, now_ms, &auth, &e);
}

Test(peer_auth, what_is_signed_is_accepted_and_tells_who_sent_it)
{
    char value[PEER_AUTH_SIZE];
    struct peer_auth auth;
    struct err e = {0};
    sign(value);
    cr_assert(zero(int, peer_auth_verify(&secret, value, &message, NOW_MS + 5, &auth, &e)), "%s", e.text);
    cr_assert(eq(str, auth.member, "a1.77"));
    cr_assert(zero(int, peer_auth_verify_body(&auth, "{\"a\":1}", 7, &e)));
    cr_assert(eq(int, peer_auth_verify_body(&auth, "{\"a\":2}", 7, &e), -ERR_AUTH));
    cr_assert(eq(int, peer_auth_verify_body(&auth, "", 0, &e), -ERR_AUTH));
}

Test(peer_auth, a_client_signs_without_a_member_id)
{
    char value[PEER_AUTH_SIZE];
    struct peer_auth auth;
    cr_assert(zero(int, peer_auth_sign(&secret, &message, "", NOW_MS, 1, value, NULL)));
    cr_assert(zero(int, peer_auth_verify(&secret, value, &message, NOW_MS, &auth, NULL)));
    cr_assert(eq(str, auth.member, ""));
}

Test(peer_auth, any_other_part_breaks_it)
{
    char value[PEER_AUTH_SIZE];
    sign(value);
    struct peer_auth_message m = message;
    m.method = "POST";
    cr_assert(eq(int, verify(value, &m, NOW_MS), -ERR_AUTH));
    m = message;
    m.target = "/v1/jobs/x?ns=b";
    cr_assert(eq(int, verify(value, &m, NOW_MS), -ERR_AUTH));
    m = message;
    m.context = "{\"hop\":1}";
    cr_assert(eq(int, verify(value, &m, NOW_MS), -ERR_AUTH));
    m = message;
    m.context = "";
    m.target = "/v1/jobs/x?ns=a\n{\"hop\":2}"; /* moving a part into its neighbour */
    cr_assert(eq(int, verify(value, &m, NOW_MS), -ERR_AUTH));
    struct peer_auth_secret other = {"a secret of some lengtH", 23};
    struct peer_auth auth;
    cr_assert(eq(int, peer_auth_verify(&other, value, &message, NOW_MS, &auth, NULL), -ERR_AUTH));
}

Test(peer_auth, any_changed_byte_breaks_it)
{
    char value[PEER_AUTH_SIZE];
    sign(value);
    for (size_t i = 0; value[i]; i++) {
        char before = value[i];
        value[i] = before == '0' ? '1' : '0';
        cr_assert(eq(int, verify(value, &message, NOW_MS), -ERR_AUTH), "byte %zu", i);
        value[i] = before;
    }
    for (size_t len = strlen(value); len-- > 0;) {
        value[len] = '\0';
        cr_assert(eq(int, verify(value, &message, NOW_MS), -ERR_AUTH), "length %zu", len);
    }
    cr_assert(eq(int, verify(NULL, &message, NOW_MS), -ERR_AUTH));
}

Test(peer_auth, the_window_is_half_a_minute_on_both_sides)
{
    char value[PEER_AUTH_SIZE];
    sign(value);
    cr_assert(zero(int, verify(value, &message, NOW_MS + PEER_AUTH_WINDOW_MS)));
    cr_assert(zero(int, verify(value, &message, NOW_MS - PEER_AUTH_WINDOW_MS)));
    cr_assert(eq(int, verify(value, &message, NOW_MS + PEER_AUTH_WINDOW_MS + 1), -ERR_AUTH));
    cr_assert(eq(int, verify(value, &message, NOW_MS - PEER_AUTH_WINDOW_MS - 1), -ERR_AUTH));
}

Test(peer_auth, a_member_id_that_no_header_may_carry_is_not_signed)
{
    char value[PEER_AUTH_SIZE] = "kept", longest[RECORD_MEMBER_MAX + 1];
    memset(longest, 'a', sizeof(longest));
    longest[RECORD_MEMBER_MAX] = '\0';
    cr_assert(eq(int, peer_auth_sign(&secret, &message, "a b", NOW_MS, 1, value, NULL), -ERR_INVALID));
    cr_assert(eq(int, peer_auth_sign(&secret, &message, "a\r\n", NOW_MS, 1, value, NULL), -ERR_INVALID));
    cr_assert(eq(int, peer_auth_sign(&secret, &message, longest, NOW_MS, 1, value, NULL), -ERR_INVALID));
    cr_assert(eq(str, value, "kept"));
    longest[RECORD_MEMBER_MAX - 1] = '\0';
    cr_assert(zero(int, peer_auth_sign(&secret, &message, longest, INT64_MAX / 2, UINT64_MAX, value, NULL)));
    cr_assert(zero(int, verify(value, &message, INT64_MAX / 2)));
}

Test(peer_auth, every_failing_step_is_survived)
{
    for (unsigned k = 0;; k++) {
        char value[PEER_AUTH_SIZE] = "";
        struct peer_auth auth;
        fault_arm(k);
        int rc = peer_auth_sign(&secret, &message, "a1", NOW_MS, 1, value, NULL);
        if (rc == 0)
            rc = peer_auth_verify(&secret, value, &message, NOW_MS, &auth, NULL);
        if (rc == 0)
            rc = peer_auth_verify_body(&auth, message.body, message.body_bytes, NULL);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(lt(int, rc, 0), "k=%u", k);
    }
}
