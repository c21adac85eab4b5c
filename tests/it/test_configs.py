"""configs/: the samples are read and run as they are, with the rights of the policies and grants beside them and no others."""
import configparser
import hashlib
import json
import re
import secrets
import shutil
import subprocess

import pytest
import requests
import yaml

from lib import procs
from lib.carillon import ROOT, Agent, binary
from lib.certs import Authority
from lib.consul import AclConsul
from lib.mariadb import MariaDB
from lib.procs import Process, free_ports, wait_until

CONFIGS = ROOT / "configs"
SAMPLES = ["standalone", "sidecar", "raft-cluster", "mysql-tls"]
TOKEN = "token-of-the-test"


@pytest.fixture(scope="module")
def authority():
    return Authority("ours")


class Machine:
    """A machine on which samples are installed: below one folder instead of /etc, /var/lib and /run."""

    def __init__(self, authority, name):
        self.folder = procs.make_folder(f"carillon-it-configs-{name}-")
        own = authority.issue(name, "IP:127.0.0.1", "DNS:localhost")
        etc = self.folder / "etc"
        etc.mkdir()
        for path, target in [(authority.ca, "ca.crt"), (own.cert, "tls.crt"), (own.key, "tls.key")]:
            shutil.copy(path, etc / target)
        self.write("tokens.yaml", yaml.safe_dump([{"name": "test", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
                                                   "namespaces": ["*"], "can": ["read", "write", "operate"]}]))
        for secret in ["cluster-secret", "consul-token", "mysql-password"]:
            self.write(secret, secrets.token_hex(32))

    def write(self, name, text):
        new = self.folder / "etc" / f"{name}.new"
        new.write_text(text + "\n")
        new.rename(self.folder / "etc" / name)

    def install(self, sample, **changes):
        """The path of the SAMPLE, with the paths of this machine; CHANGES by name: (what stands there, what shall)."""
        text = (CONFIGS / f"{sample}.yaml").read_text()
        for there, here in [("/etc/carillon", "etc"), ("/var/lib/carillon", "data"), ("/run/carillon", ".")]:
            text = text.replace(there, str(self.folder / here))
        for what, (there, here) in changes.items():
            assert there in text, (sample, what)
            text = text.replace(there, here)
        path = self.folder / f"{sample}.yaml"
        path.write_text(text)
        return path

    def agent(self, name, sample, **changes):
        """An agent with the SAMPLE, not started. Ports are the kernel's."""
        agent = Agent(name, self.folder)
        listen = f"127.0.0.1:{agent.cluster_port}"
        [ops] = free_ports(1)
        address = "0.0.0.0:7420" if sample == "mysql-tls" else "127.0.0.1:7420"
        ops_at = "127.0.0.1:7423" if sample in ("standalone", "raft-cluster") else "0.0.0.0:7423"
        path = self.install(sample, api=(address, agent.address), ops=(ops_at, f"127.0.0.1:{ops}"), **changes)
        agent.process = Process(name, [binary(), "agent", "--config", path, f"--set=agent.name={name}",
                                       *([] if sample == "standalone" else [f"--set=cluster.listen={listen}"])], self.folder)
        return agent


