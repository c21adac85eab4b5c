/* One gRPC attempt: to an address, over a line, to its result. */
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/core/grpc_code.h"
#include "agent/core/retry.h"
#include "callback/callback_grpc_private.h"
#include "callback/fire_message.h"

static const struct job_callback *callback_of(const struct grpc_rpc *rpc)
{
    return &rpc->attempt->delivery->spec->callback;
}

static const struct callback_gate *gate_of(const struct grpc_rpc *rpc)
{
    return rpc->t->options.gate;
}

/* --- ends without a call ------------------------------------------------------------------------------------------- */

void grpc_rpc_refuse(struct grpc_rpc *rpc, const char *why)
{
    callback_set_unsent(rpc->attempt, gate_of(rpc), ATTEMPT_NOT_STARTED, why);
    grpc_rpc_end(rpc);
}

void grpc_rpc_fail(struct grpc_rpc *rpc, const char *why)
{
    uint64_t spent_us = clock_boot_us() - rpc->taken_us;
    if (!callback_claim(rpc->attempt)) {
        grpc_rpc_refuse(rpc, "not started: revoked");
        return;
    }
    callback_set_unsent(rpc->attempt, gate_of(rpc), ATTEMPT_RETRY, why);
    rpc->attempt->result.duration_ms = (uint32_t)(spent_us / 1000);
    rpc->attempt->latency_us = spent_us;
    grpc_rpc_end(rpc);
}

/* --- to a line ----------------------------------------------------------------------------------------------------- */

static bool is_permitted(const struct grpc_rpc *rpc, const struct sockaddr_storage *address,
                         char why[GUARD_WHY_SIZE])
{
    return !rpc->use.guard || guard_permits(rpc->use.guard, (const struct sockaddr *)address,
                                            callback_of(rpc)->address != NULL, why);
}

/* WHY of the last refusal stays. */
static bool choose_address(struct grpc_rpc *rpc, char why[GUARD_WHY_SIZE])
{
    while (rpc->next_address < rpc->where.count) {
        rpc->address = &rpc->where.addresses[rpc->next_address++];
        if (is_permitted(rpc, rpc->address, why))
            return true;
    }
    return false;
}

void grpc_rpc_connect(struct grpc_rpc *rpc, const char *why)
{
    char denied[GUARD_WHY_SIZE] = "";
    struct err e = {0};
    if (!choose_address(rpc, denied)) {
        if (why || denied[0])
            grpc_rpc_fail(rpc, why ? why : denied);
        else
            grpc_rpc_start(rpc, false); /* on the line that failed, to learn why */
        return;
    }
    rpc->line = grpc_line_get(rpc, &e);
    if (!rpc->line)
        grpc_rpc_fail(rpc, e.text);
    else if (rpc->line->ready)
        grpc_rpc_start(rpc, true);
    else
        grpc_line_wait(rpc->line, rpc);
}

void grpc_rpc_begin(struct grpc_rpc *rpc)
{
    if (atomic_load(&rpc->attempt->state) == CALLBACK_REVOKED) {
        grpc_rpc_refuse(rpc, "not started: revoked");
    } else if (rpc->where.count == 0) {
        grpc_rpc_fail(rpc, rpc->where.error);
    } else {
        safety_use(rpc->t->options.safety, &rpc->use);
        grpc_rpc_connect(rpc, NULL);
    }
}

/* --- the request --------------------------------------------------------------------------------------------------- */

static int build_message(struct grpc_rpc *rpc, int64_t deadline_ms, grpc_byte_buffer **ret, struct err *e)
{
    const struct delivery *d = rpc->attempt->delivery;
    grpc_slice slice;
    if (strcmp(callback_of(rpc)->method, FIRE_METHOD) == 0) {
        buf_reset(&rpc->t->message);
        int rc = fire_message_encode(d, deadline_ms, &rpc->t->message, e);
        if (rc < 0)
            return rc;
        slice = grpc_slice_from_copied_buffer(buf_str(&rpc->t->message), rpc->t->message.len);
    } else {
        slice =
            grpc_slice_from_copied_buffer(d->payload ? d->payload : "", d->payload ? d->payload_bytes : 0);
    }
    *ret = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return 0;
}

static void free_metadata(grpc_metadata *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        grpc_slice_unref(list[i].key);
        grpc_slice_unref(list[i].value);
    }
}

