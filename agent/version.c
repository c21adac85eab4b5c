#include "agent/version.h"

#ifndef CARILLON_COMMIT
#define CARILLON_COMMIT ""
#endif

const char *version_text(void)
{
    return CARILLON_VERSION;
}

const char *version_commit(void)
{
    return CARILLON_COMMIT;
}

const char *version_product(void)
{
    return "carillon/" CARILLON_VERSION;
}
