/* A Raft log's folder as a source and as a target. Read, it is the state that an agent would have; written, it is one snapshot, streamed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <dirent.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/io/file.h"
#include "agent/store/dump/dump.h"
#include "agent/store/raft/entry.h"
#include "agent/store/raft/folder.h"
#include "agent/store/raft/folder_private.h"
#include "agent/store/raft/folder_read.h"
#include "agent/store/raft/machine_private.h"
#include "agent/store/raft/pack.h"
#include "agent/store/raft/snapshot_out.h"
#include "agent/store/store_raft.h"

#define PART "copy-part"
/* Of the log's entries the last that is in the snapshot. Not the first: libraft 0.22.1 then sends new voters entries that it has not,
 * and never the snapshot. */
#define SNAPSHOT_INDEX 2

static int claim(struct dump_place *p, bool target, struct err *e)
{
    return target ? folder_lock(p->dir, &p->lock_fd_, e) : folder_lock_existing(p->dir, &p->lock_fd_, e);
}

static int still_quiet(struct dump_place *p, struct err *e)
{
    (void)p;
    (void)e; /* the lock is ours */
    return 0;
}

static void release(struct dump_place *p)
{
    fd_close(p->lock_fd_);
    p->lock_fd_ = -1;
    buf_fini(&p->seen_);
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

struct reader {
    struct machine *m;
    enum dump_kind kind; /* of the next record */
    size_t next;         /* of meta, members, slots */
    struct sorted_at at; /* of rows */
    char *memory;        /* of the record that was given */
};

static void on_problem(void *arg, const char *text)
{
    (void)arg;
    (void)text; /* the first is what folder_read() answers */
}

static int read_open(struct dump_place *p, bool unfinished_too, void **ret, struct err *e)
{
    struct folder_seen seen;
    struct reader *r = mem_new(struct reader);
    r->m = machine_new();
    int rc = folder_read(p->dir, r->m, unfinished_too, on_problem, NULL, &seen, e);
    if (rc < 0) {
        machine_free(r->m);
        mem_free(r);
        return rc;
    }
    *ret = r;
    return 0;
}

static void read_close(void *reader)
{
    struct reader *r = reader;
    machine_free(r->m);
    mem_free(r->memory);
    mem_free(r);
}

static int unpack(struct reader *r, const struct machine_blob *packed, struct dump_text *ret, struct err *e)
{
    struct pack_text text;
    int rc = pack_text(packed->data, packed->bytes, &text, e);
    if (rc < 0)
        return rc;
    r->memory = text.memory;
    *ret = (struct dump_text){text.definition, text.definition_bytes, text.payload, text.payload_bytes};
    return 1;
}

static const struct sorted *rows_of(const struct machine *m, enum dump_kind kind)
{
    return kind == DUMP_JOB    ? &m->jobs_by_uid
           : kind == DUMP_FIRE ? &m->fires_by_seq
           : kind == DUMP_COPY ? &m->copies_by_version
                               : &m->revisions_by_change;
}

static int give_revision(struct reader *r, const struct machine_revision *row, struct dump_record *ret,
                         struct err *e)
{
    struct dump_text text = {0};
    const char *id = machine_revision_id(row);
    machine_revision_row(row, &ret->revision.row);
    memcpy(ret->revision.ns, row->name, row->id_at);
    memcpy(ret->revision.id, id, strlen(id) + 1);
    int rc = row->was ? unpack(r, row->was, &text, e) : 1;
    ret->revision.was = text.definition;
    ret->revision.was_bytes = text.definition_bytes;
    return rc;
}

static int give_row(struct reader *r, const void *item, struct dump_record *ret, struct err *e)
{
    if (r->kind == DUMP_REVISION)
        return give_revision(r, item, ret, e);
    if (r->kind == DUMP_FIRE) {
        machine_fire_row(item, &ret->fire);
        return 1;
    }
    if (r->kind == DUMP_JOB) {
        const struct machine_job *job = item;
        machine_job_row(job, &ret->job.row);
        return unpack(r, job->spec, &ret->job.text, e);
    }
    const struct machine_copy *copy = item;
    ret->copy.uid = copy->uid;
    ret->copy.version = copy->version;
    ret->copy.until_ms = copy->until_ms;
    return unpack(r, copy->spec, &ret->copy.text, e);
}

/* Of the first three kinds. False: no more of this kind. */
static bool give_small(const struct reader *r, size_t i, struct dump_record *ret)
{
    const struct machine *m = r->m;
    if (r->kind == DUMP_META && i == 0) {
        ret->meta = m->meta;
    } else if (r->kind == DUMP_MEMBER && i < m->members_count) {
        ret->member.row = m->members[i].row;
        ret->member.died_ms = m->members[i].died_ms;
    } else if (r->kind == DUMP_SLOT && i < m->slots_count) {
        ret->slot = m->slots[i];
    } else {
        return false;
    }
    return true;
}

static int read_next(void *reader, struct dump_record *ret, struct err *e)
{
    struct reader *r = reader;
    mem_free(r->memory);
    r->memory = NULL;
    for (; r->kind < DUMP_KIND_COUNT_; r->kind++, r->next = 0, r->at = (struct sorted_at){0}) {
        memset(ret, 0, sizeof(*ret));
        ret->kind = r->kind;
        if (r->kind <= DUMP_SLOT) {
            if (give_small(r, r->next++, ret))
                return 1;
            continue;
        }
        const struct sorted *rows = rows_of(r->m, r->kind);
        const void *item = sorted_get(rows, r->at);
        if (!item)
            continue;
        sorted_next(rows, &r->at);
        return give_row(r, item, ret, e);
    }
    return 0;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

struct writer {
    const char *dir;
    int fd;
    struct snapshot_out out;
    struct buf body, packed;
    struct err failed; /* of the disk */
};

static int path_in(const char *dir, const char *name, char *ret, size_t size, struct err *e)
{
    if ((size_t)snprintf(ret, size, "%s/%s", dir, name) >= size)
        return err_set(e, ERR_INVALID, "the path of the data folder is too long");
    return 0;
}

static void write_block(void *arg, void *data, size_t bytes)
{
    struct writer *w = arg;
    for (size_t done = 0; done < bytes && w->failed.code == ERR_OK;) {
        ssize_t n = fault_hit() ? (errno = EIO, -1) : write(w->fd, (char *)data + done, bytes - done);
        if (n < 0 && errno != EINTR)
            (void)err_sys(&w->failed, errno, "write %s/%s", w->dir, PART); /* told by the next put */
        done += n > 0 ? (size_t)n : 0;
    }
    mem_free(data);
}

static bool is_of_a_copy(const char *name)
{
    static const char *const begins[] = {PART, FOLDER_UNFINISHED ".new-", "snapshot-", "metadata1"};
    for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++)
        if (strncmp(name, begins[i], strlen(begins[i])) == 0)
            return true;
    return false;
}

/* What an interrupted copy left; nothing else, for DIR may have been a mistake. */
static int clear_folder(const char *dir, struct err *e)
{
    DIR *d = fault_hit() ? (errno = EIO, NULL) : opendir(dir);
    if (!d)
        return err_sys(e, errno, "read the folder %s", dir);
    int r = 0;
    for (struct dirent *f; r == 0 && (f = readdir(d));)
        if (is_of_a_copy(f->d_name) && unlinkat(dirfd(d), f->d_name, 0) < 0)
            r = err_sys(e, errno, "remove %s/%s", dir, f->d_name);
    (void)closedir(d); /* only read */
    return r;
}

static int prepare(const char *dir, struct err *e)
{
    static const char text[] =
        "carillon store copy has not come to its end here: run it again, or remove this folder\n";
    struct folder f = {.dir = dir};
    char path[4200];
    int r = folder_list(&f, e);
    if (r == 0 && f.used && !f.unfinished)
        r = err_set(e, ERR_EXISTS, "a store is there already; a copy goes into an empty folder: %.120s", dir);
    if (r == 0)
        r = path_in(dir, FOLDER_UNFINISHED, path, sizeof(path), e);
    if (r == 0)
        r = file_write(path, text, sizeof(text) - 1, 0600, e);
    if (r == 0 && f.unfinished)
        r = clear_folder(dir, e);
    folder_fini(&f);
    return r;
}

static int write_open(struct dump_place *p, const struct store_meta *meta, void **ret, struct err *e)
{
    char path[4200];
    struct store_meta own = *meta;
    int r = prepare(p->dir, e);
    if (r == 0)
        r = path_in(p->dir, PART, path, sizeof(path), e);
    if (r < 0)
        return r;
    int fd = fault_hit() ? (errno = EIO, -1) : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, errno, "make %s", path);
    struct writer *w = mem_new(struct writer);
    w->dir = p->dir;
    w->fd = fd;
    buf_init(&w->body, ENTRY_MAX_BYTES);
    buf_init(&w->packed, ENTRY_MAX_BYTES);
    own.schema = STORE_RAFT_SCHEMA;
    snapshot_out_begin(&w->out, write_block, w);
    snapshot_out_meta(&w->out, &own, 1, 0);
    *ret = w;
    return 0;
}