/* What gRPC would refuse is refused here, where it can be said which one it is. */
static int build_metadata(const struct headers *h, grpc_metadata list[HEADERS_NODES_MAX], size_t *ret_count,
                          struct err *e)
{
    struct headers_pair pair;
    size_t count = 0;
    for (size_t at = 0; headers_next(h, &at, &pair); count++) {
        grpc_metadata *m = &list[count];
        *m = (grpc_metadata){.key = grpc_slice_from_copied_buffer(pair.name, pair.name_len),
                             .value = grpc_slice_from_copied_string(pair.value)};
        if (!grpc_header_key_is_legal(m->key) ||
            (!grpc_is_binary_header(m->key) && !grpc_header_nonbin_value_is_legal(m->value))) {
            free_metadata(list, count + 1);
            return err_set(e, ERR_INVALID, "metadata '%s' is not ASCII, or its name is not one for gRPC",
                           TEXTQ(pair.name, pair.name_len));
        }
    }
    *ret_count = count;
    return 0;
}

static gpr_timespec deadline_of(const struct grpc_rpc *rpc, uint64_t now_us)
{
    int64_t left_us = rpc->deadline_us > now_us ? (int64_t)(rpc->deadline_us - now_us) : 0;
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_micros(left_us, GPR_TIMESPAN));
}

static void start_sending(struct grpc_rpc *rpc, grpc_metadata *list, size_t count, grpc_byte_buffer *message)
{
    grpc_op ops[3] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                      {.op = GRPC_OP_SEND_MESSAGE},
                      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT}};
    ops[0].data.send_initial_metadata.count = count;
    ops[0].data.send_initial_metadata.metadata = list;
    ops[1].data.send_message.send_message = message;
    grpc_call_error rc = grpc_call_start_batch(rpc->call, ops, 3, &rpc->send_tag, NULL);
    assert(rc == GRPC_CALL_OK); /* the metadata was looked at, and nothing else can be wrong */
}

static void start_receiving(struct grpc_rpc *rpc)
{
    grpc_op ops[3] = {{.op = GRPC_OP_RECV_INITIAL_METADATA},
                      {.op = GRPC_OP_RECV_MESSAGE},
                      {.op = GRPC_OP_RECV_STATUS_ON_CLIENT}};
    ops[0].data.recv_initial_metadata.recv_initial_metadata = &rpc->initial;
    ops[1].data.recv_message.recv_message = &rpc->reply;
    ops[2].data.recv_status_on_client.trailing_metadata = &rpc->trailing;
    ops[2].data.recv_status_on_client.status = &rpc->code;
    ops[2].data.recv_status_on_client.status_details = &rpc->details;
    grpc_call_error rc = grpc_call_start_batch(rpc->call, ops, 3, &rpc->reply_tag, NULL);
    assert(rc == GRPC_CALL_OK);
}

static void on_sent(struct grpc_tag *tag, bool ok);
static void on_reply(struct grpc_tag *tag, bool ok);

/* Two batches: that the request has gone out is known before there is an answer. */
static void make_call(struct grpc_rpc *rpc, grpc_metadata *list, size_t count, grpc_byte_buffer *message,
                      uint64_t now_us)
{
    grpc_slice method = grpc_slice_from_copied_string(callback_of(rpc)->method);
    rpc->call = grpc_channel_create_call(rpc->line->channel, NULL, GRPC_PROPAGATE_DEFAULTS, rpc->t->cq,
                                         method, NULL, deadline_of(rpc, now_us), NULL);
    grpc_slice_unref(method);
    rpc->send_tag.run = on_sent;
    rpc->reply_tag.run = on_reply;
    grpc_metadata_array_init(&rpc->initial);
    grpc_metadata_array_init(&rpc->trailing);
    rpc->details = grpc_empty_slice();
    list_push_back(&rpc->line->running, &rpc->link);
    rpc->t->calls++;
    rpc->t->unsent++;
    start_sending(rpc, list, count, message);
    start_receiving(rpc);
}

static int prepare(struct grpc_rpc *rpc, uint64_t now_us, grpc_metadata *list, size_t *ret_count,
                   grpc_byte_buffer **ret_message, struct err *e)
{
    int64_t now_ms = callback_now_ms(gate_of(rpc));
    int64_t deadline_ms = now_ms + ((int64_t)rpc->deadline_us - (int64_t)now_us) / 1000;
    int rc = headers_build_metadata(&rpc->headers, rpc->attempt, now_ms, deadline_ms, &rpc->use, e);
    if (rc == 0)
        rc = build_message(rpc, deadline_ms, ret_message, e);
    if (rc < 0)
        return rc;
    rc = build_metadata(&rpc->headers, list, ret_count, e);
    if (rc < 0)
        grpc_byte_buffer_destroy(*ret_message);
    return rc;
}

