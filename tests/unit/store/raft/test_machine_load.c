#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/machine_private.h"
#include "agent/store/raft/snapshot_out.h"
#include "agent/store/store_version.h"
#include "tests/lib/seed.h"

/* Names that begin alike, and that end where others go on; in their order. */
static const char *const words[] = {"a",         "a-",       "a-1",       "aa",        "default",
                                    "default-b", "pay",      "payment",   "payments",  "payments-of-b",
                                    "z",         "zzzzzzzz", "zzzzzzzza", "zzzzzzzzb", "zzzzzzzzzzzzzzzzz"};
#define WORDS (sizeof(words) / sizeof(words[0]))

static const char *word(struct rng *rng)
{
    return words[rng_below(rng, WORDS)];
}

static struct uid uid_of(struct rng *rng)
{
    struct uid uid;
    for (size_t i = 0; i < sizeof(uid.bytes); i++)
        uid.bytes[i] = (uint8_t)(i < 8 ? rng_below(rng, 2) : rng_below(rng, 256)); /* many begin alike */
    return uid;
}

static int64_t instant(struct rng *rng)
{
    static const int64_t some[] = {RECORD_NONE, -1, 0, 1, 255, 256, 1795471975006, INT64_MAX};
    return some[rng_below(rng, sizeof(some) / sizeof(some[0]))];
}

/* As pack_spec() writes it, with no text. */
static struct machine_blob *spec_of(struct machine *m, struct rng *rng)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(4096);
    size_t n = (size_t)rng_below(rng, 4), first = (size_t)rng_below(rng, WORDS - 4);
    codec_put_u64(&b, n);
    for (size_t i = 0; i < n; i++) {
        buf_add(&b, words[first + i], strlen(words[first + i]) + 1);
        const char *value = word(rng);
        buf_add(&b, value, strlen(value) + 1);
    }
    for (int i = 0; i < 3; i++)
        codec_put_u64(&b, 0);
    return machine_blob_of(m, buf_str(&b), b.len);
}

static void add_job(struct machine *m, struct rng *rng)
{
    struct job_row row = {.uid = uid_of(rng), .slot = (uint16_t)rng_below(rng, 4), .wake_ms = instant(rng)};
    (void)snprintf(row.ns, sizeof(row.ns), "%s", word(rng));
    (void)snprintf(row.id, sizeof(row.id), "%s%s%d", word(rng), word(rng), (int)rng_below(rng, 300));
    if (!machine_job_by_uid(m, &row.uid) && !machine_job_by_name(m, row.ns, row.id))
        (void)machine_job_insert(m, &row, spec_of(m, rng)); /* it is in the indexes */
}

static void add_fire(struct machine *m, struct rng *rng)
{
    struct fire_row row = {.uid = uid_of(rng),
                           .slot = (uint16_t)rng_below(rng, 4),
                           .seq = rng_below(rng, 3),
                           .wake_ms = instant(rng),
                           .due_ms = instant(rng),
                           .state = rng_below(rng, 2) ? FIRE_STATE_ENDED : FIRE_STATE_WAITING,
                           .outcome = (enum fire_outcome)rng_below(rng, FIRE_OUTCOME_COUNT_)};
    (void)snprintf(row.ns, sizeof(row.ns), "%s", word(rng));
    (void)snprintf(row.id, sizeof(row.id), "%s", word(rng));
    if (!machine_fire_find(m, &row.uid, row.seq))
        machine_fire_insert(m, &row);
}

static void add_copy(struct machine *m, struct rng *rng)
{
    struct uid uid = uid_of(rng);
    if (!machine_copy_find(m, &uid, 1))
        machine_copy_insert(m, &uid, 1, spec_of(m, rng), instant(rng));
}

static void add_revision(struct machine *m, struct rng *rng)
{
    struct revision row = {.change_id = rng_below(rng, 100), .at_ms = instant(rng)};
    char id[RECORD_ID_MAX];
    (void)snprintf(id, sizeof(id), "%s%s", word(rng), word(rng));
    const char *ns = word(rng);
    if (!machine_revision_find(m, ns, id, row.change_id))
        machine_revision_insert(m, ns, id, &row, rng_below(rng, 2) ? spec_of(m, rng) : NULL);
}

