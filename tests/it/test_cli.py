"""The command line against an agent that says what the test wants, and the sink; no cluster needed."""
import base64
import datetime
import http.server
import json
import os
import shutil
import signal
import subprocess
import threading

import pytest
import requests
from standardwebhooks import Webhook

from lib import procs
from lib.carillon import ROOT, Agent, binary

JOB = {"id": "a", "namespace": "default", "schedule": "@daily", "timezone": "UTC",
       "callback": {"http": {"service": "billing", "method": "POST", "path": "/x"}, "timeout": "30s"},
       "status": {"uid": "u", "version": 3, "state": "active", "next_due": "2999-01-01T00:00:00.000Z",
                  "counts": {"seq": 2, "succeeded": 2}, "owner": "a1", "last_fire": None}}


class FakeAgent:
    """Answers from a list of (method, path with query, status, headers, body); keeps what it was asked."""

    def __init__(self):
        self.answers = []
        self.requests = []
        agent = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                agent.requests.append((self.command, self.path, dict(self.headers), body))
                status, headers, answer = agent.find(self.command, self.path)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Length": len(data), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = handle_any

            def log_message(self, *args):  # pylint: disable=arguments-differ
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def on(self, method, path, status, body, **headers):
        self.answers.append((method, path, status, {k.replace("_", "-"): v for k, v in headers.items()}, body))

    def find(self, method, path):
        for m, p, status, headers, body in self.answers:
            if (m, p) == (method, path):
                return status, headers, body
        return 404, {}, problem("not_found", f"no answer for {method} {path}", 404)

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def problem(code, detail, status, errors=()):
    return {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail, "errors": list(errors)}


@pytest.fixture(name="agent")
def fake_agent():
    agent = FakeAgent()
    yield agent
    agent.close()


@pytest.fixture(name="cli")
def command_line(agent):
    """cli("job", "get", "a") → (exit code, output, errors)"""
    def run(*words, env=None, stdin=""):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CARILLON_")}
        environment["CARILLON_ADDR"] = agent.address
        done = subprocess.run([binary(), *words], input=stdin, capture_output=True, text=True, timeout=120, check=False,
                              env={**environment, **(env or {})})
        return done.returncode, done.stdout, done.stderr
    return run


def test_requests_carry_client_namespace_and_token(agent, cli, folder):
    agent.on("GET", "/v1/jobs/a%2Fb%20c", 200, JOB)
    token = folder / "token"
    token.write_text("from-file\n")
    code, _, err = cli("job", "get", "a/b c", "--ns", "team-b", env={"CARILLON_TOKEN": "from-env"})
    assert (code, err) == (0, "")
    headers = agent.requests[-1][2]
    assert headers["Carillon-Client"].startswith("carillon/")
    assert headers["Carillon-Namespace"] == "team-b"
    assert headers["Authorization"] == "Bearer from-env"
    cli("job", "get", "a/b c", "--token-file", str(token), env={"CARILLON_TOKEN": "from-env", "CARILLON_NAMESPACE": "n"})
    headers = agent.requests[-1][2]
    assert headers["Authorization"] == "Bearer from-file"
    assert headers["Carillon-Namespace"] == "n"
    cli("job", "get", "a/b c", env={"CARILLON_TOKEN_FILE": str(token)})
    assert agent.requests[-1][2]["Authorization"] == "Bearer from-file"
    assert "Carillon-Namespace" not in agent.requests[-1][2]


def test_job_get_shows_a_listing_or_json(agent, cli):
    agent.on("GET", "/v1/jobs/a", 200, JOB)
    code, out, _ = cli("job", "get", "a")
    assert code == 0
    lines = dict(line.split(None, 1) for line in out.splitlines())
    assert lines["id"] == "a" and lines["schedule"] == "@daily" and lines["state"] == "active"
    assert lines["callback"] == "HTTP POST service billing /x"
    code, out, _ = cli("job", "get", "a", "--json")
    assert code == 0 and json.loads(out) == JOB


def test_job_get_says_why_a_fire_failed_last(agent, cli):
    status = {**JOB["status"], "state": "done", "next_due": None, "counts": {"seq": 1, "pending": 1}}
    agent.on("GET", "/v1/jobs/a", 200, {**JOB, "status": status})
    agent.on("GET", "/v1/jobs/a/fires?limit=20", 200, {"fires": [{"fire": "u.1", "outcome": "pending", "attempts": [
        {"attempt": 1, "at": "2026-01-01T00:00:00.000Z", "endpoint": "10.0.0.7:8080", "status": None, "error": "refused"},
        {"attempt": 2, "at": "2026-01-01T00:00:01.000Z", "endpoint": "10.0.0.8:8080", "status": 503, "error": None,
         "excerpt": "not today"}]}], "next_cursor": None})
    code, out, _ = cli("job", "get", "a")
    assert code == 0
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert lines["state"].strip() == "done, 1 pending"
    assert lines["last error"].strip().startswith("status 503 from 10.0.0.8:8080, attempt 2, 2026-01-01T00:00:01Z (")
    assert lines["last error"].endswith("ago): not today")
    agent.on("GET", "/v1/jobs?limit=100", 200, {"jobs": [{**JOB, "status": status}], "next_cursor": None})
    assert "  done, 1 pending  " in cli("job", "list")[1]


@pytest.mark.parametrize("job_id", [".", "..", "a~b"])
def test_an_id_is_asked_for_as_it_is(agent, cli, job_id):
    assert cli("job", "get", job_id)[0] == 3
    assert agent.requests[0][1] == f"/v1/jobs/{job_id}"


