"""What an application does with jobs, on three agents: every request goes to an agent picked without regard to who owns
the job."""
import base64
import http.client
import itertools
import json
import re
import secrets
import time

import pytest
from lib.load import rfc3339
from lib.oracle import Verdict, deliveries, instant
from lib.procs import wait_until

STORES = ("mysql", "raft")

FIRE_HEADERS = {
    "ce-specversion": "1\\.0", "ce-id": "{uid}\\.{seq}", "ce-source": "/carillon/shared-{store}/default", "ce-subject": "{id}",
    "ce-type": "carillon\\.fire", "ce-time": "\\d{{4}}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{{3}}Z",
    "idempotency-key": '"{uid}\\.{seq}"', "carillon-attempt": "1", "carillon-seq": "{seq}", "carillon-epoch": "[1-9]\\d*",
    "carillon-deadline": "\\d{{4}}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{{3}}Z", "user-agent": "carillon/\\S+"}


@pytest.fixture
def name(three):
    """Of a job, or how the names of several begin; they go with the test."""
    made = f"j{secrets.token_hex(4)}"
    yield made
    three[0].ask("DELETE", f"/v1/jobs?prefix={made}", 200)


@pytest.fixture
def job(service):
    """job(schedule, …) with a callback to the test's callee."""
    def make(schedule="@after 1d", path="/hook", http=None, **rest):
        return {"schedule": schedule, "callback": {"http": {"service": service, "path": path, **(http or {})}}, **rest}
    return make


def test_job_created_on_any_agent_is_read_at_once_on_any_other(three, job, name):
    for n, (writer, reader) in enumerate(itertools.product(three, three)):
        made = writer.put(f"{name}-{n}", job())
        read = reader.get(f"{name}-{n}")
        assert read and read["status"]["uid"] == made["status"]["uid"]
    for agent in three:
        listed = [j["id"] for j in agent.list(prefix=name, limit=4)]
        assert listed == sorted(f"{name}-{n}" for n in range(9))


def test_post_without_id_lands_on_a_slot_of_the_agent_that_took_it(three, job):
    for agent in three * 7:
        made = agent.create(job())
        assert made["status"]["owner"] == agent.name
        assert agent.owner(made["id"])["name"] == agent.name


def test_callback_carries_every_header_and_the_exact_payload(three, store, job, name, callee):
    payload = {"z": 1, "a": [1.5, "ü\u0000", None], "big": 9007199254740993}
    bytes_ = bytes(range(256))
    made = three[0].put(f"{name}-json", job("@after 200ms", http={"headers": {"X-Team": "pay"}}, payload=payload))
    three[1].put(f"{name}-bytes", job("@after 200ms", payload_base64=base64.b64encode(bytes_).decode(),
                                     content_type="application/x-thing"))
    three[2].put(f"{name}-empty", job("@after 200ms", http={"method": "GET"}))
    records = {r["headers"]["ce-subject"]: r for r in callee.wait_for(3, 10)}
    first = records[f"{name}-json"]
    for header, pattern in FIRE_HEADERS.items():
        pattern = pattern.format(store=store, uid=made["status"]["uid"], seq=1, id=f"{name}-json")
        assert re.fullmatch(pattern, first["headers"].get(header, "")), (header, first["headers"])
    assert first["headers"]["x-team"] == "pay" and first["headers"]["content-type"] == "application/json"
    assert first["method"] == "POST" and first["path"] == "/hook"
    assert first["body"] == json.dumps(payload, separators=(",", ":"), ensure_ascii=False).replace("\u0000", "\\u0000")
    assert instant(first["headers"]["ce-time"]) == instant(made["status"]["next_due"])
    assert 15 < instant(first["headers"]["carillon-deadline"]) - first["wall"] <= 30
    second = records[f"{name}-bytes"]
    assert base64.b64decode(second["body_base64"]) == bytes_
    assert second["headers"]["content-type"] == "application/x-thing"
    third = records[f"{name}-empty"]
    assert third["method"] == "GET" and third["body"] == "" and "content-type" not in third["headers"]


