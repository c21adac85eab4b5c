"""What goes wrong, and when: a plan made from a seed, and how each of its steps is done and healed."""
import dataclasses
import random

import pymysql

from lib.procs import wait_until

AT_ONCE = 3  # faults at a time


@dataclasses.dataclass
class Step:
    """One fault: begins AT seconds after the start, lasts SECONDS."""
    at: float
    seconds: float
    fault: str
    target: str

    def __str__(self):
        return f"{self.at:6.1f} s  {self.fault} {self.target}".rstrip() + f" for {self.seconds:.1f} s"


# fault: (how often in proportion, shortest, longest, what it takes for itself)
AGENT_FAULTS = {
    "kill -9": (4, 0.5, 6, "process"),
    "SIGSTOP": (4, 1, 12, "process"),
    "planned restart of": (2, 1, 4, "process"),
    "consul cut off from": (2, 1, 10, "consul"),
    "consul silent to": (1, 1, 10, "consul"),
    "store cut off from": (2, 1, 8, "store"),
    "store silent to": (2, 1, 8, "store"),
    "store's answers lost to": (2, 1, 6, "store"),
    "one answer of the store lost to": (3, 1, 3, "store"),
    "peers cut off from": (2, 1, 8, "peers"),
    "peers silent to": (2, 1, 8, "peers"),
}
SERVER_FAULTS = {
    "consul's leader killed": (3, 3, 10, "consul servers"),
    "consul's leader stopped": (1, 3, 10, "consul servers"),
    "database killed": (2, 0.5, 4, "database"),
    "database stopped": (2, 1, 8, "database"),
    "database read-only": (2, 1, 5, "database"),
    "callee down": (2, 1, 8, "callee"),
    "clock of the last agent off": (3, 1, 8, "clock"),
}


def plan(seed, seconds, agents, without=()):
    """The steps for SECONDS; the same for the same arguments."""
    rng = random.Random(seed)
    steps, busy, at = [], {}, 1.0
    choices = [(f, t, *AGENT_FAULTS[f]) for f in AGENT_FAULTS for t in agents]
    choices += [(f, "", w * len(agents), *rest) for f, (w, *rest) in SERVER_FAULTS.items()]
    choices = [c for c in choices if c[0] not in without]
    while at < seconds - 1:
        free = [c for c in choices if busy.get((c[5], c[1]), 0.0) <= at]
        if sum(end > at for end in busy.values()) < AT_ONCE:
            fault, target, _, low, high, what = rng.choices(free, [c[2] for c in free])[0]
            length = min(rng.uniform(low, high), seconds - at)
            steps.append(Step(at, length, fault, target))
            busy[what, target] = at + length + 1.0
        at += rng.uniform(0.3, 3.0)
    return steps


class Nemesis:
    """Does to a world (chaos.World) what a plan says."""

    def __init__(self, world, rng):
        self.world, self.rng = world, rng
        self.healing = {}  # id of a step -> what heals it

    def begin(self, step):
        world = self.world
        if step.target:
            agent, links = world.agent(step.target), world.links[step.target]
            doing = {
                "kill -9": lambda: self.killed(agent),
                "SIGSTOP": lambda: self.stopped(agent),
                "planned restart of": lambda: self.restarted(agent),
                "consul cut off from": lambda: self.link(links["consul"], "cut"),
                "consul silent to": lambda: self.link(links["consul"], "stall"),
                "store cut off from": lambda: self.link(links["store"], "cut"),
                "store silent to": lambda: self.link(links["store"], "stall"),
                "store's answers lost to": lambda: self.link(links["store"], "drop_replies"),
                "one answer of the store lost to": lambda: self.one_reply(links["store"]),
                "peers cut off from": lambda: self.link(links["peers"], "cut"),
                "peers silent to": lambda: self.link(links["peers"], "stall"),
            }
        else:
            doing = {
                "consul's leader killed": self.leader_killed,
                "consul's leader stopped": self.leader_stopped,
                "database killed": self.database_killed,
                "database stopped": self.database_stopped,
                "database read-only": self.database_read_only,
                "callee down": self.callee_down,
                "clock of the last agent off": self.clock_off,
            }
        self.healing[id(step)] = doing[step.fault]()

    def heal(self, step):
        heal = self.healing.pop(id(step), None)
        if heal:
            heal()

    # ---- agents; each returns what heals it

    @staticmethod
    def killed(agent):
        agent.kill9()
        return lambda: agent.start(wait=False)

    @staticmethod
    def stopped(agent):
        agent.stop()
        return agent.cont

    def restarted(self, agent):
        agent.process.signal(15)

        def again():
            self.world.expect(agent.process.wait(30) == 0, f"{agent.name} ended with {agent.process.code} after SIGTERM")
            agent.start(wait=False)
        return again

    @staticmethod
    def link(proxy, how):
        getattr(proxy, how)()
        return proxy.heal

    def one_reply(self, proxy):
        words = self.rng.choice([b"COMMIT", b"UPDATE", b"slots", b"jobs", b"members"])
        proxy.lose_reply(lambda data: words in data)
        return lambda: proxy.lose_reply(None)

    # ---- servers

    def leader_killed(self):
        leader = self.world.consuls.leader()
        if leader is None:
            return None
        leader.kill9()
        return lambda: leader.process.start()

    def leader_stopped(self):
        leader = self.world.consuls.leader()
        if leader is None:
            return None
        leader.stop()
        return leader.cont

    def database_killed(self):
        database = self.world.database
        database.kill9()
        return lambda: database.start(60)

    def database_stopped(self):
        self.world.database.stop()
        return self.world.database.cont

    def database_read_only(self):
        self.read_only(1)
        return lambda: wait_until(lambda: self.read_only(0), 20, "database writable again")

    def read_only(self, value):
        try:
            self.world.database.sql(f"SET GLOBAL read_only = {value}")
        except pymysql.err.MySQLError:
            return False  # busy: it is tried again when it is healed, and is no fault before
        return True

    def callee_down(self):
        callee = self.world.callee
        port = self.rng.choice(callee.ports)
        callee.down(port)
        return lambda: callee.up(port)

    def clock_off(self):
        offset = self.rng.choice([-30.0, -3.0, -0.2, 0.2, 0.4, 3.0, 30.0])
        self.world.set_clock(offset)
        return lambda: self.world.set_clock(0.0)
