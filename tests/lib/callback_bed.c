#include "tests/lib/callback_bed.h"

struct job_spec bed_spec(const char *service, const char *url)
{
    return (struct job_spec){
        .ns = "default",
        .id = "job-1",
        .content_type = "application/json",
        .callback = {.transport = JOB_HTTP,
                     .service = service,
                     .url = url,
                     .scheme = "http",
                     .path = "/hook",
                     .method = "POST",
                     .timeout_ms = 10000,
                     .success = {{200, 299}},
                     .success_count = 1,
                     .give_up = {{400, 400}, {410, 410}},
                     .give_up_count = 2},
    };
}

struct delivery bed_delivery(struct job_spec *spec)
{
    return (struct delivery){.uid = {{0, 5, 0xab}},
                             .seq = 7,
                             .attempt = 1,
                             .slot = 5,
                             .epoch = 3,
                             .due_ms = 1795420800000,
                             .spec = spec,
                             .content_type = spec->content_type};
}
