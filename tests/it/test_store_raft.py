"""One agent with nothing else: its store is a log in a folder of its own. It is killed at random moments while jobs are
written, fire and are deleted, and while snapshots are written; what it had answered must be there afterwards.

RAFT_KILL_ROUNDS=200 makes more of it."""
import json
import os
import pathlib
import random
import subprocess
import threading
import time

import pytest
import requests

from lib.carillon import Agent, binary
from lib.oracle import Verdict
from lib.procs import wait_until

ROUNDS = int(os.environ.get("RAFT_KILL_ROUNDS", "10"))


@pytest.fixture
def alone(folder):
    """A standalone agent, not started, that writes a snapshot every few dozen writes."""
    agent = Agent("alone", folder, {"store": {"raft": {"snapshot_entries": 40}}})
    yield agent
    agent.end()


def job(callee, schedule="@every 1s", **rest):
    return {"schedule": schedule, "callback": {"http": {"url": callee.url("/x")}}, **rest}


class Hand:
    """Somebody who creates, changes and deletes jobs without end, and remembers what was answered."""

    def __init__(self, agent, callee, name):
        self.agent, self.callee, self.name = agent, callee, name
        self.there, self.gone, self.unsure = {}, set(), set()
        self.web = requests.Session()
        self.web.headers["Carillon-Client"] = "it"
        self.count = 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def ask(self, method, job_id, body=None):
        """The status, or None when there was no answer."""
        try:
            answer = self.web.request(method, f"{self.agent.url}/v1/jobs/{job_id}", json=body, timeout=10)
            return answer.status_code
        except requests.RequestException:
            time.sleep(0.02)
            return None

    def step(self):
        known = sorted(set(self.there) - self.unsure)
        if known and random.random() < 0.4:
            job_id = random.choice(known)
            method = random.choice(("DELETE", "PUT"))
        else:
            self.count += 1
            job_id, method = f"{self.name}-{self.count}", "PUT"
        body = job(self.callee, "@hourly", description=f"{random.random()}") if method == "PUT" else None
        self.unsure.add(job_id)
        status = self.ask(method, job_id, body)
        if status is None or status >= 500:
            return  # the outcome is not known, now and for ever
        assert status in (200, 201), status
        self.unsure.discard(job_id)
        if method == "PUT":
            self.there[job_id] = body["description"]
        else:
            del self.there[job_id]
            self.gone.add(job_id)

    def work(self):
        while not self.stopped.is_set():
            self.step()

    def finish(self):
        self.stopped.set()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def check(self):
        present = {j["id"]: j["description"] for j in self.agent.list(prefix=f"{self.name}-", limit=1000)}
        sure = {i: d for i, d in self.there.items() if i not in self.unsure}
        lost = {i for i, d in sure.items() if present.get(i) != d}
        back = {i for i in self.gone - self.unsure if i in present}
        assert not lost and not back, f"lost or not as written: {sorted(lost)[:5]}, deleted but there: {sorted(back)[:5]}"


def test_kill9_at_any_moment_loses_nothing(alone, callee):
    alone.start()
    ticking = [f"tick-{i}" for i in range(20)]
    for name in ticking:
        alone.put(name, job(callee))
    hands = [Hand(alone, callee, f"hand{i}") for i in range(3)]
    for hand in hands:
        hand.thread.start()
    downs = []
    for _ in range(ROUNDS):
        time.sleep(random.uniform(0.05, 1.2))
        began = time.monotonic()
        alone.kill9()
        alone.start()
        downs.append(time.monotonic() - began)
    for hand in hands:
        hand.finish()
    for hand in hands:
        hand.check()
    wait_until(lambda: all(alone.get(t)["status"]["counts"]["succeeded"] >= ROUNDS // 2 for t in ticking), 60, "all tick")
    counts = {t: alone.get(t)["status"]["counts"] for t in ticking}
    verdict = Verdict(callee.records(), ticking).check().report(f"{ROUNDS} times killed")
    fires = {}
    for delivery in verdict.firsts():
        fires.setdefault(delivery.job, set()).add(delivery.seq)
    for name, count in counts.items():
        assert count["dead"] == 0 and set(range(1, count["succeeded"] + 1)) <= fires[name], (name, count)
    print(f"{sum(len(h.there) for h in hands)} jobs; kill to ready again: {min(downs):.2f} to {max(downs):.2f} s")
    alone.term()


def test_a_second_agent_on_the_folder_is_refused(alone, folder, callee):
    alone.start()
    alone.put("a", job(callee))
    done = subprocess.run([binary(), "agent", "--set", "api.listen=127.0.0.1:0", "--set",
                           f"agent.data_dir={alone.config['agent']['data_dir']}"],
                          cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "in use by another agent" in done.stderr and str(alone.process.pid) in done.stderr, done.stderr
    assert alone.get("a")
    alone.term()


def check(agent, *flags):
    return subprocess.run([binary(), "store", "check", str(pathlib.Path(agent.config["agent"]["data_dir"]) / "raft"), *flags],
                          capture_output=True, text=True, timeout=60, check=False)


def test_the_folder_is_checked_offline(alone, callee):
    """While the agent runs, after kill -9, and after somebody changed a byte."""
    alone.start()
    for i in range(60):
        alone.put(f"c{i}", job(callee, "@hourly"))
    busy = check(alone)
    assert busy.returncode == 1 and "in use by another agent" in busy.stderr, busy
    alone.kill9()
    done = check(alone)
    assert done.returncode == 0 and "60 jobs" in done.stdout and done.stdout.endswith("ok\n"), done
    above = subprocess.run([binary(), "store", "check", alone.config["agent"]["data_dir"]], capture_output=True, text=True,
                           timeout=60, check=False)
    assert above.returncode == 0 and above.stdout == done.stdout, above
    whole = json.loads(check(alone, "--json").stdout)
    assert whole["ok"] and whole["jobs"] == 60 and whole["problems"] == [], whole
    folder = pathlib.Path(alone.config["agent"]["data_dir"]) / "raft"
    victim = next(f for f in sorted(folder.iterdir()) if f.name.startswith("snapshot-") and f.suffix != ".meta")
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    bad = check(alone)
    assert bad.returncode == 1 and victim.name in bad.stdout and "hint:" in bad.stderr, bad


def test_a_log_that_grew_becomes_a_snapshot_when_nothing_is_written(folder, callee):
    """Though the log is far shorter than what makes one necessary."""
    agent = Agent("quiet", folder)
    payload = "".join(random.choice("0123456789abcdef") for _ in range(4000))  # as good as incompressible
    agent.start()
    agent.bulk([{"op": "create", "id": f"q{i}", "job": job(callee, "@hourly", payload={"n": payload + str(i)})} for i in range(3000)])
    wait_until(lambda: "a snapshot was written" in agent.process.log_text(), 60, "snapshot")
    agent.end()


def test_no_configuration_is_needed(folder):
    """Its folder appears where it was started."""
    with subprocess.Popen([binary(), "agent", "--set", "api.listen=127.0.0.1:0"], cwd=folder, stderr=subprocess.PIPE, text=True) as agent:
        for line in agent.stderr:
            if "ready" in line:
                break
        agent.terminate()
        assert agent.wait(20) == 0
    assert (pathlib.Path(folder) / "carillon-data/raft/lock").exists()
