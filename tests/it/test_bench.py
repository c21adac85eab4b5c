"""The programs of the benchmark (tests/bench), and `carillon bench`, do what they say, on a few hundred requests; what is fast is not
asked here."""
import json
import os
import pathlib
import signal
import subprocess

import pytest
import requests

from lib.carillon import Agent, binary
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


def test_bare_grpc_calls_are_measured(folder):
    [port] = free_ports(1)
    process = Process("bench-callee-grpc", [PROGRAMS / "callee_grpc", "--port", port], folder).start()
    wait_until(lambda: can_connect(port), 10, "gRPC callee", alive=[process])
    calls = run("limit_grpc", "--port", port, "--requests", 300, "--in-flight", 7)
    assert calls["ms"]["count"] == 300 and calls["per_s"] > 0
    process.end(grace=0.5)


def test_the_limits_of_database_and_log_are_measured(shared_mariadb, folder):
    shared_mariadb.create("bench_bare")
    rows = run("limit_mysql", "--socket", shared_mariadb.socket, "--user", "root", "--database", "bench_bare", "--rows", 400,
               "--batch", 100, "--seconds", 1)
    assert rows["inserts_per_s"] > 0 and rows["updates_per_s"] > 0
    log = folder / "log"
    log.mkdir()
    appends = run("limit_raft", "--dir", log, "--in-flight", 4, "--bytes", 200, "--seconds", 1)
    assert appends["ms"]["count"] > 0 and appends["entries_per_s"] > 0


@pytest.fixture
def bench(folder):
    """bench("--jobs", "5") runs the command against an agent of its own; the agent is bench.agent."""
    agent = Agent("measured", folder).start()

    def start(*args):
        words = [binary(), "bench", "--addr", agent.address, *args]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run_it(*args):
        process = start("--duration", "2s", *args)
        out, err = process.communicate(timeout=60 * SLACK)
        return process.returncode, out, err

    run_it.agent, run_it.start = agent, start
    yield run_it
    agent.end()


def test_the_command_measures_an_agent_and_leaves_nothing(bench):
    code, out, err = bench("--jobs", "60", "--rate", "20", "--connections", "3", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["submit"]["jobs"], found["submit"]["connections"], found["bulk"]["jobs"]) == (60, 3, 60)
    assert (found["burst"]["fires"], found["burst"]["missing"], found["burst"]["repeats"]) == (60, 0, 0)
    steady = found["steady"]
    assert (steady["jobs"], steady["missing"], steady["repeats"], steady["early"]) == (20, 0, 0, 0)
    assert steady["per_second"] == 20
    for figures in (found["submit"]["ms"], found["burst"]["lateness_ms"], steady["lateness_ms"]):
        assert 0 < figures["p50"] <= figures["p99"] <= figures["p999"] <= figures["max"]
    assert bench.agent.list() == []


def test_the_command_prints_a_row_for_each_measurement(bench):
    code, out, _ = bench("--jobs", "10", "--rate", "5")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["submit", "bulk", "burst", "steady"]


def test_the_command_cleans_up_when_it_is_interrupted(bench):
    process = bench.start("--jobs", "10", "--rate", "5", "--duration", "1h")
    wait_until(lambda: bench.agent.list(prefix="bench-"), 30, "it has begun", alive=[], interval=0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60 * SLACK)
    assert (process.returncode, err) == (1, "carillon: interrupted\n")
    assert bench.agent.list() == []


def test_the_command_tells_why_an_agent_refuses(bench):
    code, _, err = bench("--ns", "Not-One")
    assert code == 2 and "Not-One" in err
    code, _, err = bench("--url", "ftp://127.0.0.1")
    assert code == 1 and "callback/http/url" in err
    bench.agent.end()
    code, _, err = bench()
    assert code == 4 and f"no agent reached at http://{bench.agent.address}: " in err and "carillon agent" in err
