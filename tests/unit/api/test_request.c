#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/request.h"
#include "agent/base/mem.h"
#include "tests/lib/api_head.h"

#define JSON {"Content-Type", "application/json"},
#define UID  "0123456789abcdef0123456789abcdef"
#define FIRE UID ".7"

static int read_head(const struct api_head *head, struct api_request *rq, struct api_problem *p)
{
    char *hosts[] = {"carillon.example"}, *listen[] = {"10.0.0.7:7420", "unix:/run/x"};
    struct option_list host_list = {hosts, 1}, listen_list = {listen, 2};
    struct api_rules rules = {&host_list, &listen_list};
    memset(p, 0, sizeof(*p));
    return api_request_read(head, &rules, rq, p);
}

static void expect_code(struct api_head head, enum api_code code, const char *what)
{
    struct api_request rq;
    struct api_problem p;
    int rc = read_head(&head, &rq, &p);
    cr_assert(eq(int, rc, code == API_OK ? 0 : -ERR_INVALID), "%s: %s", what, p.detail);
    cr_assert(eq(int, p.code, code), "%s: %s", what, p.detail);
    api_problem_fini(&p);
}

static void expect_ok(struct api_head head, struct api_request *rq)
{
    struct api_problem p;
    cr_assert(zero(int, read_head(&head, rq, &p)), "%s", p.detail);
}

Test(request, what_a_list_asks_is_read)
{
    struct api_request rq;
    expect_ok(HEAD("GET", "/v1/jobs",
                   "prefix=a%2Eb&label=team%3Dpay&label=x=&state=paused&last_outcome=dead&limit=7&ns=*"),
              &rq);
    cr_assert(eq(int, rq.route->action, API_JOB_LIST));
    cr_assert(eq(str, rq.prefix, "a.b"));
    cr_assert(eq(sz, rq.labels_count, 2));
    cr_assert(eq(str, rq.labels[0].name, "team"));
    cr_assert(eq(str, rq.labels[0].value, "pay"));
    cr_assert(eq(str, rq.labels[1].value, ""));
    cr_assert(eq(int, rq.state, JOB_STATE_PAUSED));
    cr_assert(eq(int, rq.last_outcome, FIRE_OUTCOME_DEAD));
    cr_assert(eq(u32, rq.limit, 7));
    cr_assert(rq.ns_all);
}

Test(request, defaults_stand_where_nothing_is_said)
{
    struct api_request rq;
    expect_ok(HEAD("GET", "/v1/jobs/x/next", ""), &rq);
    cr_assert(eq(str, rq.ns, "default"));
    cr_assert(eq(str, rq.arg, "x"));
    cr_assert(eq(u32, rq.count, 10));
    cr_assert(eq(i64, rq.from_ms, RECORD_NONE));
    expect_ok(HEAD("GET", "/v1/fires/" FIRE, ""), &rq);
    cr_assert(eq(u64, rq.fire_seq, 7));
}

Test(request, a_path_argument_is_decoded_once_and_checked)
{
    struct api_request rq;
    expect_ok(HEAD("GET", "/v1/jobs/a%3Ab%2D+c", ""), &rq);
    cr_assert(eq(str, rq.arg, "a:b-+c"));
    static const char *const bad[] = {"a%2Fb", "a%00b", "%ff",       "a%20b",
                                      "a%25b", "%2e%2", "%e4%b8%ad", "a%0d%0ab"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char path[64] = "/v1/jobs/";
        memcpy(path + 9, bad[i], strlen(bad[i]) + 1);
        expect_code(HEAD("GET", path, ""), API_INVALID_REQUEST, bad[i]);
    }
    char path[300] = "/v1/jobs/";
    memset(path + 9, 'a', 201);
    expect_code(HEAD("GET", path, ""), API_INVALID_REQUEST, "201 bytes");
    expect_code(HEAD("GET", "/v1/fires/xyz", ""), API_NOT_FOUND, "no fire's id");
    expect_code(HEAD("GET", "/v1/services/a%2Fb", ""), API_INVALID_REQUEST, "no service");
}

