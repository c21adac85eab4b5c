#include "agent/io/file.h"

#include "agent/base/err.h"
#include "agent/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { READ_STEP_BYTES = 16384 };

/* errno of the last call, or EIO when a fault stood in for it. */
static int sys_of(bool fault)
{
    return fault ? EIO : errno;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static int open_regular(const char *path, int *ret_fd, size_t *ret_bytes, struct err *e)
{
    /* O_NONBLOCK: opening a FIFO must not wait for its writer. */
    bool fault = fault_hit();
    AUTO(fd_close) int fd = fault ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_sys(e, sys_of(fault), "open '%s'", path);
    struct stat st;
    fault = fault_hit();
    if (fault || fstat(fd, &st) < 0)
        return err_sys(e, sys_of(fault), "look at '%s'", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "'%s' is not a regular file", path);
    *ret_bytes = (size_t)st.st_size;
    *ret_fd = fd_take(&fd);
    return 0;
}

/* The size is only a hint: the file may grow while it is read, and those under /proc have none. */
static int read_all(int fd, size_t size_hint, const char *path, struct buf *out, struct err *e)
{
    if (size_hint > out->max_bytes - out->len)
        return err_set(e, ERR_TOO_BIG, "'%s' is larger than %zu bytes", path, out->max_bytes);
    char chunk[READ_STEP_BYTES];
    for (;;) {
        bool fault = fault_hit();
        ssize_t n = fault ? -1 : read(fd, chunk, sizeof chunk);
        if (n < 0 && sys_of(fault) == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, sys_of(fault), "read '%s'", path);
        if (n == 0)
            return 0;
        buf_add(out, chunk, (size_t)n);
        explicit_bzero(chunk, (size_t)n); /* it may be a secret */
        if (buf_check(out, e) < 0)
            return err_wrap(e, "read '%s'", path);
    }
}

int file_read(const char *path, struct buf *out, struct err *e)
{
    AUTO(fd_close) int fd = -1;
    size_t size_hint;
    int r = open_regular(path, &fd, &size_hint, e);
    return r < 0 ? r : read_all(fd, size_hint, path, out, e);
}

static bool is_white(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

int file_read_secret(const char *path, char **ret, size_t *ret_len, struct err *e)
{
    struct buf b = BUF_INIT(FILE_SECRET_MAX + 16);
    size_t len;
    if (file_read(path, &b, e) < 0) {
        buf_fini(&b);
        return err_wrap(e, "read secret");
    }
    char *secret = buf_steal(&b, &len, e);
    buf_fini(&b);
    if (!secret)
        return err_wrap(e, "read secret '%s'", path);
    while (len > 0 && is_white(secret[len - 1]))
        secret[--len] = '\0';
    const char *wrong = len == 0                            ? "holds no secret"
                        : len > FILE_SECRET_MAX             ? "is too long for a secret"
                        : memchr(secret, '\0', len) != NULL ? "holds a NUL byte"
                                                            : NULL;
    if (wrong) {
        mem_free_secret(secret, len);
        return err_set(e, ERR_INVALID, "'%s' %s", path, wrong);
    }
    *ret = secret;
    *ret_len = len;
    return 0;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static int write_all(int fd, const char *data, size_t bytes, const char *path, struct err *e)
{
    while (bytes > 0) {
        bool fault = fault_hit();
        ssize_t n = fault ? -1 : write(fd, data, bytes);
        if (n < 0 && sys_of(fault) == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, sys_of(fault), "write '%s'", path);
        data += n;
        bytes -= (size_t)n;
    }
    bool fault = fault_hit();
    if (fault || fsync(fd) < 0)
        return err_sys(e, sys_of(fault), "sync '%s'", path);
    return 0;
}

static int sync_folder(const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash ? mem_try_strndup(path, slash == path ? 1 : (size_t)(slash - path), e) : mem_strdup(".");
    if (!folder)
        return err_wrap(e, "sync the folder of '%s'", path);
    bool fault = fault_hit();
    AUTO(fd_close) int fd = fault ? -1 : open(folder, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    int r = 0;
    if (fd < 0 || fsync(fd) < 0)
        r = err_sys(e, sys_of(fault), "sync folder '%s'", folder);
    mem_free(folder);
    return r;
}

static int write_beside(const char *temporary, const void *data, size_t bytes, mode_t mode, struct err *e)
{
    bool fault = fault_hit();
    AUTO(fd_close)
    int fd = fault ? -1 : open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, sys_of(fault), "create '%s'", temporary);
    int r = write_all(fd, data, bytes, temporary, e);
    if (r == 0 && fchmod(fd, mode) < 0)
        r = err_sys(e, errno, "set the mode of '%s'", temporary);
    if (r < 0)
        unlink(temporary);
    return r;
}

int file_write(const char *path, const void *data, size_t bytes, mode_t mode, struct err *e)
{
    struct buf name = BUF_INIT(PATH_MAX);
    buf_addf(&name, "%s.new-%ld", path, (long)getpid());
    int r = buf_check(&name, e);
    const char *temporary = buf_str(&name);
    if (r == 0) {
        unlink(temporary); /* of an earlier process with our id */
        r = write_beside(temporary, data, bytes, mode, e);
    }
    if (r == 0) {
        bool fault = fault_hit();
        if (fault || rename(temporary, path) < 0) {
            r = err_sys(e, sys_of(fault), "rename '%s'", temporary);
            unlink(temporary);
        } else {
            r = sync_folder(path, e);
        }
    }
    buf_fini(&name);
    return r < 0 ? err_wrap(e, "replace '%s'", path) : 0;
}

/* --- noticing changes --------------------------------------------------------------------------------------------- */

static uint64_t stamp_at(int dir_fd, const char *name, unsigned depth);

static uint64_t stamp_folder(int dir_fd, const char *name, unsigned depth)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        fd_close(fd);
        return 0;
    }
    uint64_t sum = 0; /* the order of readdir() means nothing */
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        uint64_t of_entry = stamp_at(dirfd(dir), entry->d_name, depth - 1);
        sum += XXH3_64bits_withSeed(entry->d_name, strlen(entry->d_name), of_entry);
    }
    closedir(dir);
    return sum;
}

static uint64_t stamp_at(int dir_fd, const char *name, unsigned depth)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, 0) < 0)
        return 0;
    bool folder = S_ISDIR(st.st_mode);
    uint64_t facts[] = {st.st_dev,
                        st.st_ino,
                        st.st_mode,
                        (uint64_t)st.st_size,
                        (uint64_t)st.st_mtim.tv_sec,
                        (uint64_t)st.st_mtim.tv_nsec,
                        (uint64_t)st.st_ctim.tv_sec,
                        (uint64_t)st.st_ctim.tv_nsec,
                        folder && depth > 0 ? stamp_folder(dir_fd, name, depth) : 0};
    uint64_t stamp = XXH3_64bits(facts, sizeof facts);
    return stamp ? stamp : 1;
}

uint64_t file_stamp(const char *path)
{
    return stamp_at(AT_FDCWD, path, FILE_STAMP_DEPTH);
}

void file_watch_init(struct file_watch *w, const char *path)
{
    w->path = mem_strdup(path);
    w->stamp = file_stamp(path);
}

void file_watch_fini(struct file_watch *w)
{
    mem_free(w->path);
    w->path = NULL;
}

bool file_watch_changed(struct file_watch *w)
{
    uint64_t stamp = file_stamp(w->path);
    bool changed = stamp != w->stamp;
    w->stamp = stamp;
    return changed;
}
