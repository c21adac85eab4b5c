#define _GNU_SOURCE
#include "agent/cli/client.h"

#include <curl/curl.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/show.h"
#include "agent/io/file.h"
#include "agent/version.h"

#define ADDRESS_DEFAULT   "127.0.0.1:7420"
#define TIMEOUT_DEFAULT_S 60L
#define CONNECT_TIMEOUT_S 5L

struct client {
    struct cli *cli;
    CURL *curl;
    char *base;        /* "http://127.0.0.1:7420" */
    char *shown;       /* for messages: as base, or "unix:/path" */
    char *unix_socket; /* NULL: TCP */
    char *token;       /* NULL: none */
    const char *ns;    /* NULL: the agent's default */
    char error[CURL_ERROR_SIZE];
};

/* --- which agent --------------------------------------------------------------------------------------------------- */

int client_read_address(const char *address, char **ret_base, char **ret_unix_socket, struct err *e)
{
    if (!address)
        address = ADDRESS_DEFAULT;
    size_t len = strlen(address);
    const char *scheme = strncmp(address, "https://", 8) == 0 ? "https://" : "http://", *host = address;
    if (strncmp(address, "unix:", 5) == 0) {
        const char *path = address + 5;
        if (strncmp(path, "//", 2) == 0)
            path += 2; /* unix:///path */
        if (path[0] != '/')
            return err_set(e, ERR_INVALID, "'%s' is no address; write unix:/path", TEXTQ(address, len));
        *ret_unix_socket = mem_strdup(path);
        *ret_base = mem_strdup("http://localhost");
        return 0;
    }
    if (strncmp(address, scheme, strlen(scheme)) == 0)
        host += strlen(scheme);
    size_t host_len = strlen(host);
    if (host_len > 0 && host[host_len - 1] == '/')
        host_len--;
    if (text_host_port(host, host_len, false, NULL, NULL, NULL, NULL) < 0)
        return err_set(
            e, ERR_INVALID,
            "'%s' is no address; write host:port, http://host:port, https://host:port or unix:/path",
            TEXTQ(address, len));
    AUTO(buf_fini) struct buf base = BUF_INIT(4096);
    buf_add_str(&base, scheme);
    buf_add(&base, host, host_len);
    int r = buf_check(&base, e);
    if (r < 0)
        return r;
    *ret_unix_socket = NULL;
    *ret_base = mem_strdup(buf_str(&base));
    return 0;
}

static int set_token(struct client *c, const struct cli_args *args, struct err *e)
{
    const char *file = args_get(args, "--token-file"), *token = cli_env(c->cli, "CARILLON_TOKEN");
    size_t len;
    if (!file && !token)
        file = cli_env(c->cli, "CARILLON_TOKEN_FILE");
    if (file)
        return file_read_secret(file, &c->token, &len, e);
    if (token)
        c->token = mem_strdup(token);
    return 0;
}

static int set_all(struct client *c, const struct cli_args *args, struct err *e)
{
    const char *address = args_get(args, "--addr");
    if (!address)
        address = cli_env(c->cli, "CARILLON_ADDR");
    int r = client_read_address(address, &c->base, &c->unix_socket, e);
    if (r == 0) {
        c->shown = mem_strdup(c->unix_socket ? address : c->base);
        r = set_token(c, args, e);
    }
    c->ns = args_get(args, "--ns");
    if (!c->ns)
        c->ns = cli_env(c->cli, "CARILLON_NAMESPACE");
    if (r == 0 && c->ns && strcmp(c->ns, "*") == 0)
        r = err_set(e, ERR_INVALID,
                    "'*' is no namespace; all of them are --all-namespaces, where a command has that");
    if (r == 0 && c->ns)
        r = text_check_namespace(c->ns, strlen(c->ns), e);
    return r;
}

struct client *client_open(struct cli *cli, const struct cli_args *args)
{
    struct err e;
    AUTO(client_free) struct client *c = mem_new(struct client);
    c->cli = cli;
    c->curl = curl_easy_init();
    if (!c->curl) {
        (void)cli_fail(cli, CLI_FAILED, "libcurl does not start");
        return NULL;
    }
    if (set_all(c, args, &e) < 0) {
        (void)cli_fail(cli, CLI_USAGE, "%s", e.text);
        return NULL;
    }
    return TAKE(c);
}

