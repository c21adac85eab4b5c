/* Where the next page of a list begins, as text that clients hand back. No memory is asked for: a cursor that is lost would end the
 * list. */
#include <stdio.h>
#include <string.h>

#include "agent/api/request.h"
#include "agent/base/text.h"

/* base64url without padding */
static void cursor_encode(const char *plain, size_t len, char ret[API_CURSOR_SIZE])
{
    text_base64_encode_to(ret, plain, len);
    ret[strcspn(ret, "=")] = '\0';
    for (char *c = ret; *c; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
}

static bool cursor_decode(const char *text, char ret[API_CURSOR_SIZE])
{
    char standard[API_CURSOR_SIZE];
    size_t len = strlen(text);
    if (len == 0 || len > sizeof(standard) - 4)
        return false;
    for (size_t i = 0; i < len; i++)
        standard[i] = text[i] == '-'                     ? '+'
                      : text[i] == '_'                   ? '/'
                      : text[i] == '+' || text[i] == '/' ? '!'
                                                         : text[i];
    while (len % 4)
        standard[len++] = '=';
    if (text_base64_decode_to(ret, &len, standard, len, NULL) < 0)
        return false;
    ret[len] = '\0';
    return strlen(ret) == len;
}

/* The part of *AT up to the next slash, or to the end, into RET; false: too long, or there is nothing left. */
static bool cursor_part(const char **at, char *ret, size_t size)
{
    size_t len = *at ? strcspn(*at, "/") : size;
    if (len >= size)
        return false;
    memcpy(ret, *at, len);
    ret[len] = '\0';
    *at = (*at)[len] ? *at + len + 1 : NULL;
    return true;
}

void api_cursor_print(const char *ns, const char *id, char ret[API_CURSOR_SIZE])
{
    char plain[RECORD_NS_MAX + RECORD_ID_MAX];
    int len = snprintf(plain, sizeof(plain), "%s/%s", ns, id);
    cursor_encode(plain, (size_t)len, ret);
}

bool api_cursor_parse(const char *text, char ret_ns[RECORD_NS_MAX], char ret_id[RECORD_ID_MAX])
{
    char plain[API_CURSOR_SIZE], ns[RECORD_NS_MAX], id[RECORD_ID_MAX];
    if (!cursor_decode(text, plain))
        return false;
    const char *at = plain;
    if (!cursor_part(&at, ns, sizeof(ns)) || !cursor_part(&at, id, sizeof(id)) || at ||
        text_check_namespace(ns, strlen(ns), NULL) < 0 || text_check_id(id, strlen(id), NULL) < 0)
        return false;
    memcpy(ret_ns, ns, sizeof(ns));
    memcpy(ret_id, id, sizeof(id));
    return true;
}

void api_fire_cursor_print(const char *ns, const struct api_fire_cursor *c, char ret[API_CURSOR_SIZE])
{
    char plain[RECORD_NS_MAX + RECORD_ID_MAX + 96], uid[33];
    uid_print(&c->uid, uid);
    int len = c->in_rings ? snprintf(plain, sizeof(plain), "%s/s/%s/%llu/%s", ns, uid,
                                     (unsigned long long)c->seq, c->after_id)
                          : snprintf(plain, sizeof(plain), "%s/b/%s/%llu/%lld", ns, uid,
                                     (unsigned long long)c->seq, (long long)c->due_ms);
    cursor_encode(plain, (size_t)len, ret);
}

bool api_fire_cursor_parse(const char *text, char ret_ns[RECORD_NS_MAX], struct api_fire_cursor *ret)
{
    char plain[API_CURSOR_SIZE], ns[RECORD_NS_MAX], kind[2], uid[33], seq[24], rest[RECORD_ID_MAX];
    struct api_fire_cursor c = {0};
    if (!cursor_decode(text, plain))
        return false;
    const char *at = plain;
    if (!cursor_part(&at, ns, sizeof(ns)) || !cursor_part(&at, kind, sizeof(kind)) ||
        !cursor_part(&at, uid, sizeof(uid)) || !cursor_part(&at, seq, sizeof(seq)) ||
        !cursor_part(&at, rest, sizeof(rest)) || at)
        return false;
    c.in_rings = kind[0] == 's';
    if (text_check_namespace(ns, strlen(ns), NULL) < 0 || !uid_parse(uid, strlen(uid), &c.uid) ||
        text_u64(seq, strlen(seq), 0, UINT64_MAX, &c.seq, NULL) < 0)
        return false;
    if (c.in_rings && rest[0] && text_check_id(rest, strlen(rest), NULL) < 0)
        return false;
    if (!c.in_rings &&
        (kind[0] != 'b' || text_i64(rest, strlen(rest), INT64_MIN + 1, INT64_MAX, &c.due_ms, NULL) < 0))
        return false;
    if (c.in_rings)
        memcpy(c.after_id, rest, sizeof(rest));
    memcpy(ret_ns, ns, sizeof(ns));
    *ret = c;
    return true;
}

void api_revision_cursor_print(int64_t at_ms, uint64_t change_id, char ret[API_REVISION_CURSOR_SIZE])
{
    (void)snprintf(ret, API_REVISION_CURSOR_SIZE, "%lld.%llu", (long long)at_ms,
                   (unsigned long long)change_id); /* fits */
}

bool api_revision_cursor_parse(const char *text, int64_t *ret_at_ms, uint64_t *ret_change_id)
{
    const char *dot = strchr(text, '.');
    return dot && text_i64(text, (size_t)(dot - text), 0, INT64_MAX, ret_at_ms, NULL) == 0 &&
           text_u64(dot + 1, strlen(dot + 1), 0, UINT64_MAX, ret_change_id, NULL) == 0;
}
