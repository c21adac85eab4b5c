#include <criterion/criterion.h>

#define contract_fail(file, line, what, ...) cr_assert_fail("%s:%d: %s", (file), (line), (what))

#include "agent/store/raft/pack.h"
#include "tests/unit/store/store_contract.h"

static const char *const jobs[] = {"", "\"labels\":{\"a\":\"b\",\"team\":\"\"},\"payload\":{\"invoice\":42}",
                                   "\"payload\":\"\"", "\"payload_base64\":\"AAEC/w==\"",
                                   "\"description\":\"\xc3\xa9\",\"delivery\":\"at_most_once\""};
#define JOBS (sizeof(jobs) / sizeof(jobs[0]))

Test(pack, any_definition_reads_back)
{
    for (size_t i = 0; i < JOBS; i++) {
        struct job_spec *spec = contract_spec("default", "invoice-1042", jobs[i]), *back = NULL;
        struct buf b = BUF_INIT(100000);
        struct pack_labels labels;
        struct err e = {0};
        cr_assert_eq(pack_spec(spec, &b, &e), 0, "%s", e.text);
        cr_assert_eq(pack_read(b.data, b.len, &back, &e), 0, "%s", e.text);
        cr_assert(job_spec_equal(spec, back), "%s", jobs[i]);
        cr_assert(pack_labels(b.data, b.len, &labels));
        cr_assert_eq(labels.count, spec->labels_count);
        for (size_t k = 0; k < labels.count; k++) {
            const char *name, *value;
            pack_labels_next(&labels, &name, &value);
            cr_assert_str_eq(name, spec->labels[k].name);
            cr_assert_str_eq(value, spec->labels[k].value);
        }
        size_t bytes;
        (void)job_spec_definition(spec, &bytes);
        cr_assert_eq(pack_text_bytes(b.data, b.len), bytes + spec->payload_bytes);
        job_spec_unref(spec);
        job_spec_unref(back);
        buf_fini(&b);
    }
}

Test(pack, a_usual_definition_takes_a_third)
{
    struct job_spec *spec = contract_spec("default", "invoice-1042", "");
    struct buf b = BUF_INIT(100000);
    size_t bytes;
    (void)job_spec_definition(spec, &bytes);
    cr_assert_eq(pack_spec(spec, &b, NULL), 0);
    cr_assert_lt(b.len, bytes / 3, "%zu of %zu bytes", b.len, bytes);
    job_spec_unref(spec);
    buf_fini(&b);
}

Test(pack, a_definition_alone_has_neither_payload_nor_labels)
{
    struct job_spec *spec = contract_spec("default", "a", jobs[1]);
    struct buf b = BUF_INIT(100000);
    struct pack_text text;
    struct pack_labels labels;
    size_t bytes;
    const char *definition = job_spec_definition(spec, &bytes);
    cr_assert_eq(pack_definition(spec, &b, NULL), 0);
    cr_assert_eq(pack_text(b.data, b.len, &text, NULL), 0);
    cr_assert(text.definition_bytes == bytes && memcmp(text.definition, definition, bytes) == 0);
    cr_assert_null(text.payload);
    cr_assert(pack_labels(b.data, b.len, &labels) && labels.count == 0);
    mem_free(text.memory);
    job_spec_unref(spec);
    buf_fini(&b);
}

Test(pack, cut_bytes_are_refused)
{
    struct job_spec *spec = contract_spec("default", "a", jobs[1]);
    struct buf b = BUF_INIT(100000);
    cr_assert_eq(pack_spec(spec, &b, NULL), 0);
    for (size_t len = 0; len < b.len; len++) {
        struct pack_text text;
        cr_assert_eq(pack_text(b.data, len, &text, NULL), -ERR_PROTOCOL, "%zu of %zu", len, b.len);
    }
    job_spec_unref(spec);
    buf_fini(&b);
}
