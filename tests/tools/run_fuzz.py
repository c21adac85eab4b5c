#!/usr/bin/env python3
"""Fuzz targets: `replay` feeds each its corpus, `fuzz` lets libFuzzer look for more.

Targets are programs named fuzz_X; the corpus of X is tests/fuzz/corpus/X. What libFuzzer finds to crash is written
there too, so that the next replay fails until it is mended; inputs that only reach new code stay in the object folder
(tests/fuzz/README.md tells how they are taken over).
"""
import argparse
import concurrent.futures
import pathlib
import subprocess
import sys
import time

CORPUS = pathlib.Path("tests/fuzz/corpus")
REPLAY_TIMEOUT_SECONDS = 600


def name_of(target):
    return pathlib.Path(target).name.removeprefix("fuzz_")


def execute(command, timeout):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=timeout, check=False)
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        return -1, (e.stdout or b"").decode(errors="replace") + f"\nno end after {timeout} s\n"


def replay(target, _seconds):
    inputs = sorted(p for p in (CORPUS / name_of(target)).glob("*") if p.is_file())
    if not inputs:
        return 1, f"{CORPUS / name_of(target)} holds no input\n", "no corpus"
    code, output = execute([target, *map(str, inputs)], REPLAY_TIMEOUT_SECONDS)
    return code, output, f"{len(inputs)} inputs"


def fuzz(target, seconds):
    grown = pathlib.Path(target).parent / "corpus" / name_of(target)
    grown.mkdir(parents=True, exist_ok=True)
    kept = CORPUS / name_of(target)
    kept.mkdir(parents=True, exist_ok=True)
    code, output = execute([target, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=65536",
                            "-print_final_stats=1", f"-artifact_prefix={kept}/", str(grown), str(kept)], seconds + 120)
    runs = [line.split()[-1] for line in output.splitlines() if "number_of_executed_units" in line]
    return code, output, f"{runs[0] if runs else '?'} runs"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["replay", "fuzz"])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("targets", nargs="*")
    args = parser.parse_intermixed_args()
    work, failed = {"replay": replay, "fuzz": fuzz}[args.mode], 0

    def one(target):
        begin = time.monotonic()
        return target, *work(target, args.seconds), time.monotonic() - begin

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for target, code, output, what, seconds in pool.map(one, args.targets):
            failed += code != 0
            if code != 0:
                print(output[-20000:])
            print(f"  {pathlib.Path(target).name:44} {what:>14} {'ok' if code == 0 else 'FAILED'} {seconds:7.2f} s",
                  flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
