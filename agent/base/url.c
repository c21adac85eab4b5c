#include "agent/base/url.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <string.h>
#include <strings.h>

bool url_host_is_loopback(const char *host)
{
    struct in6_addr six;
    struct in_addr four;
    char bare[64];
    size_t len = strlen(host);
    if (strcasecmp(host, "localhost") == 0 || (len > 10 && strcasecmp(host + len - 10, ".localhost") == 0))
        return true;
    if (inet_pton(AF_INET, host, &four) == 1)
        return (ntohl(four.s_addr) >> 24) == 127 || four.s_addr == 0;
    bool bracketed = host[0] == '[' && len > 2;
    if (len >= sizeof(bare))
        return false;
    memcpy(bare, host + bracketed, len + 1 - bracketed);
    if (bracketed)
        bare[len - 2] = '\0';
    if (inet_pton(AF_INET6, bare, &six) != 1)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&six) || IN6_IS_ADDR_UNSPECIFIED(&six) ||
           (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
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