def test_every_kind_of_schedule_fires_when_it_is_due(three, job, name, callee):
    at = time.time() + 3
    three[0].put(f"{name}-at", job(f"@at {rfc3339(at)}"))
    three[1].put(f"{name}-after", job("@after 1s"))
    three[2].put(f"{name}-every", job("@every 1s"))
    three[0].put(f"{name}-cron", job("* * * * * *"))
    three[1].put(f"{name}-union", job([f"@at {rfc3339(at)}", f"@at {rfc3339(at + 0.5)}"]))
    wanted = {f"{name}-at": 1, f"{name}-after": 1, f"{name}-every": 3, f"{name}-cron": 3, f"{name}-union": 2}

    def fired():
        jobs = [d.job for d in deliveries(callee.records())]
        return all(jobs.count(j) >= n for j, n in wanted.items())

    wait_until(fired, 15, "all have fired", interval=0.1)
    time.sleep(1)
    verdict = Verdict(callee.records()).report("schedules").check(repeats_allowed=False)
    by_job = {d.job: [e for e in verdict.deliveries if e.job == d.job] for d in verdict.deliveries}
    assert [round(d.due, 3) for d in by_job[f"{name}-at"]] == [int(at * 1000) / 1000]
    assert len(by_job[f"{name}-after"]) == 1 and len(by_job[f"{name}-union"]) == 2
    assert all(d.due == int(d.due) for d in by_job[f"{name}-cron"])
    assert verdict.lateness()[-1] < 10000


def test_one_shot_is_done_and_readable_until_its_ttl_is_over(three, job, name, callee):
    three[0].put(name, job("@after 100ms", ttl_after_done="4s"))
    callee.wait_for(1, 10)
    done = wait_until(lambda: (j := three[1].get(name)) and j["status"]["state"] == "done" and j, 5, "job done")
    assert done["status"]["next_due"] is None
    assert done["status"]["counts"] == {"seq": 1, "succeeded": 1, "dead": 0, "skipped": 0, "coalesced": 0, "cancelled": 0,
                                        "pending": 0}
    assert done["status"]["last_fire"]["outcome"] == "succeeded"
    wait_until(lambda: three[2].get(name) is None, 20, "job gone after its ttl", interval=0.2)
    assert callee.count() == 1


def test_writes_replace_patch_and_keep_versions(three, job, name):
    a, b, c = three
    made = a.put(name, job(labels={"team": "pay"}, payload={"n": 1}))
    assert made["status"]["version"] == 1
    same = b.put(name, job(labels={"team": "pay"}, payload={"n": 1}, schedule=made["schedule"]))
    assert (same["status"]["uid"], same["status"]["version"]) == (made["status"]["uid"], 1)
    answer = c.call("GET", f"/v1/jobs/{name}")
    etag = answer.headers["ETag"]
    assert etag == f'"{made["status"]["uid"]}.1"'
    for text, status in ((etag, 304), (f"W/{etag}", 304), (f'"x", {etag}', 304), ("*", 304), (etag.replace(".1", ".2"), 200), ("x", 200), ("", 200)):
        assert a.call("GET", f"/v1/jobs/{name}", headers={"If-None-Match": text}).status_code == status, text
    # GET, edit, PUT works.
    body = answer.json()
    body["payload"] = {"n": 2}
    assert b.put(name, body)["status"]["version"] == 2
    patched = c.patch(name, {"payload": {"m": 1}, "labels": {"team": None, "tier": "1"}})
    assert patched["payload"] == {"m": 1} and patched["labels"] == {"tier": "1"} and patched["status"]["version"] == 3
    merge = a.call("PATCH", f"/v1/jobs/{name}", data=b'{"description":"x"}',
                   headers={"Content-Type": "application/merge-patch+json", "If-Match": f'"{made["status"]["uid"]}.3"'})
    assert merge.status_code == 200 and merge.json()["status"]["version"] == 4
    for method, kwargs in (("PUT", {"json": job()}), ("PATCH", {"json": {}}), ("DELETE", {})):
        stale = b.call(method, f"/v1/jobs/{name}", headers={"If-Match": etag}, **kwargs)
        assert (stale.status_code, stale.json()["code"]) == (412, "version_mismatch"), method
    assert c.call("PUT", f"/v1/jobs/{name}", json=job(), headers={"If-None-Match": "*"}).status_code == 412
    assert a.call("PUT", f"/v1/jobs/{name}-absent", json=job(), headers={"If-Match": etag}).status_code == 412
    again = b.call("POST", "/v1/jobs", json={**job(), "id": name})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")
    assert c.delete(name)["result"] in ("cancelled", "in_flight", "finished")
    assert a.get(name) is None
    assert b.call("DELETE", f"/v1/jobs/{name}").status_code == 404
    reborn = a.put(name, job())
    assert reborn["status"]["uid"] != made["status"]["uid"] and reborn["status"]["version"] == 1


