"""What makes callbacks safe to take and safe to send: signatures and events as libraries of others read them, secrets that only
the callee sees, and addresses that are not called."""
import base64
import json
import os
import secrets
import signal
import time

import pytest
from cloudevents.core.bindings import http as cloudevents_http
from lib.oracle import instant
from lib.procs import wait_until
from standardwebhooks import Webhook, WebhookVerificationError

PAYLOAD = {"invoice": 4711, "text": "Grüße ✓"}
RELOADED_S = 10  # files are read again within that


def new_key(size=32):
    return "whsec_" + base64.b64encode(secrets.token_bytes(size)).decode()


class Guarded:
    """An agent with signing keys and secrets."""

    def __init__(self, cluster):
        self.folder = cluster.folder
        self.keys_file = self.folder / "signing.keys"
        self.secrets_dir = self.folder / "secrets"
        (self.secrets_dir / "default").mkdir(parents=True)
        self.keys = {name: new_key() for name in ("any", "default", "other")}
        self.write_keys(f"# kept by hand\n* any {self.keys['any']}\n\nteam-b k {self.keys['other']}\n")
        self.agent = cluster.agent(config={"callback": {
            "allow_loopback": True, "signing_keys_file": str(self.keys_file), "secrets_dir": str(self.secrets_dir),
            "deny": ["127.0.0.2/32", "198.51.100.0/24"]}})

    def write_keys(self, text):
        path = self.keys_file.with_suffix(".new")
        path.write_text(text)
        os.replace(path, self.keys_file)

    def write_secret(self, name, value, ns="default"):
        (self.secrets_dir / ns).mkdir(exist_ok=True)
        (self.secrets_dir / ns / name).write_text(value)


@pytest.fixture(name="guarded")
def guarded_agent(cluster):
    guarded = Guarded(cluster)
    guarded.agent.start()
    cluster.wait_settled()
    return guarded


def once(url, path="/hook", **http):
    target = {"url": url} if url else {"path": path}
    return {"schedule": "@after 10ms", "callback": {"http": {**target, **http}, "timeout": "10s"}, "payload": PAYLOAD,
            "retry": {"min_backoff": "100ms", "max_backoff": "200ms", "jitter": 0}}


def fire_and_take(guarded, callee, job_id, job, **params):
    """Write JOB, and the first request that it makes."""
    before = callee.count()
    guarded.agent.put(job_id, job, **params)
    wait_until(lambda: callee.count() > before, 10, f"{job_id} called")
    return callee.records(since=before)[0]


def last_error(agent, job_id, **params):
    """The error of the newest attempt of the job's first fire, once there is one."""
    def look():
        fires = agent.fires(job_id, **params)
        attempts = fires[0]["attempts"] if fires else []
        return attempts and attempts[-1].get("error")
    return wait_until(look, 10, f"{job_id} has failed", interval=0.05)


def signed_by(key, request):
    try:
        Webhook(key).verify(request["body"].encode(), request["headers"])
        return True
    except WebhookVerificationError:
        return False


def test_callbacks_verify_with_libraries_of_others(guarded, callee):
    request = fire_and_take(guarded, callee, "signed", once(callee.url("/signed")))
    headers = request["headers"]
    assert Webhook(guarded.keys["any"]).verify(request["body"].encode(), headers) == PAYLOAD
    assert not signed_by(guarded.keys["other"], request)
    assert not signed_by(guarded.keys["any"], {**request, "body": request["body"] + " "})
    assert headers["webhook-id"] == headers["ce-id"] and abs(int(headers["webhook-timestamp"]) - time.time()) < 60

    event = cloudevents_http.from_http_event(
        cloudevents_http.HTTPMessage(headers=headers, body=request["body"].encode()))
    assert event.get_id() == headers["webhook-id"] and event.get_type() == "carillon.fire"
    assert event.get_subject() == "signed" and event.get_data() == PAYLOAD
    assert event.get_source().startswith("/carillon/") and event.get_source().endswith("/default")
    assert event.get_time().timestamp() == instant(headers["ce-time"])


def test_a_request_without_body_is_signed_too(guarded, callee):
    job = {**once(callee.url("/get"), method="GET")}
    request = fire_and_take(guarded, callee, "get", job)
    assert request["body"] == ""
    Webhook(guarded.keys["any"]).verify(b"", request["headers"], json_parse=False)


