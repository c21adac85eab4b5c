/* The store's history in the order of its commits, as a row-based binlog would tell it, and what must be true of every step:
 * who may write, that numbers and dues go on without a gap, that what is counted is there, that every end has its reason. It
 * judges by the rules that were asked for, not by what agents make of them. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/map.h"
#include "agent/base/mem.h"
#include "agent/store/store_mem_private.h"
#include "tests/sim/witness.h"

#define TOUCHED_MAX 600
#define CLOCK_MS \
    400 /* an agent's clock may be off by 250 ms, and what it knows of the store's is older than that */
#define CALM_MS 20000

struct sim_story *sim_stories;
static struct map stories, rows, changes, fired;

/* --- what is about to be written ----------------------------------------------------------------------------------- */

static struct {
    bool any, commits;
    char member[RECORD_MEMBER_MAX];
    char victim[RECORD_MEMBER_MAX]; /* who may be declared dead by it; "": nobody */
    struct witness_change items[TOUCHED_MAX];
    size_t count;
} touched;

static void note_change(const struct job_change *c)
{
    if (touched.count == TOUCHED_MAX)
        sim_broken("a batch of more than %d jobs", TOUCHED_MAX);
    struct witness_change *t = &touched.items[touched.count++];
    t->uid = c->row.uid;
    t->op = c->op;
    t->change_id = c->revision.op[0] ? c->revision.change_id : 0;
    memcpy(t->revision, c->revision.op, sizeof(t->revision));
    t->seqs_count = c->fires_count;
    t->seqs = mem_new_array(uint64_t, c->fires_count + 1);
    for (size_t i = 0; i < c->fires_count; i++)
        t->seqs[i] = c->fires[i].row.seq;
}

static void note_verdict(const struct mem_op *op)
{
    bool verdict = touched.any && strcmp(op->name, "declare_dead") == 0 && !sim_witness_dead(op->member);
    (void)snprintf(touched.victim, sizeof(touched.victim), "%s", verdict ? op->member : "");
}

void sim_witness_before(const struct loop_msg *msg)
{
    const struct mem_op *op = container_of(msg, struct mem_op, msg);
    touched.any = op->writes && op->store;
    touched.commits = touched.any && strcmp(op->name, "commit") == 0;
    touched.count = 0;
    note_verdict(op);
    if (!touched.any)
        return;
    (void)snprintf(touched.member, sizeof(touched.member), "%s",
                   touched.commits ? op->batch->member : op->member);
    for (size_t i = 0; touched.commits && i < op->batch->jobs_count; i++)
        note_change(op->batch->jobs[i]);
}

/* --- members and slots --------------------------------------------------------------------------------------------- */

static struct {
    char owner[RECORD_MEMBER_MAX];
    char before[RECORD_MEMBER_MAX]; /* until the step that is judged */
    uint64_t epoch;
    int64_t since_us;
} slots[SIM_SLOTS];

bool sim_witness_dead(const char *member)
{
    const struct mem_member *m = sim.store->members;
    while (m && strcmp(m->row.id, member) != 0)
        m = m->next;
    return !m || m->row.dead;
}

uint64_t sim_witness_epoch(uint16_t slot, int64_t *ret_since_us)
{
    *ret_since_us = slots[slot].since_us;
    return slots[slot].epoch;
}

static unsigned living_members(void)
{
    unsigned n = 0;
    for (const struct mem_member *m = sim.store->members; m; m = m->next)
        n += !m->row.dead;
    return n;
}

/* Whoever holds its lease is declared dead only because two could not connect to it, or one if there is no third. In this world who
 * cannot connect to one that listens is cut from all. */
static void judge_verdict(void)
{
    if (!touched.victim[0] || !sim_witness_dead(touched.victim))
        return;
    unsigned refused = 0;
    const struct sim_proc *victim = NULL;
    for (unsigned i = 0; i < sim.hosts_count; i++) {
        const struct sim_host *h = &sim.hosts[i];
        bool is_victim = h->proc && strcmp(h->proc->member, touched.victim) == 0;
        if (is_victim)
            victim = h->proc;
        else
            refused += sim.now_us < h->refused_until_us;
    }
    bool lives =
        victim && !victim->dead && !victim->paused && !victim->left && engine_may_start(victim->engine);
    if (lives && refused < 2 && living_members() >= 2)
        sim_broken("%s is declared dead, its lease holds, and %u others could not connect", touched.victim,
                   refused);
}