@pytest.fixture(scope="module")
def machine(authority):
    return Machine(authority, "one")


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_is_correct(machine, sample):
    path = machine.install(sample)
    done = subprocess.run([binary(), "config", "check", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_sample_is_among_these():
    samples = {p.stem for p in CONFIGS.glob("*.yaml")} - {"carillon", "prometheus-alerts"}
    assert samples == set(SAMPLES)


def test_the_standalone_sample_runs(machine):
    agent = machine.agent("alone", "standalone")
    try:
        agent.process.start()
        agent.wait_ready()
        agent.put("j", {"schedule": "@daily", "callback": {"http": {"service": "billing", "path": "/"}}})
        assert (machine.folder / "api.sock").is_socket() and (machine.folder / "data").is_dir()
        agent.term()
    finally:
        agent.end()


# ---- the unit

def test_the_unit_is_one_that_systemd_takes(folder):
    unit = (CONFIGS / "carillon.service").read_text()
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(unit)
    service = parser["Service"]
    grace = json.loads(subprocess.check_output([binary(), "config", "check", "--json"], text=True))["agent.shutdown_grace"]
    seconds = {"s": 1, "m": 60}[grace[-1]] * int(grace[:-1])
    assert int(service["TimeoutStopSec"].rstrip("s")) > seconds and service["User"] == "carillon"
    # A machine without systemd has nothing that could read it.
    if shutil.which("systemd-analyze"):
        path = folder / "carillon.service"
        path.write_text(unit.replace("/usr/local/bin/carillon", str(binary())))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, timeout=60, check=False)
        complaints = [line for line in done.stderr.splitlines() if "carillon.service" in line]
        assert done.returncode == 0 and not complaints, done.stderr


# ---- rights

class Secured:
    """A Consul that denies what no policy allows, a MariaDB that knows the user of the grants; both speak TLS alone."""

    def __init__(self, authority):
        self.folder = procs.make_folder("carillon-it-rights-")
        self.consul = AclConsul(self.folder, tls=authority).start()
        own = authority.issue("mariadb", "DNS:localhost")
        self.mariadb = MariaDB("mariadb-rights", options=[f"--ssl-ca={authority.ca}", f"--ssl-cert={own.cert}",
                                                          f"--ssl-key={own.key}"]).start()
        self.password = secrets.token_hex(16)
        for statement in statements():
            self.mariadb.sql(statement.replace("change-me", self.password).replace("%", "%%"), ())

    def member(self, machine, name):
        machine.write("mysql-password", self.password)
        return machine.agent(name, "mysql-tls", consul=("127.0.0.1:8501", self.consul.address),
                             database=("host: db.example.com", f"host: localhost\n    port: {self.mariadb.port}"))

    def end(self):
        self.consul.end()
        self.mariadb.end()


def statements():
    lines = [line for line in (CONFIGS / "mysql-grants.sql").read_text().splitlines() if not line.startswith("--")]
    return [s.strip() for s in "\n".join(lines).split(";") if s.strip()]


def rules(policy):
    """The rules of a policy, each as it stands in its file."""
    return re.findall(r'^\w+ "[^"]*" {\n.*?^}\n', (CONFIGS / policy).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def secured(authority):
    made = Secured(authority)
    yield made
    made.end()


def authorize(agent, authority, own):
    agent.over_tls(authority, own)
    agent.web.headers["Authorization"] = f"Bearer {TOKEN}"
    return agent


def test_a_member_and_a_sidecar_work_with_their_rights_and_no_others(secured, authority, callee):
    own = authority.issue("test")
    inside, beside = Machine(authority, "member"), Machine(authority, "sidecar")
    shutil.copy(inside.folder / "etc/cluster-secret", beside.folder / "etc/cluster-secret")
    inside.write("consul-token", secured.consul.token("member", (CONFIGS / "consul-member.hcl").read_text()))
    beside.write("consul-token", secured.consul.token("client", (CONFIGS / "consul-client.hcl").read_text()))
    member = authorize(secured.member(inside, "m"), authority, own)
    client = beside.agent("c", "sidecar", consul=("127.0.0.1:8501", secured.consul.address),
                          app=("port: 8080", f"port: {callee.port}"))
    try:
        member.process.start()
        member.wait_ready(60)
        # What only a new schema needs may be taken away once it is there.
        secured.mariadb.sql("REVOKE CREATE, ALTER, INDEX ON carillon.* FROM 'carillon'@'%%'", ())
        member.term()
        member.process.start()
        client.process.start()
        for agent in (member, client):
            agent.wait_ready(60)
        client.put("rights", {"schedule": "@every 1s", "callback": {"http": {"path": "/rights"}}})
        wait_until(lambda: sum(r["path"] == "/rights" for r in callee.records()) >= 2, 60, "callbacks",
                   alive=[member.process, client.process])
        client.delete("rights")
        assert "denied" not in member.process.log_text() + client.process.log_text()
    finally:
        client.end()
        member.end()
        secured.mariadb.sql("GRANT CREATE, ALTER, INDEX ON carillon.* TO 'carillon'@'%%'", ())


def test_members_of_a_log_work_with_the_same_rights(secured, authority, callee):
    machines = [Machine(authority, f"voter-{n}") for n in range(3)]
    token = secured.consul.token("voter", (CONFIGS / "consul-member.hcl").read_text())
    agents = []
    for n, machine in enumerate(machines):
        machine.write("consul-token", token)
        machine.write("cluster-secret", "shared by all three of these voters")
        agent = machine.agent(f"v{n}", "raft-cluster", consul=("address: 127.0.0.1:8500", f"address: https://{secured.consul.address}"))
        [port] = free_ports(1)
        agent.process.argv += [f"--set=store.raft.listen=127.0.0.1:{port}", "--set=callback.allow_loopback=true"]
        agent.process.argv += [f"--set=consul.tls_{what}={machine.folder}/etc/{name}"
                               for what, name in [("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key")]]
        agents.append(agent)
    try:
        for agent in agents:
            agent.process.start()
        for agent in agents:
            agent.wait_ready(60)
        agents[1].put("rights-of-voters", {"schedule": "@every 1s", "callback": {"http": {"url": f"http://127.0.0.1:{callee.port}/voters"}}})
        wait_until(lambda: sum(r["path"] == "/voters" for r in callee.records()) >= 2, 60, "callbacks", alive=[a.process for a in agents])
        wait_until(lambda: [v["state"] for v in agents[2].cluster()["store"]["raft"]["voters"]] == ["voter"] * 3, 60, "three voters")
        assert not [a.name for a in agents if "denied" in a.process.log_text()]
    finally:
        for agent in agents:
            agent.end()


# What a member asks of Consul that a rule of its policy is for.
INSTANCE = {"Name": "carillon", "ID": "rights", "Port": 1}
NEEDED_FOR = {"agent_prefix": ("GET", "agent/self", None), "session_prefix": ("PUT", "session/create", {"TTL": "10s"}),
              "key_prefix": ("PUT", "kv/carillon/default/members/rights", {}), "service": ("PUT", "agent/service/register", INSTANCE),
              "service_prefix": ("GET", "health/service/rights", None), "node_prefix": ("GET", "health/service/rights", None)}


@pytest.mark.parametrize("missing", NEEDED_FOR)
def test_a_member_needs_each_rule_of_its_policy(secured, missing):
    consul, every = secured.consul, rules("consul-member.hcl")
    fewer = [rule for rule in every if rule.split()[0] != missing]
    assert len(every) == len(NEEDED_FOR) and len(fewer) == len(every) - 1
    consul.register("rights", 1)
    method, path, body = NEEDED_FOR[missing]

    def allowed(name, text):
        token = consul.token(f"{name}-{missing}", text)
        # consul.web would send the token that may do everything beside this one.
        answer = requests.request(method, f"{consul.url}/v1/{path}", json=body, headers={"X-Consul-Token": token}, timeout=60,
                                  verify=consul.web.verify, cert=consul.web.cert)
        assert answer.status_code in (200, 403), answer.text
        return answer.status_code == 200 and answer.text.strip() != "[]"

    assert allowed("all", "".join(every)) and not allowed("fewer", "".join(fewer))


@pytest.mark.parametrize("missing", ["SELECT", "INSERT", "UPDATE", "CREATE"])
def test_a_member_needs_each_grant_to_begin(secured, authority, missing):
    machine = Machine(authority, missing)
    machine.write("consul-token", secured.consul.token(f"without-{missing}", (CONFIGS / "consul-member.hcl").read_text()))
    member = authorize(secured.member(machine, "m"), authority, authority.issue(f"test-{missing}"))
    secured.mariadb.sql("DROP DATABASE carillon")
    secured.mariadb.sql("CREATE DATABASE carillon CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    secured.mariadb.sql(f"REVOKE {missing} ON carillon.* FROM 'carillon'@'%%'", ())
    try:
        member.process.start()
        wait_until(lambda: refused(member, missing), 60, f"{missing} is missed")
    finally:
        member.end()
        secured.mariadb.sql(f"GRANT {missing} ON carillon.* TO 'carillon'@'%%'", ())


def refused(member, missing):
    """The database's refusal in the member's log."""
    return f"{missing} command denied" in member.process.log_text()
