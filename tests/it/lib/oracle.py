"""Judges what a callee saw: nothing lost, nothing twice but as a repeat of the same fire, nothing early.

Works on the records of lib/callee.py. A job has the uid in its fire id (`<uid>.<seq>`) and its seqs are 1, 2, 3 …
"""
import collections
import dataclasses
import datetime
import math

EARLY_TOLERANCE_MS = 0.999  # due is in whole ms
# One that is declared dead while it lives learns so with its next write or beat: what it had begun by then and what the new owner
# began arrive in either order.
UNDER_WAY_S = 1.0


@dataclasses.dataclass
class Delivery:
    """One arrival of one fire."""
    uid: str
    job: str
    seq: int
    due: float        # Unix seconds
    attempt: int
    epoch: int
    at: float         # monotonic seconds
    wall: float       # Unix seconds
    port: int
    status: int | None

    @property
    def lateness_ms(self):
        return (self.wall - self.due) * 1000


def instant(text):
    """Unix seconds of an RFC 3339 instant."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def deliveries(records):
    """The callbacks among the records of a callee; what has no fire id (health checks) is left out."""
    result = []
    for r in records:
        headers = r["headers"]
        if "ce-id" not in headers:
            continue
        uid, seq = headers["ce-id"].rsplit(".", 1)
        assert headers["carillon-seq"] == seq, f"seq {headers['carillon-seq']} in fire {headers['ce-id']}"
        assert headers["idempotency-key"].strip('"') == headers["ce-id"], headers
        result.append(Delivery(uid, headers["ce-subject"], int(seq), instant(headers["ce-time"]),
                               int(headers["carillon-attempt"]), int(headers["carillon-epoch"]),
                               r["at"], r["wall"], r["port"], r["status"]))
    return result


class Verdict:
    """What is wrong with a list of deliveries, and its figures."""

    def __init__(self, records, jobs=None, early_ms=EARLY_TOLERANCE_MS, under_way_s=UNDER_WAY_S, gaps_allowed=False):
        """GAPS_ALLOWED: for jobs that are replaced and deleted, which ends what was owed for them."""
        self.early_ms, self.under_way_s, self.gaps_allowed = early_ms, under_way_s, gaps_allowed
        self.deliveries = deliveries(records)
        self.by_job = collections.defaultdict(list)
        for d in self.deliveries:
            self.by_job[d.uid].append(d)
        self.problems = []
        self.repeats = []    # deliveries of a fire that had arrived before
        self.overtaken = []  # of those, what an older owner had under way: allowed, and printed
        for uid, of_job in self.by_job.items():
            self._judge(uid, of_job)
        if jobs is not None:
            seen = {d.job for d in self.deliveries}
            self.problems += [f"job {j}: no callback at all" for j in sorted(set(jobs) - seen)]

    def _judge(self, uid, of_job):
        job = of_job[0].job
        fires = {}
        for d in sorted(of_job, key=lambda d: d.at):
            first = fires.setdefault(d.seq, d)
            if d is not first:
                self.repeats.append(d)
                if abs(d.due - first.due) > 0.0005:
                    self.problems.append(f"job {job}: fire {uid}.{d.seq} came with due {first.due} and {d.due}")
            if d.lateness_ms < -self.early_ms:
                self.problems.append(f"job {job}: fire {uid}.{d.seq} came {-d.lateness_ms:.1f} ms early")
            if d.epoch < first.epoch:
                told = f"job {job}: fire {uid}.{d.seq}: epoch went from {first.epoch} to {d.epoch} after {d.at - first.at:.3f} s"
                (self.problems if d.at - first.at > self.under_way_s else self.overtaken).append(told)
        missing = [s for s in range(1, max(fires) + 1) if s not in fires]
        if missing and not self.gaps_allowed:
            self.problems.append(f"job {job}: of seq 1..{max(fires)} these never came: {missing[:20]}")
        dues = [fires[s].due for s in sorted(fires)]
        if any(b <= a for a, b in zip(dues, dues[1:])):
            self.problems.append(f"job {job}: dues do not grow with seq")

    def check(self, repeats_allowed=True):
        """Fail with everything that is wrong."""
        problems = list(self.problems)
        if not self.deliveries:
            problems.append("no callback arrived")
        if not repeats_allowed:
            problems += [f"job {d.job}: fire {d.uid}.{d.seq} came again (attempt {d.attempt})" for d in self.repeats]
        assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:50])
        return self

    def firsts(self):
        """The first delivery of each fire."""
        seen = {}
        for d in self.deliveries:
            key = (d.uid, d.seq)
            if key not in seen or d.at < seen[key].at:
                seen[key] = d
        return list(seen.values())

    def lateness(self):
        """Lateness in ms of the first delivery of each fire, sorted."""
        return sorted(d.lateness_ms for d in self.firsts())

    def longest_gap(self):
        """(seconds, job) of the longest time between two first deliveries of a job."""
        worst = (0.0, None)
        by_job = collections.defaultdict(list)
        for d in self.firsts():
            by_job[d.uid].append(d)
        for of_job in by_job.values():
            times = sorted(d.at for d in of_job)
            for a, b in zip(times, times[1:]):
                worst = max(worst, (b - a, of_job[0].job))
        return worst

    def report(self, title=""):
        for told in self.overtaken:
            print(f"  {told}")
        print(f"{title}: {len(self.by_job)} jobs, {len(self.firsts())} fires, {len(self.repeats)} repeats; "
              f"lateness ms {distribution(self.lateness())}")
        return self


def quantile(ordered, q):
    """The value at or under which a share Q of a sorted list lies."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def distribution(values):
    """One line of text."""
    if not values:
        return "none"
    ordered = sorted(values)
    return " ".join(f"{name}={quantile(ordered, q):.1f}" for name, q in
                    (("min", 0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1)))
