#define _GNU_SOURCE /* MAP_ANONYMOUS */

#include "agent/store/raft/slab.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/base/list.h"
#include "agent/base/mem.h"

#define STEP       8
#define SIZES      (SLAB_MAX_BYTES / STEP)
#define PAGE_BYTES ((size_t)1 << 20)
#define KEPT_EMPTY 1 /* of a size: what comes and goes does not map memory each time */

#if defined(__SANITIZE_ADDRESS__)
#define FROM_MALLOC true /* it watches over what is malloc's */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FROM_MALLOC true
#endif
#endif
#ifndef FROM_MALLOC
#define FROM_MALLOC false
#endif

/* A thing that is free. */
struct hole {
    struct hole *next;
};

/* At the beginning of its memory, which is aligned to its size. */
struct page {
    struct slab *slab;
    struct list link; /* of those of its size that have room */
    struct hole *holes;
    uint32_t size;  /* of a thing */
    uint32_t fresh; /* where what was never handed out begins */
    uint32_t used;
};

struct slab {
    pthread_mutex_t lock;
    struct list with_room[SIZES];
    size_t empty[SIZES]; /* pages of those, of which nothing is used */
    size_t pages;
    size_t used;
    bool ending;
};

static bool is_small(size_t bytes)
{
    return bytes <= SLAB_MAX_BYTES && !FROM_MALLOC;
}

static size_t index_of(size_t bytes)
{
    return bytes ? (bytes - 1) / STEP : 0;
}

struct slab *slab_new(void)
{
    struct slab *s = mem_new(struct slab);
    (void)pthread_mutex_init(&s->lock, NULL); /* cannot fail without attributes */
    for (size_t i = 0; i < SIZES; i++)
        list_init(&s->with_room[i]);
    return s;
}

/* --- pages --------------------------------------------------------------------------------------------------------- */

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        (void)!write(STDERR_FILENO, "out of memory\n", 14); /* nothing is left to report a failure with */
        abort();
    }
    return p;
}

/* Twice as much is asked for, and what lies before and behind the aligned part goes back. */
static void *map_aligned(void)
{
    char *all = map(2 * PAGE_BYTES);
    size_t before = (size_t)(-(uintptr_t)all & (PAGE_BYTES - 1));
    if (before > 0)
        (void)munmap(all, before); /* cannot fail for what was mapped */
    (void)munmap(all + before + PAGE_BYTES, PAGE_BYTES - before);
    return all + before;
}

static struct page *page_new(struct slab *s, size_t index)
{
    struct page *page = map_aligned();
    *page = (struct page){.slab = s,
                          .size = (uint32_t)((index + 1) * STEP),
                          .fresh = (uint32_t)((sizeof(*page) + STEP - 1) / STEP * STEP)};
    list_init(&page->link);
    assert(list_empty(&s->with_room[index]));
    list_push_front(&s->with_room[index], &page->link);
    s->empty[index]++;
    s->pages++;
    return page;
}

static void page_free(struct page *page, size_t index)
{
    struct slab *s = page->slab;
    list_remove(&page->link);
    s->empty[index]--;
    s->pages--;
    (void)munmap(page, PAGE_BYTES); /* cannot fail for what was mapped */
}

static bool is_full(const struct page *page)
{
    return !page->holes && page->fresh + page->size > PAGE_BYTES;
}

/* --- things -------------------------------------------------------------------------------------------------------- */

static void *take(struct page *page)
{
    struct hole *hole = page->holes;
    if (hole) {
        page->holes = hole->next;
        return hole;
    }
    void *p = (char *)page + page->fresh;
    page->fresh += page->size;
    return p;
}

void *slab_get(struct slab *s, size_t bytes)
{
    if (!is_small(bytes))
        return mem_alloc_or_die(1, bytes);
    size_t index = index_of(bytes);
    pthread_mutex_lock(&s->lock);
    struct list *first = list_first(&s->with_room[index]);
    struct page *page = first ? container_of(first, struct page, link) : page_new(s, index);
    void *p = take(page);
    s->empty[index] -= page->used == 0;
    page->used++;
    s->used++;
    if (is_full(page))
        list_remove(&page->link);
    pthread_mutex_unlock(&s->lock);
    return p;
}

static void destroy(struct slab *s)
{
    for (size_t i = 0; i < SIZES; i++)
        for (struct list *link; (link = list_first(&s->with_room[i]));)
            page_free(container_of(link, struct page, link), i);
    (void)pthread_mutex_destroy(&s->lock); /* nobody has it */
    mem_free(s);
}

static void give_back(struct page *page, struct hole *hole)
{
    struct slab *s = page->slab;
    size_t index = index_of(page->size);
    if (is_full(page))
        list_push_front(&s->with_room[index], &page->link);
    hole->next = page->holes;
    page->holes = hole;
    page->used--;
    s->used--;
    if (page->used > 0)
        return;
    s->empty[index]++;
    if (s->empty[index] > KEPT_EMPTY)
        page_free(page, index);
}

void slab_put(void *p, size_t bytes)
{
    if (!p || !is_small(bytes)) {
        mem_free(p);
        return;
    }
    struct page *page = (struct page *)((uintptr_t)p & ~(uintptr_t)(PAGE_BYTES - 1));
    struct slab *s = page->slab;
    assert(index_of(bytes) == index_of(page->size));
    pthread_mutex_lock(&s->lock);
    give_back(page, p);
    bool last = s->ending && s->used == 0;
    pthread_mutex_unlock(&s->lock);
    if (last)
        destroy(s);
}

void slab_free(struct slab *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->ending = true;
    bool last = s->used == 0;
    pthread_mutex_unlock(&s->lock);
    if (last)
        destroy(s);
}

bool slab_fits(size_t had, size_t bytes)
{
    return is_small(had) && is_small(bytes) ? index_of(had) == index_of(bytes) : had == bytes;
}

size_t slab_pages(struct slab *s)
{
    pthread_mutex_lock(&s->lock);
    size_t pages = s->pages;
    pthread_mutex_unlock(&s->lock);
    return pages;
}
