/* To be preloaded: while the file exists that CHAOS_REFUSE names, every new connection to another process by TCP is refused, as by a
 * firewall that rejects. What is connected already stays so. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

__attribute__((visibility("default"))) int connect(int fd, const struct sockaddr *address, socklen_t length);

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    static int (*next)(int, const struct sockaddr *, socklen_t);
    const char *file = getenv("CHAOS_REFUSE");
    if (!next) {
        /* C has no conversion from a pointer to data to one to a function. */
        void *symbol = dlsym(RTLD_NEXT, "connect");
        memcpy(&next, &symbol, sizeof(next));
    }
    if (file && address->sa_family != AF_UNIX && access(file, F_OK) == 0) {
        errno = ECONNREFUSED;
        return -1;
    }
    return next(fd, address, length);
}
