"""The balancer against real callees: who gets which share, who is left out and for how long, limits that hold."""
import collections
import time

from lib.load import rfc3339
from lib.procs import wait_until


def burst(agent, service, count, spread, path="/", prefix=None, **job):
    """COUNT one-shot jobs that are due one after the other within SPREAD seconds; returns their prefix."""
    prefix = prefix or f"{service}-"
    begin = time.time() + 1.0
    agent.bulk({"op": "create", "id": f"{prefix}{n}", "job": {
        "schedule": f"@at {rfc3339(begin + n * spread / count)}",
        "callback": {"http": {"service": service, "path": path}, "timeout": "5s"}, **job}} for n in range(count))
    return prefix


def shares(records):
    """{port: requests}."""
    return collections.Counter(r["port"] for r in records)


def test_near_endpoints_come_first_and_the_rest_takes_what_they_cannot(cluster, callees, shared_consul):
    """The agent's own node, its zone, the rest: all near by, and with a limit of one each, farther away what is too much."""
    callee = callees(ports=3)
    same, zone, far = callee.ports
    services, nodes = (f"near-{same}", f"spill-{same}"), (f"node-z-{same}", f"node-f-{same}")
    for service in services:
        shared_consul.register(service, same)
        shared_consul.register_elsewhere(nodes[0], service, zone, meta={"zone": "here"})
        shared_consul.register_elsewhere(nodes[1], service, far, meta={"zone": "there"})
    try:
        [agent] = cluster.start(1, config={"agent": {"zone": "here"}, "services": {
            services[0]: {"near": True}, services[1]: {"near": True, "max_in_flight_per_endpoint": 1}}})
        burst(agent, services[0], 40, 0.5)
        near = shares(callee.wait_for(40, 20))
        callee.clear()
        callee.behave({"delay": 1.0})
        burst(agent, services[1], 3, 0.001)
        spilled = shares(callee.wait_for(3, 20))
        callee.clear()
        callee.behave()
        shared_consul.deregister(f"{services[0]}-{same}")
        time.sleep(0.5)
        burst(agent, services[0], 40, 0.5, prefix="after-")
        after = shares(callee.wait_for(40, 20))
        print(f"own node {near[same]} of 40; three at once, one an endpoint: {sorted(spilled.values())}; "
              f"without an instance on the own node: own zone {after[zone]} of 40")
        assert near == {same: 40}
        assert spilled == {same: 1, zone: 1, far: 1}
        assert after == {zone: 40}
    finally:
        shared_consul.deregister(f"{services[1]}-{same}")
        for node in nodes:
            shared_consul.unregister_node(node)


def test_what_waits_for_a_service_goes_when_it_is_back_retries_included(cluster, callee, shared_consul):
    """Consul says the only instance is ill, then well: first attempts that found none and retries an hour away go out at once, paced."""
    service, patient = f"back-{callee.port}", {"min_backoff": "1h", "max_backoff": "1h", "jitter": 0}
    instance = shared_consul.register(service, callee.port)
    agents = cluster.start(2)
    callee.behave({"status": 503})
    burst(agents[0], service, 1500, 0.5, prefix="retry-", retry=patient)
    callee.wait_for(1500, 30)
    shared_consul.fail(instance)
    time.sleep(0.3)
    callee.behave()
    callee.clear()
    burst(agents[0], service, 300, 0.5, prefix="first-")
    time.sleep(4.0)
    assert callee.count() == 0
    print("waiting:", sum(a.metric("carillon_pending_fires") for a in agents), "fires in memory of 1800")
    at = time.monotonic()
    shared_consul.heal(instance)
    records = callee.wait_for(1800, 60)
    attempts = collections.Counter(r["headers"]["carillon-attempt"] for r in records)
    after = sorted(r["at"] - at for r in records)
    print(f"well again to first callback {1000 * after[0]:.0f} ms, to the 500th {1000 * after[499]:.0f} ms, to the last "
          f"{1000 * after[-1]:.0f} ms; in the first 100 ms {sum(1 for a in after if a < 0.1)}")
    assert attempts == {"1": 300, "2": 1500}
    assert after[0] < 1.0
    shared_consul.deregister(instance)


def test_rate_holds_over_the_cluster_and_nobody_else_waits(cluster, callees, shared_consul):
    """Three agents, 100 a second together; another service's callbacks are not held up by those that wait."""
    slow, free = callees(), callees()
    service, other = f"rate-{slow.port}", f"free-{free.port}"
    instances = [shared_consul.register(service, slow.port), shared_consul.register(other, free.port)]
    a, b, c = cluster.start(3, config={"services": {service: {"rate": 100}}})
    here = lambda agent: agent.ask("GET", f"/v1/services/{service}", 200)["rate_here"]  # noqa: E731
    wait_until(lambda: all(abs(here(x) - 100 / 3) < 0.01 for x in (a, b, c)), 20, "a third each")
    begin = time.time() + 1.5
    a.bulk({"op": "create", "id": f"{name}-{n}", "job": {"schedule": f"@at {rfc3339(begin)}", "callback": {
        "http": {"service": name, "path": "/r"}}}} for name in (service, other) for n in range(600))
    records = slow.wait_for(600, 60)
    times = sorted(r["wall"] - begin for r in records)
    others = sorted(r["wall"] - begin for r in free.wait_for(600, 60))
    print(f"600 due at once at 100/s: the 100th after {times[99]:.2f} s, the last after {times[-1]:.2f} s; "
          f"600 of another service meanwhile: the last after {others[-1]:.2f} s")
    assert len({r["headers"]["ce-id"] for r in records}) == 600
    saved = 100 / 20 + 3 + 1  # what the agents may have saved up
    early = [(n, at) for n, at in enumerate(times, 1) if n > 100 * at + saved]
    assert not early, early[:5]
    assert others[-1] < times[-1], "they did not wait for those"
    c.term()
    wait_until(lambda: abs(here(a) - 50) < 0.01 and abs(here(b) - 50) < 0.01, 20, "a half each")
    for instance in instances:
        shared_consul.deregister(instance)
