"""Hostile requests: each gets the right code with every problem listed, leaves no trace, and costs the agent nothing."""
import base64
import http.client
import json
import random
import secrets
import socket
import time

import pytest
import requests
from lib.carillon import Agent
from lib.procs import wait_until

CB = {"http": {"service": "bad", "path": "/bad"}}
GOOD = {"schedule": "@after 1d", "callback": CB}
DEEP = "[" * 100_000 + "]" * 100_000


def job(**change):
    return {**GOOD, **change}


def http_job(**change):
    return {**GOOD, "callback": {"http": {**CB["http"], **change}}}


def bodies():
    """(name, body, code, pointers that have to be named)"""
    yield "empty object", {}, "invalid_job", ["#/schedule"]
    yield "no object", [1], "invalid_job", []
    yield "not JSON", b'{"schedule"', "invalid_request", []
    yield "two values", b"{} {}", "invalid_request", []
    yield "twice the same key", b'{"schedule":"@after 1d","schedule":"@after 2d"}', "invalid_request", []
    yield "invalid UTF-8", b'{"schedule":"@after 1d","description":"\xff\xfe"}', "invalid_request", []
    yield "lone surrogate", b'{"schedule":"@after 1d","description":"\\ud800"}', "invalid_request", []
    yield "raw NUL", b'{"schedule":"@after 1d\x00"}', "invalid_request", []
    yield "deep", DEEP.encode(), "invalid_request", []
    yield "number too big", b'{"schedule":"@after 1d","payload":1e999}', "invalid_request", []
    yield "integer too big", b'{"schedule":"@after 1d","payload":123456789012345678901234567890}', "invalid_request", []
    yield "unknown fields", job(shedule="x", foo=1), "invalid_job", ["#/shedule", "#/foo"]
    yield "wrong types", job(schedule=5, timezone=[], payload_base64=1, labels="x", paused="yes"), "invalid_job", [
        "#/schedule", "#/timezone", "#/labels", "#/paused"]
    yield "every problem at once", {"schedule": "61 * * * *", "timezone": "Mars/Base", "jitter": "-1s", "max_fires": 0,
                                    "callback": {"http": {"path": "no-slash", "method": "GRAB", "service": "a b"}},
                                    "retry": {"factor": 0}, "misfire": {"policy": "some"}}, "invalid_job", [
        "#/schedule", "#/timezone", "#/jitter", "#/max_fires", "#/callback/http/path", "#/callback/http/method",
        "#/retry/factor", "#/misfire/policy"]
    for schedule in ("", " ", "* * * *", "* * * * * * *", "0 0 30 2 *", "0 0 31 4,6 *", "@every 0s", "@every 1ms", "@reboot",
                     "@at yesterday", "@at 2026-02-30T00:00:00Z", "@after -1s", "TZ=UTC * * * * *", "*/0 * * * *",
                     "* * * * MON#6", "1,,2 * * * *", "9" * 5000, "* " * 3000, "\n* * * * *", "* * * * *\r\nX"):
        yield f"schedule {schedule[:30]!r}", job(schedule=schedule), "invalid_job", ["#/schedule"]
    yield "no schedule in a list", job(schedule=[]), "invalid_job", ["#/schedule"]
    yield "a thousand schedules", job(schedule=["@every 1h"] * 1000), "invalid_job", ["#/schedule"]
    yield "due long ago", job(schedule="@at 2020-01-01T00:00:00Z"), "due_in_past", []
    for value in ("a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00b", "a\x7fb"):
        yield f"header value {value!r}", http_job(headers={"X-A": value}), "invalid_job", ["#/callback/http/headers/X-A"]
    for name in ("X A", "X:", "", "X\r\nY", "Host", "Content-Length", "ce-id", "Carillon-Epoch", "Transfer-Encoding",
                 "Idempotency-Key", "é"):
        yield f"header name {name!r}", http_job(headers={name: "x"}), "invalid_job", []
    for path in ("/a b", "/a\r\nb", "/\x00", "a", "/" + "x" * 10000, "/é"):
        yield f"path {path[:20]!r}", http_job(path=path), "invalid_job", ["#/callback/http/path"]
    for url in ("ftp://x/", "http://", "http://user:pw@x/", "http://x:99999/", "file:///etc/passwd", "http://x/\r\ny"):
        yield f"url {url!r}", {**GOOD, "callback": {"http": {"url": url}}}, "invalid_job", ["#/callback/http/url"]
    for url in ("http://127.0.0.1:1/", "http://localhost/x", "http://[::1]/"):
        yield f"url {url!r}", {**GOOD, "callback": {"http": {"url": url}}}, "loopback_target", []
    yield "service and url", http_job(url="http://x/"), "invalid_job", []
    yield "nobody to call", {"schedule": "@after 1d", "callback": {"http": {"path": "/x"}}}, "no_target", []
    yield "two payloads", job(payload=1, payload_base64="AA==", content_type="a/b"), "invalid_job", []
    yield "no base64", job(payload_base64="A*A=", content_type="a/b"), "invalid_job", ["#/payload_base64"]
    yield "payload too big", job(payload="x" * (256 * 1024)), "invalid_job", ["#/payload"]
    yield "content type that splits", job(payload_base64="AA==", content_type="a/b\r\nX: y"), "invalid_job", ["#/content_type"]
    yield "33 labels", job(labels={f"l{n}": "x" for n in range(33)}), "invalid_job", ["#/labels"]
    yield "long label", job(labels={"l": "x" * 257}), "invalid_job", []
    yield "no attempts", job(retry={"max_attempts": 0}), "invalid_job", ["#/retry/max_attempts"]
    yield "ends before it starts", job(schedule="@every 1h", starts_at="2027-01-02T00:00:00Z",
                                       ends_at="2027-01-01T00:00:00Z"), "invalid_job", []
    yield "success is no code", {**GOOD, "callback": {**CB, "success": ["999"]}}, "invalid_job", []
    yield "timeout of a year", {**GOOD, "callback": {**CB, "timeout": "366d"}}, "invalid_job", ["#/callback/timeout"]


