"""Three agents of a cluster, and how long their jobs wait when one dies or leaves."""
import shutil
import time

from lib.carillon import Cluster, RaftCluster
from lib.consul import Consul
from lib.procs import make_folder, wait_until

from rig import CALLBACK, FastCallee, instant

JOBS = 900  # @every 1s, evenly spread: with three owners one of each is due every 3 ms


class Three:
    """`with Three(bench, store) as three`."""

    def __init__(self, bench, store):
        self.store = store
        self.gone = None
        self.folder = make_folder("carillon-bench-")
        self.consul = Consul(folder=self.folder)
        self.callee = FastCallee(self.folder)
        self.bench = bench
        self.cluster = None

    def __enter__(self):
        self.consul.start()
        self.callee.start()
        self.consul.register("bench", self.callee.port)
        config = {"callback": {"allow_loopback": "true"}}
        self.cluster = (Cluster(self.consul, self.bench.mariadb, name="bench", folder=self.folder, config=config)
                        if self.store == "mysql" else RaftCluster(self.consul, name="bench", folder=self.folder, config=config))
        agents = self.cluster.start(3)
        begin = time.time() + 2
        agents[0].bulk({"op": "create", "id": f"t-{i}", "job": {"schedule": "@every 1s", "callback": CALLBACK,
                                                               "starts_at": instant(begin + i / JOBS)}} for i in range(JOBS))
        wait_until(lambda: self.callee.count() > 3 * JOBS, 30, "jobs firing", alive=[self.callee.process])
        return self

    def __exit__(self, *_):
        self.cluster.end()
        self.callee.process.end(grace=0.1)
        self.consul.process.end(grace=1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _jobs_of(self, agent):
        """Names of the jobs whose slots AGENT holds."""
        asked = next(a for a in self.cluster.alive() if a is not agent)
        return {f"t-{i}" for i in range(JOBS) if asked.owner(f"t-{i}")["name"] == agent.name}

    def _victim(self):
        if len(self.cluster.alive()) < 3:
            self._replace()
        agent = self.cluster.alive()[-1]
        jobs = self._jobs_of(agent)
        assert jobs, f"{agent.name} owns no job"
        self.gone = agent
        self.callee.reset()
        time.sleep(1.5)
        return agent, jobs

    def _replace(self):
        """Three again, and all at rest. The log wants its voter back: another becomes one only after half a minute."""
        if self.store == "mysql":
            self.cluster.start(1)
        else:
            self.gone.start(timeout=60)
            self.cluster.wait_settled(60)
        time.sleep(6)  # a verdict of death stands alone for five seconds

    def kill(self):
        """Seconds from SIGKILL to the first fire of one of its jobs by another, which has a higher epoch."""
        agent, jobs = self._victim()
        epochs = {job: epoch for _, _, job, _, epoch in self.callee.log()}
        agent.kill9()
        killed = time.monotonic()

        def taken():
            return [at for at, _, job, _, epoch in self.callee.log() if job in jobs and epoch > epochs.get(job, epoch)]
        return wait_until(taken, 30, "a fire by a new owner")[0] - killed

    def leave(self):
        """How late, in ms, the latest fire of the leaving agent's jobs was."""
        agent, jobs = self._victim()
        agent.term()
        time.sleep(2)
        return max((at - (due - (time.time() - time.monotonic()))) * 1e3 for at, due, job, _, _ in self.callee.log() if job in jobs)