void client_free(struct client *c)
{
    if (!c)
        return;
    curl_easy_cleanup(c->curl);
    mem_free(c->base);
    mem_free(c->shown);
    mem_free(c->unix_socket);
    if (c->token)
        mem_free_secret(c->token, strlen(c->token));
    mem_free(c);
}

void client_target(const struct client *c, struct client_target *ret)
{
    *ret = (struct client_target){.base = c->base,
                                  .unix_socket = c->unix_socket,
                                  .token = c->token,
                                  .ns = c->ns,
                                  .tls = {.ca_file = cli_env(c->cli, "CARILLON_CACERT"),
                                          .cert_file = cli_env(c->cli, "CARILLON_CLIENT_CERT"),
                                          .key_file = cli_env(c->cli, "CARILLON_CLIENT_KEY")}};
}

/* --- sending ------------------------------------------------------------------------------------------------------- */

void client_reply_fini(struct client_reply *r)
{
    buf_fini(&r->body);
}

struct transfer {
    struct client *c;
    const struct client_request *request;
    struct client_reply *reply;
    bool stopped; /* by PIECE */
};

static size_t on_data(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t bytes = size * count;
    long status = 0;
    (void)curl_easy_getinfo(t->c->curl, CURLINFO_RESPONSE_CODE, &status); /* known: the headers are in */
    if (t->request->piece && status / 100 == 2) {
        t->stopped = t->request->piece(t->request->arg, data, bytes) != 0;
        return t->stopped ? 0 : bytes;
    }
    buf_add(&t->reply->body, data, bytes);
    return buf_failed(&t->reply->body) ? 0 : bytes;
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t bytes = size * count;
    struct client_reply *r = t->reply;
    const char *colon = memchr(line, ':', bytes);
    if (!colon)
        return bytes;
    size_t name_len = (size_t)(colon - line), at = name_len + 1, end = bytes;
    while (at < end && (line[at] == ' ' || line[at] == '\t'))
        at++;
    while (end > at && (line[end - 1] == '\r' || line[end - 1] == '\n' || line[end - 1] == ' '))
        end--;
    if (name_len == 4 && strncasecmp(line, "etag", 4) == 0 && end - at < sizeof(r->etag))
        (void)snprintf(r->etag, sizeof(r->etag), "%.*s", (int)(end - at), line + at); /* measured */
    if (name_len == 11 && strncasecmp(line, "retry-after", 11) == 0)
        (void)text_u32(line + at, end - at, 0, 86400, &r->retry_after_s,
                       NULL); /* a date is not worth reading */
    return bytes;
}

static int add_line(struct curl_slist **list, const char *line, struct err *e)
{
    struct curl_slist *longer = fault_hit() ? NULL : curl_slist_append(*list, line);
    if (!longer)
        return err_set(e, ERR_NOMEM, "no memory for a header");
    *list = longer;
    return 0;
}

static int add_header(struct curl_slist **list, const char *name, const char *value, struct err *e)
{
    AUTO(buf_fini) struct buf line = BUF_INIT(FILE_SECRET_MAX + 100);
    if (!value)
        return 0;
    buf_addf(&line, "%s: %s", name, value);
    int r = buf_check(&line, e);
    return r < 0 ? r : add_line(list, buf_str(&line), e);
}

static int add_token(struct curl_slist **list, const char *token, struct err *e)
{
    AUTO(buf_fini) struct buf bearer = BUF_INIT(FILE_SECRET_MAX + 20);
    if (!token)
        return 0;
    buf_addf(&bearer, "Bearer %s", token);
    int r = buf_check(&bearer, e);
    return r < 0 ? r : add_header(list, "Authorization", buf_str(&bearer), e);
}

