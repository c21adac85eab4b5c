#include <carillon/v1/callback.pb-c.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/base/err.h"
#include "agent/base/buf.h"
#include "callback/fire_message.h"
#include "tests/lib/callback_bed.h"

static struct job_spec spec;
static struct delivery delivery;

static void bed_begin(void)
{
    spec = bed_spec("billing", NULL);
    delivery = bed_delivery(&spec);
}

static Carillon__V1__FireRequest *encode_and_read(void)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(1 << 20);
    cr_assert(zero(int, fire_message_encode(&delivery, 1795420801250, &out, NULL)));
    Carillon__V1__FireRequest *m =
        carillon__v1__fire_request__unpack(NULL, out.len, (const uint8_t *)out.data);
    cr_assert(ne(ptr, m, NULL));
    return m;
}

Test(fire_message, says_all_about_the_fire, .init = bed_begin)
{
    static const struct job_pair labels[] = {{"env", "prod"}, {"team", "pay"}};
    spec.labels = labels;
    spec.labels_count = 2;
    delivery.payload = "\0\x01{}";
    delivery.payload_bytes = 4;
    Carillon__V1__FireRequest *m = encode_and_read();
    cr_assert(eq(str, m->job, "job-1"));
    cr_assert(eq(str, m->namespace_, "default"));
    cr_assert(eq(str, m->fire, "0005ab00000000000000000000000000.7"));
    cr_assert(eq(u64, m->seq, 7));
    cr_assert(eq(i64, m->due->seconds, 1795420800));
    cr_assert(zero(i32, m->due->nanos));
    cr_assert(eq(u32, m->attempt, 1));
    cr_assert(eq(u64, m->epoch, 3));
    cr_assert(eq(i64, m->deadline->seconds, 1795420801));
    cr_assert(eq(i32, m->deadline->nanos, 250000000));
    cr_assert(eq(sz, m->payload.len, 4));
    cr_assert(zero(int, memcmp(m->payload.data, "\0\x01{}", 4)));
    cr_assert(eq(str, m->content_type, "application/json"));
    cr_assert(eq(sz, m->n_labels, 2));
    cr_assert(eq(str, m->labels[1]->key, "team"));
    cr_assert(eq(str, m->labels[1]->value, "pay"));
    carillon__v1__fire_request__free_unpacked(m, NULL);
}

Test(fire_message, without_payload_has_no_content_type, .init = bed_begin)
{
    Carillon__V1__FireRequest *m = encode_and_read();
    cr_assert(zero(sz, m->payload.len));
    cr_assert(eq(str, m->content_type, ""));
    carillon__v1__fire_request__free_unpacked(m, NULL);
}

Test(fire_message, one_that_does_not_fit_is_too_big, .init = bed_begin)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(16);
    cr_assert(eq(int, fire_message_encode(&delivery, 0, &out, NULL), -ERR_TOO_BIG));
}

Test(fire_message, its_payload_is_found_again, .init = bed_begin)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(1 << 20), payload = BUF_INIT(1 << 20);
    delivery.payload = "abc";
    delivery.payload_bytes = 3;
    cr_assert(zero(int, fire_message_encode(&delivery, 0, &out, NULL)));
    cr_assert(zero(int, fire_message_payload(out.data, out.len, &payload, NULL)));
    cr_assert(eq(str, (char *)buf_str(&payload), "abc"));
    cr_assert(eq(int, fire_message_payload("\xff\xff\xff", 3, &payload, NULL), -ERR_INVALID));
}

Test(fire_message, writing_and_reading_survive_the_loss_of_any_allocation, .init = bed_begin)
{
    static const struct job_pair labels[] = {{"env", "prod"}, {"team", "pay"}};
    AUTO(buf_fini) struct buf whole = BUF_INIT(1 << 20);
    spec.labels = labels;
    spec.labels_count = 2;
    delivery.payload = "abc";
    delivery.payload_bytes = 3;
    cr_assert(zero(int, fire_message_encode(&delivery, 0, &whole, NULL)));
    for (unsigned k = 0;; k++) {
        AUTO(buf_fini) struct buf out = BUF_INIT(1 << 20), payload = BUF_INIT(1 << 20);
        fault_arm(k);
        int rc = fire_message_encode(&delivery, 0, &out, NULL);
        if (rc == 0)
            rc = fire_message_payload(whole.data, whole.len, &payload, NULL);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            cr_assert(eq(str, (char *)buf_str(&payload), "abc"));
            cr_assert(gt(uint, k, 0));
            break;
        }
        cr_assert(eq(int, rc, -ERR_NOMEM), "k=%u", k);
    }
}
