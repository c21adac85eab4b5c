#include "agent/events.h"

#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"

#define EVENT_MAX_BYTES 16384

struct events {
    struct list listeners;
};

const char *event_kind_name(enum event_kind kind)
{
    static const char *const names[] = {"fire", "attempt", "job", "cluster"};
    _Static_assert(sizeof(names) / sizeof(names[0]) == EVENT_KIND_COUNT_, "a name for each");
    assert((unsigned)kind < EVENT_KIND_COUNT_);
    return names[kind];
}

struct events *events_new(void)
{
    struct events *v = mem_new(struct events);
    list_init(&v->listeners);
    return v;
}

void events_free(struct events *v)
{
    assert(!v || list_empty(&v->listeners));
    mem_free(v);
}

void events_join(struct events *v, struct events_listener *l)
{
    list_push_back(&v->listeners, &l->link);
}

void events_leave(struct events_listener *l)
{
    list_remove(&l->link);
}

bool events_wanted(const struct events *v)
{
    return v && !list_empty(&v->listeners);
}

void events_tell(struct events *v, enum event_kind kind, const char *ns, const struct buf *json)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(EVENT_MAX_BYTES);
    if (!events_wanted(v) || buf_failed(json))
        return;
    buf_addf(&text, "event: %s\ndata: ", event_kind_name(kind));
    buf_add(&text, buf_str(json), json->len);
    buf_add_str(&text, "\n\n");
    if (buf_failed(&text))
        return;
    LIST_FOR_SAFE(link, &v->listeners)
    {
        struct events_listener *l = container_of(link, struct events_listener, link);
        l->take(l, ns, text.data, text.len);
    }
}

static void end_event(struct events_splitter *s, void (*take)(void *arg, const char *text, size_t len),
                      void *arg)
{
    if (buf_failed(&s->text))
        s->lost++;
    else if (s->text.len > 1 && s->text.data[0] != ':')
        take(arg, s->text.data, s->text.len);
    buf_reset(&s->text);
}

void events_split(struct events_splitter *s, const char *data, size_t bytes,
                  void (*take)(void *arg, const char *text, size_t len), void *arg)
{
    while (bytes > 0) {
        const char *newline = memchr(data, '\n', bytes);
        size_t len = newline ? (size_t)(newline - data) + 1 : bytes;
        bool blank = newline == data && !s->in_line;
        buf_add(&s->text, data, len); /* one that failed takes nothing more until its end */
        s->in_line = !newline;
        data += len;
        bytes -= len;
        if (blank)
            end_event(s, take, arg);
    }
}