def test_an_unknown_job_is_exit_3(cli):
    code, out, err = cli("job", "get", "nope")
    assert (code, out) == (3, "")
    assert err.startswith("carillon: 404 not_found: ") and "hint: names count within a namespace" in err
    code, out, err = cli("service", "get", "nope")
    assert (code, out) == (3, "")
    assert "hint: services are named as in Consul" in err and "namespace" not in err


def test_refusals_list_every_problem_and_what_to_do(agent, cli):
    agent.on("POST", "/v1/jobs", 400, problem("no_target", "2 problems", 400, [
        {"pointer": "#/callback/http", "detail": "names no target\x1b[2J"}, {"pointer": "#/id", "detail": "is bad"}]))
    code, out, err = cli("in", "5s", "--path", "/x")
    assert (code, out) == (1, "")
    assert err == ("carillon: 400 no_target: 2 problems\n  #/callback/http: names no target?[2J\n  #/id: is bad\n"
                   "hint: give callback.http.service or callback.http.url, or set app.service of the agent\n")
    agent.on("PUT", "/v1/jobs/x", 400, problem("invalid_job", "#/schedule: is wrong", 400,
                                               [{"pointer": "#/schedule", "detail": "is wrong, which is said at length"}]))
    assert cli("in", "5s", "--id", "x")[2] == "carillon: 400 invalid_job\n  #/schedule: is wrong, which is said at length\n"
    agent.on("DELETE", "/v1/jobs/a", 412, problem("version_mismatch", "is newer", 412, [{"pointer": "#", "detail": "is newer"}]))
    assert cli("job", "delete", "a")[2].splitlines()[:2] == ["carillon: 412 version_mismatch", "  #: is newer"]
    agent.on("GET", "/v1/cluster", 503, b"not json", Retry_After="7")
    code, _, err = cli("cluster", "status")
    assert code == 1 and "503 without an explanation" in err and "try again in 7 s" in err


def test_a_quota_is_not_over_in_a_second(agent, cli):
    agent.on("PUT", "/v1/jobs/a", 429, {"code": "quota_exceeded", "detail": "the namespace has its 10 jobs"}, Retry_After=1)
    code, _, err = cli("in", "1h", "--id", "a", "--url", "http://example.org/x")
    assert code == 1 and "has its 10 jobs" in err and "schedule.max_jobs_of" in err and "try again" not in err


def test_nobody_there_is_exit_4(cli):
    [port] = procs.free_ports(1)
    code, out, err = cli("job", "list", "--addr", f"127.0.0.1:{port}")
    assert (code, out) == (4, "")
    assert err.startswith(f"carillon: no agent reached at http://127.0.0.1:{port}: ") and "hint: is it running?" in err


def test_in_makes_a_one_shot(agent, cli):
    agent.on("PUT", "/v1/jobs/tea", 201, {**JOB, "id": "tea", "warnings": ["nobody lists the service 's'"]})
    code, out, err = cli("in", "15m", "--id", "tea", "--path", "/tea", "-d", '{"tea":"ready"}', "-H", "X-A: b: c", "--service", "s")
    assert code == 0 and out.startswith("tea: due 2999-01-01T00:00:00Z (in ")
    assert err == "tea: warning: nobody lists the service 's'\n"
    method, _, headers, body = agent.requests[-1]
    assert method == "PUT" and headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"schedule": "@after 15m", "id": "tea", "payload": {"tea": "ready"},
                                "callback": {"http": {"service": "s", "path": "/tea", "headers": {"X-A": "b: c"}}}}
    cli("in", "1s", "--url", "http://example.org/x", "--data", "@-", stdin="[1]")
    method, path, _, body = agent.requests[-1]
    assert (method, path) == ("POST", "/v1/jobs")
    assert json.loads(body) == {"schedule": "@after 1s", "payload": [1], "callback": {"http": {"url": "http://example.org/x"}}}


def test_in_sends_what_is_no_json_with_its_content_type(agent, cli, tmp_path):
    agent.on("POST", "/v1/jobs", 201, {**JOB, "id": "tea"})
    picture = tmp_path / "picture"
    picture.write_bytes(bytes(range(256)))
    for data, content_type, wanted in (("the tea is ready", "text/plain", b"the tea is ready"), ("", "text/plain", b""),
                                       (f"@{picture}", "image/png", bytes(range(256)))):
        code, _, err = cli("in", "15m", "--path", "/tea", "--data", data, "--content-type", content_type)
        assert code == 0, err
        sent = json.loads(agent.requests[-1][3])
        assert (base64.b64decode(sent["payload_base64"]), sent["content_type"]) == (wanted, content_type) and "payload" not in sent
    assert cli("in", "15m", "--path", "/tea", "--data", "the tea is ready")[0] == 0
    sent = json.loads(agent.requests[-1][3])
    assert (base64.b64decode(sent["payload_base64"]), sent["content_type"]) == (b"the tea is ready", "text/plain")
    asked = len(agent.requests)
    code, _, err = cli("in", "15m", "--path", "/tea", "--data", '{"tea": ready}')
    assert code == 2 and "--data" in err and "--content-type" in err and "its quotes" in err
    code, _, err = cli("in", "15m", "--path", "/tea", "--content-type", "text/plain")
    assert code == 2 and "--content-type needs --data" in err
    assert len(agent.requests) == asked


