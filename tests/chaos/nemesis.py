"""What goes wrong, and when: a plan made from a seed, and how each of its steps is done and healed."""
import dataclasses
import random

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


# fault: (how often in proportion, shortest, longest, what it takes for itself); stores.py has those of each store
AGENT_FAULTS = {
    "kill -9": (4, 0.5, 6, "process"),
    "SIGSTOP": (4, 1, 12, "process"),
    "planned restart of": (2, 1, 4, "process"),
    "consul cut off from": (2, 1, 10, "consul"),
    "consul silent to": (1, 1, 10, "consul"),
    "peers cut off from": (2, 1, 8, "peers"),
    "peers silent to": (2, 1, 8, "peers"),
    "outgoing connects refused to": (3, 1, 10, "connects"),
}
SERVER_FAULTS = {
    "consul's leader killed": (3, 3, 10, "consul servers"),
    "consul's leader stopped": (1, 3, 10, "consul servers"),
    "callee down": (2, 1, 8, "callee"),
    "clock of the last agent off": (3, 1, 8, "clock"),
}


def plan(seed, seconds, agents, store, without=()):
    """The steps for SECONDS on STORE (stores.py); the same for the same arguments."""
    rng = random.Random(seed)
    steps, busy, at = [], {}, 1.0
    at_agents, at_servers = AGENT_FAULTS | store.agent_faults, SERVER_FAULTS | store.server_faults
    choices = [(f, t, *at_agents[f]) for f in at_agents for t in agents]
    choices += [(f, "", w * len(agents), *rest) for f, (w, *rest) in at_servers.items()]
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
        self.healing = {}    # id of a step -> what heals it
        self.touched = set() # names of agents whose process something is being done to

    def begin(self, step):
        world = self.world
        if step.fault in world.store.agent_faults | world.store.server_faults:
            self.healing[id(step)] = world.store.begin(step, self)
            return
        if step.target:
            agent, links = world.agent(step.target), world.links[step.target]
            doing = {
                "kill -9": lambda: self.killed(agent),
                "SIGSTOP": lambda: self.stopped(agent),
                "planned restart of": lambda: self.restarted(agent),
                "consul cut off from": lambda: self.link(links["consul"], "cut"),
                "consul silent to": lambda: self.link(links["consul"], "stall"),
                "peers cut off from": lambda: self.link(links["peers"], "cut"),
                "peers silent to": lambda: self.link(links["peers"], "stall"),
                "outgoing connects refused to": lambda: self.connects_refused(agent),
            }
        else:
            doing = {
                "consul's leader killed": self.leader_killed,
                "consul's leader stopped": self.leader_stopped,
                "callee down": self.callee_down,
                "clock of the last agent off": self.clock_off,
            }
        self.healing[id(step)] = doing[step.fault]()

    def heal(self, step):
        """False: it cannot be healed yet."""
        heal = self.healing.get(id(step))
        if heal and heal() is False:
            return False
        self.healing.pop(id(step), None)
        return True

    # ---- agents; each returns what heals it, which returns False as long as it cannot

    def to_process(self, agent, do):
        """One thing at a time: a fault of the store may have chosen this agent too."""
        if agent.name in self.touched or not agent.process.alive():
            return None
        self.touched.add(agent.name)
        heal = do(agent)

        def healed():
            if heal() is False:
                return False
            self.touched.discard(agent.name)
            return True
        return healed

    def killed(self, agent):
        def kill(agent):
            agent.kill9()
            return lambda: agent.start(wait=False)
        return self.to_process(agent, kill)

    def stopped(self, agent):
        def stop(agent):
            agent.stop()
            return agent.cont
        return self.to_process(agent, stop)

    def restarted(self, agent):
        def restart(agent):
            agent.process.signal(15)
            return again

        def again():
            if agent.process.alive():
                return False
            unborn = agent.process.code == -15 and not agent.process.life_text()  # on a busy machine, before main()
            self.world.expect(agent.process.code == 0 or unborn, f"{agent.name} ended with {agent.process.code} after SIGTERM")
            return agent.start(wait=False)
        return self.to_process(agent, restart)

    @staticmethod
    def link(proxy, how):
        getattr(proxy, how)()
        return proxy.heal

    def connects_refused(self, agent):
        """What it has is reset, and nothing new gets through: to Consul, the store, callees, other agents. They reach it still."""
        file = self.world.refusal(agent)
        file.touch()
        for link in self.world.links[agent.name].values():
            if link is not self.world.links[agent.name]["peers"]:
                link.reset()
        return lambda: file.unlink(missing_ok=True)

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

    def callee_down(self):
        callee = self.world.callee
        port = self.rng.choice(callee.ports)
        callee.down(port)
        return lambda: callee.up(port)

    def clock_off(self):
        offset = self.rng.choice([-30.0, -3.0, -0.2, 0.2, 0.4, 3.0, 30.0])
        self.world.clock.set(offset)
        return lambda: self.world.clock.set(0.0)
