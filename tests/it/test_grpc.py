"""Callbacks over gRPC, to servers of the real grpcio."""
import base64
import json
import time

import pytest
from lib.carillon import binary
from lib.grpc_callee import GrpcCallee
from lib.oracle import instant
from lib.procs import Process, can_connect, free_ports, wait_until
from lib.tls import Authority
from standardwebhooks import Webhook

FIRE = "/carillon.v1.Callback/Fire"
QUICK = {"min_backoff": "100ms", "factor": 1, "max_backoff": "100ms", "jitter": 0}
KEY = "whsec_" + base64.b64encode(b"a key of twenty-four byt").decode()


@pytest.fixture
def grpc_callees(folder):
    """grpc_callees(ports=2) starts a gRPC callee process with that many ports."""
    started = []

    def start(ports=1):
        started.append(GrpcCallee(ports, f"grpc-callee{len(started)}", folder).start())
        return started[-1]

    yield start
    for callee in started:
        callee.end()


@pytest.fixture
def grpc_callee(grpc_callees):
    return grpc_callees()


@pytest.fixture
def grpc_service(shared_consul):
    """grpc_service(callee, ports) registers them under a name of the test's own."""
    made = []

    def register(callee, ports=None):
        name = f"grpc-{callee.port}"
        made.extend(shared_consul.register(name, port) for port in ports or callee.ports)
        return name

    yield register
    for instance in made:
        shared_consul.deregister(instance)


@pytest.fixture
def agent(cluster, folder):
    """One that signs, and may call loopback addresses."""
    keys, tokens = folder / "keys", folder / "secrets"
    keys.write_text(f"* main {KEY}\n")
    (tokens / "default").mkdir(parents=True)
    (tokens / "default" / "token").write_text("s3cr3t\n")
    [one] = cluster.start(1, config={
        "agent": {"shutdown_grace": "1s"},
        "callback": {"allow_loopback": True, "signing_keys_file": str(keys), "secrets_dir": str(tokens)}})
    return one


def job(target, schedule="@after 50ms", timeout="5s", retry=None, give_up_on=None, **more):
    callback = {"grpc": target, "timeout": timeout, **({"give_up_on": give_up_on} if give_up_on is not None else {})}
    return {"schedule": schedule, "callback": callback, "retry": {**QUICK, **(retry or {})}, **more}


def ended(agent, job_id):
    return wait_until(lambda: (f := agent.fires(job_id)) and f[0]["outcome"] != "pending" and f[0], 20, f"{job_id} ended",
                      interval=0.05)


def test_the_default_method_says_all_about_the_fire(agent, grpc_callee):
    target = {"address": grpc_callee.address(),
              "metadata": {"X-Team": "pay", "authorization": "Bearer ${secret:token}"}}
    agent.put("first", job(target, timeout="20s", payload={"invoice": 42}, labels={"team": "pay", "env": "it"}))
    fire = ended(agent, "first")
    assert fire["outcome"] == "succeeded", fire
    [attempt] = fire["attempts"]
    assert (attempt["status"], attempt["error"], attempt["endpoint"]) == (0, None, grpc_callee.address())
    [record] = grpc_callee.records()
    request, metadata = record["request"], record["metadata"]
    assert record["method"] == FIRE
    deadline = instant(request.pop("deadline"))
    assert instant(request.pop("due")) == instant(fire["due"])
    assert request == {"job": "first", "namespace": "default", "fire": fire["fire"], "seq": "1", "attempt": 1,
                       "epoch": metadata["carillon-epoch"], "content_type": "application/json",
                       "payload": base64.b64encode(b'{"invoice":42}').decode(), "labels": {"team": "pay", "env": "it"}}
    assert abs(deadline - record["wall"] - 20) < 10 and 5 < record["timeout"] <= 20
    assert instant(metadata["carillon-deadline"]) == deadline
    assert metadata["ce-id"] == metadata["webhook-id"] == fire["fire"]
    assert metadata["idempotency-key"] == f'"{fire["fire"]}"'
    assert (metadata["ce-subject"], metadata["ce-type"], metadata["ce-specversion"]) == ("first", "carillon.fire", "1.0")
    assert instant(metadata["ce-time"]) == instant(fire["due"])
    assert (metadata["carillon-attempt"], metadata["carillon-seq"]) == ("1", "1")
    assert (metadata["x-team"], metadata["authorization"]) == ("pay", "Bearer s3cr3t")
    assert metadata["user-agent"].startswith("carillon/")
    assert Webhook(KEY).verify(b'{"invoice":42}', metadata) == {"invoice": 42}
    shown = json.dumps(agent.get("first"))
    assert "s3cr3t" not in shown and "${secret:token}" in shown
    assert agent.metrics()['carillon_attempts_total{transport="grpc",result="ok"}'] == 1