/* The line may stand since long: the guard of now may not permit it. */
void grpc_rpc_start(struct grpc_rpc *rpc, bool ready)
{
    grpc_metadata list[HEADERS_NODES_MAX];
    grpc_byte_buffer *message = NULL;
    char denied[GUARD_WHY_SIZE];
    struct callback_attempt *a = rpc->attempt;
    struct err e = {0};
    size_t count = 0;
    uint64_t now_us = clock_boot_us();
    if (!is_permitted(rpc, rpc->address, denied)) {
        grpc_rpc_fail(rpc, denied);
        return;
    }
    if (now_us >= rpc->deadline_us) {
        grpc_rpc_fail(rpc, "timed out before there was a connection");
        return;
    }
    if (prepare(rpc, now_us, list, &count, &message, &e) < 0) {
        grpc_rpc_fail(rpc, e.text);
        return;
    }
    if (callback_may_start(a, gate_of(rpc))) {
        rpc->ready = ready;
        rpc->started_us = now_us;
        a->connect_us = now_us - rpc->taken_us;
        a->result =
            (struct attempt){.status = -1, .retry_after_ms = -1, .started_ms = callback_now_ms(gate_of(rpc))};
        make_call(rpc, list, count, message, now_us);
    }
    grpc_byte_buffer_destroy(message);
    free_metadata(list, count);
    if (!rpc->call)
        grpc_rpc_refuse(rpc, "not started: revoked, or the lease was no longer sure");
}

void grpc_rpc_cancel(struct grpc_rpc *rpc, const char *why)
{
    rpc->cancelled = why;
    (void)grpc_call_cancel(rpc->call, NULL); /* what cannot be cancelled has ended */
}

/* --- the result ---------------------------------------------------------------------------------------------------- */

static size_t copy_slice(char *out, size_t size, grpc_slice slice)
{
    size_t len = GRPC_SLICE_LENGTH(slice) < size - 1 ? GRPC_SLICE_LENGTH(slice) : size - 1;
    memcpy(out, GRPC_SLICE_START_PTR(slice), len);
    out[len] = '\0';
    return len;
}

/* The beginning of the reply. Of a compressed one nothing: it stays as it came. */
static size_t copy_reply(const struct grpc_rpc *rpc, char *out, size_t size)
{
    grpc_byte_buffer_reader reader;
    grpc_slice slice;
    size_t len = 0;
    if (!rpc->reply || rpc->reply->data.raw.compression != GRPC_COMPRESS_NONE ||
        !grpc_byte_buffer_reader_init(&reader, rpc->reply))
        return 0;
    while (len < size - 1 && grpc_byte_buffer_reader_next(&reader, &slice)) {
        len += copy_slice(out + len, size - len, slice);
        grpc_slice_unref(slice);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    return len;
}

/* Of the reply, wherever the callee put it; NULL: not there. */
static const grpc_slice *reply_metadata(const struct grpc_rpc *rpc, const char *name)
{
    const grpc_metadata_array *both[] = {&rpc->trailing, &rpc->initial};
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < both[k]->count; i++)
            if (grpc_slice_str_cmp(both[k]->metadata[i].key, name) == 0)
                return &both[k]->metadata[i].value;
    return NULL;
}

/* By it a callee of gRPC says what Retry-After says in HTTP. */
static int64_t retry_after_ms(const struct grpc_rpc *rpc)
{
    const grpc_slice *value = reply_metadata(rpc, "grpc-retry-pushback-ms");
    uint64_t ms;
    if (!value || text_u64((const char *)GRPC_SLICE_START_PTR(*value), GRPC_SLICE_LENGTH(*value), 1,
                           INT64_MAX, &ms, NULL) < 0)
        return -1;
    return ms < RETRY_AFTER_MAX_MS ? (int64_t)ms : (int64_t)RETRY_AFTER_MAX_MS;
}

static enum attempt_control control_of(const struct grpc_rpc *rpc)
{
    const grpc_slice *value = callback_of(rpc)->allow_control ? reply_metadata(rpc, "carillon-job") : NULL;
    if (!value)
        return ATTEMPT_CONTROL_NONE;
    if (grpc_slice_str_cmp(*value, "pause") == 0)
        return ATTEMPT_CONTROL_PAUSE;
    return grpc_slice_str_cmp(*value, "delete") == 0 ? ATTEMPT_CONTROL_DELETE : ATTEMPT_CONTROL_NONE;
}