/* Nearly every write leaves them all as they were twice before. */
static bool slots_same(void)
{
    static struct store_slot last[SIM_SLOTS];
    static unsigned seen;
    if (sim.store->slots_count == SIM_SLOTS && memcmp(last, sim.store->slots, sizeof(last)) == 0)
        return ++seen > 1;
    seen = 0;
    if (sim.store->slots_count == SIM_SLOTS)
        memcpy(last, sim.store->slots, sizeof(last));
    return false;
}

/* A slot goes from one to another because its owner gave it, or because that is dead. */
static void judge_slots(void)
{
    if (slots_same())
        return;
    for (size_t i = 0; i < sim.store->slots_count; i++) {
        const struct store_slot *now = &sim.store->slots[i];
        memcpy(slots[i].before, slots[i].owner, sizeof(slots[i].before));
        if (now->epoch == slots[i].epoch && strcmp(now->owner, slots[i].owner) == 0)
            continue;
        if (slots[i].epoch && now->epoch != slots[i].epoch + 1)
            sim_broken("slot %zu: epoch %llu follows %llu", i, (unsigned long long)now->epoch,
                       (unsigned long long)slots[i].epoch);
        if (slots[i].epoch && strcmp(touched.member, slots[i].owner) != 0 &&
            !sim_witness_dead(slots[i].owner))
            sim_broken("%s takes slot %zu from %s, which lives", touched.member, i, slots[i].owner);
        if (slots[i].epoch && sim_witness_dead(touched.member))
            sim_broken("%s, which is dead, changes slot %zu", touched.member, i);
        memcpy(slots[i].owner, now->owner, sizeof(slots[i].owner));
        slots[i].epoch = now->epoch;
        slots[i].since_us = sim.now_us;
    }
}

static bool may_write(uint16_t slot)
{
    return strcmp(touched.member, slots[slot].owner) == 0 || strcmp(touched.member, slots[slot].before) == 0;
}

/* --- rows of fires ------------------------------------------------------------------------------------------------- */

static uint64_t row_fires(const struct sim_row *r)
{
    return r->seq_last - r->seq + 1;
}

static void row_key(uint64_t key[3], const struct uid *uid, uint64_t seq)
{
    memcpy(key, uid->bytes, 16);
    key[2] = seq;
}

static struct sim_row *find_row(const struct uid *uid, uint64_t seq)
{
    uint64_t key[3];
    row_key(key, uid, seq);
    return map_get(&rows, key, sizeof(key));
}

const struct sim_row *sim_row_of(const struct uid *uid, uint64_t seq)
{
    return find_row(uid, seq);
}

static void open_remove(struct sim_story *s, struct sim_row *r)
{
    struct sim_row **at = &s->open;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    s->pending -= row_fires(r);
}

static void open_add(struct sim_story *s, struct sim_row *r)
{
    r->next = s->open;
    s->open = r;
    s->pending += row_fires(r);
}

static void put_row(struct sim_row *r, const struct fire_row *f)
{
    r->seq = f->seq;
    r->seq_last = f->seq_last;
    r->rev = f->rev;
    r->version = f->version;
    r->state = f->state;
    r->kind = f->kind;
    r->outcome = f->outcome;
    r->reason = f->reason;
    r->due_ms = f->due_ms;
    r->due_last_ms = f->due_last_ms;
    r->wake_ms = f->wake_ms;
    r->attempts = f->attempts;
    r->attempts_before = f->attempts_before;
    memcpy(r->holder, f->holder, sizeof(r->holder));
}

static void tell_row(const struct sim_story *s, const struct sim_row *r)
{
    static const char *const states[] = {"waits", "is held", "is open", "is reported", "has ended"};
    sim_note("%s: fire %llu of %lld %s until %lld (%s, %s), attempts %u", s->job->id,
             (unsigned long long)r->seq, (long long)(r->due_ms - sim.epoch_ms), states[r->state],
             (long long)(r->wake_ms - sim.epoch_ms), fire_outcome_name(r->outcome),
             r->reason ? fire_reason_name(r->reason) : "-", r->attempts);
}