def test_any_other_method_gets_the_payload_as_its_message(agent, grpc_callee):
    message = bytes(range(1, 128)) * 1000  # over the window that HTTP/2 opens with
    agent.put("bytes", job({"address": grpc_callee.address(), "method": "/shop.v1.Invoices/Close"},
                           payload_base64=base64.b64encode(message).decode(), content_type="application/protobuf"))
    fire = ended(agent, "bytes")
    assert fire["outcome"] == "succeeded", fire
    [record] = grpc_callee.records()
    assert record["method"] == "/shop.v1.Invoices/Close" and base64.b64decode(record["message"]) == message
    assert record["metadata"]["ce-id"] == fire["fire"]
    Webhook(KEY).verify(message, record["metadata"], json_parse=False)


def test_codes_are_retried_with_the_same_fire_id(agent, grpc_callee):
    grpc_callee.behave({"times": 1, "code": "INTERNAL", "details": "not yet"}, {"times": 1, "code": "NOT_FOUND"},
                       {"times": 1, "code": "RESOURCE_EXHAUSTED", "trailing": {"grpc-retry-pushback-ms": "1500"}})
    agent.put("again", job({"address": grpc_callee.address()}))
    fire = ended(agent, "again")
    assert fire["outcome"] == "succeeded" and [a["status"] for a in fire["attempts"]] == [13, 5, 8, 0], fire
    assert fire["attempts"][0]["error"] == "INTERNAL: not yet" and fire["attempts"][0]["excerpt"] == "not yet"
    records = grpc_callee.records()
    assert {r["request"]["fire"] for r in records} == {fire["fire"]}
    assert [r["request"]["attempt"] for r in records] == [1, 2, 3, 4]
    assert records[3]["at"] - records[2]["at"] >= 1.5


def test_a_reply_pauses_the_job_that_allows_it(agent, grpc_callee):
    grpc_callee.behave({"trailing": {"carillon-job": "pause"}})
    for job_id, allowed in (("mine", True), ("not-mine", False)):
        body = job({"address": grpc_callee.address()}, schedule="@every 1s")
        body["callback"]["allow_control"] = allowed
        agent.put(job_id, body)
    wait_until(lambda: agent.get("mine")["status"]["state"] == "paused", 10, "the job paused")
    wait_until(lambda: agent.get("not-mine")["status"]["counts"]["succeeded"] >= 2, 10, "the other goes on")
    assert agent.get("not-mine")["status"]["state"] == "active"


def test_give_up_codes_make_a_dead_letter_at_once(agent, grpc_callee):
    grpc_callee.behave({"code": "INVALID_ARGUMENT", "details": "never"})
    agent.put("default", job({"address": grpc_callee.address()}))
    fire = ended(agent, "default")
    assert (fire["outcome"], fire["reason"], len(fire["attempts"])) == ("dead", "give_up", 1), fire
    grpc_callee.behave({"code": "NOT_FOUND"})
    agent.put("named", job({"address": grpc_callee.address()}, give_up_on=["NOT_FOUND", "UNAVAILABLE"]))
    fire = ended(agent, "named")
    assert (fire["outcome"], fire["reason"], fire["attempts"][0]["status"]) == ("dead", "give_up", 5), fire
    assert agent.get("named")["callback"]["give_up_on"] == ["NOT_FOUND", "UNAVAILABLE"]


def test_a_callee_that_does_not_answer_in_time_is_tried_again(agent, grpc_callee):
    grpc_callee.behave({"times": 1, "hang": True})
    agent.put("slow", job({"address": grpc_callee.address()}, timeout="2s"))  # long enough to connect
    fire = ended(agent, "slow")
    first = fire["attempts"][0]
    assert fire["outcome"] == "succeeded" and first["status"] == 4, fire
    assert first["error"].startswith("DEADLINE_EXCEEDED") and first["duration_ms"] < 60000