/* gRPC begins with what is always the same; there is room for the end only. */
static const char *skip_preamble(const char *details)
{
    const char *last = strstr(details, "last error: ");
    return last ? last + strlen("last error: ") : details;
}

static void explain(struct grpc_rpc *rpc, struct attempt *r, const char *details)
{
    char text[sizeof(r->error) + CALLBACK_EXCERPT_MAX];
    const char *name = grpc_code_name((int)rpc->code);
    (void)snprintf(text, sizeof(text), "%s%s%s", name, details[0] ? ": " : "",
                   skip_preamble(details)); /* cut */
    callback_set_error(r, rpc->cancelled ? rpc->cancelled : text);
}

/* Whether CODE is the callee's word. The library says UNAVAILABLE by itself when the connection breaks, and giving up is not for that;
 * also the callee may refuse a request before all of it was sent. A deadline that passed is known to both sides alike. */
static bool is_answer(const struct grpc_rpc *rpc)
{
    if (rpc->cancelled)
        return false;
    if (rpc->code == GRPC_STATUS_DEADLINE_EXCEEDED)
        return rpc->ready;
    if (grpc_call_failed_before_recv_message(rpc->call))
        return false;
    return rpc->sent || (rpc->ready && rpc->code != GRPC_STATUS_UNAVAILABLE);
}

static void read_result(struct grpc_rpc *rpc, struct attempt *r)
{
    char details[CALLBACK_EXCERPT_MAX + 1], reply[CALLBACK_EXCERPT_MAX + 1];
    size_t bytes = copy_slice(details, sizeof(details), rpc->details);
    bool answer = is_answer(rpc);
    headers_hide_secrets(&rpc->headers, details, bytes);
    r->result = ATTEMPT_RETRY;
    if (answer) {
        r->status = (int)rpc->code;
        r->result = callback_judge(callback_of(rpc), r->status);
        r->retry_after_ms = retry_after_ms(rpc);
    }
    if (r->result == ATTEMPT_OK)
        r->control = control_of(rpc);
    r->sent = rpc->sent || rpc->ready; /* what had no success may have been half sent */
    if (rpc->code == GRPC_STATUS_OK && answer) {
        bytes = copy_reply(rpc, reply, sizeof(reply));
        headers_hide_secrets(&rpc->headers, reply, bytes);
        callback_set_excerpt(r, reply, bytes);
    } else {
        explain(rpc, r, details);
        callback_set_excerpt(r, details, answer ? bytes : 0);
    }
}

/* No answer to anything since this call began: the peer may be gone without a word, and the next attempt had better ask anew. */
static bool is_silent(const struct grpc_rpc *rpc, uint64_t now_us)
{
    return now_us >= rpc->deadline_us && rpc->code == GRPC_STATUS_DEADLINE_EXCEEDED &&
           rpc->line->heard_us < rpc->started_us;
}

static void finish(struct grpc_rpc *rpc)
{
    struct callback_attempt *a = rpc->attempt;
    struct grpc_line *line = rpc->line;
    uint64_t now_us = clock_boot_us();
    a->latency_us = now_us - rpc->taken_us;
    a->result.duration_ms = (uint32_t)((now_us - rpc->started_us) / 1000);
    callback_copy_text(a->result.endpoint, sizeof(a->result.endpoint), a->endpoint);
    read_result(rpc, &a->result);
    line->used_us = now_us;
    bool silent = is_silent(rpc, now_us);
    if (!silent && rpc->sent)
        line->heard_us = now_us;
    grpc_metadata_array_destroy(&rpc->initial);
    grpc_metadata_array_destroy(&rpc->trailing);
    grpc_slice_unref(rpc->details);
    grpc_byte_buffer_destroy(rpc->reply);
    grpc_call_unref(rpc->call);
    rpc->t->calls--;
    list_remove(&rpc->link);
    grpc_rpc_end(rpc);
    if (silent)
        grpc_line_retire(line);
    else
        grpc_line_settle(line);
}

static void on_sent(struct grpc_tag *tag, bool ok)
{
    struct grpc_rpc *rpc = container_of(tag, struct grpc_rpc, send_tag);
    rpc->t->unsent--;
    rpc->sent = ok;
    rpc->send_over = true;
    if (rpc->reply_over)
        finish(rpc);
}

static void on_reply(struct grpc_tag *tag, bool ok)
{
    struct grpc_rpc *rpc = container_of(tag, struct grpc_rpc, reply_tag);
    (void)ok; /* a batch with a status always succeeds */
    rpc->reply_over = true;
    if (rpc->send_over)
        finish(rpc);
}
