#!/usr/bin/env python3
"""Breaks a rule of the protocol at a time and counts the simulated stories until the oracle notices.

A simulation that cannot fail proves nothing. Each mutation is one edit of one source; it has to match exactly once, so the list cannot
rot. A mutation that survives fails the run. Works on a copy of the tree, with the tree's own Makefile.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("planned", "crashes", "store", "consul", "network", "all")

# what is broken, file, text, replacement, the kind of story that should tell
MUTANTS = (
    ("the next due is computed from now, not from the persisted one", "agent/core/planner_plan.c",
     "return job_next_due(j->spec, j->row.due_ms, ret_ms);",
     "return job_next_due(j->spec, j->row.last.finished_ms > j->row.due_ms ? j->row.last.finished_ms : j->row.due_ms, ret_ms);",
     "store"),
    ("a fire counts before it is acknowledged", "agent/core/planner_attempt.c",
     "    case ATTEMPT_RETRY:\n    case ATTEMPT_GIVE_UP:\n        pfire_failed(p, f, attempt);",
     "    case ATTEMPT_RETRY:\n        succeeded(p, f, attempt);\n        break;\n    case ATTEMPT_GIVE_UP:\n        pfire_failed(p, f, attempt);", "crashes"),
    ("the own lease is not looked at before a request goes out", "callback/callback.c",
     "if (atomic_load(&gate->closed) || (int64_t)clock_boot_ms() >= atomic_load(&gate->lease_until_ms))",
     "if (atomic_load(&gate->closed))", "network"),
    ("the own lease never ends", "agent/core/ownership/lease.c",
     "int64_t until_ms = ev->sent_ms + OWNERSHIP_LEASE_MS - OWNERSHIP_LEASE_MARGIN_MS;",
     "int64_t until_ms = ev->sent_ms + 100 * OWNERSHIP_LEASE_MS;", "network"),
    ("what a dead member writes late is taken", "agent/store/store_mem.c",
     "return m && !m->row.dead ? 0 : err_set(e, ERR_FENCED, \"this member was declared dead\");",
     "return m ? 0 : err_set(e, ERR_FENCED, \"this member was declared dead\");", "network"),
    ("a member that was declared dead goes on", "agent/core/ownership/lease.c",
     "    if (!ev->alive) {\n        rejoin(o);\n        return;\n    }\n", "", "network"),
    ("a slot is taken whatever its epoch is", "agent/store/store_mem.c",
     "if (slot->epoch == c->from_epoch && strcmp(slot->owner, c->from) == 0) {",
     "if (strcmp(slot->owner, c->from) == 0 || slot->epoch >= c->from_epoch) {", "network"),
    ("what another member has in flight is sent again though it lives", "agent/core/planner_fire.c",
     "if (is_mine(p, &f->row) ? !orphan_of(p, &f->row) : holder_dead(p, f))", "if (!is_mine(p, &f->row) || !orphan_of(p, &f->row))", "planned"),
    ("what is in flight is not booked before its slot moves", "agent/core/planner_move.c",
     "    if (j->state == PJOB_LIVE) {\n        pfire_hold_all(p, j);", "    if (j->state == PJOB_LIVE) {\n        pjob_drop_fires(p, j);", "planned"),
    ("after a write what waits with the driver is not called back", "agent/core/planner_api.c",
     "        pfire_revoke(p, container_of(l, struct pfire, job_link));\n}\n\nstatic void create(",
     "        (void)l;\n}\n\nstatic void create(", "planned"),
    ("a request that is repeated is not looked for", "agent/core/planner_api.c",
     "} else if (api->repeated && !j->api_looked && revised) {", "} else if (false && !j->api_looked && revised) {", "store"),
    ("a clock that was set is believed at once", "agent/clock_guard.c",
     "if (jump > CLOCK_GUARD_STEP_MS * 1000 && g->stored)", "if (jump < 0 && g->stored)", "all"),
    ("what was begun before the clock was set back goes out", "callback/callback.c",
     "if (callback_now_ms(gate) < a->delivery->from_ms)", "if (callback_now_ms(gate) < 0)", "all"),
)


def run(command, **kwargs):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True,
                          errors="replace", **kwargs)


def build(tree, objects):
    binary = objects / "tests/sim/test_sim"
    done = run(["make", f"-j{os.cpu_count()}", f"O={objects}", "WERROR=0", str(binary)], cwd=tree)
    if done.returncode:
        return None, done.stdout[-2000:]
    return binary, ""


def stories_until_noticed(binary, kind, most):
    """(number of stories, what the oracle said), or (None, "")."""
    told = 0
    while told < most:
        some = min(20, most - told)
        env = {**os.environ, "SIM_KIND": kind, "SIM_STORIES": str(some), "SIM_FIRST": str(told + 1)}
        output = run([str(binary), "--color=never"], env=env).stdout
        found = re.search(r"^seed (\d+)(.*)$", output, re.M)
        if found:
            return int(found.group(1)), found.group(0)
        told += some
    return None, ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stories", type=int, default=200, help="of a kind, before a mutation counts as unnoticed")
    parser.add_argument("names", nargs="*", help="only mutations whose words these are")
    args = parser.parse_args()
    unnoticed = []
    with tempfile.TemporaryDirectory(prefix="carillon-mutants-") as folder:
        tree, objects = pathlib.Path(folder) / "tree", pathlib.Path(folder) / "objects"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", "build"))
        for words, name, text, replacement, kind in MUTANTS:
            if args.names and not any(n in words for n in args.names):
                continue
            path = tree / name
            original = path.read_text(encoding="utf-8")
            if original.count(text) != 1:
                sys.exit(f"sim-mutants: '{text[:60]}' stands {original.count(text)} times in {name}")
            path.write_text(original.replace(text, replacement), encoding="utf-8")
            begin = time.monotonic()
            binary, error = build(tree, objects)
            if not binary:
                sys.exit(f"sim-mutants: '{words}' does not build\n{error}")
            seeds = [(kind, *stories_until_noticed(binary, kind, args.stories))]
            if seeds[0][1] is None and kind != "all":
                seeds.append(("all", *stories_until_noticed(binary, "all", args.stories)))
            kind, count, said = seeds[-1]
            if count is None:
                unnoticed.append(words)
            print(f"{words}: {f'noticed after {count} stories of kind {kind}' if count else 'NOT NOTICED'} "
                  f"({time.monotonic() - begin:.0f} s)\n    {said}", flush=True)
            path.write_text(original, encoding="utf-8")
    print(f"sim-mutants: {len(unnoticed)} of {len(MUTANTS)} not noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