@pytest.mark.parametrize("body, code, pointers", [pytest.param(*b[1:], id=b[0]) for b in bodies()])
def test_job_is_refused(three, body, code, pointers):
    bad = f"bad-{secrets.token_hex(4)}"
    for agent, path, method in ((three[0], f"/v1/jobs/{bad}", "PUT"), (three[1], "/v1/jobs", "POST")):
        answer = agent.call(method, path, data=body if isinstance(body, bytes) else json.dumps(body).encode(),
                            headers={"Content-Type": "application/json"})
        problem = answer.json()
        assert (answer.status_code, problem.get("code")) == (400, code), answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert problem["instance"] == answer.headers["Carillon-Request"]
        named = [e["pointer"] for e in problem["errors"]]
        assert not [p for p in pointers if not any(n == p or n.startswith(p + "/") for n in named)], problem
    assert three[2].get(bad) is None


IDS = ["a" * 201, "a b", "a%00b", "a%0d%0ab", "ü", "a%2Fb", "%ff", "a%", "a\\b", "a<b>", "a'b", 'a"b', "a;b", "a%25"]


@pytest.mark.parametrize("job_id", IDS)
def test_id_is_refused(three, job_id):
    for method in ("PUT", "GET", "DELETE"):
        answer = three[0].call(method, f"/v1/jobs/{job_id}", **({"json": GOOD} if method == "PUT" else {}))
        assert answer.status_code in (400, 404) and answer.json()["code"] in ("invalid_request", "not_found"), answer.text
        assert method == "GET" or answer.status_code == 400 or "/" in requests.utils.unquote(job_id)


def test_an_agent_alone_without_secrets_knows_none(folder):
    agent = Agent("alone", folder).start()
    job = {**GOOD, "callback": {"http": {"url": "http://127.0.0.1:9/", "headers": {"X": "${secret:nowhere}"}}}}
    answer = agent.call("PUT", "/v1/jobs/x", json=job)
    agent.end()
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_secret"), answer.text
    assert [e["pointer"] for e in answer.json()["errors"]] == ["#/callback/http/headers/X"]


