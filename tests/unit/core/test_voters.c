#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/core/voters.h"
#include "tests/lib/seed.h"

#define WANTED 3

static void fill(char *to, size_t size, const char *text)
{
    snprintf(to, size, "%s", text);
}

static struct voters_me me_of(const char *folder)
{
    struct voters_me me = {.wanted = WANTED};
    fill(me.folder, sizeof(me.folder), folder);
    fill(me.name, sizeof(me.name), folder);
    snprintf(me.address, sizeof(me.address), "%s:7422", folder);
    return me;
}

/* A voter of the set "a" that has its log. */
static struct voters_me voter_of(const char *folder, uint64_t number)
{
    struct voters_me me = me_of(folder);
    fill(me.set, sizeof(me.set), "a");
    me.number = number;
    me.used = me.has_data = true;
    return me;
}

/* The set a, b, c, fixed, with the numbers 1, 2, 3. */
static struct voters_doc doc_abc(void)
{
    static const char *const names[] = {"a", "b", "c"};
    struct voters_doc doc = {.set = "a", .wanted = WANTED, .next = 4, .fixed = true};
    for (size_t i = 0; i < 3; i++) {
        struct voter *v = &doc.list[doc.count++];
        *v = (struct voter){.number = i + 1, .state = VOTER_MEMBER};
        fill(v->folder, sizeof(v->folder), names[i]);
        fill(v->name, sizeof(v->name), names[i]);
        snprintf(v->address, sizeof(v->address), "%s:7422", names[i]);
        doc.first[doc.first_count++] = *v;
    }
    return doc;
}

static struct voters_log log_abc(bool leads)
{
    struct voters_log log = {.known = true, .leads = leads, .has_leader = true, .count = 3};
    for (size_t i = 0; i < 3; i++) {
        log.list[i] = (struct voters_log_voter){.number = i + 1, .votes = true};
        snprintf(log.list[i].address, sizeof(log.list[i].address), "%c:7422", (char)('a' + i));
    }
    return log;
}

static bool step(struct voters_seen *seen, const struct voters_doc *doc, const struct voters_me *me,
                 const struct voters_log *log, int64_t now_ms, struct voters_doc *ret)
{
    static const struct voters_log none;
    struct voters_now now = {
        .now_ms = now_ms, .wall_ms = 1800000000000 + now_ms, .doc = doc, .me = me, .log = log ? log : &none};
    char why[VOTERS_WHY_SIZE];
    bool changed = voters_step(seen, &now, ret);
    if (changed)
        cr_assert(voters_valid(ret, why), "%s", why);
    return changed;
}

static enum voters_role role_of(const struct voters_doc *doc, const struct voters_me *me)
{
    struct voters_place place;
    voters_place(doc, me, &place);
    cr_assert(eq(int, place.role == VOTERS_ROLE_REFUSED, place.why[0] != '\0'));
    return place.role;
}

static const struct voter *entry(const struct voters_doc *doc, const char *folder)
{
    for (size_t i = 0; i < doc->count; i++)
        if (strcmp(doc->list[i].folder, folder) == 0)
            return &doc->list[i];
    return NULL;
}

/* --- the first set ------------------------------------------------------------------------------------------------- */

Test(voters, the_first_set_is_fixed_when_as_many_as_wanted_claimed_and_are_alive)
{
    static struct voters_seen seen[3];
    struct voters_me me[3] = {me_of("a"), me_of("b"), me_of("c")};
    struct voters_doc doc, next;
    cr_assert(step(&seen[0], NULL, &me[0], NULL, 1000, &doc));
    cr_assert(step(&seen[1], &doc, &me[1], NULL, 1000, &next));
    doc = next;
    cr_assert(step(&seen[2], &doc, &me[2], NULL, 1000, &next));
    doc = next;
    cr_assert(eq(sz, doc.count, 3));
    cr_assert(not(doc.fixed));
    for (int64_t now = 1100; !doc.fixed; now += 100) {
        cr_assert(lt(i64, now, 6000));
        for (size_t i = 0; i < 3; i++)
            if (step(&seen[i], &doc, &me[i], NULL, now, &next))
                doc = next;
    }
    for (size_t i = 0; i < 3; i++) {
        struct voters_place place;
        voters_place(&doc, &me[i], &place);
        cr_assert(eq(int, place.role, VOTERS_ROLE_VOTER));
        cr_assert(eq(u64, place.number, i + 1));
        cr_assert(place.begin);
    }
    struct voters_me late = me_of("d");
    cr_assert(eq(int, role_of(&doc, &late), VOTERS_ROLE_USER));
}