static struct machine *machine_of(struct rng *rng, int rows)
{
    struct machine *m = machine_new();
    m->meta = (struct store_meta){.schema = STORE_VERSION, .slots = 4, .cluster = "c"};
    machine_slots_make(m, "me");
    for (int i = 0; i < rows; i++) {
        add_job(m, rng);
        add_fire(m, rng);
        add_copy(m, rng);
        add_revision(m, rng);
    }
    return m;
}

static void add_bytes(void *arg, void *data, size_t bytes)
{
    buf_add(arg, data, bytes);
    mem_free(data);
}

static void snapshot_of(struct machine *m, struct buf *ret)
{
    struct machine_buffer *list;
    size_t count;
    machine_snapshot_begin(m);
    while (!machine_snapshot_step(m, 100))
        ;
    machine_snapshot_end(m, &list, &count);
    for (size_t i = 0; i < count; i++)
        add_bytes(ret, list[i].data, list[i].bytes);
    mem_free(list);
}

static void check_restore(struct rng *rng, int rows)
{
    AUTO(buf_fini) struct buf first = BUF_INIT(64 << 20);
    AUTO(buf_fini) struct buf second = BUF_INIT(64 << 20);
    struct err e = {0};
    struct machine *m = machine_of(rng, rows), *back = machine_new();
    snapshot_of(m, &first);
    cr_assert_eq(machine_restore(back, buf_str(&first), first.len, &e), 0, "%s", e.text);
    machine_validate(back);
    snapshot_of(back, &second);
    cr_assert_eq(first.len, second.len);
    cr_assert_eq(memcmp(buf_str(&first), buf_str(&second), first.len), 0);
    machine_free(m);
    machine_free(back);
}

Test(machine_load, what_was_restored_has_all_its_indexes_in_order)
{
    struct rng rng;
    seed_rng(&rng, "machine_load");
    check_restore(&rng, 0);
    check_restore(&rng, 1);
    check_restore(&rng, 3000);
}

/* A snapshot that has a job, a fire, a copy and a revision, one of them twice. */
static int restore_twice(enum machine_kind twice, struct err *e)
{
    AUTO(buf_fini) struct buf bytes = BUF_INIT(1 << 20);
    struct uid uid = {{1}}, other = {{2}};
    struct revision revision = {.change_id = 7};
    struct snapshot_row row = {
        .ns = "n", .id = "i", .body = "\0", .body_bytes = 1, .spec = "\0\0\0\0", .spec_bytes = 4};
    struct store_meta meta = {.schema = STORE_VERSION, .slots = 4};
    struct snapshot_out out;
    snapshot_out_begin(&out, add_bytes, &bytes);
    snapshot_out_meta(&out, &meta, 1, 1);
    for (int i = 0; i < 2; i++) {
        row.uid = &uid;
        if (i == 0 || twice == MACHINE_FIRES)
            snapshot_out_fire(&out, &row);
        if (i == 0 || twice == MACHINE_COPIES)
            snapshot_out_copy(&out, &row);
        if (i == 0 || twice == MACHINE_REVISIONS)
            snapshot_out_revision(&out, "n", "i", &revision, NULL, 0);
        row.uid = i == 0 ? &uid : &other; /* the name twice */
        if (i == 0 || twice == MACHINE_JOBS)
            snapshot_out_job(&out, &row);
    }
    snapshot_out_end(&out);
    struct machine *m = machine_new();
    int r = machine_restore(m, buf_str(&bytes), bytes.len, e);
    machine_free(m);
    return r;
}

Test(machine_load, a_snapshot_with_a_row_twice_is_refused)
{
    static const enum machine_kind kinds[] = {MACHINE_JOBS, MACHINE_FIRES, MACHINE_COPIES, MACHINE_REVISIONS};
    struct err e = {0};
    cr_assert_eq(restore_twice(MACHINE_KIND_COUNT_, &e), 0, "%s", e.text);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        cr_assert_eq(restore_twice(kinds[i], &e), -ERR_PROTOCOL, "kind %d", (int)kinds[i]);
}
