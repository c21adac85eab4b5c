#include "callback/fire_message.h"

#include <carillon/v1/callback.pb-c.h>

#include "agent/base/buf.h"
#include "agent/core/planner.h"

typedef Carillon__V1__FireRequest__LabelsEntry label_entry;

static Google__Protobuf__Timestamp timestamp(int64_t ms)
{
    Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    t.seconds = ms / 1000;
    t.nanos = (int32_t)(ms % 1000) * 1000000;
    return t;
}

static void add_labels(const struct job_spec *spec, label_entry entries[JOB_LABELS_MAX],
                       label_entry *pointers[JOB_LABELS_MAX], Carillon__V1__FireRequest *m)
{
    for (size_t i = 0; i < spec->labels_count && i < JOB_LABELS_MAX; i++) {
        entries[i] = (label_entry)CARILLON__V1__FIRE_REQUEST__LABELS_ENTRY__INIT;
        entries[i].key =
            (char *)spec->labels[i].name; /* generated code knows no const, and changes nothing */
        entries[i].value = (char *)spec->labels[i].value;
        pointers[m->n_labels++] = &entries[i];
    }
    m->labels = pointers;
}

static void append(const Carillon__V1__FireRequest *m, struct buf *out)
{
    size_t bytes = carillon__v1__fire_request__get_packed_size(m);
    char *to = bytes > 0 ? buf_reserve(out, bytes) : NULL;
    if (to)
        buf_commit(out, carillon__v1__fire_request__pack(m, (uint8_t *)to));
}

int fire_message_encode(const struct delivery *d, int64_t deadline_ms, struct buf *out, struct err *e)
{
    const struct job_spec *spec = d->spec;
    label_entry entries[JOB_LABELS_MAX], *pointers[JOB_LABELS_MAX];
    Google__Protobuf__Timestamp due = timestamp(d->due_ms), deadline = timestamp(deadline_ms);
    Carillon__V1__FireRequest m = CARILLON__V1__FIRE_REQUEST__INIT;
    char fire[56];
    fire_id_print(&d->uid, d->seq, fire);
    m.job = (char *)spec->id; /* as above */
    m.namespace_ = (char *)spec->ns;
    m.fire = fire;
    m.seq = d->seq;
    m.due = &due;
    m.attempt = d->attempt;
    m.epoch = d->epoch;
    m.deadline = &deadline;
    if (d->payload) {
        m.payload = (ProtobufCBinaryData){.data = (uint8_t *)d->payload, .len = d->payload_bytes};
        m.content_type = (char *)d->content_type;
    }
    add_labels(spec, entries, pointers, &m);
    append(&m, out);
    return buf_check(out, e);
}

int fire_message_payload(const void *message, size_t bytes, struct buf *out, struct err *e)
{
    Carillon__V1__FireRequest *m = carillon__v1__fire_request__unpack(NULL, bytes, message);
    if (!m)
        return err_set(e, ERR_INVALID, "not a carillon.v1.FireRequest");
    buf_add(out, m->payload.data, m->payload.len);
    carillon__v1__fire_request__free_unpacked(m, NULL);
    return buf_check(out, e);
}
