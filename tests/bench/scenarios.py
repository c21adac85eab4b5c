"""The scenarios. Each takes a Bench (bench.py: sizes, figures, servers) and a store, and adds figures."""
import time

from machine import cpu_seconds_exact, peak_rss_mib, rss_mib
from rig import BenchError, Rig, instant, run_tool

# A fire may be so late, and so many may be missing, before a rate counts as not sustained.
LATE_MS_MAX = 1000
ARRIVED_MIN = 0.97
# The rates of a ladder, as shares of what is done bare in the same run: these, then from one on ever higher until one is not sustained.
LADDER = ((0.14, 0.2, 0.26, 0.35), 0.44, 1.08)
STREAM_LADDER = ((0.07, 0.13), 0.18, 1.2)  # a one-shot costs more than a fire
STEPS_MAX = 24
# So many writes bring about a snapshot, where snapshots are what is measured.
SNAPSHOT_ENTRIES = 3000


def submit(bench, store):
    """Creates, each a durable write of its own, over 1, 16 and 64 connections."""
    targets = {"mysql": {1: "p50 ≤ 0.8 ms", 64: "≥ 15,000/s, p99 ≤ 12 ms"}, "raft": {1: "p50 ≤ 0.4 ms", 64: "≥ 30,000/s, p99 ≤ 8 ms"}}
    with Rig(store, bench.mariadb, "submit") as rig:
        for run in range(bench.runs):
            commit = bench.commit_ms(store, rig)
            for connections, count in bench.submits:
                bare = run_tool("load", port=rig.callee.port, connections=connections, requests=count, method="POST", path="/x", body="{}")
                meter = rig.meter()
                got = rig.load(connections, count, f"s{run}c{connections}")
                used = meter.read()
                target = targets[store].get(connections)
                name = f"submit, {connections} connection{'s' if connections > 1 else ''}"
                bench.figures.add(name, store, "rate", "/s", got["per_s"], ("generator to callee", bare["per_s"]), target)
                bench.figures.add(name, store, "p50", "ms", got["ms"]["p50"], commit if connections == 1 else None)
                bench.figures.add(name, store, "p99", "ms", got["ms"]["p99"])
                _add_cpu(bench, name, store, used, count, "a job")


def _add_cpu(bench, name, store, used, count, each, target=None):
    """Who spent how much on each of COUNT; all of it is on the same cores."""
    for process, whose in (("agent", "agent's"), ("mariadb", "database's"), ("callee", "callee's"), ("driver", "generator's")):
        if used.get(process, 0) / count >= 0.5e-6:
            bench.figures.add(name, store, f"{whose} CPU {each}", "µs", used[process] / count * 1e6, None,
                              target if process == "agent" else None)
    bench.note_others(name, store, used)


def bulk(bench, store):
    """Many jobs in one request."""
    with Rig(store, bench.mariadb, "bulk") as rig:
        for run in range(bench.runs):
            limit = bench.rows_per_s(store, rig)
            meter = rig.meter()
            took = rig.bulk(f"b{run}", ({"schedule": "@after 1d"} for _ in range(bench.bulk_jobs)))
            used = meter.read()
            bench.figures.add("bulk", store, f"{bench.bulk_jobs:,} jobs", "/s", bench.bulk_jobs / took, limit,
                              "≥ 50,000/s" if store == "mysql" else "≥ 100,000/s")
            _add_cpu(bench, "bulk", store, used, bench.bulk_jobs, "a job")


