"""Writes that race one another and everything else: PUT, PATCH, pause, resume, DELETE, run and redrive of a few ids through any agent, each
id by one thread at a time, so that what was last acknowledged is what has to be there."""
import dataclasses
import random
import threading
import time
import uuid

import requests
from lib.procs import wait_until

SCHEDULES = ("@every 1s", "@every 2s", "@after 1h")
# Where the callee answers 503: such fires die, and are sent once more by `redrive`.
FAILING = "/churn-fails"
OPS = {"put": 6, "patch": 4, "delete": 3, "run": 3, "pause": 3, "resume": 2, "redrive": 2}
# A try that was given up may lie in a connection that is silent, or before a process that is stopped, and be taken when that goes
# on: as long as the longest fault, and a second. Until then nothing else is asked of that id. The next write must not be undone.
HELD_UP_S = 13.0
# The clock of the last agent.
CLOCK_S = 0.35


@dataclasses.dataclass
class Kept:
    """A job as it was acknowledged."""
    uid: str
    key: str
    schedule: str
    paused: bool


@dataclasses.dataclass
class Pause:
    """From its acknowledgement (monotonic, wall) until what ends it is asked for."""
    job: str
    uid: str
    begin: tuple
    end: tuple | None = None
    skips: bool = True   # its dues are skipped: no resume with catch_up
    judged: bool = True  # the fires that were asked for by hand are known


def now():
    return time.monotonic(), time.time()


