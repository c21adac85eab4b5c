"""Fires that were given up: kept, sent once more, discarded; also when their job, or the agent at work on them, is gone."""
import json
import time

import pytest
from lib.oracle import deliveries
from lib.procs import wait_until

STORES = ("mysql", "raft")

QUICK = {"min_backoff": "100ms", "factor": 1, "max_backoff": "100ms", "jitter": 0}
RULE = {"retry": {**QUICK, "max_attempts": 2}}


def job(service, **rest):
    return {"schedule": "@after 50ms", "callback": {"http": {"service": service, "path": "/dead"}, "timeout": "5s"},
            "payload": {"n": 1}, **RULE, **rest}


def letters(agent, **params):
    found = []
    while True:
        page = agent.ask("GET", "/v1/deadletters", 200, params=params)
        found += page["deadletters"]
        if not page["next_cursor"]:
            return found
        params = {**params, "cursor": page["next_cursor"]}


def redrive(agent, *statuses, **params):
    return agent.ask("POST", "/v1/deadletters/redrive", *(statuses or (200,)), params=params)


def discard(agent, *statuses, **params):
    return agent.ask("DELETE", "/v1/deadletters", *(statuses or (200,)), params=params)


def die(agents, callee, service, count):
    """COUNT one-shots that died."""
    callee.behave({"path": "/dead", "status": 503})
    ids = [f"{service}-{n}" for n in range(count)]
    agents[0].bulk({"op": "create", "id": i, "job": job(service, labels={"half": str(n % 2)})} for n, i in enumerate(ids))
    wait_until(lambda: len(letters(agents[0], service=service)) == count, 60, "all dead", interval=0.3)
    callee.behave()
    return ids


def counts(agent, job_id):
    status = agent.get(job_id)["status"]["counts"]
    assert sum(status[o] for o in ("succeeded", "dead", "skipped", "coalesced", "cancelled", "pending")) == status["seq"], status
    return {k: v for k, v in status.items() if v and k != "seq"}


def test_letters_are_sent_once_more_under_their_own_ids(three, service, callee):
    ids = die(three, callee, service, 12)
    dead = {f["fire"] for f in letters(three[1], service=service)}
    assert redrive(three[1], service=service, dry_run="true") == {"matched": 12}
    assert redrive(three[2], prefix=f"{service}-", label="half=1", dry_run="true") == {"matched": 6}
    dues = sorted(f["due"] for f in letters(three[0], service=service))
    last = dues.count(dues[-1])  # they may all be due at once
    assert redrive(three[0], service=service, dry_run="true", **{"from": dues[-1]}) == {"matched": last}
    assert redrive(three[0], service=service, dry_run="true", to=dues[-1]) == {"matched": 12 - last}
    assert len(letters(three[1], service=service, limit=5, **{"from": dues[-1]})) == last
    since = callee.count()
    assert redrive(three[1], service=service) == {"redriven": 12}
    wait_until(lambda: all(counts(three[0], i) == {"succeeded": 1} for i in ids), 30, "all succeeded", interval=0.2)
    arrived = deliveries(callee.records(since))
    assert {f"{d.uid}.{d.seq}" for d in arrived} == dead and {d.attempt for d in arrived} == {3}
    assert not letters(three[2], service=service) and redrive(three[0], service=service) == {"redriven": 0}
    fire = three[0].ask("GET", f"/v1/fires/{sorted(dead)[0]}", 200)
    assert [a["attempt"] for a in fire["attempts"]] == [1, 2, 3] and fire["outcome"] == "succeeded"
    three[0].ask("DELETE", "/v1/jobs", 200, params={"prefix": f"{service}-"})


def test_letters_that_die_again_are_letters_again(three, service, callee):
    [name] = die(three, callee, service, 1)
    callee.behave({"path": "/dead", "status": 503})
    assert redrive(three[2], job=name) == {"redriven": 1}
    wait_until(lambda: counts(three[0], name) == {"dead": 1} and len(letters(three[0], job=name)[0]["attempts"]) == 4, 30,
               "two attempts more, as the job's rule says", interval=0.2)
    three[0].delete(name)


def test_one_letter_is_retried_by_hand(three, service, callee):
    [name] = die(three, callee, service, 1)
    [letter] = letters(three[0], job=name)
    answer = three[2].ask("POST", f"/v1/fires/{letter['fire']}/retry", 202)
    assert answer["outcome"] == "pending"
    wait_until(lambda: counts(three[1], name) == {"succeeded": 1}, 20, "sent once more", interval=0.2)
    problem = three[1].ask("POST", f"/v1/fires/{letter['fire']}/retry", 409)
    assert problem["code"] == "already_finished"
    three[0].delete(name)


def test_a_letter_goes_with_the_callback_that_its_job_has_now(three, service, callee):
    [name] = die(three, callee, service, 1)
    changed = job(service, schedule="@yearly")
    changed["callback"]["http"]["path"] = "/mended"
    three[0].put(name, {**changed, "payload": {"n": 2}})
    since = callee.count()
    assert redrive(three[1], job=name) == {"redriven": 1}
    [record] = wait_until(lambda: callee.records(since), 20, "sent", interval=0.1)
    assert record["path"] == "/mended"
    three[0].delete(name)


