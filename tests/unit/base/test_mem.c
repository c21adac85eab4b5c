#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

Test(mem, new_memory_is_zero)
{
    uint64_t *p = mem_new_array(uint64_t, 100);
    for (int i = 0; i < 100; i++)
        cr_assert(eq(u64, p[i], 0));
    mem_free(p);
}

Test(mem, overflowing_products_are_too_big)
{
    struct err e;
    cr_assert(mem_try_array(SIZE_MAX / 2, 4, &e) == NULL);
    cr_assert(eq(int, (int)e.code, ERR_TOO_BIG));
    cr_assert(mem_try_alloc(MEM_TRY_MAX_BYTES + 1, &e) == NULL);
    cr_assert(eq(int, (int)e.code, ERR_TOO_BIG));
    cr_assert(mem_try_strndup("", SIZE_MAX, &e) == NULL);
    cr_assert(eq(int, (int)e.code, ERR_TOO_BIG));
}

Test(mem, zero_sizes_give_memory)
{
    void *p = mem_try_array(0, 8, NULL);
    cr_assert(p != NULL);
    mem_free(p);
}

Test(mem, failed_realloc_leaves_the_old_block)
{
    char *p = mem_try_strndup("abc", 3, NULL);
    struct err e;
    fault_arm(0);
    cr_assert(mem_try_realloc(p, 100, 1, &e) == NULL);
    cr_assert(fault_fired());
    cr_assert(eq(int, (int)e.code, ERR_NOMEM));
    cr_assert(eq(str, p, "abc"));
    mem_free(p);
}

Test(mem, the_armed_step_fails_once)
{
    fault_arm(2);
    cr_assert(not(fault_hit()));
    cr_assert(not(fault_hit()));
    cr_assert(fault_hit());
    cr_assert(not(fault_hit()));
    cr_assert(fault_fired());
    fault_arm(5);
    cr_assert(not(fault_fired()));
    cr_assert(not(fault_hit()), "fault_fired disarms");
}

static void *hit_in_thread(void *arg)
{
    *(bool *)arg = fault_hit();
    return NULL;
}

Test(mem, faults_stay_in_their_thread)
{
    bool hit = true;
    pthread_t t;
    fault_arm(0);
    cr_assert(zero(int, pthread_create(&t, NULL, hit_in_thread, &hit)));
    cr_assert(zero(int, pthread_join(t, NULL)));
    cr_assert(not(hit));
    cr_assert(fault_hit());
    fault_disarm();
}

static char *take_it(void)
{
    AUTO(mem_free) char *p = mem_strdup("kept");
    return TAKE(p);
}

Test(mem, take_saves_from_auto)
{
    char *p = take_it();
    cr_assert(eq(str, p, "kept"));
    mem_free(p);
}

Test(mem, auto_closes_descriptors)
{
    int copy;
    {
        AUTO(fd_close) int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        cr_assert(ge(int, fd, 0));
        copy = fd;
    }
    cr_assert(eq(int, fcntl(copy, F_GETFD), -1));
    fd_close(-1);
}

Test(mem, strdup_of_null_is_null)
{
    cr_assert(mem_strdup(NULL) == NULL);
}

static void *two_steps(void *arg)
{
    bool *failed = arg;
    failed[0] = fault_hit();
    failed[1] = fault_hit();
    return NULL;
}

Test(mem, a_fault_of_all_threads_strikes_one_of_them_once)
{
    bool failed[2];
    pthread_t thread;
    fault_arm_threads(1);
    cr_assert_not(fault_hit());
    cr_assert_eq(pthread_create(&thread, NULL, two_steps, failed), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert(failed[0] && !failed[1]);
    cr_assert(fault_fired());
    fault_arm_threads(0);
    cr_assert_not(fault_fired(), "nothing has struck since");
    cr_assert_not(fault_hit(), "and it is disarmed");
}