def test_an_instant_that_has_passed_stands_in_nobodys_way(three, job, name, callee):
    """Of a job whose other dues go on: GET, edit, PUT and what else leaves the instant as it was. It does not come again."""
    soon = rfc3339(time.time() + 2)
    made = three[0].put(name, job(["0 9 1 1 *", f"@at {soon}"]))
    callee.wait_for(1, 60)
    wait_until(lambda: three[0].get(name)["status"]["counts"]["succeeded"] == 1, 60, "its end")
    edits = ({"jitter": "5s"}, {"timezone": "Europe/Berlin"}, {"ends_at": "2190-01-01T00:00:00Z"},
             {"schedule": ["0 10 1 1 *", made["schedule"][1]]}, {"payload": 1})
    for n, edit in enumerate(edits):
        agent, body = three[n % 3], {**three[n % 3].get(name), **edit}
        shown = agent.put(name, body, dry_run="true")
        assert all(due["due"] > soon for due in shown["next"])
        if n % 2:
            agent.patch(name, edit)
        else:
            agent.put(name, body)
        agent.bulk([{"op": "put", "id": name, "job": body}])
        assert three[(n + 1) % 3].get(name)["status"]["version"] == n + 2
    other = job([*body["schedule"], "@at " + rfc3339(time.time() - 60)])
    for method, path, body in (("PUT", name, other), ("PUT", name + "-absent", body), ("PATCH", name, other)):
        for params in ({}, {"dry_run": "true"}):
            answer = three[1].call(method, f"/v1/jobs/{path}", json={**body, "id": path}, params=params)
            assert (answer.status_code, answer.json()["code"]) == (400, "due_in_past"), f"{method} {path}: {answer.text}"
    assert three[0].get(name + "-absent") is None
    assert three[0].get(name)["status"]["counts"]["seq"] == 1 and callee.count() == 1
    # What is exported can be written where the job is gone.
    three[1].ask("POST", f"/v1/jobs/{name}/pause", 200, headers={"Carillon-Client": "it"})
    line = json.loads(three[2].call("GET", "/v1/export", params={"prefix": name}).text)
    assert line["job"]["schedule"] == ["0 10 1 1 *"] and line["job"]["payload"] == 1 and line["job"]["paused"]
    three[1].delete(name)
    three[2].bulk([line])
    assert three[0].get(name)["status"]["state"] == "paused"


def test_idempotent_post_makes_one_job_wherever_it_is_repeated(three, job, name):
    body = job(payload=name)
    answers = [agent.call("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": name}) for agent in three * 2]
    assert {a.status_code for a in answers} <= {200, 201}, [a.text for a in answers]
    assert len({a.json()["status"]["uid"] for a in answers}) == 1
    other = three[1].call("POST", "/v1/jobs", json={**body, "payload": "other"}, headers={"Idempotency-Key": name})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_dry_run_stores_nothing_and_shows_what_would_be(three, job, name):
    for method, path in (("POST", "/v1/jobs"), ("PUT", f"/v1/jobs/{name}")):
        shown = three[0].ask(method, path, 200, json=job("0 9 * * MON-FRI", timezone="Europe/Berlin", **(
            {"id": name} if method == "POST" else {})), params={"dry_run": "true", "count": 3})
        assert len(shown["next"]) == 3 and all(n["local"][11:16] == "09:00" for n in shown["next"])
        assert isinstance(shown["warnings"], list)
    assert all(agent.get(name) is None for agent in three)


def test_next_dues_of_a_job_follow_its_zone(three, job, name):
    three[0].put(name, job("30 2 * * *", timezone="Europe/Berlin"))
    shown = three[1].ask("GET", f"/v1/jobs/{name}/next?count=3&from=2026-03-28T00:00:00Z", 200)
    assert shown["job"] == name and shown["timezone"] == "Europe/Berlin"
    assert [(n["due"], n["note"]) for n in shown["next"]] == [
        ("2026-03-28T01:30:00.000Z", None), ("2026-03-29T01:30:00.000Z", "dst_gap"), ("2026-03-30T00:30:00.000Z", None)]