def test_a_compressed_reply_is_not_unpacked(agent, grpc_callee):
    """A small one may become as large as the callee likes, in the memory of the agent."""
    grpc_callee.behave({"zeros": 16 << 20})
    agent.put("bomb", job({"address": grpc_callee.address()}, retry={"max_attempts": 1}, timeout="60s"))
    [attempt] = ended(agent, "bomb")["attempts"]
    assert (attempt["status"], attempt["error"], attempt["excerpt"]) == (0, None, None), attempt


def test_a_callee_killed_in_the_call_is_tried_again_whatever_gives_up(agent, grpc_callee):
    """Nobody answered: UNAVAILABLE is the library's word, not the callee's."""
    grpc_callee.behave({"hang": True})
    [port] = grpc_callee.ports
    agent.put("killed", job({"address": grpc_callee.address()}, give_up_on=["UNAVAILABLE"], timeout="30s"))
    grpc_callee.wait_for(1, 10)
    grpc_callee.process.kill9()
    attempts = wait_until(lambda: (f := agent.fires("killed")[0])["attempts"] and f, 10, "the attempt failed")
    assert attempts["outcome"] == "pending" and attempts["attempts"][0]["status"] is None, attempts
    print(attempts["attempts"][0]["error"])
    grpc_callee.start()
    grpc_callee.up(port)
    assert ended(agent, "killed")["outcome"] == "succeeded"
    assert grpc_callee.records()[-1]["request"]["fire"] == attempts["fire"]


def test_refused_connections_are_retried_and_a_callee_that_comes_back_is_reached_soon(agent, grpc_callee):
    port = grpc_callee.port
    grpc_callee.down(port)
    agent.put("down", job({"address": grpc_callee.address()}, give_up_on=["UNAVAILABLE"]))
    fire = wait_until(lambda: (f := agent.fires("down")) and len(f[0]["attempts"]) >= 5 and f[0], 10, "five attempts")
    assert all(a["status"] is None and "Connection refused" in a["error"] for a in fire["attempts"]), fire
    grpc_callee.up(port)
    began = time.monotonic()
    fire = ended(agent, "down")
    arrived = grpc_callee.records()[0]["at"] - began
    print(f"reached {arrived * 1000:.0f} ms after the callee came back, with a back-off of 100 ms")
    assert fire["outcome"] == "succeeded"


def test_a_callee_that_restarts_loses_no_fire(agent, grpc_callee, grpc_service):
    service, port = grpc_service(grpc_callee), grpc_callee.port
    agent.put("tick", job({"service": service}, schedule="@every 1s"))
    grpc_callee.wait_for(2, 10)
    for grace in (0, 2):
        grpc_callee.down(port, grace)
        time.sleep(0.5)
        grpc_callee.up(port)
        before = grpc_callee.count()
        grpc_callee.wait_for(before + 2, 10)
    agent.ask("POST", "/v1/jobs/tick/pause", json={})
    wait_until(lambda: agent.get("tick")["status"]["counts"]["pending"] == 0, 20, "nothing pending")
    counts = agent.get("tick")["status"]["counts"]
    assert counts["succeeded"] == counts["seq"] - counts["skipped"], counts
    seqs = {int(r["request"]["seq"]) for r in grpc_callee.records()}
    assert seqs >= set(range(1, counts["succeeded"] + 1)), (seqs, counts)


def test_three_endpoints_share_the_calls_over_one_connection_each(agent, grpc_callees, grpc_service):
    callee = grpc_callees(ports=3)
    service = grpc_service(callee)
    agent.bulk([{"op": "put", "id": f"j{i}", "job": job({"service": service})} for i in range(300)])
    records = wait_until(lambda: callee.count() >= 300 and callee.records(), 20, "all were called")
    shares = {port: sum(r["port"] == port for r in records) for port in callee.ports}
    peers = {port: {r["peer"] for r in records if r["port"] == port} for port in callee.ports}
    print(f"of 300 calls: {sorted(shares.values())}; connections: {[len(p) for p in peers.values()]}")
    assert len({r["request"]["fire"] for r in records}) == 300 and min(shares.values()) >= 50, shares
    assert all(len(p) == 1 for p in peers.values()), peers
    assert {r["metadata"]["ce-subject"] for r in records} == {f"j{i}" for i in range(300)}

    def in_flight():
        endpoints = agent.ask("GET", f"/v1/services/{service}", 200)["endpoints"]
        assert len(endpoints) == 3
        return sum(e["in_flight"] for e in endpoints)

    wait_until(lambda: in_flight() == 0, 20, "all were answered")


