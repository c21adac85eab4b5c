#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/io/pages.h"

/* Constants that are a part of the program's file, read nowhere else. */
#define BIG_BYTES ((size_t)1 << 20)
static const unsigned char big[BIG_BYTES] = {[0] = 1, [BIG_BYTES / 2] = 2, [BIG_BYTES - 1] = 3};
static unsigned char changed[1 << 16] = {1};

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Where a table says which of our pages are mapped: bit 63 is "present". */
static size_t present_pages(const unsigned char *from, size_t bytes)
{
    size_t page = page_bytes(), count = 0;
    FILE *map = fopen("/proc/self/pagemap", "rb");
    cr_assert(map != NULL);
    for (uintptr_t at = ((uintptr_t)from + page - 1) / page * page; at + page <= (uintptr_t)from + bytes;
         at += page) {
        uint64_t entry = 0;
        cr_assert(zero(int, fseek(map, (long)(at / page * sizeof(entry)), SEEK_SET)));
        cr_assert(eq(sz, fread(&entry, sizeof(entry), 1, map), 1));
        count += entry >> 63;
    }
    (void)fclose(map);
    return count;
}

static unsigned touch(const volatile unsigned char *from, size_t bytes)
{
    unsigned sum = 0;
    for (size_t i = 0; i < bytes; i += page_bytes())
        sum += from[i];
    return sum + from[bytes - 1];
}

Test(pages, constants_that_were_read_are_unmapped_and_read_the_same_again)
{
    (void)touch(big, BIG_BYTES);
    size_t before = present_pages(big, BIG_BYTES);
    cr_assert(gt(sz, before, BIG_BYTES / page_bytes() / 2));
    pages_give_back();
    cr_assert(lt(sz, present_pages(big, BIG_BYTES), before / 4));
    cr_assert(eq(uint, touch(big, BIG_BYTES), 1 + 2 + 3));
}

Test(pages, what_was_written_stays)
{
    for (size_t i = 0; i < sizeof(changed); i++)
        changed[i] = (unsigned char)(i * 7);
    pages_give_back();
    for (size_t i = 0; i < sizeof(changed); i++)
        cr_assert(eq(uint, changed[i], (i * 7) & 255));
}
