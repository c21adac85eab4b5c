/* Checked text: numbers, durations, instants, sizes, names, encodings. All take a pointer and a length (no NUL needed),
 * accept the whole text or nothing (no spaces around it), write ret_x on success only, and run in one pass. Every
 * failure is ERR_INVALID, with a text that quotes the input, cut, and says what is allowed, unless noted. Any thread. */
#ifndef CARILLON_BASE_TEXT_H
#define CARILLON_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

/* --- numbers: decimal digits, '-' for i64; no '+', no leading zeros beyond a lone 0 ------------------------------ */
int text_u64(const char *s, size_t len, uint64_t min, uint64_t max, uint64_t *ret, struct err *e);
int text_u32(const char *s, size_t len, uint32_t min, uint32_t max, uint32_t *ret, struct err *e);
int text_i64(const char *s, size_t len, int64_t min, int64_t max, int64_t *ret, struct err *e);
/* "1", "-0.25", "2e3": JSON's grammar, finite, independent of the locale. */
int text_double(const char *s, size_t len, double min, double max, double *ret, struct err *e);
/* "true" or "false". */
int text_bool(const char *s, size_t len, bool *ret, struct err *e);

/* --- durations: "250ms", "10s", "1h30m", "7d", "0s" --------------------------------------------------------------- */
/* Whole numbers with units d h m s ms, each at most once, from large to small; the sum within TEXT_DURATION_MAX_MS. */
#define TEXT_DURATION_MAX_MS ((uint64_t)36500 * 86400 * 1000) /* a hundred years */
int text_duration_ms(const char *s, size_t len, uint64_t *ret_ms, struct err *e);
/* Canonical form: largest units first, no zero parts, days from two on, "0s" for zero: 5400000 -> "1h30m", 86400000 ->
 * "24h", as people write a day. Printing and reading gives the same value. BUF gets at most TEXT_DURATION_SIZE bytes with the NUL; returns the length. */
#define TEXT_DURATION_SIZE 48
size_t text_duration_print(char buf[TEXT_DURATION_SIZE], uint64_t ms);

/* --- instants: RFC 3339 ------------------------------------------------------------------------------------------- */
#define TEXT_INSTANT_MIN_MS ((int64_t)0)               /* 1970-01-01T00:00:00.000Z */
#define TEXT_INSTANT_MAX_MS ((int64_t)253402300799999) /* 9999-12-31T23:59:59.999Z */
/* "2026-11-23T08:00:00Z", with offset ("+01:00", also "z", "t"), with 1 to 9 fraction digits (cut to ms). Second 60 is
 * refused. The result lies within the limits above. */
int text_instant_ms(const char *s, size_t len, int64_t *ret_ms, struct err *e);
/* Always "2026-11-23T08:00:00.000Z", 24 characters and NUL. MS outside the limits is clamped to them. */
#define TEXT_INSTANT_SIZE 25
void text_instant_print(char buf[TEXT_INSTANT_SIZE], int64_t ms);
/* The same instant as local time with offset: "2026-11-23T09:00:00+01:00", ms only if not zero. OFFSET_S within a day.
 * Returns the length. */
#define TEXT_LOCAL_SIZE 32
size_t text_local_print(char buf[TEXT_LOCAL_SIZE], int64_t ms, int32_t offset_s);
/* Proleptic Gregorian days since 1970-01-01; month 1..12, day 1..31 need not exist (31 April is 1 May). */
int64_t text_days_from_civil(int64_t year, unsigned month, unsigned day);
void text_civil_from_days(int64_t days, int64_t *ret_year, unsigned *ret_month, unsigned *ret_day);

/* --- sizes: "512", "64KiB", "1MiB", "2GiB" ------------------------------------------------------------------------ */
int text_size_bytes(const char *s, size_t len, uint64_t *ret_bytes, struct err *e);
/* The largest unit that divides it: 65536 -> "64KiB". Returns the length. */
#define TEXT_SIZE_SIZE 32
size_t text_size_print(char buf[TEXT_SIZE_SIZE], uint64_t bytes);

