#include "agent/core/header_value.h"

#include <string.h>

#define SECRET_BEGIN "${secret:"

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

bool header_secret_name_ok(const char *name, size_t len)
{
    if (len == 0 || len > HEADER_SECRET_NAME_MAX || (name[0] == '.' && (len == 1 || name[1] == '.')))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!name_char(name[i]))
            return false;
    return true;
}

/* S begins with "${". */
static struct header_piece secret_piece(const char **at, const char *s)
{
    const char *name = s + strlen(SECRET_BEGIN);
    const char *end = strncmp(s, SECRET_BEGIN, strlen(SECRET_BEGIN)) == 0 ? strchr(name, '}') : NULL;
    if (!end || !header_secret_name_ok(name, (size_t)(end - name))) {
        *at = s + strlen(s);
        return (struct header_piece){HEADER_PIECE_BROKEN, s, strlen(s)};
    }
    *at = end + 1;
    return (struct header_piece){HEADER_PIECE_SECRET, name, (size_t)(end - name)};
}

struct header_piece header_value_next(const char **at)
{
    const char *s = *at, *end = s;
    if (*s == '\0')
        return (struct header_piece){HEADER_PIECE_END, s, 0};
    if (strncmp(s, "${", 2) == 0)
        return secret_piece(at, s);
    if (strncmp(s, "$${", 3) == 0) {
        *at = s + 3;
        return (struct header_piece){HEADER_PIECE_TEXT, s + 1, 2};
    }
    while (*end && strncmp(end, "${", 2) != 0 && strncmp(end, "$${", 3) != 0)
        end++;
    *at = end;
    return (struct header_piece){HEADER_PIECE_TEXT, s, (size_t)(end - s)};
}
