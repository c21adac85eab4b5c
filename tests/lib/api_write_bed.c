#include "tests/lib/api_write_bed.h"

static bool mine(const void *arg, uint16_t slot)
{
    return slot < ((const struct api_write_bed *)arg)->owned;
}

void api_write_bed_init(struct api_write_bed *bed, unsigned owned)
{
    struct job_defaults d;
    rng_init(&bed->rng, 7);
    job_defaults_init(&d);
    bed->zones = NULL;
    (void)tzload_new(NULL, &bed->zones, NULL); /* without one, tests fail by their results */
    bed->owned = owned;
    bed->ids = (struct api_ids){.rng = &bed->rng, .slots = BED_SLOTS, .mine = mine, .arg = bed};
    api_context_make(&bed->ids, BED_NOW_MS, &d, &bed->ctx);
}

void api_write_bed_fini(struct api_write_bed *bed)
{
    tzload_free(bed->zones);
}
