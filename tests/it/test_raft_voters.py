"""Voters of a log's cluster come and go: one that is gone for good is replaced, one without space on its disk waits for it. Nothing is
lost meanwhile."""
import base64
import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from lib import disk
from lib.carillon import Agent, binary
from lib.load import Load, Writer
from lib.procs import wait_until
from lib.raft import back, folder_of, other, start

JOBS = 120


def test_a_dead_voter_is_replaced_and_does_not_come_back_under_its_number(raft_cluster, callee):
    """A fourth agent uses the voters; one of them is gone for good, its folder too; Consul forgets everything."""
    cluster = raft_cluster
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


# ---- from elsewhere, and to elsewhere

def copy(source, target, *flags):
    return subprocess.run([binary(), "store", "copy", "--from", source, "--to", target, *flags],
                          capture_output=True, text=True, timeout=120, check=False)


def test_a_store_from_elsewhere_becomes_a_clusters_and_goes_elsewhere(raft_cluster):
    """What an agent alone had: one voter begins with it, the others join; two with a store each are one too many."""
    cluster = raft_cluster
    agents = [cluster.agent() for _ in range(3)]
    alone = Agent("alone", agents[0].folder, {"cluster": {"name": cluster.name}, "services": {"w": {"endpoints": ["192.0.2.1:80"]}}}).start()
    job = {"schedule": "@hourly", "callback": {"http": {"service": "w", "path": "/"}}}
    for n in range(20):
        alone.put(f"old-{n}", job)
    before = {j["id"]: j["status"]["uid"] for j in alone.list()}
    alone.term()
    for agent in agents[:2]:
        moved = copy(f"raft:{folder_of(alone)}", f"raft:{folder_of(agent)}", "--verify")
        assert moved.returncode == 0, moved
    agents[0].start(timeout=60)
    agents[1].start(wait=False)
    wait_until(lambda: not agents[1].process.alive(), 60, "the second one is refused")
    assert "the cluster began without the store" in agents[1].process.log_text()
    shutil.rmtree(folder_of(agents[1]))
    back(cluster, agents[1:])
    wait_until(lambda: cluster.voters() == {a.name: "voter" for a in agents}, 60, "all vote")
    assert {j["id"]: j["status"]["uid"] for j in agents[2].list()} == before
    agents[1].put("new", job)
    cluster.leader().kill9()
    rest = [a for a in agents if a.process.alive()]
    wait_until(lambda: rest[0].call("PUT", "/v1/jobs/newer", json=job).ok, 60, "another leads")
    for agent in rest:
        agent.term()
    out = copy(f"raft:{folder_of(rest[0])}", f"raft:{folder_of(rest[0]).with_name('out')}", "--verify", "--json")
    assert out.returncode == 0 and json.loads(out.stdout)["jobs"] == 22, out


# ---- a full disk

DISK_BYTES = 96 << 20
LARGE_BYTES, LARGE_JOBS = 120 << 10, 250


def write_much(agents, count=LARGE_JOBS):
    """More than the log takes ahead on a disk. What is refused is sent again."""
    payload = base64.b64encode(os.urandom(LARGE_BYTES)).decode()
    for n in range(count):
        job = {"schedule": "@after 1d", "payload": f"{n} {payload}", "callback": {"http": {"service": "w", "path": "/"}}}
        wait_until(lambda n=n, job=job: agents[n % len(agents)].call("PUT", f"/v1/jobs/large-{n}", json=job).ok, 60,
                   "a large job is acknowledged")


def applied(cluster, agent):
    return cluster.log(agent)["applied"]


@pytest.mark.parametrize("whose", ["follower", "leader"])
def test_a_full_disk_stops_one_voter_only(raft_cluster, callee, whose):
    """A follower's: a leader goes on, for the others write down what it sends them. The leader's: the same, until another leads."""
    cluster = raft_cluster
    agents = [cluster.agent() for _ in range(3)]
    by = disk.way()
    if by is None:
        print("no file system can be mounted on this machine: a disk cannot be filled")
        return
    disks = {}
    for agent in agents:
        disks[agent.name] = disk.Disk(agent.config["agent"]["data_dir"], DISK_BYTES, by)
        agent.process.argv = disks[agent.name].wrap(agent.process.argv)
    back(cluster, agents)
    load = Load(cluster, callee, "full", 60).begin(agents[0])
    leader = cluster.leader()
    victim = leader if whose == "leader" else other(agents, leader)
    rest = [a for a in agents if a is not victim]
    with Writer(rest, "w-full", pause=0.02) as writer:
        disks[victim.name].fill()
        begin = time.monotonic()
        write_much(rest)
        wait_until(lambda: cluster.log(victim)["role"] == "follower", 60, "another leads")
        write_much(rest, 20)
        print(f"full disk of the {whose}: {LARGE_JOBS} large jobs acknowledged in {time.monotonic() - begin:.1f} s")
        behind = applied(cluster, rest[0]) - applied(cluster, victim)
        assert behind > 0, "its disk was not full"
        disks[victim.name].free()
        begin = time.monotonic()
        wait_until(lambda: applied(cluster, victim) >= applied(cluster, rest[0]) - 50, 60, "it has the log again")
        print(f"{behind} entries behind, caught up {time.monotonic() - begin:.1f} s after there was space again")
    cluster.wait_settled(60)
    load.finish(rest[0])
    writer.check(victim)


def test_whose_disk_is_full_votes_when_there_is_space(raft_cluster, callee):
    """Its turn to vote comes while it cannot write that down: it goes on without, as what it was."""
    cluster = raft_cluster
    by = disk.way()
    if by is None:
        print("no file system can be mounted on this machine: a disk cannot be filled")
        return
    agents = start(cluster)
    fourth = cluster.agent()
    space = disk.Disk(fourth.config["agent"]["data_dir"], DISK_BYTES, by)
    fourth.process.argv = space.wrap(fourth.process.argv)
    back(cluster, [fourth])
    load = Load(cluster, callee, "turn", 60).begin(fourth)
    space.fill()
    leader = cluster.leader()
    leader.process.signal(signal.SIGTERM)
    wait_until(lambda: "cannot vote yet" in fourth.process.log_text(), 60, "its turn has come", alive=[fourth.process])
    assert cluster.voters(fourth).get("d") != "voter"
    space.free()
    wait_until(lambda: cluster.voters(fourth).get("d") == "voter", 60, "it votes", alive=[fourth.process])
    assert leader.process.wait(60) == 0
    load.finish(other(agents, leader))
