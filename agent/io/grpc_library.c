#include "agent/io/grpc_library.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>

#include "agent/base/log.h"

static const struct log_ctx log_here = {.module = "grpc"};

/* What fails is told to whoever asked for it; this is for those who look for errors in the library. */
static void log_text(gpr_log_func_args *args)
{
    log_debug(&log_here, "library", "text=%s", LOGQ(args->message));
}

void grpc_library_up(void)
{
    gpr_set_log_function(log_text);
    grpc_init();
}

void grpc_library_down(void)
{
    grpc_shutdown_blocking();
}
