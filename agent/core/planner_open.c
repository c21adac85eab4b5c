/* Asynchronous callees: a 202 hands the fire over (OPEN), a completion ends the attempt, heartbeats extend it, silence is a
 * failure. The row says until when; the attempt stands in the log from the 202 on, and is told again how it ended. */
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/core/planner_private.h"

/* Callees that could reach nobody for a while get so long to be heard before their silence counts. */
#define OPEN_GRACE_MS 5000

static int64_t earlier(int64_t a_ms, int64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

static void copy_text(char *ret, size_t size, const char *text)
{
    size_t len = text_utf8_cut(text, strlen(text), size - 1);
    memcpy(ret, text, len);
    ret[len] = '\0';
}

/* By the definition that the callee was called with: a later one may not be asynchronous at all. */
void popen_begin(struct planner *p, struct pfire *f, const struct attempt *attempt)
{
    const struct job_callback *cb = &f->delivery.spec->callback;
    struct fire_row *row = &f->row;
    pend_log(p, row, attempt);
    pend_tell(p, f->job, row, attempt, 1);
    pfire_wait_until(p, f, 0);
    row->state = FIRE_STATE_OPEN;
    row->until_ms = planner_add_ms(attempt->started_ms, cb->async_max_ms);
    row->wake_ms = earlier(planner_add_ms(p->now_ms, cb->async_timeout_ms), row->until_ms);
    pfire_set_target(p, f, false); /* it waits for nothing there */
}

bool popen_extend(struct planner *p, struct pfire *f)
{
    const struct job_callback *cb = &f->job->spec->callback;
    int64_t wake_ms = earlier(planner_add_ms(p->now_ms, cb->async_timeout_ms), f->row.until_ms);
    if (!cb->async || wake_ms <= f->row.wake_ms)
        return false;
    f->row.wake_ms = wake_ms;
    pfire_dirty(p, f, CHANGE_UPDATE);
    return true;
}

int64_t popen_deadline_ms(const struct planner *p, const struct pfire *f)
{
    int64_t grace_ms = p->now_ms + OPEN_GRACE_MS;
    return f->row.wake_ms > grace_ms ? f->row.wake_ms : grace_ms;
}

/* Whether the log's last entry is to be told anew: that of the attempt which is open, whichever attempt ends it, or that of NUMBER
 * itself, which was taken for failed too early. */
static bool is_told(const struct pfire *f, uint32_t number)
{
    const struct fire_row *row = &f->row;
    bool waits = row->state == FIRE_STATE_WAITING && !f->in_flight;
    return (row->state == FIRE_STATE_OPEN && row->attempts >= number) || (waits && row->attempts == number);
}

/* The attempt as the log has it since its 202, or as far as it is known of one whose reply has not come. Actions point to it, so it
 * lives until the next step. */
static struct attempt *attempt_of(struct planner *p, struct pfire *f, uint32_t number)
{
    struct fire_row *row = &f->row;
    struct attempt *a = mem_new(struct attempt);
    planner_trash(p, mem_free, a);
    *a = (struct attempt){.status = -1, .retry_after_ms = -1, .started_ms = p->now_ms};
    bool told = is_told(f, number);
    if (row->state == FIRE_STATE_HELD && row->wake_ms < p->now_ms)
        a->started_ms = row->wake_ms;
    else if (f->in_flight && f->begun_ms < p->now_ms)
        a->started_ms = f->begun_ms;
    if (told && !pend_log_pop(p, row, a))
        a->started_ms = row->attempt_ms;
    if (number > row->attempts)
        row->attempts = number;
    if (row->started_ms == RECORD_NONE)
        row->started_ms = a->started_ms;
    int64_t took_ms = p->now_ms - a->started_ms;
    a->duration_ms = took_ms <= 0 ? 0 : took_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)took_ms;
    row->attempt_ms = a->started_ms;
    row->until_ms = RECORD_NONE;
    return a;
}

void popen_succeed(struct planner *p, struct pfire *f, uint32_t number, const char *detail)
{
    struct attempt *a = attempt_of(p, f, number);
    a->result = ATTEMPT_OK;
    a->error[0] = '\0';
    copy_text(a->excerpt, sizeof(a->excerpt), detail);
    pend_log(p, &f->row, a);
    if (f->in_flight) {
        pfire_revoke(p, f);
        f->ignored = true;
    }
    pfire_end(p, f, FIRE_OUTCOME_SUCCEEDED, FIRE_REASON_NONE, a);
}

void popen_fail(struct planner *p, struct pfire *f, uint32_t number, const char *error, const char *detail,
                bool by_hand)
{
    struct attempt *a = attempt_of(p, f, number);
    a->result = ATTEMPT_RETRY;
    copy_text(a->error, sizeof(a->error), error);
    copy_text(a->excerpt, sizeof(a->excerpt), detail);
    pend_log(p, &f->row, a);
    bool told = f->row.state == FIRE_STATE_OPEN;
    if (f->in_flight) {
        pfire_abort(p, f);
        f->settled = true;
    }
    if (by_hand)
        pfire_wait_until(p, f, p->now_ms);
    else
        pfire_after_failure(p, f, a, told);
    f->ignored |= f->ended && f->in_flight;
    if (!f->ended)
        pfire_set_target(p, f, true);
}

void popen_silent(struct planner *p, struct pfire *f)
{
    char error[80], at[TEXT_INSTANT_SIZE];
    text_instant_print(at, f->row.wake_ms);
    (void)snprintf(error, sizeof(error), "no completion and no heartbeat before %s", at); /* fits */
    popen_fail(p, f, f->row.attempts, error, "", false);
}