def burst(bench, store):
    """One-shots that are due at one instant: when the last one arrives."""
    targets = {"mysql": {10_000: "≤ 0.5 s", 100_000: "≤ 5 s"}, "raft": {10_000: "≤ 0.35 s", 100_000: "≤ 3.5 s"}}
    with Rig(store, bench.mariadb, "burst") as rig:
        per_s = 20_000 / rig.bulk("probe", ({"schedule": "@after 1d"} for _ in range(20_000)))
        for count in bench.bursts:
            for run in range(bench.runs):
                bare = bench.posts(rig.callee.port, min(count, 20_000))
                due = time.time() + 2 + 1.5 * count / per_s
                name = f"o{count}r{run}"
                rig.bulk(name, ({"schedule": f"@at {instant(due)}"} for _ in range(count)))
                if time.time() > due - 0.5:
                    raise BenchError(f"burst of {count}: the jobs were made too late; a quieter machine is needed")
                rig.callee.reset()
                meter = rig.meter()
                due_mono = time.monotonic() + due - time.time()
                time.sleep(max(0.0, due_mono - time.monotonic()))
                if not rig.callee.wait_for(count, 60 + count / 1000):
                    raise BenchError(f"burst of {count}: only {rig.callee.count()} came")
                stats, used = rig.callee.stats(), meter.read()
                last = stats["last_s"] - due_mono
                bench.figures.add(f"burst, {count:,}", store, "last arrives after", "s", last, ("as many bare POSTs", count / bare),
                                  targets[store].get(count))
                bench.figures.add(f"burst, {count:,}", store, "p50", "s", stats["late_ms"]["p50"] / 1e3)
                _add_cpu(bench, f"burst, {count:,}", store, used, count, "a fire")
                if stats["repeats"]:
                    bench.figures.note(f"burst {store}: {stats['repeats']} were no first attempts")


class Step:
    """One rate of a ladder, and what came of it."""

    def __init__(self, rate, per_s, p99_ms, used, count):
        self.rate, self.per_s, self.p99_ms, self.used, self.count = rate, per_s, p99_ms, used, count
        self.late = {}

    def sustained(self):
        return self.per_s >= ARRIVED_MIN * self.rate and self.p99_ms <= LATE_MS_MAX

    def sustained_per_s(self):
        """A window may make up for what was late before it."""
        return min(self.per_s, self.rate)

    def cpu(self):
        return "CPU s/s " + ", ".join(f"{k} {v / self.used['seconds']:.2f}" for k, v in self.used.items() if k != "seconds")


def _rates(bare, ladder):
    low, first, growth = ladder
    yield from (round(share * bare) for share in low)
    for n in range(STEPS_MAX - len(low)):
        yield round(first * bare * growth ** n)


def _measure_step(rig, rate, seconds):
    rig.callee.reset()
    before, meter = rig.stages(), rig.meter()
    began = time.monotonic()
    time.sleep(seconds)
    stats = rig.callee.stats()
    took = time.monotonic() - began
    after = rig.stages()
    step = Step(rate, stats["count"] / took, stats["late_ms"].get("p99", 1e9), meter.read(), stats["count"])
    stages = {k: (v[0] - before.get(k, (0, 0))[0]) / max(1, v[1] - before.get(k, (0, 0))[1]) * 1e3 for k, v in after.items()}
    print(f"  {rig.store} @every 1s {rate}/s: {step.per_s:.0f}/s arrived, p99 {step.p99_ms:.0f} ms late; {step.cpu()}; ms "
          + ", ".join(f"{k} {v:.1f}" for k, v in stages.items()), flush=True)
    step.late = stats["late_ms"]
    return step


def _measure_grpc_step(rig, rate, seconds):
    """In the agent's own words: a call ends only when it was answered."""
    before, meter, began = rig.lateness(), rig.meter(rig.grpc), time.monotonic()
    time.sleep(seconds)
    after, took, used = rig.lateness(), time.monotonic() - began, meter.read()
    fires = [(le, n - o) for (le, n), (_, o) in zip(after, before)]
    count = fires[-1][1]
    p99 = next(le for le, n in fires if n >= 0.99 * count) * 1e3
    step = Step(rate, count / took, p99, used, count)
    print(f"  {rig.store} gRPC @every 1s {rate}/s: {step.per_s:.0f}/s ended, p99 at most {p99:.0f} ms late; {step.cpu()}", flush=True)
    return step


