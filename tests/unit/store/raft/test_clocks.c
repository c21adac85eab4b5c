#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/store/raft/codec.h"
#include "agent/store/raft/entry.h"
#include "agent/store/store_raft_private.h"

#define NOW_MS  INT64_C(1790000000000) /* what it is */
#define BOOT_MS INT64_C(5000000)

/* The beats of the last seconds, one a second: MEMBER's clock is off by OFF_MS, each took DELAYS_MS. */
static void beats(struct clocks *c, const char *member, int64_t off_ms, size_t count,
                  const int64_t *delays_ms)
{
    for (size_t i = 0; i < count; i++) {
        int64_t ago_ms = (int64_t)(count - 1 - i) * 1000;
        clocks_note(c, member, NOW_MS - ago_ms + off_ms - delays_ms[i], BOOT_MS - ago_ms);
    }
}

static void two_beats(struct clocks *c, const char *member, int64_t off_ms)
{
    beats(c, member, off_ms, 2, (int64_t[]){3, 5});
}

/* How far what is told is off, when the own clock is off by OWN_MS; INT64_MIN: nothing is told. */
static int64_t told(const struct clocks *c, size_t members, int64_t own_ms)
{
    int64_t ret_ms;
    return clocks_tell(c, members, NOW_MS + own_ms, BOOT_MS, &ret_ms) ? ret_ms - NOW_MS : INT64_MIN;
}

Test(clocks, the_own_is_believed_among_two_and_when_others_agree)
{
    struct clocks c = {0};
    cr_assert(eq(i64, told(&c, 1, 30000), 30000));
    cr_assert(eq(i64, told(&c, 2, 30000), 30000));
    two_beats(&c, "b", 0);
    cr_assert(eq(i64, told(&c, 2, 30000), 30000), "one word against another");
    two_beats(&c, "c", 30000);
    cr_assert(eq(i64, told(&c, 3, 30100), 30100));
}

Test(clocks, one_that_is_off_is_told_what_the_others_say)
{
    for (int64_t own_ms = -30000; own_ms <= 30000; own_ms += 60000) {
        struct clocks c = {0};
        two_beats(&c, "b", 10);
        two_beats(&c, "c", -10);
        cr_assert(le(i64, told(&c, 3, own_ms), 10));
        cr_assert(ge(i64, told(&c, 3, own_ms), -20));
        two_beats(&c, "d", own_ms);
        cr_assert(eq(i64, told(&c, 4, own_ms), own_ms), "two against two");
    }
}

Test(clocks, nothing_is_told_before_most_are_known)
{
    struct clocks c = {0};
    cr_assert(eq(i64, told(&c, 3, 3000), INT64_MIN));
    beats(&c, "b", 0, 1, (int64_t[]){4000}); /* it waited for this leader */
    cr_assert(eq(i64, told(&c, 3, 3000), INT64_MIN));
    two_beats(&c, "c", 0);
    cr_assert(eq(i64, told(&c, 3, 100), 100));
    cr_assert(eq(i64, told(&c, 4, 100), INT64_MIN));
}

Test(clocks, who_is_silent_is_forgotten)
{
    struct clocks c = {0};
    two_beats(&c, "b", 0);
    int64_t ms, later_ms = CLOCKS_FRESH_MS - 1000;
    cr_assert(clocks_tell(&c, 3, NOW_MS + later_ms, BOOT_MS + later_ms, &ms));
    later_ms++;
    cr_assert(not(clocks_tell(&c, 3, NOW_MS + later_ms, BOOT_MS + later_ms, &ms)));
}

Test(clocks, beats_that_were_late_do_not_make_a_clock_slow)
{
    struct clocks c = {0};
    beats(&c, "b", 0, CLOCKS_KEPT, (int64_t[]){4, 900, 700, 12000});
    beats(&c, "c", 0, CLOCKS_KEPT, (int64_t[]){800, 900, 20, 700});
    cr_assert(eq(i64, told(&c, 3, 0), 0));
}

Test(clocks, of_more_members_than_are_kept_the_latest_are)
{
    struct clocks c = {0};
    for (int64_t i = 0; i < 3 * CLOCKS_MAX; i++) {
        char id[RECORD_MEMBER_MAX];
        (void)snprintf(id, sizeof(id), "m%lld", (long long)i);
        for (int64_t ago_ms = 1500 - i; ago_ms > 0; ago_ms -= 1000)
            clocks_note(&c, id, NOW_MS - ago_ms + (i < CLOCKS_MAX ? 0 : 9000), BOOT_MS - ago_ms);
    }
    cr_assert(eq(i64, told(&c, 3 * CLOCKS_MAX, 0), 9000));
}

