#!/usr/bin/env python3
"""`make chaos`: real agents, three Consul servers and a real store; things go wrong for as long as asked, by a plan made from a seed;
then all is healed, and what the callees saw, what the agents say and what the store's own history tells is judged."""
import argparse
import collections
import heapq
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/it"))
# pylint: disable=wrong-import-position
from lib import procs  # noqa: E402
from lib.callee import Callee  # noqa: E402
from lib.carillon import binary  # noqa: E402
from lib.consul import ConsulServers  # noqa: E402
from lib.load import Load, Writer, lateness_between, show  # noqa: E402
from lib.oracle import Verdict  # noqa: E402
from lib.proxy import Proxy  # noqa: E402

import fake_clock  # noqa: E402
from churn import FAILING, Churn  # noqa: E402
from nemesis import Nemesis, plan  # noqa: E402
from stores import STORES  # noqa: E402

# An agent whose clock is off by no more than 250 ms may fire that early; the rest is what it takes to notice (the guard looks each
# half second, and a clock under its limit is followed slowly).
CLOCK_MS = 350.0
# A request may have been looked at for the last time when its process was stopped: it goes out when the process goes on. The longest
# stop, and a second for a verdict that was wrong.
UNDER_WAY_S = 14.0
# What was broken has to be mendable within this.
HEAL_S = 150.0
RETRY = {"retry": {"min_backoff": "200ms", "max_backoff": "2s"}}


class World:
    """Everything that runs."""

    def __init__(self, folder, agents, seed, store):
        self.folder, self.problems = folder, []
        self.proxies, self.links = [], {}
        self.consuls = ConsulServers(folder)
        self.store = STORES[store](self)
        self.callee = Callee(3, "callee", folder)
        self.other = Callee(1, "churn-callee", folder)
        self.clock = fake_clock.FakeClock(folder / "clock")
        self.count, self.seed = agents, seed
        self.cluster = None

    def start(self):
        fake_clock.sweep()  # a run that was killed did not
        for server in (self.consuls, self.callee, self.other):
            server.start()
        self.cluster = self.store.start()
        for n in range(self.count):
            self.add_agent(n)
        last = self.cluster.agents[-1].process
        last.env |= self.clock.env(last.env["LD_PRELOAD"])
        for agent in self.cluster.agents:
            agent.start(wait=False)
        for agent in self.cluster.agents:
            agent.wait_ready(30)
        self.cluster.wait_settled(60)

    def add_agent(self, n):
        consul = self.consuls.servers[n % len(self.consuls.servers)]
        to_consul = self.proxy(consul.http_port)
        agent, to_store = self.store.agent(self.cluster, n, to_consul.address)
        to_peer = self.proxy(agent.cluster_port)
        agent.config["cluster"]["advertise"] = to_peer.address
        agent.process.env = {"LD_PRELOAD": os.environ["CARILLON_REFUSER"], "CHAOS_REFUSE": str(self.refusal(agent))}
        self.links[agent.name] = {"consul": to_consul, "peers": to_peer, **to_store}

    def refusal(self, agent):
        """The file that has AGENT's new connections refused while it exists (refuse_connects.c)."""
        return self.folder / f"{agent.name}.refused"

    def proxy(self, port):
        self.proxies.append(Proxy(port))
        return self.proxies[-1]

    def agent(self, name):
        return next(a for a in self.cluster.agents if a.name == name)

    def expect(self, condition, text):
        if not condition:
            self.problems.append(text)

    def end(self):
        for proxy in self.proxies:
            proxy.close()
        procs.end_all(1)
        fake_clock.sweep()


