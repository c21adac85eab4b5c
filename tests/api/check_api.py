#!/usr/bin/env python3
"""`make check-api`: schemathesis against a running agent and the openapi.yaml that it serves: each operation's edges, random requests, and
sequences of them along the links. Afterwards most operations have to have succeeded, and the agent has to be alive,
without a line of level error, with an audit that finds nothing, and has to end as it is told."""
import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/api"
sys.path.insert(0, str(ROOT / "tests/it"))
# pylint: disable=wrong-import-position
from lib import procs  # noqa: E402
from lib.callee import Callee  # noqa: E402
from lib.carillon import Agent, Cluster  # noqa: E402
from lib.consul import Consul  # noqa: E402
from lib.mariadb import MariaDB  # noqa: E402

SERVICE = "demo"  # hooks.py knows it too
# As many times the requests drawn for each operation: they show what single requests do not.
SEQUENCES = 8
OF_A_JOB = "(Job|Fire|OfJob)$"
# Of 40 operations; two need what only a callee is told. Requests that are all refused show little.
OPERATIONS_TO_SUCCEED = 30
MEMORY_BYTES = 2 << 30


def use_memory():
    """Folders are made in memory where there is some: a disk that others keep busy takes no writes for seconds, which is told as an error and
    answered with 503, as it should be. How the agent bears that is shown by test_raft_voters.py and by chaos."""
    memory = pathlib.Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= MEMORY_BYTES:
        tempfile.tempdir = str(memory)


def start_raft(folder, callee):
    agent = Agent("alone", folder, {"services": {SERVICE: {"endpoints": [f"127.0.0.1:{callee.port}"]}}})
    return agent.start()


def start_mysql(folder, callee):
    consul, mariadb = Consul(folder=folder).start(), MariaDB(folder=folder).start()
    consul.register(SERVICE, callee.port)
    cluster = Cluster(consul, mariadb, name="api", folder=folder)
    return cluster.start(2)[0]


def fuzz(args, agent, phases, examples, *more):
    """Problems, and {operation: {status: how often}}."""
    counts = agent.folder / "counts.json"
    command = [args.schemathesis, "--config-file", HERE / "schemathesis.toml", "run", f"{agent.url}/openapi.yaml", "--url", agent.url,
               "--seed", args.seed, "--phases", phases, "--max-examples", examples, "--no-color", *more]
    done = subprocess.run(list(map(str, command)), cwd=HERE, check=False, stdin=subprocess.DEVNULL,
                          env={**os.environ, "API_COUNTS": str(counts), "HYPOTHESIS_STORAGE_DIRECTORY": str(agent.folder / "hypothesis")})
    problems = [] if done.returncode == 0 else [f"schemathesis ended with {done.returncode} ({phases})"]
    return problems, json.loads(counts.read_text(encoding="utf-8"))


def judge_counts(counts):
    """Whether enough succeeded; prints how often what was answered."""
    sums = {kind: sum(n for answers in counts.values() for status, n in answers.items() if status[0] == kind) for kind in "2345"}
    print(f"check-api: {sum(sums.values())} requests of {len(counts)} operations: "
          + ", ".join(f"{n} answered {kind}xx" for kind, n in sums.items()))
    never = sorted(name for name, answers in counts.items() if not any(status[0] in "23" for status in answers))
    print(f"check-api: never answered 2xx: {', '.join(never) or 'none'}")
    succeeded = len(counts) - len(never)
    return [] if succeeded >= OPERATIONS_TO_SUCCEED else [f"only {succeeded} operations ever succeeded: {json.dumps(counts)}"]


def judge_agent(agent):
    """What is wrong with the agent after all that."""
    if not agent.process.alive():
        return [f"the agent ended with {agent.process.code}", agent.process.log_tail()]
    problems = [line for line in agent.process.log_path.read_text(encoding="utf-8").splitlines() if "level=error" in line]
    audit = agent.ask("GET", "/v1/audit?ns=*", 200, timeout=60)
    print(f"check-api: the audit looked at {audit['jobs']} jobs, {audit['differing']} differ")
    problems += [json.dumps(difference) for difference in audit["differences"]]
    code = agent.process.term(60)
    return problems + ([f"the agent ended with {code}"] if code else [])


def run(args, folder):
    callee = Callee(1, "callee", folder).start()
    callee.behave({"path": "/slow", "delay": 2}, {"path": "/bad", "status": 500})
    agent = (start_mysql if args.store == "mysql" else start_raft)(folder, callee)
    problems, counts = fuzz(args, agent, "coverage,fuzzing", args.examples)
    more, sequences = fuzz(args, agent, "stateful", args.examples * SEQUENCES, "--include-operation-id-regex", OF_A_JOB)
    for name, answers in sequences.items():
        mine = counts.setdefault(name, {})
        for status, times in answers.items():
            mine[status] = mine.get(status, 0) + times
    problems += more + judge_counts(counts)
    return problems + judge_agent(agent)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schemathesis", type=pathlib.Path, required=True, help="its program")
    parser.add_argument("--store", choices=("raft", "mysql"), default="raft")
    parser.add_argument("--examples", type=int, default=6, help="how many requests of each operation are drawn")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--logs", type=pathlib.Path, required=True, help="where the logs of a run that failed are kept")
    parser.add_argument("--results", type=pathlib.Path)
    args = parser.parse_args()
    args.seed = random.SystemRandom().randrange(1 << 31) if args.seed is None else args.seed
    again = f"make check-api SEED={args.seed} API_EXAMPLES={args.examples} API_STORE={args.store}"
    print(f"check-api: {again}", flush=True)
    if args.store == "raft":
        use_memory()
    folder = procs.make_folder("carillon-api-")
    try:
        problems = run(args, folder)
    finally:
        procs.end_all()
    if args.results:
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(json.dumps({"passed": int(not problems), "failed": int(bool(problems))}), encoding="utf-8")
    if not problems:
        print("check-api: ok")
        return 0
    shutil.rmtree(args.logs, ignore_errors=True)
    args.logs.mkdir(parents=True)
    for log in folder.glob("*.log"):
        shutil.copy(log, args.logs)
    print("\n".join(["", "What is wrong:", *problems]) + f"\ncheck-api: FAILED; logs in {args.logs}; the same requests again: {again}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
