/* A source that holds one record of every sort, in memory, for copies into any store: of it tests make the stores that they copy from.
 * Before including, define contract_fail() as for tests/unit/store/store_contract.h. */
#ifndef CARILLON_TESTS_DUMP_BED_H
#define CARILLON_TESTS_DUMP_BED_H

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/store/dump/dump.h"
#include "tests/unit/store/store_contract.h"

#define DUMP_BED_CLUSTER "test"
enum { DUMP_BED_JOBS = 2, DUMP_BED_MAX = CONTRACT_SLOTS + 16 };

struct dump_bed {
    struct dump_place place; /* what dump_copy() takes */
    struct job_spec *specs[DUMP_BED_JOBS];
    struct dump_record records[DUMP_BED_MAX];
    size_t count, next;
};

/* --- the records, in their order ------------------------------------------------------------------------------------ */

static inline struct dump_record *dump_bed_add(struct dump_bed *b, enum dump_kind kind)
{
    struct dump_record *r = &b->records[b->count++];
    CHECK(b->count <= DUMP_BED_MAX, "%s", "too many records");
    r->kind = kind;
    return r;
}

static inline struct dump_text dump_bed_text(const struct job_spec *spec)
{
    struct dump_text t = {.payload = spec->payload, .payload_bytes = spec->payload_bytes};
    t.definition = job_spec_definition(spec, &t.definition_bytes);
    return t;
}

static inline void dump_bed_add_members(struct dump_bed *b)
{
    for (unsigned i = 0; i < 2; i++) {
        struct dump_record *r = dump_bed_add(b, DUMP_MEMBER);
        r->member.row = (struct store_member){
            .address = "127.0.0.1:7421", .name = "pod", .zone = "z", .weight = 3, .dead = true};
        (void)snprintf(r->member.row.id, sizeof(r->member.row.id), "m%u", i);
        r->member.died_ms = CONTRACT_NOW + i;
    }
    for (uint16_t i = 0; i < CONTRACT_SLOTS; i++) {
        struct store_slot *slot = &dump_bed_add(b, DUMP_SLOT)->slot;
        *slot = (struct store_slot){.slot = i, .epoch = UINT64_C(1795424400) + i / 32, .owner = "m0"};
    }
}

static inline void dump_bed_add_fire(struct dump_bed *b, uint64_t seq, enum fire_state state)
{
    struct fire_row *row = &dump_bed_add(b, DUMP_FIRE)->fire;
    *row = contract_fire(&b->records[CONTRACT_SLOTS + 3].job.row.uid, seq);
    (void)snprintf(row->id, sizeof(row->id), "j0");
    row->state = state;
    row->log = "[{}]";
    row->log_bytes = 4;
    row->trace = "00-1-2-3 a=b";
    row->trace_bytes = 12;
    if (state == FIRE_STATE_ENDED) {
        row->outcome = FIRE_OUTCOME_DEAD;
        row->finished_ms = CONTRACT_NOW;
    }
}

static inline void dump_bed_add_revision(struct dump_bed *b, uint64_t change_id, const struct job_spec *was)
{
    struct dump_record *r = dump_bed_add(b, DUMP_REVISION);
    r->revision.row = (struct revision){.change_id = change_id,
                                        .at_ms = CONTRACT_NOW,
                                        .version = change_id,
                                        .actor = "local",
                                        .op = "replace"};
    r->revision.row.uid = contract_uid(1, 0);
    (void)snprintf(r->revision.ns, sizeof(r->revision.ns), "default");
    (void)snprintf(r->revision.id, sizeof(r->revision.id), "j0");
    if (was)
        r->revision.was = job_spec_definition(was, &r->revision.was_bytes);
}

