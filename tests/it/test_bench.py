"""The programs of the benchmark (tests/bench) do what they say, on a few hundred requests; what is fast is not asked here."""
import json
import os
import pathlib
import subprocess

import pytest
import requests

from lib.procs import SLACK, Process, can_connect, free_ports, wait_until

PROGRAMS = pathlib.Path(os.environ.get("CARILLON_BENCH", pathlib.Path(__file__).parents[2] / "build/tests/bench"))


def run(name, *args):
    done = subprocess.run([PROGRAMS / name, *map(str, args)], capture_output=True, text=True, timeout=30 * SLACK, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def sink(folder):
    """The callee's port."""
    [port] = free_ports(1)
    process = Process("bench-callee", [PROGRAMS / "callee", "--port", port], folder).start()
    wait_until(lambda: can_connect(port), 10, "callee", alive=[process])
    yield port
    process.end(grace=0.5)


def test_the_callee_counts_what_the_generators_send(sink):
    def ask(path):
        return requests.get(f"http://127.0.0.1:{sink}{path}", timeout=30 * SLACK)

    posts = run("limit_http", "--port", sink, "--requests", 300, "--in-flight", 7)
    assert posts["ms"]["count"] == 300
    puts = run("load", "--port", sink, "--connections", 5, "--requests", 201, "--path", "/a-{n}", "--body", '{"n":{n}}')
    assert (puts["ms"]["count"], puts["failed"]) == (201, 0)
    assert ask("/count").json() == {"count": 501}
    stats = ask("/stats").json()
    assert (stats["count"], stats["repeats"], stats["late_ms"]["count"]) == (501, 0, 501)
    lines = ask("/log").text.splitlines()
    assert len(lines) == 501
    assert sum(line.split()[2:] == ["bench-0000001", "1", "1795000000"] for line in lines) == 300
    ask("/reset")
    assert ask("/count").json() == {"count": 0}


def test_the_generator_makes_jobs_and_counts_refusals(three):
    body = '{"schedule":"@after 1d","callback":{"http":{"service":"b","path":"/b"}},"payload":{"n":{n}}}'
    args = ("--port", three[0].api_port, "--connections", 3, "--requests", 40, "--path", "/v1/jobs/bench-{n}")
    assert run("load", *args, "--body", body)["failed"] == 0
    assert sorted(job["payload"]["n"] for job in three[0].list(prefix="bench-")) == list(range(40))
    refused = subprocess.run([PROGRAMS / "load", *map(str, args), "--body", "{}"], capture_output=True, text=True,
                             timeout=30 * SLACK, check=False)
    assert refused.returncode == 1
    told = json.loads(refused.stdout)
    assert told["failed"] == 40 and "invalid_job" in told["first_failure"]
    three[0].ask("DELETE", "/v1/jobs?prefix=bench-", 200)


def test_the_limits_of_database_and_log_are_measured(shared_mariadb, folder):
    shared_mariadb.create("bench_bare")
    rows = run("limit_mysql", "--socket", shared_mariadb.socket, "--user", "root", "--database", "bench_bare", "--rows", 400,
               "--batch", 100, "--seconds", 1)
    assert rows["inserts_per_s"] > 0 and rows["updates_per_s"] > 0
    log = folder / "log"
    log.mkdir()
    appends = run("limit_raft", "--dir", log, "--in-flight", 4, "--bytes", 200, "--seconds", 1)
    assert appends["ms"]["count"] > 0 and appends["entries_per_s"] > 0
