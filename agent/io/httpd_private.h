/* What httpd.c (server), httpd_request.c and httpd_stream.c share. All of libmicrohttpd is driven by one
 * thread of ours, the server's thread: it accepts, so that connections over the limit get an answer, and it
 * keeps the time limits, which libmicrohttpd counts from the last byte. */
#ifndef CARILLON_IO_HTTPD_PRIVATE_H
#define CARILLON_IO_HTTPD_PRIVATE_H

#include "agent/base/list.h"
#include "agent/io/httpd.h"
#include "agent/io/listener.h"

#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

struct httpd_tls;

/* What the files of the options hold. */
struct httpd_tls_files {
    struct buf cert, key, client_ca;
};

struct httpd {
    atomic_uint refs; /* httpd_stop()'s caller, requests, streams */
    struct httpd_options o;
    struct httpd_tls_files files;
    uint64_t tls_stamp; /* httpd_look_tls()'s caller */
    struct listener listener;
    struct MHD_Daemon *daemon;
    struct MHD_Response *unavailable; /* 503, while stopping and without memory */
    pthread_t thread;
    int wake_fd;
    atomic_uint connections;
    char start_error[160]; /* libmicrohttpd's last message before the thread began */
    bool started;

    /* server's thread */
    struct list conns;
    struct list awaited; /* suspended requests whose reply is to come */
    struct list streams;
    uint64_t now_ms;
    uint64_t sweep_ms;        /* boot ms of the next look at the limits */
    uint64_t accept_again_ms; /* no file descriptors: accept nothing until then */
    size_t suspended;         /* connections suspended in libmicrohttpd */
    size_t requests;          /* between the first header and the end of the reply */
    bool stopping;
    bool handled; /* a request, since turned() ran */

    pthread_mutex_t lock; /* for what follows */
    struct list ready_requests;
    struct list ready_streams;
    bool quiesce_asked, stop_asked;
    bool woken;
    struct httpd_tls *tls; /* read again since the start; NULL: not yet */
};

struct httpd_conn {
    struct list link; /* in httpd.conns */
    struct httpd *h;
    int fd;
    uint64_t deadline_ms;     /* boot ms; 0: none */
    uint64_t silent_since_ms; /* boot ms; since then its client owes a request or its rest; 0: it does not */
    uint64_t closing_ms;      /* boot ms when it had to make room; 0: not */
    bool reads_body;          /* the rest of a request is awaited */
    bool ended;               /* but its client had ended at the last sweep, and nothing came since */
    bool cert_checked;
    struct httpd_tls *tls; /* a reference; NULL: those of the start */
    bool peer_known;
    struct httpd_peer peer;
};

enum request_state {
    RQ_READING,   /* the server's: head and body come in */
    RQ_HANDLING,  /* handle() runs */
    RQ_SUSPENDED, /* handle() returned, the reply is to come */
    RQ_REPLIED,   /* there is a response */
    RQ_ABANDONED, /* the server stopped first: the reply will be thrown away */
};

struct httpd_request {
    atomic_uint refs; /* libmicrohttpd's and the handler's */
    _Atomic enum request_state state;
    struct httpd *h;
    bool is_unix;

    /* as it came; not changed once accept() was called */
    struct buf head;  /* path, query, method, then name and value of each header, each with a NUL */
    struct buf query; /* decoded name and value, each with a NUL */
    size_t query_at, method_at, headers_at;
    struct buf body;
    void *user;
    void (*user_free)(void *user);

    /* set by the reply, before STATE becomes RQ_REPLIED */
    struct MHD_Response *response;
    struct httpd_stream *stream;
    unsigned status;
    uint64_t response_bytes;

    /* server's thread */
    struct list link;  /* in httpd.awaited */
    struct list ready; /* in httpd.ready_requests, under its lock */
    struct MHD_Connection *mhd;
    struct httpd_conn *conn;
    const char *uri_seen; /* libmicrohttpd's own memory, only compared */
    size_t uri_len;
    bool begun;
    bool handed_over; /* the handler's reference is the handler's */
    bool too_large;
    bool starved; /* there was no memory for its body */
    uint64_t body_max, dropped;
};

struct httpd_stream {
    atomic_uint refs; /* writer, response, request */
    struct httpd *h;
    struct MHD_Connection *mhd; /* server's thread */
    struct list link;           /* in httpd.streams; server's thread */
    struct list ready;          /* in httpd.ready_streams, under its lock */

    pthread_mutex_t lock; /* recursive: ROOM may write; for what follows */
    struct buf out;
    bool sleeping; /* suspended until there is more */
    bool busy;     /* a write was refused */
    bool ended, gone;
    void (*room)(void *arg);
    void *room_arg;
};

/* httpd.c */
void httpd_ref_(struct httpd *h);
void httpd_unref_(struct httpd *h);
/* Called with the lock held. */
void httpd_wake_(struct httpd *h);
/* The moment ALLOWED_MS after now, at which the sweep closes the connection; moved by every phase of a
 * request. */
void httpd_limit_(struct httpd_conn *conn, uint64_t more_ms);
void httpd_resume_(struct httpd *h, struct MHD_Connection *mhd);
void httpd_suspend_(struct httpd *h, struct MHD_Connection *mhd);

/* httpd_request.c: libmicrohttpd's callbacks */
void *httpd_on_uri_(void *h, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result httpd_on_request_(void *h, struct MHD_Connection *mhd, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_bytes, void **slot);
void httpd_on_completed_(void *h, struct MHD_Connection *mhd, void **slot,
                         enum MHD_RequestTerminationCode code);
/* Give RQ its response (takes it; NULL closes the connection) and the handler's reference back. */
void httpd_respond_(struct httpd_request *rq, int status, struct MHD_Response *response, uint64_t bytes);
/* A problem document that takes none of our memory; NULL: libmicrohttpd had none. */
struct MHD_Response *httpd_unavailable_new_(void);
void httpd_add_headers_(struct MHD_Response *response, const struct httpd_header *headers, size_t count);
/* The server stops: answer RQ, which is suspended, by itself. */
void httpd_abandon_(struct httpd_request *rq);

/* httpd_tls.c */
/* F is for httpd_tls_files_fini_() also after a failure. */
int httpd_tls_files_read_(struct httpd_tls_files *f, const struct httpd_options *o, struct err *e);
void httpd_tls_files_fini_(struct httpd_tls_files *f);
uint64_t httpd_tls_stamp_(const struct httpd_options *o);
/* Give a new connection the present certificates. A reference for the connection; NULL: it has those of the start. */
struct httpd_tls *httpd_tls_attach_(struct httpd *h, struct MHD_Connection *mhd);
void httpd_tls_unref_(struct httpd_tls *t); /* NULL does nothing */

/* httpd_stream.c, server's thread */
void httpd_stream_attach_(struct httpd_stream *s, struct MHD_Connection *mhd);
/* The connection is done with, well or not. */
void httpd_stream_gone_(struct httpd_stream *s);
/* Break off: a sleeping one is woken and then ends with an error. */
void httpd_stream_abort_(struct httpd_stream *s);
/* Look whether the client of a sleeping one has gone. */
void httpd_stream_probe_(struct httpd_stream *s);
void httpd_stream_unref_(struct httpd_stream *s);

#endif
