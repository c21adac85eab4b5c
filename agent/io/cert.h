/* What a certificate says about itself. */
#ifndef CARILLON_IO_CERT_H
#define CARILLON_IO_CERT_H

#include <stdint.h>

struct err;

/* When the first certificate of the PEM file at PATH ends to be valid, as seconds since 1970. Blocks while it reads. Any thread.
 * ERR_INVALID: no certificate in it; and the errors of file_read(). */
int cert_expiry_s(const char *path, int64_t *ret_s, struct err *e);

#endif
