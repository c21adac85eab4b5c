"""`callback.to: all` and `shards`: every endpoint of a service gets the fire, and each has an outcome of its own."""
import collections
import time

import pytest
from lib.procs import wait_until

QUICK = {"min_backoff": "200ms", "factor": 2, "max_backoff": "1s", "jitter": 0}


def job(service, to, **rest):
    return {"schedule": "@after 50ms", "callback": {"http": {"service": service, "path": "/fan"}, "to": to, "timeout": "2s"},
            "retry": QUICK, **rest}


@pytest.fixture
def many(shared_consul, callees):
    """A service of four instances: (callee, name, {port: Consul's id})."""
    callee = callees(4)
    name = f"fan-{callee.port}"
    instances = {port: shared_consul.register(name, port, address="127.0.0.1") for port in callee.ports}
    yield callee, name, instances
    for instance in instances.values():
        shared_consul.deregister(instance)


def ended(agent, name):
    return wait_until(lambda: (f := agent.fires(name)) and f[0]["outcome"] != "pending" and f[0], 30, f"{name} ended",
                      interval=0.1)


def arrived(callee):
    """Port -> requests."""
    by_port = collections.defaultdict(list)
    for r in callee.records():
        by_port[r["port"]].append(r)
    return by_port


def test_all_endpoints_get_the_fire_once(three, many):
    callee, name, _ = many
    three[0].put(name, job(name, "all"))
    fire = ended(three[1], name)
    by_port = arrived(callee)
    assert fire["outcome"] == "succeeded" and sorted(by_port) == sorted(callee.ports), fire
    keys = {r["headers"]["idempotency-key"] for r in callee.records()}
    assert len(callee.records()) == 4 and keys == {f'"{fire["fire"]}/{i}"' for i in range(1, 5)}, keys
    assert {r["headers"]["ce-id"] for r in callee.records()} == {fire["fire"]}
    assert all("carillon-shard" not in r["headers"] for r in callee.records())
    assert [(e["part"], e["outcome"], e["status"], e["attempts"]) for e in fire["endpoints"]] == [
        (i, "succeeded", 200, 1) for i in range(1, 5)], fire["endpoints"]
    assert {e["endpoint"] for e in fire["endpoints"]} == {f"127.0.0.1:{p}" for p in callee.ports}
    counts = three[2].get(name)["status"]["counts"]
    assert counts["succeeded"] == counts["seq"] == 1, counts
    three[0].delete(name)


def test_shards_are_numbered_and_stay_with_their_endpoints(three, many):
    callee, name, _ = many
    three[0].put(name, {**job(name, "shards"), "schedule": "@every 1s", "max_fires": 3})
    wait_until(lambda: three[1].get(name)["status"]["counts"]["succeeded"] == 3, 30, "three fires", interval=0.2)
    of_port = {port: {r["headers"]["carillon-shard"] for r in records} for port, records in arrived(callee).items()}
    assert all(len(shards) == 1 for shards in of_port.values()), of_port
    assert {s for shards in of_port.values() for s in shards} == {f"{i}/4" for i in range(1, 5)}, of_port
    assert callee.count() == 12
    three[0].delete(name)


def test_only_the_endpoint_that_failed_is_called_again(three, many):
    callee, name, _ = many
    bad = callee.ports[1]
    callee.behave({"port": bad, "status": 503, "times": 2})
    three[0].put(name, job(name, "all"))
    fire = ended(three[1], name)
    calls = {port: len(records) for port, records in arrived(callee).items()}
    assert fire["outcome"] == "succeeded" and calls == {p: 3 if p == bad else 1 for p in callee.ports}, calls
    assert {e["endpoint"]: e["attempts"] for e in fire["endpoints"]}[f"127.0.0.1:{bad}"] == 3, fire["endpoints"]
    three[0].delete(name)


@pytest.mark.parametrize("rule, rest, reason", [
    ({"status": 410}, {}, "give_up"), ({"status": 503}, {"retry": {**QUICK, "max_attempts": 2}}, "max_attempts"),
    ({"status": 503}, {"delivery": "at_most_once", "retry": None}, "at_most_once")], ids=lambda x: str(x)[:24])
