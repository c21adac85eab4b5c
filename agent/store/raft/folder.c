#include "agent/store/raft/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

/* --- making and locking -------------------------------------------------------------------------------------------- */

static int make_folders(const char *dir, struct err *e)
{
    char path[PATH_MAX];
    size_t len = strlen(dir);
    if (len == 0 || len >= sizeof(path))
        return err_set(e, ERR_PERMANENT, "the path of the data folder is too long");
    memcpy(path, dir, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        char kept = path[i];
        path[i] = 0;
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return err_sys(e, errno, "make the folder %s", path);
        path[i] = kept;
    }
    return 0;
}

/* Who has it wrote its number into the file. */
static int locked(int fd, const char *dir, struct err *e)
{
    char pid[32];
    ssize_t n = read(fd, pid, sizeof(pid) - 1);
    pid[n > 0 ? n : 0] = 0;
    /* The path last: it may be long, and texts are cut at their end. */
    return err_set(e, ERR_PERMANENT,
                   "in use by another agent (process %.*s), each needs an agent.data_dir of its own: %.90s",
                   (int)strcspn(pid, "\n"), pid, dir);
}

int folder_lock(const char *dir, int *ret_fd, struct err *e)
{
    char path[PATH_MAX], pid[32];
    int r = make_folders(dir, e);
    if (r < 0)
        return r;
    if ((size_t)snprintf(path, sizeof(path), "%s/lock", dir) >= sizeof(path))
        return err_set(e, ERR_PERMANENT, "the path of the data folder is too long");
    AUTO(fd_close) int fd = fault_hit() ? (errno = EIO, -1) : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, errno, "open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? locked(fd, dir, e) : err_sys(e, errno, "lock %s", path);
    int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n)
        return err_sys(e, errno, "write %s", path);
    *ret_fd = fd_take(&fd);
    return 0;
}