def test_apply_tells_created_updated_unchanged_and_failed(agent, cli):
    for job_id, before in (("same", '"u.3"'), ("changed", '"u.2"')):
        agent.on("GET", f"/v1/jobs/{job_id}", 200, JOB, ETag=before)
        agent.on("PUT", f"/v1/jobs/{job_id}", 200, JOB, ETag='"u.3"')
    agent.on("PUT", "/v1/jobs/new", 201, {**JOB, "warnings": ["mind the gap"]}, ETag='"u.1"')
    agent.on("PUT", "/v1/jobs/bad", 400, problem("invalid_job", "x", 400, [{"pointer": "#/schedule", "detail": "is wrong"}]))
    text = "---\nid: same\n---\nid: bad\nschedule: x\n---\n- id: changed\n- {id: new, namespace: team-b}\n- schedule: '@daily'\n"
    code, out, err = cli("job", "apply", "-f", "-", stdin=text)
    assert code == 1
    assert [line.split(":", 1)[0] + ":" + line.split(":")[1] for line in out.splitlines()] == \
        ["same: unchanged", "changed: updated", "new: created"]
    assert err == "bad: failed: 400 invalid_job: #/schedule: is wrong\nnew: warning: mind the gap\njob 5: failed: has no id\n"
    assert agent.requests[-1][2]["Carillon-Namespace"] == "team-b"
    code, out, _ = cli("job", "apply", "-f", "-", "--json", stdin="id: same")
    assert code == 0
    assert [(r["id"], r["result"]) for r in json.loads(out)] == [("same", "unchanged")]


def test_apply_dry_run_stores_nothing(agent, cli):
    agent.on("PUT", "/v1/jobs/a?dry_run=true", 200, {**JOB, "next": [{"due": "2999-01-02T00:00:00.000Z"}]})
    code, out, _ = cli("job", "apply", "-f", "-", "--dry-run", stdin='{"id":"a"}')
    assert code == 0 and out.startswith("a: valid: next due 2999-01-02T00:00:00Z")
    assert [r[1] for r in agent.requests] == ["/v1/jobs/a?dry_run=true"]


def test_apply_takes_its_file_also_without_f(agent, cli, folder):
    agent.on("PUT", "/v1/jobs/a?dry_run=true", 200, JOB)
    path = folder / "job.yaml"
    path.write_text("id: a\n")
    code, out, _ = cli("job", "apply", str(path), "--dry-run")
    assert code == 0 and out.startswith("a: valid")
    code, _, err = cli("job", "apply", str(path), "-f", str(path))
    assert code == 2 and "one file" in err
    assert cli("job", "apply")[0] == 2


def test_apply_without_an_agent_stops_at_the_first(cli):
    [port] = procs.free_ports(1)
    code, _, err = cli("job", "apply", "-f", "-", "--addr", f"127.0.0.1:{port}", stdin="[{id: a}, {id: b}]")
    assert code == 4 and err.count("no agent reached") == 1


def test_list_follows_pages_up_to_its_limit(agent, cli):
    jobs = [{**JOB, "id": f"j{i}"} for i in range(5)]
    agent.on("GET", "/v1/jobs?prefix=j&label=a%3Db&limit=1000", 200, {"jobs": jobs[:3], "next_cursor": "c/1"})
    agent.on("GET", "/v1/jobs?prefix=j&label=a%3Db&limit=1000&cursor=c%2F1", 200, {"jobs": jobs[3:], "next_cursor": None})
    code, out, _ = cli("job", "list", "--prefix", "j", "-l", "a=b", "--limit", "0")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["ID", "j0", "j1", "j2", "j3", "j4"]
    agent.on("GET", "/v1/jobs?limit=3", 200, {"jobs": jobs[:3], "next_cursor": "c"})
    code, out, err = cli("job", "list", "--limit", "3")
    assert code == 0 and "there are more than 3" in err
    code, out, _ = cli("job", "list", "--limit", "3", "--json")
    assert json.loads(out) == {"jobs": jobs[:3], "next_cursor": "c"}


def test_explain_follows_pages_and_tells_why(agent, cli):
    def due(minute, outcome, text):
        return {"due": f"2026-11-20T08:0{minute}:00.000Z", "local": f"2026-11-20T09:0{minute}:00+01:00", "fire": None,
                "outcome": outcome, "reason": None, "text": text}

    span = {"job": "a", "from": "2026-11-20T08:00:00.000Z", "to": "2026-11-20T09:00:00.000Z"}
    first = {**span, "occurrences": [due(0, "succeeded", "fired.")], "next_from": "2026-11-20T08:01:00.000Z"}
    rest = {**span, "occurrences": [due(1, None, "not known."), due(2, "future", "will be.")], "next_from": None}
    agent.on("GET", "/v1/jobs/a/explain?at=2026-11-20T09%3A00&limit=1000", 200, first)
    agent.on("GET", "/v1/jobs/a/explain?from=2026-11-20T08%3A01%3A00.000Z&to=2026-11-20T09%3A00%3A00.000Z&limit=1000", 200, rest)
    code, out, err = cli("job", "explain", "a", "--at", "2026-11-20T09:00", "--limit", "0")
    assert (code, err) == (0, "")
    assert [line.split(None, 2) for line in out.splitlines()] == [
        ["DUE", "OUTCOME", "WHY"], ["2026-11-20T09:00:00+01:00", "succeeded", "fired."],
        ["2026-11-20T09:01:00+01:00", "unknown", "not known."], ["2026-11-20T09:02:00+01:00", "future", "will be."]]
    code, out, _ = cli("job", "explain", "a", "--at", "2026-11-20T09:00", "--limit", "0", "--json")
    assert code == 0 and len(json.loads(out)["occurrences"]) == 3 and json.loads(out)["next_from"] is None
    agent.on("GET", "/v1/jobs/a/explain?limit=1", 200, first)
    code, _, err = cli("job", "explain", "a", "--limit", "1")
    assert code == 0 and "there are more than 1" in err
    assert cli("job", "explain", "a", "--at", "2026-11-20", "--to", "2026-11-21T00:00:00Z")[0] == 2
    assert cli("job", "explain", "gone")[0] == 3


