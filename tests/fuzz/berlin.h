/* A zone with gaps and repeated hours, for targets that need one. */
#ifndef CARILLON_TESTS_FUZZ_BERLIN_H
#define CARILLON_TESTS_FUZZ_BERLIN_H

/* Two changes a year, said by the footer of an otherwise empty file. */
#define ZEROS_15 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define ZEROS_16 ZEROS_15 "\0"
static const char berlin[] = "TZif2" ZEROS_15 ZEROS_16 "\0\0\0\0\0\0\0\0"
                             "TZif2" ZEROS_15 ZEROS_16 "\0\0\0\1\0\0\0\4"
                             "\0\0\16\20\0\0CET\0\nCET-1CEST,M3.5.0,M10.5.0/3\n";

#endif
