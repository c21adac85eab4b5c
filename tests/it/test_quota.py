"""How many jobs a namespace may have."""
import itertools
import json
import signal

import pytest
import yaml
from lib.carillon import Agent
from lib.procs import wait_until

JOB = {"schedule": "0 9 1 1 *", "callback": {"http": {"url": "http://10.9.9.9:1/x"}}}


def put(agent, job_id, ns, **changes):
    return agent.call("PUT", f"/v1/jobs/{job_id}", params={"ns": ns}, json={**JOB, **changes})


def refused(answer):
    assert answer.headers["Content-Type"] == "application/problem+json" and int(answer.headers["Retry-After"]) >= 1
    return answer.json()


@pytest.fixture
def agent(folder):
    made = Agent("quota", folder, {"schedule": {"max_jobs_of": ["team-b=3", "third=5", "*=5"]}})
    made.start(60)
    yield made
    made.end()


def test_a_namespace_has_as_many_jobs_as_it_may(agent):
    assert [put(agent, f"j{n}", "team-b").status_code for n in range(3)] == [201] * 3
    answer = put(agent, "j3", "team-b")
    assert answer.status_code == 429
    problem = refused(answer)
    assert problem["code"] == "quota_exceeded" and "namespace 'team-b' has 3 jobs" in problem["detail"]
    assert put(agent, "j1", "team-b", description="changed").status_code == 200
    assert agent.call("POST", "/v1/jobs", params={"ns": "team-b"}, json=JOB).status_code == 429
    body = "".join(json.dumps({"op": "put", "namespace": ns, "id": "b", "job": JOB}) + "\n" for ns in ["team-b", "other"])
    answer = agent.call("POST", "/v1/bulk", data=body, headers={"Content-Type": "application/x-ndjson"})
    lines = [json.loads(line) for line in answer.text.splitlines()][:2]
    assert [line["status"] for line in lines] == [429, 201]
    assert lines[0]["problem"]["code"] == "quota_exceeded"
    agent.delete("j0", ns="team-b")
    assert put(agent, "j3", "team-b").status_code == 201 and put(agent, "j4", "team-b").status_code == 429
    agent.term()
    agent.start(60)
    ids = itertools.count()
    wait_until(lambda: put(agent, f"r{next(ids)}", "team-b").status_code == 429, 60, "counted again after a restart")


def test_a_limit_changes_by_a_reload(agent):
    assert [put(agent, f"j{n}", "third").status_code for n in range(6)] == [201] * 5 + [429]
    agent.config["schedule"] = {"max_jobs_of": ["third=6"], "max_jobs": 8}
    agent.config_path.write_text(yaml.safe_dump(agent.config))
    agent.process.signal(signal.SIGHUP)
    wait_until(lambda: put(agent, "j5", "third").status_code in (200, 201), 60, "there is room for one more")
    ids = itertools.count()
    wait_until(lambda: put(agent, f"k{next(ids)}", "third").status_code == 429, 60, "and no more")
    answer = wait_until(lambda: (a := put(agent, f"l{next(ids)}", "free")).status_code == 429 and [a], 60, "nor over all")
    assert "there are 8 jobs" in refused(answer[0])["detail"]


def test_members_count_what_others_made(clusters, shared_consul, shared_mariadb):
    cluster = clusters(shared_consul, shared_mariadb, config={"schedule": {"max_jobs_of": ["team-b=10"]}})
    agents = cluster.start(2)
    ids, made = itertools.count(), []

    def make():
        n = next(ids)  # each owns half of the names
        made.extend([n] * (put(agents[n % 2], f"j{n}", "team-b").status_code == 201))
        return len(made) == 10

    wait_until(make, 60, "there is room for ten")
    wait_until(lambda: all(put(agents[n % 2], f"k{next(ids)}", "team-b").status_code == 429 for n in range(8)), 60, "both are full")
    agents[0].ask("DELETE", "/v1/jobs", 200, params={"ns": "team-b", "all": "true"})
    wait_until(lambda: all(put(agents[n % 2], f"l{n}", "team-b").status_code in (200, 201) for n in range(4)), 60, "there is room again")