def test_revisions_are_a_table(agent, cli):
    revision = {"version": 2, "at": "2026-11-20T08:00:00.000Z", "actor": "ann", "op": "pause", "state": "paused", "uid": "0" * 32,
                "fire": None}
    agent.on("GET", "/v1/jobs/a/revisions?limit=1", 200, {"revisions": [revision], "next_cursor": "9.9"})
    agent.on("GET", "/v1/jobs/a/revisions?limit=100", 200, {"revisions": [revision], "next_cursor": "9.9"})
    code, out, err = cli("job", "revisions", "a", "--limit", "1")
    assert code == 0 and "there are more than 1" not in out and "there are more than 1" in err
    assert out.splitlines()[1].split()[-5:] == ["pause", "ann", "2", "paused", "-"]
    agent.on("GET", "/v1/jobs/a/revisions?cursor=9.9&limit=99", 200, {"revisions": [{**revision, "op": "create"}], "next_cursor": None})
    code, out, _ = cli("job", "revisions", "a", "--json")
    assert [r["op"] for r in json.loads(out)["revisions"]] == ["pause", "create"]


FIRE = {"fire": "u.3", "job": "a", "namespace": "default", "service": "billing", "seq": 3, "due": "2026-11-20T08:00:00.000Z",
        "jitter_ms": 0, "started_at": "2026-11-20T08:00:00.002Z", "finished_at": "2026-11-20T08:00:01.500Z", "lateness_ms": 2,
        "outcome": "dead", "reason": "max_attempts", "next_attempt_at": None, "attempts": [
            {"attempt": 1, "at": "2026-11-20T08:00:00.002Z", "endpoint": "10.0.0.7:8080", "status": None, "duration_ms": 1,
             "error": "refused", "excerpt": None},
            {"attempt": 2, "at": "2026-11-20T08:00:01.490Z", "endpoint": "10.0.0.8:8080", "status": 503, "duration_ms": 10,
             "error": None, "excerpt": "not\x1b[2J today"}]}


@pytest.mark.parametrize("words, path, key, query", [
    (("fire", "list", "--outcome", "dead"), "/v1/fires", "fires", "outcome=dead&"),
    (("deadletter", "list"), "/v1/deadletters", "deadletters", "")])
def test_fires_and_dead_letters_are_listed_by_filter(agent, cli, words, path, key, query):
    query += "job=a&prefix=b&label=k%3Dv&label=l%3Dw&service=s&from=2026-11-20T00%3A00%3A00Z&to=2026-11-21T00%3A00%3A00Z"
    flags = ("--job", "a", "--prefix", "b", "-l", "k=v", "--label", "l=w", "--service", "s", "--from", "2026-11-20T00:00:00Z",
             "--to", "2026-11-21T00:00:00Z")
    agent.on("GET", f"{path}?{query}&limit=1000", 200, {key: [FIRE], "next_cursor": "c/1"})
    agent.on("GET", f"{path}?{query}&limit=1000&cursor=c%2F1", 200,
             {key: [{**FIRE, "outcome": "succeeded", "reason": None, "attempts": FIRE["attempts"][:1]}], "next_cursor": None})
    code, out, err = cli(*words, *flags, "--limit", "0")
    assert (code, err) == (0, "")
    head, dead, well = out.splitlines()
    assert head.split() == ["FIRE", "JOB", "DUE", "OUTCOME", "ATTEMPTS", "SERVICE", "LAST", "ERROR"]
    assert dead.startswith("u.3   a    2026-11-20T08:00:00Z (") and "  dead max_attempts  2         billing  status 503: not?[2J today" in dead
    assert well.split("ago)")[1].split() == ["succeeded", "1", "billing", "-"]
    code, out, _ = cli(*words, *flags, "--limit", "0", "--json")
    assert code == 0 and len(json.loads(out)[key]) == 2 and json.loads(out)["next_cursor"] is None
    agent.on("GET", f"{path}?{query[:query.index('job')]}limit=100", 200, {key: [], "next_cursor": None})
    assert cli(*words) == (0, "", "no fires\n" if key == "fires" else "no dead letters\n")


def test_fire_get_shows_every_attempt(agent, cli):
    agent.on("GET", "/v1/fires/u.3", 200, {**FIRE, "endpoints": [
        {"part": 1, "endpoint": "10.0.0.7:8080", "outcome": "gone", "status": None, "attempts": 1}]})
    code, out, _ = cli("fire", "get", "u.3")
    assert code == 0
    lines = [line.split(None, 1) for line in out.splitlines() if line]
    assert ["outcome", "dead max_attempts"] in lines and ["late", "by    2 ms"] in lines
    attempts = [line.split() for line in out.splitlines() if line and line[0].isdigit()]
    assert attempts == [["1", "2026-11-20T08:00:00.002Z", "10.0.0.7:8080", "-", "1", "ms", "refused"],
                        ["2", "2026-11-20T08:00:01.490Z", "10.0.0.8:8080", "503", "10", "ms", "not?[2J", "today"],
                        ["1", "10.0.0.7:8080", "gone", "-", "1"]]
    code, out, _ = cli("fire", "get", "u.3", "--json")
    assert code == 0 and json.loads(out)["attempts"] == FIRE["attempts"]
    code, _, err = cli("fire", "get", "u.9")
    assert code == 3 and err.endswith("hint: `carillon fire list` shows those that are kept\n")


