#!/usr/bin/env python3
"""Runs Criterion binaries side by side and adds up what they report.

A binary that runs no test, reports nothing, hangs or dies has failed: Criterion alone would pass some of these.

With --again N, up to N binaries that failed beside others run once more, alone: at the lowest priority on a busy machine a
test with real sockets can be starved of the time that it grants. Models live the same lives again (TEST_SEED), so that
what a seed found fails again. What passes then is named at the end, as a thing to mend. More than N failures are no accident,
and neither is a crash or a hang.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import time

TIMEOUT_SECONDS = 900
SEED = re.compile(r"TEST_SEED=(\d+)")
COMPLAINT = re.compile(r"^\[(?:FAIL|CRASH|----|ERR)\S*\].*|^.*TEST_SEED=.*|^exit code .*|^no end after .*", re.MULTILINE)
CRASH = re.compile(r"^\[CRASH|^exit code -|^no end after", re.MULTILINE)
COMPLAINTS_SHOWN = 12
SYNTHESIS = re.compile(r"Synthesis: Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")


def run(binary, seed=None):
    """(binary, passed, failed, seconds, output)"""
    begin = time.monotonic()
    env = {**os.environ, "TEST_SEED": seed} if seed else None
    try:
        done = subprocess.run([binary, "--color=never"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
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


def passes_again(binary, output):
    """Alone, with each seed that it had."""
    for seed in sorted(set(SEED.findall(output))) or [None]:
        _, _, failed, seconds, again = run(binary, seed)
        print(f"  {name_of(binary)} once more, alone: {'failed' if failed else 'passed'} in {seconds:.2f} s", flush=True)
        if failed:
            print(again)
            return False
    return True


def longest_first(binaries):
    """So that none of those that wait for disks and one another runs alone at the end."""
    slow = ("/store/", "/agent/", "/io/")
    return sorted(binaries, key=lambda binary: next((i for i, folder in enumerate(slow) if folder in binary), len(slow)))


def name_of(binary):
    return binary.split("/tests/", 1)[-1]


def judge(bad, again):
    """Of the (binary, failed, output) that failed, how many tests count as failed; the last words are what is wrong."""
    accidents = [(binary, output) for binary, _, output in bad if not CRASH.search(output)] if len(bad) <= again else []
    flaky = [binary for binary, output in accidents if passes_again(binary, output)]
    for binary, _, output in bad:
        print(f"==> {'FLAKY, failed beside others and passed alone' if binary in flaky else 'FAILED'}: {name_of(binary)}")
        print("\n".join(f"    {m.group(0)}" for m in list(COMPLAINT.finditer(output))[:COMPLAINTS_SHOWN]), flush=True)
    return sum(failed for binary, failed, _ in bad if binary not in flaky)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", required=True, help="folder for the counts")
    parser.add_argument("--name", required=True, help="name of this run there")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", type=int, default=int(os.environ.get("UNIT_AGAIN", 0)), metavar="N",
                        help="let up to N binaries that failed run once more, alone; else $UNIT_AGAIN, else none")
    parser.add_argument("--verbose", action="store_true", help="show what the tests say of themselves too")
    parser.add_argument("binaries", nargs="*")
    args = parser.parse_intermixed_args()
    passed, bad = 0, []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for binary, good, failed, seconds, output in pool.map(run, longest_first(args.binaries)):
            passed += good
            if failed:
                bad.append((binary, failed, output))
            if failed or args.verbose:
                print(output)
            print(f"  {name_of(binary):44} {good:4} passed {failed:3} failed {seconds:7.2f} s", flush=True)
    tested = passed + sum(failed for _, failed, _ in bad)
    failed = judge(bad, args.again)
    passed = tested - failed
    print(f"[====] Synthesis: Tested: {tested} | Passing: {passed} | Failing: {failed} "
          f"({len(args.binaries)} programs)")
    results = pathlib.Path(args.results)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{args.name}.json").write_text(json.dumps({"passed": passed, "failed": failed}), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