def test_pause_resume_and_run(three, job, name, callee):
    a, b, c = three
    a.put(name, job("@every 1s"))
    callee.wait_for(1, 5)
    assert b.ask("POST", f"/v1/jobs/{name}/pause", 200)["status"]["state"] == "paused"
    wait_until(lambda: not c.get(name)["status"]["counts"]["pending"], 10, "the last callback has ended")
    callee.clear()
    time.sleep(2.2)
    assert callee.count() == 0
    run = c.ask("POST", f"/v1/jobs/{name}/run", 202, json={"payload": {"by": "hand"}})
    [record] = callee.wait_for(1, 5)
    assert record["headers"]["ce-id"] == run["fire"] and json.loads(record["body"]) == {"by": "hand"}
    assert a.ask("POST", f"/v1/jobs/{name}/resume", 200, json={"catch_up": "none"})["status"]["state"] == "active"
    callee.wait_for(3, 6)
    counts = wait_until(lambda: (k := b.get(name)["status"]["counts"])["skipped"] and k, 5, "skipped dues counted")
    assert sum(counts[k] for k in counts if k != "seq") == counts["seq"], counts


def test_bulk_results_in_order_and_export_is_its_own_input(three, job, name):
    a, b, c = three
    lines = [{"op": "create", "id": f"{name}-{n}", "job": job(payload=n)} for n in range(50)]
    lines[7]["job"]["schedule"] = "99 * * * *"
    lines[9] = {"op": "patch", "id": f"{name}-absent", "job": {}}
    body = "".join(json.dumps(line) + "\n" for line in lines) + "no json\n"
    answer = a.call("POST", "/v1/bulk", data=body.encode(), headers={"Content-Type": "application/x-ndjson"})
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert results.pop() == {"done": True, "ok": 48, "failed": 3}
    assert [r["line"] for r in results] == list(range(1, 52))
    assert (results[7]["status"], results[7]["problem"]["code"]) == (400, "invalid_job")
    assert (results[9]["status"], results[9]["problem"]["code"]) == (404, "not_found")
    assert results[50]["status"] == 400 and results[0]["status"] == 201
    exported = [line for line in b.call("GET", "/v1/export").text.splitlines() if json.loads(line)["id"].startswith(name)]
    assert len(exported) == 48
    assert a.ask("DELETE", f"/v1/jobs?prefix={name}-", 200) == {"deleted": 48}
    assert not c.list(prefix=f"{name}-")
    again = c.call("POST", "/v1/bulk", data="\n".join(exported).encode() + b"\n",
                   headers={"Content-Type": "application/x-ndjson"})
    assert json.loads(again.text.splitlines()[-1]) == {"done": True, "ok": 48, "failed": 0}, again.text[-300:]
    assert [j["payload"] for j in a.list(prefix=f"{name}-")] == [
        int(i.rsplit("-", 1)[1]) for i in sorted(f"{name}-{n}" for n in range(50) if n not in (7, 9))]


def test_bulks_of_other_agents_leave_room_for_those_of_clients(clusters, shared_consul, shared_mariadb, proxies):
    """Chunks of one bulk that come from another agent are four at a time, as many as clients may send to this one."""
    cluster = clusters(shared_consul, shared_mariadb)
    link = proxies(shared_mariadb.port)
    a = cluster.agent(mysql_port=link.port).start(wait=False)
    b = cluster.agent().start(wait=False)
    for agent in (a, b):
        agent.wait_ready()
    cluster.wait_settled()
    kind = {"Content-Type": "application/x-ndjson"}
    lines = "".join(json.dumps({"op": "create", "id": f"room-{n}", "job": {
        "schedule": "@after 1d", "callback": {"http": {"service": "x", "path": "/"}}}}) + "\n" for n in range(5000))
    taken = 'carillon_api_duration_seconds_count{route="/v1/bulk",code="200"}'
    link.stall()  # what a is asked to write waits
    with b.call("POST", "/v1/bulk", data=lines.encode(), headers=kind, stream=True):
        wait_until(lambda: a.metrics().get(taken, 0) >= 4, 60, "four chunks at the other agent", interval=0.02)
        with a.call("POST", "/v1/bulk", data=lines.encode(), headers=kind, stream=True) as answer:
            assert answer.status_code == 200
    link.heal()