def test_fires_are_retried_and_cancelled_one_by_one(agent, cli):
    for n in (1, 3):
        agent.on("POST", f"/v1/fires/u.{n}/retry", 202, {"fire": f"u.{n}", "outcome": "pending"})
    agent.on("POST", "/v1/fires/u.1/cancel", 409, problem("already_finished", "the fire has ended: succeeded", 409))
    agent.on("POST", "/v1/fires/u.3/cancel", 200, {"fire": "u.3", "outcome": "cancelled"})
    code, out, err = cli("fire", "retry", "u.1", "u.2", "u.3")
    assert (code, out) == (3, "u.1: will be tried now\nu.3: will be tried now\n") and "404 not_found" in err
    code, out, err = cli("fire", "cancel", "u.1", "u.3")
    assert (code, out) == (1, "u.3: cancelled\n")
    assert err == "carillon: 409 already_finished: the fire has ended: succeeded\n"
    assert all(r[3] == b"" and "Carillon-Client" in r[2] for r in agent.requests)


def test_dead_letters_are_changed_by_filter(agent, cli):
    agent.on("POST", "/v1/deadletters/redrive?service=s&rate=50", 200, {"redriven": 12})
    agent.on("POST", "/v1/deadletters/redrive?all=true&dry_run=true", 200, {"matched": 40})
    agent.on("DELETE", "/v1/deadletters?job=a", 200, {"discarded": 2})
    assert cli("deadletter", "redrive", "--service", "s", "--rate", "50") == (0, "12 sent once more\n", "")
    assert cli("deadletter", "redrive", "--all", "--dry-run") == (0, "40 match; nothing was changed\n", "")
    assert cli("deadletter", "discard", "--job", "a") == (0, "2 discarded\n", "")
    code, out, _ = cli("deadletter", "discard", "--job", "a", "--json")
    assert code == 0 and json.loads(out) == {"discarded": 2}
    asked = len(agent.requests)
    for what in ("redrive", "discard"):
        code, out, err = cli("deadletter", what, "--dry-run")
        assert (code, out) == (2, "") and "say which: --job" in err
    assert len(agent.requests) == asked


def test_backfill_and_forecast(agent, cli):
    span = {"from": "2026-11-20T00:00:00Z", "to": "2026-11-20T05:00:00Z"}
    agent.on("POST", "/v1/jobs/a/backfill", 202, {"job": "a", **span, "dues": 5})
    assert cli("job", "backfill", "a", "--from", span["from"], "--to", span["to"]) == (0, "a: 5 dues will be fired\n", "")
    assert json.loads(agent.requests[-1][3]) == span
    assert cli("job", "backfill", "a", "--from", span["from"])[0] == 2
    agent.on("GET", "/v1/forecast?ns=%2A&window=2h&step=1h", 200, {
        "from": "2026-11-20T08:00:00.000Z", "to": "2026-11-20T10:00:00.000Z", "step": "1h", "total": 7, "steps": [3, 4],
        "services": [{"service": "billing", "fires": [3, 2]}, {"service": None, "fires": [0, 2]}],
        "members": [{"member": "a1", "fires": [3, 4]}], "jobs": 9, "truncated": True})
    code, out, err = cli("forecast", "--window", "2h", "--step", "1h", "-A")
    assert code == 0 and err == "warning: only the first 9 jobs were looked at\n"
    assert [line.split() for line in out.splitlines()] == [
        ["FROM", "FIRES"], ["2026-11-20T08:00:00Z", "3"], ["2026-11-20T09:00:00Z", "4"], [], ["SERVICE", "FIRES"],
        ["billing", "5"], ["(by", "url)", "2"], [], ["MEMBER", "FIRES"], ["a1", "7"]]


def test_a_paused_job_is_not_due(agent, cli):
    paused = {**JOB, "status": {**JOB["status"], "state": "paused", "next_due": "2020-01-01T00:00:00.000Z"}}
    agent.on("GET", "/v1/jobs?limit=100", 200, {"jobs": [paused], "next_cursor": None})
    agent.on("GET", "/v1/jobs/a", 200, paused)
    assert "2020" not in cli("job", "list")[1] and "2020" not in cli("job", "get", "a")[1]


def test_several_ids_are_all_tried(agent, cli):
    agent.on("DELETE", "/v1/jobs/a", 200, {"result": "in_flight", "last_fire": None})
    agent.on("DELETE", "/v1/jobs/c", 200, {"result": "cancelled", "last_fire": None})
    code, out, err = cli("job", "delete", "a", "b", "c")
    assert code == 3
    assert out == "a: deleted; a callback is under way\nc: deleted\n"
    assert "404 not_found" in err
    agent.on("DELETE", "/v1/jobs?prefix=x&all=true", 200, {"deleted": 7})
    assert cli("job", "delete", "--prefix", "x", "--all")[:2] == (0, "7 deleted\n")
    agent.on("POST", "/v1/jobs/a/resume", 200, JOB)
    code, out, _ = cli("job", "resume", "a", "--catch-up", "last")
    assert code == 0 and out.startswith("a: active, next due ")
    assert json.loads(agent.requests[-1][3]) == {"catch_up": "last"}
    agent.on("POST", "/v1/jobs/a/pause", 200, {**JOB, "status": {**JOB["status"], "state": "paused"}})
    assert cli("job", "pause", "a")[:2] == (0, "a: paused\n")
    agent.on("POST", "/v1/jobs/a/run", 202, {"fire": "u.3"})
    assert cli("job", "run", "a", "--force", "-d", "1")[:2] == (0, "a: fire u.3\n")
    assert json.loads(agent.requests[-1][3]) == {"payload": 1, "force": True}


