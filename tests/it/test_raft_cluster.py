"""Three agents whose jobs are in a log of their own, without a database: leaders and followers die, are cut off, run out of disk,
are replaced. What was answered 2xx is there, every fire comes, and comes again only as the same fire."""
import base64
import errno
import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest
from lib.load import Load, Writer
from lib.oracle import deliveries
from lib.procs import wait_until

JOBS = 120


def folder_of(agent):
    return pathlib.Path(agent.config["agent"]["data_dir"]) / "raft"


@pytest.fixture
def cluster(raft_cluster):
    """An API that does not wait for long: most of what is asked of a minority is refused."""
    raft_cluster.config = {"api": {"wait": "1s"}}
    return raft_cluster


def start(cluster):
    """Three agents, all of them voters."""
    agents = [cluster.agent() for _ in range(3)]
    back(cluster, agents)
    return agents


def quiet(callee, at, until):
    """Seconds of the longest time without any fire after AT (monotonic), until UNTIL."""
    times = [at] + sorted(d.at for d in deliveries(callee.records()) if at < d.at < until) + [until]
    return max(b - a for a, b in zip(times, times[1:]))


def back(cluster, agents):
    for agent in agents:
        agent.start(wait=False)
    for agent in agents:
        agent.wait_ready(60)
    cluster.wait_settled(60)


def other(agents, leader):
    return next(a for a in agents if a is not leader)


def test_whoever_dies_nothing_is_lost(cluster, callee):
    """kill -9 of the leader, of a follower, of two at once, of all."""
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


def test_one_that_is_cut_off_is_no_harm(cluster, callee, proxies):
    """The leader hears nothing of the others any more, and they nothing of it; then it is let in again."""
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


def test_a_dead_voter_is_replaced_and_does_not_come_back_under_its_number(cluster, callee):
    """A fourth agent uses the voters; one of them is gone for good, its folder too; Consul forgets everything."""
    agents = start(cluster)
    fourth = cluster.agent().start(timeout=60)
    cluster.wait_settled(60)
    assert cluster.log(fourth)["role"] == "client" and cluster.log(fourth)["number"] is None
    assert "d" not in cluster.voters(fourth)
    load = Load(cluster, callee, "gone", JOBS).begin(fourth)
    with Writer([*agents, fourth], "w-gone", pause=0.05) as writer:
        victim = other(agents, cluster.leader())
        rest = [a for a in agents if a is not victim]
        victim.kill9()
        shutil.rmtree(folder_of(victim))
        at = time.monotonic()
        wait_until(lambda: cluster.voters(rest[0]).get("d") == "voter", 120, "the fourth votes")
        wait_until(lambda: len(cluster.voters(rest[0])) == 3, 60, "the dead one is out")
        print(f"replaced {time.monotonic() - at:.1f} s after its death")
        numbers = {v["name"]: v["number"] for v in cluster.log(rest[0])["voters"]}
        assert numbers["d"] > 3 and victim.name not in numbers, numbers
        back(cluster, [victim])
        assert cluster.log(victim)["role"] == "client", "an emptied folder votes for nobody"
        forget(cluster, set(numbers.values()))
        wait_until(lambda: set(cluster.voters(rest[0])) == set(numbers), 60, "the voters tell Consul their names again")
        leave(cluster, cluster.leader(), victim)
    load.finish(fourth)
    writer.check(victim)


def forget(cluster, numbers):
    """Consul loses the key; the voters write it again, and give numbers out elsewhere."""
    cluster.consul.delete(f"carillon/{cluster.name}/raft", recurse=True)
    key = f"carillon/{cluster.name}/raft/voters"
    doc = wait_until(lambda: (d := json.loads(cluster.consul.get(key) or "{}")).get("fixed") and d, 60, "the key is written again")
    assert {v["number"] for v in doc["voters"]} == numbers and doc["next"] > 1000000, doc


def leave(cluster, leader, spare):
    """A voter that is ended gives its place to SPARE, and what it kept is put aside when it comes back."""
    number, at = cluster.log(leader)["number"], time.monotonic()
    leader.term()
    wait_until(lambda: cluster.voters(spare).get(spare.name) == "voter" and leader.name not in cluster.voters(spare), 60,
               "it gave its place away")
    print(f"ended and replaced in {time.monotonic() - at:.1f} s")
    back(cluster, [leader])
    assert cluster.log(leader)["role"] == "client"
    assert folder_of(leader).with_name(f"raft.removed-{number}").is_dir()


# ---- a full disk

DISK_BYTES = 96 << 20
LARGE_BYTES, LARGE_JOBS = 120 << 10, 250


def small_disk(agent):
    """AGENT gets a file system of its own for its data, seen by nobody else. False: this machine lets nobody mount."""
    place = agent.config["agent"]["data_dir"]
    pathlib.Path(place).mkdir()
    script = f'mount -t tmpfs -o size={DISK_BYTES} none "{place}" && exec "$0" "$@"'
    for way in (["unshare", "-m"], ["unshare", "-Urm"]):
        if subprocess.run([*way, "sh", "-c", script, "true"], capture_output=True, check=False).returncode == 0:
            agent.process.argv = [*way, "sh", "-c", script, *agent.process.argv]
            return True
    return False


def fill(agent):
    """Take what is left of its disk; the path of what takes it."""
    filler = pathlib.Path(f"/proc/{agent.process.pid}/root{agent.config['agent']['data_dir']}/filler")
    with open(filler, "wb", buffering=0) as out:
        try:
            while out.write(bytes(1 << 16)) > 0:
                pass
        except OSError as e:
            assert e.errno == errno.ENOSPC, e
    return filler


def write_much(agents):
    """More than the log takes ahead on a disk. What is refused is sent again."""
    payload = base64.b64encode(os.urandom(LARGE_BYTES)).decode()
    for n in range(LARGE_JOBS):
        job = {"schedule": "@after 1d", "payload": f"{n} {payload}", "callback": {"http": {"service": "w", "path": "/"}}}
        wait_until(lambda n=n, job=job: agents[n % len(agents)].call("PUT", f"/v1/jobs/large-{n}", json=job).ok, 60,
                   "a large job is acknowledged")


def applied(cluster, agent):
    return cluster.log(agent)["applied"]


def test_a_full_disk_stops_one_voter_only(cluster, callee):
    """A follower's: a leader goes on, for the others write down what it sends them."""
    agents = [cluster.agent() for _ in range(3)]
    if not all([small_disk(agent) for agent in agents]):
        print("no file system can be mounted on this machine: a disk cannot be filled")
        return
    back(cluster, agents)
    load = Load(cluster, callee, "full", 60).begin(agents[0])
    victim = other(agents, cluster.leader())
    rest = [a for a in agents if a is not victim]
    with Writer(rest, "w-full", pause=0.02) as writer:
        filler, begin = fill(victim), time.monotonic()
        write_much(rest)
        print(f"full disk of a follower: {LARGE_JOBS} large jobs acknowledged in {time.monotonic() - begin:.1f} s")
        behind = applied(cluster, rest[0]) - applied(cluster, victim)
        assert behind > 0, "its disk was not full"
        filler.unlink()
        begin = time.monotonic()
        wait_until(lambda: applied(cluster, victim) >= applied(cluster, rest[0]) - 50, 60, "it has the log again")
        print(f"{behind} entries behind, caught up {time.monotonic() - begin:.1f} s after there was space again")
    cluster.wait_settled(60)
    load.finish(rest[0])
    writer.check(victim)
