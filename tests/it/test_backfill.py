"""Dues of the past, fired beside the schedule: all of them, over the death of their owner."""
import datetime

import pytest
from lib.oracle import deliveries
from lib.procs import wait_until

STORES = ("mysql", "raft")

QUICK = {"min_backoff": "100ms", "factor": 1, "max_backoff": "300ms", "jitter": 0}
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0, second=0)


def dues(start, end):
    """Unix seconds of the full minutes from START to END, counted from now."""
    return {NOW.timestamp() + 60 * n for n in range(start, end)}


def instant(minutes):
    return (NOW + datetime.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def minutely(service, **rest):
    return {"schedule": "@minutely", "callback": {"http": {"service": service, "path": "/x"}, "timeout": "5s"}, "retry": QUICK, **rest}


def backfill(agent, job, start, end, *statuses):
    return agent.ask("POST", f"/v1/jobs/{job}/backfill", *(statuses or (202,)), json={"from": instant(start), "to": instant(end)})


def through(agent, job, dues, timeout=60):
    """The fires of the backfill by due, once it is through."""
    def done():
        status = agent.get(job)["status"]
        return "backfill" not in status and status["counts"]["pending"] == 0 and status["counts"]["succeeded"] >= dues
    wait_until(done, timeout, f"{job} backfilled", interval=0.2)


def test_backfill_fires_each_due_of_its_span(three, service, callee):
    three[0].put(service, minutely(service))
    assert backfill(three[1], service, -130, -10)["dues"] == 120
    through(three[2], service, 120)
    arrived = [d for d in deliveries(callee.records()) if d.job == service]
    assert {d.due for d in arrived} >= dues(-130, -10) and len({(d.uid, d.seq) for d in arrived}) == len({d.due for d in arrived})
    three[0].delete(service)


@pytest.mark.every_store
def test_backfill_survives_the_death_of_its_owner(cluster, shared_consul, callee):
    shared_consul.register("filled", callee.port)
    callee.behave({"path": "/", "delay": 0.02})
    a, b, c = cluster.start(3)
    a.put("filled", minutely("filled"))
    assert backfill(a, "filled", -400, 0)["dues"] == 400
    problem = backfill(a, "filled", -10, 0, 409)
    assert problem["code"] == "already_exists"
    callee.wait_for(30, 30)
    owner = a.owner("filled")["name"]
    victim = next(x for x in (a, b, c) if x.name == owner)
    victim.kill9()
    alive = next(x for x in (a, b, c) if x is not victim)
    through(alive, "filled", 400, timeout=120)
    arrived = deliveries(callee.records())
    by_due = {}
    for d in arrived:
        by_due.setdefault(d.due, set()).add((d.uid, d.seq))
    assert dues(-400, 0) <= set(by_due), "every due of the span"
    assert all(len(fires) == 1 for fires in by_due.values()), "one fire a due, the same after the kill"
    counts = alive.get("filled")["status"]["counts"]
    assert counts["succeeded"] == counts["seq"] and counts["pending"] == 0, counts


@pytest.mark.parametrize("start, end", [(0, 0), (-1, -2), (-10, 60 * 24), (-20000, 0)])
def test_backfill_of_what_cannot_be_is_refused(three, service, start, end):
    three[0].put(service, minutely(service))
    assert backfill(three[1], service, start, end, 400)["code"] == "invalid_request"
    assert backfill(three[1], "nobody-" + service, -10, -5, 404)["code"] == "not_found"
    three[0].delete(service)