/* Two empty ones claim first, one with a store comes, then another one: whatever the order of their steps. */
Test(voters, who_brings_a_store_begins_the_cluster_alone_and_the_others_join_it)
{
    static struct voters_seen seen[4];
    struct voters_me me[4] = {me_of("a"), me_of("b"), me_of("x"), me_of("y")};
    struct voters_doc doc = {.count = 0}, next;
    struct voters_place place;
    me[2].alone = me[3].alone = true;
    cr_assert(step(&seen[0], NULL, &me[0], NULL, 0, &doc));
    for (int64_t now = 100; !doc.fixed; now += 100) {
        cr_assert(lt(i64, now, 10000));
        for (size_t i = 0; i < 4; i++)
            if ((i < 2 || now >= 300 * (int64_t)i) && step(&seen[i], &doc, &me[i], NULL, now, &next))
                doc = next;
    }
    const struct voter *founder = entry(&doc, "x");
    cr_assert(ne(ptr, (void *)founder, NULL));
    cr_assert(eq(sz, doc.count, 1));
    cr_assert(eq(sz, doc.first_count, 1));
    voters_place(&doc, &me[2], &place);
    cr_assert(eq(int, place.role, VOTERS_ROLE_VOTER));
    cr_assert(place.begin);
    cr_assert(eq(u64, place.number, founder->number));
    cr_assert(eq(int, role_of(&doc, &me[0]), VOTERS_ROLE_USER));
    cr_assert(eq(int, role_of(&doc, &me[3]), VOTERS_ROLE_REFUSED));
    struct voters_log log = {.has_leader = true};
    cr_assert(step(&seen[0], &doc, &me[0], &log, 20000, &next));
    cr_assert(eq(int, entry(&next, "a")->state, VOTER_JOINING));
}

/* Its key was lost a moment ago: the cluster tells it again, and what would begin is refused. */
Test(voters, who_brings_a_store_waits_for_a_cluster_that_is_there_already)
{
    struct voters_seen sx = {0}, sb = {0};
    struct voters_me x = me_of("x"), b = voter_of("b", 2);
    struct voters_doc doc, next;
    struct voters_log log = log_abc(false);
    x.alone = true;
    cr_assert(step(&sx, NULL, &x, NULL, 0, &doc));
    cr_assert(not(step(&sx, &doc, &x, NULL, 100, &next)));
    cr_assert(not(doc.fixed));
    cr_assert(step(&sb, &doc, &b, &log, 200, &next));
    cr_assert(next.fixed);
    cr_assert(eq(int, role_of(&next, &x), VOTERS_ROLE_REFUSED));
}

Test(voters, a_claim_of_a_dead_agent_gives_its_place_to_another)
{
    struct voters_seen sa = {0}, sd = {0};
    struct voters_me a = me_of("a"), b = me_of("b"), c = me_of("c"), d = me_of("d");
    struct voters_doc doc, next;
    cr_assert(step(&sa, NULL, &a, NULL, 0, &doc));
    struct voters_seen sb = {0}, sc = {0};
    cr_assert(step(&sb, &doc, &b, NULL, 0, &next));
    cr_assert(step(&sc, &next, &c, NULL, 0, &doc)); /* b and c are never heard of again */
    for (int64_t now = 100; now < VOTERS_STALE_MS; now += 100) {
        if (step(&sa, &doc, &a, NULL, now, &next))
            doc = next;
        if (step(&sd, &doc, &d, NULL, now, &next))
            doc = next;
        cr_assert(not(doc.fixed), "at %lld", (long long)now);
        cr_assert(zero(ptr, (void *)entry(&doc, "d")));
    }
    for (int64_t now = VOTERS_STALE_MS; now < VOTERS_STALE_MS + 3000; now += 100) {
        if (step(&sa, &doc, &a, NULL, now, &next))
            doc = next;
        if (step(&sd, &doc, &d, NULL, now, &next))
            doc = next;
    }
    cr_assert(eq(sz, doc.count, 2));
    cr_assert(eq(u64, entry(&doc, "d")->number, 4), "numbers of those who went are not used again");
}

