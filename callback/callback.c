#include "callback/callback.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"

struct callback_tls *callback_tls_new(const char *ca, const char *cert, const char *key,
                                      const char *server_name)
{
    if (!ca && !cert && !key && !server_name)
        return NULL;
    struct callback_tls *tls = mem_new(struct callback_tls);
    tls->ca = mem_strdup(ca);
    tls->cert = mem_strdup(cert);
    tls->key = mem_strdup(key);
    tls->server_name = mem_strdup(server_name);
    tls->users = 1;
    return tls;
}

struct callback_tls *callback_tls_ref(struct callback_tls *tls)
{
    if (tls)
        tls->users++;
    return tls;
}

void callback_tls_unref(struct callback_tls *tls)
{
    if (!tls)
        return;
    assert(tls->users > 0);
    if (--tls->users > 0)
        return;
    mem_free(tls->ca);
    mem_free(tls->cert);
    mem_free(tls->key);
    mem_free(tls->server_name);
    mem_free(tls);
}

int64_t callback_now_ms(const struct callback_gate *gate)
{
    return ((int64_t)clock_boot_us() + atomic_load_explicit(&gate->wall_offset_us, memory_order_relaxed)) /
           1000;
}

void callback_key(const struct callback_attempt *a, char ret[CALLBACK_KEY_SIZE])
{
    char fire[56];
    fire_id_print(&a->delivery->uid, a->delivery->seq, fire);
    if (a->parts > 0)
        (void)snprintf(ret, CALLBACK_KEY_SIZE, "%s/%u", fire, a->part); /* fits */
    else
        memcpy(ret, fire, strlen(fire) + 1);
}

bool callback_may_start(struct callback_attempt *a, const struct callback_gate *gate)
{
    int expected = CALLBACK_QUEUED;
    if (atomic_load(&gate->closed) || (int64_t)clock_boot_ms() >= atomic_load(&gate->lease_until_ms))
        return false;
    if (callback_now_ms(gate) < a->delivery->from_ms) /* the clock was set back since this was begun */
        return false;
    return atomic_compare_exchange_strong(&a->state, &expected, CALLBACK_STARTED);
}

bool callback_claim(struct callback_attempt *a)
{
    int expected = CALLBACK_QUEUED;
    return atomic_compare_exchange_strong(&a->state, &expected, CALLBACK_STARTED) ||
           expected == CALLBACK_STARTED;
}

static bool listed(const struct job_code_range *codes, size_t count, int status)
{
    for (size_t i = 0; i < count; i++)
        if (status >= codes[i].low && status <= codes[i].high)
            return true;
    return false;
}

enum attempt_result callback_judge(const struct job_callback *cb, int status)
{
    if (cb->async && cb->transport == JOB_HTTP && status == 202)
        return ATTEMPT_OPEN;
    if (listed(cb->success, cb->success_count, status))
        return ATTEMPT_OK;
    return listed(cb->give_up, cb->give_up_count, status) ? ATTEMPT_GIVE_UP : ATTEMPT_RETRY;
}

/* --- writing a result ---------------------------------------------------------------------------------------------- */

void callback_copy_text(char *out, size_t size, const char *text)
{
    size_t len = strnlen(text, size - 1);
    for (size_t i = 0; i < len; i++)
        out[i] = (char)(text[i] < ' ' || text[i] > '~' ? '?' : text[i]);
    out[len] = '\0';
}

void callback_set_error(struct attempt *r, const char *text)
{
    callback_copy_text(r->error, sizeof(r->error), text);
}

void callback_set_excerpt(struct attempt *r, const char *data, size_t bytes)
{
    size_t whole = bytes;
    for (size_t cut = 0; cut < 4 && cut <= bytes; cut++) /* the end may split a character */
        if (text_utf8_valid(data, bytes - cut)) {
            whole = bytes - cut;
            break;
        }
    bool text = text_utf8_valid(data, whole);
    for (size_t i = 0; i < whole; i++) {
        unsigned char c = (unsigned char)data[i];
        r->excerpt[i] = (char)(c < 0x20 || c == 0x7f || (!text && c >= 0x80) ? ' ' : c);
    }
    r->excerpt[whole] = '\0';
}
_Static_assert(CALLBACK_EXCERPT_MAX < sizeof(((struct attempt *)0)->excerpt), "an excerpt and its NUL fit");

void callback_set_unsent(struct callback_attempt *a, const struct callback_gate *gate,
                         enum attempt_result result, const char *why)
{
    a->result = (struct attempt){
        .result = result, .status = -1, .retry_after_ms = -1, .started_ms = callback_now_ms(gate)};
    callback_copy_text(a->result.endpoint, sizeof(a->result.endpoint), a->endpoint);
    callback_set_error(&a->result, why);
}
