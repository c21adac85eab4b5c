#include "agent/core/voters.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *const state_names[VOTER_STATE_COUNT_] = {
    [VOTER_CLAIMED] = "claimed", [VOTER_FOUNDING] = "founding", [VOTER_JOINING] = "joining",
    [VOTER_MEMBER] = "voter",    [VOTER_LOST] = "lost",         [VOTER_LEAVING] = "leaving",
};

const char *voter_state_name(enum voter_state state)
{
    assert(state < VOTER_STATE_COUNT_);
    return state_names[state];
}

enum voter_state voter_state_parse(const char *name)
{
    unsigned i = 0;
    while (i < VOTER_STATE_COUNT_ && strcmp(state_names[i], name) != 0)
        i++;
    return (enum voter_state)i;
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

const struct voter *voters_find(const struct voters_doc *doc, uint64_t number)
{
    for (size_t i = 0; i < doc->count; i++)
        if (doc->list[i].number == number)
            return &doc->list[i];
    return NULL;
}

static const struct voter *find_folder(const struct voters_doc *doc, const char *folder)
{
    for (size_t i = 0; i < doc->count; i++)
        if (strcmp(doc->list[i].folder, folder) == 0)
            return &doc->list[i];
    return NULL;
}

static const struct voter *find_address(const struct voters_doc *doc, const char *address)
{
    for (size_t i = 0; i < doc->count; i++)
        if (strcmp(doc->list[i].address, address) == 0)
            return &doc->list[i];
    return NULL;
}

static size_t count_in(const struct voters_doc *doc, enum voter_state state)
{
    size_t count = 0;
    for (size_t i = 0; i < doc->count; i++)
        count += doc->list[i].state == state;
    return count;
}

static const struct voters_log_voter *in_log(const struct voters_log *log, uint64_t number)
{
    for (size_t i = 0; i < log->count; i++)
        if (log->list[i].number == number)
            return &log->list[i];
    return NULL;
}

/* --- what must hold ------------------------------------------------------------------------------------------------ */

static bool wrong(char why[VOTERS_WHY_SIZE], const char *text)
{
    (void)snprintf(why, VOTERS_WHY_SIZE, "%s", text); /* cut: for people */
    return false;
}

static bool is_twice(const struct voters_doc *doc, size_t at)
{
    const struct voter *v = &doc->list[at];
    for (size_t i = 0; i < at; i++)
        if (doc->list[i].number == v->number ||
            (v->folder[0] != '\0' && strcmp(doc->list[i].folder, v->folder) == 0))
            return true;
    return false;
}

bool voters_valid(const struct voters_doc *doc, char why[VOTERS_WHY_SIZE])
{
    if (doc->set[0] == '\0' || doc->wanted == 0 || doc->wanted > VOTERS_MAX)
        return wrong(why, "it does not say which cluster it is of, or how many voters are wanted");
    if (doc->count == 0 || doc->count > VOTERS_MAX || doc->first_count > VOTERS_MAX)
        return wrong(why, "it has no voters, or too many");
    for (size_t i = 0; i < doc->count; i++) {
        const struct voter *v = &doc->list[i];
        if (v->number == 0 || v->number >= doc->next)
            return wrong(why, "a voter has a number that was not given out");
        if (v->address[0] == '\0' || is_twice(doc, i))
            return wrong(why, "a voter has no address, or is there twice");
        if ((v->state == VOTER_CLAIMED || v->state == VOTER_FOUNDING) == doc->fixed)
            return wrong(why, "the first set is fixed and is not");
    }
    for (size_t i = 0; i < doc->first_count; i++)
        if (!doc->fixed || doc->first[i].number == 0 || doc->first[i].address[0] == '\0')
            return wrong(why, "the first set makes no sense");
    return true;
}

/* --- which place --------------------------------------------------------------------------------------------------- */

static void refuse(struct voters_place *ret, const char *text)
{
    ret->role = VOTERS_ROLE_REFUSED;
    (void)snprintf(ret->why, sizeof(ret->why), "%s", text); /* cut: for people */
}

static bool is_first(const struct voters_doc *doc, uint64_t number)
{
    for (size_t i = 0; i < doc->first_count; i++)
        if (doc->first[i].number == number)
            return true;
    return false;
}

/* Who has a log goes on with it; it begins from the first set only if it was never used. */
static void take_number(const struct voters_doc *doc, const struct voters_me *me, uint64_t number,
                        struct voters_place *ret)
{
    const struct voter *v = doc ? voters_find(doc, number) : NULL;
    ret->role = VOTERS_ROLE_VOTER;
    ret->number = number;
    ret->begin = v && !me->used && v->state != VOTER_JOINING && is_first(doc, number);
    if (me->has_data || ret->begin || (v && v->state == VOTER_JOINING && !me->used))
        return;
    if (me->used)
        refuse(ret, "the log of this voter is gone, but not the file that tells its number; move the folder "
                    "away, then the agent gets another number");
    else
        refuse(ret, "this voter has no log, and how it began is not known any more; move the folder away, "
                    "then the agent gets another number");
}

/* ME's folder is not named by DOC, but remembers a number. */
static void place_unnamed(const struct voters_doc *doc, const struct voters_me *me, struct voters_place *ret)
{
    const struct voter *v = voters_find(doc, me->number);
    bool same = strcmp(doc->set, me->set) == 0;
    if (!same && me->has_data)
        refuse(ret,
               "the folder holds a voter's log of another cluster than the one that Consul names; if this "
               "one is right, stop those agents and delete Consul's key, else move the folder away");
    else if (same && v && v->folder[0] == '\0')
        take_number(doc, me, me->number, ret);
    else if (same && v)
        refuse(ret, "another folder has the number of this voter; move this folder away");
    else
        ret->role = VOTERS_ROLE_REMOVED;
}

/* A store is brought in by who founds the cluster with it, and by nobody else. */
static bool may_bring(const struct voters_doc *doc, const struct voter *own)
{
    return own && doc->first_count == 1 && doc->first[0].number == own->number;
}

/* A number that was never used binds nobody. */
void voters_place(const struct voters_doc *doc, const struct voters_me *me, struct voters_place *ret)
{
    bool fixed = doc && doc->fixed;
    uint64_t number = me->has_data || me->used ? me->number : 0;
    const struct voter *own = fixed ? find_folder(doc, me->folder) : NULL;
    *ret = (struct voters_place){.role = VOTERS_ROLE_WAITS};
    if (fixed && me->alone && !may_bring(doc, own))
        refuse(ret, "the cluster began without the store in it: move it away, or begin with it (README)");
    else if (own && number != 0 && own->number != number)
        refuse(ret, "the folder remembers another number than Consul's key gives it; move the folder away");
    else if (own)
        take_number(doc, me, own->number, ret);
    else if (fixed && number != 0)
        place_unnamed(doc, me, ret);
    else if (fixed)
        ret->role = VOTERS_ROLE_USER;
    else if (number != 0)
        take_number(NULL, me, number, ret); /* the key was lost: the log says all */
}

/* --- the first set ------------------------------------------------------------------------------------------------- */

static void copy_text(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from); /* fits: of the same size */
}

