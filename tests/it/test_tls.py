"""Every connection of an agent over TLS, with certificates made here: to the store, to Consul, between agents, to the API."""
import json
import os
import socket
import ssl
import subprocess

import pytest
import requests
from lib.carillon import RaftCluster, binary
from lib.certs import Authority
from lib.consul import Consul
from lib.mariadb import MariaDB
from lib.mount import Mount
from lib.oracle import Verdict
from lib.procs import wait_until


@pytest.fixture(scope="module")
def ours():
    return Authority("ours")


@pytest.fixture(scope="module")
def foreign():
    """Somebody else's."""
    return Authority("foreign")


@pytest.fixture(scope="module")
def secure_mariadb(ours):
    """Its certificate is for the name localhost; whoever comes by TCP must come with TLS."""
    own = ours.issue("mariadb", "DNS:localhost")
    server = MariaDB("mariadb-tls", options=[f"--ssl-ca={ours.ca}", f"--ssl-cert={own.cert}", f"--ssl-key={own.key}",
                                             "--require-secure-transport=ON"]).start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def secure_consul(ours):
    """Its API is https alone, and wants a certificate of ours."""
    server = Consul("consul-tls", tls=ours).start()
    yield server
    server.end()


def check_of(agent, name):
    return next(c for c in agent.health()["checks"] if c["name"] == name)


def store_check(agent):
    return check_of(agent, "store")


def listens(agent):
    try:
        return agent.health()
    except requests.ConnectionError:
        return None


def is_refused(agent, text):
    """The agent says why, and gets to no statement; a server whose certificate is wrong may get another, so it goes on trying."""
    agent.start(wait=False)
    lines = wait_until(lambda: [line for line in agent.process.log_tail().splitlines()
                                if text in line], 60, "agent says why")
    print(lines[-1])
    if "cannot go on" not in lines[-1]:
        wait_until(lambda: listens(agent), 60, "its API, which comes behind the first try", alive=[agent.process])
        check = store_check(agent)
        assert not check["ok"], check
        assert agent.call("GET", "/v1/jobs").status_code == 503
        agent.end()
    else:
        wait_until(lambda: not agent.process.alive(), 60, "the agent's end")
        assert agent.process.code == 1 and "level=error module=agent" in lines[-1]
        assert agent.process.log_tail().splitlines()[-1].endswith("msg=ended")


def store_options(cluster, host="localhost", **tls):
    return {"store": {"mysql": {"host": host, **{f"tls_{k}": v for k, v in tls.items()}}}}


@pytest.fixture
def store_cluster(clusters, shared_consul, secure_mariadb):
    return clusters(shared_consul, secure_mariadb)


def test_store_is_reached_over_tls_that_is_verified(store_cluster, ours):
    [agent] = store_cluster.start(1, config=store_options(store_cluster, mode="verify", ca=ours.ca))
    made = agent.put("j", {"schedule": "@daily", "callback": {"http": {"service": "none", "path": "/"}}})
    assert agent.get("j")["status"]["uid"] == made["status"]["uid"] and store_check(agent)["ok"]


def test_store_is_reached_over_tls_that_is_only_required(store_cluster):
    [agent] = store_cluster.start(1, config=store_options(store_cluster, host="127.0.0.1", mode="require"))
    assert store_check(agent)["ok"]


@pytest.mark.parametrize("what", ["plain", "wrong_ca", "wrong_name", "wrong_ca_required"])
def test_store_that_is_not_what_was_asked_for_is_not_used(store_cluster, ours, foreign, what):
    options = {"plain": {"mode": "off"}, "wrong_ca": {"mode": "verify", "ca": foreign.ca},
               "wrong_name": {"mode": "verify", "ca": ours.ca, "host": "127.0.0.1"},
               "wrong_ca_required": {"mode": "require", "ca": foreign.ca}}[what]
    agent = store_cluster.agent(config=store_options(store_cluster, **options))
    is_refused(agent, {"plain": "Access denied", "wrong_name": "certificate failed"}.get(what, "self-signed certificate"))
    assert store_cluster.sql("SHOW TABLES") == []


