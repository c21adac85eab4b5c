"""The real program as an agent, and its HTTP API."""
import copy
import json
import os
import pathlib
import secrets
import signal

import requests
import yaml

from .procs import SLACK, Process, free_ports, make_folder, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]


def binary():
    path = pathlib.Path(os.environ.get("CARILLON_BINARY") or ROOT / "build/carillon")
    assert path.exists(), f"no {path}: run `make build`"
    return path


def merge(base, extra):
    """BASE with EXTRA on top, section by section; a value of None takes an option out."""
    result = copy.deepcopy(base)
    for key, value in extra.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


class ApiError(AssertionError):
    """An answer that is not the expected one."""

    def __init__(self, answer):
        self.status = answer.status_code
        try:
            self.problem = answer.json()
        except ValueError:
            self.problem = None
        super().__init__(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}")


class Agent:
    """One agent. Its ports, folder and name stay the same over restarts."""

    def __init__(self, name, folder=None, config=None):
        """CONFIG: sections and options as in the YAML file, on top of the name, the two listen addresses and logs."""
        self.name = name
        self.folder = pathlib.Path(folder or make_folder())
        api, cluster = free_ports(2)
        self.api_port, self.cluster_port = api, cluster
        self.address = f"127.0.0.1:{api}"
        self.url = f"http://{self.address}"
        self.config = merge({
            "agent": {"name": name, "data_dir": str(self.folder / f"{name}-data")},
            "log": {"level": os.environ.get("CARILLON_LOG", "info")},
            "api": {"listen": [self.address]},
        }, config or {})
        self.config_path = self.folder / f"{name}.yaml"
        self.process = Process(name, [binary(), "agent", "--config", self.config_path], self.folder)
        self.web = requests.Session()
        self.web.headers["Carillon-Client"] = "it"

    def over_tls(self, authority, own, host="127.0.0.1"):
        """The agent's API is https for HOST, and asks for certificates such as OWN."""
        self.url = f"https://{host}:{self.api_port}"
        self.web.trust_env = False  # an environment may name authorities of its own
        self.web.verify, self.web.cert = authority.ca, (own.cert, own.key)
        return self

    # ---- life

    def start(self, timeout=20, wait=True):
        self.config_path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        self.process.start()
        return self.wait_ready(timeout) if wait else self

    def wait_ready(self, timeout=20):
        wait_until(self.ready, timeout, f"{self.name} ready", alive=[self.process])
        return self

    def ready(self):
        return self.web.get(f"{self.url}/readyz", timeout=2).status_code == 200

    def kill9(self):
        self.process.kill9()

    def stop(self):
        self.process.stop()

    def cont(self):
        self.process.cont()

    def term(self, grace=30):
        """Planned end; fails unless it exits with 0."""
        code = self.process.term(grace)
        assert code == 0, f"{self.name} ended with {code}\n{self.process.log_tail()}"

    def end(self):
        self.process.end()

    # ---- API

    def call(self, method, path, timeout=15, **kwargs):
        """Any request; the answer whatever its status."""
        return self.web.request(method, self.url + path, timeout=timeout * SLACK, **kwargs)

    def ask(self, method, path, *statuses, **kwargs):
        """A request whose answer must have one of the given statuses (default: any 2xx); its JSON."""
        answer = self.call(method, path, **kwargs)
        if answer.status_code not in statuses if statuses else not answer.ok:
            raise ApiError(answer)
        return answer.json() if answer.content else None

    def create(self, job, **params):
        return self.ask("POST", "/v1/jobs", 201, json=job, params=params)

    def put(self, job_id, job, **params):
        return self.ask("PUT", f"/v1/jobs/{job_id}", 200, 201, json=job, params=params)

    def patch(self, job_id, change, **params):
        return self.ask("PATCH", f"/v1/jobs/{job_id}", 200, json=change, params=params)

    def get(self, job_id, **params):
        """The job, or None."""
        answer = self.call("GET", f"/v1/jobs/{job_id}", params=params)
        if answer.status_code == 404:
            return None
        if not answer.ok:
            raise ApiError(answer)
        return answer.json()

    def delete(self, job_id, **params):
        return self.ask("DELETE", f"/v1/jobs/{job_id}", 200, params=params)

    def pages(self, **params):
        """The pages of a list: each a list of jobs."""
        while True:
            page = self.ask("GET", "/v1/jobs", 200, params=params)
            yield page["jobs"]
            if not page["next_cursor"]:
                return
            params = {**params, "cursor": page["next_cursor"]}

    def list(self, **params):
        return [job for page in self.pages(**params) for job in page]

    def bulk(self, lines, timeout=60):
        """LINES: dicts {"op", "id", "job", …}. The results in order; fails unless each went well."""
        body = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        answer = self.call("POST", "/v1/bulk", timeout=timeout, data=body.encode(),
                           headers={"Content-Type": "application/x-ndjson"})
        if not answer.ok:
            raise ApiError(answer)
        results = [json.loads(line) for line in answer.text.splitlines()]
        done = results.pop()
        assert done.get("done") is True and done["failed"] == 0, (done, results[:5])
        assert len(results) == done["ok"]
        return results

    def fires(self, job_id, **params):
        return self.ask("GET", f"/v1/jobs/{job_id}/fires", 200, params=params)["fires"]

    def cluster(self):
        return self.ask("GET", "/v1/cluster", 200)

    def owner(self, job_id):
        return self.ask("GET", f"/v1/cluster/owner/{job_id}", 200)

    def health(self):
        return self.ask("GET", "/v1/health", 200)

    def metrics(self):
        """{sample as text: value} of /metrics."""
        answer = self.call("GET", "/metrics")
        if not answer.ok:
            raise ApiError(answer)
        samples = (line.rsplit(" ", 1) for line in answer.text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def metric(self, name):
        """Sum over all label sets of a metric."""
        return sum(v for k, v in self.metrics().items() if k == name or k.startswith(name + "{"))


class Cluster:
    """Agents a, b, c … of one cluster on one Consul and one MariaDB (lib/consul.py, lib/mariadb.py)."""

    def __init__(self, consul, mariadb, name="it", folder=None, config=None):
        self.consul, self.mariadb, self.name = consul, mariadb, name
        self.folder = pathlib.Path(folder or make_folder())
        self.config = config or {}
        self.agents = []
        self.database = mariadb.create(f"carillon_{name.replace('-', '_')}")
        self.secret_file = self._secret("cluster", secrets.token_hex(32))
        self.password_file = self._secret("mysql", self.database["password"])

    def _secret(self, name, text):
        path = self.folder / f"{name}.secret"
        path.write_text(text + "\n")
        path.chmod(0o600)
        return str(path)

    def agent(self, config=None, consul_address=None, mysql_port=None, name=None):
        """A new agent, not started. CONSUL_ADDRESS and MYSQL_PORT may be those of a proxy in between."""
        name = name or "abcdefghijklmnopqrstuvwxyz"[len(self.agents)]
        agent = Agent(name, self.folder)
        agent.config = merge(agent.config, merge({
            "cluster": {"mode": "consul", "name": self.name, "listen": f"127.0.0.1:{agent.cluster_port}",
                        "secret_file": self.secret_file},
            "consul": {"address": consul_address or self.consul.address},
            "store": {"driver": "mysql", "mysql": {
                "host": "127.0.0.1", "port": mysql_port or self.mariadb.port, "user": self.database["user"],
                "password_file": self.password_file, "database": self.database["database"]}},
        }, merge(self.config, config or {})))
        self.agents.append(agent)
        return agent

    def start(self, count=3, timeout=30, **kwargs):
        """COUNT new agents, started together; returns when all are ready and every slot has an owner."""
        new = [self.agent(**kwargs).start(wait=False) for _ in range(count)]
        for agent in new:
            agent.wait_ready(timeout)
        self.wait_settled(timeout)
        return new

    def alive(self):
        return [a for a in self.agents if a.process.alive() and not a.process.stopped]

    def settled(self):
        """Every agent owns some slots, none is unowned, and all see the same number of members."""
        alive = [a for a in self.alive() if a.config["agent"].get("role", "member") == "member"]
        samples = [a.metrics() for a in alive]
        owned = [s["carillon_slots_owned"] for s in samples]
        return (alive and all(s["carillon_members"] == len(alive) for s in samples) and min(owned) > 0
                and sum(owned) == self.slots() and all(s["carillon_slots_unowned"] == 0 for s in samples))

    def slots(self):
        return merge({"cluster": {"slots": 4096}}, self.config)["cluster"]["slots"]

    def sql(self, statement, args=None):
        """A statement in the cluster's database; the rows as dicts."""
        return self.mariadb.sql(statement, args, database=self.database["database"])

    def wait_settled(self, timeout=30):
        wait_until(self.settled, timeout, f"cluster {self.name} settled")

    def end(self):
        """At once: nothing of them will be looked at again, and their servers may be gone already."""
        for agent in self.agents:
            agent.process.signal(signal.SIGKILL)
        for agent in self.agents:
            agent.end()


class RaftCluster(Cluster):
    """Agents a, b, c … of one cluster on one Consul whose jobs are kept in a log of their own."""

    def __init__(self, consul, name="raft", folder=None, config=None):
        self.consul, self.name = consul, name
        self.folder = pathlib.Path(folder or make_folder())
        self.config = config or {}
        self.agents = []
        self.secret_file = self._secret("cluster", secrets.token_hex(32))

    def agent(self, config=None, consul_address=None, name=None, **_):
        """A new agent, not started."""
        name = name or "abcdefghijklmnopqrstuvwxyz"[len(self.agents)]
        agent = Agent(name, self.folder)
        [agent.raft_port] = free_ports(1)
        agent.config = merge(agent.config, merge({
            "cluster": {"mode": "consul", "name": self.name, "listen": f"127.0.0.1:{agent.cluster_port}",
                        "secret_file": self.secret_file},
            "consul": {"address": consul_address or self.consul.address},
            "store": {"driver": "raft", "raft": {"listen": f"127.0.0.1:{agent.raft_port}"}},
        }, merge(self.config, config or {})))
        self.agents.append(agent)
        return agent

    def log(self, agent):
        """What AGENT tells of the log."""
        return agent.cluster()["store"]["raft"]

    def leader(self, timeout=30):
        """The agent that leads, as it says itself."""
        def find():
            for agent in self.alive():
                try:
                    if self.log(agent)["role"] == "leader":
                        return agent
                except requests.RequestException:
                    pass
            return None
        return wait_until(find, timeout, f"a leader of {self.name}")

    def voters(self, agent=None):
        """{name: state} as Consul has them."""
        return {v["name"]: v["state"] for v in self.log(agent or self.alive()[0])["voters"]}
