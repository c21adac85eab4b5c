"""The stores that `make chaos` runs on: their servers, how each agent reaches them, what else goes wrong with them, and what they
testify at the end."""
import subprocess
import threading

import pymysql
import requests

from lib import disk
from lib.carillon import Cluster, RaftCluster, binary
from lib.galera import GaleraCluster
from lib.load import check_store
from lib.mariadb import MariaDB
from lib.procs import wait_until

from witness import Binlog, Witness, merged

BINLOG = ("--binlog-format=ROW", "--binlog-row-image=FULL")
DATABASE_DISK_BYTES = 1 << 30
AGENT_DISK_BYTES = 256 << 20


class MySql:
    """One MariaDB."""

    # fault: (how often in proportion, shortest, longest, what it takes for itself)
    agent_faults = {
        "store cut off from": (2, 1, 8, "store"),
        "store silent to": (2, 1, 8, "store"),
        "store's answers lost to": (2, 1, 6, "store"),
        "one answer of the store lost to": (3, 1, 3, "store"),
    }
    server_faults = {
        "database killed": (2, 0.5, 4, "database"),
        "database stopped": (2, 1, 8, "database"),
        "database read-only": (2, 1, 5, "database"),
        "database's disk full": (2, 2, 6, "database"),
    }

    def __init__(self, world):
        self.world = world
        by = disk.way()
        self.disk = disk.Disk(world.folder / "database", DATABASE_DISK_BYTES, by) if by == ("unshare", "-m") else None
        self.database = MariaDB(folder=world.folder, options=BINLOG, disk=self.disk)

    def cannot(self):
        """Faults that this machine does not let us make."""
        return [] if self.disk else ["database's disk full"]

    def start(self):
        self.database.start()
        return Cluster(self.world.consuls, self.database, name="chaos", folder=self.world.folder)

    def agent(self, cluster, number, consul_address):
        """A new agent, and the proxies to its store."""
        link = self.link(number)
        return cluster.agent(consul_address=consul_address, mysql_port=link.port), {"store": link}

    def link(self, _):
        return self.world.proxy(self.database.port)

    def recover(self):
        """Wait until the servers are themselves again."""

    def may_end(self, _):
        """Whether an agent may have ended by itself."""
        return False

    def settle(self, cluster):
        check_store(cluster)

    def testify(self, cluster):
        judge_binlog(Binlog(self.database, cluster.database["database"]).transactions(), [])

    # ---- what goes wrong; each returns what heals it

    def begin(self, step, nemesis):
        return {"database killed": self.killed, "database stopped": self.stopped, "database read-only": self.read_only,
                "database's disk full": self.full}.get(step.fault, lambda: self.at_link(step, nemesis))()

    def at_link(self, step, nemesis):
        link = self.world.links[step.target]["store"]
        if step.fault == "one answer of the store lost to":
            words = nemesis.rng.choice([b"COMMIT", b"UPDATE", b"slots", b"jobs", b"members"])
            link.lose_reply(lambda data: words in data)
            return lambda: link.lose_reply(None)
        return nemesis.link(link, {"store cut off from": "cut", "store silent to": "stall", "store's answers lost to": "drop_replies"}[
            step.fault])

    def killed(self):
        self.database.kill9()
        return lambda: self.database.start(60)

    def stopped(self):
        self.database.stop()
        return self.database.cont

    def read_only(self):
        def switch(value):
            return taken(lambda: self.database.sql(f"SET GLOBAL read_only = {value}"))
        switch(1)
        return lambda: switch(0)

    def full(self):
        """What met the end of the disk waits a minute before it looks again, so it is killed when there is space."""
        self.disk.fill()

        def heal():
            self.disk.free()
            self.database.kill9()
            self.database.start(60)
        return heal