static struct voter *add(struct voters_doc *doc, const struct voters_me *me, enum voter_state state)
{
    assert(doc->count < VOTERS_MAX);
    struct voter *v = &doc->list[doc->count++];
    *v = (struct voter){.number = doc->next++, .state = state};
    copy_text(v->folder, sizeof(v->folder), me->folder);
    copy_text(v->name, sizeof(v->name), me->name);
    copy_text(v->address, sizeof(v->address), me->address);
    return v;
}

static void drop(struct voters_doc *doc, size_t at)
{
    doc->count--;
    memmove(&doc->list[at], &doc->list[at + 1], (doc->count - at) * sizeof(doc->list[0]));
}

/* Note the beats of all claims: one counts as alive when its beat was seen to change, on this agent's own clock. */
static void watch_claims(struct voters_seen *seen, const struct voters_doc *doc, int64_t now_ms)
{
    struct voters_seen next = *seen;
    next.count = 0;
    for (size_t i = 0; i < doc->count; i++) {
        const struct voter *v = &doc->list[i];
        size_t at = 0;
        while (at < seen->count && strcmp(seen->claims[at].folder, v->folder) != 0)
            at++;
        bool known = at < seen->count;
        bool changed = known && seen->claims[at].beat != v->beat;
        if (known && !changed) {
            next.claims[next.count++] = seen->claims[at];
            continue;
        }
        copy_text(next.claims[next.count].folder, VOTERS_FOLDER_SIZE, v->folder);
        next.claims[next.count].beat = v->beat;
        next.claims[next.count].since_ms = now_ms;
        next.claims[next.count++].changed = changed;
    }
    *seen = next;
}

