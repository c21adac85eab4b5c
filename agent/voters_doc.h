/* The document of core/voters as Consul keeps it: JSON. Any thread. */
#ifndef CARILLON_AGENT_VOTERS_DOC_H
#define CARILLON_AGENT_VOTERS_DOC_H

#include <stddef.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/core/voters.h"

#define VOTERS_DOC_MAX ((size_t)64 << 10)

/* ERR_INVALID: it makes no sense, or a newer carillon wrote it; the text says which. ERR_NOMEM. RET is untouched then. */
int voters_doc_parse(const char *text, size_t bytes, struct voters_doc *ret, struct err *e);
/* ERR_NOMEM. */
int voters_doc_print(const struct voters_doc *doc, struct buf *out, struct err *e);

#endif