class Galera(MySql):
    """Three servers. Each agent has its own; those of the first two go to another while theirs is away, as behind a proxy that asks the
    servers how they are."""

    server_faults = {
        "galera server killed": (5, 0.5, 6, "galera"),
        "galera server stopped": (4, 1, 8, "galera"),
        "galera server cut off": (5, 4, 9, "galera"),
        "all galera servers killed": (1, 0.5, 2, "galera"),
    }

    def __init__(self, world):  # pylint: disable=super-init-not-called  # other servers
        self.world = world
        self.galera = GaleraCluster(world.folder, options=("--binlog-row-image=FULL",))
        self.health = [True] * len(self.galera.nodes)
        self.chosen = {}  # proxy -> number of its server
        self.closing = threading.Event()
        self.watch = threading.Thread(target=self._watch, daemon=True)

    def cannot(self):
        return []

    def start(self):
        self.galera.start()
        self.watch.start()
        return Cluster(self.world.consuls, self.galera.nodes[0], name="chaos", folder=self.world.folder)

    def link(self, number):
        link = self.world.proxy(0)
        own = number % len(self.health)

        def choose():
            self.chosen[link] = own
            if number < 2 and not self.health[own] and True in self.health:
                self.chosen[link] = self.health.index(True)
            return "127.0.0.1", self.galera.nodes[self.chosen[link]].port
        link.choose = choose
        return link

    def _watch(self):
        while not self.closing.wait(0.3):
            for n, node in enumerate(self.galera.nodes):
                well = node.process.alive() and not node.process.stopped and is_primary(node)
                if self.health[n] and not well:
                    for link, chosen in list(self.chosen.items()):
                        if chosen == n:
                            link.reset()
                self.health[n] = well

    def recover(self):
        nodes = self.galera.nodes
        try:
            wait_until(lambda: all(is_primary(n) for n in nodes), 12, "all servers of Galera", interval=0.3,
                       alive=[n.process for n in nodes])
        except AssertionError:
            if any(is_primary(n) for n in nodes):
                raise
            # None of them knows whether those it does not hear of have gone on: here a person decides.
            newest = max(nodes, key=lambda n: int(n.status("wsrep_last_committed")))
            print(f"no part of Galera has a majority; {newest.name} is told to begin again", flush=True)
            newest.sql("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=1'")
            wait_until(lambda: all(is_primary(n) for n in nodes), 30, "all servers of Galera", interval=0.3)

    def testify(self, cluster):
        self.closing.set()
        binlogs = [Binlog(node, cluster.database["database"]) for node in self.galera.nodes]
        judge_binlog(*merged({binlog.name: binlog.transactions() for binlog in binlogs}))
        conflicts = sum(int(n.status(f"wsrep_local_{what}")) for n in self.galera.nodes for what in ("cert_failures", "bf_aborts"))
        print(f"galera: {conflicts} transactions refused for another server's since each one's last start")

    # ---- what goes wrong

    def begin(self, step, nemesis):
        node = nemesis.rng.choice(self.galera.nodes)
        return {"galera server killed": lambda: self.server_killed([node]), "galera server stopped": lambda: self.server_stopped(node),
                "galera server cut off": lambda: self.server_cut_off(node),
                "all galera servers killed": lambda: self.server_killed(self.galera.nodes)}.get(
                    step.fault, lambda: self.at_link(step, nemesis))()

    def server_killed(self, nodes):
        for node in nodes:
            node.kill9()

        def heal():
            for node in nodes:
                node.launch(self.galera.address)
        return heal

    @staticmethod
    def server_stopped(node):
        node.stop()
        return node.cont

    def server_cut_off(self, node):
        """A server that is still coming back cannot be told to leave; it is none of this fault then."""
        if not is_primary(node):
            return None
        node.isolate(True)
        return lambda: taken(lambda: node.isolate(False))


