"""`carillon store copy`: all that one store holds, moved to another and compared; refused while an agent is alive; begun anew
after it was interrupted."""
import json
import pathlib
import signal
import subprocess

import pytest

from lib.carillon import Agent, binary
from lib.procs import wait_until
from lib.raft import back, folder_of


@pytest.fixture
def agents(folder):
    made = []

    def make(name, **store):
        made.append(Agent(name, folder, {"store": store} if store else {}))
        return made[-1]

    yield make
    for agent in made:
        agent.end()


def raft(agent):
    return f"raft:{pathlib.Path(agent.config['agent']['data_dir']) / 'raft'}"


def copy(source, target, *flags):
    return subprocess.run([binary(), "store", "copy", "--from", source, "--to", target, *flags],
                          capture_output=True, text=True, timeout=120, check=False)


def job(callee, path="/ok", schedule="@hourly", **rest):
    return {"schedule": schedule, "callback": {"http": {"url": callee.url(path)}}, **rest}


def fill(agent, callee):
    """Jobs with labels and payloads, changed, deleted; a dead letter; a fire that waits for its next attempt."""
    callee.behave({"path": "/bad", "status": 500})
    for i in range(30):
        agent.put(f"j{i}", job(callee, labels={"team": f"t{i % 3}"}, payload={"n": i}))
    agent.put("j0", job(callee, description="changed"))
    agent.delete("j1")
    agent.put("dead", job(callee, "/bad", retry={"max_attempts": 1}))
    agent.put("waits", job(callee, "/bad", retry={"max_attempts": 5, "min_backoff": "1h", "max_backoff": "1h"}))
    for name in ("dead", "waits", "j2"):
        agent.ask("POST", f"/v1/jobs/{name}/run", 200, 202, json={})
    wait_until(lambda: agent.get("dead")["status"]["counts"]["dead"] == 1, 60, "a dead letter")
    wait_until(lambda: agent.get("j2")["status"]["counts"]["succeeded"] == 1, 60, "a success")
    wait_until(lambda: [f.get("next_attempt_at") for f in agent.fires("waits")] not in ([], [None]), 60, "a fire that waits")


def picture(agent):
    """What the API tells of jobs and dead letters."""
    jobs = {j["id"]: (j.get("labels"), j.get("payload"), j["status"]["uid"], j["status"]["version"], j["status"]["counts"])
            for j in agent.list(limit=1000)}
    letters = [f["fire"] for f in agent.ask("GET", "/v1/deadletters", 200)["deadletters"]]
    return jobs, letters