Test(request, every_wrong_parameter_is_named)
{
    struct api_head head =
        HEAD("GET", "/v1/jobs", "limit=0&colour=red&state=on&label=x&prefix=a%20b&cursor=%21&limit=5&x=%zz");
    static const char *const pointers[] = {"?limit",  "?colour", "?state", "?label",
                                           "?prefix", "?cursor", "?limit", "?x=%zz"};
    struct api_request rq;
    struct api_problem p;
    cr_assert(eq(int, read_head(&head, &rq, &p), -ERR_INVALID));
    cr_assert(eq(int, p.code, API_INVALID_REQUEST));
    cr_assert(eq(sz, p.errors.count, 8));
    for (size_t i = 0; i < 8; i++)
        cr_assert(eq(str, p.errors.items[i].pointer, (char *)pointers[i]));
    api_problem_fini(&p);
}

Test(request, a_parameter_is_known_only_where_it_means_something)
{
    expect_code(HEAD("GET", "/v1/jobs/x", "limit=5"), API_INVALID_REQUEST, "limit of one job");
    expect_code(HEAD("GET", "/v1/health", "ns=a"), API_INVALID_REQUEST, "health has no namespace");
    expect_code(HEAD("GET", "/v1/jobs/x", "ns=*"), API_INVALID_REQUEST, "one job in all namespaces");
    expect_code(HEAD("DELETE", "/v1/jobs", "", {"Carillon-Client", "t"}, ), API_INVALID_REQUEST, "no filter");
    expect_code(HEAD("DELETE", "/v1/jobs", "all=true", {"Carillon-Client", "t"}, ), API_OK, "all");
    expect_code(HEAD("DELETE", "/v1/jobs", "all=false", {"Carillon-Client", "t"}, ), API_INVALID_REQUEST,
                "not all");
    expect_code(HEAD("GET", "/v1/jobs/x/next", "count=1001"), API_INVALID_REQUEST, "count");
    expect_code(HEAD("GET", "/v1/jobs/x/next", "from=tomorrow"), API_INVALID_REQUEST, "from");
}

Test(request, the_namespace_comes_from_query_or_header_and_never_from_both_differing)
{
    struct api_request rq;
    expect_ok(HEAD("GET", "/v1/jobs/x", "", {"carillon-namespace", "team-b"}, ), &rq);
    cr_assert(eq(str, rq.ns, "team-b"));
    expect_ok(HEAD("GET", "/v1/jobs/x", "ns=team-b", {"Carillon-Namespace", "team-b"}, ), &rq);
    expect_code(HEAD("GET", "/v1/jobs/x", "ns=a", {"Carillon-Namespace", "b"}, ), API_INVALID_REQUEST,
                "differing");
    expect_code(HEAD("GET", "/v1/jobs", "ns=*", {"Carillon-Namespace", "b"}, ), API_INVALID_REQUEST,
                "* and one");
    expect_code(HEAD("GET", "/v1/jobs/x", "ns=A_B"), API_INVALID_REQUEST, "no namespace");
    expect_code(HEAD("GET", "/v1/jobs/x", "", {"Carillon-Namespace", "A"}, ), API_INVALID_REQUEST,
                "no namespace");
}

