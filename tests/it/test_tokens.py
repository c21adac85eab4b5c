"""Who may use the API: every route without a token, with a wrong one, one that has expired, one that is good for something else."""
import datetime
import hashlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket

import pytest
import requests
import urllib3
import yaml

from lib import procs
from lib.carillon import ROOT, Agent
from lib.procs import wait_until

OPENAPI = yaml.safe_load((ROOT / "agent/api/openapi.yaml").read_text())
FIRE = "0123456789abcdef0123456789abcdef.7"
JOB = {"schedule": "0 9 1 1 *", "callback": {"http": {"url": "http://127.0.0.1:1/hook"}}}
OPEN = {("get", p) for p in ("/livez", "/readyz", "/ui", "/ui/", "/ui/ui.css", "/ui/ui.js")}
KEYED = {("post", "/v1/fires/{fire}/complete"), ("post", "/v1/fires/{fire}/heartbeat")}


def operations():
    for path, item in OPENAPI["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield method, path, operation


def entry(name, can=("read", "write", "operate"), namespaces=("*",), **more):
    return {"name": name, "sha256": hashlib.sha256(secret(name).encode()).hexdigest(), "namespaces": list(namespaces),
            "can": list(can), **more}


def secret(name):
    return f"token-of-{name}-4e1f"


ENTRIES = [entry("root"), entry("reader", ["read"]), entry("writer", ["write"]), entry("operator", ["operate"]),
           entry("old", expires="2020-01-01"), entry("later", expires="2999-01-01T00:00:00Z"),
           entry("team-b", namespaces=["team-b"]), entry("slow", rate=1)]


class Guarded(Agent):
    def __init__(self, name, folder, config=None, entries=ENTRIES):
        super().__init__(name, folder, config)
        self.tokens_file = self.folder / f"{name}-tokens.yaml"
        self.config["api"]["tokens_file"] = str(self.tokens_file)
        self.write(entries)

    def write(self, entries):
        new = self.tokens_file.with_suffix(".new")
        new.write_text(yaml.safe_dump(entries))
        new.rename(self.tokens_file)

    def by(self, name, method, path, **kwargs):
        headers = {"Authorization": f"Bearer {secret(name)}", **kwargs.pop("headers", {})} if name else {}
        return self.call(method, path, headers=headers, **kwargs)

    def plain(self, name, method, path):
        """Nothing but the token: no content type, no body."""
        with requests.Session() as web:
            web.trust_env = False
            headers = {"Authorization": f"Bearer {secret(name)}"} if name else {}
            answer = web.request(method, self.url + path, headers=headers, timeout=60, stream=True)
            if answer.headers.get("Content-Type") != "text/event-stream":  # that one has no end
                _ = answer.content
            return answer


@pytest.fixture(scope="module")
def agent():
    folder = procs.make_folder("carillon-it-tokens-")
    made = Guarded("tokens", folder, {"api": {"listen": None}})
    made.socket = f"{folder}/api.sock"
    made.config["api"]["listen"] = [made.address, f"unix:{made.socket}"]
    made.start()
    yield made
    made.end()


def expect(answer, status, code):
    assert answer.status_code == status, (answer.request.method, answer.request.url, answer.text)
    document = answer.json()
    assert document["code"] == code and answer.headers["Content-Type"] == "application/problem+json"
    return document


def at(path):
    return re.sub(r"{(\w+)}", lambda m: FIRE if m[1] == "fire" else "thing", path)


@pytest.mark.parametrize("method, path, operation", operations(), ids=lambda v: v if isinstance(v, str) else "")
def test_no_route_answers_to_whoever_may_not(agent, method, path, operation):
    if (method, path) in OPEN:
        assert operation["security"] == [] and agent.plain(None, method, path).status_code == 200
        return
    if (method, path) in KEYED:  # the key that came with the callback is what counts, whatever token there is
        assert operation["security"] == []
        for name in [None, "nobody", "root"]:
            expect(agent.call(method, at(path), json={"status": "ok"}, headers={} if not name else {
                "Authorization": f"Bearer {secret(name)}"}), 403, "forbidden")
        return
    for name in [None, "nobody", "old"]:
        answer = agent.plain(name, method, at(path))
        expect(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    can = operation["x-token-can"]
    can = can if isinstance(can, list) else [can]
    for name, good_for in [("reader", "read"), ("writer", "write"), ("operator", "operate")]:
        answer = agent.plain(name, method, at(path))
        if good_for in can:
            assert answer.status_code not in (401, 403), answer.text
        else:
            assert good_for in ("read", "write", "operate") and "may not" in expect(answer, 403, "forbidden")["detail"]
    has_namespace = any(str(p.get("$ref")).endswith("/ns") for p in
                        OPENAPI["paths"][path].get("parameters", []) + operation.get("parameters", []))
    if has_namespace and path != "/v1/bulk" or path == "/metrics":
        expect(agent.plain("team-b", method, at(path)), 403, "forbidden")
        if path != "/metrics":
            assert agent.plain("team-b", method, at(path) + "?ns=team-b").status_code not in (401, 403)


def test_openapi_and_the_routes_agree_on_what_is_open():
    assert {(m, p) for m, p, o in operations() if o.get("security") == []} == OPEN | KEYED


def test_what_is_unknown_needs_a_token_too(agent):
    expect(agent.plain(None, "get", "/v1/nothing"), 401, "unauthorized")
    expect(agent.plain("root", "get", "/v1/nothing"), 404, "not_found")
    for header in ["Basic cm9vdDp4", "Bearer", "Bearer  ", secret("root"), "Bearer " + secret("root") + "x"]:
        expect(agent.call("GET", "/v1/jobs", headers={"Authorization": header}), 401, "unauthorized")


def test_a_namespace_is_where_a_token_ends(agent):
    agent.by("root", "PUT", "/v1/jobs/theirs", json=JOB)
    assert agent.by("team-b", "PUT", "/v1/jobs/ours?ns=team-b", json=JOB).status_code == 201
    for method, path, body in [("PUT", "/v1/jobs/ours", JOB), ("GET", "/v1/jobs/theirs", None), ("DELETE", "/v1/jobs?all=true", None),
                               ("GET", "/v1/jobs?ns=*", None), ("GET", "/v1/export?ns=*", None), ("GET", "/v1/events?ns=*", None),
                               ("GET", "/v1/forecast?ns=*", None), ("GET", "/v1/jobs?ns=team-bb", None)]:
        expect(agent.by("team-b", method, path, json=body), 403, "forbidden")
    expect(agent.by("team-b", "GET", "/v1/jobs/theirs", headers={"Carillon-Namespace": "default"}), 403, "forbidden")
    assert agent.by("team-b", "GET", "/v1/jobs/ours", headers={"Carillon-Namespace": "team-b"}).status_code == 200
    assert agent.by("root", "GET", "/v1/jobs/theirs").status_code == 200


def test_each_line_of_a_bulk_needs_what_it_does(agent):
    lines = [{"op": "put", "id": "b1", "job": JOB}, {"op": "put", "namespace": "team-b", "id": "b2", "job": JOB},
             {"op": "pause", "namespace": "team-b", "id": "b2"}, {"op": "redrive", "id": "b2"}]

    def ask(name):
        body = "".join(json.dumps(line) + "\n" for line in lines)
        answer = agent.by(name, "POST", "/v1/bulk", data=body, headers={"Content-Type": "application/x-ndjson"})
        return [line["status"] for line in map(json.loads, answer.text.splitlines()) if "line" in line]

    assert ask("team-b") == [403, 201, 200, 400]
    assert ask("writer") == [201, 200, 403, 400]
    assert ask("operator") == [403, 403, 200, 400]
    assert ask("root") == [200, 200, 200, 400]


def test_a_fire_is_its_namespaces(agent):
    ids = {}
    for ns in ["default", "team-b"]:
        agent.by("root", "PUT", f"/v1/jobs/fired?ns={ns}", json={**JOB, "retry": {"min_backoff": "1h", "max_backoff": "1h"}})
        ids[ns] = agent.by("root", "POST", f"/v1/jobs/fired/run?ns={ns}").json()["fire"]
    for who, ns, status in [("team-b", "default", 403), ("team-b", "team-b", 200), ("root", "default", 200)]:
        assert agent.by(who, "GET", f"/v1/fires/{ids[ns]}").status_code == status
    expect(agent.by("team-b", "POST", f"/v1/fires/{ids['default']}/retry"), 403, "forbidden")
    expect(agent.by("team-b", "POST", f"/v1/fires/{ids['default']}/cancel"), 403, "forbidden")
    assert agent.by("team-b", "POST", f"/v1/fires/{ids['team-b']}/cancel").status_code == 200
    expect(agent.by("team-b", "POST", f"/v1/fires/{FIRE}/cancel"), 404, "not_found")
    agent.by("root", "DELETE", "/v1/jobs/fired")
    gone = agent.by("team-b", "POST", f"/v1/fires/{ids['default']}/cancel")
    assert gone.status_code in (403, 404), gone.text


def test_who_did_it_is_kept_and_told(agent):
    agent.by("writer", "PUT", "/v1/jobs/audited", json=JOB)
    agent.by("operator", "POST", "/v1/jobs/audited/pause")
    revisions = agent.by("reader", "GET", "/v1/jobs/audited/revisions").json()["revisions"]
    assert {r["actor"] for r in revisions} == {"operator", "writer"}
    expect(agent.by("reader", "DELETE", "/v1/jobs/audited"), 403, "forbidden")

    def lines():
        return [line for line in pathlib.Path(agent.process.log_path).read_text().splitlines()
                if "module=audit" in line and "path=/v1/jobs/audited" in line]

    told = wait_until(lambda: len(lines()) >= 3 and lines(), 12, "the audit's lines")
    assert "actor=writer" in told[0] and "method=PUT" in told[0] and "status=201" in told[0] and "from=127.0.0.1:" in told[0]
    assert "actor=operator" in told[1] and "path=/v1/jobs/audited/pause" in told[1]
    assert "actor=reader" in told[2] and "status=403" in told[2]


def test_no_token_is_ever_written(agent):
    for name in ["root", "nobody", "old"]:
        agent.by(name, "GET", f"/v1/jobs/{secret(name)}?x={secret(name)}-in-query")
    agent.by("root", "GET", "/v1/jobs")
    text = pathlib.Path(agent.process.log_path).read_text() + agent.by("root", "GET", "/metrics").text
    assert "refused" in text
    for name in ["root", "writer", "nobody", "old", "team-b"]:
        assert secret(name) not in text and hashlib.sha256(secret(name).encode()).hexdigest() not in text


def test_a_client_over_its_rate_waits(agent):
    answers = [agent.by("slow", "GET", "/v1/jobs") for _ in range(20)]
    refused = [a for a in answers if a.status_code == 429]
    assert refused and answers[0].status_code == 200
    expect(refused[0], 429, "quota_exceeded")
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert agent.by("reader", "GET", "/v1/jobs").status_code == 200
    wait_until(lambda: agent.by("slow", "GET", "/v1/jobs").status_code == 200, 60, "its next second", interval=0.5)


class Local(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.host)


def over_socket(agent, path, headers=None):
    connection = Local(agent.socket)
    connection.request("GET", path, headers={"Host": "localhost", **(headers or {})})
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document.get("code")


def test_a_unix_socket_tells_who_its_peer_is(agent):
    assert over_socket(agent, "/v1/jobs") == (401, "unauthorized")
    agent.write(ENTRIES + [{"name": "me", "uid": os.getuid(), "namespaces": ["team-b"], "can": ["read"]}])
    agent.process.signal(signal.SIGHUP)
    wait_until(lambda: over_socket(agent, "/v1/jobs?ns=team-b") == (200, None), 60, "the new entry counts")
    assert over_socket(agent, "/v1/jobs") == (403, "forbidden")
    assert over_socket(agent, "/v1/jobs?ns=team-b", {"Authorization": "Bearer wrong"}) == (401, "unauthorized")
    agent.write(ENTRIES)


def test_a_changed_file_counts_and_a_broken_one_does_not(agent):
    agent.write([entry("root"), entry("new")])
    agent.process.signal(signal.SIGHUP)
    wait_until(lambda: agent.by("new", "GET", "/v1/jobs").status_code == 200, 60, "the new token counts")
    expect(agent.by("reader", "GET", "/v1/jobs"), 401, "unauthorized")
    agent.write([{"name": "broken"}])
    agent.process.signal(signal.SIGHUP)
    wait_until(lambda: "tokens not read again" in agent.process.log_tail(), 60, "it says so")
    assert agent.by("new", "GET", "/v1/jobs").status_code == 200
    agent.write(ENTRIES)  # without a signal
    wait_until(lambda: agent.by("reader", "GET", "/v1/jobs").status_code == 200, 60, "the first ones are back")


def listens(stream):
    """Whether the stream of events is still open: the next line of it, a comment at the least, or its end."""
    try:
        return bool(stream.raw.readline())
    except (requests.RequestException, urllib3.exceptions.HTTPError):
        return False


def test_a_stream_ends_with_its_token(folder):
    agent = Guarded("streams", folder)
    agent.start()
    try:
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=15)
        kept = [entry("root"), entry("team-b", namespaces=["team-b"])]
        agent.write([*kept, entry("brief", expires=soon.strftime("%Y-%m-%dT%H:%M:%SZ")), entry("gone"), entry("narrowed")])
        agent.process.signal(signal.SIGHUP)
        wait_until(lambda: agent.by("gone", "GET", "/v1/jobs").status_code == 200, 60, "the new tokens count")
        streams = {name: agent.plain(name, "GET", "/v1/events?ns=team-b") for name in ["team-b", "brief", "gone", "narrowed"]}
        assert all(s.status_code == 200 for s in streams.values())
        agent.write([*kept, entry("brief", expires=soon.strftime("%Y-%m-%dT%H:%M:%SZ")), entry("narrowed", namespaces=["team-c"])])
        agent.process.signal(signal.SIGHUP)
        for name in ["gone", "narrowed", "brief"]:  # taken out, changed, expired
            while listens(streams[name]):
                pass
        assert listens(streams["team-b"]) and agent.by("brief", "GET", "/v1/jobs").status_code == 401
    finally:
        agent.end()


def test_a_listener_for_everybody_needs_tokens(folder):
    agent = Guarded("wide", folder)
    agent.config["api"]["listen"] = [f"0.0.0.0:{agent.api_port}"]
    agent.start()
    assert agent.by("root", "GET", "/v1/jobs").status_code == 200
    agent.term()
    del agent.config["api"]["tokens_file"]
    agent.start(wait=False)
    wait_until(lambda: not agent.process.alive(), 60, "it refuses")
    assert "api.tokens_file" in agent.process.log_tail()


def test_a_broken_file_is_told_before_the_start(folder):
    agent = Guarded("broken", folder, entries=[entry("a"), {**entry("b"), "sha256": "sesame"}])
    agent.start(wait=False)
    wait_until(lambda: not agent.process.alive(), 60, "it refuses")
    assert ": sha256: must be 64 hexadecimal digits" in agent.process.log_tail() and "sesame" not in agent.process.log_tail()


def test_tokens_count_at_a_client_as_at_a_member(clusters, shared_consul, shared_mariadb, folder):
    tokens = pathlib.Path(folder) / "tokens.yaml"
    tokens.write_text(yaml.safe_dump(ENTRIES))
    cluster = clusters(shared_consul, shared_mariadb)
    member = cluster.agent(config={"api": {"hosts": ["member"]}}).start()
    client = cluster.agent(config={"agent": {"role": "client"}, "api": {"tokens_file": str(tokens)}, "store": None}).start()

    def by(name, method, path, **kwargs):
        return client.call(method, path, headers={"Authorization": f"Bearer {secret(name)}"}, **kwargs)

    job = {**JOB, "callback": {"http": {"url": "http://10.9.9.9:1/x"}}}
    wait_until(lambda: by("root", "PUT", "/v1/jobs/there", json=job).status_code in (200, 201), 60, "the client reaches a member")
    assert by("team-b", "PUT", "/v1/jobs/here?ns=team-b", json=job).status_code == 201
    assert [r["actor"] for r in member.ask("GET", "/v1/jobs/here/revisions?ns=team-b")["revisions"]] == ["team-b"]
    fires = {ns: by("root", "POST", f"/v1/jobs/{name}/run?ns={ns}").json()["fire"]
             for name, ns in [("there", "default"), ("here", "team-b")]}
    for method, path in [("GET", ""), ("POST", "/cancel"), ("POST", "/retry")]:
        expect(by("team-b", method, f"/v1/fires/{fires['default']}{path}"), 403, "forbidden")
    assert by("team-b", "GET", f"/v1/fires/{fires['team-b']}").status_code == 200
    assert by("team-b", "POST", f"/v1/fires/{fires['team-b']}/cancel").status_code == 200
    expect(by("reader", "POST", f"/v1/fires/{fires['default']}/cancel"), 403, "forbidden")
    with socket.create_connection(("127.0.0.1", member.cluster_port)) as peer:  # no secret, no answer
        peer.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 401 " in peer.makefile("rb").readline()