/* The claims stand in SEEN in the order of the document. */
static bool drop_stale(const struct voters_seen *seen, const struct voters_me *me, int64_t now_ms,
                       struct voters_doc *doc)
{
    bool any = false;
    for (size_t i = seen->count; i-- > 0;)
        if (strcmp(doc->list[i].folder, me->folder) != 0 &&
            now_ms - seen->claims[i].since_ms >= VOTERS_STALE_MS) {
            drop(doc, i);
            any = true;
        }
    return any;
}

static bool all_alive(const struct voters_seen *seen, const struct voters_me *me, int64_t now_ms)
{
    for (size_t i = 0; i < seen->count; i++)
        if (strcmp(seen->claims[i].folder, me->folder) != 0 &&
            (!seen->claims[i].changed || now_ms - seen->claims[i].since_ms >= VOTERS_STALE_MS / 2))
            return false;
    return true;
}

static void fix(struct voters_doc *doc)
{
    doc->fixed = true;
    doc->first_count = doc->count;
    for (size_t i = 0; i < doc->count; i++) {
        doc->list[i].state = VOTER_MEMBER;
        doc->list[i].beat = 0;
        doc->first[i] = (struct voter){.number = doc->list[i].number, .state = VOTER_MEMBER};
        copy_text(doc->first[i].address, VOTERS_ADDRESS_SIZE, doc->list[i].address);
    }
}

/* The first of those who claim says how many are wanted. */
static bool set_wanted(const struct voters_me *me, struct voters_doc *doc)
{
    if (doc->count == 0 || strcmp(doc->list[0].folder, me->folder) != 0)
        return false;
    bool changed = doc->wanted != me->wanted || doc->count > me->wanted;
    doc->wanted = me->wanted;
    if (doc->count > doc->wanted)
        doc->count = doc->wanted;
    return changed;
}

/* Who claims at the address of another waits until that one has gone stale: they may be the same, before its folder was emptied. */
static bool claim(struct voters_seen *seen, const struct voters_now *now, struct voters_doc *doc)
{
    if (now->me->leaving || doc->count >= doc->wanted || find_address(doc, now->me->address))
        return false;
    (void)add(doc, now->me, VOTER_CLAIMED);
    seen->beat_ms = now->now_ms;
    return true;
}

/* What exists goes before what is to be: the others' claims are dropped. Of several that bring a store the first one counts. */
static bool found(struct voters_seen *seen, const struct voters_now *now, struct voters_doc *doc)
{
    const struct voters_me *me = now->me;
    const struct voter *own = find_folder(doc, me->folder);
    bool founds = own && own->state == VOTER_FOUNDING;
    if (me->leaving || (founds ? own->beat < VOTERS_FOUND_BEATS : count_in(doc, VOTER_FOUNDING) > 0))
        return false;
    struct voter self = founds ? *own : (struct voter){.number = 0};
    doc->count = seen->count = 0;
    if (founds) {
        doc->list[doc->count++] = self;
        fix(doc);
    } else {
        (void)add(doc, me, VOTER_FOUNDING);
    }
    doc->wanted = me->wanted;
    seen->beat_ms = now->now_ms;
    return true;
}

