"""agent/core's zones against Python's zoneinfo, and its schedules against cronsim, an independent implementation.

tests/tools/schedule_dump.c answers the questions. Both sides read the system's tzdata.
"""
import bisect
import datetime
import hashlib
import os
import pathlib
import random
import subprocess
import zoneinfo

import cronsim
import pytest

ZONES = pathlib.Path("/usr/share/zoneinfo")
UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1)
FROM_S = 0
END_S = int(datetime.datetime(2100, 1, 1, tzinfo=UTC).timestamp())
WEEK_S = 7 * 86400
CASES = 4000


def ask(questions):
    """One answer line for each question (a list of fields)."""
    program = pathlib.Path(os.environ["CARILLON_TOOLS"]) / "schedule_dump"
    text = "".join("\t".join(map(str, q)) + "\n" for q in questions)
    done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(questions)
    return lines


@pytest.fixture(scope="module", autouse=True)
def system_tzdata():
    """zoneinfo must not prefer another copy of the data."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[str(ZONES)])
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(to=before)
    zoneinfo.ZoneInfo.clear_cache()


def all_zones():
    """Every zone of the system; of those with equal rules, one."""
    by_rules = {}
    for name in sorted(zoneinfo.available_timezones()):
        path = ZONES / name
        if path.is_file() and name not in ("Factory", "localtime", "posixrules"):
            by_rules.setdefault(hashlib.sha256(path.read_bytes()).digest(), name)
    return sorted(by_rules.values())


def offset_at(zone, at_s):
    return int(datetime.datetime.fromtimestamp(at_s, zone).utcoffset().total_seconds())


def changes_by_zoneinfo(zone):
    """(instant, offset) for FROM_S and each change until END_S. zoneinfo has no list of them: weekly samples, then
    halving. Two changes within a week that undo each other would be missed here; those of the tool are checked one by
    one, so they would still show."""
    found = [(FROM_S, offset_at(zone, FROM_S))]
    for week_s in range(FROM_S, END_S, WEEK_S):
        lo_s, hi_s = week_s, min(week_s + WEEK_S, END_S - 1)
        while offset_at(zone, hi_s) != found[-1][1]:
            while hi_s - lo_s > 1:
                middle_s = (lo_s + hi_s) // 2
                if offset_at(zone, middle_s) == found[-1][1]:
                    lo_s = middle_s
                else:
                    hi_s = middle_s
            found.append((hi_s, offset_at(zone, hi_s)))
            lo_s, hi_s = hi_s, min(week_s + WEEK_S, END_S - 1)
    return found


def changes_by_tool(names):
    answers = ask([("zone", name, FROM_S, END_S) for name in names])
    return {name: [tuple(map(int, pair.split(":"))) for pair in line.split()] for name, line in zip(names, answers)}


def test_every_change_of_every_zone_until_2100_is_zoneinfos():
    names = all_zones()
    assert len(names) > 300
    total = 0
    for name, changes in changes_by_tool(names).items():
        zone = zoneinfo.ZoneInfo(name)
        total += len(changes)
        for at_s, offset_s in changes:
            assert offset_at(zone, at_s) == offset_s, f"{name} at {at_s}"
        for (_, before_s), (at_s, _) in zip(changes, changes[1:]):
            assert offset_at(zone, at_s - 1) == before_s, f"{name} before {at_s}"
        assert changes == changes_by_zoneinfo(zone), name
    print(f"{len(names)} zones, {total} changes")


def wall_by_zoneinfo(zone, wall_s):
    """What PEP 495 makes of a wall time: the offset before the change applies in a gap, fold=1 is the later pass."""
    naive = EPOCH + datetime.timedelta(seconds=wall_s)
    first, second = (int(naive.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if offset_at(zone, first) + first != wall_s:
        return f"gap {first} {first}"
    return f"{'once' if first == second else 'twice'} {first} {second}"


def test_wall_times_around_every_change_are_zoneinfos():
    questions, expected = [], []
    for name, changes in changes_by_tool(all_zones()).items():
        zone = zoneinfo.ZoneInfo(name)
        for (_, before_s), (at_s, after_s) in zip(changes, changes[1:]):
            lo_s, hi_s = sorted((at_s + before_s, at_s + after_s))
            for wall_s in (lo_s - 1, lo_s, (lo_s + hi_s) // 2, hi_s - 1, hi_s):
                questions.append(("wall", name, wall_s))
                expected.append(wall_by_zoneinfo(zone, wall_s))
    assert len(questions) > 100000
    for question, answer, wanted in zip(questions, ask(questions), expected):
        assert answer == wanted, question


# ---- schedules ------------------------------------------------------------------------------------------------------

# Whole and half hours, at midnight, north and south, none, negative summer time, and days that were left out.
CRON_ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "America/Asuncion",
              "Europe/Dublin", "Africa/Casablanca", "Pacific/Apia", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Chatham",
              "Asia/Beirut", "America/St_Johns", "Antarctica/Troll"]
MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
WEEKDAYS = "SUN MON TUE WED THU FRI SAT".split()


class Generator:
    """Random expressions of the part of the grammar that cronsim has. It lacks nW, L-n, ?, H and ranges that wrap
    around (the C model test covers those), and reads "5-5/3" as "5/3"."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def value(self, lo, hi, words):
        v = self.random.randint(lo, hi)
        return words[v - lo] if words and v - lo < len(words) and self.random.random() < 0.4 else str(v)

    def item(self, lo, hi, words):
        r = self.random
        kind = r.random()
        if kind < 0.55:
            return self.value(lo, hi, words)
        if kind < 0.70:
            return f"*/{r.randint(1, hi - lo + 1 if hi != 7 else 7)}"
        if kind < 0.78:
            return f"{r.randint(lo, hi)}/{r.randint(1, hi - lo if hi != 7 else 6)}"
        a, b = sorted(r.sample(range(lo, hi + 1), 2))
        return f"{a}-{b}" + (f"/{r.randint(1, b - a)}" if kind > 0.9 else "")

    def field(self, lo, hi, star, words=None, extra=None):
        r = self.random
        if r.random() < star:
            return "*"
        if extra and r.random() < 0.25:
            return r.choice(extra)
        return ",".join(self.item(lo, hi, words) for _ in range(r.choice((1, 1, 1, 2, 3))))

    def expression(self):
        r = self.random
        fields = [self.field(0, 59, 0.1), self.field(0, 23, 0.3), self.field(1, 31, 0.5, extra=["L", "LW", "1,L", "LW,15"]),
                  self.field(1, 12, 0.6, MONTHS),
                  self.field(0, 7, 0.5, WEEKDAYS, extra=["5L", "0L", "1#1", "MON#2", "3#5", "5#3,5L", "7#1"])]
        if r.random() < 0.2:
            fields.insert(0, self.field(0, 59, 0.1))
        return " ".join(fields)


