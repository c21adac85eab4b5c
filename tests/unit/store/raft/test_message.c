#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/message.h"

enum { ENTRIES = 4 };
static const uint64_t words[ENTRIES * 2] = {1, 2, 3, 4, 5, 6, 7, 8};

/* Commands of 16 bytes, one of them a change of the voters. */
static void fill(struct raft_entry entries[ENTRIES], unsigned change)
{
    for (unsigned i = 0; i < ENTRIES; i++)
        entries[i] = (struct raft_entry){.term = 10 + i,
                                         .type = i == change ? RAFT_CHANGE : RAFT_COMMAND,
                                         .buf = {(void *)(uintptr_t)&words[2 * i], 16}};
}

/* As it comes from another voter. */
static struct raft_message received(unsigned change)
{
    struct raft_entry entries[ENTRIES];
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES}, ret;
    AUTO(buf_fini) struct buf head = BUF_INIT(1000);
    struct err e = {0};
    void *body;
    size_t bytes;
    bool borrowed;
    fill(entries, change);
    m.append_entries = (struct raft_append_entries){.version = 1,
                                                    .term = 20,
                                                    .prev_log_index = 100,
                                                    .prev_log_term = 9,
                                                    .leader_commit = 99,
                                                    .entries = entries,
                                                    .n_entries = ENTRIES};
    cr_assert_eq(message_encode(&m, &head, &body, &bytes, &borrowed, &e), 0, "%s", e.text);
    struct codec_in in = codec_in(buf_str(&head), head.len);
    cr_assert_eq(message_decode(&in, body, bytes, &ret, &e), 0, "%s", e.text);
    return ret;
}

static void expect_entries(const struct raft_message *m, unsigned first, unsigned count)
{
    const struct raft_append_entries *a = &m->append_entries;
    cr_assert_eq(a->n_entries, count);
    cr_assert_eq(a->prev_log_index, 100 + first);
    cr_assert_eq(a->prev_log_term, first == 0 ? 9u : 10u + first - 1);
    cr_assert_eq(a->leader_commit, 99);
    for (unsigned i = 0; i < count; i++) {
        cr_assert_eq(a->entries[i].term, 10u + first + i);
        cr_assert_eq(a->entries[i].batch, a->entries[0].batch);
        cr_assert_arr_eq(a->entries[i].buf.base, &words[2 * (first + i)], 16);
    }
}

Test(message, a_split_message_is_two_that_follow_each_other)
{
    for (unsigned at = 1; at < ENTRIES; at++) {
        struct raft_message m = received(at), first;
        struct err e = {0};
        cr_assert_eq(message_split(&m, at, &first, &e), 0, "%s", e.text);
        expect_entries(&first, 0, at);
        expect_entries(&m, at, ENTRIES - at);
        cr_assert_eq(m.append_entries.entries[0].type, RAFT_CHANGE);
        message_drop(&first);
        message_drop(&m);
    }
}

Test(message, a_split_without_memory_leaves_the_message_whole)
{
    for (unsigned k = 0;; k++) {
        struct raft_message m = received(2), first;
        struct err e = {0};
        fault_arm(k);
        int r = message_split(&m, 2, &first, &e);
        if (!fault_fired()) {
            cr_assert_eq(r, 0);
            message_drop(&first);
            message_drop(&m);
            break;
        }
        cr_assert_eq(r, -ERR_NOMEM, "k=%u", k);
        expect_entries(&m, 0, ENTRIES);
        message_drop(&m);
    }
}

static struct raft_message snapshot(struct raft_server *server)
{
    struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT};
    m.install_snapshot = (struct raft_install_snapshot){.version = 1,
                                                        .term = 4,
                                                        .last_index = 10,
                                                        .last_term = 3,
                                                        .conf = {server, 1},
                                                        .conf_index = 1,
                                                        .data = {(void *)(uintptr_t)words, sizeof(words)}};
    return m;
}

/* Whatever fails on the way, nothing is left and nothing is given out. */
static void there_and_back(const struct raft_message *m)
{
    for (unsigned k = 0;; k++) {
        AUTO(buf_fini) struct buf head = BUF_INIT(1000);
        struct raft_message back = {.type = RAFT_TIMEOUT_NOW};
        struct err e = {0};
        void *body = NULL;
        size_t bytes = 0;
        bool borrowed;
        fault_arm(k);
        int r = message_encode(m, &head, &body, &bytes, &borrowed, &e);
        if (r == 0 && borrowed) {
            void *copy = malloc(bytes);
            cr_assert(copy);
            memcpy(copy, body, bytes);
            body = copy;
        }
        struct codec_in in = codec_in(buf_str(&head), head.len);
        if (r == 0)
            r = message_decode(&in, body, bytes, &back, &e);
        if (!fault_fired()) {
            cr_assert_eq(r, 0, "%s", e.text);
            cr_assert_eq(back.type, m->type);
            message_drop(&back);
            break;
        }
        cr_assert(r < 0 || back.type == m->type, "k=%u", k);
        if (r == 0)
            message_drop(&back);
    }
}

Test(message, faults_on_the_way_leave_nothing)
{
    struct raft_entry entries[ENTRIES];
    struct raft_message append = {.type = RAFT_APPEND_ENTRIES};
    struct raft_server server = {.id = 3, .address = (char *)(uintptr_t) "3/h:1", .role = RAFT_VOTER};
    struct raft_message install = snapshot(&server);
    fill(entries, 0);
    append.append_entries.entries = entries;
    append.append_entries.n_entries = ENTRIES;
    there_and_back(&append);
    there_and_back(&install);
}
