"""Who may join and who only forwards; how quickly callees that come and go are noticed."""
import hashlib
import hmac
import json
import pathlib
import secrets
import statistics
import subprocess
import threading
import time

import requests
from lib.carillon import Agent, binary, merge
from lib.load import rfc3339
from lib.oracle import Verdict
from lib.procs import NotReady, wait_until


def client_of(shared_cluster, name="client"):
    agent = Agent(name, shared_cluster.folder)
    agent.config = merge(agent.config, {
        "agent": {"role": "client"},
        "cluster": {"mode": "consul", "name": shared_cluster.name, "secret_file": shared_cluster.secret_file},
        "consul": {"address": shared_cluster.consul.address}})
    return agent


def test_client_forwards_and_owns_nothing(three, shared_cluster, service, callee):
    client = client_of(shared_cluster).start()
    try:
        job = {"schedule": "@after 200ms", "callback": {"http": {"service": service, "path": "/c"}}, "payload": "ü"}
        made = client.put("by-client", job)
        assert three[0].get("by-client")["status"]["uid"] == made["status"]["uid"]
        posted = client.create({**job, "schedule": "@after 1d"})
        assert three[1].get(posted["id"]) and client.get(posted["id"])
        results = client.bulk([{"op": "create", "id": f"by-client-{n}", "job": {**job, "schedule": "@after 1d"}}
                               for n in range(50)])
        assert [r["status"] for r in results] == [201] * 50
        assert len(client.list(prefix="by-client")) == 51
        [record] = callee.wait_for(1, 10)
        assert record["headers"]["ce-subject"] == "by-client"
        bad = client.call("PUT", "/v1/jobs/by-client", json={"schedule": "nonsense"})
        assert bad.status_code == 400 and len(bad.json()["errors"]) == 2, bad.text
        assert client.ask("DELETE", "/v1/jobs?prefix=by-client", 200) == {"deleted": 51}
        client.delete(posted["id"])
        assert not [m for m in three[0].cluster()["members"] if m["name"] == "client"]
        assert "client" not in " ".join(shared_cluster.consul.members(shared_cluster.name))
    finally:
        client.term()



def test_a_client_waits_for_what_looks_at_all_jobs(clusters, shared_consul, shared_mariadb, proxies):
    """An audit takes as long as it takes, longer than a request waits for an owner."""
    cluster = clusters(shared_consul, shared_mariadb)
    link = proxies(shared_mariadb.port)
    cluster.agent(mysql_port=link.port).start()
    client = cluster.agent({"agent": {"role": "client"}, "api": {"wait": "500ms"}, "store": None}, name="client").start()
    assert client.ask("GET", "/v1/audit", 200)["differing"] == 0
    healed = threading.Timer(3, link.heal)
    link.stall()
    healed.start()
    answer = client.call("GET", "/v1/audit")
    healed.join()
    assert answer.status_code == 200 or answer.json()["code"] != "no_owner", answer.text


def test_a_drained_sidecar_takes_its_application_out_and_goes_on_forwarding(three, shared_cluster, shared_consul, callee):
    client, service = client_of(shared_cluster, "drained"), f"drained-{callee.port}"
    client.config["app"] = {"service": service, "port": callee.port, "register": True}
    client.start()
    try:
        wait_until(lambda: shared_consul.health(service, passing=False), 60, "the application is registered")
        job = {"schedule": "@after 1d", "callback": {"http": {"path": "/x"}}}
        client.put("before-drain", job)
        drain = subprocess.run([binary(), "drain", f"--pid={client.process.pid}"], capture_output=True, text=True, check=False)
        assert (drain.returncode, drain.stdout, drain.stderr) == (0, "", "")
        wait_until(lambda: not shared_consul.health(service, passing=False), 60, "the application is registered no more")
        client.put("after-drain", job)
        assert three[0].get("after-drain") and client.call("GET", "/readyz").status_code == 503
        assert client.ask("DELETE", "/v1/jobs?prefix=before-", 200) == {"deleted": 1}
        assert client.ask("DELETE", "/v1/jobs?prefix=after-", 200) == {"deleted": 1}
    finally:
        client.term()