static bool step_claim(struct voters_seen *seen, const struct voters_now *now, struct voters_doc *doc)
{
    const struct voters_me *me = now->me;
    bool changed = drop_stale(seen, me, now->now_ms, doc);
    changed |= set_wanted(me, doc);
    if (me->alone && found(seen, now, doc))
        return true;
    struct voter *own = (struct voter *)find_folder(doc, me->folder);
    if (!own)
        return ((!me->alone && claim(seen, now, doc)) || changed) && doc->count > 0;
    if (me->leaving) {
        drop(doc, (size_t)(own - doc->list));
        return doc->count > 0; /* the last one's goes stale */
    }
    if (!changed && doc->count == doc->wanted && count_in(doc, VOTER_FOUNDING) == 0 &&
        all_alive(seen, me, now->now_ms)) {
        fix(doc);
        return true;
    }
    changed |= strcmp(own->address, me->address) != 0;
    if (!changed && now->now_ms - seen->beat_ms < VOTERS_BEAT_MS)
        return false;
    copy_text(own->address, sizeof(own->address), me->address);
    own->beat++;
    seen->beat_ms = now->now_ms;
    return true;
}

static bool begin_claims(struct voters_seen *seen, const struct voters_now *now, struct voters_doc *ret)
{
    if (now->me->leaving)
        return false;
    *ret = (struct voters_doc){.wanted = now->me->wanted, .next = 1};
    copy_text(ret->set, sizeof(ret->set), now->me->folder);
    (void)add(ret, now->me, now->me->alone ? VOTER_FOUNDING : VOTER_CLAIMED);
    seen->beat_ms = now->now_ms;
    return true;
}

/* --- the document follows the log ---------------------------------------------------------------------------------- */

/* The log's configuration, and of DOC (NULL: none) what is known of its voters. Seconds since 1970 are more than any number that
 * was given out one by one, and those of later are more than these. */
static void from_log(const struct voters_now *now, uint64_t next, struct voters_doc *ret)
{
    const struct voters_doc *doc = now->doc && strcmp(now->doc->set, now->me->set) == 0 ? now->doc : NULL;
    *ret = (struct voters_doc){.wanted = now->me->wanted, .fixed = true, .unsure = !now->log->leads};
    copy_text(ret->set, sizeof(ret->set), now->me->set);
    if (doc) {
        memcpy(ret->first, doc->first, sizeof(ret->first));
        ret->first_count = doc->first_count;
    }
    ret->next = doc ? doc->next : (uint64_t)(now->wall_ms / 1000);
    if (ret->next < next)
        ret->next = next;
    for (size_t i = 0; i < now->log->count; i++) {
        const struct voters_log_voter *l = &now->log->list[i];
        const struct voter *known = doc ? voters_find(doc, l->number) : NULL;
        struct voter *v = &ret->list[ret->count++];
        *v = known ? *known : (struct voter){.number = l->number};
        v->state = l->votes ? VOTER_MEMBER : VOTER_JOINING;
        if (!known)
            copy_text(v->address, sizeof(v->address), l->address);
        if (ret->next <= l->number)
            ret->next = l->number + 1;
    }
    struct voter *own = NULL;
    for (size_t i = 0; i < ret->count; i++)
        if (ret->list[i].number == now->me->number)
            own = &ret->list[i];
    if (own) {
        copy_text(own->folder, sizeof(own->folder), now->me->folder);
        copy_text(own->name, sizeof(own->name), now->me->name);
        copy_text(own->address, sizeof(own->address), now->me->address);
    }
}

/* What the document says of the log is not so: it comes from a backup of Consul, say, or was written without a leader. Who the
 * leader has brought in or dropped, it has told first: so only those who are still to come may be missing. */
static bool contradicts(const struct voters_log *log, const struct voters_doc *doc)
{
    for (size_t i = 0; i < doc->count; i++)
        if (doc->list[i].state != VOTER_JOINING && !in_log(log, doc->list[i].number))
            return true;
    for (size_t i = 0; i < log->count; i++)
        if (log->list[i].number >= doc->next)
            return true;
    return doc->unsure;
}

/* The key is lost: the leader writes it, or after a while whoever has the log. Where others begin to claim already, nobody waits: what
 * exists goes before, and must not be begun twice. */
