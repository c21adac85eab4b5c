/* The message that goes to /carillon.v1.Callback/Fire (callback/proto). The only code that knows what protobuf-c generates. */
#ifndef CARILLON_CALLBACK_FIRE_MESSAGE_H
#define CARILLON_CALLBACK_FIRE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct delivery;
struct err;

#define FIRE_METHOD "/carillon.v1.Callback/Fire"

/* Append the FireRequest of D, whose attempt times out at DEADLINE_MS, to OUT. ERR_TOO_BIG, ERR_NOMEM: OUT's. */
int fire_message_encode(const struct delivery *d, int64_t deadline_ms, struct buf *out, struct err *e);

/* The payload of a FireRequest, appended to OUT. ERR_INVALID: it is none; ERR_TOO_BIG, ERR_NOMEM: OUT's. */
int fire_message_payload(const void *message, size_t bytes, struct buf *out, struct err *e);

#endif
