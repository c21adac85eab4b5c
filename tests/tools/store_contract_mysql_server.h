/* The server that CARILLON_TEST_MYSQL names, and statements of a test's own. Before including, define contract_fail(). */
#ifndef CARILLON_TESTS_STORE_CONTRACT_MYSQL_SERVER_H
#define CARILLON_TESTS_STORE_CONTRACT_MYSQL_SERVER_H

#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/text.h"
#include "agent/io/tzload.h"
#include "agent/store/store_mysql.h"
#include "agent/store/store_mysql_conn.h"
#include "tests/unit/store/store_contract.h"

struct server {
    struct store_mysql_options options;
    struct tzload *zones;
    char host[64];
    char database[64];
    int64_t through; /* port for the store, 0: the server's */
};

static inline void parse_address(const char *address, char host[64], int64_t *ret_port)
{
    size_t host_at, host_len;
    uint16_t port;
    struct err e = {0};
    CHECK(text_host_port(address, strlen(address), false, &host_at, &host_len, &port, &e) == 0, "%s", e.text);
    (void)snprintf(host, 64, "%.*s", (int)host_len, address + host_at);
    *ret_port = port;
}

static inline int64_t now_ms(void *arg)
{
    (void)arg;
    return clock_wall_ms();
}

static inline void server_init(struct server *s, const char *database)
{
    const char *address = getenv("CARILLON_TEST_MYSQL"), *through = getenv("CARILLON_TEST_MYSQL_THROUGH");
    const char *user = getenv("CARILLON_TEST_MYSQL_USER");
    struct err e = {0};
    *s = (struct server){0};
    CHECK(address, "%s", "CARILLON_TEST_MYSQL is not set");
    s->options = (struct store_mysql_options){.host = s->host,
                                              .user = (char *)(user ? user : "root"),
                                              .password_file = getenv("CARILLON_TEST_MYSQL_PASSWORD_FILE"),
                                              .database = s->database,
                                              .connections = 3,
                                              .timeout_ms = 5000};
    if (through)
        parse_address(through, s->host, &s->through);
    parse_address(address, s->host, &s->options.port);
    (void)snprintf(s->database, sizeof(s->database), "%.60s", database);
    CHECK(tzload_new(NULL, &s->zones, &e) == 0, "%s", e.text);
}

/* A statement on a connection of its own. */
static inline void run_sql(struct server *s, const char *text)
{
    struct my_conn c;
    struct err e = {0};
    my_conn_init(&c, &s->options, 10);
    CHECK(my_conn_ensure(&c, false, &e) == 0, "%s", e.text);
    CHECK(my_exec(&c, text, true, &e) == 0, "%s: %s", text, e.text);
    my_conn_close(&c);
}

static inline void drop_database(struct server *s)
{
    char text[128];
    (void)snprintf(text, sizeof(text), "DROP DATABASE IF EXISTS %s", s->database);
    run_sql(s, text);
}

#endif
