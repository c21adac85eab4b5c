/* The versions of what is kept: tables, and records of the log. Compiled with an earlier STORE_VERSION the program is, as far as its
 * store goes, the one that was released with it: tests of upgrades run both at once.
 *   1  the first
 *   2  fires keep the trace of the run that asked for them */
#ifndef CARILLON_STORE_STORE_VERSION_H
#define CARILLON_STORE_STORE_VERSION_H

#ifndef STORE_VERSION
#define STORE_VERSION 2
#endif

#endif