def test_an_endpoint_that_fails_is_avoided_by_the_retry_and_ejected(agent, grpc_callees, grpc_service):
    callee = grpc_callees(ports=2)
    bad, good = callee.ports
    service = grpc_service(callee)
    callee.behave({"port": bad, "code": "UNAVAILABLE", "details": "out of order"})
    agent.bulk([{"op": "put", "id": f"j{i}", "job": job({"service": service})} for i in range(60)])
    wait_until(lambda: sum(r["port"] == good for r in callee.records()) >= 60, 20, "all were done")
    for i in range(60):
        fire = ended(agent, f"j{i}")
        assert fire["outcome"] == "succeeded" and len(fire["attempts"]) <= 2, fire
    views = {e["address"]: e for e in agent.ask("GET", f"/v1/services/{service}", 200)["endpoints"]}
    assert views[f"127.0.0.1:{bad}"]["ejected_until"] and not views[f"127.0.0.1:{good}"]["ejected_until"], views


@pytest.fixture
def secure(cluster, grpc_callees, shared_consul, folder):
    """secure(**options) registers a TLS callee and starts an agent with these options of its service; the job's first fire."""
    ours, made = Authority(folder), []

    def make(cert_name=None, ca=ours.path, client=False, **options):
        callee = grpc_callees(ports=0)
        service = f"grpcs-{folder.name[-6:].replace('_', '-').lower()}"
        tls = ours.issue(cert_name or service)
        if client:
            tls["client_ca"] = str(ours.path)
            mine = ours.issue("agent")
            options.update(tls_cert=mine["cert"], tls_key=mine["key"])
        made.append(shared_consul.register(service, callee.add_port(tls)))
        options.update({"tls_ca": str(ca)} if ca else {})
        [agent] = cluster.start(1, config={"services": {service: options}})
        agent.put("secure", job({"service": service, "tls": True}, retry={"max_attempts": 2}))
        return callee, ended(agent, "secure")

    yield make
    for instance in made:
        shared_consul.deregister(instance)


@pytest.mark.parametrize("options", [{}, {"cert_name": "callee.internal", "tls_server_name": "callee.internal"},
                                     {"client": True}], ids=["private-ca", "server-name", "client-certificate"])
def test_a_callee_with_a_private_authority_is_called_over_tls(secure, options):
    callee, fire = secure(**options)
    assert fire["outcome"] == "succeeded" and len(fire["attempts"]) == 1, fire
    assert callee.count() == 1


@pytest.mark.parametrize("case", ["other-authority", "system", "other-name"])
def test_a_callee_that_cannot_be_trusted_gets_nothing(secure, folder, case):
    options = {"other-authority": {"ca": Authority(folder, "other").path}, "system": {"ca": None},
               "other-name": {"cert_name": "somebody-else"}}[case]
    callee, fire = secure(**options)
    print(f"{case}: {fire['attempts'][0]['error']}")
    assert (fire["outcome"], fire["reason"], len(fire["attempts"])) == ("dead", "max_attempts", 2), fire
    assert all(a["status"] is None and a["error"] for a in fire["attempts"]), fire
    assert callee.count() == 0


def test_an_agent_ends_cleanly_with_calls_under_way_and_the_next_makes_them_again(agent, grpc_callee):
    grpc_callee.behave({"times": 20, "hang": True})
    agent.bulk([{"op": "put", "id": f"j{i}", "job": job({"address": grpc_callee.address()}, timeout="60s")}
                for i in range(20)])
    grpc_callee.wait_for(20, 10)
    began = time.monotonic()
    agent.term()
    print(f"ended in {time.monotonic() - began:.1f} s with 20 calls under way, shutdown_grace 1 s")
    agent.start()
    grpc_callee.wait_for(40, 30)
    first, second = grpc_callee.records()[:20], grpc_callee.records()[20:]
    assert {r["request"]["fire"] for r in first} == {r["request"]["fire"] for r in second}
    for i in range(20):
        assert ended(agent, f"j{i}")["outcome"] == "succeeded"