@pytest.mark.parametrize("how", ["query", "header"])
def test_a_bulks_namespace_is_that_of_its_lines_whoever_owns_them(three, job, name, how):
    ns = f"{how}-{name}"[:60]
    target, headers = (f"/v1/bulk?ns={ns}", {}) if how == "query" else ("/v1/bulk", {"Carillon-Namespace": ns})
    lines = [{"op": "create", "id": f"{name}-{n}", "job": job()} for n in range(60)]
    lines.append({"op": "create", "id": f"{name}-elsewhere", "namespace": "other", "job": job()})
    answer = three[0].call("POST", target, data="".join(json.dumps(line) + "\n" for line in lines),
                           headers={"Content-Type": "application/x-ndjson", **headers})
    assert json.loads(answer.text.splitlines()[-1]) == {"done": True, "ok": 61, "failed": 0}, answer.text[:500]
    owners = {j["status"]["owner"] for j in three[1].ask("GET", f"/v1/jobs?ns={ns}&limit=1000", 200)["jobs"]}
    assert len(owners) == 3, "lines of several owners"
    assert not three[1].list(prefix=f"{name}-")
    assert three[2].ask("DELETE", f"/v1/jobs?ns={ns}&all=true", 200) == {"deleted": 60}
    assert three[2].ask("DELETE", f"/v1/jobs?ns=other&prefix={name}-", 200) == {"deleted": 1}


def test_list_filters_and_pages(three, job, name):
    a, b, _ = three
    a.bulk({"op": "create", "id": f"{name}-{n:02}", "job": job(labels={"of": name, "parity": str(n % 2)})}
           for n in range(25))
    pages = list(b.pages(prefix=f"{name}-", limit=10))
    assert [len(p) for p in pages] == [10, 10, 5]
    assert [j["id"] for p in pages for j in p] == [f"{name}-{n:02}" for n in range(25)]
    odd = b.ask("GET", f"/v1/jobs?label=of={name}&label=parity=1&limit=1000", 200)["jobs"]
    assert [j["id"] for j in odd] == [f"{name}-{n:02}" for n in range(1, 25, 2)]
    assert b.list(prefix=f"{name}-", state="done") == []
    assert a.ask("DELETE", f"/v1/jobs?label=of={name}", 200) == {"deleted": 25}


def test_namespaces_are_apart(three, job, name):
    three[0].put(name, job(payload=1))
    three[1].put(name, job(payload=2), ns="other")
    assert three[2].get(name)["payload"] == 1 and three[2].get(name, ns="other")["payload"] == 2
    assert three[0].call("GET", f"/v1/jobs/{name}", headers={"Carillon-Namespace": "other"}).json()["payload"] == 2
    three[2].delete(name, ns="other")
    assert three[0].get(name)["payload"] == 1


def test_deleted_and_changed_jobs_do_not_fire_under_the_old_rules(three, job, name, callee):
    for n in range(30):
        three[n % 3].put(f"{name}-{n}", job("@every 1s"))
    callee.wait_for(40, 10)
    for n in range(30):
        if n % 2:
            three[(n + 1) % 3].delete(f"{name}-{n}")
        else:
            three[(n + 1) % 3].patch(f"{name}-{n}", {"callback": {"http": {"path": "/new"}}})
    changed = time.time()

    def due_later():
        return [r for r in callee.records() if instant(r["headers"]["ce-time"]) > changed]

    wait_until(lambda: len(due_later()) >= 30, 15, "each that is left fires twice", interval=0.1)
    late = [r for r in due_later() if r["path"] != "/new"]
    assert not late, late[:3]


def test_a_repeated_run_is_the_same_fire(three, job, name):
    three[0].put(name, job())
    answers = [agent.call("POST", f"/v1/jobs/{name}/run", headers={"Idempotency-Key": f"k-{name}"}) for agent in three * 2]
    assert [a.status_code for a in answers] == [202] * 6
    assert {a.text for a in answers} == {answers[0].text} and re.search(r'"fire":"[0-9a-f]{32}\.1"', answers[0].text)
    assert answers[0].text.endswith("}\n"), "answers end their line"


