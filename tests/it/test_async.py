"""Asynchronous callees: a 202 hands the fire over, a completion at any agent ends it, and the death of an agent changes nothing.
Fires retried and given up by hand, and replies that pause or delete their job."""
import time

import pytest
import requests
from lib.oracle import deliveries
from lib.procs import NotReady, wait_until

STORES = ("mysql", "raft")

QUICK = {"min_backoff": "200ms", "factor": 1, "max_backoff": "200ms", "jitter": 0}


def job(service, path="/work", asynchronous=None, **rest):
    callback = {"http": {"service": service, "path": path}, "timeout": "5s",
                "async": asynchronous or {"timeout": "1m", "max": "1h"}}
    return {"schedule": "@after 50ms", "callback": callback, "retry": QUICK, **rest}


def tell(agent, record, action="complete", **body):
    """As the callee of RECORD, at AGENT: its Carillon-Complete is a path there."""
    path = record["headers"]["carillon-complete"].replace("/complete?", f"/{action}?")
    assert path.startswith(f"/v1/fires/{record['headers']['ce-id']}/{action}?key="), path
    extra = {"json": body} if body else {}
    # Not with the agent's session: a callee has no header of ours, only the key.
    return requests.post(agent.url + path, timeout=20, **extra)


def told(agent, record, action="complete", **body):
    """The same, until it is not refused for the moment: its fire may be changing hands."""
    last = []

    def answer():
        last[:] = [tell(agent, record, action, **body)]
        return last[0].status_code != 503 and last  # a list, for a response of 4xx is false

    try:
        return wait_until(answer, 20, action, interval=0.1)[0]
    except NotReady as e:
        raise AssertionError(f"{e}: {last[0].text if last else 'no answer'}") from e


def by_hand(agent, fire, action):
    return agent.web.post(f"{agent.url}/v1/fires/{fire}/{action}", timeout=20)


def fire_of(agent, name, n=0):
    return wait_until(lambda: agent.fires(name), 20, "the fire is kept", interval=0.1)[n]


def ended(agent, name):
    return wait_until(lambda: (f := fire_of(agent, name))["outcome"] != "pending" and f, 30, f"{name} ended", interval=0.1)


def opened(agent, name, attempts=1):
    """The fire, when the 202 of its attempt has been taken down."""
    def look():
        fire = fire_of(agent, name)
        return len(fire["attempts"]) == attempts and fire["attempts"][-1]["status"] == 202 and fire
    return wait_until(look, 20, "handed over", interval=0.05)


@pytest.fixture(name="accept")
def accepting(callee):
    callee.behave({"path": "/work", "status": 202})
    return callee


def test_completion_at_any_agent_ends_the_fire(three, service, accept):
    for n, agent in enumerate(three):
        name = f"async-{n}-{service}"
        accept.clear()
        agent.put(name, job(service))
        [record] = accept.wait_for(1, 10)
        fire = opened(agent, name)
        assert fire["outcome"] == "pending" and fire["next_attempt_at"] is None, fire
        answer = tell(three[(n + 1) % 3], record, status="ok", detail="all 42 done")
        assert (answer.status_code, answer.json()) == (200, {"fire": fire["fire"], "outcome": "succeeded"})
        fire = ended(three[(n + 2) % 3], name)
        assert fire["outcome"] == "succeeded" and fire["attempts"][0]["status"] == 202, fire
        again = tell(three[(n + 2) % 3], record, status="ok")
        assert (again.status_code, again.json()["code"]) == (409, "already_finished")
        assert tell(agent, record, "heartbeat").json() == {"continue": False}
        agent.delete(name)


def test_other_success_codes_end_it_at_once(three, service, callee):
    name = f"sync-{service}"
    three[0].put(name, job(service, "/done"))
    assert ended(three[1], name)["outcome"] == "succeeded"
    three[0].delete(name)


def test_nothing_goes_without_the_right_key(three, service, accept):
    name = f"keys-{service}"
    three[0].put(name, job(service))
    [record] = accept.wait_for(1, 10)
    fire = opened(three[0], name)["fire"]
    good = record["headers"]["carillon-complete"].split("key=")[1]
    other = good[:-1] + ("0" if good[-1] != "0" else "1")
    for query in ("", "?key=", f"?key={other}", f"?key={good.replace('1.', '2.', 1)}"):
        for action in ("complete", "heartbeat"):
            answer = requests.post(f"{three[1].url}/v1/fires/{fire}/{action}{query}", json={"status": "ok"}, timeout=10)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (query, answer.text)
    bad = requests.post(f"{three[1].url}/v1/fires/{fire}/complete?key={good}", json={"status": "fine", "x": 1}, timeout=10)
    assert bad.status_code == 400 and {e["pointer"] for e in bad.json()["errors"]} == {"#/status", "#/x"}
    assert fire_of(three[0], name)["outcome"] == "pending"
    assert tell(three[2], record, status="ok").status_code == 200
    three[0].delete(name)


