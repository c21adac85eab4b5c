#include "consul/consul_client.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/base/list.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/io/file.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"

#define TIMEOUT_MS         5000
#define CONNECT_TIMEOUT_MS 2000
#define REPLY_MAX          ((size_t)1 << 20)
#define TOKEN_CHECK_MS     5000
#define URL_MAX            4096
#define HEADERS_MAX        4

static const struct log_ctx log_here = {.module = "consul"};

struct consul_client {
    struct loop *loop;
    struct http_client *http;
    struct http_tls tls;
    char *base; /* "http://host:port" */
    char *unix_socket;
    char *datacenter, *ns;
    char *tls_texts[5];
    char *token_header, *auth_header;
    char *token_path;
    struct file_watch token_watch;
    struct loop_timer *token_timer;
    struct consul_health health;
    bool health_told; /* in the log, at least once */
};

struct consul_call {
    struct consul_client *client;
    struct http_call *http;
    consul_done *done;
    void *arg;
    bool https;
    bool local;  /* answered by the agent alone, whatever its servers do */
    bool abroad; /* about another datacenter */
    bool in_callback;
};

static const char *env_value(const char *const *env, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; env && env[i]; i++)
        if (strncmp(env[i], name, len) == 0 && env[i][len] == '=' && env[i][len + 1] != '\0')
            return env[i] + len + 1;
    return NULL;
}

static void fill_text(const char **field, const char *const *env, const char *name)
{
    if (!*field)
        *field = env_value(env, name);
}

/* Go's ParseBool, which Consul's own client uses, in any case. */
static bool is_one_of(const char *text, const char *const *words)
{
    for (; text && *words; words++)
        if (strcasecmp(text, *words) == 0)
            return true;
    return false;
}

void consul_options_from_env(struct consul_client_options *o, const char *const *env)
{
    fill_text(&o->address, env, "CONSUL_HTTP_ADDR");
    if (!o->token_file)
        fill_text(&o->token, env, "CONSUL_HTTP_TOKEN");
    fill_text(&o->token_file, env, "CONSUL_HTTP_TOKEN_FILE");
    fill_text(&o->auth, env, "CONSUL_HTTP_AUTH");
    fill_text(&o->tls_ca, env, "CONSUL_CACERT");
    fill_text(&o->tls_ca_path, env, "CONSUL_CAPATH");
    fill_text(&o->tls_cert, env, "CONSUL_CLIENT_CERT");
    fill_text(&o->tls_key, env, "CONSUL_CLIENT_KEY");
    fill_text(&o->tls_server_name, env, "CONSUL_TLS_SERVER_NAME");
    fill_text(&o->ns, env, "CONSUL_NAMESPACE");
    const char *ssl = env_value(env, "CONSUL_HTTP_SSL"), *verify = env_value(env, "CONSUL_HTTP_SSL_VERIFY");
    o->tls |= is_one_of(ssl, (const char *const[]){"1", "t", "true", NULL});
    o->tls_skip_verify |= is_one_of(verify, (const char *const[]){"0", "f", "false", NULL});
}

static char *copy_text(const char *s)
{
    return s ? mem_strdup(s) : NULL;
}

static int set_address(struct consul_client *c, const struct consul_client_options *o, struct err *e)
{
    const char *address = o->address ? o->address : "127.0.0.1:8500";
    const char *rest = address, *scheme = o->tls ? "https" : "http";
    char base[512];
    if (strncmp(address, "unix://", 7) == 0) {
        if (address[7] != '/')
            return err_set(e, ERR_INVALID, "consul address '%.100s': a unix socket is unix:///path", address);
        c->unix_socket = mem_strdup(address + 7);
        rest = "localhost";
    } else if (strncmp(address, "https://", 8) == 0) {
        scheme = "https";
        rest = address + 8;
    } else if (strncmp(address, "http://", 7) == 0) {
        rest = address + 7;
    }
    size_t len = strcspn(rest, "/");
    if (len == 0 || len > 400 || rest[len + (rest[len] == '/')] != '\0')
        return err_set(e, ERR_INVALID,
                       "consul address '%.100s': must be host:port, http(s)://host:port or unix:///path",
                       address);
    int n = snprintf(base, sizeof(base), "%s://%.*s", scheme, (int)len, rest);
    assert(n > 0 && (size_t)n < sizeof(base));
    c->base = mem_strdup(base);
    return 0;
}