def test_export_and_import_pass_lines_through(agent, cli, folder):
    lines = b'{"op":"put","namespace":"default","id":"a","job":{}}\n{"op":"put","namespace":"default","id":"b","job":{}}\n'
    agent.on("GET", "/v1/export", 200, lines)
    agent.on("GET", "/v1/export?ns=*", 200, lines + lines)
    code, out, _ = cli("job", "export")
    assert code == 0 and out.encode() == lines
    path = folder / "jobs.ndjson"
    assert cli("job", "export", "-A", "-o", str(path))[0] == 0
    assert path.read_bytes() == lines + lines
    agent.on("POST", "/v1/bulk", 200, b'{"line":1,"status":201,"id":"a","version":1}\n'
             b'{"line":2,"status":400,"id":"b","problem":{"code":"invalid_job","detail":"no",'
             b'"errors":[{"pointer":"#/job/schedule","detail":"is required"}]}}\n{"done":true,"ok":1,"failed":1}\n')
    code, out, err = cli("job", "import", "-f", str(path))
    assert code == 1 and out == "1 imported, 1 failed\n"
    assert err == "carillon: line 2: b: 400 invalid_job #/job/schedule: is required\n"
    assert agent.requests[-1][2]["Content-Type"] == "application/x-ndjson"
    assert agent.requests[-1][3] == path.read_bytes()
    assert cli("job", "import", str(path)) == (code, out, err)
    assert cli("job", "import", str(path), "-f", str(path))[0] == 2
    code, out, _ = cli("job", "import", "-f", str(path), "--json")
    assert code == 1
    assert [json.loads(line) for line in out.splitlines()][-1] == {"done": True, "ok": 1, "failed": 1}


def test_import_fails_when_not_all_lines_were_answered(agent, cli, folder):
    """As by an agent that ends meanwhile."""
    path = folder / "jobs.ndjson"
    path.write_text('{"op":"put","id":"a","job":{}}\n{"op":"put","id":"b","job":{}}\n')
    agent.on("POST", "/v1/bulk", 200, b'{"line":1,"status":201,"id":"a","version":1}\n')
    code, out, err = cli("job", "import", "-f", str(path))
    assert (code, out) == (1, "1 imported, 0 failed\n")
    assert err == "carillon: the answer broke off: not all of lines 1 to 2 were taken\n"


def test_import_sends_large_files_in_pieces(agent, cli, folder):
    path = folder / "large.ndjson"
    line = json.dumps({"op": "put", "id": "a", "job": {"payload": "x" * 100000}}) + "\n"
    path.write_text(line * 200)
    agent.on("POST", "/v1/bulk", 200, b'{"line":1,"status":400,"problem":{"detail":"first of its piece"}}\n'
             b'{"done":true,"ok":0,"failed":1}\n')
    code, _, err = cli("job", "import", "-f", str(path))
    bodies = [r[3] for r in agent.requests]
    assert code == 1 and b"".join(bodies) == path.read_bytes()
    assert len(bodies) == 3 and max(map(len, bodies)) <= 8 << 20
    per_piece = bodies[0].count(b"\n")
    assert [int(e.split()[2].rstrip(":")) for e in err.splitlines()] == [1, per_piece + 1, 2 * per_piece + 1]


def test_cluster_and_service_are_tables(agent, cli):
    agent.on("GET", "/v1/cluster", 200, {
        "cluster": "c", "mode": "consul", "self": "a1.x", "members": [
            {"id": "a1.x", "name": "a1", "address": "h:1", "zone": "", "weight": 1, "version": "0.1.0", "state": "active",
             "config_digest": "0123456789abcdef", "slots": 4096, "started_at": "2020-01-01T00:00:00.000Z"}],
        "slots": {"total": 4096, "owned_here": 4096, "unowned": 0, "moving": 0},
        "store": {"driver": "mysql", "ok": False, "leader": None}, "consul": {"ok": True}})
    code, out, _ = cli("cluster", "status")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "cluster c (consul)  slots 4096, owned here 4096, unowned 0, moving 0  store mysql NOT OK  consul ok"
    assert lines[3].split()[:7] == ["a1", "*", "h:1", "active", "4096", "-", "1"]
    alone = {**json.loads(cli("cluster", "status", "--json")[1]), "mode": "standalone"}
    agent.answers.insert(0, ("GET", "/v1/cluster", 200, {}, alone))
    assert cli("cluster", "status")[1].splitlines()[0].endswith("store mysql NOT OK")
    agent.on("GET", "/v1/services/billing", 200, {
        "service": "billing", "policy": "p2c", "rate": 100, "rate_here": 33.3333, "in_flight": 2, "waiting": 7, "endpoints": [
        {"address": "h:1", "health": "passing", "weight": 2, "in_flight": 1, "latency_ms": 1.84, "failures": 0,
         "ejected_until": None}]})
    code, out, _ = cli("service", "get", "billing")
    assert code == 0 and out.splitlines()[:3] == [
        "service billing (p2c)", "from this agent: 2 in flight, 7 waiting", "at most 100 a second, 33.3333 of them from this agent"]
    assert out.splitlines()[4].split() == ["h:1", "passing", "2", "1", "1.8", "ms", "0", "-"]
    agent.on("GET", "/v1/cluster/owner/a", 200, {"id": "a", "namespace": "default", "slot": 8, "epoch": 3,
                                                 "owner": "a1.x", "name": "a1", "address": "h:1"})
    code, out, _ = cli("cluster", "owner", "a")
    assert code == 0 and ["slot", "8"] in [line.split() for line in out.splitlines()]