def test_a_store_moves_to_the_database_and_back(agents, callee, shared_mariadb, folder):
    database = f"copy_{pathlib.Path(folder).name[-8:]}".replace("-", "_")
    url = f"mysql://root@127.0.0.1:{shared_mariadb.port}/{database}"
    first = agents("first").start()
    fill(first, callee)
    busy = copy(raft(first), url)
    assert busy.returncode == 1 and "in use by another agent" in busy.stderr, busy
    before = picture(first)
    assert len(before[0]) == 31 and len(before[1]) == 1
    first.term()

    moved = copy(raft(first), url, "--verify", "--json")
    assert moved.returncode == 0, moved
    counts = json.loads(moved.stdout)
    assert counts["verified"] and counts["jobs"] == 31 and counts["dead_letters"] == 1, counts
    assert counts["slots"] == 4096 and counts["copies"] == 1 and counts["revisions"] >= 33, counts
    again = copy(raft(first), url)
    assert again.returncode == 1 and "holds a store already" in again.stderr, again

    mysql = {"host": "127.0.0.1", "port": shared_mariadb.port, "user": "root", "database": database}
    second = agents("second", driver="mysql", mysql=mysql).start()
    assert picture(second) == before
    busy = copy(url, f"raft:{folder}/back")
    assert busy.returncode == 1 and "an agent is alive" in busy.stderr, busy
    second.term()

    # As an interrupted copy leaves it: no agent takes it, the next copy begins anew.
    shared_mariadb.sql(f"INSERT INTO {database}.meta VALUES ('copying', '1')")
    refused = subprocess.run([binary(), "agent", "--config", second.config_path], capture_output=True, text=True,
                             timeout=60, check=False)
    assert refused.returncode == 1 and "was not finished" in refused.stderr, refused
    shared_mariadb.sql(f"CREATE TRIGGER {database}.liar BEFORE INSERT ON {database}.jobs FOR EACH ROW SET NEW.version = 77")
    wrong = copy(raft(first), url, "--verify")
    assert wrong.returncode == 1 and "job default/j0 is not the same" in wrong.stderr, wrong
    assert "31 records differ" in wrong.stderr, wrong
    shared_mariadb.sql(f"DROP TRIGGER {database}.liar")
    moved = copy(raft(first), url, "--verify")
    assert moved.returncode == 0 and "verified: all records are the same" in moved.stdout, moved

    target = pathlib.Path(folder) / "third-data" / "raft"
    target.mkdir(parents=True)
    (target / "copy-unfinished").write_text("")
    (target / "copy-part").write_text("half a snapshot")
    back = copy(url, f"raft:{target}", "--verify")
    assert back.returncode == 0, back
    third = agents("third").start()
    assert picture(third) == before
    third.put("new", job(callee))
    third.kill9()
    done = subprocess.run([binary(), "store", "check", str(target)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "32 jobs" in done.stdout, done


def epochs(mariadb, database):
    return {row["slot"]: row["epoch"] for row in mariadb.sql(f"SELECT slot, epoch FROM {database}.slots")}


def pending(agent):
    """The fire that waits for its next attempt, as it is told."""
    return agent.fires("waits")


def test_a_database_moves_into_a_cluster_of_voters_and_out_again(agents, raft_cluster, callee, shared_mariadb, folder):
    """With what waits and what is dead, and with epochs that never go back."""
    database = f"copy_{pathlib.Path(folder).name[-8:]}".replace("-", "_")
    url, out = (f"mysql://root@127.0.0.1:{shared_mariadb.port}/{database}{end}" for end in ("", "_out"))
    mysql = {"host": "127.0.0.1", "port": shared_mariadb.port, "user": "root", "database": database}
    cluster = raft_cluster
    shared_mariadb.sql(f"CREATE DATABASE {database}")
    first = Agent("first", folder, {"store": {"driver": "mysql", "mysql": mysql}, "cluster": {"name": cluster.name}}).start()
    fill(first, callee)
    before, waits = picture(first), pending(first)
    voters = [cluster.agent() for _ in range(3)]
    busy = copy(url, f"raft:{folder_of(voters[0])}")
    assert busy.returncode == 1 and "an agent is alive" in busy.stderr, busy
    first.term()
    was = epochs(shared_mariadb, database)

    moved = copy(url, f"raft:{folder_of(voters[0])}", "--verify", "--json")
    assert moved.returncode == 0 and json.loads(moved.stdout)["verified"], moved
    voters[0].start(timeout=60)
    back(cluster, voters[1:])
    wait_until(lambda: cluster.voters() == {a.name: "voter" for a in voters}, 60, "all vote")
    for agent in voters:
        assert picture(agent) == before and pending(agent) == waits
    for source, target in ((f"raft:{folder_of(voters[1])}", out), (url, f"raft:{folder_of(voters[2])}")):
        busy = copy(source, target)
        assert busy.returncode == 1 and "in use by another agent" in busy.stderr, busy

    for agent in voters:
        agent.process.signal(signal.SIGKILL)  # all at once: no voter gives its place away
    for agent in voters:
        agent.process.wait(20)
    moved = copy(f"raft:{folder_of(voters[1])}", out, "--verify", "--json")
    assert moved.returncode == 0 and json.loads(moved.stdout)["verified"], moved
    now = epochs(shared_mariadb, f"{database}_out")
    assert set(now) == set(was) and all(now[slot] > was[slot] for slot in was), "an epoch went back"
    last = agents("last", driver="mysql", mysql={**mysql, "database": f"{database}_out"})
    last.config["cluster"] = {"name": cluster.name}
    last.start()
    assert picture(last) == before and pending(last) == waits


def test_stores_are_named_right(folder):
    for code, args, text in ((3, (f"raft:{folder}/none", f"raft:{folder}/x"), "No such file"),
                             (2, ("file:x", f"raft:{folder}/x"), "neither raft:DIR nor mysql://"),
                             (2, ("mysql://root:secret@127.0.0.1/x", f"raft:{folder}/x"), "can be seen by others"),
                             (2, (f"raft:{folder}/x", f"raft:{folder}/x"), "the same store")):
        done = copy(*args)
        assert done.returncode == code and text in done.stderr, done