REQUESTS = [
    ("no content type", "PUT", "/v1/jobs/x", {}, b"{}", 415),
    ("text/plain, as a form of a web page", "PUT", "/v1/jobs/x", {"Content-Type": "text/plain"}, b"{}", 415),
    ("form", "POST", "/v1/jobs", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415),
    ("JSON as bulk", "POST", "/v1/bulk", {"Content-Type": "application/json"}, b"{}", 415),
    ("another host", "GET", "/v1/jobs", {"Host": "evil.example"}, None, 421),
    ("another host, same port", "GET", "/v1/jobs", {"Host": "evil.example:7420"}, None, 421),
    ("host of a rebinding page", "PUT", "/v1/jobs/x", {"Host": "127.0.0.1.evil.example",
                                                      "Content-Type": "application/json"}, b"{}", 421),
    ("unknown path", "GET", "/v1/nothing", {}, None, 404),
    ("path of peers", "POST", "/peer/v1/dead", {"Content-Type": "application/json"}, b'{"member":"x"}', 404),
    ("method", "PATCH", "/v1/jobs", {"Content-Type": "application/json"}, b"{}", 405),
    ("unknown method", "BREW", "/v1/jobs", {}, None, 405),
    ("unknown parameter", "GET", "/v1/jobs?limt=5", {}, None, 400),
    ("limit of zero", "GET", "/v1/jobs?limit=0", {}, None, 400),
    ("limit too big", "GET", "/v1/jobs?limit=1001", {}, None, 400),
    ("limit is no number", "GET", "/v1/jobs?limit=1e3", {}, None, 400),
    ("cursor of somebody else", "GET", "/v1/jobs?cursor=AAAA%27%20OR%201=1", {}, None, 400),
    ("namespace", "GET", "/v1/jobs?ns=A_B", {}, None, 400),
    ("namespace in the header", "GET", "/v1/jobs", {"Carillon-Namespace": "x/y"}, None, 400),
    ("state", "GET", "/v1/jobs?state=sleeping", {}, None, 400),
    ("delete without a filter", "DELETE", "/v1/jobs", {"Carillon-Client": "it"}, None, 400),
    ("delete by a web page", "DELETE", "/v1/jobs/x", {}, None, 415),
    ("no fire's id", "GET", "/v1/fires/xyz", {}, None, 404),
    ("If-Match", "DELETE", "/v1/jobs/x", {"Carillon-Client": "it", "If-Match": "garbage"}, None, 400),
    ("body too big", "PUT", "/v1/jobs/x", {"Content-Type": "application/json"}, b" " * (1 << 20) + b"{}", 413),
    ("a header that forges a peer", "PUT", "/v1/jobs/x", {"Content-Type": "application/json", "Carillon-Context": "{}"},
     b"{}", 400),
]


@pytest.mark.parametrize("method, path, headers, body, status", [pytest.param(*r[1:], id=r[0]) for r in REQUESTS])
def test_request_is_refused(three, method, path, headers, body, status):
    web = requests.Request(method, three[0].url + path, headers=headers, data=body).prepare()
    answer = requests.Session().send(web, timeout=10)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json" and answer.json()["status"] == status
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert three[1].get("x") is None


def raw(agent, data):
    """The first bytes that come back for these, b"" if none do within a moment: an unfinished request has none."""
    with socket.create_connection(("127.0.0.1", agent.api_port), timeout=30) as s:
        s.settimeout(0.05)
        try:
            s.sendall(data)
            return s.recv(65536)
        except (TimeoutError, ConnectionError):
            return b""