def _climb(bench, rig, rates, measure, callback=None):
    """Ever more jobs @every 1s, evenly spread, up to the first rate that is not sustained: (its steps, the last sustained one)."""
    steps, jobs, best = [], 0, None
    for rate in rates:
        new = rate - jobs
        begin = time.time() + 0.7 + new / 15_000
        rig.bulk(f"e{rate}", ({"schedule": "@every 1s", "starts_at": instant(begin + i / new)} for i in range(new)), callback)
        jobs = rate
        time.sleep(max(0.0, begin + 1.2 - time.time()))
        steps.append(measure(rig, rate, bench.seconds))
        if not steps[-1].sustained():
            break
        best = steps[-1]
    else:
        bench.figures.note(f"{rig.store}: all {len(steps)} rates that were tried are sustained")
    if not best:
        raise BenchError(f"{rig.store}: {steps[0].per_s:.0f}/s of {steps[0].rate}/s, p99 {steps[0].p99_ms} ms late")
    return steps, best


def steady(bench, store):
    """Jobs @every 1s, evenly spread, more and more of them; lateness at half of what is sustained."""
    for run in range(bench.steady_runs):
        with Rig(store, bench.mariadb, f"steady{run}") as rig:
            bare = bench.posts(rig.callee.port, 60_000)
            steps, best = _climb(bench, rig, _rates(bare, LADDER), _measure_step)
            add = bench.figures.add
            add("steady @every 1s", store, "sustained", "/s", best.sustained_per_s(), ("bare POSTs", bare), "≥ 20,000/s, ratio ≥ 0.5"
                if store == "mysql" else "≥ 30,000/s, ratio ≥ 0.7")
            add("steady @every 1s", store, "most arrived", "/s", max(s.per_s for s in steps), ("bare POSTs", bare))
            if store == "mysql":
                add("steady @every 1s", store, "sustained, of the database", "/s", best.sustained_per_s(),
                    ("bare UPDATE rows", bench.limits["mysql"]["updates_per_s"]))
            _add_cpu(bench, "steady @every 1s", store, best.used, best.count, "a fire", "≤ 45 µs" if store == "mysql" else "≤ 35 µs")
            half = [s for s in steps if s.rate <= best.rate / 2]
            if half:
                add("half load", store, "rate", "/s", half[-1].per_s)
                for place, target in (("p50", None), ("p99", "≤ 10 ms"), ("p999", "≤ 30 ms"), ("max", None)):
                    add("half load", store, f"lateness {place}", "ms", half[-1].late[place], None, target)
            else:
                bench.figures.note(f"half load, {store}: no result: only {best.rate}/s, the lowest rate, is sustained")


def grpc(bench, store):
    """The same over gRPC."""
    with Rig(store, bench.mariadb, "grpc") as rig:
        rig.grpc.start()
        bare = run_tool("limit_grpc", port=rig.grpc.port, requests=20_000, in_flight=64)
        add = bench.figures.add
        add("raw limit", "-", "bare gRPC calls, 64 under way", "/s", bare["per_s"])
        add("raw limit", "-", "CPU of a bare gRPC call", "µs", bare["cpu_us_each"])
        _, best = _climb(bench, rig, _rates(bare["per_s"], LADDER), _measure_grpc_step,
                         {"grpc": {"service": "bench-grpc"}, "timeout": "30s"})
        add("gRPC, @every 1s", store, "sustained", "/s", best.sustained_per_s(), ("bare gRPC calls", bare["per_s"]))
        add("gRPC, @every 1s", store, "lateness p99, at most", "ms", best.p99_ms)
        _add_cpu(bench, "gRPC, @every 1s", store, best.used, best.count, "a fire")


