"""The database's row-based binlog as a witness: every change in the order of its commit, told by nobody of ours."""
import collections
import re
import subprocess

TABLES = ("members", "slots", "jobs", "fires")
GALERA_DOMAIN = 7
HELD = 1  # FIRE_STATE_HELD: who runs an attempt ends it, whoever owns the slot by then
COUNTS = ("succeeded", "dead", "skipped", "coalesced", "cancelled")
KEYS = {"members": ("member",), "slots": ("slot",), "jobs": ("uid",), "fires": ("uid", "seq")}
# What has to be before a change as the change before it left it.
CHAINED = {"members": ("beat", "flush", "dead"), "slots": ("owner", "epoch"), "jobs": ("rev", "seq"), "fires": ("rev",)}


class Binlog:
    """The binlogs of a server, as MariaDB's own program reads them."""

    def __init__(self, mariadb, database):
        self.name, self.database = mariadb.name, database
        rows = mariadb.sql("SELECT TABLE_NAME AS t, COLUMN_NAME AS c FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s "
                           "ORDER BY TABLE_NAME, ORDINAL_POSITION", (database,))
        self.columns = collections.defaultdict(list)
        for row in rows:
            self.columns[row["t"]].append(row["c"])
        mariadb.sql("FLUSH BINARY LOGS")
        self.files = sorted(mariadb.data.glob("binlog.[0-9]*"))

    def lines(self, file):
        """As text. A server that died while its disk was full leaves a file with a torn end; what was torn was not committed."""
        command = ["mariadb-binlog", "--base64-output=decode-rows", "-v", f"--database={self.database}", str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace") as reader:
            yield from reader.stdout
            told = reader.stderr.read()
        assert reader.returncode == 0 or "Event truncated" in told, f"mariadb-binlog: {told}"

    def transactions(self):
        for file in self.files:
            yield from transactions(self.lines(file), self.columns)


def transactions(lines, columns):
    """(global id, changes) of each transaction in LINES of text, in their order. COLUMNS: the names of each table's."""
    gtid, changes, change, part = None, [], None, None
    for line in lines:
        if line.startswith("### "):
            head = re.match(r"### (INSERT INTO|UPDATE|DELETE FROM) `[^`]*`\.`([^`]*)`", line)
            if head:
                change = {"op": head[1].split()[0], "table": head[2], "WHERE": {}, "SET": {}}
                changes.append(change)
            elif line.rstrip() in ("### WHERE", "### SET"):
                part = line.split()[1]
            elif change["table"] in TABLES:
                number, value = re.match(r"###   @(\d+)=(.*)", line, re.S).groups()
                change[part][columns[change["table"]][int(number) - 1]] = plain(value.rstrip("\n"))
        elif line.startswith("COMMIT"):
            yield gtid, [c for c in changes if c["table"] in TABLES]
            gtid, changes = None, []
        elif line.startswith("ROLLBACK"):  # where a file begins, and after a torn end
            gtid, changes = None, []
        elif "\tGTID " in line:
            if gtid:
                yield gtid, []  # no rows: a statement that defines data
            gtid = line.split("\tGTID ")[1].split()[0]


def merged(histories):
    """One history of the servers of a Galera cluster, each of which has some or all of it; and what is wrong with them. (A number
    that none has tells nothing: tables that are there already take one. A change that none has breaks a chain.)"""
    known, problems = {}, []
    for name, history in histories.items():
        last = 0
        for gtid, changes in history:
            domain, _, number = map(int, gtid.split("-"))
            if domain != GALERA_DOMAIN:
                continue
            if number <= last:
                problems.append(f"{name}: transaction {number} after {last}")
            last = number
            if known.setdefault(number, changes) != changes:
                problems.append(f"{name}: transaction {number} is another one than elsewhere")
    return [(number, known[number]) for number in sorted(known)], problems


class Witness:
    """Judges a history of transactions: what of it may not have happened."""

    def __init__(self):
        self.members, self.slots = {}, {}
        self.rows = {}   # (table, key) -> what CHAINED names, as last written
        self.moved = {}  # slot -> the transaction of its last move and its owner before
        self.given = {}  # slots that this very transaction gives away: its writer may still write to them
        self.transactions = self.changes = 0
        self.problems = []

    def read(self, history):
        """Judge all of it; the problems."""
        for _, changes in history:
            self.transaction(changes)
        return self.problems

    # ---- judging

    def wrong(self, text):
        self.problems.append(f"binlog, transaction {self.transactions}: {text}")

    def transaction(self, changes):
        if not changes:
            return
        self.transactions += 1
        self.changes += len(changes)
        writers = [c["SET"]["member"] for c in changes
                   if c["table"] == "members" and c["op"] == "UPDATE" and c["SET"]["flush"] != c["WHERE"]["flush"]]
        self.given = {c["SET"]["slot"]: c["WHERE"]["owner"] for c in changes if c["table"] == "slots" and c["op"] == "UPDATE"}
        for c in changes:
            self.chain(c)
        for c in changes:
            if c["table"] == "members":
                self.member(c)
        for c in changes:
            if c["table"] == "slots":
                self.slot(c, writers)
        for c in changes:
            if c["table"] == "jobs":
                self.job(c, writers)
            elif c["table"] == "fires" and c["op"] != "DELETE":
                self.fire(c, writers)

    def chain(self, c):
        """No change is missing before this one, and none was made beside it."""
        row = c["SET"] or c["WHERE"]
        key = c["table"], *(row[k] for k in KEYS[c["table"]])
        seen = {k: c["WHERE"].get(k) for k in CHAINED[c["table"]]} if c["WHERE"] else None
        if key in self.rows and seen != self.rows[key]:
            self.wrong(f"{key} was {self.rows[key]}, and {c['op']} found {seen}")
        self.rows.pop(key, None)
        if c["SET"]:
            self.rows[key] = {k: c["SET"].get(k) for k in CHAINED[c["table"]]}

    def member(self, c):
        old, new = c["WHERE"], c["SET"]
        if c["op"] == "DELETE":
            self.members.pop(old["member"], None)
            return
        self.members[new["member"]] = new
        if c["op"] == "UPDATE":
            if new["beat"] < old["beat"] or new["flush"] < old["flush"] or new["dead"] < old["dead"]:
                self.wrong(f"{new['member']} goes back: {old} to {new}")
            if old["dead"] and (new["beat"], new["flush"]) != (old["beat"], old["flush"]):
                self.wrong(f"{new['member']} is dead and goes on: {old} to {new}")

    def slot(self, c, writers):
        old, new = c["WHERE"], c["SET"]
        if c["op"] == "DELETE":
            self.wrong(f"slot {old['slot']} deleted")
            return
        self.slots[new["slot"]] = new
        if c["op"] == "INSERT":
            return
        self.moved[new["slot"]] = self.transactions, old["owner"]
        if new["epoch"] <= old["epoch"]:
            self.wrong(f"slot {new['slot']}: epoch {old['epoch']} to {new['epoch']}")
        giver = self.members.get(old["owner"])
        if new["owner"] != old["owner"] and old["owner"] and giver and not giver["dead"] and old["owner"] not in writers:
            self.wrong(f"slot {new['slot']} was taken from {old['owner']}, which was alive, by {new['owner']}")

    def owned(self, what, slot, writers, holder=None):
        """HOLDER: who else may write."""
        owner = self.slots[slot]["owner"]
        if len(writers) != 1 or writers[0] not in (owner, self.given.get(slot), holder):
            since, before = self.moved.get(slot, (0, "nobody"))
            self.wrong(f"{what} of slot {slot}, which {owner} owns since transaction {since} (before: {before}), was written by {writers}")
        elif self.members[writers[0]]["dead"]:
            self.wrong(f"{what} was written by {writers[0]}, which was dead")

    def job(self, c, writers):
        old, new = c["WHERE"], c["SET"]
        row = new or old
        self.owned(f"{c['op']} of job {row['id']}", row["slot"], writers)
        if c["op"] != "UPDATE":
            return
        if new["rev"] <= old["rev"] or new["seq"] < old["seq"]:
            self.wrong(f"job {new['id']}: rev {old['rev']} to {new['rev']}, seq {old['seq']} to {new['seq']}")
        if any(new[k] < old[k] for k in COUNTS) and new["dead"] >= old["dead"]:
            self.wrong(f"job {new['id']}: counts go back: {[(k, old[k], new[k]) for k in COUNTS]}")
        if sum(new[k] for k in COUNTS) > new["seq"]:
            self.wrong(f"job {new['id']}: more ends than fires: {[(k, new[k]) for k in COUNTS]}, seq {new['seq']}")

    def fire(self, c, writers):
        old, new = c["WHERE"], c["SET"]
        self.owned(f"{c['op']} of fire {new['id']} {new['seq']} in state {new['state']}", new["slot"], writers,
                   holder=old["holder"] if old and old["state"] == HELD else None)
        if c["op"] == "UPDATE" and new["rev"] <= old["rev"]:
            self.wrong(f"fire {new['id']} {new['seq']}: rev {old['rev']} to {new['rev']}")


def plain(value):
    """A number, or the text as it is printed: it is compared only."""
    found = re.fullmatch(r"(-?\d+)(?: \(\d+\))?", value)
    return int(found[1]) if found else None if value == "NULL" else value
