/* Texts that hold nothing unusual, read in a third of jansson's time: no escape in a string, no number with an exponent or with more
 * digits than a double holds exactly. Whatever is wrong or unusual is jansson's to tell about. Any thread. */
#ifndef CARILLON_BASE_JSON_PLAIN_H
#define CARILLON_BASE_JSON_PLAIN_H

#include "agent/base/json.h"

/* The value of TEXT, exactly as json_read() without this would give it, as a new reference. NULL: it is not plain, or broken, or
 * memory is out; then nothing is known of it. */
json_t *json_plain_read(const char *text, size_t len);

#endif
