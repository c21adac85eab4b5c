"""The judges of `make chaos` judged: histories in which something is wrong, and what each judge says of them. What lets everything
pass would let every run pass."""
import copy
import pathlib
import sys

import pytest

from lib.oracle import Verdict
from lib.procs import Process, wait_until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "chaos"))
# pylint: disable=wrong-import-position
import fake_clock  # noqa: E402
from churn import Churn, Kept, Pause  # noqa: E402
from witness import COUNTS, HELD, Witness, merged, transactions  # noqa: E402

START = 1_800_000_000.0


# ---- what a callee saw

def arrival(seq, uid="u1", job="j", due=None, at=None, attempt=1, epoch=5):
    due = seq if due is None else due
    at = due + 0.01 if at is None else at
    minutes, seconds = divmod(due, 60)
    return {"headers": {"ce-id": f"{uid}.{seq}", "carillon-seq": str(seq), "idempotency-key": f'"{uid}.{seq}"', "ce-subject": job,
                        "ce-time": f"2027-01-15T08:{int(minutes):02d}:{seconds:06.3f}Z", "carillon-attempt": str(attempt),
                        "carillon-epoch": str(epoch)},
            "at": at, "wall": START + at, "port": 1, "status": 200}


def arrivals():
    return [arrival(seq) for seq in (1, 2, 3, 4)]


def test_a_sound_log_of_arrivals_passes():
    Verdict(arrivals(), jobs=["j"]).check(repeats_allowed=False)
    Verdict([*arrivals(), arrival(2, at=4.5, attempt=2, epoch=6)], jobs=["j"]).check()


@pytest.mark.parametrize("change, told", [
    (lambda log: log.pop(1), r"of seq 1\.\.4 these never came: \[2\]"),
    (lambda log: log.__setitem__(slice(0, 1), []), r"never came: \[1\]"),
    (lambda log: log.append(arrival(7)), r"never came: \[5, 6\]"),
    (lambda log: log.append(arrival(2, due=2.5, at=5)), "came with due"),
    (lambda log: log.append(arrival(5, at=4.9)), "ms early"),
    (lambda log: log.append(arrival(5, due=3.5, at=5)), "dues do not grow"),
    (lambda log: log.append(arrival(3, at=9, epoch=4)), "epoch went from 5 to 4"),
    (lambda log: log.clear(), "no callback at all"),
])
def test_what_is_wrong_with_arrivals_is_told(change, told):
    log = arrivals()
    change(log)
    with pytest.raises(AssertionError, match=told):
        Verdict(log, jobs=["j"]).check()


def test_a_repeat_after_a_planned_change_is_told():
    with pytest.raises(AssertionError, match=r"fire u1\.2 came again"):
        Verdict([*arrivals(), arrival(2, at=4.5)], jobs=["j"]).check(repeats_allowed=False)


def churned(**counts):
    full = {k: 0 for k in (*COUNTS, "pending", "seq")} | counts
    churn = Churn([], "x", 1)
    churn.judge_jobs({"j": {"id": "j", "status": {"uid": "u1", "counts": full}}}, Verdict(arrivals()))
    return churn


def test_counts_that_do_not_add_up_are_told():
    assert churned(seq=4, succeeded=4).problems == []
    assert "seq 5" in churned(seq=5, succeeded=4).problems[0]
    assert "5 succeeded, 4 arrived" in churned(seq=5, succeeded=5).problems[0]


def test_an_acknowledged_run_that_never_came_is_told():
    churn = Churn([], "x", 1)
    churn.kept = {"j": Kept("u1", "k", "@every 1s", False), "gone": None}
    churn.runs = {"j": ["u1.4", "u1.9"]}
    churn.judge_jobs({}, Verdict(arrivals()))
    assert churn.problems == ["run u1.9 was acknowledged and never came"]
    churn.problems = []
    churn.judge_jobs({}, Verdict(arrivals()), {"u1.9": 3}.get)
    assert not churn.problems, "its attempts had no connection"


