"""Agents that die, hang, leave and come: nothing is lost, and planned changes repeat nothing."""
import statistics
import time

from lib.load import Load, check_store, lateness_between, show
from lib.oracle import deliveries
from lib.procs import wait_until

JOBS = 300
KILLS = 5


def first_after(callee, jobs, at, since):
    """Seconds from AT until a fire of one of JOBS arrived that was due after AT."""
    for d in deliveries(callee.records(since)):
        if d.job in jobs and d.at > at and d.due > time.time() - (time.monotonic() - at):
            return d.at - at
    return None


def test_kill9_loses_nothing_and_its_jobs_fire_again(cluster, callee):
    """Five kills, any agent; the dead one comes back in between."""
    agents = cluster.start(3)
    load = Load(cluster, callee, "kill", JOBS).begin(agents[0])
    again, kills = [], []
    for k in range(KILLS):
        victim = agents[k % 3]
        orphans = {j for j, owner in load.owners().items() if owner == victim.name}
        assert orphans
        since = callee.count()
        victim.kill9()
        at, wall = time.monotonic(), time.time()
        again.append(wait_until(lambda: first_after(callee, orphans, at, since), 20, "the dead agent's jobs fire"))
        kills.append((wall, orphans))
        time.sleep(1.5)
        victim.start()
        cluster.wait_settled()
        time.sleep(5.0)  # a new verdict is given 5 s after the last one at the earliest
    verdict = load.finish(agents[0])
    check_store(cluster)
    show(f"kill -9 to the first fire by a new owner, {KILLS} kills", [1000 * s for s in again])
    for n, (wall, orphans) in enumerate(kills):
        show(f"  kill {n}: lateness of its {len(orphans)} jobs' dues in the second after it",
             lateness_between(verdict, wall, wall + 1, orphans))
    print(f"median: {statistics.median(again):.3f} s")
    assert statistics.median(again) < 5


def test_stopped_agent_records_nothing_more(cluster, callee):
    """SIGSTOP for 20 s, then SIGCONT: its lease is over, others have its jobs, and it knows."""
    a, b, c = cluster.start(3)
    load = Load(cluster, callee, "stop", JOBS).begin(a)
    old_id = c.cluster()["self"]
    c.stop()
    stopped = time.monotonic()
    wait_until(lambda: "dead" if member(cluster, old_id)["dead"] else None, 15, "the stopped agent declared dead")
    print(f"declared dead {time.monotonic() - stopped:.1f} s after SIGSTOP")
    time.sleep(max(0.0, 20 - (time.monotonic() - stopped)))
    before = member(cluster, old_id)
    continued = time.monotonic()
    c.cont()
    wait_until(lambda: c.cluster()["self"] != old_id and c.ready(), 20, "the stopped agent back under a new id")
    cluster.wait_settled()
    verdict = load.finish(a)
    after = member(cluster, old_id)
    assert after == before, f"the row of {old_id} went from {before} to {after}"
    members = {m["id"]: m["state"] for m in a.cluster()["members"]}
    assert old_id not in members and c.cluster()["self"] in members, members
    newest = {}
    for d in sorted(verdict.deliveries, key=lambda d: d.at):
        if d.at > continued:
            assert d.epoch >= newest.get(d.uid, 0), f"{d.job} seq {d.seq}: epoch {d.epoch} after {newest[d.uid]}"
        newest[d.uid] = max(d.epoch, newest.get(d.uid, 0))
    check_store(cluster)
    print(f"longest lateness {verdict.lateness()[-1]:.0f} ms")
    assert verdict.lateness()[-1] < 60000


def member(cluster, member_id):
    [row] = cluster.sql("SELECT * FROM members WHERE member = %s", (member_id,))
    return row


def test_planned_changes_lose_nothing_and_repeat_nothing(cluster, callees):
    """SIGTERM, a fourth agent, a rolling restart of all, while callbacks take 1 to 5 s."""
    callee = callees(ports=6)
    callee.behave({"delay": [1.0, 5.0]})
    agents = cluster.start(3)
    load = Load(cluster, callee, "planned", 120, slowest=5.0).begin(agents[0])
    marks = [("steady", time.time())]
    time.sleep(3)
    for title, change in changes(cluster, agents):
        marks.append((title, time.time()))
        change()
        time.sleep(1.5)
    marks.append(("end", time.time()))
    callee.behave()  # else some fire would always be pending
    verdict = load.finish(agents[0], repeats_allowed=False, settle=6.0)
    check_store(cluster)
    for (title, begin), (_, end) in zip(marks, marks[1:]):
        show(f"  {title} ({end - begin:.1f} s), lateness", lateness_between(verdict, begin, end))
    gap, job = verdict.longest_gap()
    print(f"longest lateness {verdict.lateness()[-1]:.0f} ms; longest gap between two fires of a job {gap:.3f} s ({job})")
    assert verdict.lateness()[-1] < 10000


def changes(cluster, agents):
    """What people do to a cluster, by name."""
    def leave():
        agents[2].term()
        cluster.wait_settled()

    def come_back():
        agents[2].start()
        cluster.wait_settled()

    def fourth():
        agents.extend(cluster.start(1))

    def restart(agent):
        agent.term()
        agent.start()
        cluster.wait_settled()

    yield "SIGTERM of c", leave
    yield "start of c", come_back
    yield "start of a fourth", fourth
    for agent in list(agents):
        yield f"restart of {agent.name}", lambda agent=agent: restart(agent)
