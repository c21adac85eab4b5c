"""explain: for each due of a span, past or coming, why it fired, was late, was skipped, waits or is none; and revisions, which tell
who changed what. Every request goes to an agent picked without regard to who owns the job."""
import datetime
import secrets
import time

import pytest
from lib.oracle import instant
from lib.procs import wait_until

STORES = ("mysql", "raft")


@pytest.fixture
def name(three):
    """Of a job, or how the names of several begin; they go with the test."""
    made = f"x{secrets.token_hex(4)}"
    yield made
    three[0].ask("DELETE", f"/v1/jobs?prefix={made}", 200)


@pytest.fixture
def job(service):
    """job(schedule, …) with a callback to the test's callee."""
    def make(schedule="@every 1s", path="/hook", **rest):
        return {"schedule": schedule, "callback": {"http": {"service": service, "path": path}, "timeout": "5s"}, **rest}
    return make


def explain(agent, job_id, **params):
    return agent.ask("GET", f"/v1/jobs/{job_id}/explain", 200, params=params)["occurrences"]


def revisions(agent, job_id):
    return agent.ask("GET", f"/v1/jobs/{job_id}/revisions", 200)["revisions"]


def rfc3339(seconds):
    at = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_of(agent, job_id):
    """The clock of the agents, as a job's change tells it."""
    return instant(agent.get(job_id)["status"]["updated_at"])


def outcomes(occurrences):
    return [o["outcome"] for o in occurrences]


def one(agent, job_id, holds, timeout=20, **params):
    """The only occurrence, once HOLDS says so."""
    def look():
        found = explain(agent, job_id, **params)
        return found if len(found) == 1 and holds(found[0]) else None
    return wait_until(look, timeout, f"{job_id} is explained as wanted")[0]


def test_every_due_of_a_job_is_explained_and_counts_add_up(three, job, name):
    made = three[0].put(name, job("@every 1s"))
    began = instant(made["status"]["created_at"])
    wait_until(lambda: three[1].get(name)["status"]["counts"]["succeeded"] >= 5, 20, "five fires")
    three[2].ask("POST", f"/v1/jobs/{name}/pause", 200, headers={"Carillon-Client": "it"})
    status = wait_until(lambda: (s := three[1].get(name)["status"])["counts"]["pending"] == 0 and s, 20, "all ended")
    found = explain(three[0], name, **{"from": rfc3339(began), "to": rfc3339(instant(status["next_due"]) - 0.001)})
    assert outcomes(found) == ["succeeded"] * status["counts"]["seq"], found
    fires = [o["fire"] for o in found]
    assert fires == [f"{status['uid']}.{n + 1}" for n in range(len(fires))]
    assert all("succeeded at the first attempt" in o["text"] and " answered 200 after " in o["text"] for o in found)
    page = three[1].ask("GET", f"/v1/jobs/{name}/explain", 200,
                        params={"from": rfc3339(began), "to": rfc3339(began + 10), "limit": 2})
    assert [o["fire"] for o in page["occurrences"]] == fires[:2] and page["next_from"] == found[2]["due"]


def test_late_because_no_endpoint_was_healthy(three, shared_consul, callee, name):
    service = f"away-{callee.port}"
    three[0].put(name, {"schedule": "@after 500ms", "callback": {"http": {"service": service, "path": "/"}}})
    waiting = one(three[1], name, lambda o: o["reason"] == "no_endpoint")
    assert waiting["outcome"] == "pending"
    assert f"waiting for a healthy endpoint of service '{service}' since" in waiting["text"]
    registered = shared_consul.register(service, callee.port)
    late = one(three[2], name, lambda o: o["outcome"] == "succeeded")
    assert f" late because no endpoint of service '{service}' was healthy before; succeeded at the first attempt" in late["text"]
    shared_consul.deregister(registered)


def test_skipped_because_somebody_paused_it(three, job, name):
    three[0].put(name, job("@every 1s"))
    wait_until(lambda: three[1].get(name)["status"]["counts"]["succeeded"] >= 1, 20, "a fire")
    three[0].ask("POST", f"/v1/jobs/{name}/pause", 200, headers={"Carillon-Client": "it"})
    paused = instant(revisions(three[1], name)[0]["at"])
    open_ = wait_until(lambda: [o for o in explain(three[1], name) if o["reason"] == "paused"], 20, "a due while paused")[0]
    assert open_["outcome"] == "pending" and "the job has been paused by a local client since" in open_["text"]
    coming = explain(three[1], name, **{"from": rfc3339(paused + 3600), "to": rfc3339(paused + 3602)})
    assert set(outcomes(coming)) == {"future"} and "skipped if the job is still paused then" in coming[0]["text"]
    three[2].ask("POST", f"/v1/jobs/{name}/resume", 200, headers={"Carillon-Client": "it"})
    skipped = [o for o in explain(three[1], name) if o["outcome"] == "skipped"]
    assert skipped[0]["due"] == open_["due"] and skipped[0]["reason"] == "paused"
    assert skipped[0]["text"].startswith("skipped because the job was paused by a local client at")
    assert [r["op"] for r in revisions(three[0], name)] == ["resume", "pause", "create"]


def test_waiting_for_a_retry_and_coalesced_into_the_next(three, job, callee, name):
    callee.behave({"status": 503})
    three[0].put(name, job("@every 3s", concurrency="forbid", retry={"min_backoff": "1m", "jitter": 0}))
    pending = wait_until(lambda: [o for o in explain(three[1], name) if o["outcome"] == "pending" and o["fire"]], 20, "a retry")[0]
    assert "waiting for the retry at" in pending["text"] and "attempt 1 failed (status 503)" in pending["text"]
    folded = wait_until(lambda: [o for o in explain(three[2], name) if o["outcome"] == "coalesced" and "recorded yet" not in o["text"]],
                        20, "coalesced")[0]
    assert folded["due"] == pending["due"] and folded["fire"] == pending["fire"]
    into = next(o for o in explain(three[0], name) if o["fire"] != folded["fire"])
    assert folded["text"].startswith(f"coalesced into fire {into['fire']}, due at"), folded["text"]