/* Definitions are read and packed anew: labels stand in the clear there. */
static int pack(struct writer *w, const struct dump_text *t, bool whole, struct err *e)
{
    AUTO(job_spec_unref) struct job_spec *spec = NULL;
    buf_reset(&w->packed);
    int r = job_spec_decode(t->definition, t->definition_bytes, t->payload, t->payload_bytes, &spec, e);
    if (r == 0)
        r = whole ? pack_spec(spec, &w->packed, e) : pack_definition(spec, &w->packed, e);
    return r;
}

static int put_job(struct writer *w, const struct dump_record *r, struct err *e)
{
    const struct job_row *row = &r->job.row;
    int rc = pack(w, &r->job.text, true, e);
    if (rc < 0)
        return err_wrap(e, "job %s/%s", row->ns, row->id);
    codec_put_row(&w->body, codec_job(), row, CODEC_BODY);
    struct snapshot_row out = {.uid = &row->uid, .slot = row->slot, .ns = row->ns, .id = row->id};
    out.body = buf_str(&w->body);
    out.body_bytes = w->body.len;
    out.spec = buf_str(&w->packed);
    out.spec_bytes = w->packed.len;
    snapshot_out_job(&w->out, &out);
    return buf_check(&w->body, e);
}

static int put_fire(struct writer *w, const struct fire_row *row, struct err *e)
{
    codec_put_row(&w->body, codec_fire(), row, CODEC_BODY);
    struct snapshot_row out = {
        .uid = &row->uid, .slot = row->slot, .seq = row->seq, .ns = row->ns, .id = row->id};
    out.body = buf_str(&w->body);
    out.body_bytes = w->body.len;
    snapshot_out_fire(&w->out, &out);
    return buf_check(&w->body, e);
}

