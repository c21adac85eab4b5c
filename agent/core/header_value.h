/* The value of a job's header as its user writes it: text, with the names of secrets in it. "Bearer ${secret:token}" is sent with
 * what the secret holds; "$${" is a plain "${". Any thread. */
#ifndef CARILLON_CORE_HEADER_VALUE_H
#define CARILLON_CORE_HEADER_VALUE_H

#include <stdbool.h>
#include <stddef.h>

enum header_piece_kind {
    HEADER_PIECE_END,
    HEADER_PIECE_TEXT,   /* to be sent as it is */
    HEADER_PIECE_SECRET, /* the secret's name, which header_secret_name_ok() */
    HEADER_PIECE_BROKEN  /* a "${" that begins no secret */
};

struct header_piece {
    enum header_piece_kind kind;
    const char *text; /* in the value */
    size_t len;
};

/* The piece at *AT, which is moved behind it: for (p = value; (piece = header_value_next(&p)).kind != HEADER_PIECE_END;). A
 * broken piece holds the rest of the value. */
struct header_piece header_value_next(const char **at);

/* Whether NAME may name a secret: 1 to HEADER_SECRET_NAME_MAX of [A-Za-z0-9._-], neither "." nor beginning with "..". So it is a
 * file's name that leads nowhere else, and none that Kubernetes keeps for itself in a mounted folder. */
#define HEADER_SECRET_NAME_MAX 128
bool header_secret_name_ok(const char *name, size_t len);

#endif
