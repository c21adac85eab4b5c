#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/route.h"

static const struct api_route *find(const char *method, const char *path, char arg[64], unsigned *allow)
{
    const char *at = "";
    size_t len = 0;
    *allow = 0;
    const struct api_route *r = api_route_find(method, path, &at, &len, allow);
    (void)snprintf(arg, 64, "%.*s", (int)len, at);
    return r;
}

Test(route, every_route_is_found_by_its_own_pattern)
{
    size_t count;
    const struct api_route *all = api_routes(&count);
    static const char *const names[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    bool seen[API_ACTION_COUNT_] = {false};
    for (size_t i = 0; i < count; i++) {
        char path[128] = "", arg[64];
        unsigned allow, m = 0;
        const char *brace = strchr(all[i].pattern, '{'), *star = strchr(all[i].pattern, '*');
        if (brace)
            (void)snprintf(path, sizeof(path), "%.*sthing%s", (int)(brace - all[i].pattern), all[i].pattern,
                           strchr(brace, '}') + 1);
        else if (star)
            (void)snprintf(path, sizeof(path), "%.*sa/b", (int)(star - all[i].pattern), all[i].pattern);
        else
            (void)snprintf(path, sizeof(path), "%s", all[i].pattern);
        while (!(all[i].method & 1u << m))
            m++;
        cr_assert(eq(ptr, (void *)find(names[m], path, arg, &allow), (void *)&all[i]), "%s %s", names[m],
                  path);
        cr_assert(eq(str, arg, brace ? "thing" : star ? "a/b" : ""));
        cr_assert(not(seen[all[i].action]));
        seen[all[i].action] = true;
        cr_assert(eq(ptr, (void *)api_route_of(all[i].action), (void *)&all[i]));
    }
    for (size_t i = 0; i < API_ACTION_COUNT_; i++)
        cr_assert(seen[i], "action %zu has no route", i);
}

Test(route, head_is_get)
{
    char arg[64];
    unsigned allow;
    cr_assert(eq(ptr, (void *)find("HEAD", "/v1/jobs/x", arg, &allow), (void *)api_route_of(API_JOB_GET)));
}

Test(route, another_method_is_told_what_the_path_has)
{
    char arg[64], text[API_ALLOW_SIZE];
    unsigned allow;
    cr_assert(zero(ptr, (void *)find("POST", "/v1/jobs/x", arg, &allow)));
    api_allow_print(allow, text);
    cr_assert(eq(str, text, "GET, HEAD, PUT, PATCH, DELETE"));
    cr_assert(zero(ptr, (void *)find("BREW", "/v1/bulk", arg, &allow)));
    api_allow_print(allow, text);
    cr_assert(eq(str, text, "POST"));
}

Test(route, near_misses_are_no_paths)
{
    static const char *const paths[] = {"",
                                        "/",
                                        "/v1",
                                        "/v1/",
                                        "/v1/job",
                                        "/v1/jobs/",
                                        "/v1/jobs//run",
                                        "/v1/jobs/x/",
                                        "/v1/jobs/x/run/",
                                        "/v1/jobs/x/y",
                                        "/V1/jobs",
                                        "//v1/jobs",
                                        "/v1/jobsx",
                                        "/peer/v1/"};
    char arg[64];
    unsigned allow;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        cr_assert(zero(ptr, (void *)find("GET", paths[i], arg, &allow)), "%s", paths[i]);
        cr_assert(zero(uint, allow), "%s", paths[i]);
    }
}
