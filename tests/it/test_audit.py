"""The audit: silent while all is well, and whatever somebody does to the rows behind the agents' backs is found."""
import subprocess
import time

from lib.carillon import binary
from lib.load import Load
from lib.procs import wait_until


def audit(agent, *args):
    """(exit code, output) of `carillon audit`."""
    done = subprocess.run([binary(), "audit", "--addr", agent.url, *args], capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def differences(agent):
    return {d["job"]: d for d in agent.ask("GET", "/v1/audit?ns=*", 200, timeout=60)["differences"]}


def test_audit_finds_what_was_tampered_with(clusters, shared_consul, shared_mariadb, callee):
    cluster = clusters(shared_consul, shared_mariadb, config={"audit": {"every": "1s"}})
    a, b = cluster.start(2)
    load = Load(cluster, callee, "audit", 40).begin(a)
    for job in ({"id": "hourly", "schedule": "@every 1h"}, {"id": "yearly", "schedule": "0 0 1 1 *", "timezone": "Europe/Berlin"},
                {"id": "once", "schedule": "@after 1d"}, {"id": "steady", "schedule": "@every 1s"},
                {"id": "ended", "schedule": "@every 1s"}):
        a.create({**job, "callback": {"http": {"service": load.service, "path": "/x"}}})
    wait_until(lambda: all(b.get(j)["status"]["counts"]["succeeded"] >= 4 for j in ("steady", "ended")), 20, "fires")
    for job in ("steady", "ended"):  # nothing of theirs is in memory for the next hours, so that their rows stay as we make them
        a.ask("POST", f"/v1/jobs/{job}/pause", 200)
    code, text = audit(b)
    assert code == 0 and "0 differ" in text, text
    assert differences(a) == {}

    # Dues that nobody fired: the next one is put off, as if those before had been.
    cluster.sql("UPDATE jobs SET due_ms = due_ms + 4321 WHERE id = 'hourly'")
    cluster.sql("UPDATE jobs SET due_ms = due_ms + 3600000, updated_ms = created_ms, rev = rev + 1 WHERE id = 'steady'")
    # A fire that is counted and recorded nowhere; ends that never were fires.
    cluster.sql("UPDATE jobs SET seq = seq + 1, rev = rev + 1 WHERE id = 'ended'")
    cluster.sql("UPDATE jobs SET skipped = skipped + 2, rev = rev + 1 WHERE id = 'once'")
    found = differences(a)
    assert {k: d["kind"] for k, d in found.items()} == {
        "hourly": "wrong_due", "steady": "lost_dues", "ended": "pending", "once": "counts"}, found
    assert found["steady"]["count"] > 900, found["steady"]
    code, text = audit(b, "--all-namespaces")
    assert code == 1 and "4 differ" in text and "lost_dues" in text, (code, text)

    # The background round of whoever owns the first slot tells the same, by metric and by log.
    wait_until(lambda: sum(agent.metric("carillon_audit_differences") for agent in (a, b)) == 4, 60, "the metric")
    lines = [line for agent in (a, b) for line in agent.process.log_text().splitlines() if "not what its schedule says" in line]
    assert any("id=steady" in line and "kind=lost_dues" in line for line in lines), lines[:5]
    for job in ("hourly", "steady", "ended", "once"):
        cluster.sql("DELETE FROM jobs WHERE id = %s", (job,))
    wait_until(lambda: differences(a) == {}, 20, "nothing differs any more")


def test_audit_is_silent_while_agents_die(cluster, callee):
    a, b, c = cluster.start(3)
    callee.behave({"times": 60, "status": 500}, {"times": 40, "delay": [0.5, 3.0]})
    load = Load(cluster, callee, "calm", 120, job={"retry": {"min_backoff": "100ms", "max_backoff": "1s"}}).begin(a)
    end = time.monotonic() + 8
    c.kill9()
    while time.monotonic() < end:
        found = {k: d for k, d in differences(a).items() if d["kind"] != "overdue"}
        assert found == {}, found
    c.start()
    load.finish(b)
    assert {k: d for k, d in differences(b).items() if d["kind"] != "overdue"} == {}
