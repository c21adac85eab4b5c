#!/usr/bin/env python3
"""Breaks a rule of the protocol at a time and counts the simulated stories until the oracle notices.

A simulation that cannot fail proves nothing. A rule that only something outside of its world could need, as an operator's hand in the
tables, has a test of its own that notices instead: it stands where the kind of story does. Each mutation is one edit of one source, compiled beside the tree's own objects and linked
before them; it has to match exactly once, so the list cannot rot. A mutation that survives fails the run. The story that
noticed the first one is then told without the parts that it does not need, which has to leave few of them.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Noticed after more stories than continuous integration has time for.
RARE = ("the own lease is not looked at before a request goes out", "after a write what waits with the driver is not called back",
        "what was begun before the clock was set back goes out", "a queue has no order", "the last overdue fire is folded with the others",
        "fires that had no room in memory are forgotten", "a due is sent beside what another member holds",
        "a commit with an unknown outcome counts as done", "a change of slots with an unknown outcome counts as done")

# what is broken, file, text, replacement, the kind of story that should tell, or the unit test that does
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
     "return is_mine(p, &f->row) ? orphan_of(p, &f->row) != NULL : !holder_dead(p, f);",
     "return is_mine(p, &f->row) && orphan_of(p, &f->row);", "planned"),
    ("what is in flight is not booked before its slot moves", "agent/core/planner_move.c",
     "    if (j->state == PJOB_LIVE) {\n        pfire_hold_all(p, j);", "    if (j->state == PJOB_LIVE) {\n        pjob_drop_fires(p, j);", "planned"),
    ("after a write what waits with the driver is not called back", "agent/core/planner_api.c",
     "        pfire_revoke(p, container_of(l, struct pfire, job_link));\n}\n\nstatic void create(",
     "        (void)l;\n}\n\nstatic void create(", "consul"),
    ("a request that is repeated is not looked for", "agent/core/planner_api.c",
     "} else if (api->repeated && !j->api_looked && revised) {", "} else if (false && !j->api_looked && revised) {", "store"),
    ("a clock that was set is believed at once", "agent/clock_guard.c",
     "if (jump > CLOCK_GUARD_STEP_MS * 1000 && g->stored)", "if (jump < 0 && g->stored)", "all"),
    ("what was begun before the clock was set back goes out", "callback/callback.c",
     "if (callback_now_ms(gate) < a->delivery->from_ms)", "if (callback_now_ms(gate) < 0)", "all"),
    ("a slot is taken from one who lives: its lease counts as over after half a second", "agent/core/ownership/lease.c",
     "int64_t over_ms = m->since_ms + OWNERSHIP_LEASE_MS;", "int64_t over_ms = m->since_ms + OWNERSHIP_LEASE_MS / 10;", "consul"),
    ("fires that had no room in memory are forgotten", "agent/core/planner_fire.c",
     "        t->spilled_ms = f->row.wake_ms;\n", "        (void)0;\n", "planned"),
    ("what comes into the horizon is not read", "agent/core/planner_load.c",
     "    p->resident_ms = p->window_until_ms;\n", "    p->resident_ms = p->window_until_ms + p->span_ms;\n", "planned"),
    ("what a window that was cut short left out is not read", "agent/core/planner_load.c",
     "        p->window_until_ms = c->until_ms;\n", "        (void)0;\n", "planned"),
    ("an at-most-once fire is sent before it is marked", "agent/core/planner_fire.c",
     "if (f->row.state == FIRE_STATE_WAITING && j->spec->at_most_once && sends) {",
     "if (f->row.state == FIRE_STATE_WAITING && j->spec->at_most_once && sends && j->row.rev == 0) {", "crashes"),
    ("asynchronous fires are not booked before they are sent", "agent/core/planner_plan.c",
     "return spec->at_most_once || spec->callback.async || spec->callback.to != JOB_TO_ONE;",
     "return spec->at_most_once || spec->callback.to != JOB_TO_ONE;", "planned"),
    ("forbid, queue and replace are not looked at when a due comes", "agent/core/planner_rules.c",
     "if (rule == JOB_ALLOW || pjob_pending(j) == 0)", "if (true || pjob_pending(j) == 0)", "planned"),
    ("a queue has no order", "agent/core/planner_rules.c",
     "bool before = (rule == JOB_QUEUE || rule == JOB_REPLACE) &&", "bool before = rule == JOB_REPLACE &&", "planned"),
    ("an instant that others have fired after is dropped", "agent/core/planner_change.c",
     ": first_instant(j, j->replaced, api->accepted_ms, fired_ms, &due_ms) ||", ": (false && first_instant(j, j->replaced, api->accepted_ms, fired_ms, &due_ms)) ||", "store"),
    ("a due is sent beside what another member holds", "agent/core/planner_rules.c",
     "if (!pjob_pending_full(j) && !held_elsewhere(j))", "if (!pjob_pending_full(j) && (held_elsewhere(j) || true))", "planned"),
    ("what is not late yet is skipped as late", "agent/core/planner_plan.c",
     "pjob_skip(p, j, p->now_ms - window_ms, FIRE_REASON_LATE))", "pjob_skip(p, j, p->now_ms, FIRE_REASON_LATE))", "store"),
    ("the last overdue fire is folded with the others", "agent/core/planner_plan.c",
     "    until_ms = newest_ms;\n", "    until_ms = newest_ms + 1;\n", "store"),
    ("after a pause a due that is to come is skipped", "agent/core/planner_api.c",
     "int64_t until_ms = p->now_ms + 1;\n    j->row.state", "int64_t until_ms = p->now_ms + 5001;\n    j->row.state", "planned"),
    ("one fire more than max_fires", "agent/core/planner_plan.c",
     "j->row.scheduled < j->spec->max_fires;", "j->row.scheduled <= j->spec->max_fires;", "planned"),
    ("a repeated hour fires twice", "agent/core/schedule.c",
     "if (!c->elapsed && s->repeat == SCHEDULE_REPEAT_FIRST)", "if (false)", "planned"),
    ("what an hour that is left out would have fired is not made up for", "agent/core/schedule.c",
     "if (c->elapsed || s->gap == SCHEDULE_GAP_SKIP ||", "if (c->elapsed || s->gap != SCHEDULE_GAP_COUNT_ ||", "planned"),
    ("a backfill leaves dues out", "agent/core/planner_backfill.c",
     "j->row.backfill_next_ms = due_ms + 1;", "j->row.backfill_next_ms = due_ms + 2001;", "planned"),
    ("an attempt too few before a dead letter", "agent/core/retry.c",
     "attempts_done >= rule->max_attempts)", "attempts_done + 1 >= rule->max_attempts)", "planned"),
    ("the silence of an asynchronous callee is not noticed", "agent/core/planner_fire.c",
     "        popen_silent(p, f);\n", "        (void)0;\n", "planned"),
    ("a part that failed counts as done", "agent/core/planner_parts.c",
     "    case ATTEMPT_RETRY:\n        break;\n    case ATTEMPT_OPEN: /*", "    case ATTEMPT_RETRY:\n        part->state = FIRE_PART_SUCCEEDED;\n        break;\n    case ATTEMPT_OPEN: /*", "planned"),
    ("a create is answered before it is durable", "agent/core/planner_api.c",
     "    papi_applied(j, PLANNER_CREATED);", "    papi_reply(p, j, PLANNER_CREATED);", "planned"),
    ("a pause does not stop retries", "agent/core/planner_fire.c",
     "return f->job->row.state == JOB_STATE_PAUSED && f->row.kind != FIRE_KIND_RUN && !f->by_hand;",
     "return f->job->row.state == JOB_STATE_PAUSED && f->row.kind != FIRE_KIND_RUN && !f->by_hand && f->row.attempts == 0;", "planned"),
    ("a completion of a fire that waits is not written", "agent/core/planner_open.c",
     "    pfire_end(p, f, FIRE_OUTCOME_SUCCEEDED, FIRE_REASON_NONE, a);\n}", "    pfire_wait_until(p, f, p->now_ms);\n}", "planned"),
    ("a re-driven letter counts as dead still", "agent/core/planner_letter.c",
     "        j->row.counts.dead--;\n", "", "planned"),
    ("the own lease counts from the answer, not from the sending", "agent/core/ownership/lease.c",
     "int64_t until_ms = ev->sent_ms + OWNERSHIP_LEASE_MS - OWNERSHIP_LEASE_MARGIN_MS;",
     "int64_t until_ms = o->now_ms + OWNERSHIP_LEASE_MS - OWNERSHIP_LEASE_MARGIN_MS;", "network"),
    ("one who cannot connect declares a member dead", "agent/core/ownership/verdict.c",
     "if (third_exists(o, m) && (", "if (false && (", "network"),
    ("whoever answers at a member's address is somebody else", "agent/engine_peers.c",
     ".replaced = who && strcmp(who, a->member) != 0};", ".replaced = who != NULL};", "all"),
    ("a commit with an unknown outcome counts as done", "agent/core/planner_batch.c",
     "    if (code == 0)\n        written(p, b);", "    if (code == 0 || code == ERR_UNKNOWN_OUTCOME)\n        written(p, b);", "store"),
    ("a slot that another one took counts as won", "agent/core/ownership/slots.c",
     "if (!ev->ok || !c->changed) {", "if (!ev->ok) {", "crashes"),
    ("a change of slots with an unknown outcome counts as done", "agent/core/ownership/slots.c",
     "if (!ev->ok || !c->changed) {", "if (ev->ok && !c->changed) {", "store"),
    ("who takes a slot goes on with its old epoch", "agent/core/ownership/slots.c",
     "slot_know(o, s, o->me, c->from_epoch + 1);", "slot_know(o, s, o->me, c->from_epoch);", "crashes"),
    ("what the store does not name any more is kept", "agent/core/ownership/slots.c",
     "if (s->owner != o->me || s->named == no || no <= s->as_of ||", "if (s->owner != o->me || s->named <= no || no <= s->as_of ||",
     "tests/unit/core/test_ownership.c"),
    ("a retry forgets the attempts before it", "agent/core/planner_attempt.c",
     "    f->row.attempts = f->delivery.attempt;\n    f->row.attempt_ms =", "    f->row.attempts = f->row.attempts_before + 1;\n    f->row.attempt_ms =", "planned"),
    ("one fire fewer than max_fires", "agent/core/planner_plan.c",
     "j->row.scheduled < j->spec->max_fires;", "j->row.scheduled + 1 < j->spec->max_fires;", "planned"),
    ("a misfire window is a second too short", "agent/core/planner_plan.c",
     "pjob_skip(p, j, p->now_ms - window_ms, FIRE_REASON_LATE))", "pjob_skip(p, j, p->now_ms - window_ms + 1000, FIRE_REASON_LATE))", "store"),
    ("what a dead member had under way is not made up for", "agent/core/planner_fire.c",
     "    f->row.wake_ms = p->now_ms;\n    pfire_set_target(p, f, true);\n    pfire_arm(p, f);\n}", "    pfire_set_target(p, f, true);\n}", "crashes"),
    ("an at-most-once fire of a dead member is sent again", "agent/core/planner_fire.c",
     "    if (f->job->spec->at_most_once) {\n        pfire_end(p, f, FIRE_OUTCOME_DEAD, FIRE_REASON_AT_MOST_ONCE, NULL);\n        return;\n    }\n    f->row.state = FIRE_STATE_WAITING;",
     "    f->row.state = FIRE_STATE_WAITING;\n    f->row.attempts = f->row.attempts_before;", "crashes"),
    ("dead letters go with their job", "agent/store/store_mem_jobs.c",
     "        if (fire->row.state == FIRE_STATE_ENDED)\n            continue;", "        if (fire->row.state == FIRE_STATE_ENDED && fire->row.outcome != FIRE_OUTCOME_DEAD)\n            continue;", "planned"),
    ("what is said of a fire that has ended is answered as done", "agent/core/planner_ops.c",
     "bool ok = api->op == PLANNER_FIRE_HEARTBEAT || said_so(api, outcome);", "bool ok = api->op == PLANNER_FIRE_HEARTBEAT || said_so(api, outcome) || true;", "planned"),
)


def run(command, **kwargs):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True,
                          errors="replace", **kwargs)


def build(args, folder, name, text, replacement, kind):
    """The simulation, or the unit test that KIND is, with one source changed."""
    original = (ROOT / name).read_text(encoding="utf-8")
    if original.count(text) != 1:
        sys.exit(f"sim-mutants: '{text[:60]}' stands {original.count(text)} times in {name}")
    source, obj, binary = folder / pathlib.Path(name).name, folder / "mutant.o", folder / "test"
    source.write_text(original.replace(text, replacement), encoding="utf-8")
    commands, inputs = [f"{args.compile} -w -c -o {obj} {source}"], args.inputs
    if kind.endswith(".c"):
        commands.append(f"{args.compile} -w -c -o {folder / 'unit.o'} {kind}")
        inputs = " ".join([str(folder / "unit.o"), *(i for i in inputs.split() if "/tests/sim/" not in i)])
    for command in (*commands, f"{args.link} -o {binary} {obj} {inputs}"):
        done = run(shlex.split(command), cwd=ROOT)
        if done.returncode:
            sys.exit(f"sim-mutants: {name} does not build\n{done.stdout[-2000:]}")
    return binary


def stories_until_noticed(binary, kind, most):
    """(number of stories, what the oracle said), or (None, "")."""
    env = {**os.environ, "SIM_KIND": kind, "SIM_STORIES": str(most), "SIM_FIRST": "1"}
    output = run([str(binary), "--color=never", "--jobs", "1"], env=env).stdout
    found = re.search(r"^seed (\d+), (.*)$", output, re.M)
    return (int(found.group(1)), found.group(2)) if found else (None, "")


def unit_noticed(binary):
    """The test that fails, or ""."""
    found = re.search(r"^\[FAIL\] (\S+)", run([str(binary), "--color=never", "--jobs", "1"]).stdout, re.M)
    return found.group(1).rstrip(":") if found else ""


def shrunk(binary, kind, seed):
    """How many parts the story needs, of how many."""
    env = {**os.environ, "SIM_KIND": kind, "SEED": str(seed), "SIM_SHRINK": "150"}
    output = run([str(binary), "--color=never", "--jobs", "1"], env=env).stdout
    found = re.search(r"^shrunk to (\d+) of (\d+) parts", output, re.M)
    if not found or "BROKEN" not in output:
        sys.exit(f"sim-mutants: the story of seed {seed} does not shrink\n{output[-2000:]}")
    return int(found.group(1)), int(found.group(2))


def judge(args, mutant, first):
    """A line about one mutation, and whether it was noticed."""
    words, name, text, replacement, kind = mutant
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="carillon-mutant-") as folder:
        binary = build(args, pathlib.Path(folder), name, text, replacement, kind)
        if kind.endswith(".c"):
            failed = unit_noticed(binary)
            return f"{words}: " + (f"noticed by {failed}" if failed else "NOT NOTICED"), bool(failed)
        count, said = stories_until_noticed(binary, kind, args.stories)
        if count is None and kind != "all":
            kind = "all"
            count, said = stories_until_noticed(binary, kind, args.stories)
        line = f"{words}: " + (f"noticed after {count} stories of kind {kind}" if count else "NOT NOTICED")
        if count and first:
            parts, of = shrunk(binary, kind, count)
            line += f", shrunk to {parts} of {of} parts"
            if parts * 4 > of:
                return line + ", WHICH ARE TOO MANY", False
    return f"{line} ({time.monotonic() - begin:.0f} s)\n    {said[:160]}", count is not None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compile", required=True, help="command that compiles a source as the tests' objects are")
    parser.add_argument("--link", required=True)
    parser.add_argument("--inputs", required=True, help="objects and libraries of the simulation")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--stories", type=int, default=400, help="of a kind, before a mutation counts as unnoticed")
    parser.add_argument("--common", action="store_true", help="without those that it takes many stories to notice")
    parser.add_argument("names", nargs="*", help="only mutations whose words these are")
    args = parser.parse_args()
    chosen = [m for m in MUTANTS if (not args.names or any(n in m[0] for n in args.names)) and not (args.common and m[0] in RARE)]
    unnoticed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for line, noticed in pool.map(lambda m: judge(args, m, m is chosen[0]), chosen):
            print(line, flush=True)
            unnoticed += not noticed
    print(f"sim-mutants: {unnoticed} of {len(chosen)} not noticed, {len(MUTANTS) - len(chosen)} not tried")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
