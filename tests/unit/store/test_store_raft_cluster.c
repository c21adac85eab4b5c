#include <criterion/criterion.h>

#include <stdio.h>

#define contract_fail(file, line, what, ...)                            \
    do {                                                                \
        char text_[1024];                                               \
        (void)snprintf(text_, sizeof(text_), __VA_ARGS__);              \
        cr_assert_fail("%s:%d: %s: %s", (file), (line), (what), text_); \
    } while (0)

#include "tests/unit/store/store_contract_model.h"
#include "tests/unit/store/store_contract_tests.h"
#include "tests/unit/store/store_raft_bed.h"

/* The contract, asked of whoever of three voters leads, of one that follows, and of an agent that is no voter. */
static void run_at(void (*test)(struct contract *t), const char *where)
{
    struct cluster_bed b;
    bed_open_quick(&b, 3, 1, "a secret");
    struct bed_node *n = strcmp(where, "leader") == 0     ? bed_wait_leader(&b)
                         : strcmp(where, "follower") == 0 ? bed_follower(&b)
                                                          : &b.nodes[3];
    test(&n->t);
    bed_close_cluster(&b);
}

#define AT_LEADER(name)           \
    Test(store_raft_leader, name) \
    {                             \
        run_at(name, "leader");   \
    }
#define AT_FOLLOWER(name)           \
    Test(store_raft_follower, name) \
    {                               \
        run_at(name, "follower");   \
    }
#define AT_CLIENT(name)           \
    Test(store_raft_client, name) \
    {                             \
        run_at(name, "client");   \
    }
CONTRACT_TESTS(AT_LEADER)
CONTRACT_TESTS(AT_FOLLOWER)
CONTRACT_TESTS(AT_CLIENT)
AT_LEADER(random_batches_leave_what_memory_holds)
AT_CLIENT(random_batches_leave_what_memory_holds)
