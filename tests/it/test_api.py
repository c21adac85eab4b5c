"""The HTTP contract against real agents: any agent answers any request, and refuses what it should."""
import itertools
import json
import re
import time

import pytest
import requests
import yaml

from lib import procs
from lib.carillon import Cluster

FAR = "0 9 1 1 *"


def job(job_id=None, schedule=FAR, **extra):
    body = {"schedule": schedule, "callback": {"http": {"url": "http://10.9.9.9:1/hook"}}, **extra}
    return {"id": job_id, **body} if job_id else body


@pytest.fixture(scope="module")
def cluster(shared_consul, shared_mariadb):
    made = Cluster(shared_consul, shared_mariadb, name="api", folder=procs.make_folder("carillon-it-api-"))
    made.start(3)
    yield made
    made.end()


def problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["code"] == code and document["status"] == status, document
    assert document["instance"] == answer.headers["Carillon-Request"]
    return document


def test_a_dry_run_tells_of_a_service_that_nobody_lists(cluster):
    """Of one that nobody asked for before: it waits a moment for what Consul says."""
    names = (f"ghost-{n}" for n in itertools.count())

    def warned():
        body = job(callback={"http": {"service": next(names), "path": "/"}})
        answer = cluster.agents[0].ask("PUT", "/v1/jobs/ghost?dry_run=true", 200, json=body)
        return any("neither Consul nor" in w for w in answer["warnings"])
    procs.wait_until(warned, 60, "it warns", interval=0.1)


def test_a_job_made_on_any_agent_is_seen_and_changed_on_every_other(cluster):
    a, b, c = cluster.agents
    for maker in cluster.agents:
        made = maker.create(job(f"seen-{maker.name}", labels={"team": "x"}))
        assert made["status"]["version"] == 1 and made["warnings"] == []
        for reader in cluster.agents:
            assert reader.get(f"seen-{maker.name}")["status"]["uid"] == made["status"]["uid"]
    changed = b.patch("seen-" + a.name, {"labels": {"team": None, "color": "red"}})
    assert changed["labels"] == {"color": "red"} and changed["status"]["version"] == 2
    assert c.put("seen-" + a.name, changed)["status"]["version"] == 2  # GET, edit, PUT; nothing changed
    assert c.delete("seen-" + a.name) == {"result": "cancelled", "last_fire": None}
    assert [agent.get("seen-" + a.name) for agent in cluster.agents] == [None] * 3


def test_a_job_without_id_falls_to_the_agent_that_took_it(cluster):
    for agent in cluster.agents:
        answer = agent.call("POST", "/v1/jobs", json=job())
        made = answer.json()
        assert answer.status_code == 201 and answer.headers["Location"] == f"/v1/jobs/{made['id']}"
        assert agent.owner(made["id"])["name"] == agent.name == made["status"]["owner"]


def test_conditions(cluster):
    agent = cluster.agents[0]
    for n in range(6):  # own slots and others'
        path = f"/v1/jobs/cond-{n}"
        first = agent.call("PUT", path, json=job(), headers={"If-None-Match": "*"})
        assert first.status_code == 201
        etag = first.headers["ETag"]
        problem(agent.call("PUT", path, json=job(), headers={"If-None-Match": "*"}), 412, "version_mismatch")
        assert agent.call("GET", path, headers={"If-None-Match": etag}).status_code == 304
        second = agent.call("PATCH", path, json={"description": "x"}, headers={"If-Match": etag})
        assert second.status_code == 200 and second.headers["ETag"] != etag, (n, etag, second.text)
        problem(agent.call("DELETE", path, headers={"If-Match": etag}), 412, "version_mismatch")
        problem(agent.call("PUT", path + "-absent", json=job(), headers={"If-Match": etag}), 412, "version_mismatch")
        problem(agent.call("PUT", path, json=job(), headers={"If-Match": '"abc"'}), 412, "version_mismatch")
        problem(agent.call("PUT", path, json=job(), headers={"If-Match": "abc"}), 400, "invalid_request")
        problem(agent.call("PUT", path + "-absent", json=job(), headers={"If-Match": "*"}), 412, "version_mismatch")
        assert agent.call("PUT", path + "?dry_run=true", json=job(), headers={"If-Match": "*"}).status_code == 200
        problem(agent.call("POST", "/v1/jobs", json=job(f"cond-{n}")), 409, "already_exists")
        assert agent.call("DELETE", path, headers={"If-Match": second.headers["ETag"]}).status_code == 200