def test_the_namespaces_own_key_signs(guarded, callee):
    request = fire_and_take(guarded, callee, "own", once(callee.url("/own")), ns="team-b")
    assert signed_by(guarded.keys["other"], request) and not signed_by(guarded.keys["any"], request)


def test_keys_are_rotated_without_a_restart(guarded, callee):
    """Every callback meanwhile verifies with the key that was given first, until that is taken out."""
    old, new = guarded.keys["any"], new_key()
    guarded.agent.put("tick", {**once(callee.url("/tick")), "schedule": "@every 1s"})
    callee.wait_for(1, 10)

    def newest():
        return callee.records()[-1]

    guarded.write_keys(f"* any {old}\n* next {new}\n")
    wait_until(lambda: signed_by(new, newest()), RELOADED_S + 1.5, "both keys sign", interval=0.2)
    assert all(signed_by(old, r) for r in callee.records())
    assert newest()["headers"]["webhook-signature"].count("v1,") == 2

    guarded.write_keys(f"* next {new}\n* broken whsec_not-base64\n")  # changes nothing
    wait_until(lambda: "signing keys not read again" in guarded.agent.process.log_text(), RELOADED_S, "it was refused")
    assert "line 2: the key must be" in guarded.agent.process.log_text()
    count = callee.count()
    callee.wait_for(count + 2, 5)
    assert signed_by(old, newest()) and signed_by(new, newest())

    guarded.write_keys(f"* next {new}\n")
    wait_until(lambda: not signed_by(old, newest()), RELOADED_S + 1.5, "the old key is gone", interval=0.2)
    assert all(signed_by(new, r) for r in callee.records()[-1:])
    for key in (old, new):
        assert key[6:] not in guarded.agent.process.log_text()


def test_a_secret_is_seen_by_the_callee_alone(guarded, callee):
    secret = secrets.token_urlsafe(24)
    guarded.write_secret("api-token", secret + "\n")
    callee.behave({"path": "/echo", "times": 1, "status": 503, "body": f"you sent Bearer {secret}, thank you"})
    job = once(callee.url("/echo"), headers={"Authorization": "Bearer ${secret:api-token}", "X-Plain": "$${secret:api-token}"})
    request = fire_and_take(guarded, callee, "secret", job)
    assert request["headers"]["authorization"] == f"Bearer {secret}"
    assert request["headers"]["x-plain"] == "${secret:api-token}"

    agent = guarded.agent
    fire = wait_until(lambda: (f := agent.fires("secret")) and f[0]["outcome"] == "succeeded" and f[0], 10, "it succeeded")
    assert len(fire["attempts"]) == 2 and fire["attempts"][0]["status"] == 503
    shown = agent.get("secret")
    assert shown["callback"]["http"]["headers"]["Authorization"] == "Bearer ${secret:api-token}"
    for text in (json.dumps(shown), json.dumps(agent.list()), json.dumps(fire), agent.process.log_text()):
        assert secret not in text


def test_secrets_are_those_of_the_namespace(guarded, callee):
    guarded.write_secret("theirs", "not yours", ns="team-b")
    for name, code in (("theirs", "unknown_secret"), ("nobodys", "unknown_secret"), ("../team-b/theirs", "invalid_job"),
                       ("..", "invalid_job"), ("team-b/theirs", "invalid_job"), ("", "invalid_job")):
        answer = guarded.agent.call("PUT", "/v1/jobs/thief",
                                    json=once(callee.url(), headers={"X": "${secret:%s}" % name}))
        assert answer.status_code == 400 and answer.json()["code"] == code, (name, answer.text)
        assert [e["pointer"] for e in answer.json()["errors"]] == ["#/callback/http/headers/X"]
    request = fire_and_take(guarded, callee, "theirs", once(callee.url(), headers={"X": "${secret:theirs}"}), ns="team-b")
    assert request["headers"]["x"] == "not yours"


