"""What schemathesis is told of carillon beyond openapi.yaml: texts that mean something, jobs that can be stored, lines of JSON, promises
of every answer, and which refusals no schema can tell. Loaded by it (schemathesis.toml).

Each answer is counted; the counts go to the file API_COUNTS when it ends."""
import atexit
import collections
import datetime
import json
import os
import pathlib
import sys

import schemathesis
from hypothesis import strategies as st

# ---- texts of the formats in openapi.yaml

DURATIONS = st.one_of(
    st.sampled_from(["0s", "250ms", "1s", "90s", "1h30m", "7d", "1d12h"]),
    st.builds("{}{}".format, st.integers(1, 5000), st.sampled_from(["ms", "s", "m", "h"])))
ONCE = st.sampled_from(["@after 1s", "@after 90s", "@after 3h", "@at 2100-01-01T00:00:00Z"])
OFTEN = st.one_of(
    st.sampled_from(["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@every 1s", "@every 90m", "30 2 * * *",
                     "*/5 * * * * *", "0 9 * * MON-FRI", "H H * * *", "0 0 L * *", "0 12 29 2 *", "0 0 1 1,7 *"]),
    st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23)),
    st.builds("@every {}s".format, st.integers(1, 100000)))
SCHEDULES = st.one_of(ONCE, OFTEN)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"])
INSTANTS = st.sampled_from(["2026-11-23T08:00:00Z", "2026-03-29T02:30", "2026-10-25", "2099-12-31T23:59:59.999Z"])