def test_failure_is_retried_and_an_older_attempt_is_superseded(three, service, accept):
    name = f"failing-{service}"
    three[0].put(name, job(service))
    [first] = accept.wait_for(1, 10)
    opened(three[0], name)
    answer = tell(three[1], first, status="failed", detail="disk full")
    assert (answer.status_code, answer.json()["outcome"]) == (200, "pending")
    second = accept.wait_for(2, 10)[1]
    fire = opened(three[0], name, 2)
    assert "disk full" in fire["attempts"][0]["error"] and second["headers"]["carillon-attempt"] == "2", fire
    assert second["headers"]["ce-id"] == first["headers"]["ce-id"]
    for agent in three:
        late = tell(agent, first, status="failed")
        assert (late.status_code, late.json()["code"]) == (409, "superseded")
        late = tell(agent, first, "heartbeat")
        assert (late.status_code, late.json()["code"]) == (409, "superseded")
        assert tell(agent, second, "heartbeat").json() == {"continue": True}
    late = tell(three[2], first, status="ok")
    assert (late.status_code, late.json()["code"]) == (409, "superseded")
    fire = ended(three[1], name)
    assert fire["outcome"] == "succeeded", "its ok ends the fire"
    assert [a["attempt"] for a in fire["attempts"]] == [1, 2], fire
    assert tell(three[0], second, "heartbeat").json() == {"continue": False}
    three[0].delete(name)


def test_silence_fails_the_attempt_and_heartbeats_put_it_off(three, service, accept):
    name = f"silent-{service}"
    three[0].put(name, job(service, asynchronous={"timeout": "2s", "max": "1h"}))
    [first] = accept.wait_for(1, 10)
    beats = 0
    until = time.monotonic() + 6
    while time.monotonic() < until:
        beats += tell(three[beats % 3], first, "heartbeat").json()["continue"]
        time.sleep(0.3)
    alive = accept.count()
    second = accept.wait_for(2, 20)[1]
    print(f"{beats} heartbeats, then silent for {second['at'] - until:.1f} s")
    fire = opened(three[0], name, 2)
    if alive == 1:  # else the machine stood still for longer than the callee had
        assert "no completion and no heartbeat" in fire["attempts"][0]["error"], fire
    assert tell(three[0], second, status="ok").status_code == 200
    three[0].delete(name)


def test_completion_before_the_202_counts(three, service, callee):
    name = f"early-{service}"
    callee.behave({"path": "/work", "status": 202, "delay": 2})
    three[0].put(name, job(service))
    [record] = callee.wait_for(1, 10)
    answer = told(three[1], record, status="ok")
    assert answer.status_code == 200, answer.text
    assert ended(three[2], name)["outcome"] == "succeeded"
    time.sleep(2.5)
    assert callee.count() == 1
    assert three[0].get(name)["status"]["counts"]["succeeded"] == 1
    three[0].delete(name)