def test_what_grpc_cannot_carry_is_refused_at_the_write(agent):
    answer = agent.call("PUT", "/v1/jobs/bad", json=job({"address": "localhost:1", "method": "Fire",
                                                         "metadata": {"x-a": "é", "grpc-status": "0"}},
                                                        give_up_on=["OK", "Nope"]))
    assert answer.status_code == 400
    assert {e["pointer"] for e in answer.json()["errors"]} == {
        "#/callback/grpc/method", "#/callback/grpc/metadata/x-a", "#/callback/grpc/metadata/grpc-status",
        "#/callback/give_up_on/0", "#/callback/give_up_on/1"}
    answer = agent.call("PUT", "/v1/jobs/bad", json=job({}))
    assert answer.status_code == 400 and answer.json()["code"] == "no_target"


@pytest.fixture
def grpc_sink(folder):
    """grpc_sink(*flags): `carillon sink --grpc` and its address."""
    started = []

    def start(*flags):
        [port] = free_ports(1)
        sink = Process(f"sink{len(started)}", [binary(), "sink", "--grpc", f"127.0.0.1:{port}", *flags], folder).start()
        started.append(sink)
        wait_until(lambda: can_connect(port), 10, "sink ready", alive=[sink])
        return sink, f"127.0.0.1:{port}"

    yield start
    for sink in started:
        sink.end()


def lines_of(sink):
    return [line for line in sink.log_text().splitlines() if not line.startswith("sink listens")]


def test_the_sink_answers_over_grpc(agent, grpc_sink):
    sink, address = grpc_sink("--fail-first", "1", "--json")
    agent.put("plain", job({"address": address}, payload={"n": 1}))
    assert ended(agent, "plain")["outcome"] == "succeeded"
    first, second = map(json.loads, lines_of(sink))
    assert (first["job"], first["attempt"], first["status"]) == ("plain", 1, "UNAVAILABLE")
    assert (second["attempt"], second["status"], second["body"]) == (2, "OK", {"n": 1})
    assert (second["method"], second["path"]) == ("gRPC", FIRE)
    agent.put("bytes", job({"address": address, "method": "/a.B/C"}, payload={"n": 2}, retry={"max_attempts": 2}))
    ended(agent, "bytes")
    assert json.loads(lines_of(sink)[-1])["body"] == {"n": 2}
    assert sink.term(10) == 0


def test_the_sink_fails_is_slow_and_hangs_over_grpc(agent, grpc_sink):
    for name, flags, outcome in (("fails", ["--code", "NOT_FOUND"], "status=NOT_FOUND"),
                                 ("slow", ["--delay", "300ms"], "status=OK"), ("hangs", ["--hang"], "status=none")):
        sink, address = grpc_sink(*flags)
        agent.put(name, job({"address": address}, timeout="3s" if name == "hangs" else "20s",
                            retry={"max_attempts": 1}, give_up_on=[]))
        fire = ended(agent, name)
        [line] = wait_until(lambda sink=sink: lines_of(sink), 20, "the sink's line")
        assert line.startswith(f"callback job={name} fire={fire['fire']} attempt=1 lateness_ms=") and line.endswith(outcome)
        assert fire["attempts"][0]["status"] == {"fails": 5, "slow": 0, "hangs": 4}[name]
        assert name != "slow" or fire["attempts"][0]["duration_ms"] >= 300
        assert sink.term(10) == 0


def test_the_sink_refuses_a_taken_port_and_an_unknown_code(grpc_sink, folder):
    _, address = grpc_sink()
    for flags, code, text in ((["--grpc", address], 1, f"cannot listen on {address}"),
                              (["--grpc", address, "--code", "NOPE"], 2, "NOPE is no gRPC code")):
        one = Process("refused", [binary(), "sink", *flags], folder).start()
        assert one.wait(10) == code
        assert text in one.log_text()