class Raft:
    """The agents' own log, kept by three of them."""

    agent_faults = {
        "other voters cut off from": (3, 1, 8, "log"),
        "other voters silent to": (2, 1, 8, "log"),
        "disk full of": (3, 1, 8, "disk"),
    }
    server_faults = {
        "leader killed": (3, 0.5, 6, "leader"),
        "leader stopped": (1, 1, 8, "leader"),
        "leader cut off": (3, 2, 8, "leader"),
        "leader's disk full": (2, 1, 8, "leader"),
    }

    def __init__(self, world):
        self.world = world
        self.by = disk.way()
        self.disks = {}

    def cannot(self):
        return [] if self.by else ["disk full of", "leader's disk full"]

    def start(self):
        return RaftCluster(self.world.consuls, name="chaos", folder=self.world.folder)

    def agent(self, cluster, _, consul_address):
        agent = cluster.agent(consul_address=consul_address)
        if self.by:
            self.disks[agent.name] = disk.Disk(agent.config["agent"]["data_dir"], AGENT_DISK_BYTES, self.by)
            agent.process.argv = self.disks[agent.name].wrap(agent.process.argv)
        link = self.world.proxy(agent.raft_port)
        agent.config["store"]["raft"]["advertise"] = link.address
        return agent, {"log": link}

    def recover(self):
        """The agents are the servers."""

    @staticmethod
    def may_end(agent):
        """One that is started while its disk is full says so and ends; one that was ready goes on."""
        life = agent.process.life_text()
        told = any(words in life for words in ("No space left", "not enough space"))  # the system's and libraft's
        return agent.process.code == 1 and told and "msg=ready" not in life

    def settle(self, cluster):
        assert cluster.voters(), "nobody votes"

    def testify(self, cluster):
        """Every folder is whole, as the program that reads it without an agent says."""
        voters = cluster.voters()
        for agent in cluster.agents:
            agent.term(60)
        for agent in cluster.agents:
            if agent.name in voters:
                self._check_folder(agent)

    def _check_folder(self, agent):
        argv = [str(binary()), "store", "check", "--config", str(agent.config_path)]
        if self.by:
            argv = self.disks[agent.name].wrap(argv)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        print(f"log of {agent.name}: {done.stdout.strip()}")
        assert done.returncode == 0, f"store check of {agent.name}: {done.stdout}{done.stderr}"

    # ---- what goes wrong

    def begin(self, step, nemesis):
        if step.target:
            agent = self.world.agent(step.target)
        else:
            agent = self._leader()
        if agent is None:
            return None
        return {"other voters cut off from": self.cut_off, "leader cut off": self.cut_off, "other voters silent to": self.silent,
                "leader killed": nemesis.killed, "leader stopped": nemesis.stopped, "disk full of": self.full,
                "leader's disk full": self.full}[step.fault](agent)

    def _leader(self):
        """As one of them says itself; None while none of those that answer leads."""
        for agent in self.world.cluster.alive():
            try:
                if requests.get(f"{agent.url}/v1/cluster", timeout=1).json()["store"]["raft"]["role"] == "leader":
                    return agent
            except (requests.RequestException, KeyError):
                pass
        return None

    def cut_off(self, agent):
        links = self.world.links
        links[agent.name]["log"].cut()
        others = [links[name]["log"] for name in links if name != agent.name]
        for link in others:
            link.refuse(agent.process.pid)

        def heal():
            for link in (links[agent.name]["log"], *others):
                link.heal()
        return heal

    def silent(self, agent):
        self.world.links[agent.name]["log"].stall()
        return self.world.links[agent.name]["log"].heal

    def full(self, agent):
        self.disks[agent.name].fill()
        return self.disks[agent.name].free


STORES = {"mysql": MySql, "galera": Galera, "raft": Raft}


def is_primary(node):
    try:
        return bool(node.primary())
    except (pymysql.err.MySQLError, OSError, LookupError):
        return False


def taken(order):
    """Whether a server took it. One that is too busy is no fault yet; what heals is tried again."""
    try:
        order()
    except pymysql.err.MySQLError:
        return False
    return True


def judge_binlog(history, problems):
    witness = Witness()
    problems = problems + witness.read(history)
    print(f"binlog: {witness.transactions} transactions, {witness.changes} rows")
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:30])
    assert witness.transactions > 10, "the binlog tells nothing"
