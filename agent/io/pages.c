#include "agent/io/pages.h"

#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* A library that was built without position-independent code has pages of its own where others have the file's. */
static bool has_changed_code(const struct dl_phdr_info *info)
{
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_DYNAMIC)
            continue;
        for (const ElfW(Dyn) *d = (const ElfW(Dyn) *)(info->dlpi_addr + p->p_vaddr); d->d_tag != DT_NULL; d++)
            if (d->d_tag == DT_TEXTREL || (d->d_tag == DT_FLAGS && (d->d_un.d_val & DF_TEXTREL)))
                return true;
    }
    return false;
}

/* Only whole pages of what nobody can write: those hold what the file holds. */
static int give_back_segments(struct dl_phdr_info *info, size_t size, void *arg)
{
    uintptr_t page = *(const uintptr_t *)arg;
    (void)size;
    if (has_changed_code(info))
        return 0;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t begin = (info->dlpi_addr + p->p_vaddr + page - 1) / page * page;
        uintptr_t end = (info->dlpi_addr + p->p_vaddr + p->p_filesz) / page * page;
        if (p->p_type == PT_LOAD && !(p->p_flags & PF_W) && begin < end)
            (void)madvise((void *)begin, end - begin,
                          MADV_DONTNEED); /* what is not a file's (the vdso) refuses */
    }
    return 0;
}

void pages_trim(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0); /* whether there was any */
#endif
}

void pages_give_back(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)dl_iterate_phdr(give_back_segments, &page); /* what the callback returned */
    pages_trim();
}