/* --- names -------------------------------------------------------------------------------------------------------- */
#define TEXT_ID_MAX        200
#define TEXT_NAMESPACE_MAX 63
/* 1-200 of [A-Za-z0-9._~:@+-]. */
int text_check_id(const char *s, size_t len, struct err *e);
/* 1-63 of [a-z0-9-]. */
int text_check_namespace(const char *s, size_t len, struct err *e);
/* RFC 9110 token, 1-256. */
int text_check_header_name(const char *s, size_t len, struct err *e);
/* RFC 9110 field value: no CR, LF, NUL or other control character but tab, valid UTF-8, no space at either end. */
int text_check_header_value(const char *s, size_t len, struct err *e);
/* "host:port" with a host name, IPv4 or [IPv6] and port 1..65535 (0 too with ALLOW_PORT_0). RET_HOST_LEN counts the
 * host inside S without brackets, which begin at S + *RET_HOST_AT. The three results may be NULL. */
int text_host_port(const char *s, size_t len, bool allow_port_0, size_t *ret_host_at, size_t *ret_host_len,
                   uint16_t *ret_port, struct err *e);

/* Strict UTF-8 (RFC 3629): no overlong forms, surrogates or values over U+10FFFF. NUL is valid. */
bool text_utf8_valid(const char *s, size_t len);
/* Longest prefix of at most MAX bytes that does not cut a character of the valid UTF-8 text S. */
size_t text_utf8_cut(const char *s, size_t len, size_t max);

/* --- encodings ---------------------------------------------------------------------------------------------------- */
/* Lower case, 2 * LEN characters and NUL into OUT. */
void text_hex_encode(const void *data, size_t len, char *out);
/* Either case; LEN must be twice OUT_LEN. OUT is undefined after a failure. */
int text_hex_decode(const char *s, size_t len, void *out, size_t out_len, struct err *e);
/* Standard alphabet with padding (RFC 4648 section 4). Fails only as appends to OUT do. */
void text_base64_encode(struct buf *out, const void *data, size_t len);
/* Strict: canonical padding, no white space, no bits left over. Appends to OUT. ERR_INVALID, ERR_TOO_BIG, ERR_NOMEM;
 * OUT's content is unchanged then. */
int text_base64_decode(struct buf *out, const char *s, size_t len, struct err *e);
/* The same without memory of its own. AT: room for (LEN + 2) / 3 * 4 bytes and a NUL, which ends it. */
void text_base64_encode_to(char *at, const void *data, size_t len);
/* AT: room for LEN / 4 * 3 bytes, undefined after a failure. ERR_INVALID, ERR_TOO_BIG. */
int text_base64_decode_to(char *at, size_t *ret_bytes, const char *s, size_t len, struct err *e);
/* All but RFC 3986 unreserved characters as %XX (also '/'). */
void text_percent_encode(struct buf *out, const char *s, size_t len);
/* %XX to bytes, '+' to space if PLUS_IS_SPACE (queries). A broken escape or %00 is ERR_INVALID. Errors as
 * text_base64_decode. */
int text_percent_decode(struct buf *out, const char *s, size_t len, bool plus_is_space, struct err *e);

/* --- for errors -----------------------------------------------------------------------------------------------------*/
/* Text from outside for %s in an error: valid UTF-8 without control characters, cut at TEXTQ_MAX bytes with "…" after.
 * Valid until the end of the enclosing block. */
#define TEXTQ_MAX     40
#define TEXTQ_SIZE    (TEXTQ_MAX + 4)
#define TEXTQ(s, len) text_quote((char[TEXTQ_SIZE]){0}, (s), (len))
const char *text_quote(char buf[TEXTQ_SIZE], const char *s, size_t len);

/* --- comparing ---------------------------------------------------------------------------------------------------- */
/* Number of single-character edits between A and B, at most MAX + 1 (stops early); both cut at 64 bytes. */
unsigned text_edit_distance(const char *a, size_t a_len, const char *b, size_t b_len, unsigned max);
/* Which of NAMES (NULL-terminated) was probably meant by S: the nearest one, if it is near; or NULL. */
const char *text_nearest(const char *s, size_t len, const char *const *names);

#endif
