"""From one version of the store to the next: agents of both at once, replaced one by one while jobs fire. The version before is the same
program with the statements and records of that version (`carillon-1`, see Makefile), or the one that CARILLON_BEFORE names."""
import os
import pathlib

import pytest

from lib.carillon import binary
from lib.load import Load
from lib.procs import wait_until

STORES = ("mysql", "raft")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def before():
    path = pathlib.Path(os.environ.get("CARILLON_BEFORE") or pathlib.Path(os.environ["CARILLON_TOOLS"]) / "carillon-1")
    assert path.exists(), f"no {path}: run `make {path}`"
    return path


def runs(agent, program):
    agent.process.argv[0] = str(program)
    return agent


def start_all(cluster, count, program):
    agents = [runs(cluster.agent(), program).start(wait=False) for _ in range(count)]
    for agent in agents:
        agent.wait_ready(60)
    cluster.wait_settled(60)
    return agents


def restart(agent, program):
    agent.term()
    return runs(agent, program).start(60)


def job(service, **more):
    return {"schedule": "0 9 1 1 *", "callback": {"http": {"service": service, "path": "/run"}}, "retry": {"min_backoff": "50ms"}, **more}


def write_and_read(agents, service, turn):
    """What each writes all others read, change and run."""
    for agent in agents:
        agent.put(f"x-{turn}-{agent.name}", job(service, payload={"by": agent.name}))
    for writer in agents:
        job_id = f"x-{turn}-{writer.name}"
        assert all(a.get(job_id)["payload"] == {"by": writer.name} for a in agents)
    for writer, other in zip(agents, agents[1:] + agents[:1]):
        job_id = f"x-{turn}-{writer.name}"
        assert other.patch(job_id, {"description": f"by {other.name}"})["status"]["version"] == 2
        fire = other.ask("POST", f"/v1/jobs/{job_id}/run", 202, headers={"traceparent": PARENT})["fire"]
        wait_until(lambda f=fire: writer.ask("GET", f"/v1/fires/{f}", 200)["outcome"] == "succeeded", 60, f"fire {fire}")


def run_in_trace(agent, callee, service, job_id, times):
    """Its callbacks, TIMES of which fail, belong to the trace that asked for it."""
    agent.put(job_id, job(service))
    if times:
        callee.behave({"path": "/run", "times": times, "status": 503})
    fire = agent.ask("POST", f"/v1/jobs/{job_id}/run", 202, headers={"traceparent": PARENT, "tracestate": "a=1"})["fire"]

    def records():
        return [r for r in callee.records() if r["headers"]["ce-id"] == fire]

    wait_until(lambda: len(records()) > times, 60, f"callbacks of {fire}")
    return [r["headers"].get("tracestate") for r in records()]


@pytest.mark.every_store
def test_agents_are_replaced_one_by_one_by_the_next_version(cluster, store, callee, callees, service):
    agents = start_all(cluster, 3, before())
    agents[0].put("kept", job(service, labels={"made": "before"}))
    load = Load(cluster, callees(), "up", 60).begin(agents[0])
    for turn, agent in enumerate(agents):
        restart(agent, binary())
        if turn == 0 and store == "mysql":
            restart(agents[2], before())  # one that dies meanwhile comes back, whatever the tables are now
        write_and_read(agents, service, turn)
    cluster.wait_settled(60)
    wait_until(lambda: agents[0].cluster()["store"]["version"] == 2, 60, "version 2 everywhere")
    wait_until(lambda: run_in_trace(agents[0], callee, service, "traced", 1) == [f"carillon={PARENT},a=1"] * 2, 60, "the run's trace")
    assert agents[1].get("kept")["labels"] == {"made": "before"}
    load.finish(agents[1], repeats_allowed=False, settle=1)
    late = runs(cluster.agent(), before())
    late.start(60, wait=store == "mysql")  # back to the version before: the tables allow it ...
    if store == "raft":                    # ... the log does not, and says why
        assert late.process.wait(60) not in (0, None)
        assert "newer carillon" in late.process.log_tail()
