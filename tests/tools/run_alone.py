#!/usr/bin/env python3
"""`make run`: one agent without any server, its jobs in a folder of its own, and a demo service, to try it out.

Prints a line for each callback until Ctrl-C, which ends both and removes every file; with --dir the jobs stay there.
"""
import argparse
import pathlib
import signal
import sys

from run_cluster import API_PORTS, JOBS, SERVICE, Sink, follow, interrupt, listen_on

# pylint: disable=wrong-import-position,wrong-import-order
from lib import procs  # noqa: E402  (run_cluster says where lib is)
from lib.carillon import Agent, binary  # noqa: E402


def start(folder, data_dir):
    sink = Sink("demo", folder)
    agent = Agent("alone", folder, {"app": {"port": sink.port},
                                     "services": {SERVICE: {"endpoints": [f"127.0.0.1:{sink.port}"]}}})
    if data_dir:
        agent.config["agent"]["data_dir"] = data_dir
    listen_on(agent, API_PORTS[0])
    agent.start()
    for job_id, job in JOBS.items():
        agent.put(job_id, {**job, "callback": {"http": {"service": SERVICE, "path": f"/{job_id}"}}})
    return agent, sink


def explain(agent):
    program = binary()
    if program.is_relative_to(pathlib.Path.cwd()):
        program = program.relative_to(pathlib.Path.cwd())
    address = "" if agent.api_port == API_PORTS[0] else f"CARILLON_ADDR={agent.address} "
    print(f"""agent   {agent.url}  pid {agent.process.pid}
folder  {agent.config['agent']['data_dir']}
logs    {agent.folder}
pages   {agent.url}/ui/

Try in another terminal:
  {address}{program} in 5s --id tea --path /tea --data '{{"tea":"ready"}}'
  {address}{program} job list
Ctrl-C ends everything.
""", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0, help="end by itself after so long")
    parser.add_argument("--dir", help="keep the jobs here")
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        agent, sink = start(procs.make_folder("carillon-demo-"), args.dir)
        explain(agent)
        follow([sink], args.seconds)
    except KeyboardInterrupt:
        pass
    except procs.NotReady as e:
        print(f"run: {e}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\nending …", flush=True)
        procs.end_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