Test(voters, an_agent_at_the_address_of_a_live_claim_waits)
{
    struct voters_seen sa = {0}, sb = {0};
    struct voters_me a = me_of("a"), b = me_of("b");
    struct voters_doc doc, next;
    fill(b.address, sizeof(b.address), a.address);
    cr_assert(step(&sa, NULL, &a, NULL, 0, &doc));
    cr_assert(not(step(&sb, &doc, &b, NULL, 0, &next)));
    cr_assert(step(&sb, &doc, &b, NULL, VOTERS_STALE_MS, &next));
    cr_assert(zero(ptr, (void *)entry(&next, "a")));
    cr_assert(eq(u64, entry(&next, "b")->number, 2));
}

/* --- places -------------------------------------------------------------------------------------------------------- */

Test(voters, an_emptied_folder_never_gets_the_old_number)
{
    struct voters_doc doc = doc_abc();
    struct voters_me emptied = me_of("b2"), left = voter_of("b", 2);
    fill(emptied.address, sizeof(emptied.address), "b:7422");
    cr_assert(eq(int, role_of(&doc, &emptied), VOTERS_ROLE_USER));
    left.has_data = false; /* only the log is gone */
    cr_assert(eq(int, role_of(&doc, &left), VOTERS_ROLE_REFUSED));
    cr_assert(eq(int, role_of(NULL, &left), VOTERS_ROLE_REFUSED));
}

Test(voters, one_of_the_first_set_that_never_began_begins_later)
{
    struct voters_doc doc = doc_abc();
    struct voters_me me = me_of("c");
    struct voters_place place;
    voters_place(&doc, &me, &place);
    cr_assert(eq(int, place.role, VOTERS_ROLE_VOTER));
    cr_assert(eq(u64, place.number, 3));
    cr_assert(place.begin);
}

Test(voters, a_log_of_another_set_is_refused)
{
    struct voters_doc doc = doc_abc();
    struct voters_me me = voter_of("x", 2);
    fill(me.set, sizeof(me.set), "x");
    cr_assert(eq(int, role_of(&doc, &me), VOTERS_ROLE_REFUSED));
}

Test(voters, a_store_of_an_agent_alone_is_refused_by_a_cluster_that_began_without_it)
{
    struct voters_doc doc = doc_abc();
    struct voters_me me = me_of("x"), named = me_of("b");
    me.alone = named.alone = true;
    cr_assert(eq(int, role_of(&doc, &me), VOTERS_ROLE_REFUSED));
    cr_assert(eq(int, role_of(&doc, &named), VOTERS_ROLE_REFUSED));
    cr_assert(eq(int, role_of(NULL, &me), VOTERS_ROLE_WAITS));
}

Test(voters, a_voter_that_was_replaced_is_removed)
{
    struct voters_doc doc = doc_abc();
    struct voters_me me = voter_of("z", 9);
    cr_assert(eq(int, role_of(&doc, &me), VOTERS_ROLE_REMOVED));
}

/* --- Consul's key is lost ------------------------------------------------------------------------------------------ */

Test(voters, a_lost_key_is_written_from_the_log_by_the_leader_and_numbers_go_on_elsewhere)
{
    struct voters_seen seen = {0};
    struct voters_me me = voter_of("b", 2), fresh = me_of("d");
    struct voters_log log = log_abc(true);
    struct voters_doc doc, claims;
    cr_assert(eq(int, role_of(NULL, &me), VOTERS_ROLE_VOTER));
    cr_assert(step(&seen, NULL, &me, &log, 0, &doc));
    cr_assert(doc.fixed);
    cr_assert(not(doc.unsure));
    cr_assert(eq(sz, doc.count, 3));
    cr_assert(eq(str, doc.set, "a"));
    cr_assert(eq(str, doc.list[1].folder, "b"));
    cr_assert(eq(str, doc.list[0].folder, ""));
    cr_assert(gt(u64, doc.next, 1000000));
    cr_assert(step(&(struct voters_seen){0}, NULL, &fresh, NULL, 0, &claims));
    cr_assert(step(&seen, &claims, &me, &log, 0, &doc), "those who claim meanwhile have no right to");
    cr_assert(doc.fixed);
    cr_assert(eq(int, role_of(&doc, &fresh), VOTERS_ROLE_USER));
}

