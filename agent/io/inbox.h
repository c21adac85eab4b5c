/* What other threads hand to the loop. Items that come together are handed over with one wake-up: one for each would cost both
 * threads as much as a small request does. */
#ifndef CARILLON_IO_INBOX_H
#define CARILLON_IO_INBOX_H

#include "agent/base/list.h"

struct loop;
struct inbox;

/* TAKE runs on LOOP for each item, in the order of inbox_add(). Loop thread. */
struct inbox *inbox_new(struct loop *loop, void (*take)(void *arg, struct list *item), void *arg);
/* Any thread: ITEM, which is in no list, is the inbox's until TAKE gets it. */
void inbox_add(struct inbox *b, struct list *item);
/* Any thread, one at a time: from now on what is added comes with inbox_post() or inbox_gathered(), or earlier when it is much. For
 * stretches in which several items may be added and nothing is waited for. */
void inbox_gather(struct inbox *b);
/* Hand over what was gathered so far; gathering goes on. */
void inbox_post(struct inbox *b);
/* The same, and gathering ends. */
void inbox_gathered(struct inbox *b);
/* Loop thread; nobody adds any more. TAKE runs for what is still here. NULL does nothing. */
void inbox_free(struct inbox *b);

#endif