def test_one_endpoint_that_never_acknowledges_makes_the_fire_dead(three, many, rule, rest, reason):
    callee, name, _ = many
    bad = callee.ports[2]
    callee.behave({"port": bad, **rule})
    three[0].put(name, {k: v for k, v in job(name, "all", **rest).items() if v is not None})
    fire = ended(three[1], name)
    assert (fire["outcome"], fire["reason"]) == ("dead", reason), fire
    outcomes = {e["endpoint"]: e["outcome"] for e in fire["endpoints"]}
    assert outcomes == {f"127.0.0.1:{p}": "dead" if p == bad else "succeeded" for p in callee.ports}, outcomes
    three[0].delete(name)


def test_an_endpoint_that_leaves_is_gone_for_all_and_replaced_for_shards(three, many, shared_consul):
    callee, name, instances = many
    gone = callee.ports[3]
    callee.behave({"port": gone, "status": 503})
    for to in "all", "shards":
        three[0].put(f"{name}-{to}", job(name, to, retry={**QUICK, "max_backoff": "500ms"}))
    wait_until(lambda: len(arrived(callee)[gone]) >= 4, 20, "both tried it twice")
    shared_consul.deregister(instances[gone])
    of_all, of_shards = ended(three[1], f"{name}-all"), ended(three[1], f"{name}-shards")
    assert (of_all["outcome"], of_shards["outcome"]) == ("succeeded", "succeeded")
    assert {e["endpoint"]: e["outcome"] for e in of_all["endpoints"]}[f"127.0.0.1:{gone}"] == "gone", of_all
    done = {r["headers"]["carillon-shard"] for r in callee.records() if r["status"] == 200 and "carillon-shard" in r["headers"]}
    assert done == {f"{i}/4" for i in range(1, 5)}, done
    for to in "all", "shards":
        three[0].delete(f"{name}-{to}")


def test_a_fire_without_endpoints_waits_for_them(three, shared_consul, callees):
    callee = callees(2)
    name = f"fanlate-{callee.port}"
    three[0].put(name, job(name, "all"))
    wait_until(lambda: (f := three[1].fires(name)) and f[0]["reason"] == "no_endpoint", 20, "it says what it waits for")
    instances = [shared_consul.register(name, port, address="127.0.0.1") for port in callee.ports]
    fire = ended(three[1], name)
    assert fire["outcome"] == "succeeded" and callee.count() >= 1, fire
    for instance in instances:
        shared_consul.deregister(instance)
    three[0].delete(name)


def test_after_a_kill_only_what_had_not_ended_is_sent_again(cluster, shared_consul, callees):
    """Each fire has one endpoint that answers after two seconds; its owner dies while it waits for that one."""
    callee = callees(4)
    slow = callee.ports[0]
    for port in callee.ports:
        shared_consul.register("fankill", port, address="127.0.0.1")
    a, b, c = cluster.start(3)
    callee.behave({"port": slow, "delay": 2.0})
    jobs = [f"fankill-{n}" for n in range(60)]
    a.bulk({"op": "create", "id": j, "job": {**job("fankill", "all"), "schedule": "@after 1s", "callback": {
        "http": {"service": "fankill", "path": "/fan"}, "to": "all", "timeout": "10s"}}} for j in jobs)
    wait_until(lambda: callee.count() >= 240, 30, "all are out")
    time.sleep(0.5)
    c.kill9()
    for name in jobs:
        assert ended(a, name)["outcome"] == "succeeded"
    calls = {p: collections.Counter(r["headers"]["idempotency-key"] for r in records) for p, records in arrived(callee).items()}
    repeats = {p: sum(n - 1 for n in counter.values()) for p, counter in calls.items()}
    print(f"60 fires to 4 endpoints, owner of a third killed: repeats {[repeats[p] for p in callee.ports]}, the first is the slow one")
    assert all(len(calls[p]) == 60 for p in callee.ports)
    assert all(repeats[p] == 0 for p in callee.ports[1:]), "an endpoint that had answered got it again"
    assert 0 < repeats[slow] <= 60, repeats
