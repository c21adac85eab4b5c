"""Three agents whose jobs are in a log of their own, without a database: leaders and followers die and are cut off. What was
answered 2xx is there, every fire comes, and comes again only as the same fire."""
import time

from lib.load import Load, Writer
from lib.oracle import deliveries
from lib.procs import wait_until
from lib.raft import back, other, start

JOBS = 120


def quiet(callee, at, until):
    """Seconds of the longest time without any fire after AT (monotonic), until UNTIL."""
    times = [at] + sorted(d.at for d in deliveries(callee.records()) if at < d.at < until) + [until]
    return max(b - a for a, b in zip(times, times[1:]))


def test_whoever_dies_nothing_is_lost(raft_cluster, callee):
    """kill -9 of the leader, of a follower, of two at once, of all."""
    cluster = raft_cluster
    begin = time.monotonic()
    agents = start(cluster)
    print(f"three agents from nothing to every slot owned: {time.monotonic() - begin:.1f} s")
    load = Load(cluster, callee, "die", JOBS).begin(agents[0])
    with Writer(agents, "w-die", pause=0.02) as writer:
        for what, victims in kinds_of_death(cluster, agents):
            at, wall = time.monotonic(), time.time()
            for victim in victims:
                victim.kill9()
            time.sleep(3)
            lone = [a for a in agents if a not in victims]
            if len(lone) == 1:
                assert_no_promise(lone[0], load.ids[0])
            if len(lone) == 2:
                wait_until(lambda at=at: callee_fired(callee, at + 3), 60, "the others fire")
                print(f"{what}: {quiet(callee, at, at + 3):.2f} s without any fire")
            down = time.monotonic()
            back(cluster, victims)
            if len(lone) < 2:
                print(f"{what}: whole again {time.monotonic() - down:.2f} s after their start")
            time.sleep(1.5)
            print(f"  lateness since: {show_between(callee, wall)}")
    load.finish(agents[0])
    writer.check(agents[1])
    wait_until(lambda: cluster.voters() == {a.name: "voter" for a in agents}, 60, "all are voters still")
    assert sorted(v["number"] for v in cluster.log(agents[0])["voters"]) == [1, 2, 3]
    leader = cluster.leader().cluster()["self"]
    wait_until(lambda: all(agent.cluster()["store"]["leader"] == leader for agent in agents), 60, "all tell who leads")


def show_between(callee, wall):
    late = sorted(d.lateness_ms for d in deliveries(callee.records()) if d.due >= wall)
    return f"{len(late)} fires, the latest {late[-1] / 1000:.2f} s" if late else "none"


def callee_fired(callee, at):
    return any(d.at > at for d in deliveries(callee.records()))


def kinds_of_death(cluster, agents):
    """What dies, by name."""
    leader = cluster.leader()
    yield "the leader killed", [leader]
    leader = cluster.leader()
    yield "a follower killed", [other(agents, leader)]
    leader = cluster.leader()
    yield "the leader and a follower killed", [leader, other(agents, leader)]
    yield "all killed", list(agents)


def assert_no_promise(agent, job_id):
    """A minority acknowledges nothing, and reads nothing that may be old."""
    for method, path in (("PUT", "/v1/jobs/alone"), ("GET", f"/v1/jobs/{job_id}"), ("GET", "/v1/jobs?limit=1")):
        body = {"schedule": "@hourly", "callback": {"http": {"service": "w", "path": "/"}}} if method == "PUT" else None
        answer = agent.call(method, path, json=body)
        assert answer.status_code == 503, (method, path, answer.status_code, answer.text[:300])
    health = {c["name"]: c for c in agent.health()["checks"]}
    assert not health["store"]["ok"] and health["store"]["detail"], health


def test_one_that_is_cut_off_is_no_harm(raft_cluster, callee, proxies):
    """The leader hears nothing of the others any more, and they nothing of it; then it is let in again."""
    cluster = raft_cluster
    agents = [cluster.agent() for _ in range(3)]
    links = {}
    for agent in agents:
        links[agent.name] = proxies(agent.raft_port), proxies(agent.cluster_port)
        agent.config["store"]["raft"]["advertise"] = links[agent.name][0].address
        agent.config["cluster"]["advertise"] = links[agent.name][1].address
    back(cluster, agents)
    load = Load(cluster, callee, "cut", JOBS).begin(agents[0])
    leader = cluster.leader()
    rest = [a for a in agents if a is not leader]
    with Writer(agents, "w-cut", pause=0.02) as writer:
        at, wall = time.monotonic(), time.time()
        for link in links[leader.name]:
            link.cut()
        for log, peers in [links[agent.name] for agent in rest]:
            log.refuse(leader.process.pid)
            peers.refuse(leader.process.pid)
        new = wait_until(lambda: leader_among(cluster, rest), 60, "another leader")
        print(f"cut off: another leads after {time.monotonic() - at:.2f} s")
        wait_until(lambda: cluster.log(leader)["role"] != "leader", 60, "the one that is cut off knows")
        time.sleep(4)
        assert_no_promise(leader, load.ids[0])
        print(f"cut off: {quiet(callee, at, time.monotonic()):.2f} s without any fire; {show_between(callee, wall)}")
        healed = time.monotonic()
        for link in [link for both in links.values() for link in both]:
            link.heal()
        cluster.wait_settled(60)
        print(f"settled {time.monotonic() - healed:.1f} s after it was let in again")
        time.sleep(2)
    load.finish(new)
    writer.check(new)
    wait_until(lambda: cluster.voters(new) == {a.name: "voter" for a in agents}, 60, "all are voters still")


def leader_among(cluster, agents):
    return next((a for a in agents if cluster.log(a)["role"] == "leader"), None)


def test_members_that_have_ipv6_addresses_only(raft_cluster, callee):
    """As in such a Kubernetes: they are heard by each other, by the voters of the log and by clients in brackets."""
    agents = [raft_cluster.agent() for _ in range(3)]
    for agent in agents:
        agent.config["cluster"]["listen"] = f"[::1]:{agent.cluster_port}"
        agent.config["store"]["raft"]["listen"] = f"[::1]:{agent.raft_port}"
        agent.config["api"]["listen"] = [f"[::1]:{agent.api_port}"]
        agent.url = f"http://[::1]:{agent.api_port}"
        agent.start(wait=False)
    for agent in agents:
        agent.wait_ready(60)
    raft_cluster.wait_settled(60)
    load = Load(raft_cluster, callee, "six", 12).begin(agents[0])
    assert {m["address"] for m in agents[1].cluster()["members"]} == {f"[::1]:{a.cluster_port}" for a in agents}
    for n, agent in enumerate(agents):
        assert agent.get(load.ids[n])
    raft_cluster.leader().kill9()
    time.sleep(2)
    load.finish(raft_cluster.alive()[0])
