/* One option's value: reading it from text into its field, freeing, comparing. Behind option.c. */
#ifndef CARILLON_BASE_OPTION_VALUE_H
#define CARILLON_BASE_OPTION_VALUE_H

#include "agent/base/option.h"

/* The field of ROW in BASE. */
static inline void *option_field(const struct option_row *row, const void *base)
{
    return (char *)(uintptr_t)base + row->offset;
}

static inline bool option_is_list(const struct option_row *row)
{
    return row->type == OPTION_STRING_LIST || row->type == OPTION_LISTEN_LIST;
}

/* Read TEXT as --set gives it and replace the field's value. ERR_INVALID (what is wrong and what is allowed),
 * ERR_NOMEM: the field is unchanged. */
int option_value_set(const struct option_row *row, void *base, const char *text, size_t len, struct err *e);

/* The same for the items of a list, given one by one. */
int option_value_set_items(const struct option_row *row, void *base, const char *const *items, size_t count,
                           struct err *e);

/* Whether one item of a list would be taken. ERR_INVALID (what is wrong and what is allowed), ERR_NOMEM. */
int option_value_check_item(const struct option_row *row, const char *text, size_t len, struct err *e);

/* The row's default, or zero. ERR_NOMEM; a default that its own row refuses is a defect and aborts. */
int option_value_default(const struct option_row *row, void *base, struct err *e);

/* Free and zero the field. */
void option_value_fini(const struct option_row *row, void *base);

#endif
