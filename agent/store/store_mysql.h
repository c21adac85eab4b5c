/* Options of the MySQL driver; the driver itself is `store_mysql` of agent/store/store.h. */
#ifndef CARILLON_STORE_STORE_MYSQL_H
#define CARILLON_STORE_STORE_MYSQL_H

#include <stdint.h>

enum store_mysql_tls { STORE_MYSQL_TLS_OFF, STORE_MYSQL_TLS_REQUIRE, STORE_MYSQL_TLS_VERIFY };

/* Filled from the driver's option rows; see there for meaning and defaults. Copied by open. */
struct store_mysql_options {
    char *host;
    int64_t port;
    char *socket; /* NULL: host and port */
    char *user;
    char *password_file; /* NULL: no password. Read again for every connection. */
    char *database;
    int64_t
        connections; /* beside the beat's: one for commits, the rest for reads; and one more for a second commit */
    uint64_t timeout_ms;
    unsigned tls_mode; /* enum store_mysql_tls */
    char *tls_ca;
    char *tls_cert;
    char *tls_key;
};

#endif
