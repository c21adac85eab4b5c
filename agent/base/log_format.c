#include "agent/base/log_format.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"

static const char *const level_names[LOG_LEVEL_COUNT_] = {"error", "warn", "info", "debug"};

/* --- quoting ----------------------------------------------------------------------------------------------------- */

/* A run of bytes that are written as they are: no control characters, quotes or backslashes, whole UTF-8 characters. */
static size_t plain_char(const char *s, size_t len)
{
    unsigned char c = (unsigned char)*s;
    if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
        return 0;
    size_t n = 1;
    while (n <= 4 && n <= len && !text_utf8_valid(s, n))
        n++;
    return n <= 4 && n <= len ? n : 0;
}

static size_t put_escape(char *at, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    const char *letter = c == '\n' ? "n" : c == '\r' ? "r" : c == '\t' ? "t" : c == '"' ? "\"" : NULL;
    if (c == '\\')
        letter = "\\";
    at[0] = '\\';
    if (letter) {
        at[1] = *letter;
        return 2;
    }
    /* A byte that is no UTF-8 is shown as U+00XX; that is legal in JSON too. */
    memcpy(at + 1, "u00", 3);
    at[4] = hex[c >> 4];
    at[5] = hex[c & 15];
    return 6;
}

static bool needs_quotes(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] <= ' ' || s[i] == '"' || s[i] == '=' || s[i] == '\\' ||
            (unsigned char)s[i] >= 0x7f)
            return true;
    return len == 0;
}

/* The content of a quoted value: escapes are JSON's, so that one text serves both formats. */
static size_t put_escaped(char *at, const char *s, size_t len, size_t max)
{
    size_t n = 0, i = 0;
    while (i < len && i < max) {
        size_t plain = plain_char(s + i, len - i);
        if (plain) {
            memcpy(at + n, s + i, plain);
            n += plain;
            i += plain;
        } else {
            n += put_escape(at + n, (unsigned char)s[i++]);
        }
    }
    if (i < len) {
        memcpy(at + n, "…", 3);
        n += 3;
    }
    return n;
}

const char *log_quote(char buf[LOGQ_SIZE], const char *s, size_t len)
{
    if (!s)
        s = "", len = 0;
    if (len == LOGQ_NUL_TERMINATED)
        len = strnlen(s, LOGQ_MAX + 1);
    if (len <= LOGQ_MAX && !needs_quotes(s, len)) {
        memcpy(buf, s, len);
        buf[len] = '\0';
        return buf;
    }
    buf[0] = '"';
    size_t n = 1 + put_escaped(buf + 1, s, len, LOGQ_MAX - 3);
    memcpy(buf + n, "\"", 2);
    return buf;
}

/* --- pairs ------------------------------------------------------------------------------------------------------- */

struct pair {
    const char *key;
    size_t key_len;
    const char *value; /* with its quotes, if quoted */
    size_t value_len;
    bool quoted;
};

/* Length of "key" when "key=" stands at S, else 0. */
static size_t key_at(const char *s)
{
    size_t n = 0;
    while ((s[n] >= 'a' && s[n] <= 'z') || (s[n] >= '0' && s[n] <= '9') || s[n] == '_' || s[n] == '.')
        n++;
    return n > 0 && s[n] == '=' ? n : 0;
}

/* Length of the quoted text at S, 0 when it is not complete. */
static size_t quoted_span(const char *s)
{
    if (*s != '"')
        return 0;
    for (size_t i = 1; s[i]; i++) {
        if (s[i] == '\\' && s[i + 1])
            i++;
        else if (s[i] == '"')
            return s[i + 1] == ' ' || s[i + 1] == '\0' ? i + 1 : 0;
    }
    return 0;
}

/* An unquoted value goes on to the next " key=": a bare %s with a space inside stays one value. */
static size_t bare_span(const char *s)
{
    size_t n = 0;
    while (s[n] && !(s[n] == ' ' && key_at(s + n + 1) > 0))
        n++;
    return n;
}

/* The next pair at *AT, which moves behind it. What is no pair is skipped. */
static bool next_pair(const char **at, struct pair *ret)
{
    while (**at == ' ')
        ++*at;
    size_t key_len = key_at(*at);
    if (key_len == 0)
        return false;
    const char *value = *at + key_len + 1;
    size_t quoted = quoted_span(value), len = quoted ? quoted : bare_span(value);
    *ret = (struct pair){*at, key_len, value, len, quoted > 0};
    *at = value + len;
    return true;
}

static bool looks_like_number(const char *s, size_t len)
{
    double v;
    return text_double(s, len, -1e308, 1e308, &v, NULL) == 0;
}

/* Whether FMT prints KEY by a numeric conversion: "try=%u", "took=%.1f", "n=%" PRIu64. */
static bool is_numeric(const char *fmt, const struct pair *p)
{
    for (const char *at = strstr(fmt, "=%"); at; at = strstr(at + 2, "=%")) {
        if ((size_t)(at - fmt) < p->key_len || memcmp(at - p->key_len, p->key, p->key_len) != 0 ||
            ((size_t)(at - fmt) > p->key_len && at[-1 - (ptrdiff_t)p->key_len] != ' '))
            continue;
        const char *conv = at + 2 + strspn(at + 2, "-+ #0123456789.*lhzjt");
        return *conv && strchr("diufg", *conv) && (conv[1] == ' ' || conv[1] == '\0') &&
               looks_like_number(p->value, p->value_len);
    }
    return false;
}

