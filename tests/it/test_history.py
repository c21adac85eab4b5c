"""Fires found over all jobs: what was booked, and what succeeded at once, by all that can be asked."""
import time

import pytest
from lib.procs import wait_until

STORES = ("mysql", "raft")

QUICK = {"min_backoff": "100ms", "factor": 1, "max_backoff": "100ms", "jitter": 0}


def job(service, path="/ok", **rest):
    return {"schedule": "@after 50ms", "callback": {"http": {"service": service, "path": path}, "timeout": "2s"},
            "retry": {**QUICK, "max_attempts": 2}, **rest}


def search(agent, **params):
    """All fires that a search finds, page by page."""
    found = []
    while True:
        page = agent.ask("GET", "/v1/fires", 200, params=params)
        assert len(page["fires"]) <= params.get("limit", 100)
        found += page["fires"]
        if not page["next_cursor"]:
            return found
        params = {**params, "cursor": page["next_cursor"]}


def ended(agent, ids):
    jobs = [agent.get(i) for i in ids]
    return all(j["status"]["last_fire"] for j in jobs) and jobs


@pytest.fixture
def mixed(three, service, callee):
    """Ten jobs: half of them die, half succeed at once."""
    callee.behave({"path": "/down", "status": 503})
    ids = [f"{service}-{n}" for n in range(10)]
    for n, i in enumerate(ids):
        three[n % 3].put(i, job(service, "/down" if n % 2 else "/ok", labels={"parity": "odd" if n % 2 else "even"}))
    wait_until(lambda: ended(three[0], ids), 30, "all ended", interval=0.2)
    yield ids
    for i in ids:
        three[0].call("DELETE", f"/v1/jobs/{i}")


def test_search_finds_what_is_asked_for(three, service, mixed):
    odd = {i for n, i in enumerate(mixed) if n % 2}
    even = set(mixed) - odd
    for agent in three:
        for limit in (1, 3, 100):
            all_of_them = search(agent, service=service, limit=limit)
            assert sorted(f["job"] for f in all_of_them) == sorted(mixed)
            assert len({f["fire"] for f in all_of_them}) == 10
            dead = search(agent, service=service, outcome="dead", limit=limit)
            assert {f["job"] for f in dead} == odd and [f["due"] for f in dead] == sorted((f["due"] for f in dead), reverse=True)
            assert all(len(f["attempts"]) == 2 and f["reason"] == "max_attempts" and f["service"] == service for f in dead)
            assert {f["job"] for f in search(agent, service=service, outcome="succeeded", limit=limit)} == even
    assert {f["job"] for f in search(three[0], prefix=f"{service}-", label="parity=odd")} == odd
    assert not search(three[0], service=service, outcome="skipped")
    assert not search(three[0], service=service, to="2020-01-01T00:00:00Z")
    assert len(search(three[0], service=service, **{"from": "2020-01-01T00:00:00Z"})) == 10
    assert not search(three[0], service=service, ns="other")


def test_search_of_one_job_merges_successes_exactly(three, service, callee):
    name = f"{service}-merged"
    callee.behave({"path": "/sometimes", "status": 503, "times": 1})
    three[0].put(name, {**job(service, "/sometimes"), "schedule": "@every 1s", "retry": QUICK})
    wait_until(lambda: (three[0].get(name) or {})["status"]["counts"]["succeeded"] >= 4, 30, "four fires", interval=0.2)
    three[0].ask("POST", f"/v1/jobs/{name}/pause")
    wait_until(lambda: three[0].get(name)["status"]["counts"]["pending"] == 0, 20, "nothing pending")
    history = three[1].fires(name, limit=1000)
    for limit in (1, 2, 100):
        found = search(three[2], job=name, limit=limit)
        assert [f["fire"] for f in found] == [f["fire"] for f in history]
        good = search(three[2], job=name, limit=limit, outcome="succeeded")
        assert [f["fire"] for f in good] == [f["fire"] for f in history if f["outcome"] == "succeeded"]
    half = history[len(history) // 2]["due"]
    newer, older = search(three[0], job=name, **{"from": half}), search(three[0], job=name, to=half)
    assert [f["fire"] for f in newer + older] == [f["fire"] for f in history] and newer and older
    three[0].delete(name)


def test_history_outlives_its_job(three, service, mixed):
    name = mixed[1]
    [dead] = search(three[0], job=name, outcome="dead")
    three[0].delete(name)
    [still] = search(three[1], job=name, outcome="dead")
    assert still == dead
    letters = three[2].ask("GET", "/v1/deadletters", 200, params={"job": name})["deadletters"]
    assert [f["fire"] for f in letters] == [dead["fire"]] and letters[0]["last_error"] == "status 503"
    labelled = three[2].ask("GET", "/v1/deadletters", 200, params={"label": "parity=odd", "prefix": f"{service}-"})
    assert name in {f["job"] for f in labelled["deadletters"]}


@pytest.mark.parametrize("query", ["outcome=lost", "from=yesterday", "cursor=x", "job=", "service=", "limit=0", "colour=red",
                                   "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"])
def test_search_refuses_what_it_does_not_understand(three, query):
    problem = three[0].ask("GET", f"/v1/fires?{query}", 400)
    assert problem["code"] == "invalid_request"


def test_a_kept_fire_is_found_at_every_moment(three, shared_consul, callee):
    """It leaves its row for the job's ring when it succeeds at the first attempt: no reader may fall in between."""
    service = f"kept-{callee.port}"
    names = [f"{service}-{n}" for n in range(5)]
    for n in names:
        three[0].put(n, job(service))
    fires = [wait_until(lambda n=n: three[1].fires(n), 30, "its fire waits")[0]["fire"] for n in names]
    registered = shared_consul.register(service, callee.port)
    left = dict(zip(names, fires))
    deadline = time.monotonic() + 60
    while left and time.monotonic() < deadline:
        for name, fire in list(left.items()):
            assert [f["fire"] for f in three[2].fires(name)] == [fire]
            if three[1].ask("GET", f"/v1/fires/{fire}", 200)["outcome"] == "succeeded":
                del left[name]
    assert not left
    shared_consul.deregister(registered)
    for n in names:
        three[0].delete(n)