def test_store_takes_whoever_has_a_certificate(store_cluster, ours, foreign):
    user = store_cluster.database["user"]
    store_cluster.mariadb.sql(f"ALTER USER '{user}'@'%' REQUIRE ISSUER '/CN=ours'")
    try:
        own, wrong = ours.issue("agent"), foreign.issue("agent")
        refused = store_cluster.agent(config=store_options(store_cluster, mode="verify", ca=ours.ca,
                                                           **wrong.options()))
        is_refused(refused, "unknown ca")
        store_cluster.agents.remove(refused)
        [agent] = store_cluster.start(1, config=store_options(store_cluster, mode="verify", ca=ours.ca, **own.options()))
        assert store_check(agent)["ok"]
    finally:
        store_cluster.mariadb.sql(f"ALTER USER '{user}'@'%' REQUIRE NONE")


# ---- between agents, to Consul, to the API

@pytest.fixture
def secure_agents(clusters, secure_consul, secure_mariadb, ours):
    """Three, with nothing but TLS."""
    own = ours.issue("member", "IP:127.0.0.1", "DNS:localhost")
    pair = own.options("tls_")
    cluster = clusters(secure_consul, secure_mariadb, config={
        "consul": {"address": f"https://{secure_consul.address}", "tls_ca": ours.ca, **pair},
        "cluster": {"tls_ca": ours.ca, **pair},
        "api": {"tls_client_ca": ours.ca, **pair},
        **store_options(None, mode="verify", ca=ours.ca, **own.options())})
    agents = [cluster.agent().over_tls(ours, own) for _ in range(3)]
    for agent in agents:
        agent.start(wait=False)
    for agent in agents:
        agent.wait_ready(30)
    cluster.wait_settled()
    cluster.own = own
    return cluster


def test_a_cluster_that_speaks_nothing_but_tls_works_and_survives_a_kill(secure_agents, secure_consul, callee):
    service = f"svc-{callee.port}"
    instance = secure_consul.register(service, callee.port)
    agents = secure_agents.agents
    definition = {"schedule": "@every 1s", "callback": {"http": {"service": service, "path": "/"}}}
    try:
        for n in range(30):  # most are sent on to their owners
            agents[n % 3].put(f"t{n:02}", definition)
        assert len(agents[1].bulk([{"op": "put", "id": f"b{n:02}", "job": definition} for n in range(30)])) == 30
        assert [j["id"] for j in agents[2].list(prefix="t")] == [f"t{n:02}" for n in range(30)]
        wait_until(lambda: callee.count() >= 120, 20, "120 callbacks")
        agents[0].kill9()
        secure_agents.wait_settled()
        before = callee.count()
        wait_until(lambda: len({r["headers"]["ce-subject"] for r in callee.records(before)}) == 60, 20, "all fire again")
        Verdict(callee.records()).check(repeats_allowed=True)
    finally:
        secure_consul.deregister(instance)