def test_the_sample_is_what_the_program_prints_and_is_correct(cli):
    sample = (ROOT / "configs/carillon.yaml").read_text()
    code, out, _ = cli("config", "sample")
    assert code == 0 and out == sample
    code, out, _ = cli("config", "check", str(ROOT / "configs/carillon.yaml"))
    assert code == 0 and out.endswith("carillon.yaml: ok\n")


# ---- sink

class Sink:
    def __init__(self, folder, *flags):
        [self.port] = procs.free_ports(1)
        self.process = procs.Process("sink", [binary(), "sink", "--listen", f"127.0.0.1:{self.port}", *flags], folder)
        self.process.start()
        procs.wait_until(lambda: procs.can_connect(self.port), 10, "sink ready", alive=[self.process])

    def call(self, attempt=1, due=None, timeout=30, path="/x", **headers):
        due = due or datetime.datetime.now(datetime.timezone.utc)
        return requests.post(f"http://127.0.0.1:{self.port}{path}", timeout=timeout, json={"n": 1}, headers={
            "ce-subject": "hello", "ce-id": "u.1", "ce-time": due.isoformat(timespec="milliseconds"),
            "Carillon-Attempt": str(attempt), "Carillon-Seq": "1", **headers}).status_code

    def lines(self):
        return [line for line in self.process.log_path.read_text().splitlines() if not line.startswith("sink listens")]

    def end(self, number=signal.SIGINT):
        self.process.popen.send_signal(number)
        return self.process.popen.wait(10)


@pytest.fixture(name="sink")
def sinks(folder):
    started = []

    def start(*flags):
        started.append(Sink(folder, *flags))
        return started[-1]

    yield start
    for one in started:
        one.process.end()


def test_sink_prints_a_line_for_each_callback(sink):
    one = sink()
    due = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=3)
    assert one.call(attempt=2, due=due) == 200
    assert requests.get(f"http://127.0.0.1:{one.port}/look?x=1", timeout=30).status_code == 200
    first, second = one.lines()
    assert first.startswith("callback job=hello fire=u.1 attempt=2 lateness_ms=") and first.endswith(" status=200")
    assert 3000 <= int(first.split("lateness_ms=")[1].split()[0]) < 60000
    assert second == "request method=GET path=/look status=200"
    assert one.end() == 0