class Churn:
    """THREADS writers over COUNT ids; `finish` compares with what an agent answers."""

    def __init__(self, agents, service, seed, count=40, threads=4):
        self.agents, self.service = agents, service
        self.ids = [f"churn-{i}" for i in range(count)]
        self.kept = {}        # id: Kept, or None: it is not there
        self.unknown = set()  # ids whose last write has no answer
        self.resting = {}     # id: until when nothing is asked of it
        self.runs = {}        # id: fires of its runs since it was made
        self.letters = {}     # id: {fire: its attempts before it was re-driven}, since the job was made
        self.by_hand = set()  # fires that a pause does not hold up
        self.pauses = []
        self.open = {}        # id: the Pause that has not ended
        self.problems = []
        self.acknowledged = dict.fromkeys(OPS, 0)
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
            awake = [i for i in ids if self.resting.get(i, 0.0) <= time.monotonic()]
            if awake:
                self._one(rng, rng.choice(awake))
            self._end.wait(rng.uniform(0.0, 0.2))

    def _one(self, rng, job_id):
        kept = self.kept.get(job_id)
        op = rng.choices(list(OPS), OPS.values())[0] if kept else "put"
        # Pauses are long enough for something to come that must not.
        if kept and kept.paused and rng.random() < 0.6:
            return
        try:
            self._do(rng, op, job_id, kept)
        except Exception as e:  # pylint: disable=broad-except  # a thread that dies unheard would look like success
            self.problems.append(f"{op} {job_id}: {e!r}")

    def _do(self, rng, op, job_id, kept):
        key = str(uuid.UUID(int=rng.getrandbits(128)))
        method, path, body = self._request(rng, op, job_id, key)
        letters = self._letters_of(rng, job_id) if op == "redrive" else {}
        self.by_hand.update(letters)
        self._end_pause(op, job_id, body)
        self.unknown.add(job_id)
        answer = self._acknowledged(rng, f"{op} {job_id}", job_id, (method, path, body), key)
        if answer is None:
            if op == "run" and job_id in self.open:
                self.open[job_id].judged = False
            return
        self.unknown.discard(job_id)
        self.acknowledged[op] += 1
        if op == "delete":
            self.kept[job_id] = None
            self.runs.pop(job_id, None)
            self.letters.pop(job_id, None)
        elif op == "run":
            self.by_hand.add(answer["fire"])
            self.runs.setdefault(job_id, []).append(answer["fire"])
        elif op == "redrive":
            self.letters.setdefault(job_id, {}).update(letters)
        else:
            self._keep(op, job_id, kept, body, answer)

    def _request(self, rng, op, job_id, key):
        if op == "redrive":
            return "POST", f"/v1/deadletters/redrive?job={job_id}", None
        at = f"/v1/jobs/{job_id}"
        how = self._delivery(rng.choice(("/churn", "/churn", FAILING)))
        paused = rng.choice(({}, {}, {}, {}, {"paused": True}, {"paused": False}))
        schedule = {"schedule": rng.choice(SCHEDULES)}
        if op == "put":
            return "PUT", at, {**schedule, **paused, **how, "payload": {"key": key}}
        if op == "patch":
            return "PATCH", at, {**rng.choice((schedule, {}, how)), **paused, "payload": {"key": key}}
        if op == "resume":
            return "POST", f"{at}/resume", {"catch_up": rng.choice(("none", "none", "last", "all"))}
        return ("DELETE", at, None) if op == "delete" else ("POST", f"{at}/{op}", {} if op == "run" else None)

    def _delivery(self, path):
        """Fires die where they cannot succeed, and nowhere else."""
        return {"callback": {"http": {"service": self.service, "path": path}},
                "retry": {"min_backoff": "200ms", "max_backoff": "2s", "max_attempts": 3 if path == FAILING else None}}

    def _letters_of(self, rng, job_id):
        """{fire: attempts} of dead letters as far as they are told."""
        try:
            found = rng.choice(self.agents).ask("GET", "/v1/deadletters", 200, params={"job": job_id, "limit": 200})["deadletters"]
        except (requests.exceptions.RequestException, AssertionError):
            return {}
        return {f["fire"]: max((a["attempt"] for a in f["attempts"]), default=0) for f in found}

    def _end_pause(self, op, job_id, body):
        """What is asked for now ends the pause, if it is done."""
        if job_id in self.open and (op in ("resume", "delete") or (body or {}).get("paused") is False):
            pause = self.open.pop(job_id)
            pause.end, pause.skips = now(), op != "resume" or body["catch_up"] == "none"

    def _keep(self, op, job_id, kept, body, answer):
        paused = {"pause": True, "resume": False}.get(op, (body or {}).get("paused", bool(kept and kept.paused)))
        uid = answer["status"]["uid"]
        if kept and uid != kept.uid:
            self.problems.append(f"{op} {job_id}: it is another job: {uid}, and was {kept.uid}")
        if paused != (answer["status"]["state"] == "paused"):
            self.problems.append(f"{op} {job_id}: answered {answer['status']['state']}, asked {body}, before {kept}")
        key = body["payload"]["key"] if op in ("put", "patch") else kept.key
        self.kept[job_id] = Kept(uid, key, (body or {}).get("schedule") or kept.schedule, paused)
        if paused and job_id not in self.open:
            self.open[job_id] = Pause(job_id, uid, now())
            self.pauses.append(self.open[job_id])

    def _acknowledged(self, rng, what, job_id, request, key):
        """What was answered, after as many tries as it takes; None when there is no time left."""
        method, path, body = request
        right = {"PUT": (200, 201), "DELETE": (200, 404)}.get(method, (202,) if path.endswith("/run") else (200,))
        for attempt in range(10000):
            agent, held_up = rng.choice(self.agents), False
            try:  # no process is stopped for so long
                answer = requests.request(method, agent.url + path, json=body, timeout=30,
                                          headers={"Idempotency-Key": f'"{key}"', "Carillon-Client": "churn"})
            except requests.exceptions.RequestException as e:
                answer, held_up = None, "Connection refused" not in str(e)
            if answer is not None and answer.status_code in right:
                return answer.json()
            if answer is not None and not (answer.status_code == 503 and "retry-after" in answer.headers):
                self.problems.append(f"{what}, try {attempt + 1}: {answer.status_code} {answer.text[:300]}")
                return None
            if held_up or (answer is not None and "may have happened" in answer.text):
                self.resting[job_id] = time.monotonic() + HELD_UP_S
            self.again += 1
            if self._end.wait(0.1):
                return None
        return None

    def finish(self, agent):
        """After stop(), when all is well again: what is there is what was acknowledged. Returns the jobs."""
        self.stop()
        jobs = wait_until(lambda: [agent.list(prefix="churn-", limit=1000)], 20, "the churned jobs are listed", interval=0.2)[0]
        jobs = {j["id"]: j for j in jobs}
        print(f"churn: {sum(self.acknowledged.values())} writes acknowledged, {self.again} tried again, "
              f"{len(self.unknown)} ids whose last write has no answer: " + ", ".join(f"{op} {n}" for op, n in self.acknowledged.items()))
        for job_id, kept in sorted(self.kept.items()):
            if job_id not in self.unknown:
                self._judge_kept(job_id, kept, jobs.get(job_id))
        return jobs

    def _judge_kept(self, job_id, kept, job):
        if bool(kept) != bool(job):
            self.problems.append(f"{job_id}: " + ("acknowledged and not there" if kept else "deleted and there"))
        elif kept:
            there = Kept(job["status"]["uid"], job["payload"]["key"], job["schedule"], job["status"]["state"] == "paused")
            if kept.schedule.startswith("@after"):  # is told as an instant
                there.schedule = kept.schedule if there.schedule.startswith("@at") else there.schedule
            if there != kept:
                self.problems.append(f"{job_id}: acknowledged {kept}, and there is {there}")

    def end_pauses(self):
        """All that is paused is resumed now."""
        for pause in self.open.values():
            pause.end = now()

    def judge_jobs(self, jobs, verdict, unheard=lambda fire: 0):
        """Counts add up, nothing is called a success that did not arrive, every acknowledged run and re-drive did. UNHEARD(fire) is the
        last of its attempts that no callee has heard of: where connects are refused, a fire may die before it arrives."""
        arrived = {uid: {d.seq for d in of_job} for uid, of_job in verdict.by_job.items()}
        for job in jobs.values():
            counts, uid = job["status"]["counts"], job["status"]["uid"]
            ended = sum(counts[k] for k in ("succeeded", "dead", "skipped", "coalesced", "cancelled", "pending"))
            if ended != counts["seq"]:
                self.problems.append(f"{job['id']}: seq {counts['seq']}, but {counts}")
            if counts["succeeded"] > len(arrived.get(uid, ())):
                self.problems.append(f"{job['id']}: {counts['succeeded']} succeeded, {len(arrived.get(uid, ()))} arrived")
        attempts = {}
        for d in verdict.deliveries:
            fire = f"{d.uid}.{d.seq}"
            attempts[fire] = max(d.attempt, attempts.get(fire, 0))
        owed = [i for i, kept in self.kept.items() if kept and i not in self.unknown]
        for job_id in owed:
            self.problems += [f"run {f} was acknowledged and never came" for f in self.runs.get(job_id, ())
                              if f not in attempts and not unheard(f)]
            self.problems += [f"{job_id}: {f} was re-driven after attempt {n}, and {attempts.get(f)} came last"
                              for f, n in self.letters.get(job_id, {}).items() if attempts.get(f, 0) <= n and unheard(f) <= n]

    def judge_pauses(self, verdict):
        """No due of a pause comes, unless it was resumed so, and nothing else that a stopped process had not begun."""
        held = 0.0
        for pause in self.pauses:
            if not pause.judged:
                continue
            held += pause.end[0] - pause.begin[0]
            for d in verdict.by_job.get(pause.uid, ()):
                fire = f"{d.uid}.{d.seq}"
                if fire in self.by_hand:
                    continue
                if pause.skips and pause.begin[1] + CLOCK_S < d.due < pause.end[1] - CLOCK_S:
                    self.problems.append(f"{pause.job}: {fire} was due {d.due - pause.begin[1]:.3f} s after the pause was acknowledged, "
                                         f"{pause.end[1] - d.due:.3f} s before it ended, and came")
                if pause.begin[0] + verdict.under_way_s < d.at < pause.end[0]:
                    self.problems.append(f"{pause.job}: {fire} came {d.at - pause.begin[0]:.1f} s after the pause was acknowledged")
        print(f"churn: {len(self.pauses)} pauses, {held:.0f} s together; {sum(map(len, self.letters.values()))} letters re-driven")