def handshake(port, authority, own=None):
    """What a TLS client of this kind gets: the first bytes of an answer, or why there is none."""
    context = ssl.create_default_context(cafile=authority.ca)
    if own:
        context.load_cert_chain(own.cert, own.key)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, \
                context.wrap_socket(plain, server_hostname="127.0.0.1") as stream:
            stream.sendall(b"GET /v1/cluster HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return stream.recv(12)
    except OSError as e:
        return str(e).encode() or b"closed"


def test_peers_and_api_take_only_certificates_of_the_cluster(secure_agents, ours, foreign):
    agent = secure_agents.agents[0]
    wrong = foreign.issue("intruder", "IP:127.0.0.1")
    for port, answer in ((agent.api_port, b"HTTP/1.1 200"), (agent.cluster_port, b"HTTP/1.1 401")):
        assert handshake(port, ours, secure_agents.own) == answer
        for own in (None, wrong):
            assert b"HTTP/1.1 2" not in handshake(port, ours, own), (port, own)
        assert b"CERTIFICATE_VERIFY_FAILED" in handshake(port, foreign, secure_agents.own)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"GET /v1/cluster HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try:
                assert b"HTTP" not in plain.recv(100)
            except ConnectionResetError:
                pass


def test_an_agent_tells_when_its_certificate_ends(secure_agents):
    agent = secure_agents.agents[0]
    ends = ssl.cert_time_to_seconds(ssl._ssl._test_decode_cert(secure_agents.own.cert)["notAfter"])  # pylint: disable=protected-access
    wait_until(lambda: agent.metrics().get("carillon_tls_cert_expiry_timestamp_seconds") == ends, 60, "told")


def test_the_command_line_speaks_https(secure_agents, ours, foreign):
    agent, own = secure_agents.agents[1], secure_agents.own
    wrong = foreign.issue("user")

    def run(*argv, ca=ours, pair=own):
        environment = {"PATH": os.environ["PATH"], "CARILLON_ADDR": agent.url, "CARILLON_CACERT": ca.ca}
        if pair:
            environment |= {"CARILLON_CLIENT_CERT": pair.cert, "CARILLON_CLIENT_KEY": pair.key}
        return subprocess.run([binary(), *argv], env=environment, capture_output=True, text=True, timeout=60, check=False)

    shown = run("cluster", "status", "--json")
    assert shown.returncode == 0 and len(json.loads(shown.stdout)["members"]) == 3, shown
    made = run("in", "1d", "--id", "x", "--service", "none", "--path", "/", "--json")
    assert made.returncode == 0 and agent.get("x"), made
    for wrong_way, code, text in (({"ca": foreign}, 4, "certificate"), ({"pair": None}, 1, "403 forbidden"),
                                  ({"pair": wrong}, 1, "403 forbidden")):
        refused = run("job", "get", "x", **wrong_way)
        print(refused.stderr.strip())
        assert refused.returncode == code and text in refused.stderr, refused


def test_a_consul_that_is_not_ours_is_not_believed(clusters, secure_consul, shared_mariadb, ours, foreign):
    own = ours.issue("member2", "IP:127.0.0.1")
    cluster = clusters(secure_consul, shared_mariadb)
    for wrong in ({"tls_ca": foreign.ca, **own.options("tls_")}, {"tls_ca": ours.ca}):
        agent = cluster.agent(config={"consul": {"address": f"https://{secure_consul.address}", **wrong}})
        agent.start(wait=False)
        wait_until(lambda a=agent: listens(a), 60, "its API", alive=[agent.process])
        check = wait_until(lambda a=agent: (c := check_of(a, "consul"))["detail"] != "not asked yet" and c, 60, "Consul was asked",
                           alive=[agent.process])
        print(check["detail"])
        assert not check["ok"] and "certificate" in check["detail"], check
        assert not secure_consul.members(cluster.name)


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


def test_certificates_are_replaced_while_all_goes_on(clusters, shared_consul, shared_mariadb, folder, ours):
    """From one authority to another: first both are trusted, then the certificates change, then the first authority goes."""
    following = Authority("following")
    pairs = [a.issue("rotated", "IP:127.0.0.1", "DNS:localhost") for a in (ours, following)]
    mount = Mount(folder / "certificates")
    cas, own = [read(ours.ca), read(following.ca)], [{"tls.crt": read(p.cert), "tls.key": read(p.key)} for p in pairs]
    mount.put({"ca.crt": cas[0], **own[0]})
    tls = {"tls_cert": mount.path("tls.crt"), "tls_key": mount.path("tls.key")}
    cluster = clusters(shared_consul, shared_mariadb, config={
        "cluster": {"tls_ca": mount.path("ca.crt"), **tls}, "api": {"tls_client_ca": mount.path("ca.crt"), **tls}})
    agents = [cluster.agent().over_tls(ours, pairs[0]) for _ in range(2)]
    for agent in agents:
        agent.start(wait=False)
    for agent in agents:
        agent.wait_ready(60)
    cluster.wait_settled()
    job = {"schedule": "0 9 1 1 *", "callback": {"http": {"service": "none", "path": "/"}}}

    def all_answer(authority, pair):
        return all(b"HTTP/1.1 200" == handshake(a.api_port, authority, pair)
                   and b"HTTP/1.1 401" == handshake(a.cluster_port, authority, pair) for a in agents)

    assert all_answer(ours, pairs[0])
    mount.put({"ca.crt": cas[0] + cas[1], **own[0]})
    wait_until(lambda: all_answer(ours, pairs[1]), 60, "both authorities are trusted", interval=0.3)
    mount.put({"ca.crt": cas[0] + cas[1], **own[1]})
    wait_until(lambda: all_answer(following, pairs[1]), 60, "the new certificates are shown", interval=0.3)
    mount.put({"ca.crt": cas[1], **own[1]})
    wait_until(lambda: not any(b"HTTP/1.1 200" == handshake(a.api_port, following, pairs[0]) for a in agents), 60,
               "the old authority is not trusted", interval=0.3)
    for agent in agents:
        agent.web.close()
        agent.over_tls(following, pairs[1])
    for n in range(16):  # half of them are sent on to their owners, over new connections too
        agents[n % 2].put(f"r{n}", job)
    cluster.wait_settled()


# ---- one name for all agents

LATER = {"schedule": "0 9 1 1 *", "callback": {"http": {"url": "http://10.9.9.9:1/x"}}}

@pytest.fixture(scope="module")
def named(ours):
    """What agents are given that share a certificate for one name, as a chart's do: none of their addresses stands in it."""
    return {"secret_file": None, "tls_ca": ours.ca, "tls_server_name": "carillon", **ours.issue("named", "DNS:carillon").options("tls_")}


@pytest.fixture(params=["mysql", "raft"])
def named_cluster(request, clusters, shared_consul, shared_mariadb, folder, named):
    config = {"cluster": named, "api": {"wait": "1s"}}
    cluster = clusters(shared_consul, shared_mariadb, config=config) if request.param == "mysql" else \
        RaftCluster(shared_consul, name=os.path.basename(folder)[-8:].replace("_", "-").lower(), folder=folder, config=config)
    yield cluster
    cluster.end()


def test_agents_are_known_by_the_name_in_their_certificates(named_cluster, ours):
    """Whoever expects another name trusts nobody, and whoever has another is trusted by nobody, though its authority is the right one."""
    agents = named_cluster.start(3, timeout=60)
    for n in range(12):  # most are sent on to their owners
        agents[n % 3].put(f"n{n}", LATER)
    for what in ({"tls_server_name": "another"}, ours.issue("other", "DNS:another").options("tls_")):
        client = named_cluster.agent(config={"cluster": what, "agent": {"role": "client"}, "store": None}).start(60)
        refused = client.call("PUT", "/v1/jobs/refused", json=LATER)
        print(refused.status_code, refused.json()["detail"])
        assert (refused.status_code, "certificate" in refused.text) == ((503, True) if "tls_server_name" in what else (403, True))
        if isinstance(named_cluster, RaftCluster):
            member = named_cluster.agent(config={"cluster": what}).start(wait=False)
            told = [member] if "tls_server_name" in what else agents  # whoever finds the wrong name
            wait_until(lambda t=told: any("certificate verify failed" in a.process.log_text() for a in t), 60, "the log refuses it")
            assert member.call("GET", "/readyz").status_code == 503
            member.end()
            named_cluster.agents.remove(member)
    assert sorted(j["id"] for j in agents[0].list(limit=100)) == sorted(f"n{n}" for n in range(12))
