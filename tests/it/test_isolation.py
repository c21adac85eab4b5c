"""A callee that is down holds up nobody else: lateness of a healthy one beside it, memory, and the backlog's end.

IT_ISOLATION=full: 10,000 fires into a service that is down for five minutes, beside 1,000 a second to a healthy one.
"""
import collections
import os
import pathlib
import threading
import time

import pytest
from lib.load import Load, rfc3339
from lib.oracle import Verdict, deliveries, quantile
from lib.procs import wait_until

FULL = os.environ.get("IT_ISOLATION") == "full"
DOWN_S = 300 if FULL else 15
FIRES = 10000 if FULL else 2000
HEALTHY_PER_S = 1000 if FULL else 200
RATE = 500 if FULL else 200
CALM_S = 30 if FULL else 6
PATIENT = {"min_backoff": "1s", "factor": 2, "max_backoff": "10s", "max_age": "1h"}


class Memory:
    """Resident size of each agent in MB, looked at while it lives."""

    def __init__(self, agents):
        self.agents, self.most, self.course = agents, {a.name: 0 for a in agents}, []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._begin = time.time()
        self._thread.start()

    def look(self):
        now = {}
        for a in self.agents:
            status = pathlib.Path(f"/proc/{a.process.pid}/status").read_text()
            now[a.name] = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0) >> 10
            self.most[a.name] = max(self.most[a.name], now[a.name])
        return now

    def _run(self):
        while not self._end.wait(0.5):
            now = self.look()
            if time.time() - self._begin >= len(self.course) * DOWN_S / 10:
                self.course.append("/".join(str(mb) for mb in now.values()))

    def stop(self):
        self._end.set()
        self._thread.join(10)
        self.look()
        return dict(self.most)


def figures(values):
    if not values:
        return "not measured: the machine was too slow"
    return f"p50 {quantile(values, 0.5):.1f} p99 {quantile(values, 0.99):.1f} max {values[-1]:.1f} ms of {len(values)}"


def show_worst_seconds(firsts, begin, end):
    seconds = collections.defaultdict(list)
    for d in firsts:
        if begin <= d.due < end:
            seconds[int(d.due - begin)].append(d.lateness_ms)
    worst = sorted(((quantile(sorted(late), 0.99), at) for at, late in seconds.items()), reverse=True)[:3]
    print("worst seconds of the healthy one:", ", ".join(f"{at} s: p99 {late:.0f} ms" for late, at in worst))


@pytest.mark.timeout(1800 if FULL else 900)
@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_service_that_is_down_holds_up_no_other(cluster, callees, shared_consul, how):
    healthy, dead = callees(), callees()
    service = f"dead-{dead.port}"
    instance = shared_consul.register(service, dead.port)
    agents = cluster.start(2, config={"services": {service: {"rate": RATE}}})
    load = Load(cluster, healthy, f"well-{dead.port}", HEALTHY_PER_S).begin(agents[0])
    down_at = time.time() + CALM_S + 3.0 + FIRES / 500
    for part in range(0, FIRES, 2000):  # due over the first half of the time
        agents[part // 2000 % 2].bulk({"op": "create", "id": f"{service}-{n}", "job": {
            "schedule": f"@at {rfc3339(down_at + n / FIRES * DOWN_S / 2)}", "retry": PATIENT,
            "callback": {"http": {"service": service, "path": "/d"}, "timeout": "5s"}}}
            for n in range(part, part + 2000))
    calm_from = time.time() + 1.0  # after the writes, which are not what this is about
    memory = Memory(agents)
    before_mb = memory.look()
    time.sleep(max(0.0, down_at - 0.5 - time.time()))
    if how == "refuses":
        dead.down(dead.port)
    else:
        dead.behave({"hang": True})
    time.sleep(max(0.0, down_at + DOWN_S - time.time()))
    loaded = [a.metric("carillon_pending_fires") for a in agents]
    up_at, seen = time.time(), dead.count()
    if how == "refuses":
        dead.up(dead.port)
    else:
        dead.behave()
    wait_until(lambda: dead.count() - seen >= FIRES and sum(d.status == 200 for d in deliveries(dead.each(seen))) >= FIRES,
               120 + 2 * FIRES / RATE, "the backlog delivered", interval=1.0)
    done_at = time.time()
    most_mb = memory.stop()
    time.sleep(CALM_S / 2)
    verdict = Verdict(healthy.each())
    firsts = verdict.firsts()
    calm, storm, after = (sorted(d.lateness_ms for d in firsts if begin <= d.due < end) for begin, end in (
        (calm_from, down_at), (down_at, up_at), (up_at, done_at)))
    arrived = sorted(d.wall for d in deliveries(dead.each(seen)) if d.status == 200)
    show_worst_seconds(firsts, down_at, done_at)
    print(f"{FIRES} fires into a service that {how} for {DOWN_S} s beside {HEALTHY_PER_S}/s to a healthy one, two agents:\n"
          f"healthy before: {figures(calm)}\nhealthy meanwhile: {figures(storm)}\nhealthy while the backlog goes: "
          f"{figures(after)}\nresident MB before {before_mb}, most {most_mb}; its course {' '.join(memory.course)}; "
          f"fires in memory at the end {loaded}\n"
          f"back: {len(arrived)} in {arrived[-1] - up_at:.1f} s at {RATE}/s")
    assert quantile(storm, 0.99) < 5000 and quantile(after, 0.99) < 5000
    assert all(most_mb[name] < before_mb[name] + 150 for name in most_mb), (before_mb, most_mb)
    early = [(n, at - up_at) for n, at in enumerate(arrived, 1) if n > RATE * (at - up_at) + RATE / 20 + 4]
    assert not early, early[:5]
    wait_until(lambda: all(j["status"]["counts"]["succeeded"] == 1 for j in agents[0].list(prefix=f"{service}-")), 30,
               "every fire recorded as delivered", interval=0.5)
    load.finish(agents[0])
    shared_consul.deregister(instance)
