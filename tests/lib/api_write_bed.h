/* Writes and bulk lines in tests: fixed time, chosen slots, the system's zones. */
#ifndef CARILLON_TESTS_LIB_API_WRITE_BED_H
#define CARILLON_TESTS_LIB_API_WRITE_BED_H

#include "agent/api/write.h"

#define BED_NOW_MS ((int64_t)1790000000000)
#define BED_SLOTS  64

struct api_write_bed {
    struct rng rng;
    struct tzload *zones;
    struct api_ids ids;
    struct api_context ctx;
    unsigned owned; /* slots 0 … owned - 1 are ours */
};

void api_write_bed_init(struct api_write_bed *bed, unsigned owned);
void api_write_bed_fini(struct api_write_bed *bed);

#endif
