/* What a request filters by, as the store takes it. */
#include <string.h>

#include "agent/api/api_private.h"

void api_filter_set(const struct api_request *rq, struct api_filter *f)
{
    memset(f, 0, sizeof(*f));
    for (size_t i = 0; i < rq->labels_count; i++) {
        f->names[i] = rq->labels[i].name;
        f->values[i] = rq->labels[i].value;
    }
    f->filter = (struct store_filter){.ns = rq->ns_all ? NULL : rq->ns,
                                      .prefix = rq->prefix[0] ? rq->prefix : NULL,
                                      .label_names = f->names,
                                      .label_values = f->values,
                                      .labels_count = rq->labels_count,
                                      .state = rq->state,
                                      .last_outcome = rq->last_outcome,
                                      .after_ns = rq->has_cursor ? rq->after_ns : NULL,
                                      .after_id = rq->has_cursor ? rq->after_id : NULL,
                                      .limit = rq->limit};
}

void api_fire_filter_set(const struct api_request *rq, struct api_fire_filter *f)
{
    memset(f, 0, sizeof(*f));
    for (size_t i = 0; i < rq->labels_count; i++) {
        f->names[i] = rq->labels[i].name;
        f->values[i] = rq->labels[i].value;
    }
    f->filter = (struct store_fire_filter){.ns = rq->ns,
                                           .job = rq->job[0] ? rq->job : NULL,
                                           .prefix = rq->prefix[0] ? rq->prefix : NULL,
                                           .service = rq->service[0] ? rq->service : NULL,
                                           .label_names = f->names,
                                           .label_values = f->values,
                                           .labels_count = rq->labels_count,
                                           .outcome = rq->outcome,
                                           .from_ms = rq->from_ms,
                                           .until_ms = rq->to_ms,
                                           .limit = rq->limit};
    if (rq->has_cursor && !rq->fires_after.in_rings)
        f->filter.after = (struct store_fire_place){.set = true,
                                                    .due_ms = rq->fires_after.due_ms,
                                                    .uid = rq->fires_after.uid,
                                                    .seq = rq->fires_after.seq};
}
