"""Recurring jobs as a load: made by bulk, their callbacks recorded by a callee, judged against what the agents say."""
import datetime
import threading
import time

import requests

from .oracle import Verdict, distribution
from .procs import wait_until


def rfc3339(unix_seconds):
    when = datetime.datetime.fromtimestamp(unix_seconds, datetime.timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


class Load:
    """COUNT jobs NAME-0, NAME-1 … `@every 1s`, their phases spread over the second, calling the service `NAME-callee`, as
    which the callee's ports are registered (`NAME` alone might be Consul's own service)."""

    def __init__(self, cluster, callee, name, count=300, job=None, slowest=0.0, tolerances=None):
        """SLOWEST: seconds that the callee takes at most; until a callback is answered its due is not written down. TOLERANCES:
        of the Verdict."""
        self.tolerances = tolerances or {}
        self.cluster, self.callee, self.name, self.count, self.slowest = cluster, callee, name, count, slowest
        self.service = f"{name}-callee"
        self.ids = [f"{name}-{i}" for i in range(count)]
        self.job = job or {}
        self.register()

    def register(self):
        """Also for a Consul that was emptied."""
        self.instances = [self.cluster.consul.register(self.service, port) for port in self.callee.ports]

    def begin(self, agent, every="1s"):
        """Create the jobs through AGENT; returns when each has fired."""
        begin = time.time() + 0.5
        agent.bulk({"op": "create", "id": job_id, "job": {
            "schedule": f"@every {every}", "starts_at": rfc3339(begin + i / self.count),
            "callback": {"http": {"service": self.service, "path": "/fire"}}, **self.job}}
            for i, job_id in enumerate(self.ids))
        wait_until(lambda: self.callee.count() >= self.count, 20, f"{self.count} callbacks of {self.name}")
        return self

    def owners(self):
        """{job id: name of its owner}, from the store: an agent may learn of others' moves ten seconds later."""
        rows = self.cluster.sql("SELECT jobs.id AS id, members.name AS name FROM jobs JOIN slots USING (slot) "
                                "JOIN members ON members.member = slots.owner")
        return {row["id"]: row["name"].decode() for row in rows}

    def finish(self, agent, repeats_allowed=True, settle=3.0):
        """Wait until nothing is overdue or under way, compare the callee's records with the counts that AGENT answers, delete
        the jobs. The verdict."""
        time.sleep(settle)
        jobs = wait_until(lambda: self._counts(agent), 30, f"jobs of {self.name} without pending fires", interval=0.2)
        verdict = Verdict(self.callee.each(), jobs=self.ids, **self.tolerances)
        self._show_failed_attempts(agent, verdict)
        delete_all(agent, f"{self.name}-")
        seen = {uid: {d.seq for d in of_job} for uid, of_job in verdict.by_job.items()}
        for job in jobs:
            status, counts = job["status"], job["status"]["counts"]
            ended = sum(counts[k] for k in ("succeeded", "dead", "skipped", "coalesced", "cancelled", "pending"))
            if ended != counts["seq"]:
                verdict.problems.append(f"job {job['id']}: seq {counts['seq']}, but {counts}")
            if counts["succeeded"] != ended:
                verdict.problems.append(f"job {job['id']}: not every fire succeeded: {counts}")
            # Every seq that is booked has arrived.
            missing = set(range(1, counts["seq"] + 1)) - seen.get(status["uid"], set())
            if missing:
                verdict.problems.append(f"job {job['id']}: booked as succeeded, but never came: {sorted(missing)[:20]}")
        assert len(jobs) == self.count, f"{len(jobs)} of {self.count} jobs are left"
        return verdict.report(self.name).check(repeats_allowed)

    @staticmethod
    def _show_failed_attempts(agent, verdict):
        again = [d for d in verdict.deliveries if d.attempt > 1]
        print(f"{len(again)} deliveries were no first attempt")
        for d in again[:5]:
            fire = agent.ask("GET", f"/v1/fires/{d.uid}.{d.seq}", 200)
            print(f"  {d.job} seq {d.seq}, {d.lateness_ms:.0f} ms late:",
                  "; ".join(f"{a['at']} {a['endpoint']} {a['status']} {a['error']} after {a['duration_ms']} ms" for a in fire["attempts"]))

    def _counts(self, agent):
        """The jobs, if none has a pending fire."""
        jobs = agent.list(prefix=f"{self.name}-", limit=1000)
        now = time.time()
        late = [j for j in jobs if j["status"]["counts"]["pending"] or (
            j["status"]["next_due"] and _seconds(j["status"]["next_due"]) < now - self.slowest - 2)]
        assert not late, f"{len(late)} jobs are behind: {late[0]['status']}"
        return jobs


def _seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Writer:
    """Creates jobs due tomorrow, one after the other, through all agents in turn, as applications do: what was
    answered 2xx is `acknowledged`, what was answered 503 or not at all is tried again with the same id."""

    def __init__(self, agents, name, pause=0.01):
        self.agents, self.name, self.pause = agents, name, pause
        self.acknowledged = []
        self.refused = 0
        self.slowest = 0.0
        self.problems = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._end.set()
        self._thread.join(30)

    def _run(self):
        n = 0
        while not self._end.is_set():
            self._write(f"{self.name}-{n}", n)
            n += 1
            self._end.wait(self.pause)

    def _write(self, job_id, n):
        body = {"schedule": "@after 1d", "payload": {"n": n}, "callback": {"http": {"service": "w", "path": "/w"}}}
        for attempt in range(200):
            agent = self.agents[(n + attempt) % len(self.agents)]
            begin = time.monotonic()
            try:
                answer = requests.put(f"{agent.url}/v1/jobs/{job_id}", json=body, timeout=8)
            except requests.exceptions.RequestException:
                self._end.wait(0.1)
            else:
                if answer.ok:
                    self.slowest = max(self.slowest, time.monotonic() - begin)
                    self.acknowledged.append(job_id)
                    return
                if answer.status_code != 503 or "retry-after" not in answer.headers:
                    self.problems.append(f"{job_id}: {answer.status_code} {answer.text[:300]}")
                    return
                self.refused += 1
                self._end.wait(0.1)
            if self._end.is_set():
                return

    def check(self, agent):
        """Every acknowledged write is there; afterwards they are deleted."""
        assert not self.problems, self.problems[:5]
        jobs = wait_until(lambda: [agent.list(prefix=f"{self.name}-", limit=1000)], 20, f"jobs {self.name}- listed", interval=0.2)[0]
        stored = {job["id"] for job in jobs}
        lost = [job_id for job_id in self.acknowledged if job_id not in stored]
        print(f"writes: {len(self.acknowledged)} acknowledged, {self.refused} refused with 503 meanwhile, "
              f"slowest {self.slowest:.2f} s")
        assert not lost, f"{len(lost)} acknowledged jobs are gone: {lost[:10]}"
        delete_all(agent, f"{self.name}-")


def delete_all(agent, prefix):
    """An agent whose store has come back this very second may say: later."""
    wait_until(lambda: agent.call("DELETE", f"/v1/jobs?prefix={prefix}", timeout=30).status_code == 200, 20, f"jobs {prefix} deleted",
               interval=0.2)


def check_store(cluster):
    """No slot without an owner that is alive in the store."""
    rows = cluster.sql("SELECT COUNT(*) AS n FROM slots LEFT JOIN members ON members.member = slots.owner "
                       "WHERE members.member IS NULL OR members.dead = 1")
    assert rows[0]["n"] == 0, f"{rows[0]['n']} slots belong to nobody alive"


def lateness_between(verdict, begin, end, jobs=None):
    """Lateness in ms of first deliveries that were due in [begin, end) (Unix seconds), sorted."""
    return sorted(d.lateness_ms for d in verdict.firsts()
                  if begin <= d.due < end and (jobs is None or d.job in jobs))


def show(title, values, unit="ms"):
    print(f"{title}: {distribution(values)} {unit}")
