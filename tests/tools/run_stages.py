#!/usr/bin/env python3
"""`make test`: runs the given targets in order and ends with one line of counts.

First come the targets that stand alone. Then two rows side by side: the waiting ones (real processes that mostly wait for one
another) and the busy ones (compilers, sanitizers), which take at the lowest priority what processor time the former leave.
Tests are counted where they run as themselves (check, check-it), not again under sanitizers or for coverage. Any other
target that fails counts as one failure. All run, so that one run shows everything that is wrong; only when the program
does not build is the rest pointless. The last lines of what failed come again at the end: many keep only the end of a log.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

COUNTED = {"check": "check.json", "check-it": "check-it.json", "chaos": "chaos.json", "chaos-raft": "chaos-raft.json", "check-api": "check-api.json"}

LAST_LINES = 15


def environment():
    """Ours, less what ties a make to the one above it: each stage is a make of its own, with all the jobs."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKELEVEL", "MFLAGS")}
    flags = os.environ.get("MAKEFLAGS", "").split()
    env["MAKEFLAGS"] = " ".join(f for f in flags if not re.match(r"-j\d*$|--jobserver", f))
    return env


def make(target, *, beside, least):
    """The target's exit code and last lines. beside others, each line says whose it is; least: at the lowest priority."""
    command = [*(["nice", "-n", "19"] if least else []), "make", target]
    last = collections.deque(maxlen=LAST_LINES)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=environment(), text=True, errors="replace") as child:
        for line in child.stdout:
            print(f"[{target}] {line}" if beside else line, end="", flush=True)
            last.append(line)
    return child.returncode, last


def run_stage(target, results, *, beside=False, least=False):
    """(target, passed, failed, seconds, last lines)"""
    print(f"\n==== {target}", flush=True)
    begin = time.monotonic()
    code, last = make(target, beside=beside, least=least)
    seconds = time.monotonic() - begin
    print(f"==== {target}: {'ok' if code == 0 else 'FAILED'} in {seconds:.1f} s", flush=True)
    passed = failed = 0
    counts = results / COUNTED.get(target, "-")
    if counts.exists():
        numbers = json.loads(counts.read_text(encoding="utf-8"))
        passed, failed = numbers["passed"], numbers["failed"]
    if code != 0 and failed == 0:
        failed = 1
    return target, passed, failed, seconds, last


def run_all(args, results):
    """What run_stage() says of each, in order."""
    done = []
    for target in args.targets:
        done.append(run_stage(target, results))
        if target == "build" and done[-1][2]:
            return done
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        rows = [pool.submit(lambda row, least: [run_stage(t, results, beside=True, least=least) for t in row], row, least)
                for row, least in ((args.waiting, False), (args.busy, True))]
        return done + [stage for row in rows for stage in row.result()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", required=True)
    parser.add_argument("--waiting", nargs="*", default=[], metavar="TARGET")
    parser.add_argument("--busy", nargs="*", default=[], metavar="TARGET")
    parser.add_argument("targets", nargs="+")
    args = parser.parse_args()
    results = pathlib.Path(args.results)
    shutil.rmtree(results, ignore_errors=True)
    begin = time.monotonic()
    done = run_all(args, results)
    print()
    for target, _, failed, seconds, _ in done:
        print(f"  {target:16} {'ok' if failed == 0 else 'FAILED':6} {seconds:8.1f} s")
    print(f"  {'in all':23} {time.monotonic() - begin:8.1f} s")
    for target, _, failed, _, last in done:
        if failed:
            print(f"\n==== {target} failed; its last lines:\n{''.join(last)}", end="")
    passed, failed = sum(stage[1] for stage in done), sum(stage[2] for stage in done)
    if passed + failed == 0:
        print("no test ran")
        failed = 1
    print(f"\n{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