schemathesis.openapi.format("carillon-duration", DURATIONS)
schemathesis.openapi.format("carillon-schedule", SCHEDULES)
schemathesis.openapi.format("carillon-timezone", ZONES)
schemathesis.openapi.format("carillon-instant", INSTANTS)
schemathesis.openapi.format("carillon-span", st.sampled_from(["1s", "90s", "1h", "1d", "366d"]))
# The years 1970 to 9999, near today most of the time.
schemathesis.openapi.format("date-time", st.one_of(
    st.sampled_from(["1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "2026-11-23T08:00:00.5+14:00"]),
    st.datetimes(min_value=datetime.datetime(2020, 1, 1), max_value=datetime.datetime(2030, 1, 1)).map(lambda t: t.isoformat() + "Z")))

# ---- jobs that can be stored: of what was drawn only fields that no other field forbids

SERVICE = "demo"
FREE_FIELDS = ("payload", "labels", "description", "concurrency", "delivery", "paused", "short_month", "dst", "timezone",
               "max_fires", "ttl_after_done")


PATCHES = st.sampled_from([{"paused": True}, {"paused": False}, {"description": "other"}, {"payload": [1, {"a": None}]}, {"labels": {"a": "b"}},
                           {"schedule": "@every 2s"}, {"concurrency": "queue"}, {"delivery": "at_most_once"}, {}])


def operation(case):
    return case.operation.definition.raw.get("operationId", case.operation.label)


@st.composite
def sound_body(draw, name, body):
    """A body that the operation NAME takes; as drawn if it has no rules of its own."""
    if name in ("createJob", "putJob"):
        kept = draw(st.sets(st.sampled_from(FREE_FIELDS)))
        path = draw(st.sampled_from(["/", "/slow", "/bad"]))
        return {k: v for k, v in body.items() if k in kept} | {
            "schedule": draw(SCHEDULES), "callback": {"http": {"service": SERVICE, "path": path}}}
    if name == "patchJob":
        return draw(PATCHES)
    if name == "backfillJob":
        now = datetime.datetime.now(datetime.timezone.utc)
        begin = now - datetime.timedelta(minutes=draw(st.integers(2, 200)))
        return {"from": begin.isoformat(), "to": (now - datetime.timedelta(minutes=1)).isoformat()}
    return draw(sound_line(body)) if name == "bulk" else body


@st.composite
def sound(draw, case):
    """CASE most of the time with a body that can be done, and without the conditions that would refuse it."""
    if draw(st.integers(0, 5)) == 0:
        return case
    name = operation(case)
    if isinstance(case.body, dict):
        case.body = draw(sound_body(name, case.body))
    if name == "service":
        case.path_parameters = {"name": SERVICE}
    for given, unwanted in ((case.query, ("dry_run", "cursor")), (case.headers, ("If-Match", "If-None-Match", "Idempotency-Key", "Carillon-Namespace"))):
        for key in unwanted if given else ():
            given.pop(key, None)
    return case


@st.composite
def sound_line(draw, body):
    """A line of a bulk: what its op needs, and nothing else."""
    line = {"op": body["op"], "namespace": "bulk", "id": draw(st.sampled_from(["a", "b", "c"]))}
    if line["op"] in ("create", "put"):
        line["job"] = {"schedule": draw(SCHEDULES), "callback": {"http": {"service": SERVICE}}}
    if line["op"] == "patch":
        line["job"] = {"description": "patched"}
    return line


@schemathesis.hook
def flatmap_case(_context, case):
    mode = case.meta.generation.mode if case.meta else None
    return sound(case) if mode is not None and mode.is_positive else st.just(case)


# ---- lines of JSON

@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    return json.dumps(value).encode() + b"\n"


@schemathesis.deserializer("application/x-ndjson")
def first_line(_context, response):
    """Each line has the same schema: the one that is looked at is the last, which differs most."""
    text = response.content.decode().splitlines()
    return json.loads(text[-1]) if text else {"op": "put"}  # an export of nothing


# ---- what every answer promises

@schemathesis.check
def answers_keep_what_is_promised_of_all(_context, response, _case):
    """Carillon-Request on each; a problem says its status, its instance and a code; who is to come later is told when."""
    def header(name):
        return (response.headers.get(name.lower()) or [None])[0]

    assert header("Carillon-Request"), "no Carillon-Request"
    if response.status_code in (429, 503) and "application/problem+json" in (header("Content-Type") or ""):
        assert header("Retry-After"), "no Retry-After"
    if response.status_code >= 400 and response.content and "problem" in (header("Content-Type") or ""):
        problem = json.loads(response.content)
        assert problem["status"] == response.status_code, "another status in the problem"
        assert problem["instance"] == header("Carillon-Request"), "another request in the problem"
        assert problem["detail"], "it does not say what is wrong"


# ---- what a schema cannot tell

# Of one parameter: a cursor is what an earlier answer gave, two ways to name the namespace have to agree, numbers of JSON have 64 bits.
KNOWN = ("is not a next_cursor", "another namespace's list", "is not the query's ns", "too big integer", "too big negative integer")
# What schemathesis infers rather than reads: which request should succeed, which fail, and what a delete takes with it.
INFERRED = ("ST201", "ST202", "ST203", "ST301", "ST302")


@schemathesis.hook
def filter_failure(_context, failure, case, response):
    """False: not to be judged."""
    if is_not_told(failure, response):
        return False
    if os.environ.get("API_INFERRED") == "tell" and failure.code in INFERRED:
        print(f"check-api: to be looked at, not judged: {failure.code} {case.method} {case.formatted_path}: {response.status_code} "
              f"{failure.message.splitlines()[0]} {response.content[:300]!r} asked with query {dict(case.query or {})!r:.300}, "
              f"headers {dict(case.headers or {})!r:.300}, body {case.body!r:.300}", file=sys.stderr, flush=True)
        return False
    return True


def is_not_told(failure, response):
    """A request as openapi.yaml describes it was refused, for a reason that it does not describe. A refusal that names the field or
    parameter that is wrong is one that openapi.yaml has to describe; one that names none is of a rule between several."""
    if failure.code != "ST202" or response.status_code not in (400, 422):
        return False
    problem = json.loads(response.content)
    if problem["code"] != "invalid_request" or not problem["errors"]:
        return True
    return any(text in json.dumps(problem) for text in KNOWN)


# ---- counts

counts = collections.defaultdict(collections.Counter)


@schemathesis.hook
def after_call(_context, case, response):
    counts[operation(case)][str(response.status_code)] += 1


@atexit.register
def write_counts():
    if os.environ.get("API_COUNTS"):
        pathlib.Path(os.environ["API_COUNTS"]).write_text(json.dumps(counts), encoding="utf-8")
