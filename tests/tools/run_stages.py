#!/usr/bin/env python3
"""`make test`: runs the given targets in order and ends with one line of counts.

Tests are counted where they run as themselves (check, check-it), not again under sanitizers or for coverage. Any other
target that fails counts as one failure. All run, so that one run shows everything that is wrong; only when the program
does not build is the rest pointless.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

COUNTED = {"check": "check.json", "check-it": "check-it.json", "chaos": "chaos.json"}


def environment():
    """Ours, less what ties a make to the one above it: each stage is a make of its own, with all the jobs."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKELEVEL", "MFLAGS")}
    flags = os.environ.get("MAKEFLAGS", "").split()
    env["MAKEFLAGS"] = " ".join(f for f in flags if not re.match(r"-j\d*$|--jobserver", f))
    return env


def run_stage(target, results):
    """(passed, failed, seconds)"""
    print(f"\n==== {target}", flush=True)
    begin = time.monotonic()
    code = subprocess.run(["make", target], stdin=subprocess.DEVNULL, env=environment(), check=False).returncode
    seconds = time.monotonic() - begin
    print(f"==== {target}: {'ok' if code == 0 else 'FAILED'} in {seconds:.1f} s", flush=True)
    passed = failed = 0
    counts = results / COUNTED.get(target, "-")
    if counts.exists():
        numbers = json.loads(counts.read_text(encoding="utf-8"))
        passed, failed = numbers["passed"], numbers["failed"]
    if code != 0 and failed == 0:
        failed = 1
    return passed, failed, seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", required=True)
    parser.add_argument("targets", nargs="+")
    args = parser.parse_args()
    results = pathlib.Path(args.results)
    shutil.rmtree(results, ignore_errors=True)
    passed = failed = 0
    table = []
    for target in args.targets:
        good, bad, seconds = run_stage(target, results)
        passed, failed = passed + good, failed + bad
        table.append(f"  {target:16} {'ok' if bad == 0 else 'FAILED':6} {seconds:8.1f} s")
        if target == "build" and bad:
            break
    print("\n" + "\n".join(table))
    if passed + failed == 0:
        print("no test ran")
        failed = 1
    print(f"\n{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