static bool restore(const struct voters_seen *seen, const struct voters_now *now, struct voters_doc *ret)
{
    if (!now->log->known || now->log->count == 0)
        return false;
    bool patient = seen->no_leader_ms != 0 && now->now_ms - seen->no_leader_ms >= VOTERS_LEADERLESS_MS;
    if (!now->log->leads && !now->doc && !patient)
        return false;
    from_log(now, seen->next, ret);
    return true;
}

/* --- a voter's own entry ------------------------------------------------------------------------------------------- */

static bool tell(char *to, size_t size, const char *text)
{
    if (strcmp(to, text) == 0)
        return false;
    copy_text(to, size, text);
    return true;
}

static bool step_own(const struct voters_me *me, uint64_t number, bool leads, struct voters_doc *doc)
{
    struct voter *own = (struct voter *)voters_find(doc, number);
    if (!own)
        return false;
    bool changed = tell(own->folder, sizeof(own->folder), me->folder);
    changed |= tell(own->name, sizeof(own->name), me->name);
    changed |= tell(own->address, sizeof(own->address), me->address);
    if (me->leaving && me->spare && own->state == VOTER_MEMBER) {
        own->state = VOTER_LEAVING;
        changed = true;
    } else if (!me->leaving && own->state == VOTER_LEAVING &&
               (leads || count_in(doc, VOTER_MEMBER) < doc->wanted)) {
        own->state = VOTER_MEMBER; /* it is back before somebody took its place */
        changed = true;
    }
    return changed;
}

/* --- the leader's part --------------------------------------------------------------------------------------------- */

/* What became of it: lost, heard of again, brought in. */
static enum voter_state state_of(const struct voter *v, const struct voters_log_voter *l)
{
    bool silent = l && l->silent_ms >= VOTERS_GONE_MS;
    if (v->state == VOTER_JOINING)
        return l && l->votes ? VOTER_MEMBER : VOTER_JOINING;
    if (v->state == VOTER_MEMBER && silent)
        return VOTER_LOST;
    if (v->state == VOTER_LOST && !silent)
        return VOTER_MEMBER;
    return v->state;
}

static bool note_states(const struct voters_log *log, uint64_t self, struct voters_doc *doc)
{
    bool changed = false;
    for (size_t i = 0; i < doc->count; i++) {
        struct voter *v = &doc->list[i];
        enum voter_state state =
            v->number == self && v->state == VOTER_LOST ? VOTER_MEMBER : state_of(v, in_log(log, v->number));
        changed |= state != v->state;
        v->state = state;
    }
    return changed;
}

/* Whether the log has exactly the voters that the document names: no change is under way. */
static bool is_settled(const struct voters_log *log, const struct voters_doc *doc)
{
    for (size_t i = 0; i < log->count; i++)
        if (!log->list[i].votes || !voters_find(doc, log->list[i].number))
            return false;
    return log->count == doc->count;
}

static size_t find_state(const struct voters_doc *doc, enum voter_state state, uint64_t not_number)
{
    size_t i = 0;
    while (i < doc->count && (doc->list[i].state != state || doc->list[i].number == not_number))
        i++;
    return i;
}

/* It died on its way. */
static bool drop_joining(struct voters_seen *seen, const struct voters_now *now, struct voters_doc *doc)
{
    size_t at = find_state(doc, VOTER_JOINING, 0);
    if (at == doc->count) {
        seen->joining = 0;
        return false;
    }
    if (doc->list[at].number != seen->joining) {
        seen->joining = doc->list[at].number;
        seen->joining_ms = now->now_ms;
    }
    const struct voters_log_voter *l = in_log(now->log, doc->list[at].number);
    if ((l ? l->silent_ms : now->now_ms - seen->joining_ms) < VOTERS_GONE_MS)
        return false;
    drop(doc, at);
    return true;
}

/* Whether those who are left without NUMBER would be a majority at once. */
static bool can_do_without(const struct voters_log *log, uint64_t number)
{
    size_t left = 0, heard = 0;
    for (size_t i = 0; i < log->count; i++)
        if (log->list[i].number != number) {
            left++;
            heard += log->list[i].silent_ms == 0;
        }
    return 2 * heard > left;
}

