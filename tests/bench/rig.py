"""What the scenarios run on: the real program with one of the stores, the callee, the generators."""
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

import requests

from lib import procs
from lib.carillon import Agent
from lib.procs import Process, can_connect, free_ports, make_folder, wait_until

from machine import Meter

TOOLS = pathlib.Path(os.environ["CARILLON_BENCH"])
CALLBACK = {"http": {"service": "bench", "path": "/fire"}, "timeout": "30s"}


class BenchError(Exception):
    """A scenario that has no result; the others go on."""


def run_tool(name, timeout=300, **options):
    """One of the C programs; its line of JSON."""
    argv = [str(TOOLS / name)]
    for key, value in options.items():
        argv += [f"--{key.replace('_', '-')}", str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise BenchError(f"{name}: {done.stderr.strip()} {done.stdout.strip()[:400]}")
    return json.loads(done.stdout)


class GrpcCallee:
    """callee_grpc.c as a process."""

    def __init__(self, folder):
        [self.port] = free_ports(1)
        self.process = Process("callee-grpc", [TOOLS / "callee_grpc", "--port", self.port], folder)

    def start(self):
        self.process.start()
        wait_until(lambda: can_connect(self.port), 10, "gRPC callee", alive=[self.process])


class FastCallee:
    """callee.c as a process."""

    def __init__(self, folder):
        [self.port] = free_ports(1)
        self.process = Process("callee", [TOOLS / "callee", "--port", self.port], folder)
        self.web = requests.Session()

    def start(self):
        self.process.start()
        wait_until(lambda: can_connect(self.port), 10, "callee", alive=[self.process])
        return self

    def _ask(self, path):
        return self.web.get(f"http://127.0.0.1:{self.port}{path}", timeout=60)

    def reset(self):
        self._ask("/reset")

    def count(self):
        return self._ask("/count").json()["count"]

    def stats(self):
        return self._ask("/stats").json()

    def log(self):
        """[(arrival on time.monotonic(), due as Unix seconds, job, attempt, epoch)]"""
        rows = (line.split() for line in self._ask("/log").text.splitlines())
        return [(int(at) / 1e6, int(due) / 1e3, job, int(attempt), int(epoch)) for at, due, job, attempt, epoch in rows]

    def wait_for(self, count, seconds):
        """True when COUNT have come; asks rarely, as each question takes time from the callee."""
        end = time.monotonic() + seconds
        while self.count() < count:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


class Rig:
    """One agent, standalone, with an empty store. `with Rig(...) as rig`."""

    def __init__(self, store, mariadb, name):
        self.store, self.mariadb = store, mariadb
        self.folder = make_folder("carillon-bench-")
        self.callee, self.grpc = FastCallee(self.folder), GrpcCallee(self.folder)
        config = {"services": {"bench": {"endpoints": [f"127.0.0.1:{self.callee.port}"]},
                               "bench-grpc": {"endpoints": [f"127.0.0.1:{self.grpc.port}"]}}, "store": {"driver": store}}
        if store == "mysql":
            database = mariadb.create(f"bench_{name}")
            secret = self.folder / "mysql.secret"
            secret.write_text(database["password"] + "\n")
            secret.chmod(0o600)
            config["store"]["mysql"] = {"host": "127.0.0.1", "port": mariadb.port, "user": database["user"],
                                        "password_file": str(secret), "database": database["database"]}
        self.database = f"bench_{name}"
        self.agent = Agent("bench", self.folder, config)

    def __enter__(self):
        self.callee.start()
        self.agent.start()
        return self

    def __exit__(self, *_):
        self.agent.process.end(grace=1)
        self.callee.process.end(grace=0.1)
        self.grpc.process.end(grace=0.1)
        if self.store == "mysql":
            self.mariadb.sql(f"DROP DATABASE {self.database}")
        if not os.environ.get("CARILLON_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def meter(self, callee=None):
        processes = {"agent": self.agent.process.pid, "callee": (callee or self.callee).process.pid}
        if self.store == "mysql":
            processes["mariadb"] = self.mariadb.process.pid
        return Meter(processes)

    def load(self, connections, count, name):
        """Submit COUNT jobs that are due tomorrow, each by a PUT of its own."""
        body = {"schedule": "@after 1d", "callback": CALLBACK, "payload": {"n": "{n}"}}
        return run_tool("load", port=self.agent.api_port, connections=connections, requests=count,
                        path="/v1/jobs/" + name + "-{n}", body=json.dumps(body))

    def bulk(self, name, schedules, callback=None, **rest):
        """Jobs NAME-0, NAME-1 …, one for each of SCHEDULES ({field: value}). Seconds that it took."""
        callback = json.dumps(callback or CALLBACK)
        more = "".join(f",{json.dumps(k)}:{json.dumps(v)}" for k, v in rest.items())
        count, took = 0, 0.0
        for part in _parts(schedules, 100_000):
            lines = [f'{{"op":"create","id":"{name}-{count + i}","job":{{{json.dumps(schedule)[1:-1]},"callback":{callback},'
                     f'"payload":{{"n":{count + i}}}{more}}}}}\n' for i, schedule in enumerate(part)]
            body = "".join(lines).encode()
            began = time.monotonic()
            answer = self.agent.web.post(f"{self.agent.url}/v1/bulk", data=body, timeout=600,
                                         headers={"Content-Type": "application/x-ndjson"})
            took += time.monotonic() - began
            count += len(lines)
            last = answer.text.rstrip("\n").rsplit("\n", 1)[-1]
            if last != f'{{"done":true,"ok":{len(lines)},"failed":0}}':
                raise BenchError(f"bulk: {answer.status_code} {last[:300]}")
        return took

    def delete(self, name):
        self.agent.ask("DELETE", f"/v1/jobs?prefix={name}-", 200, timeout=120)

    def raft_mib(self):
        files = pathlib.Path(self.agent.folder).glob("**/raft/*")
        return sum(f.stat().st_size for f in files if f.is_file()) / (1 << 20)

    def wait_for_snapshots(self, since, count, seconds):
        """[(begin, end, bytes)] of the COUNT snapshots that the agent began to write after SINCE, as it tells in its log."""
        end = time.monotonic() + seconds
        while True:
            found = [s for s in self._snapshots() if s[0] >= since]
            if len(found) >= count:
                return found
            if time.monotonic() > end:
                raise BenchError(f"only {len(found)} snapshots in {seconds} s")
            time.sleep(0.5)

    def _snapshots(self):
        pattern = r'^ts=(\S+) .*msg="a snapshot was written" bytes=(\d+) took_ms=(\d+)'
        for at, size, took_ms in re.findall(pattern, self.agent.process.log_text(), re.M):
            end = datetime.datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
            yield end - int(took_ms) / 1e3, end, int(size)

    def lateness(self):
        """[(seconds, fires so late or less)] since the agent's start, in its own words."""
        found = {}
        for sample, value in self.agent.metrics().items():
            if sample.startswith("carillon_fire_lateness_seconds_bucket"):
                found[float(sample.split('le="')[1].split('"')[0])] = value
        return sorted(found.items())

    def stages(self):
        """{stage: (sum of seconds, count)} of carillon_fire_stage_seconds, in its own words."""
        result = {}
        for sample, value in self.agent.metrics().items():
            if sample.startswith(("carillon_fire_stage_seconds_sum", "carillon_fire_stage_seconds_count")):
                stage = sample.split('stage="')[1].split('"')[0]
                pair = result.setdefault(stage, [0.0, 0.0])
                pair["_count{" in sample] = value
        return result


def _parts(items, size):
    part = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def instant(seconds):
    """RFC 3339 with milliseconds."""
    ms = round(seconds * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}Z"


def end_all():
    procs.end_all()
