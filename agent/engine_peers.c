/* What members say to each other for the ownership machine: its questions and news sent, theirs taken in and answered. */
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/engine_private.h"

#define PEER_TIMEOUT_MS  1000
#define PROBE_TIMEOUT_MS 1000
#define MOVED_TOLD_MAX \
    64 /* members that hear of a planned move at once; the rest of a larger cluster reads of it */

struct engine_asked *engine_asked_new(struct engine *g, const char *member, uint64_t question)
{
    struct engine_asked *a = mem_new(struct engine_asked);
    a->engine = g;
    a->question = question;
    if (member)
        (void)snprintf(a->member, sizeof(a->member), "%s", member); /* ids are shorter */
    return a;
}

/* --- asking peers -------------------------------------------------------------------------------------------------- */

static void send_to(struct engine *g, const char *member, const char *path, json_t *body, peers_done *done,
                    void *arg)
{
    const char *address = engine_address(g, member);
    if (address) {
        peers_send(g->peers, address, path, body, PEER_TIMEOUT_MS, done, arg);
        return;
    }
    json_decref(body);
    mem_free(arg); /* an answer may stay out */
}

static void on_told_who(void *arg, const struct err *e, const json_t *doc)
{
    struct engine_asked *a = arg;
    if (e->code != ERR_CANCELLED) {
        const char *who = e->code == ERR_OK ? json_string_value(json_object_get(doc, "member")) : NULL;
        struct ownership_event event = {.kind = OWNERSHIP_PROBED,
                                        .ok = true,
                                        .member = a->member,
                                        .replaced = who && strcmp(who, a->member) != 0};
        engine_own(a->engine, &event);
    }
    mem_free(a);
}

static void on_probed(void *arg, enum link_event ev)
{
    struct engine_asked *a = arg;
    struct engine *g = a->engine;
    struct ownership_event event = {
        .kind = OWNERSHIP_PROBED, .ok = ev != LINK_LOST, .member = a->member, .yes = ev == LINK_REFUSED};
    const char *address = ev == LINK_UP ? engine_address(g, a->member) : NULL;
    g->store_calls--;
    if (address && !engine_dead(g)) {
        peers_send(g->peers, address, "who", json_object(), PEER_TIMEOUT_MS, on_told_who, a);
    } else {
        if (!engine_dead(g))
            engine_own(g, &event);
        mem_free(a);
    }
    engine_check_end(g);
}

void engine_probe(struct engine *g, const char *member)
{
    const char *address = engine_address(g, member);
    if (!address) { /* its row is gone: nowhere to look is no word against it */
        (void)engine_add_news(g, OWNERSHIP_PROBED, member);
        return;
    }
    g->store_calls++;
    link_probe(g->o.loop, address, PROBE_TIMEOUT_MS, on_probed, engine_asked_new(g, member, 0));
}

static void on_looked(void *arg, const struct err *e, const json_t *doc)
{
    struct engine_asked *a = arg;
    if (e->code == ERR_CANCELLED) {
        mem_free(a);
        return;
    }
    struct ownership_event event = {.kind = OWNERSHIP_LOOKED,
                                    .member = a->member,
                                    .question = a->question,
                                    .ok =
                                        e->code == ERR_OK && json_is_boolean(json_object_get(doc, "refused")),
                                    .yes = json_is_true(json_object_get(doc, "refused"))};
    engine_own(a->engine, &event);
    mem_free(a);
}

void engine_ask_witness(struct engine *g, const struct ownership_action *action)
{
    send_to(g, action->via, "look", json_pack("{s:s}", "member", action->member), on_looked,
            engine_asked_new(g, action->member, action->question));
}

struct ownership_slot *engine_slots_of(const uint16_t *slots, const uint64_t *epochs, size_t count)
{
    struct ownership_slot *list = mem_new_array(struct ownership_slot, count + 1);
    for (size_t i = 0; i < count; i++)
        list[i] = (struct ownership_slot){.slot = slots[i], .epoch = epochs ? epochs[i] : 0};
    return list;
}

static void on_agreed(void *arg, const struct err *e, const json_t *doc)
{
    struct engine_asked *a = arg;
    uint16_t *slots = mem_new_array(uint16_t, a->engine->o.slots);
    long count = -1;
    if (e->code == ERR_OK)
        count = peers_slots_read(json_object_get(doc, "slots"), a->engine->o.slots, slots);
    if (count >= 0) {
        struct ownership_slot *list = engine_slots_of(slots, NULL, (size_t)count);
        struct ownership_event event = {.kind = OWNERSHIP_AGREED,
                                        .member = a->member,
                                        .question = a->question,
                                        .ok = true,
                                        .yes = true,
                                        .leaving = json_is_true(json_object_get(doc, "leaving")),
                                        .slots = list,
                                        .slots_count = (size_t)count};
        engine_own(a->engine, &event);
        mem_free(list);
    }
    mem_free(slots);
    mem_free(a);
}

