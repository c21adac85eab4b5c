/* A file of tokens as somebody wrote it: what is refused says where, what is taken has entries that can be found and that say which
 * namespaces they are for. */
#include <assert.h>
#include <string.h>

#include "agent/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_namespaces(const struct token *t)
{
    char list[TOKEN_LIST_SIZE];
    token_print_namespaces(t, list);
    assert(t->everywhere == (list[0] == '\0'));
    for (size_t i = 0; i < t->namespaces_count; i++)
        assert(token_in_namespace(t, t->namespaces[i]) && token_list_has(list, t->namespaces[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tokens *t;
    struct err e = {0};
    if (tokens_parse("tokens", (const char *)data, size, &t, &e) < 0) {
        assert(e.text[0]);
        return 0;
    }
    assert(tokens_count(t) <= TOKENS_MAX);
    for (uint32_t uid = 0; uid < 4; uid++) {
        const struct token *found = tokens_find_uid(t, uid);
        if (found) {
            assert(found->is_uid && found->uid == uid && found->can && tokens_find_same(t, found) == found);
            check_namespaces(found);
        }
    }
    const struct token *found = tokens_find(t, "secret", 6);
    if (found) {
        assert(!found->is_uid && found->can && tokens_find_same(t, found) == found);
        check_namespaces(found);
    }
    tokens_unref(t);
    return 0;
}
