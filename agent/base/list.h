/* Intrusive circular doubly linked list. The head is a link of its own; a link that is in no list points at itself
 * (list_link_init) so that removal may be repeated. Owns nothing. One thread at a time. */
#ifndef CARILLON_BASE_LIST_H
#define CARILLON_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct list {
    struct list *next;
    struct list *prev;
};

/* Make L an empty head, or a link that is in no list. */
static inline void list_init(struct list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

/* Whether LINK (initialised) is in a list. */
static inline bool list_linked(const struct list *link)
{
    return link->next != link;
}

static inline void list_insert_after(struct list *at, struct list *link)
{
    link->prev = at;
    link->next = at->next;
    at->next->prev = link;
    at->next = link;
}

static inline void list_push_front(struct list *head, struct list *link)
{
    list_insert_after(head, link);
}

static inline void list_push_back(struct list *head, struct list *link)
{
    list_insert_after(head->prev, link);
}

/* Take LINK out of its list; it is then initialised. Does nothing when it is in none. */
static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/* NULL when empty. */
static inline struct list *list_first(const struct list *head)
{
    return list_empty(head) ? NULL : head->next;
}

static inline struct list *list_last(const struct list *head)
{
    return list_empty(head) ? NULL : head->prev;
}

/* First link, taken out; NULL when empty. */
static inline struct list *list_pop_front(struct list *head)
{
    struct list *link = list_first(head);
    if (link)
        list_remove(link);
    return link;
}

/* Append all of FROM to TO; FROM is then empty. */
static inline void list_splice_back(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

/* Walks all links: linear. */
static inline size_t list_length(const struct list *head)
{
    size_t n = 0;
    for (const struct list *l = head->next; l != head; l = l->next)
        n++;
    return n;
}

/* The body must not change the list. */
#define LIST_FOR(pos, head) for (struct list * (pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)

/* The body may remove (and free) POS, and no other link. */
#define LIST_FOR_SAFE(pos, head)                                                          \
    for (struct list * (pos) = (head)->next, *pos##_next_ = (pos)->next; (pos) != (head); \
         (pos) = pos##_next_, pos##_next_ = (pos)->next)

#endif