def follows_elapsed_time(expression):
    """cronsim (as Debian's cron) treats an expression as one of fixed times only if neither the minute nor the hour
    begins with a star, and never one with seconds; carillon looks at the hour alone. To follow elapsed time is to be
    not due in a gap and due in both passes of a repeated hour."""
    fields = expression.split()
    return len(fields) == 6 or fields[0].startswith("*") or fields[1].startswith("*")


def dues_by_cronsim(expression, zone, after_s, count):
    start = datetime.datetime.fromtimestamp(after_s, zone)
    dues = []
    try:
        for due in cronsim.CronSim(expression, start):
            dues.append(int(due.timestamp()))
            if len(dues) == count:
                break
    except (StopIteration, RuntimeError):
        pass
    return dues


def gap_end(changes, due_s):
    """cronsim moves a time that the clock jumps over to the end of the jump, carillon by its length: the last change
    before the due is that end."""
    instants = [at_s for at_s, _ in changes]
    return instants[bisect.bisect_right(instants, due_s) - 1]


def dues_by_tool(line, changes):
    dues = set()
    for pair in line.split():
        due_ms, note = pair.split(":")
        assert int(due_ms) % 1000 == 0
        dues.add(gap_end(changes, int(due_ms) // 1000) if note == "dst_gap" else int(due_ms) // 1000)
    return sorted(dues)


def random_cases(seed):
    generator = Generator(seed)
    r = generator.random
    changes = changes_by_tool(CRON_ZONES)
    for _ in range(CASES):
        name = r.choice(CRON_ZONES)
        after_s = r.randrange(FROM_S, END_S - 10 * 366 * 86400)
        if len(changes[name]) > 1 and r.random() < 0.7:  # most bugs live near a change of the clock
            at_s = r.choice(changes[name][1:])[0]
            after_s = min(max(at_s - r.randrange(0, 2 * 86400), FROM_S), END_S)
        yield generator.expression(), name, after_s, changes[name]


def test_dues_are_cronsims():
    seed = int(os.environ.get("TEST_SEED", random.randrange(1 << 32)))
    print(f"TEST_SEED={seed}")
    cases = list(random_cases(seed))
    questions = []
    for expression, name, after_s, _ in cases:
        gap, repeat = ("skip", "both") if follows_elapsed_time(expression) else ("shift", "first")
        questions.append(("next", name, gap, repeat, "skip", after_s * 1000, 400, expression))
    compared = refused = 0
    for (expression, name, after_s, changes), line in zip(cases, ask(questions)):
        case = f"{expression!r} in {name} after {after_s}"
        if line.startswith("error: "):
            # Refused at the write; cronsim refuses some at once and looks fifty years ahead for the others.
            assert "day of month: no" in line, f"{case}: {line}"
            with pytest.raises((cronsim.CronSimError, StopIteration, AssertionError)):
                assert dues_by_cronsim(expression, zoneinfo.ZoneInfo(name), after_s, 1) != [], "none, as it should"
            refused += 1
            continue
        ours = dues_by_tool(line, changes)
        # Those that were moved are out of order by now: compare what both must have seen.
        theirs = dues_by_cronsim(expression, zoneinfo.ZoneInfo(name), after_s, 8)
        assert ours[:len(theirs)] == theirs, case
        compared += len(theirs)
    assert compared > CASES * 6 and refused < CASES / 10
    print(f"{len(cases)} cases, {compared} dues, {refused} impossible")
