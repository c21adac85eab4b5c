#!/usr/bin/env python3
"""`make run-cluster`: a real Consul, a real MariaDB, three agents and two instances of a demo service, to try it out.

Prints a line for each callback until Ctrl-C, which ends every process and removes every file.
"""
import argparse
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "it"))
# pylint: disable=wrong-import-position
from lib import procs  # noqa: E402
from lib.carillon import Cluster, binary  # noqa: E402
from lib.consul import Consul  # noqa: E402
from lib.mariadb import MariaDB  # noqa: E402

SERVICE = "demo"
# Agent a stands where every command looks by itself; ports that somebody uses already are replaced by free ones.
API_PORTS = (7420, 7430, 7440)
JOBS = {
    "hello": {"schedule": "@every 2s", "payload": {"hello": "world"}},
    "every-five-seconds": {"schedule": "*/5 * * * * *", "timezone": "Europe/Berlin"},
    "once": {"schedule": "@after 8s", "payload": {"remember": "the milk"}},
}


class Sink:
    """An instance of the demo service: `carillon sink`, and what it printed since the last look."""

    def __init__(self, name, folder):
        self.name = name
        [self.port] = procs.free_ports(1)
        self.process = procs.Process(name, [binary(), "sink", "--listen", f"127.0.0.1:{self.port}"], folder)
        self.process.start()
        procs.wait_until(lambda: procs.can_connect(self.port), 10, f"{name} ready", alive=[self.process])
        self.output = open(self.process.log_path, encoding="utf-8",  # pylint: disable=consider-using-with
                           errors="replace")

    def new_lines(self):
        """Whole lines only: one that is being written waits for its end."""
        while True:
            place = self.output.tell()
            line = self.output.readline()
            if not line.endswith("\n"):
                self.output.seek(place)
                return
            if line.startswith("callback "):
                yield f"{self.name}  {line.rstrip()}"


def listen_on(agent, port):
    """Let AGENT serve its API on PORT if nobody else does."""
    if procs.can_connect(port):
        return
    agent.api_port, agent.address, agent.url = port, f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"
    agent.config["api"]["listen"] = [agent.address]


def start(folder):
    print("starting Consul and MariaDB …", flush=True)
    consul, mariadb = Consul(folder=folder), MariaDB(folder=folder)
    consul.process.start()
    mariadb.start()
    consul.wait_ready()
    sinks = [Sink(f"demo-{i}", folder) for i in (1, 2)]
    for sink in sinks:
        consul.register(SERVICE, sink.port, instance=sink.name, check={
            "TCP": f"127.0.0.1:{sink.port}", "Interval": "1s", "Status": "passing",
            "DeregisterCriticalServiceAfter": "1m"})
    print("starting three agents …", flush=True)
    cluster = Cluster(consul, mariadb, name="demo", folder=folder, config={"app": {"service": SERVICE}})
    agents = [cluster.agent() for _ in API_PORTS]
    for agent, port in zip(agents, API_PORTS):
        listen_on(agent, port)
        agent.start(wait=False)
    for agent in agents:
        agent.wait_ready()
    cluster.wait_settled()
    for i, (job_id, job) in enumerate(JOBS.items()):
        callback = {"http": {"service": SERVICE, "path": f"/{job_id}"}}
        cluster.agents[i % 3].put(job_id, {**job, "callback": callback})
    return consul, cluster, sinks


def explain(consul, cluster, folder):
    first, second = cluster.agents[0], cluster.agents[1]
    program = binary()
    if program.is_relative_to(pathlib.Path.cwd()):
        program = program.relative_to(pathlib.Path.cwd())
    address = "" if first.api_port == API_PORTS[0] else f"CARILLON_ADDR={first.address} "
    print()
    for agent in cluster.agents:
        print(f"agent {agent.name}  {agent.url}  pid {agent.process.pid}")
    print(f"""consul   {consul.url}
logs     {folder}
pages    {first.url}/ui/

Try in another terminal:
  {address}{program} in 5s --id tea --path /tea --data '{{"tea":"ready"}}'
  kill -9 {second.process.pid}     # agent {second.name}: the others take its jobs, nothing is lost
Ctrl-C ends everything.
""", flush=True)


def follow(sinks, seconds):
    end = time.monotonic() + seconds if seconds else None
    while end is None or time.monotonic() < end:
        for sink in sinks:
            for line in sink.new_lines():
                print(line, flush=True)
        time.sleep(0.05)


def interrupt(_number, _frame):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0, help="end by itself after so long")
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    folder = procs.make_folder("carillon-demo-")
    try:
        consul, cluster, sinks = start(folder)
        explain(consul, cluster, folder)
        follow(sinks, args.seconds)
    except KeyboardInterrupt:
        pass
    except procs.NotReady as e:
        print(f"run-cluster: {e}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\nending …", flush=True)
        procs.end_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
