#include "agent/store/raft/pack.h"

#include <lz4.h>
#include <pthread.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/core/job.h"
#include "agent/store/raft/codec.h"

/* How the text is stored. A coding never changes; a better dictionary is a new one. */
enum coding { CODING_PLAIN, CODING_LZ4_1, CODING_COUNT_ };

/* Definition and payload together; each is limited by what the API accepts. */
#define TEXT_MAX (4u << 20)

/* What definitions have in common, in their order. Bytes that are used most stand last. Part of the format: never to be changed. */
static const char dictionary_1[] =
    "\"delivery\":\"at_most_once\",\"content_type\":\"text/plain\",\"datacenter\":\"dc1\",\"tag\":[\"],\"async\":{\"max\":\"1h\",\"timeout\":\""
    "\"},\"dst\":{\"gap\":\"skip\",\"repeat\":\"second\"},\"short_month\":\"last\",\"ends_at\":\"2027-12-31T00:00:00.000Z\",\"max_fires\":1,"
    "\"phase\":\"2026-12-01T00:00:00.000Z\",\"grpc\":{\"address\":\"127.0.0.1:\",\"method\":\"/\",\"service\":\"\"},\"metadata\":{\"headers\":"
    "{\"authorization\":\"Bearer ${secret:\",\"content-type\":\"application/json\",\"url\":\"https://\",\"timezone\":\"Europe/Berlin\","
    "\"America/New_York\",\"concurrency\":\"forbid\",\"queue\",\"replace\",\"description\":\"\",\"starts_at\":\"2027-01-01T00:00:00.000Z\","
    "\"schedule\":\"@every 1m\",\"schedule\":\"@at 2027-01-01T00:00:00Z\",\"schedule\":\"*/5 * * * *\",\"schedule\":\"0 9 * * 1-5\",\"one\":true"
    "{\"callback\":{\"allow_control\":false,\"give_up_on\":[400,405,410,413,414,415,422,431],\"http\":{\"method\":\"POST\",\"path\":\"/\","
    "\"service\":\"\"},\"success\":[\"2xx\"],\"timeout\":\"30s\",\"to\":\"one\"},\"concurrency\":\"allow\",\"id\":\"\",\"jitter\":\"30s\",\"labels\":"
    "{\"team\":\"\"},\"max_pending\":16,\"misfire\":{\"policy\":\"all\",\"window\":\"1d\"},\"namespace\":\"default\",\"retry\":{\"factor\":2.0,"
    "\"jitter\":0.2,\"max_age\":\"1d\",\"max_backoff\":\"5m\",\"min_backoff\":\"1s\"},\"schedule\":\"@hourly\",\"timezone\":\"UTC\","
    "\"ttl_after_done\":\"1d\"}";

/* --- writing ------------------------------------------------------------------------------------------------------- */

static void put_labels(const struct job_spec *spec, struct buf *out)
{
    codec_put_u64(out, spec->labels_count);
    for (size_t i = 0; i < spec->labels_count; i++) {
        buf_add(out, spec->labels[i].name, strlen(spec->labels[i].name) + 1);
        buf_add(out, spec->labels[i].value, strlen(spec->labels[i].value) + 1);
    }
}

/* Hashing the dictionary takes longer than compressing a definition: done once, and copied. */
static LZ4_stream_t primed;
static pthread_once_t primed_once = PTHREAD_ONCE_INIT;

static void prime(void)
{
    LZ4_initStream(&primed, sizeof(primed));
    LZ4_loadDict(&primed, dictionary_1, (int)sizeof(dictionary_1) - 1);
}

/* Append TEXT compressed; false (OUT as before, or failed) when that is no gain. */
static bool put_compressed(const char *text, size_t len, struct buf *out)
{
    LZ4_stream_t stream;
    char *room = buf_reserve(out, len);
    if (!room)
        return false;
    (void)pthread_once(&primed_once, prime); /* cannot fail */
    memcpy(&stream, &primed, sizeof(stream));
    int n = LZ4_compress_fast_continue(&stream, text, room, (int)len, (int)len - 1, 1);
    if (n <= 0)
        return false;
    buf_commit(out, (size_t)n);
    return true;
}

static void put_text(const struct buf *text, struct buf *out)
{
    size_t before = out->len;
    buf_add_char(out, CODING_LZ4_1);
    if (text->len > 1 && put_compressed(buf_str(text), text->len, out))
        return;
    buf_truncate(out, before);
    buf_add_char(out, CODING_PLAIN);
    buf_add(out, buf_str(text), text->len);
}

static int put_parts(const struct job_spec *spec, bool payload, struct buf *out, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(TEXT_MAX);
    size_t bytes;
    const char *definition = job_spec_definition(spec, &bytes);
    codec_put_u64(out, bytes);
    codec_put_u64(out, payload ? spec->payload_bytes + 1 : 0);
    buf_add(&text, definition, bytes);
    if (payload && spec->payload_bytes > 0)
        buf_add(&text, spec->payload, spec->payload_bytes);
    if (buf_check(&text, e) < 0)
        return err_wrap(e, "pack a definition");
    put_text(&text, out);
    return buf_check(out, e);
}