static char *header_text(const char *name, const char *value)
{
    struct buf text = BUF_INIT(FILE_SECRET_MAX + 256);
    buf_addf(&text, "%s: %s", name, value);
    char *line = buf_steal(&text, NULL, NULL);
    buf_fini(&text);
    return line;
}

static void drop_header(char **header)
{
    if (*header)
        mem_free_secret(*header, strlen(*header));
    *header = NULL;
}

static int load_token(struct consul_client *c, struct err *e)
{
    char *token;
    size_t len;
    int rc = file_read_secret(c->token_path, &token, &len, e);
    if (rc < 0)
        return err_wrap(e, "consul token");
    if (text_check_header_value(token, len, NULL) < 0) {
        mem_free_secret(token, len);
        return err_set(e, ERR_INVALID, "consul token in '%s' is not one line of text", c->token_path);
    }
    drop_header(&c->token_header);
    c->token_header = header_text("X-Consul-Token", token);
    mem_free_secret(token, len);
    return 0;
}

/* A broken new file leaves the old token in use: Consul would refuse everything otherwise. */
static void check_token(void *arg)
{
    struct consul_client *c = arg;
    struct err e = {0};
    if (file_watch_changed(&c->token_watch)) {
        if (load_token(c, &e) < 0)
            log_warn(&log_here, "token file not read, the old token stays", "error=%s", LOGQ(e.text));
        else
            log_info(&log_here, "token read again", "file=%s", LOGQ(c->token_path));
    }
    loop_timer_arm(c->token_timer, TOKEN_CHECK_MS);
}

static int set_token(struct consul_client *c, const struct consul_client_options *o, struct err *e)
{
    if (o->token_file) {
        c->token_path = mem_strdup(o->token_file);
        file_watch_init(&c->token_watch, c->token_path);
        c->token_timer = loop_timer_new(c->loop, check_token, c);
        loop_timer_arm(c->token_timer, TOKEN_CHECK_MS);
        return load_token(c, e);
    }
    if (o->token) {
        if (text_check_header_value(o->token, strlen(o->token), NULL) < 0)
            return err_set(e, ERR_INVALID, "consul token is not one line of text");
        c->token_header = header_text("X-Consul-Token", o->token);
    }
    return 0;
}

static int set_auth(struct consul_client *c, const struct consul_client_options *o, struct err *e)
{
    if (!o->auth)
        return 0;
    struct buf value = BUF_INIT(4096);
    buf_add_str(&value, "Basic ");
    text_base64_encode(&value, o->auth, strlen(o->auth));
    int rc = buf_check(&value, e);
    if (rc == 0)
        c->auth_header = header_text("Authorization", buf_str(&value));
    buf_fini(&value);
    return rc;
}

static void set_tls(struct consul_client *c, const struct consul_client_options *o)
{
    const char *given[5] = {o->tls_ca, o->tls_ca_path, o->tls_cert, o->tls_key, o->tls_server_name};
    for (size_t i = 0; i < 5; i++)
        c->tls_texts[i] = copy_text(given[i]);
    c->tls = (struct http_tls){.ca_file = c->tls_texts[0],
                               .ca_path = c->tls_texts[1],
                               .cert_file = c->tls_texts[2],
                               .key_file = c->tls_texts[3],
                               .server_name = c->tls_texts[4],
                               .skip_verify = o->tls_skip_verify};
}