def test_client_keeps_to_its_own_cluster(three, shared_cluster, cluster):
    """Two clusters are registered under one service name in one Consul."""
    cluster.start(2)
    client = client_of(shared_cluster, "client-of-one").start()
    try:
        job = {"schedule": "@after 1d", "callback": {"http": {"service": "nobody"}}}
        for n in range(12):
            client.put(f"own-cluster-{n}", job)
        assert len(three[0].list(prefix="own-cluster-")) == 12
        assert cluster.agents[0].list() == []
        assert client.ask("DELETE", "/v1/jobs?prefix=own-cluster-", 200) == {"deleted": 12}
    finally:
        client.term()


def test_agent_without_the_clusters_secret_gets_nowhere(three, shared_cluster, folder):
    for n, secret in enumerate((None, "another secret of thirty-two bytes..")):
        client = client_of(shared_cluster, f"stranger{n}")
        client.config["cluster"].pop("secret_file")
        if secret:
            path = folder / "wrong.secret"
            path.write_text(secret)
            path.chmod(0o600)
            client.config["cluster"]["secret_file"] = str(path)
        try:
            client.start()
            for method, path, kwargs in (("PUT", "/v1/jobs/stranger", {"json": {
                    "schedule": "@after 1d", "callback": {"http": {"service": "x", "path": "/x"}}}}),
                                         ("GET", "/v1/jobs", {}), ("DELETE", "/v1/jobs?all=true", {})):
                answer = client.call(method, path, **kwargs)
                assert answer.status_code in (401, 403, 503), f"{method} {path}: {answer.status_code} {answer.text}"
        except NotReady:
            assert client.process.code not in (None, 0)  # it may also say at once that it will not do
            print(client.process.log_text().splitlines()[-1])
        finally:
            client.end()
    assert three[0].get("stranger") is None


def test_peers_listener_takes_nothing_unsigned(three):
    for agent in three:
        url = f"http://127.0.0.1:{agent.cluster_port}"
        for method, path, body in (("POST", "/peer/v1/dead", b'{"member":"x"}'), ("GET", "/v1/jobs", None),
                                   ("PUT", "/v1/jobs/x", b"{}"), ("DELETE", "/v1/jobs?all=true", None)):
            for headers in ({}, {"Carillon-Signature": "x", "Carillon-Auth": "x", "Carillon-Context": "{}"}):
                answer = requests.request(method, url + path, data=body, timeout=30, headers={
                    "Content-Type": "application/json", "Carillon-Client": "it", **headers})
                assert answer.status_code in (400, 401, 403, 404, 421), f"{method} {path}: {answer.status_code} {answer.text}"
    assert all(a.ready() for a in three)


CONTEXT = {"hop": 2, "request": "0123456789abcdef", "id": "", "fresh": False, "repeated": False, "uid": "0" * 32, "change": "0" * 15 + "7",
           "accepted": 1790000000000, "actor": "it", "defaults": {
               "timeout": 30000, "retry": [0, 1000, 2.0, 300000, 0.2, 86400000], "misfire": 0, "window": 86400000, "concurrency": 0,
               "min_interval": 1000, "allow_loopback": False}}


def signed(cluster, method, target, body=b"", **context):
    """The headers of a member's words, as peer_auth.h has them."""
    context = json.dumps({**CONTEXT, **context}, separators=(",", ":"))
    stamp = f"v1 it.1 {int(time.time() * 1000)} {secrets.token_hex(8)} {hashlib.sha256(body).hexdigest()}"
    secret = pathlib.Path(cluster.secret_file).read_bytes().rstrip(b"\n")
    code = hmac.new(secret, f"carillon peer v1\n{method}\n{target}\n{context}\n{stamp}".encode(), hashlib.sha256).hexdigest()
    return {"Carillon-Context": context, "Carillon-Peer": f"{stamp} {code}", "Content-Type": "application/json"}


