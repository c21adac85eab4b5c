"""What an agent tells of as it happens: GET /v1/events, and `carillon tail`."""
import contextlib
import http.client
import json
import secrets
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest
from lib.carillon import binary
from lib.procs import wait_until


class Listener:
    """Reads the events of one agent until it is closed: (kind, data) in `seen`."""

    def __init__(self, agent, wait=True, **params):
        self.seen = []
        self.connection = http.client.HTTPConnection(agent.address, timeout=300)
        self.connection.request("GET", "/v1/events?" + urllib.parse.urlencode(params))
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        assert self.response.headers["Content-Type"] == "text/event-stream"
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        if wait:
            self.wait(lambda kind, data: kind == "hello")

    def _read(self):
        kind = None
        try:
            for line in self.response:
                if line.startswith(b"event: "):
                    kind = line[7:].decode().strip()
                elif line.startswith(b"data: "):
                    self.seen.append((kind, json.loads(line[6:])))
        except (OSError, ValueError, http.client.HTTPException):
            pass  # closed

    def find(self, wanted):
        return [data for kind, data in list(self.seen) if wanted(kind, data)]

    def wait(self, wanted, timeout=20):
        return wait_until(lambda: self.find(wanted), timeout, f"event among {self.seen[-5:]}")[0]

    def close(self):
        """A close alone would wait for the reader's next line."""
        with contextlib.suppress(OSError):
            self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(60)
        self.connection.close()


@pytest.fixture
def listen():
    """listen(agent, ns=…) → Listener"""
    made = []

    def start(agent, **params):
        made.append(Listener(agent, **params))
        return made[-1]

    yield start
    for listener in made:
        listener.close()


@pytest.fixture
def name(three):
    made = f"e{secrets.token_hex(4)}"
    yield made
    three[0].ask("DELETE", f"/v1/jobs?prefix={made}", 200)


def job(service, schedule="@every 1s", **rest):
    return {"schedule": schedule, "callback": {"http": {"service": service, "path": "/"}}, **rest}


def test_fires_attempts_and_changes_are_told_by_the_owner(three, service, callee, name, listen):
    all_heard = [listen(agent) for agent in three]
    others = [listen(agent, ns="elsewhere") for agent in three]
    three[0].put(name, job(service, "@every 1s", retry={"min_backoff": "200ms", "jitter": 0}))
    heard = wait_until(lambda: [h for h in all_heard if h.find(lambda kind, d: d.get("job") == name)], 20, "an event")[0]
    created = heard.wait(lambda kind, d: kind == "job" and d["job"] == name)
    assert (created["op"], created["version"], created["state"], created["actor"]) == ("create", 1, "active", "local")
    fire = heard.wait(lambda kind, d: kind == "fire" and d["job"] == name)
    assert (fire["outcome"], fire["reason"], fire["status"], fire["count"]) == ("succeeded", None, 200, 1)
    assert fire["fire"].endswith(f".{fire['seq']}") and fire["lateness_ms"] >= 0 and fire["endpoint"].endswith(str(callee.port))
    callee.behave({"status": 503})
    failed = heard.wait(lambda kind, d: kind == "attempt" and d["job"] == name)
    assert failed["outcome"] == "pending" and failed["status"] == 503
    callee.behave()
    three[1].ask("POST", f"/v1/jobs/{name}/pause", 200, headers={"Carillon-Client": "it"})
    heard.wait(lambda kind, d: kind == "job" and d["op"] == "pause" and d["state"] == "paused")
    three[2].ask("DELETE", f"/v1/jobs/{name}", 200, headers={"Carillon-Client": "it"})
    heard.wait(lambda kind, d: kind == "job" and d["op"] == "delete")
    assert not any(o.find(lambda kind, d: "job" in d) for o in others), "of another namespace"
    assert sum(bool(h.find(lambda kind, d: d.get("job") == name)) for h in all_heard) == 1, "only the owner tells of it"