static int put_copy(struct writer *w, const struct dump_record *r, struct err *e)
{
    int rc = pack(w, &r->copy.text, true, e);
    if (rc < 0)
        return err_wrap(e, "what a dead letter was to deliver");
    struct snapshot_row out = {.uid = &r->copy.uid, .seq = r->copy.version, .until_ms = r->copy.until_ms};
    out.spec = buf_str(&w->packed);
    out.spec_bytes = w->packed.len;
    snapshot_out_copy(&w->out, &out);
    return 0;
}

static int put_revision(struct writer *w, const struct dump_record *r, struct err *e)
{
    struct dump_text text = {.definition = r->revision.was, .definition_bytes = r->revision.was_bytes};
    int rc = r->revision.was ? pack(w, &text, false, e) : 0;
    if (rc < 0)
        return err_wrap(e, "revision of %s/%s", r->revision.ns, r->revision.id);
    snapshot_out_revision(&w->out, r->revision.ns, r->revision.id, &r->revision.row,
                          r->revision.was ? buf_str(&w->packed) : NULL, w->packed.len);
    return 0;
}

static int write_put(void *writer, const struct dump_record *r, struct err *e)
{
    struct writer *w = writer;
    int rc = 0;
    buf_reset(&w->body);
    if (w->failed.code != ERR_OK)
        return err_set(e, w->failed.code, "%s", w->failed.text);
    if (r->kind == DUMP_MEMBER)
        snapshot_out_member(&w->out, &r->member.row, r->member.died_ms);
    else if (r->kind == DUMP_SLOT)
        snapshot_out_slots(&w->out, &r->slot, 1);
    else if (r->kind == DUMP_JOB)
        rc = put_job(w, r, e);
    else if (r->kind == DUMP_FIRE)
        rc = put_fire(w, &r->fire, e);
    else if (r->kind == DUMP_COPY)
        rc = put_copy(w, r, e);
    else if (r->kind == DUMP_REVISION)
        rc = put_revision(w, r, e);
    return rc;
}

