/* How the members of the log's cluster prove to each other who they are: TLS 1.3 both ways. With certificates, theirs must be of the
 * cluster's authority, and with a secret as well each side also shows it, bound to the connection. With a secret alone it
 * is the pre-shared key of the connection (psk_dhe_ke): then traffic is encrypted too, and no handshake of our own is needed.
 * With neither, nothing is proved. The certificate of whoever is dialled is for the cluster's one name, or for the host that was dialled
 * when there is none; whoever dials shows that name too, if there is one. Files that change are read again for the next connection.
 * Made before any thread; from then on the log's thread alone. */
#ifndef CARILLON_STORE_RAFT_WIRE_TLS_H
#define CARILLON_STORE_RAFT_WIRE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/mem.h"

struct err;
struct ssl_st;
struct wire_tls;

#define WIRE_PROOF_BYTES 32

struct wire_tls_options {
    const char *cluster; /* a secret that several clusters share still keeps them apart */
    const void *secret;  /* NULL: none */
    size_t secret_bytes;
    const char *ca_file, *cert_file, *key_file; /* all or none; copied */
    const char *server_name;                    /* that stands in all certificates; copied; NULL: none */
};

/* *RET is NULL when there is nothing to prove with. ERR_INVALID: a file that OpenSSL does not take; ERR_NOMEM. */
int wire_tls_new(const struct wire_tls_options *options, struct wire_tls **ret, struct err *e);
void wire_tls_free(struct wire_tls *t);
DEFINE_AUTO(wire_tls_free, struct wire_tls *);

/* A side of a new connection, for SSL_free(); HOST is dialled, NULL: the other side dials. NULL: no memory. */
struct ssl_st *wire_tls_side(struct wire_tls *t, const char *host);
/* Whether more than the handshake has to be shown: certificates and a secret. */
bool wire_tls_wants_proof(const struct wire_tls *t);
/* What the side that ACCEPTS, or the other, shows once the handshake is over. ERR_NOMEM. */
int wire_tls_proof(const struct wire_tls *t, struct ssl_st *ssl, bool accepts, uint8_t ret[WIRE_PROOF_BYTES],
                   struct err *e);

#endif
