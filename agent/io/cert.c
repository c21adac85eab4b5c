#include "agent/io/cert.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <time.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/io/file.h"

#define CERT_BYTES_MAX ((size_t)1 << 20)

static int expiry_of(const X509 *cert, const char *path, int64_t *ret_s, struct err *e)
{
    struct tm tm;
    if (!ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm))
        return err_set(e, ERR_INVALID, "'%s': the certificate's end is no time", path);
    *ret_s = timegm(&tm);
    return 0;
}

int cert_expiry_s(const char *path, int64_t *ret_s, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(CERT_BYTES_MAX);
    int rc = file_read(path, &text, e);
    if (rc < 0)
        return rc;
    BIO *bio = BIO_new_mem_buf(buf_str(&text), (int)text.len); /* at most 1 MiB */
    X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    if (!cert)
        return err_set(e, ERR_INVALID, "'%s' holds no certificate (PEM)", path);
    rc = expiry_of(cert, path, ret_s, e);
    X509_free(cert);
    return rc;
}