/* All or none: without its namespace a request would mean another job. */
static int make_headers(const struct client *c, const struct client_request *rq, struct curl_slist **ret,
                        struct err *e)
{
    const char *type = rq->content_type ? rq->content_type : "application/json";
    struct curl_slist *list = NULL;
    int r = add_header(&list, "Carillon-Client", version_product(), e);
    if (r == 0)
        r = add_header(&list, "Carillon-Namespace", rq->ns ? rq->ns : c->ns, e);
    if (r == 0)
        r = add_header(&list, "Content-Type", rq->body ? type : NULL, e);
    if (r == 0)
        r = add_token(&list, c->token, e);
    if (r == 0)
        r = add_line(&list, "Expect:", e); /* else libcurl waits a second for "100 Continue" */
    if (r < 0)
        curl_slist_free_all(list);
    else
        *ret = list;
    return r;
}

static void set_target(struct client *c, const struct client_request *rq, const char *url)
{
    CURL *h = c->curl;
    (void)curl_easy_setopt(h, CURLOPT_URL,
                           url); /* constant options: they fail without memory, and then the request does */
    (void)curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, rq->method);
    (void)curl_easy_setopt(h, CURLOPT_PATH_AS_IS, 1L); /* ".." is an id */
    (void)curl_easy_setopt(h, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(h, CURLOPT_USERAGENT, version_product());
    (void)curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    (void)curl_easy_setopt(h, CURLOPT_TIMEOUT, rq->timeout_s ? rq->timeout_s : TIMEOUT_DEFAULT_S);
    (void)curl_easy_setopt(h, CURLOPT_ERRORBUFFER, c->error);
    if (c->unix_socket)
        (void)curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, c->unix_socket);
    if (rq->body) {
        (void)curl_easy_setopt(h, CURLOPT_POSTFIELDS, rq->body);
        (void)curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body_bytes);
    }
    struct client_target target;
    client_target(c, &target);
    if (target.tls.ca_file)
        (void)curl_easy_setopt(h, CURLOPT_CAINFO, target.tls.ca_file);
    if (target.tls.cert_file)
        (void)curl_easy_setopt(h, CURLOPT_SSLCERT, target.tls.cert_file);
    if (target.tls.key_file)
        (void)curl_easy_setopt(h, CURLOPT_SSLKEY, target.tls.key_file);
}

/* What curl's result means for the caller. SENT: bytes of the request have gone out. */
static int transfer_error(const struct client *c, CURLcode code, const struct transfer *t, struct err *e)
{
    const char *text = c->error[0] ? c->error : curl_easy_strerror(code);
    if (t->stopped)
        return err_set(e, ERR_CANCELLED, "ended");
    if (buf_failed(&t->reply->body))
        return buf_check(&t->reply->body, e);
    curl_off_t connected = 0;
    (void)curl_easy_getinfo(c->curl, CURLINFO_PRETRANSFER_TIME_T, &connected); /* 0 stays when unknown */
    if (connected > 0)
        return err_set(e, ERR_UNKNOWN_OUTCOME, "%s: %s", c->shown, text);
    return err_set(e, ERR_UNAVAILABLE, "%s: %s", c->shown, text);
}

int client_send(struct client *c, const struct client_request *request, struct client_reply *ret,
                struct err *e)
{
    struct client_reply reply = {.body = BUF_INIT(CLIENT_REPLY_MAX)};
    struct transfer t = {.c = c, .request = request, .reply = &reply};
    AUTO(buf_fini) struct buf url = BUF_INIT(16384);
    struct curl_slist *headers = NULL;
    if (!request->path)
        return err_set(e, ERR_TOO_BIG, "the request is too long, or there is no memory for it");
    buf_addf(&url, "%s%s", c->base, request->path);
    int r = buf_check(&url, e);
    if (r == 0)
        r = make_headers(c, request, &headers, e);
    if (r < 0)
        return r;
    curl_easy_reset(c->curl); /* keeps the connection */
    c->error[0] = '\0';
    set_target(c, request, buf_str(&url));
    (void)curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_data);
    (void)curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &t);
    (void)curl_easy_setopt(c->curl, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(c->curl, CURLOPT_HEADERDATA, &t);
    CURLcode code = curl_easy_perform(c->curl);
    curl_slist_free_all(headers);
    if (code != CURLE_OK) {
        r = transfer_error(c, code, &t, e);
        client_reply_fini(&reply);
        return r;
    }
    long status = 0;
    (void)curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status); /* a finished request has one */
    reply.status = (int)status;
    *ret = reply;
    return 0;
}

