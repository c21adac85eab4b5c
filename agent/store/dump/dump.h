/* Everything that a store holds, as a stream of records: for copying it from one driver to another and for comparing two. It is read
 * and written without an agent, and only while none is alive. Records come in one order, whatever the driver: by kind, then by
 * key. Memory is bounded but for the folder of a Raft log, whose state is held as an agent holds it. Blocking. One thread. */
#ifndef CARILLON_STORE_DUMP_DUMP_H
#define CARILLON_STORE_DUMP_DUMP_H

#include "agent/base/buf.h"
#include "agent/store/store.h"
#include "agent/store/store_mysql.h"

enum dump_kind {
    DUMP_META,
    DUMP_MEMBER, /* by id */
    DUMP_SLOT,
    DUMP_JOB,      /* by uid */
    DUMP_FIRE,     /* by uid, seq */
    DUMP_COPY,     /* by uid, version */
    DUMP_REVISION, /* by namespace, id, change_id */
    DUMP_KIND_COUNT_
};

struct dump_text {
    const char *definition; /* canonical */
    size_t definition_bytes;
    const char *payload; /* NULL: none */
    size_t payload_bytes;
};

struct dump_record {
    enum dump_kind kind;
    union {
        struct store_meta meta; /* its schema is the driver's own affair */
        struct {
            struct store_member row; /* its beat counts while a process runs, and is not copied */
            int64_t died_ms;         /* 0: alive */
        } member;
        struct store_slot slot;
        struct {
            struct job_row row;
            struct dump_text text;
        } job;
        struct fire_row fire;
        struct {
            struct uid uid;
            uint64_t version;
            int64_t until_ms;
            struct dump_text text;
        } copy;
        struct {
            char ns[RECORD_NS_MAX];
            char id[RECORD_ID_MAX];
            struct revision row;
            const char *was; /* definition; NULL: none */
            size_t was_bytes;
        } revision;
    };
};

/* A store, where it lies. Filled by the caller but for what ends in an underscore. */
struct dump_place {
    const struct dump_driver *driver;
    const char *dir;                         /* raft */
    const struct store_mysql_options *mysql; /* mysql */
    int lock_fd_;                            /* raft: of its folder; -1 none */
    struct buf seen_;                        /* mysql: who was there */
};

struct dump_driver {
    const char *name;
    /* See that no agent is alive, and keep the next one out as far as that can be done. ERR_PERMANENT: one is. ERR_NOT_FOUND: there is
     * no store (a TARGET need not be there). */
    int (*claim)(struct dump_place *p, bool target, struct err *e);
    /* ERR_BUSY: one came since the claim. */
    int (*still_quiet)(struct dump_place *p, struct err *e);
    void (*release)(struct dump_place *p);

    /* UNFINISHED_TOO: also a target that is not released yet. */
    int (*read_open)(struct dump_place *p, bool unfinished_too, void **ret, struct err *e);
    /* 1: RET is the next record, valid until the next call; 0: no more. */
    int (*read_next)(void *reader, struct dump_record *ret, struct err *e);
    void (*read_close)(void *reader);

    /* ERR_EXISTS: P holds a store already. What an interrupted copy left is thrown away. Until write_done() no agent uses it. */
    int (*write_open)(struct dump_place *p, const struct store_meta *meta, void **ret, struct err *e);
    int (*write_put)(void *writer, const struct dump_record *r, struct err *e);
    int (*write_end)(void *writer, struct err *e);  /* all is durable, and can be read */
    int (*write_done)(void *writer, struct err *e); /* an agent may use it */
    void (*write_close)(void *writer);
};

extern const struct dump_driver dump_raft;
extern const struct dump_driver dump_mysql;

struct dump_counts {
    uint64_t records[DUMP_KIND_COUNT_];
    uint64_t dead_letters;
};
/* Each difference that a comparison finds, in words. */
typedef void dump_difference_fn(void *arg, const char *text);

/* Copy all from FROM to TO; VERIFY: then read both and compare. TO is of use only when this returns 0; else it can be called again.
 * ERR_CONFLICT: they differ, FN was told how. The rest as the drivers say. */
int dump_copy(struct dump_place *from, struct dump_place *to, bool verify, dump_difference_fn *fn, void *arg,
              struct dump_counts *ret, struct err *e);

/* "jobs", "fires" … */
const char *dump_kind_name(enum dump_kind kind);

#endif
