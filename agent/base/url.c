#include "agent/base/url.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <string.h>
#include <strings.h>

static bool is_loopback_4(uint32_t address)
{
    return address >> 24 == 127 || address == 0;
}

static bool is_loopback_6(const struct in6_addr *six)
{
    uint32_t mapped;
    memcpy(&mapped, six->s6_addr + 12, sizeof(mapped));
    return IN6_IS_ADDR_LOOPBACK(six) || IN6_IS_ADDR_UNSPECIFIED(six) ||
           (IN6_IS_ADDR_V4MAPPED(six) && is_loopback_4(ntohl(mapped)));
}

/* "localhost", "x.localhost" (RFC 6761), either with the dot of the root. */
static bool is_localhost(const char *host, size_t len)
{
    static const char name[] = "localhost";
    size_t name_len = sizeof(name) - 1;
    len -= len > 0 && host[len - 1] == '.';
    return len >= name_len && strncasecmp(host + len - name_len, name, name_len) == 0 &&
           (len == name_len || host[len - name_len - 1] == '.');
}

bool url_host_is_loopback(const char *host)
{
    struct in6_addr six;
    struct in_addr four;
    char bare[INET6_ADDRSTRLEN + 2];
    size_t len = strlen(host);
    if (is_localhost(host, len))
        return true;
    if (inet_aton(host, &four)) /* as resolvers do: also 127.1 and 0x7f000001 */
        return is_loopback_4(ntohl(four.s_addr));
    bool bracketed = len > 2 && host[0] == '[' && host[len - 1] == ']';
    if (len >= sizeof(bare))
        return false;
    memcpy(bare, host + bracketed, len + 1 - bracketed);
    if (bracketed)
        bare[len - 2] = '\0';
    return inet_pton(AF_INET6, bare, &six) == 1 && is_loopback_6(&six);
}

/* libcurl takes one slash and three for two. */
static bool has_two_slashes(const char *url)
{
    const char *at = url + strcspn(url, "/?#");
    return at > url && at[-1] == ':' && strncmp(at, "//", 2) == 0 && at[2] != '/';
}

const char *url_check(const char *url, char ret_host[URL_HOST_SIZE])
{
    const char *wrong = NULL;
    char *part = NULL;
    CURLU *u = curl_url();
    if (!u)
        return "cannot be read for lack of memory";
    if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
        wrong = "is not an absolute URL such as http://host:8080/path";
    else if (curl_url_get(u, CURLUPART_SCHEME, &part, 0) != CURLUE_OK ||
             (strcmp(part, "http") != 0 && strcmp(part, "https") != 0))
        wrong = "must begin with http:// or https://";
    else if (!has_two_slashes(url))
        wrong = "is not an absolute URL such as http://host:8080/path";
    curl_free(part);
    part = NULL;
    if (!wrong && curl_url_get(u, CURLUPART_USER, &part, 0) == CURLUE_OK)
        wrong = "must not carry a user name; send an Authorization header";
    curl_free(part);
    part = NULL;
    if (!wrong && curl_url_get(u, CURLUPART_FRAGMENT, &part, 0) == CURLUE_OK)
        wrong = "must not have a #fragment";
    curl_free(part);
    part = NULL;
    if (!wrong && (curl_url_get(u, CURLUPART_HOST, &part, 0) != CURLUE_OK || strlen(part) >= URL_HOST_SIZE))
        wrong = "needs a host of at most 255 bytes";
    else if (!wrong)
        memcpy(ret_host, part, strlen(part) + 1);
    curl_free(part);
    curl_url_cleanup(u);
    return wrong;
}