static bool ended(const struct sim_row *r)
{
    return r->state == FIRE_STATE_ENDED;
}

static void row_gone(struct sim_story *s, struct sim_row *r)
{
    if (!ended(r))
        open_remove(s, r);
    if (!ended(r) || r->outcome != FIRE_OUTCOME_SUCCEEDED)
        witness_success(s, r, NULL); /* a success at the first attempt needs no row */
    map_remove(&rows, r->key, sizeof(r->key));
    mem_free(r);
}

static void row_new(struct sim_story *s, const struct fire_row *f)
{
    struct sim_row *r = mem_new(struct sim_row);
    row_key(r->key, &s->uid, f->seq);
    r->story = s;
    put_row(r, f);
    tell_row(s, r);
    if (s->there && r->seq <= s->row.counts.seq)
        sim_broken("%s: number %llu, which was taken before, is booked", s->job->id,
                   (unsigned long long)r->seq);
    if (map_put(&rows, r->key, sizeof(r->key), r, NULL, NULL) < 0)
        sim_broken("no memory for the witness");
    if (ended(r) || r->state == FIRE_STATE_REPORTED)
        witness_end(s, r, f);
    if (ended(r)) {
        r->ended_us = sim.now_us;
        s->letters += r->outcome == FIRE_OUTCOME_DEAD ? 1 : 0;
    } else {
        open_add(s, r);
    }
}

static void row_changed(struct sim_story *s, struct sim_row *r, const struct fire_row *f)
{
    struct sim_row was = *r;
    if (f->due_ms != r->due_ms || f->seq_last != r->seq_last || f->due_last_ms != r->due_last_ms)
        sim_broken("%s: fire %llu has another due, or spans others", s->job->id, (unsigned long long)r->seq);
    if (!ended(r))
        open_remove(s, r);
    put_row(r, f);
    tell_row(s, r);
    if (was.state == FIRE_STATE_ENDED)
        witness_reopened(s, &was, r);
    else if (was.state != FIRE_STATE_REPORTED && (ended(r) || r->state == FIRE_STATE_REPORTED))
        witness_end(s, r, f);
    else if (was.state == FIRE_STATE_REPORTED && (r->outcome != was.outcome || !ended(r)))
        sim_broken("%s: fire %llu had ended, and has not any more", s->job->id, (unsigned long long)r->seq);
    s->letters += (uint64_t)(ended(r) && r->outcome == FIRE_OUTCOME_DEAD);
    s->letters -= (uint64_t)(was.state == FIRE_STATE_ENDED && was.outcome == FIRE_OUTCOME_DEAD);
    if (ended(r))
        r->ended_us = sim.now_us;
    else
        open_add(s, r);
}

static void judge_row(struct sim_story *s, uint64_t seq)
{
    struct mem_fire_key key = {s->uid, seq};
    const struct mem_fire *now = map_get(&sim.store->fires, &key, sizeof(key));
    struct sim_row *r = find_row(&s->uid, seq);
    if (!now && r)
        row_gone(s, r);
    else if (now && !r)
        row_new(s, &now->row);
    else if (now && now->row.rev != r->rev)
        row_changed(s, r, &now->row);
}

/* --- the job ------------------------------------------------------------------------------------------------------- */

static bool has_fire(const struct sim_story *s, int64_t due_ms)
{
    uint64_t key[3];
    row_key(key, &s->uid, (uint64_t)due_ms);
    return map_get(&fired, key, sizeof(key)) != NULL;
}

/* Under whatever definition: no due has two numbers. */
static void note_due(const struct sim_story *s, uint64_t seq, int64_t due_ms)
{
    uint64_t *key = mem_new_array(uint64_t, 4);
    row_key(key, &s->uid, (uint64_t)due_ms);
    key[3] = seq;
    const uint64_t *old = map_get(&fired, key, 3 * sizeof(*key));
    if (old)
        sim_broken("%s: fires %llu and %llu are of one due, %lld", s->job->id, (unsigned long long)old[3],
                   (unsigned long long)seq, (long long)(due_ms - sim.epoch_ms));
    if (map_put(&fired, key, 3 * sizeof(*key), key, NULL, NULL) < 0)
        sim_broken("no memory for the witness");
}

