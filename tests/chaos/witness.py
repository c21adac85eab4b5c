"""The database's row-based binlog as a witness: every change in the order of its commit, told by nobody of ours."""
import collections
import re
import subprocess

TABLES = ("members", "slots", "jobs", "fires")
COUNTS = ("succeeded", "dead", "skipped", "coalesced", "cancelled")


class Witness:
    """Reads a server's binlogs and says what may not have happened."""

    def __init__(self, mariadb, database):
        self.database = database
        rows = mariadb.sql("SELECT TABLE_NAME AS t, COLUMN_NAME AS c FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s "
                           "ORDER BY TABLE_NAME, ORDINAL_POSITION", (database,))
        self.columns = collections.defaultdict(list)
        for row in rows:
            self.columns[row["t"]].append(row["c"])
        self.files = sorted(mariadb.data.glob("binlog.[0-9]*"))
        self.members, self.slots = {}, {}
        self.given = {}  # slots that this very transaction gives away: its writer may still write to them
        self.transactions = self.changes = 0
        self.problems = []

    # ---- reading

    def lines(self):
        command = ["mariadb-binlog", "--base64-output=decode-rows", "-v", f"--database={self.database}", *map(str, self.files)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace") as reader:
            yield from reader.stdout
            told = reader.stderr.read()
        assert reader.returncode == 0, f"mariadb-binlog: {told}"

    def read(self):
        """Judge everything; the problems."""
        changes, change, part = [], None, None
        for line in self.lines():
            if line.startswith("### "):
                head = re.match(r"### (INSERT INTO|UPDATE|DELETE FROM) `[^`]*`\.`([^`]*)`", line)
                if head:
                    change = {"op": head[1].split()[0], "table": head[2], "WHERE": {}, "SET": {}}
                    changes.append(change)
                elif line.rstrip() in ("### WHERE", "### SET"):
                    part = line.split()[1]
                elif change["table"] in TABLES:
                    number, value = re.match(r"###   @(\d+)=(.*)", line, re.S).groups()
                    change[part][self.columns[change["table"]][int(number) - 1]] = plain(value.rstrip("\n"))
            elif line.startswith(("COMMIT", "ROLLBACK")) or " Xid = " in line:
                self.transaction([c for c in changes if c["table"] in TABLES])
                changes = []
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
        if new["epoch"] <= old["epoch"]:
            self.wrong(f"slot {new['slot']}: epoch {old['epoch']} to {new['epoch']}")
        giver = self.members.get(old["owner"])
        if new["owner"] != old["owner"] and old["owner"] and giver and not giver["dead"] and old["owner"] not in writers:
            self.wrong(f"slot {new['slot']} was taken from {old['owner']}, which was alive, by {new['owner']}")

    def owned(self, what, slot, writers):
        owner = self.slots[slot]["owner"]
        if len(writers) != 1 or writers[0] not in (owner, self.given.get(slot)):
            self.wrong(f"{what} of slot {slot}, which {owner} owns, was written by {writers}")
        elif self.members[writers[0]]["dead"]:
            self.wrong(f"{what} was written by {writers[0]}, which was dead")

    def job(self, c, writers):
        old, new = c["WHERE"], c["SET"]
        row = new or old
        self.owned(f"job {row['id']}", row["slot"], writers)
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
        self.owned(f"fire {new['id']} {new['seq']}", new["slot"], writers)
        if c["op"] == "UPDATE" and new["rev"] <= old["rev"]:
            self.wrong(f"fire {new['id']} {new['seq']}: rev {old['rev']} to {new['rev']}")


def plain(value):
    """A number, or the text as it is printed: it is compared only."""
    found = re.fullmatch(r"(-?\d+)(?: \(\d+\))?", value)
    return int(found[1]) if found else None if value == "NULL" else value