void engine_offer(struct engine *g, const struct ownership_action *action)
{
    json_t *body =
        json_pack("{s:s,s:s,s:b,s:o}", "from", g->member, "to", action->member, "leaving", action->leaving,
                  "slots", peers_slots_document(action->slots, action->slots_count));
    send_to(g, action->member, "offer", body, on_agreed,
            engine_asked_new(g, action->member, action->question));
}

static json_t *epochs_document(const uint64_t *epochs, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++)
        if (json_array_append_new(list, json_integer((json_int_t)epochs[i])) < 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *moved_document(const struct engine *g, const struct ownership_action *a)
{
    return json_pack("{s:s,s:s,s:o,s:o}", "from", g->member, "to", a->member, "slots",
                     peers_slots_document(a->slots, a->slots_count), "epochs",
                     epochs_document(a->epochs, a->slots_count));
}

void engine_tell_given(struct engine *g, const struct ownership_action *a)
{
    size_t told = 0;
    send_to(g, a->member, "given", moved_document(g, a), NULL, NULL);
    for (size_t i = 0; i < g->members_count && told < MOVED_TOLD_MAX; i++) {
        const struct store_member *m = &g->members[i];
        if (m->dead || strcmp(m->id, g->member) == 0 || strcmp(m->id, a->member) == 0)
            continue;
        send_to(g, m->id, "moved", moved_document(g, a), NULL, NULL);
        told++;
    }
}

void engine_tell_dead(struct engine *g, const struct ownership_action *a)
{
    for (size_t i = 0; i < a->members_count; i++)
        send_to(g, a->members[i], "dead", json_pack("{s:s}", "member", a->member), NULL, NULL);
}

/* A fire that we held in slots we gave away has ended: their owners need not wait for their next look. */
void engine_send_wake(struct engine *g, const uint16_t *slots, size_t count)
{
    for (size_t m = 0; m < g->members_count; m++) {
        const char *member = g->members[m].id;
        uint16_t *theirs = mem_new_array(uint16_t, count + 1);
        size_t n = 0;
        for (size_t i = 0; i < count && g->ownership; i++)
            if (strcmp(engine_owner(g, slots[i], NULL), member) == 0)
                theirs[n++] = slots[i];
        if (n > 0 && strcmp(member, g->member) != 0)
            send_to(g, member, "wake", json_pack("{s:o}", "slots", peers_slots_document(theirs, n)), NULL,
                    NULL);
        mem_free(theirs);
    }
}

/* --- answering peers ----------------------------------------------------------------------------------------------- */

static void answer(struct engine *g, uint64_t id, const char *body)
{
    struct engine_question *q = map_u64_remove(&g->questions, id);
    if (!q)
        return;
    q->done(q->arg, 200, body);
    mem_free(q);
}

void engine_answer_looked(struct engine *g, const struct ownership_action *a)
{
    answer(g, a->question, a->yes ? "{\"refused\":true}" : "{\"refused\":false}");
}

void engine_answer_agree(struct engine *g, const struct ownership_action *a)
{
    struct buf text = BUF_INIT(1 << 20);
    buf_addf(&text, "{\"leaving\":%s,\"slots\":[", a->leaving ? "true" : "false");
    for (size_t i = 0; i < a->slots_count; i++)
        buf_addf(&text, i ? ",%u" : "%u", a->slots[i]);
    buf_add_str(&text, "]}");
    answer(g, a->question, buf_str(&text));
    buf_fini(&text);
}

void engine_answer_questions(struct engine *g)
{
    for (struct map_u64_iter it = {0}; map_u64_next(&g->questions, &it);) {
        struct engine_question *q = it.value;
        q->done(q->arg, 503, "{}");
        mem_free(q);
    }
    map_u64_clear(&g->questions);
}

static uint64_t keep_question(struct engine *g, void (*done)(void *arg, int status, const char *body),
                              void *arg)
{
    if (map_u64_count(&g->questions) >= ENGINE_QUESTIONS_MAX)
        return 0;
    struct engine_question *q = mem_new(struct engine_question);
    *q = (struct engine_question){.id = ++g->last_question, .done = done, .arg = arg};
    if (map_u64_put(&g->questions, q->id, q, NULL, NULL) < 0) {
        mem_free(q);
        return 0;
    }
    return g->last_question;
}

static const char *text_of(const json_t *doc, const char *key)
{
    const char *text = json_string_value(json_object_get(doc, key));
    return text && text[0] && strlen(text) < RECORD_MEMBER_MAX ? text : NULL;
}

static bool read_epochs(const json_t *epochs, struct ownership_slot *slots, size_t count)
{
    if (json_array_size(epochs) != count)
        return false;
    for (size_t i = 0; i < count; i++) {
        const json_t *epoch = json_array_get(epochs, i);
        if (!json_is_integer(epoch) || json_integer_value(epoch) <= 0)
            return false;
        slots[i].epoch = (uint64_t)json_integer_value(epoch);
    }
    return true;
}

/* OFFERED and GIVEN: slots with their epochs, from whom, to which life of ours. */
static bool feed_slots(struct engine *g, enum ownership_event_kind kind, const json_t *doc, uint64_t question)
{
    uint16_t *slots = mem_new_array(uint16_t, g->o.slots);
    long count = peers_slots_read(json_object_get(doc, "slots"), g->o.slots, slots);
    struct ownership_slot *list = count >= 0 ? engine_slots_of(slots, NULL, (size_t)count) : NULL;
    struct ownership_event event = {.kind = kind,
                                    .member = text_of(doc, "from"),
                                    .to = text_of(doc, "to"),
                                    .ok = true,
                                    .leaving = json_is_true(json_object_get(doc, "leaving")),
                                    .question = question,
                                    .slots = list,
                                    .slots_count = count > 0 ? (size_t)count : 0};
    bool ok =
        list && event.member && event.to &&
        (kind == OWNERSHIP_OFFERED || read_epochs(json_object_get(doc, "epochs"), list, event.slots_count));
    if (ok)
        engine_own(g, &event);
    mem_free(list);
    mem_free(slots);
    return ok;
}

/* A hint where to forward to, nothing more: whoever says it, no slot is taken or dropped for it. */
static bool take_moved(struct engine *g, const json_t *doc)
{
    uint16_t *slots = mem_new_array(uint16_t, g->o.slots);
    long count = peers_slots_read(json_object_get(doc, "slots"), g->o.slots, slots);
    struct ownership_slot *list = count >= 0 ? engine_slots_of(slots, NULL, (size_t)count) : NULL;
    const char *to = text_of(doc, "to");
    bool ok = list && to && read_epochs(json_object_get(doc, "epochs"), list, (size_t)count);
    for (long i = 0; ok && i < count; i++)
        engine_owner_hint(g, list[i].slot, list[i].epoch, to);
    mem_free(list);
    mem_free(slots);
    return ok;
}

static bool feed_wake(struct engine *g, const json_t *doc)
{
    uint16_t *slots = mem_new_array(uint16_t, g->o.slots);
    long count = peers_slots_read(json_object_get(doc, "slots"), g->o.slots, slots);
    struct planner_event event = {
        .kind = PLANNER_WAKE, .slots = slots, .slots_count = count > 0 ? (size_t)count : 0};
    if (count > 0)
        engine_plan(g, &event);
    mem_free(slots);
    return count >= 0;
}

static bool feed_member(struct engine *g, enum ownership_event_kind kind, const json_t *doc,
                        uint64_t question)
{
    struct ownership_event event = {
        .kind = kind, .member = text_of(doc, "member"), .question = question, .ok = true};
    if (!event.member)
        return false;
    engine_own(g, &event);
    return true;
}

static void tell_who(const struct engine *g, void (*done)(void *arg, int status, const char *body), void *arg)
{
    struct buf text = BUF_INIT(RECORD_MEMBER_MAX + 32);
    buf_addf(&text, "{\"member\":\"%s\"}", g->member); /* an id has nothing to escape */
    done(arg, 200, buf_str(&text));
    buf_fini(&text);
}

void engine_peer_message(struct engine *g, const char *path, const char *body, size_t bytes,
                         void (*done)(void *arg, int status, const char *body), void *arg)
{
    json_t *doc = NULL;
    bool asks = strcmp(path, "look") == 0 || strcmp(path, "offer") == 0;
    if (engine_dead(g) || !g->ownership) {
        done(arg, 503, "{}");
        return;
    }
    if (json_read(body, bytes, 1 << 20, &doc, NULL) < 0) {
        done(arg, 400, "{}");
        return;
    }
    if (strcmp(path, "who") == 0) {
        json_decref(doc);
        tell_who(g, done, arg);
        return;
    }
    uint64_t question = asks ? keep_question(g, done, arg) : 0;
    bool ok = false;
    if (asks && question == 0) {
        json_decref(doc);
        done(arg, 503, "{}");
        return;
    }
    if (strcmp(path, "look") == 0)
        ok = feed_member(g, OWNERSHIP_LOOK, doc, question);
    else if (strcmp(path, "offer") == 0)
        ok = feed_slots(g, OWNERSHIP_OFFERED, doc, question);
    else if (strcmp(path, "given") == 0)
        ok = feed_slots(g, OWNERSHIP_GIVEN, doc, 0);
    else if (strcmp(path, "moved") == 0)
        ok = take_moved(g, doc);
    else if (strcmp(path, "dead") == 0)
        ok = feed_member(g, OWNERSHIP_TOLD_DEAD, doc, 0);
    else if (strcmp(path, "wake") == 0)
        ok = feed_wake(g, doc);
    json_decref(doc);
    if (asks && !ok)
        mem_free(map_u64_remove(&g->questions, question));
    if (!asks || !ok)
        done(arg, ok ? 200 : 400, "{}");
}
