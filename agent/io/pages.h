/* Memory that only the start of a process needed. */
#ifndef CARILLON_IO_PAGES_H
#define CARILLON_IO_PAGES_H

/* Any thread. Unmap the pages of code and constants of the program and its libraries that were read so far, and give back what the
 * allocator holds free: most of both belongs to the loading and starting that will not come again. What is still needed is
 * found again in the kernel's cache of the files, at the cost of a fault. Whatever cannot be given back stays. */
void pages_give_back(void);

#endif
