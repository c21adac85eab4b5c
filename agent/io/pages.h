/* Memory that is not needed any more. */
#ifndef CARILLON_IO_PAGES_H
#define CARILLON_IO_PAGES_H

/* Any thread. Unmap the pages of code and constants of the program and its libraries that were read so far, and give back what the
 * allocator holds free: most of both belongs to the loading and starting that will not come again. What is still needed is
 * found again in the kernel's cache of the files, at the cost of a fault. Whatever cannot be given back stays. */
void pages_give_back(void);
/* Only what the allocator holds free: when much of it was used for a while. Any thread; takes some milliseconds for 100 MiB. */
void pages_trim(void);

#endif
