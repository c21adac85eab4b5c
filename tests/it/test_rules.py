"""The rules of a job, with real callees: what happens to dues that nobody could fire, that come while others are under way, that
are over; and that a fire which may be sent once is not sent twice, whoever dies."""
import collections
import datetime
import time

import pytest

from lib.oracle import deliveries
from lib.procs import wait_until

STORES = ("mysql", "raft")

QUICK = {"min_backoff": "100ms", "factor": 1, "max_backoff": "200ms", "jitter": 0}
ENDS = ("succeeded", "dead", "skipped", "coalesced", "cancelled", "pending")


def job(service, path="/", schedule="@every 1s", **rest):
    return {"schedule": schedule, "callback": {"http": {"service": service, "path": path}, "timeout": "20s"},
            **({} if rest.get("delivery") else {"retry": QUICK}), **rest}


def counts(agent, name):
    """Of a job; they add up in every answer."""
    all_ = agent.get(name)["status"]["counts"]
    assert sum(all_[o] for o in ENDS) == all_["seq"], all_
    return all_


def of(callee, name):
    return [d for d in deliveries(callee.records()) if d.job == name]


def in_seconds(s):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=s)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def settled(agent, name, least):
    """The counts, once the job has had so many fires and none is under way."""
    def look():
        c = counts(agent, name)
        return c["seq"] >= least and c["pending"] == 0 and c
    return wait_until(look, 60, f"{name}: {least} fires, none pending", interval=0.05)


def test_dues_that_nobody_could_fire_follow_the_misfire_rule(cluster, shared_consul, callee):
    shared_consul.register("missed", callee.port)
    [agent] = cluster.start(1)
    rules = {"all": {"policy": "all", "window": "1h"}, "last": {"policy": "last", "window": "1h"},
             "window": {"policy": "all", "window": "3s"}}
    for name, rule in rules.items():
        agent.put(name, job("missed", misfire=rule))
    for name in rules:
        wait_until(lambda n=name: len(of(callee, n)) >= 2, 30, f"{name} fires")
    agent.kill9()
    time.sleep(8)
    callee.clear()
    agent.start(timeout=60)
    for name in rules:
        wait_until(lambda n=name: any(d.lateness_ms < 900 for d in of(callee, n)), 60, f"{name} is on time again", interval=0.2)
    seen = {name: counts(agent, name) for name in rules}
    print({name: {k: v for k, v in c.items() if v} for name, c in seen.items()})
    assert seen["all"]["skipped"] == seen["all"]["coalesced"] == 0
    late = {d.seq for d in of(callee, "all") if d.lateness_ms > 2000}
    assert len(late) >= 4 and late == set(range(min(late), max(late) + 1)), late
    assert seen["last"]["coalesced"] >= 4 and seen["last"]["skipped"] == 0
    assert seen["window"]["skipped"] >= 2 and seen["window"]["coalesced"] == 0
    assert {f["reason"] for f in agent.fires("window") if f["outcome"] == "skipped"} == {"late"}
    for name in rules:
        agent.delete(name)


def skips(agent, name):
    """Why fires of the job were skipped."""
    return {f["reason"] for f in agent.fires(name) if f["outcome"] == "skipped"}


def test_what_a_pause_let_pass_is_caught_up_as_resume_says(three, service, callee):
    names = {rule: f"{rule}-{service}" for rule in ("none", "last", "all")}
    for name in names.values():
        three[0].put(name, job(service))
        wait_until(lambda n=name: of(callee, n), 30, f"{name} fires")
        three[1].ask("POST", f"/v1/jobs/{name}/pause", 200)
    paused = time.time()
    wait_until(lambda: time.time() > paused + 5, 30, "dues pass")
    for rule, name in names.items():
        assert max(d.due for d in of(callee, name)) < paused
        three[2].ask("POST", f"/v1/jobs/{name}/resume", 200, json={"catch_up": rule})
    resumed = time.time()
    for rule, name in names.items():
        wait_until(lambda n=name: any(d.due > resumed for d in of(callee, n)), 60, f"{name} fires again")
        passed = [d.due for d in of(callee, name) if paused < d.due < paused + 4]
        if rule == "all":
            wait_until(lambda n=name: len({d.due for d in of(callee, n) if paused < d.due < paused + 4}) >= 3, 60, "caught up")
            assert "paused" not in skips(three[0], name)
        else:
            assert not passed, passed
            wait_until(lambda n=name: counts(three[0], n)["skipped"] >= 3, 60, "recorded")
            assert skips(three[0], name) == {"paused"}
        if rule == "last":
            wait_until(lambda n=name: any(paused < d.due < resumed for d in of(callee, n)), 60, "the newest is fired")
        three[0].delete(name)