def test_a_members_words_count_once_and_where_they_were_sent(three, shared_cluster):
    def say(agent, words):
        return requests.request("PUT", f"http://127.0.0.1:{agent.cluster_port}{target}", data=body, headers=words, timeout=60).status_code

    target, body = "/v1/jobs/replayed", b'{"schedule":"@after 1d","callback":{"http":{"service":"x","path":"/x"}}}'
    owner = next(a for a in three if a.name == three[0].ask("GET", "/v1/cluster/owner/replayed", 200)["name"])
    other = next(a for a in three if a is not owner)
    words = signed(shared_cluster, "PUT", target, body, to=f"127.0.0.1:{owner.cluster_port}", uid=secrets.token_hex(16))
    assert say(other, words) == 421
    assert say(owner, words) == 201
    three[0].delete("replayed")
    assert [say(owner, words) for _ in range(3)] == [425] * 3 and three[0].get("replayed") is None
    assert say(other, words) == 425


def test_a_write_that_comes_after_its_sender_gave_it_up_is_not_made(three, shared_cluster):
    """As from the socket of a process that was stopped: its client has had a 503 and written anew since."""
    target, body = "/v1/jobs/given-up", b'{"schedule":"@after 1d","callback":{"http":{"service":"x","path":"/x"}}}'
    owner = next(a for a in three if a.name == three[0].ask("GET", "/v1/cluster/owner/given-up", 200)["name"])

    def say(method, seconds, body):
        words = signed(shared_cluster, method, target, body, uid=secrets.token_hex(16), until=int((time.time() + seconds) * 1000))
        return requests.request(method, f"http://127.0.0.1:{owner.cluster_port}{target}", data=body, headers=words, timeout=60)

    late = say("PUT", -15, body)
    assert late.status_code == 503 and late.json()["code"] == "no_owner" and "given it up" in late.json()["detail"]
    assert owner.get("given-up") is None
    assert say("PUT", 60, body).status_code == 201
    assert say("DELETE", -15, b"").status_code == 503
    assert say("GET", -15, b"").status_code == 200  # what changes nothing may be late
    owner.delete("given-up")


def test_callee_that_comes_is_used_and_one_that_goes_is_not(three, shared_consul, callees):
    callee = callees(ports=2)
    service, (stays, comes) = f"moving-{callee.port}", callee.ports
    shared_consul.register(service, stays)
    begin = time.time() + 0.5
    three[0].bulk({"op": "create", "id": f"{service}-{n}", "job": {
        "schedule": "@every 1s", "starts_at": rfc3339(begin + n / 200),
        "callback": {"http": {"service": service, "path": "/m"}}}} for n in range(200))
    callee.wait_for(200, 10)
    used, stopped = [], []
    for _ in range(4):
        instance = shared_consul.register(service, comes)
        at = time.monotonic()
        used.append(wait_until(lambda: next((r["at"] - at for r in callee.records() if r["port"] == comes and r["at"] > at),
                                            None), 10, "new endpoint used"))
        time.sleep(0.7)
        shared_consul.deregister(instance)
        at = time.monotonic()

        def last_use():
            return max([r["at"] - at for r in callee.records() if r["port"] == comes and r["at"] > at], default=0.0)

        wait_until(lambda: time.monotonic() - at - last_use() > 1, 5, "the endpoint is left alone", interval=0.1)
        stopped.append(last_use())
    print(f"registered to first use: {[round(1000 * s) for s in used]} ms; deregistered to last use: "
          f"{[round(1000 * s) for s in stopped]} ms (the callbacks come every 5 ms)")
    three[0].ask("DELETE", f"/v1/jobs?prefix={service}-", 200)
    Verdict(callee.records()).check(repeats_allowed=False)
    assert statistics.median(used) < 5 and max(stopped) < 5