def perform(world, steps, begin):
    """Each step at its time, and its end at its own, or as soon after as that can be; returns when all is healed."""
    nemesis = Nemesis(world, random.Random(f"{world.seed}-how"))
    moments = [(s.at, 0, n) for n, s in enumerate(steps)] + [(s.at + s.seconds, 1, n) for n, s in enumerate(steps)]
    heapq.heapify(moments)
    while moments:
        at, heals, n = heapq.heappop(moments)
        time.sleep(max(0.0, begin + at - time.monotonic()))
        fake_clock.sweep()
        now = time.monotonic() - begin
        if not heals:
            print(f"  {now:6.1f} s  {steps[n].fault} {steps[n].target}", flush=True)
            nemesis.begin(steps[n])
        elif nemesis.heal(steps[n]):
            print(f"  {now:6.1f} s  healed: {steps[n].fault} {steps[n].target}", flush=True)
        else:
            assert now < steps[n].at + HEAL_S, f"{steps[n]} could not be healed"
            heapq.heappush(moments, (now + 0.2, 1, n))


def recover(world):
    world.store.recover()
    for agent in world.cluster.agents:
        if not agent.process.alive():
            told = f"{agent.name} ended by itself with {agent.process.code}"
            if world.store.may_end(agent):
                print(f"{told}: it was started on a full disk")
            else:
                world.problems.append(told)
            agent.start(wait=False)
    begin = time.monotonic()
    for agent in world.cluster.agents:
        agent.wait_ready(60)
    world.cluster.wait_settled(60)
    print(f"healed and settled after {time.monotonic() - begin:.1f} s")


def judge(world, load, writer, churn, tolerances):
    agents = world.cluster.agents
    judges = [lambda: world.store.settle(world.cluster), lambda: judge_audit(agents[-1]), lambda: writer.check(agents[-1]),
              lambda: load.finish(agents[0]), lambda: judge_churn(world, churn, agents[1], tolerances),
              lambda: judge_audit(agents[0]), lambda: show_errors(agents), lambda: world.store.testify(world.cluster)]
    for one in judges:
        try:
            one()
        except AssertionError as e:
            world.problems.append(str(e))


def judge_audit(agent):
    """What should have happened by the jobs, against what is recorded: the product's own auditor."""
    def ask():
        answer = subprocess.run([binary(), "audit", "--addr", agent.url, "--all-namespaces"], capture_output=True, text=True, timeout=300,
                                check=False)
        assert answer.stdout, answer.stderr  # else nothing was looked at
        return answer
    done = procs.wait_until(ask, 60, "an answer of the auditor", interval=0.2)
    print(f"audit: {done.stdout.strip()}")
    assert done.returncode == 0, f"carillon audit: exit {done.returncode}\n{done.stdout}{done.stderr}"


def show_errors(agents):
    """Calls of the stores that failed, since each agent's last start: whatever goes wrong with a store, it passes."""
    counts = collections.Counter()
    for agent in agents:
        for sample, value in agent.metrics().items():
            if sample.startswith("carillon_store_errors_total"):
                counts[sample.split('class="')[1].split('"')[0]] += int(value)
    print("store errors: " + ", ".join(f"{k} {v}" for k, v in sorted(counts.items())))
    assert not counts["permanent"], f"{counts['permanent']} calls to the store failed for good"


def unheard(agent, fire):
    """The last attempt of FIRE that got no connection."""
    attempts = [a for a in agent.ask("GET", f"/v1/fires/{fire}", 200)["attempts"] if a["status"] is None]
    print(f"  {fire} did not come: " + "; ".join(f"{a['at']} {a['attempt']} {a['error']}" for a in attempts))
    return max((a["attempt"] for a in attempts if "onnect" in (a["error"] or "")), default=0)