/* --- lines ------------------------------------------------------------------------------------------------------- */

struct writer {
    char *out;
    size_t len;
    size_t max;
    bool json;
};

static void put(struct writer *w, const char *s, size_t len)
{
    assert(w->len + len <= w->max); /* every caller has measured */
    memcpy(w->out + w->len, s, len);
    w->len += len;
}

/* Write one pair, or nothing and false when it does not fit. VALUE is the finished text: quoted, or bare. */
static bool put_pair(struct writer *w, const char *key, size_t key_len, const char *value, size_t len)
{
    size_t around = w->json ? 4 : 2;
    if (w->max - w->len < around + key_len + len)
        return false;
    if (w->len > (w->json ? 1u : 0u))
        put(w, w->json ? "," : " ", 1);
    put(w, "\"", w->json);
    put(w, key, key_len);
    put(w, "\"", w->json);
    put(w, w->json ? ":" : "=", 1);
    put(w, value, len);
    return true;
}

/* A value that is not quoted yet, at most LOGQ_MAX * 8 bytes of it. */
static bool put_bare(struct writer *w, const char *key, size_t key_len, const char *value, size_t len)
{
    enum { MAX = LOGQ_MAX * 8 };
    char quoted[MAX * 6 + 8];
    if (!w->json && len <= MAX && !needs_quotes(value, len))
        return put_pair(w, key, key_len, value, len);
    quoted[0] = '"';
    size_t n = 1 + put_escaped(quoted + 1, value, len, MAX);
    quoted[n++] = '"';
    return put_pair(w, key, key_len, quoted, n);
}

/* Length of the escape at S as put_escape makes it, 0 when it is none of those. */
static size_t escape_span(const char *s, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    if (len >= 2 && s[1] != '\0' && strchr("\"\\nrt", s[1]))
        return 2;
    return len >= 6 && memcmp(s + 1, "u00", 3) == 0 && memchr(hex, s[4], 16) && memchr(hex, s[5], 16) ? 6 : 0;
}

/* A quoted value comes from log_quote and is taken as it is, unless somebody else made it. */
static bool is_clean(const struct pair *p)
{
    if (!text_utf8_valid(p->value, p->value_len))
        return false;
    for (size_t i = 1, end = p->value_len - 1; i < end;) {
        size_t n =
            p->value[i] == '\\' ? escape_span(p->value + i, end - i) : (unsigned char)p->value[i] >= 0x20;
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

static bool put_given(struct writer *w, const struct pair *p, const char *fmt)
{
    if (p->quoted && is_clean(p))
        return put_pair(w, p->key, p->key_len, p->value, p->value_len);
    if (w->json && !p->quoted && is_numeric(fmt, p))
        return put_pair(w, p->key, p->key_len, p->value, p->value_len);
    return put_bare(w, p->key, p->key_len, p->value, p->value_len);
}

static void put_text(struct writer *w, const char *key, const char *value)
{
    (void)put_bare(w, key, strlen(key), value, strlen(value)); /* the head of a line is short and fits */
}

static void put_head(struct writer *w, const struct log_line *line)
{
    char ts[TEXT_INSTANT_SIZE], msg[LOGQ_MAX + 1];
    text_instant_print(ts, line->wall_ms);
    put_text(w, "ts", ts);
    put_text(w, "level", level_names[line->level]);
    if (line->ctx && line->ctx->module)
        put_text(w, "module", line->ctx->module);
    if (line->ctx && line->ctx->id) {
        size_t len = text_utf8_cut(line->ctx->id, strnlen(line->ctx->id, LOGQ_MAX + 1), LOGQ_MAX);
        (void)put_bare(w, "id", 2, line->ctx->id, len); /* as above */
    }
    size_t len = text_utf8_cut(line->msg, strnlen(line->msg, sizeof(msg)), sizeof(msg) - 1);
    memcpy(msg, line->msg, len);
    msg[len] = '\0';
    put_text(w, "msg", msg);
}

size_t log_format_line(char out[LOG_LINE_MAX], enum log_format format, const struct log_line *line)
{
    bool json = format == LOG_FORMAT_JSON;
    enum { TAIL = 48 }; /* ,"repeated":4294967295,"cut":true}\n */
    struct writer w = {.out = out, .max = LOG_LINE_MAX - TAIL, .json = json};
    put(&w, "{", json);
    put_head(&w, line);
    bool cut = false;
    struct pair p;
    for (const char *at = line->pairs; next_pair(&at, &p);)
        cut = !put_given(&w, &p, line->fmt) || cut;
    w.max = LOG_LINE_MAX;
    if (line->repeated) {
        char n[16];
        int len = snprintf(n, sizeof(n), "%" PRIu32, line->repeated);
        (void)put_pair(&w, "repeated", 8, n, (size_t)len); /* TAIL is kept for it */
    }
    if (cut)
        (void)put_pair(&w, "cut", 3, "true", 4); /* as above */
    put(&w, "}", json);
    put(&w, "\n", 1);
    return w.len;
}