def _measure_stream_step(rig, rate, seconds):
    """One-shots in four requests a second, due a second after they were made; None when they were made too slowly."""
    rig.callee.reset()
    meter, began, chunk = rig.meter(), time.time(), rate // 4
    for n in range(seconds * 4):
        first = began + n / 4
        rig.bulk(f"q{rate}-{n}", ({"schedule": f"@at {instant(first + 1 + i / rate)}"} for i in range(chunk)))
        time.sleep(max(0.0, first + 0.25 - time.time()))
    behind = time.time() - began - seconds
    whole = rig.callee.wait_for(chunk * seconds * 4, 30)
    stats, used = rig.callee.stats(), meter.read()
    step = Step(rate, stats["count"] / seconds, stats["late_ms"].get("p99", 1e9), used, stats["count"])
    print(f"  {rig.store} one-shots {rate}/s: made {behind:.2f} s behind, {step.count} came, p99 {step.p99_ms:.0f} ms late; {step.cpu()}",
          flush=True)
    return step if whole and step.sustained() and behind <= (1 - ARRIVED_MIN) * seconds else None


def stream(bench, store):
    """One-shots made all the time, more and more a second: making, firing and ending a job beside each other."""
    with Rig(store, bench.mariadb, "stream") as rig:
        posts, steps = bench.posts(rig.callee.port, 20_000), []
        bare = bench.pairs_per_s(store, rig)
        for rate in _rates(posts, STREAM_LADDER):
            step = _measure_stream_step(rig, rate - rate % 4, bench.seconds + 1)
            if not step:
                break
            steps.append(step)
        if not steps:
            raise BenchError(f"one-shots streaming, {store}: not even {rate}/s")
        best, add = steps[-1], bench.figures.add
        add("one-shots streaming", store, "sustained", "/s", best.sustained_per_s(), bare)
        add("one-shots streaming", store, "sustained, of bare POSTs", "/s", best.sustained_per_s(), ("bare POSTs", posts))
        add("one-shots streaming", store, "lateness p99", "ms", best.p99_ms)
        _add_cpu(bench, "one-shots streaming", store, best.used, best.count, "a job")
        for step in [s for s in steps if s.rate <= best.rate / 2][-1:]:
            add("one-shots streaming", store, "lateness p99 at half of it", "ms", step.p99_ms)


def micro(bench):
    """Single functions of the hot path."""
    for _ in range(bench.runs):
        for name, ns in run_tool("micro", rounds=bench.micro_rounds).items():
            bench.figures.add("function", "-", name, "ns", ns)


def idle(bench, store):
    """An agent without jobs, once it has looked through all slots for jobs planned with older zone data."""
    with Rig(store, bench.mariadb, "idle") as rig:
        time.sleep(bench.settle_seconds)
        pid = rig.agent.process.pid
        for _ in range(bench.runs):
            before, began = cpu_seconds_exact(pid), time.monotonic()
            time.sleep(bench.idle_seconds)
            share = (cpu_seconds_exact(pid) - before) / (time.monotonic() - began)
            bench.figures.add("idle", store, "CPU", "% of a core", share * 100, None, "≤ 0.5 %")
            bench.figures.add("idle", store, "RSS", "MiB", rss_mib(pid), None, "≤ 15 MB")


def stored(bench, store):
    """Many jobs that are due much later: memory, start, pages, and whether writing and firing are as fast as without them."""
    for count in bench.stored:
        with Rig(store, bench.mariadb, "stored") as rig:
            name = f"{count:,} stored"
            took = rig.bulk("k", ({"schedule": "@after 30d"} for _ in range(count)))
            bench.figures.add(name, store, "made", "/s", count / took)
            bench.figures.add(name, store, "RSS", "MiB", rss_mib(rig.agent.process.pid))
            if store == "raft":
                bench.figures.add(name, store, "folder of the log and its snapshots", "MiB", rig.raft_mib())
            for run in range(bench.runs):
                rig.agent.term(grace=60)
                began = time.monotonic()
                rig.agent.start(timeout=120)
                bench.figures.add(name, store, "start to ready", "s", time.monotonic() - began, None,
                                  "≤ 2 s" if store == "mysql" else "≤ 6 s")
                bench.figures.add(name, store, "its CPU", "s", cpu_seconds_exact(rig.agent.process.pid))
                time.sleep(1)
                bench.figures.add(name, store, "RSS after start", "MiB", rss_mib(rig.agent.process.pid), None,
                                  "≤ 100 MB" if store == "mysql" else "≤ 700 MB")
                pages = rig.agent.pages(prefix="k-", limit=1000)
                next(pages)
                began = time.monotonic()
                next(pages)
                bench.figures.add(name, store, "page of 1,000", "ms", (time.monotonic() - began) * 1e3)
                got = rig.load(64, 10_000, f"s{run}")
                bench.figures.add(name, store, "submit, 64 connections", "/s", got["per_s"])
            _fire_beside_stored(bench, rig, name)
            if store == "raft":
                _fire_beside_snapshots(bench, rig, name)