int pack_spec(const struct job_spec *spec, struct buf *out, struct err *e)
{
    put_labels(spec, out);
    return put_parts(spec, spec->payload != NULL, out, e);
}

int pack_definition(const struct job_spec *spec, struct buf *out, struct err *e)
{
    codec_put_u64(out, 0); /* labels */
    return put_parts(spec, false, out, e);
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static const char *get_terminated(struct codec_in *in)
{
    const char *text = (const char *)in->at;
    const void *end = in->bad ? NULL : memchr(in->at, 0, (size_t)(in->end - in->at));
    if (!end) {
        in->bad = true;
        return NULL;
    }
    in->at = (const uint8_t *)end + 1;
    return text;
}

static void get_labels(struct codec_in *in, struct pack_labels *ret)
{
    ret->count = (size_t)codec_get_u64(in, JOB_LABELS_MAX);
    ret->next = (const char *)in->at;
    const char *before = NULL;
    for (size_t i = 0; i < ret->count; i++) {
        const char *name = get_terminated(in);
        in->bad |= !get_terminated(in) || (before && strcmp(before, name) >= 0); /* sorted, each once */
        before = name;
    }
}

/* What stands before the text. */
struct head {
    struct pack_labels labels;
    size_t definition_bytes;
    size_t payload_bytes;
    bool payload;
    enum coding coding;
};

static bool get_head(struct codec_in *in, struct head *h)
{
    get_labels(in, &h->labels);
    if (in->bad)
        return false;
    h->definition_bytes = (size_t)codec_get_u64(in, TEXT_MAX);
    uint64_t payload = codec_get_u64(in, (uint64_t)TEXT_MAX + 1);
    h->payload = payload > 0;
    h->payload_bytes = payload > 0 ? (size_t)payload - 1 : 0;
    h->coding = (enum coding)codec_get_u64(in, CODING_COUNT_ - 1);
    return !in->bad && h->definition_bytes + h->payload_bytes <= TEXT_MAX;
}

bool pack_labels(const void *packed, size_t len, struct pack_labels *ret)
{
    struct codec_in in = codec_in(packed, len);
    struct head h;
    if (!get_head(&in, &h))
        return false;
    *ret = h.labels;
    return true;
}

size_t pack_text_bytes(const void *packed, size_t len)
{
    struct codec_in in = codec_in(packed, len);
    struct head h;
    return get_head(&in, &h) ? h.definition_bytes + h.payload_bytes : 0;
}

void pack_labels_next(struct pack_labels *l, const char **ret_name, const char **ret_value)
{
    *ret_name = l->next;
    *ret_value = *ret_name + strlen(*ret_name) + 1;
    l->next = *ret_value + strlen(*ret_value) + 1;
}

/* The text, of exactly LEN bytes, into RET. */
static bool get_text(const struct codec_in *in, enum coding coding, char *ret, size_t len)
{
    size_t stored = (size_t)(in->end - in->at);
    if (coding == CODING_PLAIN) {
        if (stored != len)
            return false;
        memcpy(ret, in->at, len);
        return true;
    }
    int n = LZ4_decompress_safe_usingDict((const char *)in->at, ret, (int)stored, (int)len, dictionary_1,
                                          (int)sizeof(dictionary_1) - 1);
    return n >= 0 && (size_t)n == len;
}

int pack_text(const void *packed, size_t len, struct pack_text *ret, struct err *e)
{
    struct codec_in in = codec_in(packed, len);
    struct head h;
    if (!get_head(&in, &h) || in.end - in.at > (ptrdiff_t)(2 * TEXT_MAX))
        return err_set(e, ERR_PROTOCOL, "the store holds a definition that this agent cannot read");
    size_t bytes = h.definition_bytes + h.payload_bytes;
    AUTO(mem_free) char *memory = mem_try_alloc(bytes + 1, e);
    if (!memory)
        return err_wrap(e, "read a definition");
    if (!get_text(&in, h.coding, memory, bytes))
        return err_set(e, ERR_PROTOCOL, "the store holds a definition that cannot be decompressed");
    *ret = (struct pack_text){.definition = memory,
                              .definition_bytes = h.definition_bytes,
                              .payload = h.payload ? memory + h.definition_bytes : NULL,
                              .payload_bytes = h.payload_bytes};
    ret->memory = TAKE(memory);
    return 0;
}

int pack_read(const void *packed, size_t len, struct job_spec **ret, struct err *e)
{
    struct pack_text text;
    int r = pack_text(packed, len, &text, e);
    if (r < 0)
        return r;
    r = job_spec_decode(text.definition, text.definition_bytes, text.payload, text.payload_bytes, ret, e);
    mem_free(text.memory);
    return r;
}