Test(voters, without_a_leader_a_lost_key_is_written_after_a_while_and_corrected_by_the_leader)
{
    struct voters_seen seen = {0}, leader = {0};
    struct voters_me b = voter_of("b", 2), a = voter_of("a", 1);
    struct voters_log old = log_abc(false), now = log_abc(true);
    struct voters_doc doc, next;
    old.has_leader = false;
    cr_assert(not(step(&seen, NULL, &b, &old, 1000, &doc)));
    cr_assert(step(&seen, NULL, &b, &old, 1000 + VOTERS_LEADERLESS_MS, &doc));
    cr_assert(doc.unsure);
    now.list[2].number = 4; /* 3 was replaced, which b had not heard */
    cr_assert(step(&leader, &doc, &a, &now, 0, &next));
    cr_assert(not(next.unsure));
    cr_assert(eq(u64, next.list[2].number, 4));
    cr_assert(eq(str, next.list[0].folder, "a"));
    cr_assert(eq(str, next.list[1].folder, "b"));
}

Test(voters, an_old_document_does_not_bring_back_who_was_replaced)
{
    struct voters_seen seen = {0};
    struct voters_me a = voter_of("a", 1);
    struct voters_doc doc = doc_abc(), next;
    struct voters_log log = log_abc(true);
    log.list[1].number = 4;
    cr_assert(step(&seen, &doc, &a, &log, 0, &next));
    cr_assert(zero(ptr, (void *)voters_find(&next, 2)));
    cr_assert(ne(ptr, (void *)voters_find(&next, 4), NULL));
    cr_assert(gt(u64, next.next, 4));
}

/* --- who comes and goes -------------------------------------------------------------------------------------------- */

Test(voters, a_voter_that_is_gone_for_good_is_replaced_by_one_that_has_no_place)
{
    struct voters_seen sa = {0}, sd = {0};
    struct voters_me a = voter_of("a", 1), d = me_of("d");
    struct voters_log log = log_abc(true), users = {.has_leader = true};
    struct voters_doc doc = doc_abc(), next;
    log.list[2].silent_ms = VOTERS_GONE_MS - 1;
    cr_assert(not(step(&sa, &doc, &a, &log, 0, &next)));
    cr_assert(not(step(&sd, &doc, &d, &users, 0, &next)), "nobody is missing");
    log.list[2].silent_ms = VOTERS_GONE_MS;
    cr_assert(step(&sa, &doc, &a, &log, 0, &next));
    doc = next;
    cr_assert(eq(int, entry(&doc, "c")->state, VOTER_LOST));
    cr_assert(not(step(&sa, &doc, &a, &log, 0, &next)), "it stays while nobody can take its place");
    cr_assert(step(&sd, &doc, &d, &users, 0, &next));
    doc = next;
    cr_assert(eq(int, entry(&doc, "d")->state, VOTER_JOINING));
    cr_assert(eq(u64, entry(&doc, "d")->number, 4));
    struct voters_me other = me_of("e");
    cr_assert(not(step(&(struct voters_seen){0}, &doc, &other, &users, 0, &next)), "one at a time");
    log.list[log.count++] = (struct voters_log_voter){.number = 4, .votes = false};
    cr_assert(not(step(&sa, &doc, &a, &log, 0, &next)));
    log.list[3].votes = true;
    cr_assert(step(&sa, &doc, &a, &log, 0, &next));
    doc = next;
    cr_assert(eq(int, entry(&doc, "d")->state, VOTER_MEMBER));
    cr_assert(step(&sa, &doc, &a, &log, 0, &next));
    cr_assert(zero(ptr, (void *)entry(&next, "c")));
    cr_assert(eq(sz, next.count, 3));
    doc = next;
    cr_assert(not(step(&sa, &doc, &a, &log, 0, &next)), "it is still in the log; nothing else is begun");
}

Test(voters, a_voter_that_is_heard_of_again_keeps_its_place)
{
    struct voters_seen sa = {0};
    struct voters_me a = voter_of("a", 1);
    struct voters_log log = log_abc(true);
    struct voters_doc doc = doc_abc(), next;
    doc.list[2].state = VOTER_LOST;
    cr_assert(step(&sa, &doc, &a, &log, 0, &next));
    cr_assert(eq(int, entry(&next, "c")->state, VOTER_MEMBER));
}

