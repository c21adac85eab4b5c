#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/tokens.h"

/* printf %s sesame | sha256sum */
#define SESAME "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272"
#define OTHER  "0000000000000000000000000000000000000000000000000000000000000001"

static struct tokens *parse(const char *text)
{
    struct tokens *t = NULL;
    struct err e = {0};
    cr_assert(zero(int, tokens_parse("t.yaml", text, strlen(text), &t, &e)), "%s", e.text);
    return t;
}

static void expect_refused(const char *text, const char *why)
{
    struct tokens *t = NULL;
    struct err e = {0};
    cr_assert(eq(int, tokens_parse("t.yaml", text, strlen(text), &t, &e), -ERR_INVALID), "%s", text);
    cr_assert(zero(ptr, t));
    cr_assert(eq(str, e.text, (char *)why));
}

Test(tokens, a_token_is_found_by_its_digest_alone)
{
    AUTO(tokens_unref)
    struct tokens *t =
        parse("- {name: app, sha256: " SESAME ", namespaces: [a, b], can: [read, write]}\n"
              "- {name: all, sha256: " OTHER ", namespaces: ['*'], can: [operate], expires: 2027-01-01, "
              "rate: 2.5}\n");
    const struct token *app = tokens_find(t, "sesame", 6);
    cr_assert(eq(sz, tokens_count(t), 2));
    cr_assert(ne(ptr, (void *)app, NULL));
    cr_assert(eq(str, (char *)app->name, "app"));
    cr_assert(eq(u32, app->can, TOKEN_CAN_READ | TOKEN_CAN_WRITE));
    cr_assert(eq(i64, app->expires_ms, INT64_MAX));
    cr_assert(token_in_namespace(app, "a") && token_in_namespace(app, "b"));
    cr_assert(not(token_in_namespace(app, "default") || token_in_namespace(app, "")));
    const struct token *all = app + 1;
    cr_assert(eq(i64, all->expires_ms, 1798761600000));
    cr_assert(eq(dbl, all->rate, 2.5));
    cr_assert(token_in_namespace(all, "default"));
    cr_assert(zero(ptr, (void *)tokens_find(t, "sesame ", 7)));
    cr_assert(zero(ptr, (void *)tokens_find(t, "", 0)));
    cr_assert(zero(ptr, (void *)tokens_find(t, SESAME, 64)));
}

Test(tokens, a_user_of_a_socket_has_no_secret)
{
    AUTO(tokens_unref) struct tokens *t = parse("- {name: root, uid: 0, namespaces: ['*'], can: [read]}\n");
    cr_assert(eq(str, (char *)tokens_find_uid(t, 0)->name, "root"));
    cr_assert(zero(ptr, (void *)tokens_find_uid(t, 1)));
    cr_assert(zero(ptr, (void *)tokens_find(t, "", 0)));
}

Test(tokens, what_is_wrong_is_told_with_its_line_and_never_quotes_a_token)
{
    expect_refused("", "t.yaml: must be a list: - {name, sha256, namespaces, can}");
    expect_refused("a: b\n", "t.yaml: must be a list: - {name, sha256, namespaces, can}");
    expect_refused("- x\n", "t.yaml:1: must be {name, sha256, namespaces, can}, not a text");
    expect_refused("\n- {name: a, sha256: sesame, namespaces: ['*'], can: [read]}\n",
                   "t.yaml:2: sha256: must be 64 hexadecimal digits: printf %s TOKEN | sha256sum");
    expect_refused(
        "- {name: a, token: sesame}\n",
        "t.yaml:1: 'token' is not known; allowed are name, sha256, uid, namespaces, can, expires, rate");
    expect_refused("- {name: a, sha256: " SESAME ", namespaces: [A], can: [read]}\n",
                   "t.yaml:1: namespaces: 'A' is no namespace: 1 to 63 of a-z 0-9 -");
    expect_refused("- {name: a, sha256: " SESAME ", namespaces: ['*'], can: [admin]}\n",
                   "t.yaml:1: can: must be a list of read, write, operate");
    expect_refused("- {name: a, sha256: " SESAME ", namespaces: ['*'], can: []}\n",
                   "t.yaml:1: can: must be a list of read, write, operate");
    expect_refused("- {name: a, sha256: " SESAME ", namespaces: [], can: [read]}\n",
                   "t.yaml:1: namespaces: must be a list of 1 to 32 namespaces, or [\"*\"]");
    expect_refused("- {name: a, sha256: " SESAME ", can: [read]}\n", "t.yaml:1: the entry has no namespaces");
    expect_refused("- {name: a, namespaces: ['*'], can: [read]}\n",
                   "t.yaml:1: the entry has no sha256 (or uid)");
    expect_refused("- {sha256: " SESAME ", namespaces: ['*'], can: [read]}\n",
                   "t.yaml:1: the entry has no name");
    expect_refused("- {name: a, uid: 1, sha256: " SESAME ", namespaces: ['*'], can: [read]}\n",
                   "t.yaml:1: the entry has both sha256 and uid; make it two");
    expect_refused(
        "- {name: a, sha256: " SESAME ", namespaces: ['*'], can: [read], expires: soon}\n",
        "t.yaml:1: expires: 'soon' is neither a date (2027-01-01) nor an instant (2027-01-01T12:00:00Z)");
    expect_refused(
        "- {name: a, uid: 1, namespaces: ['*'], can: [read]}\n- {name: a, uid: 2, namespaces: ['*'], can: [read]}\n",
        "t.yaml:2: name: 'a' is there twice");
    expect_refused(
        "- {name: a, uid: 1, namespaces: ['*'], can: [read]}\n- {name: b, uid: 1, namespaces: ['*'], can: [read]}\n",
        "t.yaml:2: 'a' and 'b' have the same uid");
}

Test(tokens, no_failure_leaves_anything_behind)
{
    static const char text[] = "- {name: app, sha256: " SESAME ", namespaces: [a, b], can: [read]}\n";
    for (unsigned k = 0;; k++) {
        struct tokens *t = NULL;
        struct err e = {0};
        fault_arm(k);
        int rc = tokens_parse("t.yaml", text, strlen(text), &t, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            tokens_unref(t);
            break;
        }
        cr_assert(eq(int, rc, -ERR_NOMEM), "k=%u %s", k, e.text);
        cr_assert(zero(ptr, t), "k=%u", k);
    }
}