def test_a_vanished_secret_fails_the_attempt_until_it_is_back(guarded, callee):
    guarded.write_secret("comes-and-goes", "one")
    fire_and_take(guarded, callee, "first", once(callee.url(), headers={"X": "${secret:comes-and-goes}"}))
    (guarded.secrets_dir / "default" / "comes-and-goes").unlink()
    job = {**once(callee.url("/gone"), headers={"X": "${secret:comes-and-goes}"}), "schedule": "@after 8s"}
    guarded.write_secret("comes-and-goes", "two")
    guarded.agent.put("gone", job)
    (guarded.secrets_dir / "default" / "comes-and-goes").unlink()
    wait_until(lambda: guarded.agent.fires("gone"), 15, "it was due", interval=0.2)
    assert last_error(guarded.agent, "gone") == "secret 'comes-and-goes' is not there"
    assert not [r for r in callee.records() if r["path"] == "/gone"]
    guarded.write_secret("comes-and-goes", "three\r\nX-Evil: yes")
    wait_until(lambda: "line break" in last_error(guarded.agent, "gone"), RELOADED_S + 1, "it holds a line break")
    guarded.write_secret("comes-and-goes", "four")
    request = wait_until(lambda: [r for r in callee.records() if r["path"] == "/gone"], RELOADED_S + 1, "it went out")[0]
    assert request["headers"]["x"] == "four" and "x-evil" not in request["headers"]


@pytest.mark.parametrize("url, error", [
    ("http://169.254.169.254/latest/meta-data/", "address 169.254.169.254 is denied by callback.deny (link-local, by default)"),
    ("http://[::ffff:169.254.169.254]/x", "address 169.254.169.254 is denied by callback.deny (link-local, by default)"),
    ("http://2852039166/", "address 169.254.169.254 is denied by callback.deny (link-local, by default)"),
    ("http://[fd00:ec2::254]/", "address fd00:ec2::254 is denied by callback.deny (metadata, by default)"),
    ("http://198.51.100.7/", "address 198.51.100.7 is denied by callback.deny"),
    ("http://127.0.0.2:{port}/", "address 127.0.0.2 is denied by callback.deny"),
    ("http://127.0.0.1:{api}/v1/jobs", "address 127.0.0.1 is denied: that port is this agent's own"),
    ("http://localhost:{cluster}/", "is denied: that port is this agent's own")])
def test_denied_addresses_are_failed_attempts(guarded, callee, url, error):
    agent = guarded.agent
    url = url.format(port=callee.port, api=agent.api_port, cluster=agent.cluster_port)
    agent.put("denied", once(url))
    assert last_error(agent, "denied").endswith(error)
    wait_until(lambda: len(agent.fires("denied")[0]["attempts"]) >= 2, 10, "it is tried again")
    assert agent.fires("denied")[0]["outcome"] == "pending" and callee.count() == 0


def test_denied_networks_hold_for_services_and_change_with_a_reload(guarded, callee, shared_consul):
    """A kept connection does not outlive the permission."""
    agent, name = guarded.agent, f"guard-{callee.port}"
    instance = shared_consul.register(name, callee.port)
    job = {**once(None), "schedule": "@every 1s", "callback": {"http": {"service": name, "path": "/s"}, "timeout": "2s"}}
    try:
        agent.put("service", job)
        callee.wait_for(2, 15)
        agent.config["callback"]["deny"] = ["127.0.0.0/8"]
        agent.config_path.write_text(json.dumps(agent.config))
        agent.process.signal(signal.SIGHUP)
        wait_until(lambda: "configuration reloaded" in agent.process.log_text(), 5, "reloaded")
        time.sleep(0.2)
        callee.clear()
        assert wait_until(lambda: [f for f in agent.fires("service") if f["outcome"] == "pending" and f["attempts"]], 10,
                          "a fire fails")[0]["attempts"][-1]["error"] == "address 127.0.0.1 is denied by callback.deny"
        assert callee.count() == 0
    finally:
        shared_consul.deregister(instance)


def test_a_broken_keys_file_or_network_is_found_before_the_start(guarded):
    agent = guarded.agent
    agent.term()
    for deny, keys, found in (("10.0.0.1/8", "", ("callback.deny", "beyond its prefix")),
                              ("10.0.0.0/8", "* any whsec_c2hvcnQ=\n", ("callback.signing_keys_file", "line 1"))):
        guarded.write_keys(keys)
        agent.config["callback"]["deny"] = [deny]
        agent.start(wait=False)
        assert agent.process.wait(10) == 1
        assert all(text in agent.process.log_text() for text in found), agent.process.log_tail()
