#include "agent/io/listener.h"

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096, ADDRESS_SIZE = NI_MAXHOST + NI_MAXSERV + 4 };

static const char unix_prefix[] = "unix:";

static int socket_open(int family, int *ret, struct err *e)
{
    int fd = fault_hit() ? -1 : socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, errno ? errno : EIO, "make a socket");
    *ret = fd;
    return 0;
}

/* --- unix sockets ------------------------------------------------------------------------------------------------- */

/* Make room for a socket at ADDR: remove what a dead process left behind, and nothing else. */
static int remove_stale(const struct sockaddr_un *addr, struct err *e)
{
    struct stat st;
    if (lstat(addr->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "look at '%s'", addr->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, ERR_EXISTS, "'%s' exists and is no socket", addr->sun_path);
    int probe = -1;
    if (socket_open(AF_UNIX, &probe, e) < 0)
        return err_wrap(e, "see whether someone listens on '%s'", addr->sun_path);
    int r = connect(probe, (const struct sockaddr *)addr, sizeof *addr);
    int sys = r < 0 ? errno : 0;
    fd_close(probe);
    if (sys == ENOENT)
        return 0;
    if (sys != ECONNREFUSED)
        return err_set(e, ERR_EXISTS, "another process listens on '%s'", addr->sun_path);
    if (unlink(addr->sun_path) < 0 && errno != ENOENT)
        return err_sys(e, errno, "remove the left-over socket '%s'", addr->sun_path);
    return 0;
}

static int bind_unix(int fd, const struct sockaddr_un *addr, unsigned mode, struct err *e)
{
    /* The new file takes the mode of the socket's inode less the umask, so that it is at no time open to more
     * people. */
    if (fchmod(fd, mode & 0777) < 0 || bind(fd, (const struct sockaddr *)addr, sizeof *addr) < 0)
        return err_sys(e, errno, "bind to '%s'", addr->sun_path);
    if (fault_hit() || chmod(addr->sun_path, mode & 0777) < 0 || listen(fd, BACKLOG) < 0) {
        int sys = errno ? errno : EIO;
        unlink(addr->sun_path);
        return err_sys(e, sys, "listen on '%s'", addr->sun_path);
    }
    return 0;
}

static int open_unix(struct listener *l, const char *path, unsigned mode, struct err *e)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t path_len = strlen(path);
    if (path_len == 0 || path_len >= sizeof addr.sun_path)
        return err_set(e, ERR_INVALID, "the path of a unix socket has 1 to %zu bytes, not %zu",
                       sizeof addr.sun_path - 1, path_len);
    memcpy(addr.sun_path, path, path_len);
    AUTO(fd_close) int fd = -1;
    if (remove_stale(&addr, e) < 0 || socket_open(AF_UNIX, &fd, e) < 0 || bind_unix(fd, &addr, mode, e) < 0)
        return err_wrap(e, "listen on unix socket");
    struct stat st = {0};
    if (lstat(path, &st) == 0) {
        l->path_dev = st.st_dev;
        l->path_ino = st.st_ino;
    }
    l->is_unix = true;
    l->fd = fd_take(&fd);
    return 0;
}

/* --- TCP ---------------------------------------------------------------------------------------------------------- */

static int resolve(const char *listen, struct addrinfo **ret, struct err *e)
{
    size_t host_at, host_len;
    uint16_t port;
    if (text_host_port(listen, strlen(listen), true, &host_at, &host_len, &port, e) < 0)
        return err_wrap(e, "listen");
    char host[NI_MAXHOST], service[8];
    if (host_len >= sizeof host)
        return err_set(e, ERR_INVALID, "host name of %zu bytes", host_len);
    memcpy(host, listen + host_at, host_len);
    host[host_len] = '\0';
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int r = fault_hit() ? EAI_FAIL : getaddrinfo(host, service, &hints, ret);
    if (r != 0)
        return err_set(e, ERR_UNAVAILABLE, "resolve '%s': %s", host, gai_strerror(r));
    return 0;
}

static int bind_tcp(int fd, const struct addrinfo *ai, const char *listen_on, struct err *e)
{
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        return err_sys(e, errno, "set up a socket");
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return 0;
    if (errno == EADDRINUSE)
        return err_set(e, ERR_EXISTS, "another process listens on '%s'", listen_on);
    return err_sys(e, errno, "listen on '%s'", listen_on);
}

static int name_tcp(int fd, struct listener *l, struct err *e)
{
    struct sockaddr_in6 addr = {0}; /* or a sockaddr_in, whose family and port lie in the same places */
    socklen_t addr_len = sizeof addr;
    char host[NI_MAXHOST], service[NI_MAXSERV], address[ADDRESS_SIZE];
    if (getsockname(fd, (struct sockaddr *)&addr, &addr_len) < 0)
        return err_sys(e, errno, "ask for the socket's address");
    int r = getnameinfo((struct sockaddr *)&addr, addr_len, host, sizeof host, service, sizeof service,
                        NI_NUMERICHOST | NI_NUMERICSERV);
    if (r != 0)
        return err_set(e, ERR_IO, "print the socket's address: %s", gai_strerror(r));
    bool v6 = addr.sin6_family == AF_INET6;
    snprintf(address, sizeof address, v6 ? "[%s]:%s" : "%s:%s", host, service);
    l->address = mem_strdup(address);
    l->port = ntohs(addr.sin6_port);
    return 0;
}

static int open_tcp(struct listener *l, const char *listen, struct err *e)
{
    struct addrinfo *found = NULL;
    int r = resolve(listen, &found, e);
    if (r < 0)
        return r;
    AUTO(fd_close) int fd = -1;
    r = socket_open(found->ai_family, &fd, e);
    if (r == 0)
        r = bind_tcp(fd, found, listen, e);
    freeaddrinfo(found);
    if (r == 0)
        r = name_tcp(fd, l, e);
    if (r < 0)
        return r;
    l->fd = fd_take(&fd);
    return 0;
}

int listener_open(struct listener *l, const char *listen, unsigned socket_mode, struct err *e)
{
    struct err own = {0};
    struct listener opened = {.fd = -1};
    size_t prefix_len = sizeof unix_prefix - 1;
    e = e ? e : &own;
    int r;
    if (strncmp(listen, unix_prefix, prefix_len) == 0) {
        r = open_unix(&opened, listen + prefix_len, socket_mode, e);
        if (r == 0) {
            opened.address = mem_strdup(listen);
            opened.path = opened.address + prefix_len;
        }
    } else {
        r = open_tcp(&opened, listen, e);
    }
    if (r == 0)
        *l = opened;
    return r;
}

void listener_close(struct listener *l)
{
    if (l->fd < 0)
        return;
    fd_close(l->fd);
    l->fd = -1;
    struct stat st;
    if (l->is_unix && lstat(l->path, &st) == 0 && st.st_dev == l->path_dev && st.st_ino == l->path_ino)
        unlink(l->path);
}

void listener_fini(struct listener *l)
{
    listener_close(l);
    mem_free(l->address);
    l->address = NULL;
}