/* --- telling people ------------------------------------------------------------------------------------------------ */

int client_explain_failure(const struct client *c, int failed, const struct err *why)
{
    if (failed == -ERR_UNAVAILABLE) {
        (void)cli_fail(c->cli, CLI_UNREACHABLE, "no agent reached at %s", why->text);
        cli_hint(c->cli,
                 "is it running? `carillon agent` starts one; --addr or CARILLON_ADDR say where it listens");
        return CLI_UNREACHABLE;
    }
    if (failed == -ERR_UNKNOWN_OUTCOME) {
        (void)cli_fail(c->cli, CLI_UNREACHABLE, "no answer from %s", why->text);
        cli_hint(c->cli, "the request may have been carried out; look before repeating it");
        return CLI_UNREACHABLE;
    }
    return cli_fail(c->cli, CLI_FAILED, "%s", why->text);
}

static const char *hint_of(const char *code, const char *path)
{
    if (code && strcmp(code, "not_found") == 0 && strncmp(path, "/v1/services/", 13) == 0)
        return "services are named as in Consul, or in standalone mode as in the agent's configuration; one without a "
               "healthy endpoint is not found either";
    if (code && strcmp(code, "not_found") == 0 && strncmp(path, "/v1/fires/", 10) == 0)
        return "`carillon fire list` shows those that are kept";
    static const char *const hints[][2] = {
        {"not_found", "names count within a namespace: --ns chooses another"},
        {"unauthorized", "give a token: --token-file, CARILLON_TOKEN_FILE or CARILLON_TOKEN"},
        {"forbidden",
         "this client may not: over https the certificate of CARILLON_CLIENT_CERT and _KEY decides, else the token"},
        {"misdirected", "use the address that the agent listens on, or add this name to its api.hosts"},
        {"version_mismatch", "it was changed meanwhile; read it again"},
        {"already_exists", "`carillon job apply` replaces what is there"},
        {"no_target", "give callback.http.service or callback.http.url, or set app.service of the agent"},
        {"due_in_past", "give an instant that is to come"},
        {"quota_exceeded",
         "the agent's schedule.max_jobs and schedule.max_jobs_of say how many jobs there may be"},
        {"too_large", "limits: api.max_body and api.max_bulk of the agent"},
    };
    for (size_t i = 0; code && i < sizeof(hints) / sizeof(hints[0]); i++)
        if (strcmp(hints[i][0], code) == 0)
            return hints[i][1];
    return NULL;
}

static json_t *read_problem(const struct client_reply *reply)
{
    json_t *problem = NULL;
    if (json_read(buf_str(&reply->body), reply->body.len, CLIENT_REPLY_MAX, &problem, NULL) == 0 &&
        !json_is_object(problem)) {
        json_decref(problem);
        problem = NULL;
    }
    return problem;
}

/* With a single error the document's detail is that error's, perhaps cut, with its pointer before it or without. */
static bool is_told_below(const char *detail, const json_t *errors)
{
    const json_t *only = json_array_get(errors, 0);
    const char *pointer = show_string(only, "pointer");
    size_t len = strlen(pointer);
    if (json_array_size(errors) != 1)
        return false;
    if (strncmp(detail, pointer, len) == 0 && strncmp(detail + len, ": ", 2) == 0)
        detail += len + 2;
    return strncmp(detail, show_string(only, "detail"), strlen(detail)) == 0;
}