def test_retry_and_cancel_by_hand(three, service, callee):
    name = f"hand-{service}"
    callee.behave({"path": "/work", "status": 503})
    three[0].put(name, job(service, retry={"min_backoff": "1h", "max_backoff": "1h"}))
    callee.wait_for(1, 10)
    fire = wait_until(lambda: (f := fire_of(three[0], name))["next_attempt_at"] and f, 20, "it waits")["fire"]
    assert by_hand(three[1], fire, "retry").status_code == 202
    callee.wait_for(2, 10)
    wait_until(lambda: len(fire_of(three[0], name)["attempts"]) == 2, 20, "taken down")
    callee.behave({"path": "/work", "hang": True})
    assert by_hand(three[2], fire, "retry").status_code == 202
    record = callee.wait_for(3, 10)[2]
    answer = by_hand(three[1], fire, "cancel")
    assert (answer.status_code, answer.json()["outcome"]) == (200, "cancelled")
    wait_until(lambda: callee.records()[record["n"]]["aborted"], 4, "the connection is closed")
    fire = ended(three[0], name)
    assert (fire["outcome"], fire["reason"]) == ("cancelled", "cancelled")
    refused = by_hand(three[0], fire["fire"], "retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "already_finished")
    assert by_hand(three[0], "0" * 32 + ".1", "cancel").status_code == 404
    assert three[0].get(name)["status"]["counts"]["cancelled"] == 1
    three[0].delete(name)


@pytest.mark.parametrize("control", ["pause", "delete"])
def test_reply_acts_on_its_job(three, service, callee, control):
    name = f"control-{service}"
    callee.behave({"path": "/work", "status": 200, "headers": {"Carillon-Job": control}})
    body = {"schedule": "@every 1s", "callback": {"http": {"service": service, "path": "/work"}, "allow_control": True}}
    three[0].put(name, body)
    callee.wait_for(1, 10)
    if control == "pause":
        wait_until(lambda: three[1].get(name)["status"]["state"] == "paused", 10, "paused")
        assert three[1].get(name)["status"]["counts"]["succeeded"] == 1
    else:
        wait_until(lambda: three[1].web.get(f"{three[1].url}/v1/jobs/{name}", timeout=10).status_code == 404, 10, "deleted")
    time.sleep(2.5)
    assert callee.count() == 1, "nothing is sent after it"
    body["callback"]["allow_control"] = False
    callee.clear()
    three[0].put(name + "-deaf", body)
    callee.wait_for(3, 15)
    three[0].delete(name + "-deaf")
    if control == "pause":
        three[0].delete(name)


def owner_of(agents, name):
    owner = agents[0].web.get(f"{agents[0].url}/v1/cluster/owner/{name}", timeout=10).json()["name"]
    return next(a for a in agents if a.name == owner)


def test_open_fires_stand_the_death_of_their_owner(cluster, shared_consul, callee):
    """Killed while fires are open: none is sent again, each is completed at who is left."""
    shared_consul.register("mortal-async", callee.port)
    agents = cluster.start(3)
    callee.behave({"path": "/work", "status": 202})
    names = [f"open-{n}" for n in range(30)]
    agents[0].bulk({"op": "create", "id": n, "job": job("mortal-async")} for n in names)
    records = {d["headers"]["ce-subject"]: d for d in callee.wait_for(30, 20)}
    assert set(records) == set(names)
    wait_until(lambda: all(a["attempts"] and a["attempts"][0]["status"] == 202
                           for a in (fire_of(agents[0], n) for n in names)), 20, "all handed over")
    agents[2].kill9()
    left = agents[:2]
    for n, name in enumerate(names):
        assert told(left[n % 2], records[name], "heartbeat").json() == {"continue": True}, name
    agents[1].kill9()
    for name in names:
        assert told(agents[0], records[name], status="ok").status_code == 200, name
    wait_until(lambda: all(j["status"]["counts"]["succeeded"] == 1 for j in agents[0].list(prefix="open-")), 20, "all ended")
    assert callee.count() == 30, "none was sent twice"


def test_open_fires_stand_a_planned_leave(cluster, shared_consul, callee):
    shared_consul.register("leaving-async", callee.port)
    agents = cluster.start(2)
    callee.behave({"path": "/work", "status": 202})
    names = [f"stay-{n}" for n in range(20)]
    agents[0].bulk({"op": "create", "id": n, "job": job("leaving-async")} for n in names)
    records = {d["headers"]["ce-subject"]: d for d in callee.wait_for(20, 20)}
    wait_until(lambda: all(fire_of(agents[0], n)["attempts"] for n in names), 20, "all handed over")
    agents[1].term()
    for name in names:
        assert told(agents[0], records[name], status="ok").status_code == 200, name
    assert callee.count() == 20


@pytest.mark.every_store
def test_kill_between_any_two_steps_loses_and_repeats_nothing(cluster, shared_consul, callee):
    """The owner dies again and again while fires are booked, sent, open, completed: in the end each fire has one outcome, and all that
    arrived twice has the same id."""
    shared_consul.register("storm-async", callee.port)
    agents = cluster.start(3)
    callee.behave({"path": "/work", "status": 202, "delay": [0, 0.3]})
    names = [f"storm-{n}" for n in range(60)]
    agents[0].bulk({"op": "create", "id": n, "job": job("storm-async", schedule=f"@after {500 + 150 * i}ms")}
                   for i, n in enumerate(names))
    answers, kills, seen = {}, 0, 0

    def complete():
        nonlocal kills, seen
        if kills < 4 and seen >= 10 * (kills + 1):
            victim = agents[1 + kills % 2]
            victim.kill9()
            victim.start(wait=False)
            kills += 1
        for record in callee.records(seen):
            seen += 1
            answer = told(agents[0], record, status="ok")
            answers.setdefault(record["headers"]["ce-subject"], []).append(answer.text)
            assert answer.status_code in (200, 409), answer.text
        return len(answers) == len(names)

    wait_until(complete, 120, "all completed", interval=0.05)

    def behind():
        complete()  # what is sent once more is answered, too
        return {j["id"]: (j["status"]["counts"], answers[j["id"]]) for j in agents[0].list(prefix="storm-")
                if (j["status"]["counts"]["succeeded"], j["status"]["counts"]["seq"]) != (1, 1)}

    try:
        wait_until(lambda: not behind(), 40, "each has its one outcome")
    except AssertionError:
        print({n: (b, agents[0].fires(n)) for n, b in behind().items()})
        raise
    assert kills == 4
    arrived = deliveries(callee.records())
    assert len({(d.job, d.uid, d.seq) for d in arrived}) == len(names)
    print(f"{len(arrived)} callbacks for {len(names)} fires, {kills} kills")