Test(request, only_hosts_of_ours_are_served)
{
    static const char *const good[] = {"localhost", "LOCALHOST:1", "127.0.0.1:7420",
                                       "127.9.9.9", "[::1]:7420",  "[::1]",
                                       "10.0.0.7",  "10.0.0.7:80", "carillon.example:7420"};
    static const char *const bad[] = {"",
                                      "evil.example",
                                      "localhost.evil.example",
                                      "127.0.0.1.evil.example",
                                      "10.0.0.8",
                                      "127.0.0.1:x",
                                      "[::2]",
                                      "/run/x",
                                      "127.0.0.1@evil",
                                      "[::1"};
    char *hosts[] = {"carillon.example"}, *listen[] = {"10.0.0.7:7420", "unix:/run/x"};
    struct option_list host_list = {hosts, 1}, listen_list = {listen, 2};
    struct api_rules rules = {&host_list, &listen_list};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_assert(api_host_allowed(good[i], &rules), "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(not(api_host_allowed(bad[i], &rules)), "%s", bad[i]);
    struct api_head head = HEAD("GET", "/v1/health", "");
    head.arg = (const struct test_header[]){{"Host", "evil.example"}, {0}};
    expect_code(head, API_MISDIRECTED, "a page's own name");
    head.arg = (const struct test_header[]){{0}};
    expect_code(head, API_INVALID_REQUEST, "no name at all");
    head.face = API_FACE_UNIX;
    expect_code(head, API_OK, "a unix socket has no name");
}

Test(request, a_write_must_be_one_that_a_web_page_cannot_send)
{
    static const char *const types[] = {
        "text/plain",           "application/x-www-form-urlencoded", "multipart/form-data",
        "application/json-seq", "application/json;charset=latin1",   ""};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        struct api_head head = HEAD("POST", "/v1/jobs", "");
        head.arg = (const struct test_header[]){{"Host", "localhost"}, {"Content-Type", types[i]}, {0}};
        expect_code(head, API_UNSUPPORTED_MEDIA_TYPE, types[i]);
    }
    expect_code(HEAD("POST", "/v1/jobs", ""), API_UNSUPPORTED_MEDIA_TYPE, "none");
    expect_code(HEAD("POST", "/v1/jobs", "", {"Carillon-Client", "t"}, ), API_UNSUPPORTED_MEDIA_TYPE,
                "body needed");
    expect_code(HEAD("POST", "/v1/jobs", "", {"Content-Type", "Application/JSON; charset=utf-8"}, ), API_OK,
                "json");
    expect_code(HEAD("PUT", "/v1/jobs/x", "", {"Content-Type", "application/merge-patch+json"}, ),
                API_UNSUPPORTED_MEDIA_TYPE, "a patch is no job");
    expect_code(HEAD("PATCH", "/v1/jobs/x", "", {"Content-Type", "application/merge-patch+json"}, ), API_OK,
                "patch");
    expect_code(HEAD("PATCH", "/v1/jobs/x", "", JSON), API_OK, "patch as JSON");
    expect_code(HEAD("POST", "/v1/bulk", "", JSON), API_UNSUPPORTED_MEDIA_TYPE, "bulk");
    expect_code(HEAD("POST", "/v1/bulk", "", {"Content-Type", "application/x-ndjson"}, ), API_OK, "bulk");
    expect_code(HEAD("DELETE", "/v1/jobs/x", ""), API_UNSUPPORTED_MEDIA_TYPE, "bare");
    expect_code(HEAD("DELETE", "/v1/jobs/x", "", JSON), API_OK, "bare with a type");
    expect_code(HEAD("POST", "/v1/jobs/x/pause", "", {"Carillon-Client", "t"}, ), API_OK,
                "bare with our header");
    expect_code(
        HEAD("POST", "/v1/jobs/x/pause", "", {"Carillon-Client", "t"}, {"Content-Type", "text/plain"}, ),
        API_UNSUPPORTED_MEDIA_TYPE, "a wrong type is wrong");
}

Test(request, conditions_are_etags_of_ours)
{
    struct api_request rq;
    expect_ok(HEAD("DELETE", "/v1/jobs/x", "", {"Carillon-Client", "t"}, {"If-Match", "\"" UID ".1\""}, ),
              &rq);
    cr_assert(rq.if_match);
    cr_assert(eq(u64, rq.match_version, 1));
    expect_ok(HEAD("PUT", "/v1/jobs/x", "", JSON{"If-Match", "*"}, ), &rq);
    cr_assert(rq.if_match);
    cr_assert(zero(u64, rq.match_version), "whichever there is");
    expect_ok(HEAD("PUT", "/v1/jobs/x", "", JSON{"If-None-Match", "*"}, ), &rq);
    cr_assert(rq.if_none_match);
    expect_ok(HEAD("GET", "/v1/jobs/x", "", {"If-None-Match", "\"y\""}, ), &rq);
    cr_assert(eq(str, rq.none_match, "\"y\""));
    expect_code(HEAD("PUT", "/v1/jobs/x", "", JSON{"If-Match", "\"y\""}, ), API_VERSION_MISMATCH,
                "another's");
    expect_code(HEAD("PUT", "/v1/jobs/x", "", JSON{"If-Match", "\"" UID ".0\""}, ), API_VERSION_MISMATCH,
                "0");
    expect_code(HEAD("PUT", "/v1/jobs/x", "", JSON{"If-Match", "W/\"" UID ".1\""}, ), API_VERSION_MISMATCH,
                "weak");
    static const char *const bad[] = {"y", "W/y", "W/", "\"a\", \"b\"", "\"", ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct api_head head = HEAD("PUT", "/v1/jobs/x", "");
        head.arg = (const struct test_header[]){
            {"Host", "localhost"}, {"Content-Type", "application/json"}, {"If-Match", bad[i]}, {0}};
        expect_code(head, API_INVALID_REQUEST, bad[i]);
    }
    expect_code(HEAD("PUT", "/v1/jobs/x", "", JSON{"If-None-Match", "\"y\""}, ), API_INVALID_REQUEST,
                "not *");
    expect_code(HEAD("POST", "/v1/jobs", "", JSON{"Idempotency-Key", "a b"}, ), API_INVALID_REQUEST, "key");
}

