"""kill -9 of an owner at each step of a fire, hit on purpose: the callee holds its answers, a lock in the database or a proxy in front of
it the store's, so that the agent is between two steps for as long as it takes to kill it. Each round has fires of every kind at that step:
sent the first time, for the second time, sent once only, handed over to an asynchronous callee, and dead letters sent once more, some of
which have no job any more.

What must come out: one outcome, recorded once; attempts that were written are kept; what arrives again has the same fire id; and what
may be sent once is not sent again."""
import collections
import contextlib
import datetime
import threading
import time

import pytest
import requests
from lib.oracle import deliveries
from lib.procs import wait_until

EACH = 2  # fires of a kind
ENDS = ("succeeded", "dead", "skipped", "coalesced", "cancelled", "pending")
RETRY = {"min_backoff": "200ms", "factor": 1, "max_backoff": "200ms", "jitter": 0}
ONCE = {"delivery": "at_most_once"}
KINDS = {"plain": {"retry": RETRY}, "again": {"retry": RETRY}, "once": ONCE, "async": {"retry": RETRY},
         "later": {"retry": {**RETRY, "min_backoff": "1h", "max_backoff": "1h"}},
         "letter": {"retry": {"max_attempts": 1}}, "orphan": {"retry": {"max_attempts": 1}}}
# It joins what comes at once, and gives up no statement while it is held.
PATIENT = {"batch_delay": "500ms", "mysql": {"timeout": "60s"}}
LETTERS = ("letter", "orphan")
SENT = ("plain", "again", "once", "async")


def in_seconds(s):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=s)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def callback(service, kind):
    made = {"http": {"service": service, "path": f"/{kind}"}, "timeout": "60s"}
    return {**made, "async": {"timeout": "5m", "max": "1h"}} if kind == "async" else made