def rss_mib(agent):
    with open(f"/proc/{agent.process.pid}/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024


@pytest.mark.parametrize("head, detail", [("GET /v1/jobs HTTP/1.1\r\n", "the header Host is missing"),
                                          ("GET /v1/jobs HTTP/1.0\r\n", "the header Host is missing"),
                                          ("GET /v1/jobs/a b HTTP/1.1\r\nHost: localhost\r\n", "percent-encoded")])
def test_a_broken_head_is_answered_as_all_else_is(three, head, detail):
    with socket.create_connection(("127.0.0.1", three[0].api_port), timeout=60) as s:
        s.sendall(f"{head}\r\n".encode())
        answer = http.client.HTTPResponse(s)
        answer.begin()
        problem = json.loads(answer.read())
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert (problem["code"], problem["status"]) == ("invalid_request", 400) and detail in problem["detail"], problem


def test_broken_http_ends_nothing(three):
    agent = three[0]
    dice = random.Random(7)
    before = rss_mib(agent)
    for data in (b"\x00" * 4096, b"GET " + b"/" * 70000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20000,
                 b"PUT /v1/jobs/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
                 b"PUT /v1/jobs/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
                 b"PUT /v1/jobs/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
                 b"GET /v1/jobs HTTP/1.1\r\n\r\n", b"GET /v1/jobs HTTP/9.9\r\nHost: localhost\r\n\r\n",
                 b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /v1/jobs%00 HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        assert b" 200 " not in raw(agent, data).split(b"\r\n")[0]
    for _ in range(300):
        raw(agent, dice.randbytes(dice.randrange(1, 2000)))
    for _ in range(300):
        good = bytearray(b'PUT /v1/jobs/fuzz HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
                         b'Content-Length: 60\r\n\r\n{"schedule":"@after 1d","callback":{"http":{"path":"/x"}}}  ')
        for _ in range(3):
            good[dice.randrange(len(good))] = dice.randrange(256)
        assert b"HTTP/1.1 500" not in raw(agent, bytes(good))
    assert agent.ready() and rss_mib(agent) - before < 30
    assert agent.get("fuzz") is None


def test_slow_clients_and_a_thousand_idle_connections_hold_nobody_up(three):
    agent = three[0]
    before = rss_mib(agent)
    idle = []
    try:
        for n in range(900):
            s = socket.create_connection(("127.0.0.1", agent.api_port), timeout=30)
            if n % 3 == 1:
                s.sendall(b"GET /v1/jo")
            elif n % 3 == 2:
                s.sendall(b"PUT /v1/jobs/slow HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                          b"Content-Length: 1000\r\n\r\n{")
            idle.append(s)
        times = []
        for _ in range(50):
            begin = time.monotonic()
            assert agent.call("GET", "/v1/jobs/none").status_code == 404
            times.append(1000 * (time.monotonic() - begin))
        print(f"with {len(idle)} idle connections: median {sorted(times)[25]:.1f} ms, worst {max(times):.1f} ms; "
              f"RSS {before:.1f} -> {rss_mib(agent):.1f} MiB")
        assert sorted(times)[25] < 2000
        # More than fit: those that have been silent longest make room, and requests go on being answered.
        for _ in range(1200):
            s = socket.create_connection(("127.0.0.1", agent.api_port), timeout=30)
            idle.append(s)
        question = b"GET /v1/jobs/none HTTP/1.1\r\nHost: localhost\r\n\r\n"
        wait_until(lambda: raw(agent, question).startswith(b"HTTP/1.1 404"), 6, "a place for one who speaks")
    finally:
        for s in idle:
            s.close()
    wait_until(lambda: agent.call("GET", "/v1/jobs/none").status_code == 404, 10, "agent answers")
    assert all(a.process.alive() for a in three)
    assert rss_mib(agent) - before < 60


def test_bulk_that_is_hostile_spoils_only_its_lines(three):
    lines = [b'{"op":"create","id":"hostile-ok","job":' + json.dumps(GOOD).encode() + b"}", b"", b"\xff\xfe", b"[]", b"null",
             b'{"op":"destroy","id":"x"}', b'{"op":"create"}', b'{"op":"put","id":"a b","job":{}}', DEEP.encode(),
             b'{"op":"create","id":"hostile-\\u0000","job":{}}', b'{"op":"create","id":"x","job":{},"extra":1}',
             b'{"op":"delete","id":"hostile-ok"}']
    answer = three[1].call("POST", "/v1/bulk", data=b"\n".join(lines), headers={"Content-Type": "application/x-ndjson"})
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert results.pop()["ok"] == 2, answer.text
    statuses = {r["line"]: r["status"] for r in results}
    assert statuses[1] == 201 and statuses[12] == 200, statuses
    assert all(s == 400 for line, s in statuses.items() if line not in (1, 12)), statuses
    assert three[0].get("hostile-ok") is None


def test_payload_of_the_largest_size_is_kept_exactly(three, service, callee):
    data = random.Random(1).randbytes(256 * 1024)
    job_body = {"schedule": "@after 100ms", "callback": {"http": {"service": service, "path": "/big"}},
                "payload_base64": base64.b64encode(data).decode(), "content_type": "application/octet-stream"}
    three[0].put("big-payload", job_body)
    [record] = callee.wait_for(1, 10)
    assert base64.b64decode(record["body_base64"]) == data
    three[1].delete("big-payload")


def test_refusals_say_what_is_wanted(three):
    a = three[0]
    patch = a.call("PATCH", "/v1/jobs/x", data="{}", headers={"Content-Type": "text/plain"})
    assert patch.status_code == 415 and "application/merge-patch+json or application/json" in patch.json()["detail"]
    method = a.call("PATCH", "/v1/jobs", json={})
    assert method.status_code == 405 and method.json()["detail"] == "'/v1/jobs' takes GET, HEAD, POST, DELETE, not PATCH"
    empty = a.call("POST", "/v1/jobs", data="", headers={"Content-Type": "application/json"})
    assert empty.status_code == 400 and "the body is empty" in empty.json()["detail"]
    after = a.call("POST", "/v1/jobs", json={"schedule": "@after 99999d", "callback": {"http": {"url": "http://10.0.0.1/"}}})
    assert after.status_code == 400 and "at most 36500d" in after.json()["detail"]
    nowhere = a.call("POST", "/v1/jobs", json={"schedule": "@daily", "callback": {"http": {}}})
    assert nowhere.json()["code"] == "no_target" and nowhere.json()["title"] == "The job names no callee"
    assert all(answer.text.endswith("}\n") for answer in (patch, empty, after, nowhere))