def _fire_beside_stored(bench, rig, name):
    """A steady rate of other jobs, which are gone afterwards."""
    rate, begin = bench.stored_rate, time.time() + 2
    rig.bulk("r", ({"schedule": "@every 1s", "starts_at": instant(begin + i / rate)} for i in range(rate)))
    time.sleep(max(0.0, begin + 1.5 - time.time()))
    step = _measure_step(rig, rate, bench.seconds)
    bench.figures.add(name, rig.store, f"of {rate:,} fires a second come", "/s", step.per_s)
    bench.figures.add(name, rig.store, "their lateness p99", "ms", step.p99_ms, None, "≤ 10 ms")
    _add_cpu(bench, name, rig.store, step.used, step.count, "a fire")
    rig.delete("r")


def _fire_beside_snapshots(bench, rig, name):
    """A steady rate while all that is stored is written down as a snapshot, and before and after that."""
    rate = bench.snapshot_rate
    rig.agent.config["store"]["raft"] = {"snapshot_entries": SNAPSHOT_ENTRIES}
    rig.agent.term(grace=60)
    rig.agent.start(timeout=120)
    begin = time.time() + 2
    rig.bulk("t", ({"schedule": "@every 1s", "starts_at": instant(begin + i / rate)} for i in range(rate)))
    time.sleep(max(0.0, begin + 2 - time.time()))
    rig.callee.reset()
    since, meter = time.time(), rig.meter()
    spans = rig.wait_for_snapshots(since, bench.snapshots, 180)
    time.sleep(2)
    used = meter.read()
    wall = time.time() - time.monotonic()
    late = {True: [], False: []}
    for at, due, *_ in rig.callee.log():
        late[any(begin - 0.05 <= due <= end for begin, end, _ in spans)].append((at + wall - due) * 1e3)
    for meanwhile, what in ((True, "while a snapshot is written"), (False, "at other times")):
        values = sorted(late[meanwhile])
        if not values:
            raise BenchError(f"{name}: no fires {what}")
        for share, place in ((0.5, "p50"), (0.99, "p99"), (1, "max")):
            bench.figures.add(f"{name}, {rate}/s {what}", "raft", f"lateness {place}", "ms", values[min(len(values) - 1, int(share * len(values)))],
                              None, "≤ 50 ms" if meanwhile and place == "p99" else None)
    for begin, end, size in spans:
        bench.figures.add(f"{name}, its snapshot", "raft", "takes", "s", end - begin)
        bench.figures.add(f"{name}, its snapshot", "raft", "size", "MiB", size / (1 << 20))
    bench.figures.add(f"{name}, its snapshot", "raft", "RSS at most", "MiB", peak_rss_mib(rig.agent.process.pid))
    bench.note_others(f"{name}, snapshots", "raft", used)


def failover(bench, store):
    """Three agents on Consul, and MariaDB or a log of their own: one is killed, one leaves."""
    from cluster import Three  # pylint: disable=import-outside-toplevel  # it needs Consul
    with Three(bench, store) as three:
        for _ in range(bench.kills):
            bench.figures.add("take-over (kill -9)", store, "first fire by the new owner", "s", three.kill(), None,
                              "≤ 0.5 s" if store == "mysql" else "≤ 2 s (voter)")
            bench.figures.add("hand-over (SIGTERM)", store, "latest fire of a moved job", "ms", three.leave())