static inline void dump_bed_fill(struct dump_bed *b)
{
    dump_bed_add(b, DUMP_META)->meta = (struct store_meta){.slots = CONTRACT_SLOTS,
                                                           .created_ms = CONTRACT_NOW,
                                                           .cluster = DUMP_BED_CLUSTER,
                                                           .secret = {1, 2, 3}};
    dump_bed_add_members(b);
    for (uint32_t i = 0; i < DUMP_BED_JOBS; i++) {
        char id[8];
        (void)snprintf(id, sizeof(id), "j%u", i);
        b->specs[i] =
            contract_spec("default", id, i ? "" : "\"labels\":{\"team\":\"pay\"},\"payload\":{\"n\":1}");
        struct dump_record *r = dump_bed_add(b, DUMP_JOB);
        r->job.row = contract_row(1, i, "default", id);
        r->job.row.counts.seq = 2;
        r->job.row.counts.dead = 1;
        r->job.text = dump_bed_text(b->specs[i]);
    }
    dump_bed_add_fire(b, 1, FIRE_STATE_ENDED);
    dump_bed_add_fire(b, 2, FIRE_STATE_WAITING);
    struct dump_record *copy = dump_bed_add(b, DUMP_COPY);
    copy->copy.uid = contract_uid(1, 0);
    copy->copy.version = 1;
    copy->copy.until_ms = CONTRACT_NOW + 1000;
    copy->copy.text = dump_bed_text(b->specs[0]);
    dump_bed_add_revision(b, 1, NULL);
    dump_bed_add_revision(b, 2, b->specs[0]);
}

/* --- as a driver ---------------------------------------------------------------------------------------------------- */

static inline int dump_bed_claim(struct dump_place *p, bool target, struct err *e)
{
    (void)p;
    (void)e;
    CHECK(!target, "%s", "it can only be read");
    return 0;
}

static inline int dump_bed_quiet(struct dump_place *p, struct err *e)
{
    (void)p;
    (void)e;
    return 0;
}

static inline void dump_bed_release(struct dump_place *p)
{
    (void)p;
}

static inline int dump_bed_read_open(struct dump_place *p, bool unfinished_too, void **ret, struct err *e)
{
    struct dump_bed *b = (struct dump_bed *)p; /* its first member */
    (void)unfinished_too;
    (void)e;
    b->next = 0;
    *ret = b;
    return 0;
}

static inline int dump_bed_read_next(void *reader, struct dump_record *ret, struct err *e)
{
    struct dump_bed *b = reader;
    (void)e;
    if (b->next == b->count)
        return 0;
    *ret = b->records[b->next++];
    return 1;
}

static inline void dump_bed_read_close(void *reader)
{
    (void)reader;
}

static const struct dump_driver dump_bed_driver = {.name = "bed",
                                                   .claim = dump_bed_claim,
                                                   .still_quiet = dump_bed_quiet,
                                                   .release = dump_bed_release,
                                                   .read_open = dump_bed_read_open,
                                                   .read_next = dump_bed_read_next,
                                                   .read_close = dump_bed_read_close};

/* --- use ------------------------------------------------------------------------------------------------------------ */

static inline void dump_bed_init(struct dump_bed *b)
{
    *b = (struct dump_bed){.place.driver = &dump_bed_driver};
    dump_bed_fill(b);
}

static inline void dump_bed_fini(struct dump_bed *b)
{
    for (size_t i = 0; i < DUMP_BED_JOBS; i++)
        job_spec_unref(b->specs[i]);
}

static inline void dump_bed_on_difference(void *arg, const char *text)
{
    CHECK(arg != NULL, "%s", text); /* who expects none has no place for it */
    (void)snprintf(arg, 200, "%s", text);
}

/* All of FROM to TO, compared; nothing differs. */
static inline void dump_bed_copy(struct dump_place *from, struct dump_place *to)
{
    struct dump_counts counts;
    struct err e = {0};
    CHECK(dump_copy(from, to, true, dump_bed_on_difference, NULL, &counts, &e) == 0, "%s", e.text);
    CHECK(counts.records[DUMP_JOB] == DUMP_BED_JOBS && counts.records[DUMP_SLOT] == CONTRACT_SLOTS &&
              counts.records[DUMP_FIRE] == 2 && counts.dead_letters == 1,
          "%s", "of some kind more or fewer");
}

/* In memory where that can be: hundreds of copies are made durable there. */
static inline void dump_bed_make_folder(char dir[64])
{
    (void)snprintf(dir, 64, "%s/carillon-test-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(dir), "%s", dir);
}

static inline void dump_bed_empty_folder(const char *dir)
{
    DIR *d = opendir(dir);
    CHECK(d != NULL, "%s", dir);
    for (struct dirent *f; (f = readdir(d));)
        if (f->d_name[0] != '.')
            CHECK(unlinkat(dirfd(d), f->d_name, 0) == 0, "%s", f->d_name);
    closedir(d);
}

static inline void dump_bed_remove_folder(const char *dir)
{
    dump_bed_empty_folder(dir);
    CHECK(rmdir(dir) == 0, "%s", dir);
}

#endif