int consul_client_new(struct loop *loop, const struct consul_client_options *o, struct consul_client **ret,
                      struct err *e)
{
    struct consul_client *c = mem_new(struct consul_client);
    c->loop = loop;
    c->health = (struct consul_health){.since_ms = loop_now_ms(loop), .detail = "not asked yet"};
    c->datacenter = copy_text(o->datacenter);
    c->ns = copy_text(o->ns);
    set_tls(c, o);
    int rc = set_address(c, o, e);
    if (rc == 0)
        rc = set_token(c, o, e);
    if (rc == 0)
        rc = set_auth(c, o, e);
    if (rc == 0)
        rc = http_client_new(loop, o->connections_max ? o->connections_max : 150, &c->http, e);
    if (rc < 0) {
        consul_client_free(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void consul_client_free(struct consul_client *c)
{
    if (!c)
        return;
    if (c->http)
        http_client_free(c->http);
    if (c->token_timer)
        loop_timer_free(c->token_timer);
    if (c->token_path)
        file_watch_fini(&c->token_watch);
    drop_header(&c->token_header);
    drop_header(&c->auth_header);
    for (size_t i = 0; i < 5; i++)
        mem_free(c->tls_texts[i]);
    mem_free(c->token_path);
    mem_free(c->base);
    mem_free(c->unix_socket);
    mem_free(c->datacenter);
    mem_free(c->ns);
    mem_free(c);
}

/* From 1.11 on Consul hides what a token may not read: without this header's word that would be an empty list. */
static bool is_hidden(const struct http_reply *reply)
{
    const char *filtered = http_reply_header(reply, "X-Consul-Results-Filtered-By-ACLs");
    return filtered && strcmp(filtered, "true") == 0 && reply->body_bytes >= 2 &&
           memcmp(reply->body, "[]", 2) == 0;
}

/* 404 and 4xx are answers of a working Consul; 5xx is how it says that it has no leader. */
static int classify(const struct http_reply *reply, struct err *e)
{
    int status = reply->status, show = (int)(reply->body_bytes < 120 ? reply->body_bytes : 120);
    if (status >= 200 && status < 300 && is_hidden(reply))
        return err_set(e, ERR_AUTH, "consul hides all of it: the token may not read it");
    if (status >= 200 && status < 300)
        return 0;
    enum err_code code = status == 404                    ? ERR_NOT_FOUND
                         : status == 401 || status == 403 ? ERR_AUTH
                         : status == 429                  ? ERR_BUSY
                         : status >= 400 && status < 500  ? ERR_INVALID
                                                          : ERR_UNAVAILABLE;
    return err_set(e, code, "consul answered %d: %.*s", status, show, reply->body);
}

static void tell_health(const struct consul_client *c, bool ok, const struct err *e)
{
    const char *address = c->unix_socket ? c->unix_socket : c->base;
    if (ok)
        log_info(&log_here, "reachable", "address=%s", LOGQ(address));
    else if (!c->health_told)
        log_warn(&log_here, "not usable yet, asked again until it is", "address=%s error=%s", LOGQ(address),
                 LOGQ(e->text));
    else
        log_warn(&log_here, "not usable, the last known members and endpoints stay", "error=%s",
                 LOGQ(e->text));
}

static void set_health(struct consul_client *c, bool ok, const struct err *e)
{
    if (ok != c->health.ok || !c->health_told)
        tell_health(c, ok, e);
    if (ok != c->health.ok)
        c->health.since_ms = loop_now_ms(c->loop);
    c->health_told = true;
    c->health.ok = ok;
    (void)snprintf(c->health.detail, sizeof(c->health.detail), "%s",
                   ok ? "" : e->text); /* a copy of its size */
}

/* An answer about a check or a session of ours that Consul has forgotten is a 500 in 1.8, and no failure of the servers. */
static bool servers_failed(const struct err *e, const struct http_reply *reply)
{
    return (e->code == ERR_UNAVAILABLE || e->code == ERR_BUSY) && !strstr(reply->body, "invalid session");
}

static void note_health(const struct consul_call *call, const struct err *e, const struct http_reply *reply)
{
    struct consul_client *c = call->client;
    if (e->code == ERR_CANCELLED || (reply && (call->local || call->abroad)))
        return;
    if (!reply || servers_failed(e, reply))
        set_health(c, false, e);
    else if (e->code != ERR_AUTH)
        set_health(c, true, e);
    else if (!c->health.ok)
        set_health(c, false, e);
}

static uint64_t header_number(const struct http_reply *reply, const char *name, uint64_t absent)
{
    uint64_t v;
    const char *text = http_reply_header(reply, name);
    return text && text_u64(text, strlen(text), 0, INT64_MAX, &v, NULL) == 0 ? v : absent;
}

static void on_reply(void *arg, const struct err *e, const struct http_reply *reply)
{
    struct consul_call *call = arg;
    struct err own = {0};
    struct consul_reply out;
    if (e->code == ERR_OK) {
        (void)classify(reply, &own); /* the verdict stands in OWN */
        out = (struct consul_reply){.status = reply->status,
                                    .body = reply->body,
                                    .body_bytes = reply->body_bytes,
                                    .index = header_number(reply, "X-Consul-Index", 0),
                                    .has_index = http_reply_header(reply, "X-Consul-Index") != NULL,
                                    .last_contact_ms =
                                        (int64_t)header_number(reply, "X-Consul-LastContact", (uint64_t)-1)};
        e = &own;
    }
    note_health(call, e, reply);
    call->in_callback = true;
    if (call->done)
        call->done(call->arg, e, reply ? &out : NULL);
    mem_free(call);
}

static bool names_datacenter(const char *path)
{
    return strstr(path, "?dc=") || strstr(path, "&dc=");
}

static void print_url(const struct consul_client *c, const char *path, struct buf *url)
{
    const char *mark = strchr(path, '?') ? "&" : "?";
    buf_addf(url, "%s%s", c->base, path);
    if (c->datacenter && !names_datacenter(path)) {
        buf_addf(url, "%sdc=", mark);
        text_percent_encode(url, c->datacenter, strlen(c->datacenter));
        mark = "&";
    }
    if (c->ns) {
        buf_addf(url, "%sns=", mark);
        text_percent_encode(url, c->ns, strlen(c->ns));
    }
}

struct consul_call *consul_send(struct consul_client *c, const struct consul_request *request,
                                consul_done *done, void *arg)
{
    struct consul_call *call = mem_new(struct consul_call);
    const char *headers[HEADERS_MAX] = {0};
    size_t n = 0;
    struct buf url = BUF_INIT(URL_MAX);
    print_url(c, request->path, &url);
    if (c->token_header)
        headers[n++] = c->token_header;
    if (c->auth_header)
        headers[n++] = c->auth_header;
    *call = (struct consul_call){
        .client = c,
        .done = done,
        .arg = arg,
        .https = strncmp(c->base, "https", 5) == 0,
        .local = strncmp(request->path, "/v1/agent/", 10) == 0,
        .abroad = names_datacenter(request->path),
    };
    struct http_call_options options = {
        .method = request->method,
        .url = buf_failed(&url) ? "" : buf_str(&url), /* too long: refused as no URL, in the callback */
        .unix_socket = c->unix_socket,
        .headers = headers,
        .body = request->body,
        .body_bytes = request->body_bytes,
        .tls = call->https ? &c->tls : NULL,
        .timeout_ms = request->timeout_ms ? request->timeout_ms : TIMEOUT_MS,
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .reply_bytes_max = request->reply_max ? request->reply_max : REPLY_MAX,
    };
    call->http = http_send(c->http, &options, on_reply, call);
    buf_fini(&url);
    return call;
}

void consul_cancel(struct consul_call *call)
{
    if (!call || call->in_callback)
        return;
    if (!call->http) { /* it failed to start: its callback is on the way and frees it */
        call->done = NULL;
        return;
    }
    http_cancel(call->http);
    mem_free(call);
}

const struct consul_health *consul_client_health(const struct consul_client *c)
{
    return &c->health;
}

struct loop *consul_client_loop(struct consul_client *c)
{
    return c->loop;
}
