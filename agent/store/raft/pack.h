/* A job's definition as the log, the memory and the snapshots hold it: labels in the clear, for the index; definition and payload
 * compressed, with a dictionary that knows what most definitions say. Packed once, by whoever proposes the change; the state
 * machine takes the bytes as they are. Pure; any thread. */
#ifndef CARILLON_STORE_RAFT_PACK_H
#define CARILLON_STORE_RAFT_PACK_H

#include <stdbool.h>
#include <stddef.h>

struct buf;
struct err;
struct job_spec;

/* Append SPEC to OUT, whose ceiling counts. ERR_NOMEM, ERR_TOO_BIG (never for a spec within its own limits). */
int pack_spec(const struct job_spec *spec, struct buf *out, struct err *e);
/* The same of its definition alone, without labels and payload: pack_text() reads it. */
int pack_definition(const struct job_spec *spec, struct buf *out, struct err *e);
/* Bytes of definition and payload once they are read; 0: these bytes are not a packed spec. */
size_t pack_text_bytes(const void *packed, size_t len);

/* The labels of PACKED, which stays borrowed. False: these bytes are not a packed spec. */
struct pack_labels {
    size_t count;
    const char *next; /* "name\0value\0" … */
};
bool pack_labels(const void *packed, size_t len, struct pack_labels *ret);
/* The next one; call it COUNT times. */
void pack_labels_next(struct pack_labels *l, const char **ret_name, const char **ret_value);

/* The spec, not bound to its zone. ERR_NOMEM, ERR_PROTOCOL (not what pack_spec writes), or why the definition cannot be read. */
int pack_read(const void *packed, size_t len, struct job_spec **ret, struct err *e);

/* Definition and payload as job_spec_decode() takes them, copied, to be freed with mem_free(ret->memory). Errors as pack_read. */
struct pack_text {
    char *memory;
    const char *definition;
    size_t definition_bytes;
    const char *payload; /* NULL: none */
    size_t payload_bytes;
};
int pack_text(const void *packed, size_t len, struct pack_text *ret, struct err *e);

#endif
