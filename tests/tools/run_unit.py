#!/usr/bin/env python3
"""Runs Criterion binaries side by side and adds up what they report.

A binary that runs no test, reports nothing, hangs or dies has failed: Criterion alone would pass some of these.
"""
import argparse
import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys
import time

TIMEOUT_SECONDS = 900
SYNTHESIS = re.compile(r"Synthesis: Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")


def run(binary):
    """(binary, passed, failed, seconds, output)"""
    begin = time.monotonic()
    try:
        done = subprocess.run([binary, "--color=never"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS, check=False)
        output, code = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as e:
        output, code = (e.stdout or b"").decode(errors="replace") + f"\nno end after {TIMEOUT_SECONDS} s\n", -1
    seconds = time.monotonic() - begin
    match = SYNTHESIS.search(output)
    tested, passed = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    failed = tested - passed
    if failed == 0 and (code != 0 or tested == 0):
        failed = 1
        output += f"\nexit code {code}, {tested} tests ran\n"
    return binary, passed, failed, seconds, output


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", required=True, help="folder for the counts")
    parser.add_argument("--name", required=True, help="name of this run there")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="show what the tests say of themselves too")
    parser.add_argument("binaries", nargs="*")
    args = parser.parse_intermixed_args()
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for binary, good, bad, seconds, output in pool.map(run, args.binaries):
            passed, failed = passed + good, failed + bad
            if bad or args.verbose:
                print(output)
            print(f"  {binary.split('/tests/', 1)[-1]:44} {good:4} passed {bad:3} failed {seconds:7.2f} s", flush=True)
    print(f"[====] Synthesis: Tested: {passed + failed} | Passing: {passed} | Failing: {failed} "
          f"({len(args.binaries)} programs)")
    results = pathlib.Path(args.results)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{args.name}.json").write_text(json.dumps({"passed": passed, "failed": failed}), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