def test_a_letter_that_was_not_sent_once_more_is_told():
    churn = Churn([], "x", 1)
    churn.kept = {"j": Kept("u1", "k", "@every 1s", False)}
    churn.letters = {"j": {"u1.2": 0, "u1.3": 1}}
    churn.judge_jobs({}, Verdict(arrivals()))
    assert churn.problems == ["j: u1.3 was re-driven after attempt 1, and 1 came last"]
    churn.judge_jobs({}, Verdict(arrivals()), {"u1.3": 1}.get)
    assert len(churn.problems) == 2, "that was before"
    churn.judge_jobs({}, Verdict(arrivals()), {"u1.3": 2}.get)
    assert len(churn.problems) == 2


def told_of_pause(**changes):
    """Of one from 1.5 s to 3.5 s. Fires are due at 1, 2, 3 and 4."""
    pause = Pause(**({"job": "j", "uid": "u1", "begin": (1.5, START + 1.5), "end": (3.5, START + 3.5)} | changes))
    churn = Churn([], "x", 1)
    churn.pauses = [pause]
    churn.by_hand = {"u1.3"}
    churn.judge_pauses(Verdict(arrivals(), under_way_s=0.3))
    return churn.problems


def test_a_due_of_a_pause_that_came_is_told():
    due, late = told_of_pause()
    assert "u1.2 was due 0.500 s after the pause was acknowledged" in due
    assert "u1.2 came 0.5 s after the pause was acknowledged" in late
    assert told_of_pause(skips=False) == [late], "a resume may ask for them"
    assert told_of_pause(judged=False) == [] and told_of_pause(uid="u2") == []
    assert told_of_pause(begin=(2.5, START + 2.5)) == [], "what was asked for by hand"


@pytest.mark.parametrize("change", [{"payload": {"key": "other"}}, {"schedule": "@every 2s"}, {"state": "active"}, {"uid": "u2"}])
def test_what_is_there_and_was_not_acknowledged_last_is_told(change):
    there = {"payload": {"key": "k"}, "schedule": "@every 1s", "status": {"uid": "u1", "state": "paused"}}

    class Agent:
        """Lists one job."""
        @staticmethod
        def list(**_):
            status = there["status"] | {k: v for k, v in change.items() if k in there["status"]}
            return [{"id": "j"} | there | {k: v for k, v in change.items() if k in there} | {"status": status}]

    churn = Churn([], "x", 1, threads=0)
    churn.kept = {"j": Kept("u1", "k", "@every 1s", True)}
    churn.finish(Agent)
    assert len(churn.problems) == 1 and "acknowledged Kept" in churn.problems[0]
    change.clear()
    churn.problems = []
    churn.finish(Agent)
    assert churn.problems == []
    churn.kept = {"j": None}
    churn.finish(Agent)
    assert churn.problems == ["j: deleted and there"]


# ---- what the database's binlog tells

def change(table, op, before=None, after=None):
    return {"op": op, "table": table, "WHERE": dict(before or {}), "SET": dict(after or {})}


class Story:
    """Transactions as they may happen: a and b own a slot each, a writes a job and a fire, dies, and b takes its slot."""

    def __init__(self):
        self.member = {m: {"member": m, "beat": 1, "flush": 1, "dead": 0} for m in "ab"}
        self.slot = {n: {"slot": n, "owner": owner, "epoch": 10} for n, owner in enumerate("ab")}
        self.job = {"uid": "u1", "id": "j", "slot": 0, "rev": 1, "seq": 0, **dict.fromkeys(COUNTS, 0)}
        self.fire = {"uid": "u1", "id": "j", "seq": 1, "slot": 0, "rev": 1, "state": HELD, "holder": "a"}
        self.told = [[change("members", "INSERT", after=m) for m in self.member.values()],
                     [change("slots", "INSERT", after=s) for s in self.slot.values()]]
        self.write("a", change("jobs", "INSERT", after=self.job))
        self.write("a", self.of_job(seq=1), change("fires", "INSERT", after=self.fire))

    def update(self, table, row, **new):
        before = copy.deepcopy(row)
        row.update(new)
        return change(table, "UPDATE", before, row)

    def of_member(self, name, **new):
        return self.update("members", self.member[name], **new)

    def of_slot(self, number, owner, **new):
        row = self.slot[number]
        return self.update("slots", row, **{"owner": owner, "epoch": row["epoch"] + 1, **new})

    def of_job(self, **new):
        return self.update("jobs", self.job, **{"rev": self.job["rev"] + 1, **new})

    def of_fire(self, **new):
        return self.update("fires", self.fire, **{"rev": self.fire["rev"] + 1, **new})

    def write(self, member, *changes):
        """A transaction of results: its writer is who counts its flushes on."""
        self.told.append([*changes, self.of_member(member, flush=self.member[member]["flush"] + 1)])

    def die(self, name):
        self.told.append([self.of_member(name, dead=1)])

    def judge(self):
        return Witness().read(enumerate(self.told))


