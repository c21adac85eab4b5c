/* The certificates of a server, and new ones in their place while it runs. libmicrohttpd keeps those it was started with; a connection
 * is given the present ones before its handshake, and keeps them for as long as it lives. */
#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/file.h"
#include "agent/io/httpd_private.h"

#define TLS_FILE_MAX ((size_t)1 << 20)

struct httpd_tls {
    atomic_uint refs; /* the server's, and one of each connection */
    gnutls_certificate_credentials_t credentials;
};

void httpd_tls_unref_(struct httpd_tls *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    gnutls_certificate_free_credentials(t->credentials);
    mem_free(t);
}

/* --- files --------------------------------------------------------------------------------------------------------- */

void httpd_tls_files_fini_(struct httpd_tls_files *f)
{
    buf_fini(&f->cert);
    if (f->key.data)
        explicit_bzero(f->key.data, f->key.len);
    buf_fini(&f->key);
    buf_fini(&f->client_ca);
}

static int read_file(const char *path, struct buf *out, struct err *e)
{
    buf_init(out, TLS_FILE_MAX);
    return path ? file_read(path, out, e) : 0;
}

int httpd_tls_files_read_(struct httpd_tls_files *f, const struct httpd_options *o, struct err *e)
{
    if (!o->tls_cert != !o->tls_key || (o->tls_client_ca && !o->tls_cert))
        return err_set(e, ERR_INVALID, "TLS needs both a certificate and a key");
    if (read_file(o->tls_cert, &f->cert, e) < 0 || read_file(o->tls_key, &f->key, e) < 0 ||
        read_file(o->tls_client_ca, &f->client_ca, e) < 0)
        return err_wrap(e, "set up TLS");
    return 0;
}

uint64_t httpd_tls_stamp_(const struct httpd_options *o)
{
    const char *files[] = {o->tls_cert, o->tls_key, o->tls_client_ca};
    uint64_t stamps[3];
    for (size_t i = 0; i < 3; i++)
        stamps[i] = files[i] ? file_stamp(files[i]) : 0;
    return XXH3_64bits(stamps, sizeof(stamps));
}

/* --- in their place ------------------------------------------------------------------------------------------------ */

static gnutls_datum_t datum(const struct buf *b)
{
    return (gnutls_datum_t){.data = (unsigned char *)(uintptr_t)buf_str(b), .size = (unsigned)b->len};
}

static int fill(gnutls_certificate_credentials_t c, const struct httpd_tls_files *f,
                const struct httpd_options *o, struct err *e)
{
    gnutls_datum_t cert = datum(&f->cert), key = datum(&f->key), ca = datum(&f->client_ca);
    int r = gnutls_certificate_set_x509_key_mem(c, &cert, &key, GNUTLS_X509_FMT_PEM);
    if (r < 0)
        return err_set(e, ERR_INVALID, "'%s' and '%s': %s", o->tls_cert, o->tls_key, gnutls_strerror(r));
    r = o->tls_client_ca ? gnutls_certificate_set_x509_trust_mem(c, &ca, GNUTLS_X509_FMT_PEM) : 1;
    if (r <= 0)
        return err_set(e, ERR_INVALID, "'%s' holds no certificate (PEM)", o->tls_client_ca);
    return 0;
}

static int make(const struct httpd_tls_files *f, const struct httpd_options *o, struct httpd_tls **ret,
                struct err *e)
{
    struct httpd_tls *t = mem_new(struct httpd_tls);
    atomic_init(&t->refs, 1);
    if (fault_hit() || gnutls_certificate_allocate_credentials(&t->credentials) < 0) {
        mem_free(t);
        return err_set(e, ERR_NOMEM, "out of memory for certificates");
    }
    int r = fill(t->credentials, f, o, e);
    if (r < 0)
        httpd_tls_unref_(t);
    else
        *ret = t;
    return r;
}

int httpd_reload_tls(struct httpd *h, struct err *e)
{
    struct httpd_tls_files files = {0};
    struct httpd_tls *next = NULL;
    if (!h->o.tls_cert)
        return 0;
    int r = httpd_tls_files_read_(&files, &h->o, e);
    if (r == 0)
        r = make(&files, &h->o, &next, e);
    httpd_tls_files_fini_(&files);
    if (r < 0)
        return err_wrap(e, "read the certificate of '%s' again", h->listener.address);
    pthread_mutex_lock(&h->lock);
    struct httpd_tls *before = h->tls;
    h->tls = next;
    pthread_mutex_unlock(&h->lock);
    httpd_tls_unref_(before);
    return 0;
}

int httpd_look_tls(struct httpd *h, bool *ret_changed, struct err *e)
{
    uint64_t stamp =
        httpd_tls_stamp_(&h->o); /* before the reading: a change in between is seen at the next look */
    *ret_changed = stamp != h->tls_stamp;
    int rc = *ret_changed ? httpd_reload_tls(h, e) : 0;
    if (rc == 0 || rc == -ERR_INVALID)
        h->tls_stamp = stamp;
    return rc;
}

struct httpd_tls *httpd_tls_attach_(struct httpd *h, struct MHD_Connection *mhd)
{
    pthread_mutex_lock(&h->lock);
    struct httpd_tls *t = h->tls;
    if (t)
        atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&h->lock);
    const union MHD_ConnectionInfo *info =
        t ? MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION) : NULL;
    if (info && gnutls_credentials_set((gnutls_session_t)info->tls_session, GNUTLS_CRD_CERTIFICATE,
                                       t->credentials) == 0)
        return t;
    httpd_tls_unref_(t); /* those it was started with, then */
    return NULL;
}