/* One goes at a time, and only when as many as wanted are there without it: the lost first. A leader that ends hands over. */
static bool drop_one(const struct voters_log *log, uint64_t self, struct voters_doc *doc)
{
    if (!is_settled(log, doc) || count_in(doc, VOTER_MEMBER) < doc->wanted)
        return false;
    size_t at = find_state(doc, VOTER_LOST, self);
    if (at == doc->count)
        at = find_state(doc, VOTER_LEAVING, self);
    if (at == doc->count)
        at = find_state(doc, VOTER_LEAVING, 0); /* itself, then: it would not be leaving else */
    if (at == doc->count || !can_do_without(log, doc->list[at].number))
        return false;
    drop(doc, at);
    return true;
}

static bool mark_surplus(const struct voters_log *log, uint64_t self, struct voters_doc *doc)
{
    size_t at = doc->count;
    if (!is_settled(log, doc) || count_in(doc, VOTER_MEMBER) <= doc->wanted)
        return false;
    for (size_t i = 0; i < doc->count; i++)
        if (doc->list[i].state == VOTER_MEMBER && doc->list[i].number != self)
            at = i;
    assert(at < doc->count); /* more than one, and only one is the leader */
    doc->list[at].state = VOTER_LEAVING;
    return true;
}

static bool step_leader(struct voters_seen *seen, const struct voters_now *now, uint64_t self,
                        struct voters_doc *doc)
{
    bool changed = note_states(now->log, self, doc);
    if (doc->wanted != now->me->wanted || doc->next < seen->next) {
        doc->wanted = now->me->wanted;
        doc->next = doc->next < seen->next ? seen->next : doc->next;
        changed = true;
    }
    return changed || drop_joining(seen, now, doc) || drop_one(now->log, self, doc) ||
           mark_surplus(now->log, self, doc);
}

/* --- who has no place ---------------------------------------------------------------------------------------------- */

static bool volunteer(const struct voters_now *now, struct voters_doc *doc)
{
    if (now->me->leaving || now->me->has_data || !now->log->has_leader || doc->unsure)
        return false;
    if (count_in(doc, VOTER_MEMBER) >= doc->wanted || count_in(doc, VOTER_JOINING) > 0 ||
        doc->count >= VOTERS_MAX)
        return false;
    (void)add(doc, now->me, VOTER_JOINING);
    return true;
}

/* --- the step ------------------------------------------------------------------------------------------------------ */

static bool step_fixed(struct voters_seen *seen, const struct voters_now *now,
                       const struct voters_place *place, struct voters_doc *doc)
{
    if (place->role == VOTERS_ROLE_USER)
        return volunteer(now, doc);
    bool leads = now->log->known && now->log->leads;
    bool changed = step_own(now->me, place->number, leads, doc);
    if (leads)
        changed |= step_leader(seen, now, place->number, doc);
    return changed;
}

static void note(struct voters_seen *seen, const struct voters_now *now)
{
    if (now->log->has_leader)
        seen->no_leader_ms = 0;
    else if (seen->no_leader_ms == 0)
        seen->no_leader_ms = now->now_ms;
    if (now->doc && !now->doc->fixed)
        watch_claims(seen, now->doc, now->now_ms);
    if (now->doc && now->doc->next > seen->next && strcmp(now->doc->set, now->me->set) == 0)
        seen->next = now->doc->next;
}

bool voters_step(struct voters_seen *seen, const struct voters_now *now, struct voters_doc *ret)
{
    struct voters_place place;
    const struct voters_doc *doc = now->doc;
    bool fixed = doc && doc->fixed;
    voters_place(doc, now->me, &place);
    note(seen, now);
    if (place.role == VOTERS_ROLE_REFUSED || place.role == VOTERS_ROLE_REMOVED)
        return false;
    if (place.role == VOTERS_ROLE_VOTER &&
        (!fixed || (now->log->known && now->log->leads && contradicts(now->log, doc))))
        return restore(seen, now, ret);
    if (!fixed && now->log->has_leader)
        return false; /* it will write the key again */
    if (!doc)
        return begin_claims(seen, now, ret);
    *ret = *doc;
    return fixed ? step_fixed(seen, now, &place, ret) : step_claim(seen, now, ret);
}