def test_a_sound_binlog_passes():
    story = Story()
    story.write("a", story.of_job(succeeded=1), story.of_fire())
    story.die("a")
    story.write("b", story.of_slot(0, "b"))
    story.write("b", story.of_job(seq=2))
    story.write("b", story.of_slot(0, ""), story.of_job())  # what gives a slot away may still write to it
    assert story.judge() == []


def test_who_runs_an_attempt_ends_it_after_its_slot_has_moved():
    story = Story()
    story.write("a", story.of_slot(0, "b"))
    story.write("a", story.of_fire(state=3, holder=""))
    assert story.judge() == []
    story.write("a", story.of_fire(state=4))
    assert "which b owns since transaction 5 (before: a), was written by ['a']" in story.judge()[0]


def taken_from_the_living(story):
    story.write("b", story.of_slot(0, "b"))


def two_owners_in_an_epoch(story):
    story.write("a", story.of_slot(0, ""))
    story.write("b", story.of_slot(0, "b", epoch=story.slot[0]["epoch"]))


def an_epoch_that_two_took(story):
    before = copy.deepcopy(story.slot[0])
    story.write("a", story.of_slot(0, ""))
    given = copy.deepcopy(story.slot[0])
    story.write("b", story.of_slot(0, "b"))
    assert given != before
    story.slot[0] = given
    story.write("a", story.of_slot(0, "a"))


def written_by_another(story):
    story.write("b", story.of_job())


def a_fire_written_by_another(story):
    story.write("b", story.of_fire())


def written_by_nobody(story):
    story.told.append([story.of_job()])


def written_by_the_dead(story):
    story.die("a")
    story.told.append([story.of_job(), change("members", "UPDATE", {**story.member["a"], "flush": 3}, {**story.member["a"], "flush": 4})])


def a_dead_one_beats(story):
    story.die("a")
    story.told.append([story.of_member("a", beat=9)])


def the_dead_rise(story):
    story.die("a")
    story.told.append([story.of_member("a", dead=0)])


def a_beat_goes_back(story):
    story.told.append([story.of_member("a", beat=0)])


def a_rev_stays(story):
    story.write("a", story.of_job(rev=story.job["rev"]))


def a_seq_goes_back(story):
    story.write("a", story.of_job(seq=0))


def a_count_goes_back(story):
    story.write("a", story.of_job(succeeded=1))
    story.write("a", story.of_job(succeeded=0))


def more_ends_than_fires(story):
    story.write("a", story.of_job(succeeded=1, skipped=1))


def a_fire_rev_stays(story):
    story.write("a", story.of_fire(rev=1))


def a_slot_is_deleted(story):
    story.told.append([change("slots", "DELETE", story.slot[1])])


def a_transaction_is_missing(story):
    story.write("a", story.of_job(succeeded=1))
    story.write("a", story.of_job())
    del story.told[-2]