def test_concurrency(three, service, callee):
    """Dues a second apart, answers after two and a half."""
    callee.behave({"path": "/slow", "delay": 2.5})
    names = {rule: f"{rule}-{service}" for rule in ("allow", "forbid", "queue", "replace")}
    for rule, name in names.items():
        three[0].put(name, job(service, f"/slow/{rule}", concurrency=rule))

    def seen(rule):
        return [r for r in callee.records() if r["path"] == f"/slow/{rule}"]

    for rule, name in names.items():
        wait_until(lambda r=rule: len(seen(r)) >= 3, 90, f"three of {rule}", interval=0.1)
    wait_until(lambda: counts(three[1], names["forbid"])["skipped"] >= 1, 60, "one is skipped", interval=0.1)
    wait_until(lambda: counts(three[1], names["replace"])["cancelled"] >= 1, 60, "one is cancelled", interval=0.1)
    for name in names.values():
        three[2].ask("POST", f"/v1/jobs/{name}/pause", 200)
    at_once = {rule: sum(a["done"] is None or a["done"] > b["at"] for a, b in zip(seen(rule), seen(rule)[1:])) for rule in names}
    assert at_once["allow"] >= 1 and at_once["forbid"] == at_once["queue"] == 0, at_once
    assert "overlap" not in skips(three[0], names["allow"]) | skips(three[1], names["queue"])
    assert "overlap" in skips(three[2], names["forbid"])
    seqs = [int(r["headers"]["carillon-seq"]) for r in seen("queue")]
    assert seqs == list(range(1, len(seqs) + 1)), seqs
    assert "replaced" in {f["reason"] for f in three[1].fires(names["replace"]) if f["outcome"] == "cancelled"}
    for name in names.values():
        three[0].delete(name)


def test_more_than_max_pending_wait_unfired(three, service, callee):
    callee.behave({"path": "/stuck", "status": 503})
    three[0].put(service, job(service, "/stuck", max_pending=2))
    wait_until(lambda: counts(three[1], service)["pending"] == 2, 30, "two are pending")
    first = {d.seq for d in of(callee, service)}
    begin = time.time()
    wait_until(lambda: time.time() > begin + 3, 30, "dues pass")
    assert counts(three[2], service)["pending"] == 2 and {d.seq for d in of(callee, service)} <= first | {1, 2}
    callee.behave()
    wait_until(lambda: {d.seq for d in of(callee, service)} >= set(range(1, 6)), 60, "what waited is fired")
    dues = sorted({d.due for d in of(callee, service) if d.seq <= 5})
    assert all(abs(b - a - 1) < 0.002 for a, b in zip(dues, dues[1:])), dues  # none is left out
    three[0].delete(service)


def test_max_fires_and_ends_at_end_a_job(three, service, callee):
    names = {"fires": {"max_fires": 3}, "ends": {"ends_at": in_seconds(6)}}
    for name, bound in names.items():
        three[0].put(f"{name}-{service}", job(service, **bound))
    for name in names:
        wait_until(lambda n=name: three[1].get(f"{n}-{service}")["status"]["state"] == "done", 60, f"{name} is done")
    assert settled(three[2], f"fires-{service}", 3)["seq"] == 3
    assert {d.seq for d in of(callee, f"fires-{service}")} == {1, 2, 3}
    ends = datetime.datetime.fromisoformat(names["ends"]["ends_at"].replace("Z", "+00:00")).timestamp()
    wait_until(lambda: max(d.due for d in of(callee, f"ends-{service}")) >= ends - 1.002, 30, "the last one has come")
    assert max(d.due for d in of(callee, f"ends-{service}")) < ends
    for name in names:
        three[0].delete(f"{name}-{service}")


def test_a_run_now_is_one_more_fire_also_of_a_paused_job(three, service, callee):
    three[0].put(service, {**job(service, schedule="@yearly"), "paused": True, "payload": {"n": 1}})
    fire = three[1].ask("POST", f"/v1/jobs/{service}/run", 202, json={"payload": {"n": 2}})["fire"]
    [record] = callee.wait_for(1, 30)
    assert record["headers"]["ce-id"] == fire and record["body"] == '{"n":2}'
    assert settled(three[2], service, 1)["succeeded"] == 1 and three[2].get(service)["status"]["state"] == "paused"
    three[0].delete(service)


@pytest.mark.every_store
def test_at_most_once_is_never_sent_twice_whoever_dies(cluster, shared_consul, callee):
    """An owner is killed with requests before their sending, under way, and answered but perhaps not written."""
    shared_consul.register("once", callee.port)
    callee.behave({"path": "/once", "delay": [0.0, 1.0]})
    agents = cluster.start(3)
    names = [f"once-{n}" for n in range(120)]
    agents[0].bulk([{"op": "create", "id": name, "job": job("once", "/once", f"@after {1000 + 20 * n}ms", delivery="at_most_once")}
                    for n, name in enumerate(names)])
    callee.wait_for(40, 60)
    agents[2].kill9()
    for name in names:
        settled(agents[0], name, 1)
    ends = collections.Counter(o for name in names for o, n in counts(agents[1], name).items() if n and o in ENDS)
    arrived = collections.Counter(f"{d.uid}.{d.seq}" for d in deliveries(callee.records()))
    print(f"owner of a third killed: {dict(ends)}, {len(arrived)} arrived, at most {max(arrived.values())} times")
    assert set(ends) <= {"succeeded", "dead"} and sum(ends.values()) == len(names), ends
    assert max(arrived.values()) == 1
    for name in names:
        [fire] = agents[0].fires(name)
        assert fire["outcome"] == "succeeded" or fire["reason"] == "at_most_once", fire
        assert fire["outcome"] == "dead" or fire["fire"] in arrived, fire
