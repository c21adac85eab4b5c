#include "agent/store/raft/wire_tls.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/io/file.h"

#define KEY_BYTES 32
#define IDENTITY  "carillon"
#define LABEL     "EXPORTER-carillon-raft"

struct wire_tls {
    SSL_CTX *context;
    char *ca_file, *cert_file, *key_file, *server_name;
    uint64_t stamp;         /* of the files that the context is of */
    uint8_t key[KEY_BYTES]; /* of the secret and the cluster's name */
    bool keyed, certified;
};

static const struct log_ctx log_here = {.module = "raft"};

static int refused(struct err *e, const char *what, const char *file)
{
    char text[120];
    ERR_error_string_n(ERR_get_error(), text, sizeof(text));
    ERR_clear_error();
    return err_set(e, ERR_INVALID, "%s '%.80s': %s", what, file, text);
}

static int no_memory(struct err *e)
{
    ERR_clear_error();
    return err_set(e, ERR_NOMEM, "no memory for TLS");
}

static int make_key(struct wire_tls *t, const struct wire_tls_options *o, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(1024);
    unsigned len = KEY_BYTES;
    buf_add_str(&text, "carillon raft v1\n");
    buf_add_str(&text, o->cluster);
    if (buf_check(&text, e) < 0)
        return err_wrap(e, "make the key of the cluster");
    if (fault_hit() || !HMAC(EVP_sha256(), o->secret, (int)o->secret_bytes, (const uint8_t *)buf_str(&text),
                             text.len, t->key, &len))
        return no_memory(e);
    t->keyed = true;
    return 0;
}

