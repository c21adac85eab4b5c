/* Finished attempts on their way from a transport's threads back to the loop, a batch a loop_post. */
#ifndef CARILLON_CALLBACK_HANDBACK_H
#define CARILLON_CALLBACK_HANDBACK_H

#include "callback/callback.h"

struct handback;

/* DONE runs on LOOP for each attempt. Loop thread. */
struct handback *handback_new(struct loop *loop, callback_done *done, void *arg);
/* Any thread: A has its result and is the loop's again. */
void handback_add(struct handback *h, struct callback_attempt *a);
/* One thread at a time, around what may finish several attempts and does not wait: they go out together at its end, with one
 * wake-up of the loop, or a few when they are many. */
void handback_gather(struct handback *h);
void handback_gathered(struct handback *h);
/* Loop thread; nobody adds any more. DONE runs for what is still here. NULL does nothing. */
void handback_free(struct handback *h);

#endif
