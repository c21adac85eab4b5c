/* Absolute http(s) URLs as outsiders write them, read by libcurl's URL parser (no request is made). Any thread. */
#ifndef CARILLON_BASE_URL_H
#define CARILLON_BASE_URL_H

#include <stdbool.h>

#define URL_HOST_SIZE 256

/* Whether URL is something a callback may go to: http or https, with a host, without user name and fragment. Returns NULL and
 * writes the host (IPv6 in brackets), or a phrase that tells what is wrong ("must not have a #fragment"). */
const char *url_check(const char *url, char ret_host[URL_HOST_SIZE]);

/* Whether HOST (a name, IPv4 in any notation, IPv6 with or without brackets) means the machine itself: localhost, 127/8, ::1, the unspecified
 * addresses. Names are not resolved. */
bool url_host_is_loopback(const char *host);

#endif
