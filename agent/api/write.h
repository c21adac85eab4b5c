/* A write of one job, read from a body or a line: what the planner gets, plus what its answer needs. Reading is pure but for
 * zone files; the merge of a PATCH (and of a PUT that needs the present job) runs on the loop, called by the planner. */
#ifndef CARILLON_AGENT_API_WRITE_H
#define CARILLON_AGENT_API_WRITE_H

#include "agent/api/context.h"
#include "agent/api/problem.h"
#include "agent/api/request.h"
#include "agent/base/rng.h"
#include "agent/core/planner.h"
#include "agent/io/tzload.h"

struct api_write {
    struct planner_api papi;    /* papi.driver is free for who sends it */
    struct api_problem problem; /* why merge refused; with papi.merge_only: why no job is made */
    struct api_context ctx;
    struct tzload *zones;
    json_t *doc;      /* PATCH: the patch; else the body, if merge or a comparison needs it again */
    json_t *warnings; /* array of texts */
    bool keyed;       /* CREATE with Idempotency-Key: one that exists with this body is success */
    uint64_t digest;  /* keyed: of the body, kept in the uid */
};

/* What makes ids: slot numbers of this agent first, any without them. Any thread. */
struct api_ids {
    struct rng *rng;
    uint32_t slots; /* 0: not known */
    bool (*mine)(const void *arg, uint16_t slot);
    const void *arg;
};

/* Empty write in caller's storage. */
void api_write_init(struct api_write *w, struct tzload *zones);
void api_write_fini(struct api_write *w);

/* A new id in NS: one whose slot is ours, if there is one. */
void api_id_make(const struct api_ids *ids, const char *ns, char ret[RECORD_ID_MAX]);
/* The id that belongs to an Idempotency-Key. */
void api_id_from_key(const char *ns, const char *key, char ret[RECORD_ID_MAX]);
/* Make uid, change id and, for a create without one, the id; the context of a request that came in here. */
void api_context_make(const struct api_ids *ids, int64_t now_ms, const struct job_defaults *defaults,
                      struct api_context *ret);

/* Read the write that RQ and BODY ask for into W, whose ctx is set; ids as given or made by IDS. 0, or -ERR_INVALID with
 * the reason in PROBLEM. */
int api_write_read(struct api_write *w, const struct api_request *rq, const char *body, size_t bytes,
                   const struct api_ids *ids, struct api_problem *problem);

/* The JSON of a body, NULL when there may be and is none. 0, or -ERR_INVALID with the reason in PROBLEM. */
int api_write_body(const struct api_request *rq, const char *body, size_t bytes, json_t **ret,
                   struct api_problem *problem);
/* Read what RQ and BODY ask to be done to a fire. CAPABILITY checks the key of a keyed route; NULL: not here, but where it is sent
 * on to. As api_write_read(). */
struct capability;
int api_fire_op_read(struct api_write *w, const struct api_request *rq, const struct capability *capability,
                     const char *body, size_t bytes, const struct api_ids *ids, struct api_problem *problem);

/* The same from parts that were read already. DOC: the job, the patch, or the run's or resume's body (borrowed; may be NULL
 * for the last two); ID "": from the body or made. Used for lines of a bulk. */
struct api_write_parts {
    enum planner_api_op op;
    const char *ns;
    const char *id;
    json_t *doc;
    const struct json_at *at; /* where DOC stands; NULL: it is the body */
};
int api_write_build(struct api_write *w, const struct api_write_parts *parts, const struct api_ids *ids,
                    struct api_problem *problem);

/* For an answer EXISTS to a keyed create: whether the job of UID was made by this key with this body. */
bool api_write_same_body(const struct api_write *w, const struct uid *uid);
/* What a dry run of PUT or PATCH makes of PRESENT (NULL row: absent). As planner_api.merge. */
int api_write_merge(struct api_write *w, const struct job_spec *present, const struct job_row *row,
                    struct job_spec **ret);
/* The uid: SLOT in front, the rest stays. */
void api_uid_set_slot(struct uid *uid, uint32_t slot);

#endif