static struct wire_tls *of_ssl(const SSL *ssl)
{
    return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

static unsigned give_key(const struct wire_tls *t, unsigned char *ret, unsigned max)
{
    if (max < KEY_BYTES)
        return 0;
    memcpy(ret, t->key, KEY_BYTES);
    return KEY_BYTES;
}

static unsigned client_key(SSL *ssl, const char *hint, char *identity, unsigned identity_max,
                           unsigned char *ret, unsigned max)
{
    (void)hint;
    if (identity_max < sizeof(IDENTITY))
        return 0;
    memcpy(identity, IDENTITY, sizeof(IDENTITY));
    return give_key(of_ssl(ssl), ret, max);
}

static unsigned server_key(SSL *ssl, const char *identity, unsigned char *ret, unsigned max)
{
    return strcmp(identity, IDENTITY) == 0 ? give_key(of_ssl(ssl), ret, max) : 0;
}

/* --- certificates -------------------------------------------------------------------------------------------------- */

static uint64_t stamp_of(const struct wire_tls *t)
{
    uint64_t stamps[3] = {file_stamp(t->ca_file), file_stamp(t->cert_file), file_stamp(t->key_file)};
    return XXH3_64bits(stamps, sizeof(stamps));
}

static int use_files(const struct wire_tls *t, SSL_CTX *context, struct err *e)
{
    if (SSL_CTX_load_verify_locations(context, t->ca_file, NULL) != 1)
        return refused(e, "read authorities from", t->ca_file);
    if (SSL_CTX_use_certificate_chain_file(context, t->cert_file) != 1)
        return refused(e, "read the certificate", t->cert_file);
    if (SSL_CTX_use_PrivateKey_file(context, t->key_file, SSL_FILETYPE_PEM) != 1)
        return refused(e, "read the key", t->key_file);
    if (SSL_CTX_check_private_key(context) != 1)
        return refused(e, "the key is not the certificate's:", t->key_file);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

static int make_context(struct wire_tls *t, SSL_CTX **ret, struct err *e)
{
    SSL_CTX *context = fault_hit() ? NULL : SSL_CTX_new(TLS_method());
    int rc = 0;
    if (!context || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1) {
        SSL_CTX_free(context);
        return no_memory(e);
    }
    SSL_CTX_set_app_data(context, t);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* gives the old mode */
    (void)SSL_CTX_set_num_tickets(context, 0);                         /* cannot fail */
    if (t->certified) {
        rc = use_files(t, context, e);
    } else {
        SSL_CTX_set_psk_client_callback(context, client_key);
        SSL_CTX_set_psk_server_callback(context, server_key);
    }
    if (rc < 0)
        SSL_CTX_free(context);
    else
        *ret = context;
    return rc;
}

/* Certificates are replaced before they end, in files that stay where they are. */
static void look_at_files(struct wire_tls *t)
{
    struct err e = {0};
    SSL_CTX *next;
    uint64_t stamp = t->certified ? stamp_of(t) : t->stamp;
    if (stamp == t->stamp)
        return;
    if (make_context(t, &next, &e) <
        0) { /* half of a change, or a mistake: the next connection looks again */
        log_error(&log_here, "certificate of the log not read again, the old one stays in use", "error=%s",
                  LOGQ(e.text));
        return;
    }
    SSL_CTX_free(t->context); /* connections keep theirs */
    t->context = next;
    t->stamp = stamp;
    log_info(&log_here, "certificate of the log read again", "file=%s", LOGQ(t->cert_file));
}

/* Whose certificate SSL takes: that of NAME, which may be an address. */
static bool expect_name(SSL *ssl, const char *name)
{
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1)
        return true;
    ERR_clear_error(); /* it is no address */
    return SSL_set1_host(ssl, name) == 1;
}

static int prepare(struct wire_tls *t, const struct wire_tls_options *o, struct err *e)
{
    t->ca_file = mem_strdup(o->ca_file);
    t->cert_file = mem_strdup(o->cert_file);
    t->key_file = mem_strdup(o->key_file);
    t->server_name = mem_strdup(o->server_name);
    t->certified = o->cert_file != NULL;
    t->stamp = t->certified ? stamp_of(t) : 0;
    int rc = o->secret ? make_key(t, o, e) : 0;
    return rc < 0 ? rc : make_context(t, &t->context, e);
}

int wire_tls_new(const struct wire_tls_options *options, struct wire_tls **ret, struct err *e)
{
    *ret = NULL;
    if (!options->secret && !options->cert_file)
        return 0;
    AUTO(wire_tls_free) struct wire_tls *t = mem_new(struct wire_tls);
    int rc = prepare(t, options, e);
    if (rc < 0)
        return rc;
    *ret = TAKE(t);
    return 0;
}

void wire_tls_free(struct wire_tls *t)
{
    if (!t)
        return;
    SSL_CTX_free(t->context);
    mem_free(t->ca_file);
    mem_free(t->cert_file);
    mem_free(t->key_file);
    mem_free(t->server_name);
    mem_free_secret(t, sizeof(*t));
}

struct ssl_st *wire_tls_side(struct wire_tls *t, const char *host)
{
    const char *name = t->server_name ? t->server_name : host;
    look_at_files(t);
    SSL *ssl = fault_hit() ? NULL : SSL_new(t->context);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    if (!ssl || !in || !out || (t->certified && name && !expect_name(ssl, name))) {
        SSL_free(ssl);
        BIO_free(in);
        BIO_free(out);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_bio(ssl, in, out);
    if (host)
        SSL_set_connect_state(ssl);
    else
        SSL_set_accept_state(ssl);
    return ssl;
}

bool wire_tls_wants_proof(const struct wire_tls *t)
{
    return t && t->certified && t->keyed;
}

int wire_tls_proof(const struct wire_tls *t, struct ssl_st *ssl, bool accepts, uint8_t ret[WIRE_PROOF_BYTES],
                   struct err *e)
{
    uint8_t text[KEY_BYTES + 1];
    unsigned len = WIRE_PROOF_BYTES;
    text[KEY_BYTES] = accepts; /* one side cannot send the other's back */
    if (SSL_export_keying_material(ssl, text, KEY_BYTES, LABEL, sizeof(LABEL) - 1, NULL, 0, 0) != 1 ||
        !HMAC(EVP_sha256(), t->key, KEY_BYTES, text, sizeof(text), ret, &len))
        return no_memory(e);
    return 0;
}