def test_a_repeated_key_gets_the_first_answer(cluster):
    a, b, _ = cluster.agents
    headers = {"Idempotency-Key": "order-17"}
    first = a.call("POST", "/v1/jobs", json=job(schedule="@after 7d"), headers=headers)
    again = b.call("POST", "/v1/jobs", json=job(schedule="@after 7d"), headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["status"]["uid"] == again.json()["status"]["uid"]
    problem(a.call("POST", "/v1/jobs", json=job(schedule="@after 8d"), headers=headers), 422, "idempotency_mismatch")


def test_dry_runs_store_nothing_and_show_what_would_be(cluster):
    for agent in cluster.agents:
        shown = agent.ask("POST", "/v1/jobs?dry_run=true&count=3&from=2026-10-20T00:00:00Z", 200,
                          json=job("dry", "30 2 * * SUN", timezone="Europe/Berlin"))
        assert [n["due"] for n in shown["next"]] == ["2026-10-25T00:30:00.000Z", "2026-11-01T01:30:00.000Z",
                                                     "2026-11-08T01:30:00.000Z"]
        assert shown["next"][0]["note"] == "dst_repeat" and shown["next"][0]["local"] == "2026-10-25T02:30:00+02:00"
        assert agent.get("dry") is None
    agent.create(job("dry-there", "@every 90s"))
    shown = agent.ask("PATCH", "/v1/jobs/dry-there?dry_run=true", 200, json={"schedule": "@every 2m"})
    assert shown["schedule"] == "@every 2m" and agent.get("dry-there")["schedule"] == "@every 90s"
    problem(agent.call("POST", "/v1/jobs?dry_run=true", json=job("dry-there")), 409, "already_exists")
    problem(agent.call("PATCH", "/v1/jobs/dry?dry_run=true", json={}), 404, "not_found")


def test_the_phase_of_a_replaced_interval_stays(cluster):
    agent = cluster.agents[0]
    phase = agent.put("phase", job(schedule="@every 1h"))["status"]["phase"]
    time.sleep(0.05)
    again = cluster.agents[1].put("phase", job(schedule="@every 1h"))
    assert again["status"]["version"] == 1
    changed = cluster.agents[2].put("phase", job(schedule="@every 2h"))
    assert changed["status"]["version"] == 2 and changed["status"]["phase"] == phase


def test_next_pause_resume_and_run(cluster):
    a, b, c = cluster.agents
    a.create(job("ops", "0 12 * * *"))
    due = b.ask("GET", "/v1/jobs/ops/next?count=2&from=2030-01-01T00:00:00Z", 200)
    assert [n["due"] for n in due["next"]] == ["2030-01-01T12:00:00.000Z", "2030-01-02T12:00:00.000Z"]
    for agent in cluster.agents:
        assert agent.ask("POST", "/v1/jobs/ops/pause", 200)["status"]["state"] == "paused"
        assert agent.ask("POST", "/v1/jobs/ops/resume", 200, json={"catch_up": "last"})["status"]["state"] == "active"
        fire = agent.ask("POST", "/v1/jobs/ops/run", 202, json={"payload": {"n": 1}})["fire"]
        assert agent.ask("GET", f"/v1/fires/{fire}", 200)["job"] == "ops"
    assert [f["seq"] for f in c.ask("GET", "/v1/jobs/ops/fires", 200)["fires"]] == [3, 2, 1]
    page = c.ask("GET", "/v1/jobs/ops/fires?limit=2", 200)
    rest = c.ask("GET", f"/v1/jobs/ops/fires?limit=2&cursor={page['next_cursor']}", 200)
    assert [f["seq"] for f in page["fires"] + rest["fires"]] == [3, 2, 1] and rest["next_cursor"] is None


def test_lists_page_by_key_and_filter(cluster):
    agent = cluster.agents[1]
    ids = [f"page-{n:03}" for n in range(25)]
    agent.bulk([{"op": "put", "id": i, "job": job(labels={"odd": str(int(i[-1]) % 2)})} for i in ids])
    pages = list(agent.pages(prefix="page-", limit=10))
    assert [j["id"] for page in pages for j in page] == ids and [len(p) for p in pages if p] == [10, 10, 5]
    odd = cluster.agents[2].list(prefix="page-", label="odd=1")
    assert [j["id"] for j in odd] == [i for i in ids if int(i[-1]) % 2]
    assert agent.list(prefix="page-", state="done") == []
    problem(agent.call("GET", "/v1/jobs?cursor=nonsense"), 400, "invalid_request")
    assert agent.ask("DELETE", "/v1/jobs?prefix=page-", 200) == {"deleted": 25}
    assert agent.list(prefix="page-") == []


def test_bulk_answers_every_line_in_order_and_a_bad_line_spoils_only_itself(cluster):
    agent = cluster.agents[0]
    lines = []
    for n in range(300):
        lines.append({"op": "create", "id": f"bulk-{n}", "job": job()})
    lines.insert(100, {"op": "create", "id": "bulk-bad", "job": job(schedule="61 * * * *")})
    lines.insert(200, "{nonsense")
    lines += [{"op": "patch", "id": "bulk-7", "job": {"description": "1"}}, {"op": "pause", "id": "bulk-7"},
              {"op": "delete", "id": "bulk-7"}, {"op": "create", "id": "bulk-7", "job": job()},
              {"op": "create", "id": "bulk-7", "job": job()}, {"op": "delete", "id": "bulk-none"}]
    body = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    answer = agent.call("POST", "/v1/bulk", data=body, headers={"Content-Type": "application/x-ndjson"})
    results = [json.loads(line) for line in answer.text.splitlines()]
    done = results.pop()
    assert [r["line"] for r in results] == list(range(1, len(lines) + 1))
    bad = {r["line"]: r for r in results if r["status"] >= 400}
    assert sorted(bad) == [101, 201, 307, 308], bad
    assert bad[101]["problem"]["code"] == "invalid_job" and bad[201]["problem"]["code"] == "invalid_request"
    assert bad[307]["problem"]["code"] == "already_exists" and bad[308]["problem"]["code"] == "not_found"
    assert [r["status"] for r in results[302:306]] == [200, 200, 200, 201]
    assert done == {"done": True, "ok": len(lines) - 4, "failed": 4}
    exported = cluster.agents[1].call("GET", "/v1/export?prefix=bulk-").text.splitlines()
    assert len(exported) == 300
    again = cluster.agents[2].bulk([json.loads(line) for line in exported])
    assert all(r["status"] == 200 and r["version"] == 1 for r in again)
    assert agent.ask("DELETE", "/v1/jobs?prefix=bulk-", 200) == {"deleted": 300}


def test_many_jobs_by_bulk_are_fast(cluster):
    agent = cluster.agents[0]
    count = 10_000  # test_many_jobs has more
    body = "".join(f'{{"op":"create","id":"many-{n}","job":{json.dumps(job())}}}\n' for n in range(count))
    began = time.monotonic()
    answer = agent.call("POST", "/v1/bulk", data=body.encode(), timeout=120,
                        headers={"Content-Type": "application/x-ndjson"})
    took = time.monotonic() - began
    print(f"bulk of {count} in {took:.2f} s")
    assert json.loads(answer.text.splitlines()[-1]) == {"done": True, "ok": count, "failed": 0}
    assert took < 30
    began = time.monotonic()
    assert len(cluster.agents[1].call("GET", "/v1/export?prefix=many-", timeout=60).text.splitlines()) == count
    print(f"export in {time.monotonic() - began:.2f} s")
    began = time.monotonic()
    assert cluster.agents[2].ask("DELETE", "/v1/jobs?prefix=many-", 200, timeout=120) == {"deleted": count}
    print(f"deleted in {time.monotonic() - began:.2f} s")


def test_refusals(cluster):
    agent = cluster.agents[0]
    everything = problem(agent.call("POST", "/v1/jobs", json={"schedule": "61 * * * *", "callback": {}, "x": 1,
                                                              "jitter": 5}), 400, "invalid_job")
    assert {"#/schedule", "#/x", "#/jitter"} <= {e["pointer"] for e in everything["errors"]}
    text = {"Content-Type": "text/plain"}
    problem(agent.call("POST", "/v1/jobs", data="{}", headers=text), 415, "unsupported_media_type")
    bare = requests.post(f"{agent.url}/v1/jobs/x/pause", timeout=30)
    problem(bare, 415, "unsupported_media_type")
    problem(agent.call("GET", "/v1/health", headers={"Host": "evil.example"}), 421, "misdirected")
    problem(agent.call("GET", "/v1/nothing"), 404, "not_found")
    problem(agent.call("POST", "/peer/v1/handover", json={}), 404, "not_found")
    wrong = agent.call("PUT", "/v1/jobs", json={})
    problem(wrong, 405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET, HEAD, POST, DELETE"
    unknown = problem(agent.call("GET", "/v1/jobs?limit=5000&colour=red"), 400, "invalid_request")
    assert {e["pointer"] for e in unknown["errors"]} == {"?limit", "?colour"}
    problem(agent.call("GET", "/v1/jobs/a%2Fb"), 400, "invalid_request")
    problem(agent.call("GET", "/v1/jobs/a%00b"), 400, "invalid_request")
    problem(agent.call("GET", "/v1/jobs/%ff"), 400, "invalid_request")
    problem(agent.call("GET", "/v1/jobs/x?ns=a", headers={"Carillon-Namespace": "b"}), 400, "invalid_request")
    problem(agent.call("POST", "/v1/jobs", data=b'{"a":"' + b"x" * (1 << 20) + b'"}',
                       headers={"Content-Type": "application/json"}), 413, "too_large")
    peer = requests.get(f"http://127.0.0.1:{agent.cluster_port}/v1/health", timeout=30)
    problem(peer, 401, "unauthorized")


def test_what_an_agent_tells_of_itself(cluster):
    agent = cluster.agents[0]
    seen = agent.cluster()
    assert len(seen["members"]) == 3 and seen["slots"]["unowned"] == 0
    assert sum(m["slots"] for m in seen["members"]) == seen["slots"]["total"]
    assert agent.health()["ok"] is True
    for path in ("/livez", "/readyz", "/metrics", "/openapi.yaml"):
        assert agent.call("GET", path).status_code == 200
    head = agent.call("HEAD", "/v1/health")
    assert head.status_code == 200 and head.content == b""


# What dashboards and alerts build upon: name, type, labels.
METRICS = """
carillon_fires_total counter namespace,outcome,reason
carillon_attempts_total counter transport,result
carillon_fire_lateness_seconds histogram
carillon_fire_stage_seconds histogram stage
carillon_callback_duration_seconds histogram service
carillon_jobs gauge state
carillon_pending_fires gauge
carillon_retries_waiting gauge service
carillon_in_flight gauge service
carillon_dead_letters gauge namespace
carillon_oldest_overdue_seconds gauge
carillon_store_batch_rows histogram
carillon_store_duration_seconds histogram op
carillon_store_errors_total counter class
carillon_slots_owned gauge
carillon_slots_unowned gauge
carillon_members gauge
carillon_lease_remaining_seconds gauge
carillon_clock_offset_seconds gauge
carillon_handover_duration_seconds histogram
carillon_endpoints_ejected gauge service
carillon_api_duration_seconds histogram route,code
carillon_requests_rejected_total counter code
carillon_loop_turn_duration_seconds histogram
carillon_config_last_reload_successful gauge
carillon_tls_cert_expiry_timestamp_seconds gauge
carillon_build_info gauge version,commit
"""


def test_every_metric_of_the_contract_is_there(cluster):
    text = cluster.agents[0].call("GET", "/metrics").text
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE "))
    samples = [re.match(r"(\w+?)(?:_bucket|_sum|_count)?(?:{(.*)})? ", line) for line in text.splitlines() if line[0] != "#"]
    for name, kind, *labels in map(str.split, METRICS.strip().splitlines()):
        assert types.get(name) == kind, name
        for sample in samples:
            if sample[1] == name:
                names = [n for n in re.findall(r'(\w+)="', sample[2] or "") if n != "le"]
                assert ",".join(names) == "".join(labels), sample[0]
    for name in ("slots_owned", "members", "build_info", "jobs", "lease_remaining_seconds", "store_duration_seconds"):
        assert any(s[1] == f"carillon_{name}" for s in samples), name


def test_the_description_names_exactly_the_methods_that_each_path_has(cluster):
    agent = cluster.agents[0]
    described = yaml.safe_load(agent.call("GET", "/openapi.yaml").text)["paths"]
    for path, item in described.items():
        real = path.replace("{fire}", "0" * 32 + ".1").replace("{id}", "x").replace("{name}", "x")
        refused = agent.call("OPTIONS", real)
        problem(refused, 405, "method_not_allowed")
        methods = {m.upper() for m in item if m != "parameters"}
        assert set(refused.headers["Allow"].split(", ")) - {"HEAD"} == methods, path


def test_the_owner_is_told_of_a_header_without_a_value(cluster):
    """Carillon-Client says that no page of a browser sends this, whatever its value."""
    cluster.agents[0].create(job("bare"))
    for agent in cluster.agents:
        answer = agent.call("POST", "/v1/jobs/bare/pause", headers={"Carillon-Client": ""})
        assert answer.status_code == 200, answer.text
    cluster.agents[0].delete("bare")


def test_a_client_of_the_cluster_forwards_everything(cluster):
    client = cluster.agent(config={"agent": {"role": "client"}, "store": None}, name="client")
    try:
        client.start()
        assert client.create(job("by-client"))["status"]["version"] == 1
        made = client.create(job())
        assert cluster.agents[0].get(made["id"]) == {k: v for k, v in made.items() if k != "warnings"}
        assert client.patch("by-client", {"description": "d"})["status"]["version"] == 2
        assert client.ask("POST", "/v1/jobs?dry_run=true", 200, json=job("other"))["next"]
        assert client.get("other") is None
        assert client.owner("by-client")["name"] in "abc"
        assert len(client.cluster()["members"]) == 3
        lines = [{"op": "create", "id": f"client-{n}", "job": job()} for n in range(1500)]
        assert all(r["status"] == 201 for r in client.bulk(lines))
        assert len(client.call("GET", "/v1/export?prefix=client-").text.splitlines()) == 1500
        behind = client.ask("GET", "/v1/jobs?prefix=client-&limit=100", 200)["next_cursor"]
        assert len(client.call("GET", f"/v1/export?prefix=client-&cursor={behind}").text.splitlines()) == 1400
        assert len(client.list(prefix="client-", limit=1000)) == 1500
        assert client.ask("DELETE", "/v1/jobs?prefix=client-", 200) == {"deleted": 1500}
        assert client.delete("by-client")["result"] == "cancelled"
    finally:
        cluster.agents.remove(client)
        client.end()
