/* How long a test waits for what has to come. Sanitizers at the lowest priority beside everything else are slow beyond guessing, and
 * only a test that has failed waits for so long. */
#ifndef CARILLON_TESTS_LIB_PATIENCE_H
#define CARILLON_TESTS_LIB_PATIENCE_H

enum { PATIENCE_MS = 120000 };

#endif