/* --- by what is asked and answered --------------------------------------------------------------------------------- */

static void apply(struct machine *m, enum command_kind kind, const struct buf *command)
{
    AUTO(buf_fini) struct buf entry = BUF_INIT((size_t)1 << 20);
    struct err e = {0};
    entry_begin(&entry, machine_seq(m) + 1, 1);
    entry_add(&entry, kind, command);
    cr_assert(zero(int, entry_end(&entry, &e)), "%s", e.text);
    cr_assert(zero(int, machine_apply(m, entry.data, entry.len, NULL, NULL, &e)), "%s", e.text);
}

/* The store of m0 to m2. */
static struct machine *three_joined(void)
{
    struct machine *m = machine_new();
    AUTO(buf_fini) struct buf command = BUF_INIT(10000);
    struct store_meta meta = {.slots = 16, .created_ms = 1000, .schema = 1, .cluster = "c"};
    command_put_make(&command, &meta);
    apply(m, COMMAND_MAKE, &command);
    for (int i = 0; i < 3; i++) {
        struct store_member me = {.name = "m"};
        (void)snprintf(me.id, sizeof(me.id), "m%d", i);
        buf_reset(&command);
        command_put_join(&command, &me, false, 1000);
        apply(m, COMMAND_JOIN, &command);
    }
    return m;
}

/* A beat of MEMBER, whose clock is off by OFF_MS (RECORD_NONE: it does not tell); what it is told, as far as that is off. */
static int64_t beat(struct rs_leader *l, struct machine *m, const char *member, bool own, int64_t off_ms)
{
    AUTO(buf_fini) struct buf asked = BUF_INIT(1000);
    AUTO(buf_fini) struct buf out = BUF_INIT(1000);
    enum command_kind kind;
    codec_put_u64(&asked, RS_BEAT);
    codec_put_text(&asked, member);
    if (off_ms != RECORD_NONE)
        codec_put_i64(&asked, clock_wall_ms() + off_ms);
    struct replica_task t = {.data = buf_str(&asked), .bytes = asked.len};
    t.batch_ = own ? NULL : (struct replica_batch *)l; /* another's: not looked into */
    buf_init(&t.answer, 100000);
    cr_assert(eq(int, rs_encode(l, &t, m, &kind, &out), REPLICA_ANSWERED));
    struct codec_in in = codec_in(buf_str(&t.answer), t.answer.len);
    cr_assert(eq(u64, codec_get_u64(&in, 1), 1), "it is alive");
    int64_t told_ms = codec_get_i64(&in), wall_ms = clock_wall_ms();
    cr_assert(not(in.bad));
    buf_fini(&t.answer);
    return told_ms == RECORD_NONE ? RECORD_NONE : told_ms - wall_ms;
}

/* Half an hour: so long no machine makes this test wait. */
#define OFF_MS  INT64_C(1800000)
#define NEAR_MS INT64_C(600000)

Test(clocks, a_leader_takes_its_own_word_only_when_the_others_have_been_heard)
{
    struct rs_leader l = {.alone = false};
    struct machine *m = three_joined();
    cr_assert(eq(i64, beat(&l, m, "m0", true, 0), RECORD_NONE));
    cr_assert(ge(i64, beat(&l, m, "m1", false, RECORD_NONE), -NEAR_MS),
              "others go by the leader's until then");
    cr_assert(eq(i64, beat(&l, m, "m0", true, 0), RECORD_NONE));
    for (int i = 0; i < 2; i++) {
        (void)beat(&l, m, "m1", false, -OFF_MS);
        (void)beat(&l, m, "m2", false, -OFF_MS);
    }
    cr_assert(lt(i64, beat(&l, m, "m0", true, 0), -NEAR_MS));
    cr_assert(lt(i64, beat(&l, m, "m2", false, -OFF_MS), -NEAR_MS));
    machine_free(m);
}

Test(clocks, a_time_that_cannot_be_is_none)
{
    struct rs_leader l = {.alone = false};
    struct machine *m = three_joined();
    for (int i = 0; i < 2; i++) {
        (void)beat(&l, m, "m1", false, INT64_MAX / 2);
        (void)beat(&l, m, "m2", false, INT64_MIN / 2);
    }
    cr_assert(eq(i64, beat(&l, m, "m0", true, 0), RECORD_NONE));
    machine_free(m);
}
