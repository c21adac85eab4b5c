/* What the plain reader reads is what jansson reads. Reading, printing, merging: what is read prints, what is printed reads back equal. The first half of the input is a
 * target, the second a patch, when both are JSON. */
#include <stdint.h>
#include <stdlib.h>

#include "agent/base/json.h"
#include "agent/base/json_plain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

static void round_trip(const json_t *v)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(16 << 20);
    AUTO(json_decref) json_t *back = NULL;
    check(json_print(v, &out, NULL) == 0);
    check(json_read(buf_str(&out), out.len, out.len, &back, NULL) == 0);
    check(json_equal(v, back));
}

static void fields(const json_t *v)
{
    AUTO(problems_fini) struct problems p = {0};
    const char *s, **list = NULL;
    uint64_t ms;
    int64_t at_ms;
    size_t n;
    (void)json_field_string(v, "a", 1, 10, &s, NULL, NULL, &p);
    (void)json_field_duration_ms(v, "a", 0, 1000, &ms, NULL, &p);
    (void)json_field_instant_ms(v, "b", &at_ms, NULL, &p);
    if (json_field_strings(v, "b", 4, 10, &list, &n, NULL, &p))
        mem_free(list);
    json_unknown_fields(v, (const char *const[]){"a", "b", NULL}, NULL, &p);
    for (size_t i = 0; i < p.count; i++) {
        AUTO(json_decref) json_t *text = json_string(p.items[i].detail);
        AUTO(json_decref) json_t *pointer = json_string(p.items[i].pointer);
        check(text && pointer); /* problems are answered as JSON */
    }
}

static void plain(const char *text, size_t size)
{
    AUTO(json_decref) json_t *ours = json_plain_read(text, size);
    if (!ours)
        return;
    AUTO(json_decref)
    json_t *theirs = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    check(theirs && json_equal(ours, theirs));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    plain(text, size);
    AUTO(json_decref) json_t *v = NULL;
    struct err e;
    if (json_read(text, size, 1 << 20, &v, &e) == 0) {
        round_trip(v);
        fields(v);
    }
    AUTO(json_decref) json_t *target = NULL;
    AUTO(json_decref) json_t *patch = NULL;
    AUTO(json_decref) json_t *merged = NULL;
    if (json_read(text, size / 2, 1 << 20, &target, NULL) == 0 &&
        json_read(text + size / 2, size - size / 2, 1 << 20, &patch, NULL) == 0) {
        check(json_merge_patch(target, patch, &merged, NULL) == 0);
        round_trip(merged);
    }
    AUTO(buf_fini) struct buf out = BUF_INIT(16 << 20);
    AUTO(json_decref) json_t *quoted = NULL;
    json_print_string(&out, text, size);
    check(json_read(buf_str(&out), out.len, out.len, &quoted, NULL) == 0);
    return 0;
}