def judge_churn(world, churn, agent, tolerances):
    jobs = churn.finish(agent)
    # No more dues, so that what an agent says now and what has arrived can be compared; and the fires of a paused job would wait.
    churn.end_pauses()
    for job_id in jobs:
        procs.wait_until(lambda job_id=job_id: agent.patch(job_id, {"schedule": "@after 1d", "paused": False}), 20,
                         f"{job_id} is put off", interval=0.2)

    def quiet():
        now = {j["id"]: j for j in agent.list(prefix="churn-", limit=1000)}
        pending = [j["id"] for j in now.values() if j["status"]["counts"]["pending"]]
        assert not pending, f"{pending} have pending fires, {pending[0]} {now[pending[0]]['status']}: {agent.fires(pending[0], limit=5)}"
        return now
    jobs = procs.wait_until(quiet, 30, "churned jobs without pending fires", interval=0.2)
    verdict = Verdict(world.other.records(), gaps_allowed=True, **tolerances)
    churn.judge_jobs(jobs, verdict, lambda fire: unheard(agent, fire))
    churn.judge_pauses(verdict)
    verdict.report("churn")
    # A run, and a PUT that plans anew, have dues of their own.
    verdict.problems = [p for p in verdict.problems if "dues do not grow" not in p]
    assert not churn.problems, f"{len(churn.problems)} problems:\n" + "\n".join(churn.problems[:30])
    verdict.check()


def run(args, folder):
    world = World(folder, args.agents, args.seed, args.store)
    names = "abcdefghijklmnopqrstuvwxyz"[:args.agents]
    cannot = world.store.cannot()
    if cannot:
        print(f"not on this machine: {', '.join(cannot)}")
    steps = plan(args.seed, args.seconds, names, world.store, without=[*args.without, *cannot])
    tolerances = {"under_way_s": UNDER_WAY_S, "early_ms": CLOCK_MS}
    try:
        world.start()
        agents = world.cluster.agents
        load = Load(world.cluster, world.callee, "load", args.jobs, job=RETRY, tolerances=tolerances).begin(agents[0])
        world.consuls.register("churned", world.other.port)
        world.other.behave({"path": FAILING, "status": 503})
        writer = Writer(agents, "w-chaos", pause=0.05)
        churn = Churn(agents, "churned", args.seed).start()
        with writer:
            begin, wall = time.monotonic(), time.time()
            perform(world, steps, begin)
            recover(world)
            print(f"{len(steps)} faults in {time.monotonic() - begin:.0f} s")
            churn.stop()
        judge(world, load, writer, churn, tolerances)
        show("lateness", lateness_between(Verdict(world.callee.records(), **tolerances), wall, time.time()))
    except AssertionError as e:
        world.problems.append(str(e))
    finally:
        world.end()
    return steps, world.problems


def end_by_signal(number, _):
    """As any other end of `run`: everything that was started ends. Whoever asks twice waits all the same."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(f"chaos: ended by {signal.Signals(number).name}")


def main():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end_by_signal)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=45.0, help="how long things go wrong")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--store", choices=STORES, default="mysql")
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--without", action="append", default=[], help="a fault to leave out")
    parser.add_argument("--logs", type=pathlib.Path, required=True, help="where the logs of a run that failed are kept")
    parser.add_argument("--results", type=pathlib.Path)
    args = parser.parse_args()
    args.seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    print(f"chaos: SEED={args.seed}, {args.seconds:.0f} s, {args.agents} agents on {args.store}", flush=True)
    folder = procs.make_folder("carillon-chaos-")
    steps, problems = run(args, folder)
    if args.results:
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(json.dumps({"passed": int(not problems), "failed": int(bool(problems))}), encoding="utf-8")
    if not problems:
        print(f"chaos: ok, SEED={args.seed}")
        return 0
    print("\nThe story:\n" + "\n".join(map(str, steps)))
    print("\nWhat is wrong:\n" + "\n".join(problems))
    keep = args.logs / f"seed-{args.seed}"
    shutil.rmtree(keep, ignore_errors=True)
    keep.mkdir(parents=True)
    for log in folder.glob("*.log"):
        shutil.copy(log, keep)
    print(f"\nchaos: FAILED; logs in {keep}; the same again: make chaos STORE={args.store} SEED={args.seed} CHAOS_SECONDS={args.seconds:.0f}")
    return 1


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