class Round:
    """Fires of some kinds whose jobs are a victim's, one survivor beside it, and a proxy between the victim and its store."""

    def __init__(self, cluster, survivor, proxy, callee, kinds):
        self.cluster, self.survivor, self.proxy, self.callee = cluster, survivor, proxy, callee
        self.service = f"kills-{callee.port}"
        self.victim = cluster.agent(mysql_port=proxy.port, config={"store": PATIENT}).start()
        cluster.wait_settled()
        callee.behave()
        callee.release()
        callee.clear()
        self.names = {kind: self._names_of_the_victim(kind) for kind in kinds}
        self.fires = {}  # name -> fire id

    def _names_of_the_victim(self, kind):
        names = (f"{self.victim.name}-{kind}-{n}" for n in range(1000))
        mine = (n for n in names if self.survivor.owner(n)["name"] == self.victim.name)
        return [next(mine) for _ in range(EACH)]

    def all(self, *kinds):
        return [n for kind in kinds or self.names if kind in self.names for n in self.names[kind]]

    def make(self, due, *kinds):
        """Their jobs, due in so many seconds."""
        at = in_seconds(due)
        self.survivor.bulk([{"op": "create", "id": name, "job": {"schedule": f"@at {at}", "callback": callback(self.service, kind), **KINDS[kind]}}
                            for kind in kinds for name in self.all(kind)])

    def make_letters(self):
        self.callee.behave({"status": 503})
        self.make(0.1, *LETTERS)
        for name in self.all(*LETTERS):
            self.fires[name] = wait_until(lambda name=name: self.dead(name), 30, f"{name} is dead", interval=0.05)
        for name in self.all("orphan"):
            self.survivor.delete(name)
        self.callee.clear()

    def dead(self, name):
        found = self.survivor.ask("GET", "/v1/deadletters", 200, params={"job": name})["deadletters"]
        return found and found[0]["fire"]

    def redrive(self):
        for kind in LETTERS:
            answer = self.survivor.ask("POST", "/v1/deadletters/redrive", 200, params={"prefix": f"{self.victim.name}-{kind}"}, timeout=30)
            assert answer == {"redriven": EACH}, answer

    def hold_all(self):
        """Every fire is sent, and none answered; for `again` it is the second time."""
        self.make_letters()
        self.callee.behave({"path": "/again", "status": 503, "times": EACH}, {"path": "/async", "status": 202, "hold": True},
                           {"hold": True})
        self.make(0.3, *SENT)
        self.redrive()
        wait_until(lambda: self.callee.count() == len(self.all()) + EACH, 60, "all are sent", interval=0.02)
        for name in self.all("again"):
            [first] = wait_until(lambda name=name: self.survivor.fires(name)[0]["attempts"], 30, "the first attempt is kept")
            assert (first["attempt"], first["status"]) == (1, 503), first

    def stall_store(self):
        self.proxy.stall()

    @contextlib.contextmanager
    def locked(self, *tables):
        """Nobody writes to them; who waits for that is not served before its agent is dead."""
        connection = self.cluster.mariadb.connect(self.cluster.database["database"], timeout=600)
        try:
            connection.cursor().execute("LOCK TABLES " + ", ".join(f"{t} READ" for t in tables))
            yield
        finally:
            connection.close()

    def hold_commit(self, wanted):
        """The next commit after a statement that is WANTED reaches the store; that it has, the agent does not learn."""
        seen = threading.Event()

        def when(data):
            if any(wanted(statement) for statement in data.split(b";")):
                seen.set()
            return seen.is_set() and data[5:].startswith(b"COMMIT")
        self.proxy.hold_reply(when)

    def release(self):
        """The callee answers, and the agent has the answers."""
        self.callee.release()
        wait_until(lambda: self.victim.metric("carillon_in_flight") == 0, 30, "the answers have come", alive=[self.victim.process])

    def kill(self):
        """What is sent from now on is answered at once."""
        self.callee.behave({"path": "/async", "status": 202})
        self.victim.kill9()
        self.callee.release()

    def fire(self, name):
        if name in self.fires:
            return self.survivor.ask("GET", f"/v1/fires/{self.fires[name]}", 200)
        [fire] = self.survivor.fires(name)
        return fire

    def seen(self):
        return {d.job for d in deliveries(self.callee.records())}

    def complete(self):
        """As the asynchronous callee, for each request that came."""
        for r in self.callee.records():
            if r["path"] == "/async":
                requests.post(self.survivor.url + r["headers"]["carillon-complete"], json={"status": "ok"}, timeout=20)

    def ended(self, name):
        def look():
            if name in self.all("async"):
                self.complete()
            fire = self.fire(name)
            return fire["outcome"] != "pending" and fire
        return wait_until(look, 60, f"{name} has ended", interval=0.1)

    def is_written(self, name):
        """That its attempt under way was answered."""
        found = [self.fire(name)] if name in self.fires else self.survivor.fires(name)
        return bool(found) and (found[0]["outcome"] == "succeeded" or found[0]["attempts"][-1:] and found[0]["attempts"][-1]["status"] == 202)

    def judge(self, expect, title, only=None):
        """EXPECT: kind -> (outcome, reason, how often it arrives, numbers of the attempts that are kept). ONLY: of these names, as far
        as arrivals and outcomes depend on what was written."""
        fires = {name: self.ended(name) for name in self.all()}
        time.sleep(0.5)  # what would come once more does so at once
        arrived = collections.defaultdict(list)
        for d in deliveries(self.callee.records()):
            arrived[d.job].append(d)
        for kind in self.names:
            outcome, reason, times, attempts = expect[kind]
            for name in self.all(kind) if only is None else only & set(self.all(kind)):
                fire = fires[name]
                told = f"{title}: {name}: {fire}, arrived {arrived[name]}"
                assert (fire["outcome"], fire["reason"]) == (outcome, reason), told
                assert len(arrived[name]) == times, told
                assert {f"{d.uid}.{d.seq}" for d in arrived[name]} <= {fire["fire"]}, told
                assert [a["attempt"] for a in fire["attempts"]] == attempts, told
                if kind != "orphan":
                    counts = self.survivor.get(name)["status"]["counts"]
                    assert {k: counts[k] for k in ENDS if counts[k]} == {outcome: 1} and counts["seq"] == 1, (told, counts)
        told = ", ".join(f"{kind} {expect[kind][0]} after {expect[kind][2]} requests" for kind in self.names)
        print(f"{title}: {len(self.all() if only is None else only)} of {len(self.all())} fires: {told}")
        self.survivor.ask("DELETE", "/v1/jobs", 200, params={"prefix": f"{self.victim.name}-"}, timeout=60)


@pytest.fixture(name="begin")
def beginning(cluster, shared_consul, callee, proxies, shared_mariadb):
    """begin(kinds) → a Round with a new victim; the survivor is the same."""
    instance = shared_consul.register(f"kills-{callee.port}", callee.port)
    [survivor] = cluster.start(1)

    def start(*kinds):
        return Round(cluster, survivor, proxies(shared_mariadb.port), callee, kinds or SENT + LETTERS)
    yield start
    shared_consul.deregister(instance)


def test_killed_after_the_send_before_and_after_the_flush(begin):
    """What was written decides: what was not is sent again under its id (`once` never), what was is not."""
    not_written = {"plain": ("succeeded", None, 2, [1]), "again": ("succeeded", None, 3, [1, 2]), "async": ("succeeded", None, 2, [1]),
                   "once": ("dead", "at_most_once", 1, [1]), "letter": ("succeeded", None, 2, [1, 2]),
                   "orphan": ("succeeded", None, 2, [1, 2])}
    sent = begin()
    sent.hold_all()
    sent.kill()
    sent.judge(not_written, "sent, not answered")

    answered = begin()
    answered.hold_all()
    with answered.locked("jobs", "fires"):
        answered.release()
        answered.kill()
    answered.judge(not_written, "answered, not written")