/* The dues that come next in its row, one number each, in order: those of rows, and of successes that need none. */
static uint64_t walk_numbers(struct sim_story *s, const struct job_row *now)
{
    uint64_t dues = 0;
    for (uint64_t seq = s->row.counts.seq + 1; seq <= now->counts.seq;) {
        const struct sim_row *r = find_row(&s->uid, seq);
        uint64_t n = r ? row_fires(r) : 1;
        if (r && r->kind != FIRE_KIND_SCHEDULED) {
            seq += n;
            continue;
        }
        size_t at = s->at + dues;
        const struct sim_rules *rules = s->rules;
        if (at + n > rules->dues_count)
            sim_broken("%s: fire %llu is beyond its last due", s->job->id, (unsigned long long)seq);
        if (r && (r->due_ms != rules->dues[at] || r->due_last_ms != rules->dues[at + n - 1]))
            sim_broken("%s: fires %llu to %llu are of dues %lld to %lld, the schedule says %lld to %lld",
                       s->job->id, (unsigned long long)seq, (unsigned long long)r->seq_last,
                       (long long)(r->due_ms - sim.epoch_ms), (long long)(r->due_last_ms - sim.epoch_ms),
                       (long long)(rules->dues[at] - sim.epoch_ms),
                       (long long)(rules->dues[at + n - 1] - sim.epoch_ms));
        if (!r)
            witness_first_success(s, seq, rules->dues[at]);
        if (!r || r->outcome != FIRE_OUTCOME_SKIPPED)
            s->counted += n;
        for (uint64_t i = 0; i < n; i++)
            note_due(s, seq + i, rules->dues[at + i]);
        dues += n;
        seq += n;
        s->newest_ms = rules->dues[at + n - 1];
    }
    return dues;
}

/* A backfill goes on by what it books, and leaves nothing of its span out. */
static void walk_backfill(const struct sim_story *s, const struct job_row *now)
{
    const struct sim_rules *r = s->rules;
    if (s->row.backfill_next_ms >= s->row.backfill_until_ms)
        return;
    size_t at = sim_rules_at(r, s->row.backfill_next_ms);
    for (uint64_t seq = s->row.counts.seq + 1; seq <= now->counts.seq; seq++) {
        const struct sim_row *f = find_row(&s->uid, seq);
        if (!f || f->kind != FIRE_KIND_BACKFILL)
            continue;
        if (at == r->dues_count || f->due_ms != r->dues[at])
            sim_broken("%s: fire %llu of its backfill is of due %lld", s->job->id, (unsigned long long)seq,
                       (long long)(f->due_ms - sim.epoch_ms));
        at++;
    }
    bool over = now->backfill_next_ms >= now->backfill_until_ms;
    if (at != sim_rules_at(r, over ? s->row.backfill_until_ms : now->backfill_next_ms))
        sim_broken("%s: its backfill leaves dues out before %lld", s->job->id,
                   (long long)((over ? s->row.backfill_until_ms : now->backfill_next_ms) - sim.epoch_ms));
}