def test_drain_tells_agents_and_nobody_else(cli):
    with subprocess.Popen([binary(), "sink", "--listen", "127.0.0.1:0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as other:
        try:
            for pid in [os.getpid(), other.pid]:
                code, out, err = cli("drain", f"--pid={pid}")
                assert (code, out) == (3, "") and f"process {pid} is no agent of this program" in err
            assert other.poll() is None
        finally:
            other.terminate()
    for argument in ["--pid=0", "--pid=x", "--wait=2h", "--wait=soon"]:
        code, _, err = cli("drain", argument)
        assert code == 2 and argument.split("=")[0] in err


def test_drain_finds_the_only_agent(folder):
    """As in a container; here a copy of the program is what tells its agents from those of other tests."""
    copy = shutil.copy(binary(), folder / "carillon")

    def drain():
        done = subprocess.run([copy, "drain"], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    agents = [Agent(name, folder) for name in ("first", "second")]
    assert drain() == (3, "carillon: no agent of this program and this user runs here\n")
    try:
        for agent in agents:
            agent.process.argv[0] = str(copy)
            agent.start(60)
        code, told = drain()
        assert code == 1 and "several agents run here" in told and "--pid" in told
        assert all(agent.ready() for agent in agents)
        agents[0].term()
        assert drain() == (0, "")
        procs.wait_until(lambda: not agents[1].ready(), 60, "it is ready no more")
        agents[1].put("served", {"schedule": "@daily", "callback": {"http": {"url": "http://127.0.0.1:1/x"}}})
        agents[1].term()
    finally:
        for agent in agents:
            agent.end()


def test_an_agent_says_that_it_does_not_reach_consul(folder):
    agent = Agent("early", folder, {"agent": {"role": "client"}, "cluster": {"mode": "consul"},
                                    "consul": {"address": "unix:///nowhere/consul.sock"}})
    try:
        agent.start(wait=False)
        told = 'msg="not usable yet, asked again until it is" address=/nowhere/consul.sock error='
        procs.wait_until(lambda: told in agent.process.log_text(), 60, "a line in the log")
        agent.term()
    finally:
        agent.end()


def test_sink_fails_as_it_is_told(sink):
    one = sink("--fail-first", "2", "--status", "202")
    assert [one.call(attempt=n) for n in (1, 2, 3)] == [500, 500, 202]
    assert sink("--fail-rate", "1").call() == 500
    assert [line.rsplit("=", 1)[1] for line in one.lines()] == ["500", "500", "202", "500"]  # they share a log


def test_sink_delays_and_hangs(sink):
    slow, stuck = sink("--delay", "300ms"), sink("--hang")
    begin = datetime.datetime.now()
    assert slow.call() == 200
    assert datetime.datetime.now() - begin >= datetime.timedelta(milliseconds=300)
    with pytest.raises(requests.exceptions.Timeout):
        stuck.call(timeout=0.3)
    procs.wait_until(lambda: stuck.lines()[-1].endswith("status=none"), 5, "the request is printed")
    assert stuck.end(signal.SIGTERM) == 0


def test_sink_prints_json(sink):
    one = sink("--json")
    assert one.call(path="/p") == 200
    [line] = map(json.loads, one.lines())
    assert line["job"] == "hello" and line["fire"] == "u.1" and line["seq"] == 1 and line["attempt"] == 1
    assert line["status"] == 200 and line["path"] == "/p" and line["method"] == "POST" and line["body"] == {"n": 1}


def test_sink_says_whether_a_signature_verified(sink, folder, cli):
    """Signed by the library of the standard."""
    keys = ["whsec_" + base64.b64encode(os.urandom(32)).decode() for _ in range(3)]
    path = folder / "signing.keys"
    path.write_text(f"# old and new\n* old {keys[0]}\nteam-b/billing new {keys[1]}\n")
    one = sink("--signing-keys-file", str(path))
    now = datetime.datetime.now(datetime.timezone.utc)
    body = '{"text":"Gr\u00fc\u00dfe"}'

    def send(key, at=now, data=body, **headers):
        signed = {"webhook-id": "u.1", "webhook-timestamp": str(int(at.timestamp())),
                  "webhook-signature": "v1,AAAA " + Webhook(key).sign("u.1", at, body), **headers}
        answer = requests.post(f"http://127.0.0.1:{one.port}/x", data=data.encode(), timeout=60,
                               headers={k: v for k, v in signed.items() if v})
        assert answer.status_code == 200
        return one.lines()[-1].rsplit(" signature=", 1)[1]

    assert [send(key) for key in keys] == ["verified", "verified", "wrong"]
    assert send(keys[0], data=body + " ") == "wrong"
    assert send(keys[0], **{"webhook-id": "u.2"}) == "wrong"
    assert send(keys[0], **{"webhook-timestamp": "soon"}) == "wrong"
    assert send(keys[0], **{"webhook-signature": None}) == "missing"
    assert send(keys[0], at=now - datetime.timedelta(days=1)) == "stale"
    path.write_text("# none\n")
    code, _, err = cli("sink", "--listen", "127.0.0.1:0", "--signing-keys-file", str(path))
    assert code == 1 and "holds no key" in err


def test_sink_completes_later(sink, agent):
    """At the agent when the key is a path, and until it can be taken; those that fail are completed so."""
    answers = iter([(503, {}, {}), (200, {}, {}), (200, {}, {})])
    agent.find = lambda method, path: next(answers)
    one = sink("--async", "--complete-after", "10ms", "--addr", agent.address, "--fail-first", "1")
    assert one.call() == 500, "nothing to complete"
    assert one.call(attempt=2, **{"Carillon-Complete": "/v1/fires/u.1/complete?key=2.ab"}) == 202
    procs.wait_until(lambda: len(agent.requests) == 2 and len(one.lines()) == 3, 60, "completed")
    assert one.call(**{"Carillon-Complete": f"http://{agent.address}/v1/fires/u.1/complete?key=1.cd"}) == 202
    procs.wait_until(lambda: len(one.lines()) == 5, 60, "completed as failed")
    assert [(r[0], r[1], json.loads(r[3])["status"]) for r in agent.requests] == [
        ("POST", "/v1/fires/u.1/complete?key=2.ab", "ok"), ("POST", "/v1/fires/u.1/complete?key=2.ab", "ok"),
        ("POST", "/v1/fires/u.1/complete?key=1.cd", "failed")]
    assert one.lines()[2] == "completed fire=u.1 status=ok answer=200"
    assert one.lines()[4] == "completed fire=u.1 status=failed answer=200"
    assert one.end() == 0


def test_sink_sends_heartbeats_before_it_completes(sink, agent):
    """Each again while no agent can take it; no more, and no completion, once the agent does not wait any longer."""
    answers = iter([(503, {}, {}), (200, {}, {"continue": True}), (200, {}, {"continue": True}), (200, {}, {}),
                    (200, {}, {"continue": False})])
    agent.find = lambda method, path: next(answers)
    one = sink("--async", "--complete-after", "10ms", "--heartbeats", "2", "--addr", agent.address)
    assert one.call(**{"Carillon-Complete": "/v1/fires/u.1/complete?key=1.ab"}) == 202
    procs.wait_until(lambda: len(one.lines()) == 4, 60, "completed")
    assert one.call(**{"Carillon-Complete": f"http://{agent.address}/v1/fires/u.1/complete?key=1.cd"}) == 202
    procs.wait_until(lambda: len(one.lines()) == 6, 60, "told to stop")
    beat, end = "/v1/fires/u.1/heartbeat?key=1.ab", "/v1/fires/u.1/complete?key=1.ab"
    assert [r[1] for r in agent.requests] == [beat, beat, beat, end, "/v1/fires/u.1/heartbeat?key=1.cd"]
    assert one.lines()[1] == one.lines()[2] == "heartbeat fire=u.1 continue=true answer=200"
    assert one.lines()[3] == "completed fire=u.1 status=ok answer=200"
    assert one.lines()[5] == "heartbeat fire=u.1 continue=false answer=200"
    assert one.end() == 0


def test_sink_refuses_a_taken_port(sink, cli):
    one = sink()
    code, _, err = cli("sink", "--listen", f"127.0.0.1:{one.port}")
    assert code == 1 and err.startswith("carillon: ")
