"""Callbacks that fail: retried with back-off until they succeed, over deaths of agents, or given up as the job says."""
import time

import pytest
from lib.oracle import deliveries
from lib.procs import wait_until

STORES = ("mysql", "raft")

QUICK = {"min_backoff": "200ms", "factor": 2, "max_backoff": "1s", "jitter": 0}


def one_shot(service, path, **rest):
    return {"schedule": "@after 50ms", "callback": {"http": {"service": service, "path": path}, "timeout": "2s"},
            "retry": QUICK, **rest}


def fire_of(agent, job_id):
    """The first fire, when it has ended."""
    return wait_until(lambda: (f := agent.fires(job_id)) and f[0]["outcome"] != "pending" and f[0], 20, f"{job_id} ended",
                      interval=0.1)


def test_a_one_shot_is_done_when_its_fire_has_ended(three, service, callee):
    """Until then there is something to wait for, and to cancel."""
    name, late = f"wait-{service}", {"min_backoff": "1h", "max_backoff": "1h"}
    callee.behave({"path": "/down", "status": 503})
    three[0].put(name, {**one_shot(service, "/down"), "retry": late})
    status = wait_until(lambda: (s := three[1].get(name)["status"]) and s["counts"]["pending"] == 1 and s, 20, "a retry waits")
    assert (status["state"], status["next_due"], status["consecutive_failures"]) == ("active", None, 1), status
    assert [j["id"] for j in three[2].list(prefix=name, state="active")] == [name]
    assert three[2].list(prefix=name, state="done") == []
    assert three[1].delete(name)["result"] == "cancelled"
    three[0].put(name, {**one_shot(service, "/down"), "retry": {"max_attempts": 1}})
    status = wait_until(lambda: (s := three[1].get(name)["status"]) and s["state"] == "done" and s, 20, "its end")
    assert status["counts"]["dead"] == 1 and [j["id"] for j in three[2].list(prefix=name, state="done")] == [name]
    assert three[1].delete(name)["result"] == "finished"


@pytest.mark.parametrize("failure", [
    {"status": 503}, {"status": 500}, {"status": 404}, {"status": 302, "headers": {"Location": "/ok"}}, {"reset": True},
    {"close": True}, {"hang": True}], ids=lambda f: "-".join(str(x) for x in list(f.items())[0]))
def test_failed_callback_is_retried_with_back_off(three, service, callee, failure):
    name = f"retry-{service}"
    callee.behave({"path": "/flaky", "times": 3, **failure})
    three[0].put(name, one_shot(service, "/flaky"))
    fire = fire_of(three[1], name)
    arrived = deliveries(callee.records())
    gaps = [round(b.at - a.at, 2) for a, b in zip(arrived, arrived[1:])]
    print(f"{failure}: gaps {gaps} s")
    assert [d.attempt for d in arrived] == [1, 2, 3, 4] and len({(d.uid, d.seq, d.due) for d in arrived}) == 1
    spent = 2.0 if "hang" in failure else 0.0
    for gap, wanted in zip(gaps, (0.2, 0.4, 0.8)):
        assert wanted + spent - 0.01 <= gap < wanted + spent + 5, gaps
    assert fire["outcome"] == "succeeded" and [a["attempt"] for a in fire["attempts"]] == [1, 2, 3, 4], fire
    assert fire["attempts"][-1]["status"] == 200
    three[2].delete(name)


@pytest.mark.parametrize("rule, rest, attempts, reason", [
    ({"status": 410}, {}, 1, "give_up"), ({"status": 400}, {}, 1, "give_up"),
    ({"status": 503}, {"retry": {**QUICK, "max_attempts": 3}}, 3, "max_attempts"),
    ({"status": 503}, {"retry": {**QUICK, "max_age": "3s"}}, None, "max_age"),
    ({"status": 503}, {"delivery": "at_most_once", "retry": None}, 1, "at_most_once")], ids=lambda x: str(x)[:30])
def test_fire_is_given_up_as_the_job_says(three, service, callee, rule, rest, attempts, reason):
    name = f"dead-{service}"
    callee.behave(rule)
    three[0].put(name, {k: v for k, v in one_shot(service, "/dead", **rest).items() if v is not None})
    fire = fire_of(three[1], name)
    assert (fire["outcome"], fire["reason"]) == ("dead", reason), fire
    time.sleep(1.2)
    assert callee.count() == attempts if attempts else callee.count() >= 2
    job = three[2].get(name)
    assert job["status"]["counts"]["dead"] == 1 and job["status"]["consecutive_failures"] >= 1
    assert job["status"]["last_fire"]["outcome"] == "dead"
    three[2].delete(name)


def test_fire_without_endpoint_waits_and_goes_out_as_soon_as_there_is_one(three, shared_consul, callee):
    service = f"late-{callee.port}"
    three[0].put(service, one_shot(service, "/late"))
    [waiting] = wait_until(lambda: three[1].fires(service), 10, "it is due", interval=0.1)
    assert (waiting["outcome"], waiting["reason"]) == ("pending", "no_endpoint") and not waiting["attempts"], waiting
    instance = shared_consul.register(service, callee.port)
    at = time.monotonic()
    [record] = callee.wait_for(1, 10)
    print(f"endpoint registered to callback: {1000 * (record['at'] - at):.0f} ms")
    assert record["headers"]["carillon-attempt"] == "1"
    assert record["at"] - at < 15
    shared_consul.deregister(instance)
    three[2].delete(service)


def test_retries_survive_the_death_of_their_agent(cluster, shared_consul, callee):
    """Every job is failing when its agent is killed; each gets its answer in the end, with attempts going on."""
    shared_consul.register("mortal", callee.port)
    a, b, c = cluster.start(3)
    callee.behave({"path": "/", "status": 503})
    jobs = [f"mortal-{n}" for n in range(60)]
    a.bulk({"op": "create", "id": j, "job": one_shot("mortal", "/x")} for j in jobs)
    wait_until(lambda: {d.job for d in deliveries(callee.records()) if d.attempt >= 2} == set(jobs), 20, "all retried")
    c.kill9()
    time.sleep(1.0)
    b.kill9()
    since = callee.count()
    callee.behave()
    wait_until(lambda: {d.job for d in deliveries(callee.records(since)) if d.status == 200} == set(jobs), 30,
               "all succeed after the kills")
    arrived = deliveries(callee.records())
    assert len({(d.uid, d.seq, d.due) for d in arrived}) == len(jobs)
    for job in jobs:
        attempts = [d.attempt for d in sorted(arrived, key=lambda d: d.at) if d.job == job]
        # One whose end was not yet written down when its agent died is the same attempt again.
        assert attempts == sorted(attempts) and max(attempts) >= 3, (job, attempts)
    wait_until(lambda: all(j["status"]["counts"]["succeeded"] == 1 for j in a.list(prefix="mortal-")), 10, "all recorded")
