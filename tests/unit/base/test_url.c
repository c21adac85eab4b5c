#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/url.h"

static void takes(const char *url, const char *expected_host)
{
    char host[URL_HOST_SIZE] = "";
    const char *wrong = url_check(url, host);
    cr_assert(wrong == NULL, "%s: %s", url, wrong);
    cr_assert(eq(str, host, (char *)expected_host), "%s", url);
}

static void refuses(const char *url, const char *expected)
{
    char host[URL_HOST_SIZE] = "untouched";
    const char *wrong = url_check(url, host);
    cr_assert(wrong != NULL, "%s was taken", url);
    cr_assert(strstr(wrong, expected) != NULL, "%s: %s", url, wrong);
    cr_assert(eq(str, host, "untouched"), "%s", url);
}

Test(url, tells_the_host_of_what_a_callback_may_go_to)
{
    takes("http://billing.example:8080/hook?x=1", "billing.example");
    takes("https://10.0.0.7", "10.0.0.7");
    takes("HTTP://Host/", "Host");
    takes("http://[2001:db8::1]:80/", "[2001:db8::1]");
}

/* Else a number would pass for a name that is no loopback. */
Test(url, addresses_written_as_numbers_are_told_as_addresses)
{
    takes("http://2130706433/", "127.0.0.1");
    takes("http://0x7f.1/", "127.0.0.1");
}

Test(url, refuses_what_is_no_absolute_http_url)
{
    refuses("", "not an absolute URL");
    refuses("/hook", "not an absolute URL");
    refuses("http://", "not an absolute URL");
    refuses("http://host:port/", "not an absolute URL");
    refuses("http://ho st/", "not an absolute URL");
    refuses("http:/host/", "not an absolute URL");
    refuses("http:///host/", "not an absolute URL");
    refuses("http:host?to=http://other/", "not an absolute URL");
    refuses("ftp://host/", "must begin with http");
    refuses("file:///etc/passwd", "must begin with http");
    refuses("gopher://host/", "must begin with http");
}

Test(url, refuses_user_names_and_fragments)
{
    refuses("http://me@host/", "user name");
    refuses("http://me:secret@host/", "user name");
    refuses("http://host/#part", "#fragment");
}

Test(url, refuses_a_host_that_is_too_long)
{
    char url[URL_HOST_SIZE + 20] = "http://";
    memset(url + 7, 'h', URL_HOST_SIZE - 1);
    char host[URL_HOST_SIZE];
    cr_assert(url_check(url, host) == NULL);
    cr_assert(eq(sz, strlen(host), URL_HOST_SIZE - 1));
    memset(url + 7, 'h', URL_HOST_SIZE);
    refuses(url, "at most 255 bytes");
}

Test(url, knows_every_way_to_write_this_machine)
{
    static const char *const hosts[] = {
        "localhost", "LOCALHOST",          "localhost.",    "a.localhost", "127.0.0.1", "127.255.0.9",
        "127.1",     "0x7f000001",         "0.0.0.0",       "0",           "::1",       "[::1]",
        "::",        "[::ffff:127.0.0.1]", "::ffff:0.0.0.0"};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
        cr_assert(url_host_is_loopback(hosts[i]), "%s", hosts[i]);
}

Test(url, takes_no_other_host_for_this_machine)
{
    static const char *const hosts[] = {
        "",          "localhost.example", "mylocalhost",       "10.127.0.1", "128.0.0.1", "::2",
        "[fe80::1]", "[::ffff:10.0.0.1]", "127.0.0.1.example", "[::1",       "."};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
        cr_assert(not(url_host_is_loopback(hosts[i])), "%s", hosts[i]);
    char longest[300] = "";
    memset(longest, '1', sizeof(longest) - 1);
    cr_assert(not(url_host_is_loopback(longest)));
}