int client_explain_refusal(const struct client *c, const struct client_request *rq,
                           const struct client_reply *reply)
{
    AUTO(json_decref) json_t *problem = read_problem(reply);
    const char *code = json_string_value(json_object_get(problem, "code"));
    const char *detail = json_string_value(json_object_get(problem, "detail"));
    const json_t *errors = json_object_get(problem, "errors");
    int exit_code = reply->status == 404 ? CLI_NOT_FOUND : CLI_FAILED;
    AUTO(buf_fini) struct buf text = BUF_INIT(65536);
    buf_addf(&text, "%d %s", reply->status, code ? code : "without an explanation");
    if (detail && !is_told_below(detail, errors))
        buf_addf(&text, ": %s", detail);
    for (size_t i = 0; i < json_array_size(errors); i++) {
        const json_t *error = json_array_get(errors, i);
        const char *pointer = json_string_value(json_object_get(error, "pointer"));
        const char *what = json_string_value(json_object_get(error, "detail"));
        buf_addf(&text, "\n  %s: %s", pointer ? pointer : "#", what ? what : "");
    }
    AUTO(mem_free) char *clean = show_clean(buf_str(&text), true);
    (void)cli_fail(c->cli, (enum cli_exit)exit_code, "%s", clean);
    const char *hint = hint_of(code, rq->path);
    if (hint)
        cli_hint(c->cli, "%s", hint);
    bool later = reply->status == 503 || reply->status == 429;
    if (later && !(code && strcmp(code, "quota_exceeded") == 0))
        cli_hint(c->cli, "try again in %u s%s", reply->retry_after_s ? reply->retry_after_s : 1,
                 strcmp(rq->method, "POST") == 0 ? "" : "; repeating does no harm");
    return exit_code;
}

void client_refusal_line(const struct client_reply *reply, struct buf *out)
{
    AUTO(json_decref) json_t *problem = read_problem(reply);
    const char *code = json_string_value(json_object_get(problem, "code"));
    const char *detail = json_string_value(json_object_get(problem, "detail"));
    const json_t *errors = json_object_get(problem, "errors");
    buf_addf(out, "%d %s", reply->status, code ? code : "");
    for (size_t i = 0; i < json_array_size(errors); i++) {
        const json_t *error = json_array_get(errors, i);
        const char *pointer = json_string_value(json_object_get(error, "pointer"));
        const char *what = json_string_value(json_object_get(error, "detail"));
        buf_addf(out, "%s %s: %s", i ? ";" : ":", pointer ? pointer : "#", what ? what : "");
    }
    if (json_array_size(errors) == 0 && detail)
        buf_addf(out, ": %s", detail);
}

int client_ask(struct client *c, const char *method, const char *path, const json_t *body, json_t **ret)
{
    struct err e;
    AUTO(buf_fini) struct buf text = BUF_INIT(CLIENT_REPLY_MAX);
    if (body && json_print_ordered(body, &text, &e) < 0)
        return cli_fail(c->cli, CLI_FAILED, "%s", e.text);
    struct client_request rq = {
        .method = method, .path = path, .body = body ? buf_str(&text) : NULL, .body_bytes = text.len};
    AUTO(client_reply_fini) struct client_reply reply = {.status = 0};
    int r = client_send(c, &rq, &reply, &e);
    if (r < 0)
        return client_explain_failure(c, r, &e);
    if (reply.status / 100 != 2)
        return client_explain_refusal(c, &rq, &reply);
    if (json_read(buf_str(&reply.body), reply.body.len, CLIENT_REPLY_MAX, ret, &e) < 0)
        return cli_fail(c->cli, CLI_FAILED, "%s: answer: %s", c->shown, e.text);
    return CLI_OK;
}

/* --- paths --------------------------------------------------------------------------------------------------------- */

void client_path(struct buf *out, const char *prefix, const char *id, const char *suffix)
{
    buf_add_str(out, prefix);
    text_percent_encode(out, id, strlen(id));
    buf_add_str(out, suffix);
}

const char *client_path_text(const struct buf *path)
{
    return buf_failed(path) ? NULL : buf_str(path);
}

void client_query(struct buf *out, const char *name, const char *value)
{
    if (!value)
        return;
    buf_addf(out, "%c%s=", strchr(buf_str(out), '?') ? '&' : '?', name);
    text_percent_encode(out, value, strlen(value));
}