def test_a_changed_schedule_is_explained_by_what_it_was(three, job, name):
    first = three[0].put(name, job("@every 1s"))
    wait_until(lambda: three[1].get(name)["status"]["counts"]["succeeded"] >= 2, 20, "two fires")
    second = three[1].put(name, job("0 9 * * *", timezone="Europe/Berlin"))
    changed = instant(second["status"]["updated_at"])
    began = instant(first["status"]["created_at"])
    found = explain(three[2], name, **{"from": rfc3339(began), "to": rfc3339(changed + 1)})
    counts = three[0].get(name)["status"]["counts"]
    assert len([o for o in found if o["fire"]]) == counts["seq"], found
    assert all(instant(o["due"]) <= changed for o in found)
    tomorrow = time.strftime("%Y-%m-%d", time.gmtime(changed + 86400))
    assert [o["local"][:16] for o in explain(three[2], name, at=tomorrow)] == [f"{tomorrow}T09:00"]
    [none] = explain(three[0], name, at=f"{tomorrow}T10:00")
    assert none["outcome"] == "not_due" and 'the schedule "0 9 * * *" names no such time; the due before is' in none["text"]
    [absent] = explain(three[1], name, at=rfc3339(began - 60))
    assert absent["outcome"] == "not_due" and "did not exist yet; it was created by a local client at" in absent["text"]
    assert [(r["op"], r["version"]) for r in revisions(three[2], name)] == [("replace", 2), ("create", 1)]


def test_the_hour_that_does_not_exist(three, job, name):
    three[0].put(name, job("30 2 * * *", timezone="Europe/Berlin"))
    [gap] = explain(three[1], name, at="2027-03-28T02:30")
    assert (gap["outcome"], gap["local"]) == ("future", "2027-03-28T03:30:00+02:00")
    assert "02:30 does not exist in Europe/Berlin on that day (clocks go forward), so it was due at 03:30 instead" in gap["text"]


def test_a_deleted_job_is_explained_as_far_as_kept(three, job, callee, name):
    callee.behave({"status": 410})
    three[0].put(name, job("@every 2s"))
    dead = wait_until(lambda: [o for o in explain(three[1], name) if o["outcome"] == "dead"], 20, "a dead letter")[0]
    three[1].ask("DELETE", f"/v1/jobs/{name}", 200, headers={"Carillon-Client": "it"})
    kept = next(o for o in explain(three[2], name) if o["fire"] == dead["fire"])
    assert kept["outcome"] == "dead" and "because callback.give_up_on names the answer: status 410" in kept["text"]
    history = revisions(three[0], name)
    assert [r["op"] for r in history] == ["delete", "create"] and history[0]["uid"] == history[1]["uid"]
    [later] = explain(three[0], name, at=rfc3339(instant(history[0]["at"]) + 60))
    assert later["outcome"] == "not_due" and later["reason"] == "deleted"
    assert "the job had been deleted by a local client at" in later["text"]


def test_a_run_is_told_apart_and_named_by_its_revision(three, job, name):
    three[0].put(name, job("0 0 1 1 *"))
    fire = three[1].ask("POST", f"/v1/jobs/{name}/run", 202, headers={"Carillon-Client": "it"})["fire"]
    run = one(three[2], name, lambda o: o["outcome"] == "succeeded")
    assert run["fire"] == fire and run["text"].startswith("asked for by hand (run): fired at")
    assert revisions(three[0], name)[0]["fire"] == fire


def test_what_is_coming_is_counted_by_service_and_member(three, job, service, name):
    lines = [{"op": "create", "id": f"{name}-{n}", "namespace": name, "job": job("@every 10m")} for n in range(30)]
    assert all(r["status"] == 201 for r in three[0].bulk(lines))
    three[1].put(f"{name}-off", job("@every 1s", paused=True), ns=name)
    coming = three[2].ask("GET", f"/v1/forecast?ns={name}&window=1h&step=10m", 200)
    assert (coming["total"], coming["steps"], coming["jobs"], coming["truncated"]) == (180, [30] * 6, 31, False), coming
    assert coming["services"] == [{"service": service, "fires": [30] * 6}]
    assert {m["member"] for m in coming["members"]} <= {a.name for a in three}
    assert [sum(step) for step in zip(*(m["fires"] for m in coming["members"]))] == [30] * 6
    for bad in ("window=1h&step=1s", "window=0s", "step=x", "window=400d"):
        assert three[0].call("GET", f"/v1/forecast?{bad}").status_code == 400, bad
    three[0].ask("DELETE", f"/v1/jobs?ns={name}&all=true", 200)


def test_bad_questions_are_refused(three, name, job):
    three[0].put(name, job())
    for params in ({"at": "yesterday"}, {"at": "2026-11-23", "from": "2026-11-23T00:00:00Z"}, {"to": "soon"},
                   {"from": "2026-11-23T00:00:00Z", "to": "2026-11-23T00:00:00Z"}, {"limit": 0}):
        assert three[0].call("GET", f"/v1/jobs/{name}/explain", params=params).status_code == 400, params
    assert three[0].call("GET", "/v1/jobs/never-was/explain").status_code == 404
    assert three[0].call("GET", "/v1/jobs/never-was/revisions").status_code == 404
    assert three[0].call("GET", f"/v1/jobs/{name}/revisions?cursor=x").status_code == 400
