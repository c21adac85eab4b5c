"""Writes that race one another and everything else: PUT, DELETE and run of a few ids, each id by one thread at a time, so that what
was last acknowledged is what has to be there."""
import random
import threading
import uuid

import requests
from lib.procs import wait_until


class Churn:
    """THREADS writers over COUNT ids; `finish` compares with what an agent answers."""

    def __init__(self, agents, service, seed, count=40, threads=4):
        self.agents, self.service = agents, service
        self.ids = [f"churn-{i}" for i in range(count)]
        self.there = {}       # id: whether it has to be there; None: the last write has no answer
        self.runs = {}        # id: fires of its runs since it was made
        self.owed = []        # fires of runs that were acknowledged and whose job was not deleted afterwards
        self.problems = []
        self.acknowledged = 0
        self.again = 0
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(random.Random(f"{seed}-{n}"), self.ids[n::threads]), daemon=True)
                         for n in range(threads)]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._end.set()
        for thread in self._threads:
            thread.join(120)

    def _write(self, rng, ids):
        while not self._end.is_set():
            job_id = rng.choice(ids)
            op = rng.choices(("put", "delete", "run"), (6, 3, 3))[0]
            try:
                self._do(rng, op, job_id)
            except Exception as e:  # pylint: disable=broad-except  # a thread that dies unheard would look like success
                self.problems.append(f"{op} {job_id}: {e!r}")
            self._end.wait(rng.uniform(0.0, 0.2))

    def _do(self, rng, op, job_id):
        before = self.there.get(job_id, False)
        if op == "run" and not before:
            return
        self.there[job_id] = None
        answer = self._acknowledged(rng, op, job_id)
        if answer is None:
            return
        self.acknowledged += 1
        if op == "put":
            self.there[job_id] = True
        elif op == "delete":
            self.there[job_id] = False
            self.runs.pop(job_id, None)
        else:
            self.there[job_id] = True
            if answer["fire"]:
                self.runs.setdefault(job_id, []).append(answer["fire"])

    def _acknowledged(self, rng, op, job_id):
        """What was answered, after as many tries as it takes; None when there is no time left."""
        key = str(uuid.UUID(int=rng.getrandbits(128)))
        body = {"schedule": rng.choice(("@every 1s", "@every 2s", "@after 1h")), "payload": {"key": key},
                "retry": {"min_backoff": "200ms", "max_backoff": "2s"},
                "callback": {"http": {"service": self.service, "path": "/churn"}}}
        request = {"put": ("PUT", f"/v1/jobs/{job_id}", body), "delete": ("DELETE", f"/v1/jobs/{job_id}", None),
                   "run": ("POST", f"/v1/jobs/{job_id}/run", {})}[op]
        right = {"put": (200, 201), "delete": (200, 404), "run": (202,)}[op]
        for attempt in range(10000):
            agent = rng.choice(self.agents)
            try:
                answer = requests.request(request[0], agent.url + request[1], json=request[2], timeout=8,
                                          headers={"Idempotency-Key": f'"{key}"', "Carillon-Client": "churn"})
            except requests.exceptions.RequestException:
                answer = None
            if answer is not None and answer.status_code in right:
                return answer.json()
            if answer is not None and not (answer.status_code == 503 and "retry-after" in answer.headers):
                self.problems.append(f"{op} {job_id}, try {attempt + 1}: {answer.status_code} {answer.text[:300]}")
                return None
            self.again += 1
            if self._end.wait(0.1):
                return None
        return None

    def finish(self, agent):
        """After stop(), when all is well again: what is there is what was acknowledged. Returns the jobs."""
        self.stop()
        jobs = wait_until(lambda: [agent.list(prefix="churn-", limit=1000)], 20, "the churned jobs are listed", interval=0.2)[0]
        jobs = {j["id"]: j for j in jobs}
        unknown = sum(there is None for there in self.there.values())
        print(f"churn: {self.acknowledged} writes acknowledged, {self.again} tried again, {unknown} ids whose last write has no answer")
        for job_id, there in sorted(self.there.items()):
            if there is not None and there != (job_id in jobs):
                self.problems.append(f"{job_id}: " + ("acknowledged and not there" if there else "deleted and there"))
            if there and job_id in jobs:
                self.owed += self.runs.get(job_id, [])
        return jobs

    def judge_jobs(self, jobs, verdict):
        """Counts add up, nothing is called a success that did not arrive, and every acknowledged run did."""
        arrived = {uid: {d.seq for d in of_job} for uid, of_job in verdict.by_job.items()}
        for job in jobs.values():
            counts, uid = job["status"]["counts"], job["status"]["uid"]
            ended = sum(counts[k] for k in ("succeeded", "dead", "skipped", "coalesced", "cancelled", "pending"))
            if ended != counts["seq"]:
                self.problems.append(f"{job['id']}: seq {counts['seq']}, but {counts}")
            if counts["succeeded"] > len(arrived.get(uid, ())):
                self.problems.append(f"{job['id']}: {counts['succeeded']} succeeded, {len(arrived.get(uid, ()))} arrived")
        for fire in self.owed:
            uid, seq = fire.rsplit(".", 1)
            if int(seq) not in arrived.get(uid, ()):
                self.problems.append(f"run {fire} was acknowledged and never came")