/* The row's next due is the one that follows what is booked. */
static void judge_next(const struct sim_story *s, const struct job_row *now)
{
    const struct sim_rules *r = s->rules;
    int64_t due_ms = s->at < r->dues_count ? r->dues[s->at] : RECORD_NONE, end_ms = sim_rules_end_ms();
    bool used_up = r->max_fires && s->counted >= r->max_fires;
    bool over = due_ms == RECORD_NONE && (r->one_shot || (r->ends_ms != RECORD_NONE && r->ends_ms <= end_ms));
    bool far = due_ms == RECORD_NONE && !over;
    if (used_up || over ? now->state == JOB_STATE_DONE : far ? now->due_ms >= end_ms : now->due_ms == due_ms)
        return;
    sim_broken("%s: the next due is %lld, the schedule says %lld (%llu of %llu fires)", s->job->id,
               (long long)(now->state == JOB_STATE_DONE ? -1 : now->due_ms - sim.epoch_ms),
               (long long)(used_up || due_ms == RECORD_NONE ? -1 : due_ms - sim.epoch_ms),
               (unsigned long long)s->counted, (unsigned long long)r->max_fires);
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* A definition counts from its acceptance, and after what has fired by the one before; one that only changes other things goes
 * on where that was, unless that had fired all it might. Of the recurring dues between its acceptance and what had fired when it was
 * made, the contract does not say whether they come; an instant does. */
static void plan_anew(struct sim_story *s, const struct sim_rules *rules, const struct job_row *now)
{
    bool over = s->row.state == JOB_STATE_DONE ||
                (s->rules && s->rules->max_fires && s->counted >= s->rules->max_fires);
    bool same = s->rules && sim_rules_same_schedule(s->rules, rules) && !over;
    int64_t low_ms = rules->one_shot ? INT64_MIN : rules->accepted_ms, high_ms = later(low_ms, s->newest_ms);
    if (same)
        low_ms = high_ms = s->at < s->rules->dues_count ? s->rules->dues[s->at] - 1 : INT64_MAX - 1;
    else if (s->was && s->there)
        high_ms = later(high_ms, s->row.last.due_ms);
    s->rules = rules;
    s->at = sim_rules_at(rules, high_ms + 1);
    size_t low = sim_rules_at(rules, low_ms + 1);
    while (low < s->at && rules->dues[low] != now->due_ms)
        low++;
    s->at = rules->one_shot && !same && rules->dues_count > 0 ? has_fire(s, rules->dues[0]) : low;
}

static void judge_counts(const struct sim_story *s, const struct job_row *now)
{
    const struct job_counts *c = &now->counts;
    uint64_t done = c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled;
    if (done + s->pending != c->seq)
        sim_broken("%s: %llu fires have ended and %llu are under way, of %llu", s->job->id,
                   (unsigned long long)done, (unsigned long long)s->pending, (unsigned long long)c->seq);
    if (c->dead != s->letters)
        sim_broken("%s: %llu fires are said to be dead, %llu are", s->job->id, (unsigned long long)c->dead,
                   (unsigned long long)s->letters);
    if (c->seq < s->row.counts.seq)
        sim_broken("%s: its numbers went back", s->job->id);
}

static void note_revision(const struct sim_story *s, const struct witness_change *t)
{
    if (!t->change_id)
        return;
    void *old = NULL;
    uint64_t *id = mem_new(uint64_t);
    *id = t->change_id;
    if (map_put(&changes, id, sizeof(*id), id, &old, NULL) < 0)
        sim_broken("no memory for the witness");
    if (old)
        sim_broken("%s: one request is done twice (%s)", s->job->id, t->revision);
    if (strcmp(t->revision, "run") == 0)
        s->job->runs_made++;
}

bool sim_witness_has_change(uint64_t change_id)
{
    return map_get(&changes, &change_id, sizeof(change_id)) != NULL;
}

static void job_made(struct sim_story *s, const struct witness_change *t, const struct job_row *now)
{
    const struct sim_rules *rules = sim_rules_of(s->job, t->change_id);
    if (!rules || s->was)
        sim_broken("%s: nobody asked for this job", s->job->id);
    s->was = true;
    s->newest_ms = INT64_MIN;
    plan_anew(s, rules, now);
    judge_next(s, now);
}

static void job_gone(struct sim_story *s)
{
    bool over = s->row.state == JOB_STATE_DONE && s->row.wake_ms <= sim_wall_ms() + CLOCK_MS &&
                s->row.updated_ms + s->rules->ttl_ms <= sim_wall_ms() + CLOCK_MS;
    if (!s->job->deleting && !over)
        sim_broken("%s: it is gone, and nobody deleted it", s->job->id);
    for (const struct sim_row *r; (r = s->open);) {
        judge_row(s, r->seq);
        if (s->open == r)
            sim_broken("%s: fire %llu goes on after its delete", s->job->id, (unsigned long long)r->seq);
    }
    for (uint64_t seq = 1; seq <= s->row.counts.seq; seq++) /* what had ended stays as it was */
        judge_row(s, seq);
    s->there = false;
}

static void job_changed(struct sim_story *s, const struct witness_change *t, const struct job_row *now)
{
    const struct sim_rules *rules = t->op == CHANGE_REPLACE ? sim_rules_of(s->job, t->change_id) : s->rules;
    if (!rules)
        sim_broken("%s: nobody asked for this definition", s->job->id);
    bool asked = rules != s->rules || strcmp(t->revision, "resume") == 0;
    if (s->row.state == JOB_STATE_PAUSED && now->state != JOB_STATE_PAUSED && !asked)
        sim_broken("%s: it is not paused any more, and nobody resumed it", s->job->id);
    if (s->row.state != JOB_STATE_PAUSED && now->state == JOB_STATE_PAUSED &&
        strcmp(t->revision, "pause") != 0 && !(s->job->reply_pauses && strcmp(t->revision, "reply") == 0))
        sim_broken("%s: it is paused, and nobody asked for that", s->job->id);
    if (rules == s->rules)
        walk_backfill(s, now);
    s->at += walk_numbers(s, now);
    judge_counts(s, now);
    if (rules != s->rules)
        plan_anew(s, rules, now);
    judge_next(s, now);
}

static void judge_job(struct sim_story *s, const struct witness_change *t)
{
    const struct mem_job *job = map_get(&sim.store->jobs, s->uid.bytes, sizeof(s->uid.bytes));
    const struct job_row *now = job ? &job->row : NULL;
    if (now ? s->there && now->rev == s->row.rev : !s->there)
        return;
    if (t->op == CHANGE_NONE)
        sim_broken("%s: its row changed, and nobody wrote it", s->job->id);
    if (!may_write(s->job->slot) || sim_witness_dead(touched.member))
        sim_broken("%s is written by %s, and its slot is %s's", s->job->id, touched.member,
                   slots[s->job->slot].owner);
    note_revision(s, t);
    if (!now) {
        job_gone(s);
        return;
    }
    if (s->there)
        job_changed(s, t, now);
    else
        job_made(s, t, now);
    s->there = true;
    if (now->backfill_next_ms != s->row.backfill_next_ms)
        sim_note(
            "%s: backfill goes on at %lld, until %lld, %u under way", s->job->id,
            (long long)(now->backfill_next_ms == RECORD_NONE ? -1 : now->backfill_next_ms - sim.epoch_ms),
            (long long)(now->backfill_until_ms == RECORD_NONE ? -1 : now->backfill_until_ms - sim.epoch_ms),
            now->backfill_pending);
    sim_note("%s: %s by %s, next due %lld, seq %llu", s->job->id, t->change_id ? t->revision : "updated",
             touched.member, (long long)(now->state == JOB_STATE_DONE ? -1 : now->due_ms - sim.epoch_ms),
             (unsigned long long)now->counts.seq);
    s->row = *now;
}

/* NULL: of a job that the store did not let in. */
static struct sim_story *story_for(const struct uid *uid)
{
    struct sim_story *s = map_get(&stories, uid->bytes, sizeof(uid->bytes));
    if (s || (!sim_job_of(uid) && !map_get(&sim.store->jobs, uid->bytes, sizeof(uid->bytes))))
        return s;
    s = mem_new(struct sim_story);
    s->uid = *uid;
    s->job = sim_job_of(uid);
    s->next = sim_stories;
    sim_stories = s;
    if (!s->job)
        sim_broken("a job that nobody made is written");
    if (map_put(&stories, s->uid.bytes, sizeof(s->uid.bytes), s, NULL, NULL) < 0)
        sim_broken("no memory for the witness");
    return s;
}

const struct sim_story *sim_story_of(const struct uid *uid)
{
    return map_get(&stories, uid->bytes, sizeof(uid->bytes));
}

/* A batch may hold a job twice: what its owner writes, and fires that the same member held for a former owner. */
void sim_witness_after(void)
{
    if (!touched.any)
        return;
    judge_verdict();
    judge_slots();
    for (size_t i = 0; i < touched.count; i++) {
        struct witness_change *t = &touched.items[i];
        struct sim_story *s = story_for(&t->uid);
        for (size_t k = 0; s && k < t->seqs_count; k++)
            judge_row(s, t->seqs[k]);
        mem_free(t->seqs);
    }
    for (int holders = 0; holders < 2; holders++)
        for (size_t i = 0; i < touched.count; i++) {
            const struct witness_change *t = &touched.items[i];
            struct sim_story *s = story_for(&t->uid);
            if (s && (t->op == CHANGE_NONE) == (holders == 1))
                judge_job(s, t);
        }
}
