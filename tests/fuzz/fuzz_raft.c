/* What the Raft-log store reads back from its folder: the first byte says whether the rest are the commands of a log entry or a snapshot.
 * Checksums are put right first, as chance never would. Whatever is taken leaves the state machine in order, and its
 * snapshot reads back to the same. */
#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/mem.h"
#include "agent/store/raft/entry.h"
#include "agent/store/raft/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void apply(struct machine *m, struct buf *entry)
{
    struct err e;
    int r = entry_end(entry, &e);
    assert(r == 0);
    r = machine_apply(m, entry->data, entry->len, NULL, NULL, &e);
    assert(r == 0);
}

/* A store that somebody joined. */
static struct machine *made(void)
{
    struct machine *m = machine_new();
    AUTO(buf_fini) struct buf entry = BUF_INIT(10000), command = BUF_INIT(10000);
    struct store_meta meta = {.slots = 16, .created_ms = 1000, .schema = 1, .cluster = "c"};
    struct store_member me = {.id = "m1", .name = "m"};
    entry_begin(&entry, 1, 1);
    command_put_make(&command, &meta);
    entry_add(&entry, COMMAND_MAKE, &command);
    buf_reset(&command);
    command_put_join(&command, &me, true, 1000);
    entry_add(&entry, COMMAND_JOIN, &command);
    apply(m, &entry);
    return m;
}

static void same_counts(const struct machine *a, const struct machine *b)
{
    struct machine_counts x, y;
    machine_count(a, &x);
    machine_count(b, &y);
    assert(memcmp(&x, &y, sizeof(x)) == 0);
    assert(machine_seq(a) == machine_seq(b));
}

static void snapshot_reads_back(struct machine *m)
{
    struct machine *back = machine_new();
    struct machine_buffer *buffers;
    size_t count;
    struct err e;
    AUTO(buf_fini) struct buf all = BUF_INIT((size_t)1 << 24);
    machine_snapshot_begin(m);
    while (!machine_snapshot_step(m, 1))
        ;
    machine_snapshot_end(m, &buffers, &count);
    for (size_t i = 0; i < count; i++) {
        buf_add(&all, buffers[i].data, buffers[i].bytes);
        mem_free(buffers[i].data);
    }
    mem_free(buffers);
    int r = buf_failed(&all) ? -1 : machine_restore(back, all.data, all.len, &e);
    assert(r == 0 || buf_failed(&all));
    if (r == 0) {
        machine_validate(back);
        same_counts(m, back);
    }
    machine_free(back);
}

static void commands(const uint8_t *data, size_t size)
{
    struct machine *m = made();
    AUTO(buf_fini) struct buf entry = BUF_INIT(size + 1000);
    struct err e;
    entry_begin(&entry, 2, 1);
    buf_add(&entry, data, size);
    int r = entry_end(&entry, &e);
    assert(r == 0);
    if (machine_apply(m, entry.data, entry.len, NULL, NULL, &e) == 0) {
        machine_validate(m);
        snapshot_reads_back(m);
    }
    machine_free(m);
}

static void snapshot(const uint8_t *data, size_t size)
{
    struct machine *m = machine_new();
    uint8_t *copy = mem_try_alloc(size, NULL);
    struct err e;
    if (!copy)
        return;
    memcpy(copy, data, size);
    for (size_t at = 0; size - at >= 24;) { /* the checksum of each block */
        uint64_t body, sum;
        memcpy(&body, copy + at + 8, 8);
        if (body > size - at - 24)
            break;
        sum = XXH3_64bits(copy + at + 24, body);
        memcpy(copy + at + 16, &sum, 8);
        at += 24 + body;
    }
    if (machine_restore(m, copy, size, &e) == 0) {
        machine_validate(m);
        snapshot_reads_back(m);
    }
    mem_free(copy);
    machine_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] % 2 == 0)
        commands(data + 1, size - 1);
    else if (size > 0)
        snapshot(data + 1, size - 1);
    return 0;
}
