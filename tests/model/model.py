#!/usr/bin/env python3
"""`make model`: spin looks at every state of the models beside this file; then at models broken on purpose, one rule each.

A model must be free of errors and a broken one must not be: a rule whose absence nobody notices is no rule. The names in [] in the models
are functions of agent/core/ownership; one that is gone fails the run.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "agent/core/ownership"

# model, what it is looked at with, and the mutants that must show there
CASES = (
    ("move", "a start at the same address", ("LIVES=3", "LOSSES=0"),
     ("ANY_LIFE", "NO_AS_OF", "LIST_MOVES", "UNLISTED_IS_DEAD", "CAS_OWNER_ONLY", "NEWS_KILLS")),
    ("move", "a request given up for unknown", ("LIVES=2", "LOSSES=1"),
     ("GIVEN_ANY_EPOCH", "ADOPT_SAME_EPOCH", "UNKNOWN_IS_UNMOVED")),
    ("lease", "one watches the owner", ("LEASE=3",),
     ("NO_MARGIN", "FROM_REPLY", "IGNORE_DEAD", "CLOCK_STANDS", "NO_LAST_LOOK", "NO_FENCE", "DECLARE_BLIND", "FROM_ASK",
      "TAKE_UNDECLARED")),
    ("lease", "two take a dead owner's slot", ("WATCHERS=2", "LEASE=1"), ("CAS_BLIND", "UNKNOWN_IS_MINE")),
    ("lease", "only the store is away", ("STORE_ONLY", "LEASE=4"), ("NO_RESTART", "NO_GAP")),
    ("verdict", "one way out at a time is broken", (),
     ("ONE_WITNESS", "REACHABLE_THIRD", "OLD_WORD", "WITNESS_REPEATS", "HAUNTS", "NO_REST",
      "NAMESAKE_ALONE", "LIVES_OR_NOT")),
)


def explore(folder, model, defines):
    """(errors, states, output) of one exhaustive search."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = [f"-D{d}" for d in defines]
    for command in (["spin", "-a", *flags, str(HERE / f"{model}.pml")],
                    ["gcc", "-O1", "-w", "-DSAFETY", "-DNOCLAIM", "-DNOREDUCE", "-o", "pan", "pan.c"]):
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            return None, 0, done.stdout + done.stderr
    # -E: a state without a successor is no error, everybody may be dead; -w: 2^w slots of the hash table
    done = subprocess.run(["./pan", "-E", "-m5000000", "-w22"], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    output = done.stdout + done.stderr
    found = re.search(r"errors: (\d+)", output)
    states = re.search(r"(\S+) states, stored", output)
    cut_short = "max search depth too small" in output or "Search not completed" in output and not int(found[1])
    if not found or not states or cut_short:
        return None, 0, output
    return int(found[1]), int(float(states[1])), output


def story(folder, model, defines):
    """The last steps of the trail that spin found."""
    done = subprocess.run(["spin", "-t", "-p", *[f"-D{d}" for d in defines], str(HERE / f"{model}.pml")], cwd=folder,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    trail = folder / f"{model}.pml.trail"
    return f"trail: {trail}\n" + "\n".join(done.stdout.splitlines()[-120:])


def stale_names():
    """Names in [] that are no function of the folder."""
    code = "\n".join(p.read_text(encoding="utf-8") for p in sorted(SOURCES.glob("*.[ch]")))
    stale = []
    for path in sorted(HERE.glob("*.pml")):
        text = path.read_text(encoding="utf-8")
        for comment in re.findall(r"/\*.*?\*/", text, re.S):
            for names in re.findall(r"\[([a-z_]+(?:, [a-z_]+)*)\]", comment):
                stale += [f"{path.name}: {n}" for n in names.split(", ")
                          if not re.search(rf"\b{n}\(", code) and not re.search(rf"\b{n};", code)]
    return stale


def unlisted_mutants():
    listed = {(model, name) for model, _, _, names in CASES for name in names}
    present = {(p.stem, name) for p in HERE.glob("*.pml") for name in re.findall(r"M_([A-Z_]+)", p.read_text(encoding="utf-8"))}
    return sorted(listed ^ present)


def judge(work, case, mutant):
    """(line, failure text or None, states)"""
    model, title, defines, _ = case
    begin = time.monotonic()
    defines = [*defines, *([f"M_{mutant}"] if mutant else [])]
    folder = work / "-".join([model, *defines]).replace("=", "")
    errors, states, output = explore(folder, model, defines)
    seconds = time.monotonic() - begin
    line = f"  {model:8} {mutant or title:34} {states:9} states {seconds:6.1f} s  "
    if errors is None:
        return line + "CANNOT RUN", output[-3000:], 0
    if mutant:
        return line + ("caught" if errors else "SURVIVED"), None if errors else "nothing noticed that this rule is broken", states
    return line + ("ERROR" if errors else "ok"), story(folder, model, defines) if errors else None, states


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True, type=pathlib.Path, help="folder for what spin generates")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    failures = [f"no such function in agent/core/ownership: {name}" for name in stale_names()]
    failures += [f"mutant {name} of {model}: in the model or in the list, not in both" for model, name in unlisted_mutants()]
    tasks = [(case, None) for case in CASES] + [(case, m) for case in CASES for m in case[3]]
    states = caught = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for (_, mutant), (line, failure, seen) in zip(tasks, pool.map(lambda t: judge(args.work, *t), tasks)):
            print(line, flush=True)
            states += 0 if mutant else seen
            caught += bool(mutant and not failure)
            if failure:
                failures.append(f"{line.strip()}\n{failure}")
    for failure in failures:
        print(f"\n{failure}")
    print(f"model: {states} states, {caught} of {len(tasks) - len(CASES)} mutants caught" + (", FAILED" if failures else ""))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