Test(request, each_listener_serves_its_own)
{
    struct api_head head = HEAD("POST", "/peer/v1/handover", "", JSON);
    expect_code(head, API_NOT_FOUND, "peers' messages on the public listener");
    head.face = API_FACE_PEER;
    expect_code(head, API_OK, "on the peer listener");
    head = HEAD("GET", "/peer/v1/handover", "");
    expect_code(head, API_NOT_FOUND, "not even its methods");
    head = HEAD("GET", "/v1/jobs", "");
    head.face = API_FACE_OPS;
    expect_code(head, API_NOT_FOUND, "jobs on the ops listener");
    head.path = "/readyz";
    expect_code(head, API_OK, "a probe there");
    expect_code(HEAD("GET", "/v1/deadletters/x", ""), API_NOT_FOUND, "what is not there");
    expect_code(HEAD("POST", "/v1/cluster", "", JSON), API_METHOD_NOT_ALLOWED, "method");
}

Test(request, a_cursor_comes_back_as_it_was)
{
    char text[API_CURSOR_SIZE], ns[RECORD_NS_MAX], id[RECORD_ID_MAX], longest[RECORD_ID_MAX];
    memset(longest, '~', sizeof(longest));
    longest[RECORD_ID_MAX - 1] = '\0';
    static const char *const ids[] = {"a", "ab", "abc", "x~@:+-._"};
    for (size_t i = 0; i < 5; i++) {
        const char *given = i < 4 ? ids[i] : longest;
        api_cursor_print("team-b", given, text);
        cr_assert(
            zero(sz, text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")]));
        cr_assert(api_cursor_parse(text, ns, id));
        cr_assert(eq(str, ns, "team-b"));
        cr_assert(eq(str, id, (char *)given));
    }
    static const char *const bad[] = {"", "x", "!!!!", "YQ", "YS8=", "L2E", "YS8", "QS9i", "a+/b"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(not(api_cursor_parse(bad[i], ns, id)), "%s", bad[i]);
}

Test(request, a_search_goes_on_where_its_cursor_says)
{
    struct api_fire_cursor c = {.due_ms = -1795424400000, .seq = UINT64_MAX}, back;
    char text[API_CURSOR_SIZE], ns[RECORD_NS_MAX], longest[RECORD_ID_MAX];
    memset(longest, '~', sizeof(longest));
    longest[RECORD_ID_MAX - 1] = '\0';
    for (size_t i = 0; i < 16; i++)
        c.uid.bytes[i] = (uint8_t)(255 - i);
    static const char *const ids[] = {"", "a", NULL};
    for (size_t i = 0; i < 4; i++) {
        c.in_rings = i > 0;
        if (i > 0) {
            c.due_ms = 0;
            const char *id = ids[i - 1] ? ids[i - 1] : longest;
            memcpy(c.after_id, id, strlen(id) + 1);
        }
        api_fire_cursor_print("team-b", &c, text);
        cr_assert(api_fire_cursor_parse(text, ns, &back), "%zu", i);
        cr_assert(eq(str, ns, "team-b"));
        cr_assert(back.in_rings == c.in_rings && back.due_ms == c.due_ms && back.seq == c.seq, "%zu", i);
        cr_assert(eq(str, back.after_id, c.after_id));
        cr_assert(zero(int, memcmp(&back.uid, &c.uid, sizeof(c.uid))));
    }
    static const char *const bad[] = {"", "x", "!!!!", "YS9iLw", "YS9iL3gvMS8x", "YQ"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(not(api_fire_cursor_parse(bad[i], ns, &back)), "%s", bad[i]);
}

Test(request, what_explain_asks_is_read_and_judged)
{
    struct api_request rq;
    expect_ok(HEAD("GET", "/v1/jobs/x/explain", "at=2026-03-29T02:30&limit=5"), &rq);
    cr_assert(eq(str, rq.at, "2026-03-29T02:30"));
    expect_ok(HEAD("GET", "/v1/jobs/x/explain", "from=1970-01-01T00:00:01Z&to=1970-01-01T00:00:02Z"), &rq);
    cr_assert(eq(i64, rq.from_ms, 1000));
    cr_assert(eq(i64, rq.to_ms, 2000));
    static const char *const bad[] = {"at=noon", "at=2026-02-30", "at=2026-01-01&to=2026-01-02T00:00:00Z",
                                      "from=1970-01-01T00:00:01Z&to=1970-01-01T00:00:01Z",
                                      "at=2026-01-01T00:00:00.0000000000000000000000Z"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_code(HEAD("GET", "/v1/jobs/x/explain", bad[i]), API_INVALID_REQUEST, bad[i]);
}

Test(request, a_cursor_of_revisions_comes_back_as_it_was)
{
    struct api_request rq;
    char text[API_REVISION_CURSOR_SIZE], query[80];
    api_revision_cursor_print(1795000000123, UINT64_MAX, text);
    (void)snprintf(query, sizeof(query), "cursor=%s", text);
    expect_ok(HEAD("GET", "/v1/jobs/x/revisions", query), &rq);
    cr_assert(eq(i64, rq.before_ms, 1795000000123));
    cr_assert(eq(u64, rq.before_change, UINT64_MAX));
    expect_code(HEAD("GET", "/v1/jobs/x/revisions", "cursor=1.-1"), API_INVALID_REQUEST, "-1");
    expect_code(HEAD("GET", "/v1/jobs/x/revisions", "cursor=12"), API_INVALID_REQUEST, "12");
}

Test(request, a_cursor_of_another_namespace_is_refused)
{
    char text[API_CURSOR_SIZE], query[API_CURSOR_SIZE + 32] = "cursor=";
    api_cursor_print("team-b", "x", text);
    memcpy(query + 7, text, strlen(text) + 1);
    expect_code(HEAD("GET", "/v1/jobs", query), API_INVALID_REQUEST, "default's list");
    memcpy(query + 7 + strlen(text), "&ns=team-b", 11);
    expect_code(HEAD("GET", "/v1/jobs", query), API_OK, "its own list");
}

Test(request, an_etag_is_parsed_as_printed)
{
    struct uid uid, back;
    uint64_t version;
    char text[API_ETAG_SIZE];
    static const uint64_t versions[] = {1, 9, 10, UINT64_MAX};
    for (size_t i = 0; i < 16; i++)
        uid.bytes[i] = (uint8_t)(i * 17);
    for (size_t i = 0; i < 4; i++) {
        api_etag_print(&uid, versions[i], text);
        cr_assert(eq(int, api_match_parse(text, &back, &version), API_MATCH_ONE));
        cr_assert(zero(int, memcmp(&uid, &back, sizeof(uid))));
        cr_assert(eq(u64, version, versions[i]));
    }
}

/* What cannot be read for want of memory is nobody's mistake, and above all not read as something else. */
Test(request, every_failing_step_is_survived)
{
    char cursor[API_CURSOR_SIZE], query[API_CURSOR_SIZE + 64];
    api_cursor_print("team-b", "x", cursor);
    snprintf(query, sizeof(query), "ns=team%%2Db&prefix=a%%2Eb&label=team%%3Dpay&cursor=%s", cursor);
    const struct api_head heads[] = {HEAD("GET", "/v1/jobs", query),
                                     HEAD("GET", "/v1/jobs/a%3Ab", "ns=team-b"),
                                     HEAD("GET", "/v1/jobs", "ns=team-b&limit=0&colour=red")};
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        bool fired = true;
        for (unsigned k = 0; fired; k++) {
            struct api_request rq;
            struct api_problem p;
            fault_arm(k);
            int rc = read_head(&heads[i], &rq, &p);
            fired = fault_fired();
            cr_assert(eq(int, rc == 0, p.code == API_OK), "%zu k=%u", i, k);
            cr_assert(rc < 0 || (strcmp(rq.ns, "team-b") == 0 && i < 2), "%zu k=%u ns=%s", i, k, rq.ns);
            cr_assert(rc == 0 || p.code == (i < 2 ? API_OVERLOADED : p.code), "%zu k=%u: %s", i, k, p.detail);
            cr_assert(fired || (rc == 0) == (i < 2), "%zu k=%u: %s", i, k, p.detail);
            api_problem_fini(&p);
        }
    }
}

Test(request, a_cursor_needs_no_memory)
{
    char text[API_CURSOR_SIZE], ns[RECORD_NS_MAX], id[RECORD_ID_MAX];
    fault_arm(0);
    api_cursor_print("team-b", "x", text);
    cr_assert(api_cursor_parse(text, ns, id));
    cr_assert(not(fault_fired()));
    cr_assert(eq(str, id, "x"));
}