def test_letters_outlive_their_jobs(three, service, callee):
    ids = die(three, callee, service, 6)
    three[0].ask("DELETE", "/v1/jobs", 200, params={"prefix": f"{service}-"})
    assert len(letters(three[1], service=service)) == 6
    since = callee.count()
    assert redrive(three[1], service=service, label="half=0") == {"redriven": 3}
    wait_until(lambda: len(callee.records(since)) == 3, 20, "sent", interval=0.1)
    assert {d.job for d in deliveries(callee.records(since))} == set(ids[0::2])
    one = letters(three[2], job=ids[1])[0]["fire"]
    assert three[2].ask("POST", f"/v1/fires/{one}/retry", 202)["outcome"] == "pending"
    wait_until(lambda: len(callee.records(since)) == 4, 20, "retried", interval=0.1)
    wait_until(lambda: three[0].ask("GET", f"/v1/fires/{one}", 200)["outcome"] == "succeeded", 20, "recorded", interval=0.1)
    assert discard(three[0], service=service) == {"discarded": 2}
    assert not letters(three[1], service=service)


def test_letters_of_a_job_that_is_gone_go_with_what_it_was_when_they_died(three, service, callee):
    """Those of one definition wait until those of the other have ended; and whoever fails again does not keep the others back."""
    callee.behave({"path": "/dead", "status": 503})
    name = f"{service}-twice"
    three[0].put(name, job(service, schedule="@every 1s"))
    wait_until(lambda: letters(three[0], job=name), 20, "one died", interval=0.1)
    three[1].patch(name, {"payload": {"n": 2}})
    before = len(letters(three[0], job=name)) + 1  # the one under way may be the old one's
    wait_until(lambda: len(letters(three[0], job=name)) > before, 20, "one of the new definition died", interval=0.1)
    three[2].delete(name)
    wait_until(lambda: three[0].get(name) is None, 20, "deleted")
    dead = {f["fire"] for f in letters(three[0], job=name)}
    for agent, status in ((three[0], 503), (three[1], 200)):
        callee.behave({"path": "/dead", "status": status})
        since = callee.count()
        wait_until(lambda agent=agent: redrive(agent, job=name), 20, "all were sent")
        wait_until(lambda since=since: {f"{d.uid}.{d.seq}" for d in deliveries(callee.records(since))} == dead, 20, "sent", interval=0.1)
        assert {json.loads(r["body"])["n"] for r in callee.records(since)} == {1, 2}
        wait_until(lambda status=status: len(letters(three[2], job=name)) == (len(dead) if status == 503 else 0), 20, "ended", interval=0.1)


def test_discarded_letters_are_cancelled(three, service, callee):
    ids = die(three, callee, service, 4)
    assert discard(three[1], service=service, dry_run="true") == {"matched": 4}
    assert discard(three[1], service=service, label="half=0") == {"discarded": 2}
    for n, i in enumerate(ids):
        assert counts(three[n % 3], i) == ({"dead": 1} if n % 2 else {"cancelled": 1})
    [fire] = three[0].fires(ids[0])
    assert (fire["outcome"], fire["reason"]) == ("cancelled", "discarded")
    assert discard(three[2], prefix=f"{service}-", all="true") == {"discarded": 2}
    three[0].ask("DELETE", "/v1/jobs", 200, params={"prefix": f"{service}-"})


@pytest.mark.parametrize("method, path", [("POST", "/v1/deadletters/redrive"), ("DELETE", "/v1/deadletters")])
def test_all_letters_are_changed_only_when_said_so(three, method, path):
    assert three[0].ask(method, path, 400)["code"] == "invalid_request"
    assert three[0].ask(method, path, 400, params={"ns": "*", "all": "true"})["code"] == "invalid_request"


def test_redrive_is_paced_and_survives_kill9(cluster, shared_consul, callee):
    """Two owners die while letters wait for their turn: each is sent in the end, once or as a repeat of itself."""
    shared_consul.register("paced", callee.port)
    a, b, c = agents = cluster.start(3)
    ids = die(agents, callee, "paced", 90)
    dead = {f["fire"] for f in letters(a, service="paced")}
    for i in ids[:20]:
        a.delete(i)
    since, begin = callee.count(), time.monotonic()
    assert redrive(a, service="paced", rate=15) == {"redriven": 90}
    wait_until(lambda: len(callee.records(since)) >= 15, 30, "some are sent", interval=0.05)
    c.kill9()
    wait_until(lambda: len(callee.records(since)) >= 40, 30, "more are sent", interval=0.05)
    b.kill9()
    def sent():
        return {f"{d.uid}.{d.seq}" for d in deliveries(callee.records(since)) if d.status == 200}
    wait_until(lambda: sent() == dead, 60, "all are sent", interval=0.2)
    took = time.monotonic() - begin
    assert took > 5, f"90 at 15 a second took {took:.1f} s"
    assert not letters(a, service="paced")
    wait_until(lambda: all(counts(a, i) == {"succeeded": 1} for i in ids[20:]), 30, "recorded once each", interval=0.3)
    for fire in dead:
        wait_until(lambda: a.ask("GET", f"/v1/fires/{fire}", 200)["outcome"] == "succeeded", 20, f"{fire} recorded", interval=0.2)


def test_letters_are_counted_by_namespace_and_jobs_by_state(three, service, callee):
    """By whoever owns the first slot, every half minute, so that the sum over the agents is the cluster's."""
    [name] = die(three, callee, service, 1)
    def counted():
        found = [a.metrics().get('carillon_dead_letters{namespace="default"}') for a in three]
        return [n for n in found if n is not None]
    def jobs():
        found = [a.metrics() for a in three]
        return {s: [m[f'carillon_jobs{{state="{s}"}}'] for m in found] for s in ("active", "paused", "done")}
    three[0].put(f"{name}-paused", {**job(service), "schedule": "@yearly", "paused": True})
    wait_until(lambda: len(counted()) == 1 and counted()[0] >= 1, 150, "counted by one", interval=0.5)
    wait_until(lambda: sum(jobs()["paused"]) >= 1 and sum(jobs()["done"]) >= 1, 150, "jobs, too", interval=0.5)
    three[0].delete(f"{name}-paused")
    three[0].delete(name)
    discard(three[0], service=service)