@pytest.mark.parametrize("break_it, told", [
    (taken_from_the_living, "taken from a, which was alive"), (two_owners_in_an_epoch, "epoch 11 to 11"),
    (an_epoch_that_two_took, "UPDATE found {'owner': '', 'epoch': 11}"), (written_by_another, r"which a owns since .* was written by \['b'\]"),
    (a_fire_written_by_another, r"fire j 1 in state 1 of slot 0, which a owns since .* was written by \['b'\]"), (written_by_nobody, r"was written by \[\]"),
    (written_by_the_dead, "written by a, which was dead"), (a_dead_one_beats, "is dead and goes on"), (the_dead_rise, "goes back"),
    (a_beat_goes_back, "goes back"), (a_rev_stays, "rev 2 to 2"), (a_seq_goes_back, "seq 1 to 0"), (a_count_goes_back, "counts go back"),
    (more_ends_than_fires, "more ends than fires"), (a_fire_rev_stays, "rev 1 to 1"), (a_slot_is_deleted, "slot 1 deleted"),
    (a_transaction_is_missing, "'rev': 2, 'seq': 1}, and UPDATE found"),
])
def test_what_is_wrong_with_a_binlog_is_told(break_it, told):
    story = Story()
    assert story.judge() == []
    break_it(story)
    with pytest.raises(AssertionError, match=told):
        assert not story.judge(), "\n".join(story.judge())


TEXT = """#261123 16:40:19 server id 1  end_log_pos 640 CRC32 0x01\tGTID 7-1-8 trans
/*!100001 SET @@session.gtid_seq_no=8*//*!*/;
### UPDATE `chaos`.`slots`
### WHERE
###   @1=3
###   @2='a'
###   @3=-5 (18446744073709551611)
### SET
###   @1=3
###   @2=NULL
###   @3=6
### INSERT INTO `chaos`.`meta`
### SET
###   @1='not looked at'
#261123 16:40:19 server id 1  end_log_pos 690 CRC32 0x02 \tXid = 11
COMMIT/*!*/;
#261123 16:40:20 server id 1  end_log_pos 699 CRC32 0x01\tGTID 7-1-9 ddl
DROP TABLE x
#261123 16:40:20 server id 1  end_log_pos 700 CRC32 0x01\tGTID 7-2-10 trans
### DELETE FROM `chaos`.`slots`
### WHERE
###   @1=3
#261123 16:40:20 server id 1  end_log_pos 731 CRC32 0x02 \tXid = 12
COMMIT/*!*/;
#261123 16:40:21 server id 1  end_log_pos 800 CRC32 0x01\tGTID 7-2-11 trans
### DELETE FROM `chaos`.`slots`
### WHERE
###   @1=4
ROLLBACK /* added by mysqlbinlog */ /*!*/;
"""


def test_a_binlog_is_read_from_its_text():
    columns = {"slots": ["slot", "owner", "epoch"], "meta": ["name"]}
    assert list(transactions(TEXT.splitlines(keepends=True), columns)) == [
        ("7-1-8", [change("slots", "UPDATE", {"slot": 3, "owner": "'a'", "epoch": -5}, {"slot": 3, "owner": None, "epoch": 6})]),
        ("7-1-9", []), ("7-2-10", [change("slots", "DELETE", {"slot": 3})])]


def test_servers_of_a_galera_cluster_that_differ_are_told():
    one, two, other = [change("slots", "DELETE", {"slot": n}) for n in range(3)]
    whole = [("7-1-1", [one]), ("101-1-4", []), ("7-2-2", [two])]
    assert merged({"x": whole, "y": whole[2:], "z": whole}) == ([(1, [one]), (2, [two])], [])
    assert merged({"x": whole, "y": [("7-2-2", [other])]})[1] == ["y: transaction 2 is another one than elsewhere"]
    assert merged({"x": [whole[2], whole[0]]})[1] == ["x: transaction 1 after 2"]


# ---- a wall clock of one's own

def test_what_a_killed_process_leaves_of_its_clock_is_taken_away(folder):
    clock = fake_clock.FakeClock(folder / "clock")
    told = Process("told", ["date", "+%s"], folder, clock.env())
    clock.set(-1_000_000_000)
    told.start().wait(10)
    assert int(told.log_text()) < START - 500_000_000
    killed = Process("killed", ["sleep", "60"], folder, clock.env()).start()
    left = [fake_clock.SHARED / f"{prefix}{killed.pid}" for prefix in fake_clock.LEFT_BEHIND]
    wait_until(lambda: all(path.exists() for path in left), 10, "the library shares its memory", alive=[killed])
    fake_clock.sweep()
    assert all(path.exists() for path in left), "its process lives"
    killed.kill9()
    fake_clock.sweep()
    assert not any(path.exists() for path in left)