def test_killed_after_the_flush_before_it_is_known(begin):
    """Written, but the agent never learns: nothing comes again."""
    written = begin()
    written.hold_all()
    written.hold_commit(lambda statement: b"UPDATE (SELECT" in statement)
    written.release()
    assert written.proxy.lost.wait(60), "no commit was seen"
    known = {name for name in written.all() if written.is_written(name)}
    written.kill()
    written.judge({"plain": ("succeeded", None, 1, [1]), "again": ("succeeded", None, 2, [1, 2]), "async": ("succeeded", None, 1, [1]),
                   "once": ("succeeded", None, 1, [1]), "letter": ("succeeded", None, 1, [1, 2]),
                   "orphan": ("succeeded", None, 1, [1, 2])}, "written, not known", only=known)
    assert known


def test_killed_before_the_send(begin):
    """The decision to send is not written: it is as if nothing had been. `later` waits for its second attempt."""
    booked = ("once", "async")
    for lead in (2, 8, 32):
        unwritten = begin("plain", *booked, "later")
        unwritten.callee.behave({"path": "/later", "status": 503, "times": EACH}, {"hold": True})
        unwritten.make(0.1, "later")
        for name in unwritten.all("later"):
            wait_until(lambda name=name: unwritten.survivor.fires(name)[0]["attempts"], 30, "the first attempt is kept")
        due = time.time() + lead
        unwritten.make(lead, "plain")
        unwritten.make(lead + 1.5, *booked)  # later: while a write waits, nothing else is begun
        with unwritten.locked("fires"):
            if time.time() > due - 0.1:  # a slow machine: it may be decided already
                unwritten.victim.kill9()
                continue
            wait_until(lambda: set(unwritten.all("plain")) <= unwritten.seen(), 60, "the plain are sent")
            time.sleep(max(0.0, due + 2.0 - time.time()))
            assert unwritten.seen() == set(unwritten.all("plain", "later"))
            unwritten.kill()
        break
    else:
        pytest.fail("no jobs could be made in half a minute")
    for name in unwritten.all("later"):
        wait_until(lambda name=name: unwritten.survivor.call("POST", f"/v1/fires/{unwritten.fire(name)['fire']}/retry").status_code == 202,
                   30, "retried by hand")
    unwritten.judge({"plain": ("succeeded", None, 2, [1]), "once": ("succeeded", None, 1, [1]), "async": ("succeeded", None, 1, [1]),
                     "later": ("succeeded", None, 2, [1, 2])}, "decision not written")


def test_killed_between_the_decision_and_the_send(begin):
    """Written, but the agent does not know and has not sent: what may be sent once was perhaps sent, as far as anybody can tell."""
    decided = begin("once")
    decided.make(2.0, "once")
    mark = next(m["id"] for m in decided.survivor.cluster()["members"] if m["name"] == decided.victim.name).encode().hex().encode()
    decided.hold_commit(lambda statement: b"fires" in statement and mark in statement.lower())  # held by it: from then on it may send
    assert decided.proxy.lost.wait(60), "no decision was seen"
    decided.kill()
    decided.callee.behave()
    fires = [decided.ended(name) for name in decided.all()]
    booked = [f for f in fires if f["outcome"] == "dead"]
    assert booked and all(f["reason"] == "at_most_once" for f in booked), fires
    assert decided.seen() == {f["job"] for f in fires if f["outcome"] == "succeeded"}, "what was not booked is sent, once"
    assert decided.callee.count() == len(fires) - len(booked)
    print(f"decision written, not known: {len(booked)} dead without a request, {len(fires) - len(booked)} not decided and sent")


def test_killed_while_letters_are_redriven(begin):
    """The re-drive is written, but the agent does not know: who asked for it is answered by the next owner, and each is sent once."""
    redriven = begin(*LETTERS)
    redriven.make_letters()
    redriven.callee.behave()
    redriven.hold_commit(lambda statement: b"fires" in statement)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(redriven.redrive()))
    asking.start()
    assert redriven.proxy.lost.wait(60), "no re-drive was seen"
    assert redriven.callee.count() == 0
    redriven.kill()
    asking.join(60)
    assert answers, "the re-drive was not answered as asked"
    redriven.judge({kind: ("succeeded", None, 1, [1, 2]) for kind in LETTERS}, "re-drive written, not known")