def test_the_cluster_is_told_of(cluster, listen):
    a, b = cluster.start(2)
    heard = listen(a)
    b.kill9()
    heard.wait(lambda kind, d: kind == "cluster" and "dead" in d["text"])
    heard.wait(lambda kind, d: kind == "cluster" and "slots gained" in d["text"] and d["slots"] > 2048)


def count_events(connection, enough, seconds):
    """(told, dropped) of the stream on CONNECTION once there are ENOUGH together, else of what came within SECONDS. The chunks of a
    stream end anywhere in an event, so they are taken off first."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    told = dropped = 0
    kind, end = None, time.monotonic() + seconds
    while told + dropped < enough and time.monotonic() < end:  # a comment comes at least every 10 s
        line = response.readline()
        if line.startswith(b"event: "):
            kind = line[7:].strip()
            told += kind in (b"job", b"fire")
        elif line.startswith(b"data: ") and kind == b"dropped":
            dropped += json.loads(line[6:])["dropped"]
    return told, dropped


def test_a_stream_is_counted_however_it_is_cut_into_chunks():
    events = b"event: job\ndata: {}\n\n:\n\n" + b'event: dropped\ndata: {"dropped":7}\n\n' + b"event: fire\ndata: {}\n\n"
    for cut in range(1, len(events)):
        ours, its = socket.socketpair()
        with ours, its:
            ours.settimeout(60)
            its.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                        + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (events[:cut], events[cut:])))
            assert count_events(ours, 9, 60) == (2, 7), cut


def test_who_does_not_read_loses_events_and_costs_nothing(cluster, shared_consul, callee, folder):
    """Over a unix socket, of which the kernel keeps little. Far more is told than it and the agent keep for one client."""
    service = f"slow-{callee.port}"
    instance = shared_consul.register(service, callee.port)
    agent = cluster.agent()
    path = str(folder / "api.sock")
    agent.config["api"]["listen"].append(f"unix:{path}")
    agent.start()
    cluster.wait_settled()
    slow = socket.socket(socket.AF_UNIX)
    slow.connect(path)
    slow.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    count = 3000
    lines = [{"op": "create", "id": f"{n:-<190}", "job": job(service, "@after 1s")} for n in range(count)]
    assert all(r["status"] == 201 for r in agent.bulk(lines))
    wait_until(lambda: agent.metric("carillon_fires_total") >= count, 60, "all fired though nobody reads")
    slow.settimeout(60)
    told, dropped = count_events(slow, 2 * count, 120)
    print(f"{dropped} of {2 * count} events dropped")
    assert dropped > 0 and dropped + told >= 2 * count, (dropped, told)
    assert agent.metric('carillon_events_dropped_total{listener="client"}') == dropped
    slow.close()
    shared_consul.deregister(instance)


def members_of(agents):
    return {m["name"]: m["id"] for m in agents[0].cluster()["members"]}


def hear_all(agents, listen, **params):
    """Listeners at each of AGENTS that hear all of them by now."""
    heard = [listen(agent, all="true", **params) for agent in agents]
    for member in members_of(agents).values():
        for h in heard:
            h.wait(lambda kind, d, member=member: kind == "hello" and d["member"] == member)
    return heard


def test_any_agent_tells_of_all_members(three, service, callee, name, listen):
    heard = hear_all(three, listen, ns="*")
    elsewhere, here = hear_all(three, listen, ns="elsewhere")[0], hear_all(three, listen)[1]
    alone = listen(three[0], ns="*")
    jobs = [f"{name}-{n}" for n in range(30)]
    three[0].bulk([{"op": "create", "id": j, "job": job(service, "@after 1s")} for j in jobs])
    for h in [*heard, here]:
        fires = wait_until(lambda h=h: (f := h.find(lambda kind, d: kind == "fire" and d["job"] in jobs)) and len(f) >= 30 and f, 30, "all")
        assert sorted(f["job"] for f in fires) == sorted(jobs), "each once"
        assert {f["member"] for f in fires} == set(members_of(three).values())
        created = h.find(lambda kind, d: kind == "job" and d["job"] in jobs and d["op"] == "create")
        assert len(created) == 30
    assert not elsewhere.find(lambda kind, d: "job" in d), "of another namespace"
    assert {d["member"] for d in alone.find(lambda kind, d: d.get("job") in jobs)} == {members_of(three)[three[0].name]}, "not asked for"


def test_listening_to_all_outlives_members_and_takes_in_new_ones(cluster, shared_consul, callee, listen):
    """Over kill -9 of one, and over another that joins; by a client of the cluster too, whose member leaves."""
    service = f"all-{callee.port}"
    instance = shared_consul.register(service, callee.port)
    a, b, c = cluster.start(3)
    client = cluster.agent({"agent": {"role": "client"}, "cluster": {"listen": None}, "store": None}).start()
    cluster.agents.remove(client)
    try:
        heard = hear_all([a, b], listen)[0]
        by_client = listen(client, wait=None, all="true")
        for member in members_of([a]).values():
            by_client.wait(lambda kind, d, member=member: kind == "hello" and d["member"] == member)
        assert client.call("GET", "/v1/events").status_code == 404
        a.bulk([{"op": "create", "id": f"j{n}", "job": job(service)} for n in range(40)])
        dead = members_of([a])["b"]
        heard.wait(lambda kind, d: kind == "fire" and d["member"] == dead)
        b.kill9()
        heard.wait(lambda kind, d: kind == "cluster" and d["member"] == dead and "missing" in d["text"])
        cluster.wait_settled()
        d_agent = cluster.start(1)[0]
        joined = members_of([a])[d_agent.name]
        heard.wait(lambda kind, d: kind == "hello" and d["member"] == joined)
        since = len(heard.seen)
        late = lambda: {d["job"] for kind, d in heard.seen[since:] if kind == "fire"}
        wait_until(lambda: len(late()) == 40, 60, "fires of every job again")
        heard.wait(lambda kind, d: kind == "fire" and d["member"] == joined)
        for agent in (c, a):  # whichever the client had: it finds another
            agent.term()
            cluster.wait_settled()
        since_client = len(by_client.seen)
        wait_until(lambda: len({d["job"] for kind, d in by_client.seen[since_client:] if kind == "fire"}) == 40, 60, "fires at the client")
    finally:
        client.kill9()
        shared_consul.deregister(instance)


def test_tail_prints_a_line_an_event_and_comes_back(cluster, shared_consul, callee):
    service = f"tail-{callee.port}"
    instance = shared_consul.register(service, callee.port)
    [agent] = cluster.start(1)
    tail = subprocess.Popen([binary(), "tail", "--all", "--addr", agent.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(tail.stdout.readline, "")), daemon=True)
    reader.start()
    try:
        agent.put("a", job(service))
        wait_until(lambda: any(" fire job=a " in line and " outcome=succeeded " in line for line in lines), 20, "a fire in the tail")
        agent.ask("POST", "/v1/jobs/a/pause", 200, headers={"Carillon-Client": "it"})
        agent.ask("POST", "/v1/jobs/a/resume", 200, headers={"Carillon-Client": "it"})
        wait_until(lambda: any(" job job=a op=pause by=local version=2 state=paused" in line for line in lines), 20, "the pause")
        agent.term()
        agent.start()
        since = len(lines)
        wait_until(lambda: any(" fire job=a " in line for line in lines[since:]), 30, "a fire after the restart")
        one = subprocess.run([binary(), "tail", "--addr", agent.address, "--all", "--json", "--count", "1"], capture_output=True, text=True,
                             timeout=60, check=True)
        assert json.loads(one.stdout)["event"] in ("fire", "job", "cluster")
    finally:
        tail.terminate()
        tail.wait(10)
        shared_consul.deregister(instance)
    nobody = subprocess.run([binary(), "tail", "--addr", "127.0.0.1:1"], capture_output=True, text=True, timeout=60, check=False)
    assert nobody.returncode == 4