/* Of the snapshot: format, checksum, index and length of the configuration; one voter, as a new store has it. */
static int write_description(const char *path, struct err *e)
{
    AUTO(buf_fini) struct buf config = BUF_INIT(256), rest = BUF_INIT(256), all = BUF_INIT(512);
    buf_add_char(&config, 1); /* its format */
    codec_put_fixed64(&config, 1);
    codec_put_fixed64(&config, STORE_RAFT_NODE_ID);
    buf_add(&config, STORE_RAFT_NODE_ADDRESS, sizeof(STORE_RAFT_NODE_ADDRESS));
    buf_add_char(&config, 1); /* it votes */
    codec_put_fixed64(&rest, 1);
    codec_put_fixed64(&rest, config.len);
    buf_add(&rest, buf_str(&config), config.len);
    buf_fail_with(&rest, &config);
    codec_put_fixed64(&all, 1);
    codec_put_fixed64(&all, folder_crc32(0, buf_str(&rest), rest.len));
    buf_add(&all, buf_str(&rest), rest.len);
    buf_fail_with(&all, &rest);
    int r = buf_check(&all, e);
    return r < 0 ? r : file_write(path, buf_str(&all), all.len, 0600, e);
}

static int write_terms(const char *path, struct err *e)
{
    AUTO(buf_fini) struct buf terms = BUF_INIT(64);
    codec_put_fixed64(&terms, 1); /* format */
    codec_put_fixed64(&terms, 1); /* version */
    codec_put_fixed64(&terms, 1); /* term */
    codec_put_fixed64(&terms, 0); /* vote */
    int r = buf_check(&terms, e);
    return r < 0 ? r : file_write(path, buf_str(&terms), terms.len, 0600, e);
}

static int write_end(void *writer, struct err *e)
{
    struct writer *w = writer;
    char part[4200], path[4200], name[80];
    snapshot_out_end(&w->out);
    if (w->failed.code != ERR_OK)
        return err_set(e, w->failed.code, "%s", w->failed.text);
    if (fault_hit() ? (errno = EIO, -1) : fsync(w->fd) < 0)
        return err_sys(e, errno, "write %s/%s", w->dir, PART);
    (void)snprintf(name, sizeof(name), "snapshot-1-%d-%llu", SNAPSHOT_INDEX,
                   (unsigned long long)clock_boot_ms()); /* it fits */
    if (path_in(w->dir, PART, part, sizeof(part), e) < 0 || path_in(w->dir, name, path, sizeof(path), e) < 0)
        return -ERR_INVALID;
    if (fault_hit() ? (errno = EIO, -1) : rename(part, path) < 0)
        return err_sys(e, errno, "rename %s", part);
    if (strlen(path) + sizeof(".meta") > sizeof(path))
        return err_set(e, ERR_INVALID, "the path of the data folder is too long");
    memcpy(path + strlen(path), ".meta", sizeof(".meta"));
    int r = write_description(path, e);
    if (r == 0)
        r = path_in(w->dir, "metadata1", path, sizeof(path), e);
    return r < 0 ? r : write_terms(path, e);
}

static int write_done(void *writer, struct err *e)
{
    struct writer *w = writer;
    AUTO(fd_close)
    int dir = fault_hit() ? (errno = EIO, -1) : open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || unlinkat(dir, FOLDER_UNFINISHED, 0) < 0 || fsync(dir) < 0)
        return err_sys(e, errno, "finish %s", w->dir);
    return 0;
}

static void write_close(void *writer)
{
    struct writer *w = writer;
    snapshot_out_abort(&w->out);
    fd_close(w->fd);
    buf_fini(&w->body);
    buf_fini(&w->packed);
    mem_free(w);
}

const struct dump_driver dump_raft = {.name = "raft",
                                      .claim = claim,
                                      .still_quiet = still_quiet,
                                      .release = release,
                                      .read_open = read_open,
                                      .read_next = read_next,
                                      .read_close = read_close,
                                      .write_open = write_open,
                                      .write_put = write_put,
                                      .write_end = write_end,
                                      .write_done = write_done,
                                      .write_close = write_close};