def test_a_key_of_a_run_is_for_one_payload(three, job, name):
    def run(agent, key, **body):
        return agent.call("POST", f"/v1/jobs/{name}/run", headers={"Idempotency-Key": f"{key}-{name}"}, **({"json": body} if body else {}))

    three[0].put(name, job("@after 1d"))
    plain, given = run(three[0], "plain"), run(three[0], "given", payload={"a": 1})
    for agent in three:
        assert (run(agent, "plain").text, run(agent, "given", payload={"a": 1}).text) == (plain.text, given.text)
        for other in (run(agent, "plain", payload={"a": 1}), run(agent, "given", payload={"a": 2}), run(agent, "given")):
            assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch"), other.text
    assert three[1].get(name)["status"]["counts"]["seq"] == 2
    three[1].delete(name)
    three[2].put(name, job("@after 1d"))
    assert run(three[0], "plain").text == plain.text, "the fire of the job that had the name then"


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def trace_of(record):
    """(trace id, span id, flags, tracestate) of a callback."""
    found = re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])", record["headers"]["traceparent"])
    assert found, record["headers"]
    return *found.groups(), record["headers"]["tracestate"]


def put_in_trace(agent, job_id, definition, *headers):
    """With http.client, since a header may be there twice."""
    connection = http.client.HTTPConnection(agent.address, timeout=15)
    body = json.dumps(definition).encode()
    connection.putrequest("PUT", f"/v1/jobs/{job_id}")
    for key, value in [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers]:
        connection.putheader(key, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    made = json.loads(answer.read())
    connection.close()
    assert answer.status in (200, 201), made
    return made


def test_callbacks_of_a_job_made_in_a_trace_are_traces_of_their_own(three, job, name, callee):
    a, b, c = three
    callee.behave({"path": "/twice", "times": 1, "status": 503})
    definition = job("@every 1s", path="/twice", retry={"min_backoff": "50ms", "jitter": 0})
    for agent in three:  # two of them send it on
        put_in_trace(agent, f"{name}-{agent.name}", definition, ("traceparent", PARENT), ("tracestate", "a=1 ,b=2"),
                     ("TraceState", "c=3"))
    bulk = a.call("POST", "/v1/bulk", headers={"Content-Type": "application/x-ndjson", "traceparent": PARENT[:-1] + "0"},
                  data="".join(json.dumps({"op": "put", "id": f"{name}-bulk{n}", "job": job("@after 100ms")}) + "\n"
                               for n in range(9)))
    assert '"done":true,"ok":9' in bulk.text
    put_in_trace(b, f"{name}-wrong", job("@after 100ms"), ("traceparent", PARENT.replace("-01", "-0x")), ("tracestate", "a=1"))
    c.put(f"{name}-none", job("@after 100ms"))

    records = wait_until(lambda: (r := callee.records()) and len(r) >= 20 and r, 20, "20 callbacks")
    by_fire = {}
    for record in records:
        job_id = record["headers"]["ce-subject"]
        if job_id in (f"{name}-wrong", f"{name}-none"):
            assert "traceparent" not in record["headers"] and "tracestate" not in record["headers"]
            continue
        trace, span, flags, state = trace_of(record)
        if "-bulk" in job_id:
            assert (flags, state) == ("00", f"carillon={PARENT[:-1]}0")
        else:
            assert (flags, state) == ("01", f"carillon={PARENT},a=1,b=2,c=3")
        by_fire.setdefault(record["headers"]["ce-id"], []).append((trace, span))
    assert all(len({t for t, _ in attempts}) == 1 and len({s for _, s in attempts}) == len(attempts)
               for attempts in by_fire.values()), by_fire
    assert any(len(attempts) > 1 for attempts in by_fire.values())
    traces = {attempts[0][0] for attempts in by_fire.values()}
    assert len(traces) == len(by_fire) and PARENT[3:35] not in traces


def test_a_write_in_another_trace_changes_nothing_and_shows_nowhere(three, job, name):
    a, b, _ = three
    made = put_in_trace(a, name, job(), ("traceparent", PARENT))
    again = put_in_trace(b, name, {**job(), "schedule": made["schedule"]}, ("traceparent", PARENT.replace("4b", "5b")))
    assert again["status"]["version"] == made["status"]["version"] == 1
    for text in (json.dumps(made), a.call("GET", f"/v1/jobs/{name}").text, a.call("GET", "/v1/export").text):
        assert name in text and "4bf92f" not in text and "5bf92f" not in text