Test(voters, one_that_dies_while_it_joins_is_dropped)
{
    struct voters_seen sa = {0}, sd = {0};
    struct voters_me a = voter_of("a", 1), d = me_of("d");
    struct voters_log log = log_abc(true), users = {.has_leader = true};
    struct voters_doc doc = doc_abc(), next;
    doc.list[2].state = VOTER_LOST;
    log.list[2].silent_ms = 2 * VOTERS_GONE_MS;
    cr_assert(step(&sd, &doc, &d, &users, 0, &next));
    doc = next;
    cr_assert(not(step(&sa, &doc, &a, &log, 0, &next)));
    cr_assert(step(&sa, &doc, &a, &log, VOTERS_GONE_MS, &next), "it was never brought in");
    cr_assert(zero(ptr, (void *)entry(&next, "d")));
    log.list[log.count++] = (struct voters_log_voter){.number = 4, .silent_ms = VOTERS_GONE_MS};
    cr_assert(step(&sa, &doc, &a, &log, 0, &next), "it was, and fell silent");
    cr_assert(zero(ptr, (void *)entry(&next, "d")));
}

Test(voters, who_ends_leaves_its_place_only_when_somebody_can_take_it)
{
    struct voters_seen sb = {0};
    struct voters_me b = voter_of("b", 2);
    struct voters_log log = log_abc(false);
    struct voters_doc doc = doc_abc(), next;
    b.leaving = true;
    cr_assert(not(step(&sb, &doc, &b, &log, 0, &next)));
    b.spare = true;
    cr_assert(step(&sb, &doc, &b, &log, 0, &next));
    cr_assert(eq(int, entry(&next, "b")->state, VOTER_LEAVING));
    doc = next;
    b.leaving = false;
    cr_assert(step(&sb, &doc, &b, &log, 0, &next), "it is back");
    cr_assert(eq(int, entry(&next, "b")->state, VOTER_MEMBER));
}

Test(voters, an_address_that_changed_is_told)
{
    struct voters_seen sb = {0};
    struct voters_me b = voter_of("b", 2);
    struct voters_log log = log_abc(false);
    struct voters_doc doc = doc_abc(), next;
    fill(b.address, sizeof(b.address), "elsewhere:7422");
    cr_assert(step(&sb, &doc, &b, &log, 0, &next));
    cr_assert(eq(str, (char *)entry(&next, "b")->address, "elsewhere:7422"));
    cr_assert(eq(str, next.first[1].address, "b:7422"), "what they began with is the same for ever");
}

Test(voters, fewer_are_wanted_and_one_after_the_other_goes)
{
    struct voters_seen sa = {0};
    struct voters_me a = voter_of("a", 1);
    struct voters_log log = log_abc(true);
    struct voters_doc doc = doc_abc(), next;
    a.wanted = 1;
    unsigned steps = 0;
    for (; step(&sa, &doc, &a, &log, 0, &next) && steps < 20; steps++) {
        doc = next;
        size_t kept = 0;
        for (size_t i = 0; i < log.count; i++)
            if (voters_find(&doc, log.list[i].number))
                log.list[kept++] = log.list[i];
        cr_assert(ge(sz, kept + 1, log.count));
        log.count = kept;
    }
    cr_assert(eq(sz, doc.count, 1));
    cr_assert(eq(u64, doc.list[0].number, 1));
}

Test(voters, a_document_that_makes_no_sense_is_found_out)
{
    char why[VOTERS_WHY_SIZE];
    struct voters_doc doc = doc_abc();
    cr_assert(voters_valid(&doc, why));
    doc.list[1].number = 1;
    cr_assert(not(voters_valid(&doc, why)));
    doc = doc_abc();
    doc.next = 3;
    cr_assert(not(voters_valid(&doc, why)));
    doc = doc_abc();
    doc.list[0].state = VOTER_CLAIMED;
    cr_assert(not(voters_valid(&doc, why)));
    doc = doc_abc();
    doc.count = 0;
    cr_assert(not(voters_valid(&doc, why)));
}
