/* Who are the voters of the log's cluster: what one document says that all agents read and change by compare-and-set, and what an
 * agent makes of it. The document decides who may become a voter, under which number and from which first set; from then
 * on the log's own configuration is the truth, and the document its shadow: it names what the leader is to make of it next.
 *
 *   nobody's -> agents claim a number each -> the first set is fixed (once) -> voters come and go, one at a time
 *
 * A number belongs to one folder of data for ever: a folder that was emptied has another identity, and so never votes where the
 * old one did. Pure: times and what is seen are inputs. */
#ifndef CARILLON_CORE_VOTERS_H
#define CARILLON_CORE_VOTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VOTERS_MAX          16
#define VOTERS_FOLDER_SIZE  33 /* 32 hexadecimal digits, NUL */
#define VOTERS_NAME_SIZE    64
#define VOTERS_ADDRESS_SIZE 128
#define VOTERS_WHY_SIZE     200

/* A claim is told to be alive this often until the first set is fixed; one that was not for so long is dropped. */
#define VOTERS_BEAT_MS  1000
#define VOTERS_STALE_MS 10000
/* Who brings the store of an agent alone begins the cluster with it after so many beats of its claim: a cluster that is there already
 * and whose document was lost has written it again by then. */
#define VOTERS_FOUND_BEATS 3
/* A voter that the leader has not heard of for so long gives its place to an agent that has none, if there is one. */
#define VOTERS_GONE_MS 30000
/* A document that is missing is written by whoever has the log, if no leader did it in this time. */
#define VOTERS_LEADERLESS_MS 10000

enum voter_state {
    VOTER_CLAIMED,  /* before the first set is fixed */
    VOTER_FOUNDING, /* the same, of the one that has the store which the cluster is to begin with */
    VOTER_JOINING,  /* the leader is to bring it in */
    VOTER_MEMBER,
    VOTER_LOST,    /* not heard of for VOTERS_GONE_MS */
    VOTER_LEAVING, /* ends, or is one too many */
    VOTER_STATE_COUNT_
};
const char *voter_state_name(enum voter_state state);
/* VOTER_STATE_COUNT_: no such name. */
enum voter_state voter_state_parse(const char *name);

struct voter {
    uint64_t number; /* from 1 */
    enum voter_state state;
    char folder
        [VOTERS_FOLDER_SIZE];    /* ""; not known: the document was lost, and its voter has not said it yet */
    char name[VOTERS_NAME_SIZE]; /* of the agent, for people; may be "" with FOLDER */
    char address[VOTERS_ADDRESS_SIZE];
    uint64_t beat; /* of a claim */
};

struct voters_doc {
    char set[VOTERS_FOLDER_SIZE]; /* which cluster: the folder that claimed first */
    uint32_t wanted;
    uint64_t next; /* number that nobody had yet */
    bool fixed;    /* the first set is */
    bool unsure;   /* written without a leader, from what one voter's log says */
    /* Number and address of the first set; none when the document was lost since */
    struct voter first[VOTERS_MAX];
    size_t first_count;
    struct voter list[VOTERS_MAX];
    size_t count;
};

/* Whether DOC can be what voters_step() wrote; else WHY. What does not hold is not worked with. */
bool voters_valid(const struct voters_doc *doc, char why[VOTERS_WHY_SIZE]);
const struct voter *voters_find(const struct voters_doc *doc, uint64_t number);

/* This agent. Its folder remembers `folder`, `set`, `number` and `used`. */
struct voters_me {
    char folder[VOTERS_FOLDER_SIZE];
    char set[VOTERS_FOLDER_SIZE]; /* "": none yet */
    uint64_t number;              /* 0: none yet */
    bool used;                    /* the log was opened under NUMBER */
    bool has_data;                /* there is a log in it */
    bool alone;                   /* there is the store of an agent alone in it; then there is no number */
    char name[VOTERS_NAME_SIZE];
    char address[VOTERS_ADDRESS_SIZE];
    uint32_t wanted;
    bool leaving;
    bool spare; /* there is an agent without a place that could take this one's */
};

/* What its store says of the log. */
struct voters_log {
    bool known; /* its configuration is: what follows is of use */
    bool leads;
    bool has_leader;
    struct voters_log_voter {
        uint64_t number;
        char address[VOTERS_ADDRESS_SIZE];
        bool votes;        /* else it is being brought in */
        int64_t silent_ms; /* for the leader: not heard of since; 0: it is */
    } list[VOTERS_MAX];
    size_t count;
};

enum voters_role {
    VOTERS_ROLE_WAITS,   /* the first set is not fixed yet */
    VOTERS_ROLE_VOTER,   /* NUMBER; with BEGIN from the first set, if there is no log yet */
    VOTERS_ROLE_USER,    /* others vote */
    VOTERS_ROLE_REMOVED, /* as USER, and its log is of no use any more: its number is not among the voters */
    VOTERS_ROLE_REFUSED, /* WHY, for people */
};

struct voters_place {
    enum voters_role role;
    uint64_t number;
    bool begin;
    char why[VOTERS_WHY_SIZE];
};
/* What ME is by DOC (NULL: there is none). */
void voters_place(const struct voters_doc *doc, const struct voters_me *me, struct voters_place *ret);

/* What one agent has seen. Zeroed to begin with. */
struct voters_seen {
    struct {
        char folder[VOTERS_FOLDER_SIZE];
        uint64_t beat;
        int64_t since_ms; /* of this beat */
        bool changed;     /* seen with another beat before */
    } claims[VOTERS_MAX];
    size_t count;
    int64_t beat_ms;      /* own claim's last */
    int64_t no_leader_ms; /* since when, 0: there is one */
    uint64_t next;        /* the highest number that nobody had yet, of all documents */
    uint64_t joining;     /* the one that the leader waits for, */
    int64_t joining_ms;   /* since when */
};

struct voters_now {
    int64_t now_ms; /* boot */
    int64_t wall_ms;
    const struct voters_doc *doc; /* as it is in Consul, not older than the last write; NULL: there is none */
    const struct voters_me *me;
    const struct voters_log *log;
};
/* What ME should make of the document now. True: RET is to be written in place of what was read; a write that is refused because
 * somebody else was first is no failure, the next step starts from what is there then. Call it whenever the document, the log or
 * ME changed, and at least once a second. */
bool voters_step(struct voters_seen *seen, const struct voters_now *now, struct voters_doc *ret);

#endif
