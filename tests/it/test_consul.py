"""consul/ against a real Consul: members that join, die, leave and come back, and the watch of a service.

tests/tools/membership_probe.c is one member without an agent around it; it prints what it learns, a JSON object a line.
"""
import json
import os
import pathlib
import signal
import time

import pytest

from lib.consul import AclConsul, Consul
from lib.procs import Process, wait_until

SERVICE = "probe-callee"
# A TTL check of 5 s that was last passed up to 1 s ago, and Consul's own second.
DEATH_S = 7
AGAIN_S = 10


class Probe:
    """One member. Its log is the list of events."""

    def __init__(self, consul, folder, name, port, token_file=None, address=None):
        self.member = f"{name}.{port}"
        argv = [pathlib.Path(os.environ["CARILLON_TOOLS"]) / "membership_probe", address or consul.address, "probes",
                self.member, port, SERVICE]
        self.process = Process(f"probe-{name}", argv + ([token_file] if token_file else []), folder)

    def start(self):
        self.process.start()
        return self

    def events(self, kind):
        found = []
        for line in self.process.log_text().splitlines():
            if line.startswith("{") and line.endswith("}"):
                event = json.loads(line)
                if event["event"] == kind:
                    found.append(event)
        return found

    def last(self, kind):
        events = self.events(kind)
        return events[-1] if events else {}

    def sees(self, *members):
        last = self.last("members")
        return sorted(last.get("members", [])) == sorted(members)

    def wait_sees(self, *probes, timeout=AGAIN_S):
        wait_until(lambda: self.sees(*(p.member for p in probes)), timeout, f"{self.member} sees {len(probes)}",
                   interval=0.005, alive=[self.process])

    def wait_instances(self, expected, timeout=1.0):
        wait_until(lambda: sorted(self.last("instances").get("instances", [None])) == sorted(expected), timeout,
                   f"{self.member} knows {expected}", interval=0.005, alive=[self.process])


@pytest.fixture
def probes(consul, folder):
    """probes("a", "b") starts members and waits until each sees all."""
    made = []

    def start(*names, **kwargs):
        fresh = [Probe(consul, folder, name, 7001 + len(made) + i, **kwargs).start() for i, name in enumerate(names)]
        made.extend(fresh)
        for probe in fresh:
            probe.wait_sees(*made)
        return fresh

    yield start
    for probe in made:
        probe.process.end()


def everybody_sees_all(members, timeout=AGAIN_S):
    for probe in members:
        probe.wait_sees(*members, timeout=timeout)


def test_three_join_and_a_killed_one_is_gone_soon(probes):
    a, b, c = probes("a", "b", "c")
    assert a.last("members")["key_held"]
    b.process.kill9()
    began = time.monotonic()
    for probe in (a, c):
        probe.wait_sees(a, c, timeout=DEATH_S)
    print(f"gone after {time.monotonic() - began:.2f} s")


def test_a_stopped_one_is_gone_at_once_and_leaves_nothing(consul, probes):
    a, b = probes("a", "b")
    began = time.monotonic()
    b.process.signal(signal.SIGTERM)
    a.wait_sees(a, timeout=1)
    print(f"gone after {time.monotonic() - began:.3f} s")
    assert b.process.wait(5) == 0
    assert b.events("stopped")
    assert [s["Name"] for s in consul.sessions()] == [f"carillon-{a.member}"]
    assert [e["Service"]["ID"] for e in consul.health("carillon-probe", passing=False)] == [f"carillon-{a.member}"]


def test_leaving_is_seen_by_the_others(probes):
    a, b = probes("a", "b")
    b.process.signal(signal.SIGUSR1)
    wait_until(lambda: a.last("members")["leaving"] == [b.member], 1, "a sees b leaving", interval=0.005)
    assert b.last("members")["key_held"]


def test_a_destroyed_session_is_made_again(consul, probes):
    a, b = probes("a", "b")
    before = {s["ID"] for s in consul.sessions()}
    for session in consul.sessions():
        if session["Name"] == f"carillon-{a.member}":
            consul.destroy_session(session["ID"])
    wait_until(lambda: len({s["ID"] for s in consul.sessions()} - before) == 1, AGAIN_S, "a new session")
    everybody_sees_all([a, b])


def test_a_deleted_key_is_written_again_under_the_same_session(consul, probes):
    a, b = probes("a", "b")
    sessions = {s["ID"] for s in consul.sessions()}
    consul.delete(f"carillon/probes/members/{a.member}")
    wait_until(lambda: len(b.events("members")) >= 3 and b.sees(a.member, b.member), AGAIN_S, "the key is back")
    assert {s["ID"] for s in consul.sessions()} == sessions


def test_a_deregistered_service_is_registered_again(consul, probes):
    a, b = probes("a", "b")
    consul.deregister(f"carillon-{a.member}")
    wait_until(lambda: len(consul.passing("carillon-probe")) == 2, AGAIN_S, "both registered")
    everybody_sees_all([a, b])


def test_a_hung_member_is_gone_and_comes_back(probes):
    a, b = probes("a", "b")
    b.process.stop()
    a.wait_sees(a, timeout=DEATH_S)
    b.process.cont()
    everybody_sees_all([a, b])


@pytest.mark.parametrize("wipe", [False, True])
def test_all_come_back_after_consul_was_killed(consul, probes, wipe):
    members = probes("a", "b", "c")
    consul.kill9()
    wait_until(lambda: all(p.last("health").get("ok") is False for p in members), AGAIN_S, "seen as down")
    time.sleep(3)
    for probe in members:
        assert probe.sees(*(p.member for p in members)), "an error is no news"
    consul.restart(wipe=wipe)
    began = time.monotonic()
    wait_until(lambda: set(consul.members("probes")) == {p.member for p in members}, AGAIN_S, "keys are back")
    everybody_sees_all(members)
    wait_until(lambda: all(p.last("health")["ok"] for p in members), AGAIN_S, "seen as up")
    wait_until(lambda: len(consul.passing("carillon-probe")) == 3, AGAIN_S, "services are back")
    print(f"back after {time.monotonic() - began:.2f} s")
    time.sleep(3)
    everybody_sees_all(members, timeout=1)


def test_a_hung_consul_is_survived(consul, probes):
    members = probes("a", "b")
    consul.stop()
    wait_until(lambda: all(p.last("health").get("ok") is False for p in members), AGAIN_S + 5, "seen as down")
    consul.cont()
    wait_until(lambda: all(p.last("health")["ok"] for p in members), AGAIN_S, "seen as up")
    wait_until(lambda: set(consul.members("probes")) == {p.member for p in members}, AGAIN_S, "keys are back")
    everybody_sees_all(members)


def test_a_service_is_followed_within_a_second(consul, probes):
    (a,) = probes("a")
    a.wait_instances([], timeout=AGAIN_S)
    first = consul.register(SERVICE, 8001)
    a.wait_instances(["127.0.0.1:8001"])
    consul.register(SERVICE, 8002)
    a.wait_instances(["127.0.0.1:8001", "127.0.0.1:8002"])
    consul.fail(first)
    a.wait_instances(["127.0.0.1:8002"])
    consul.heal(first)
    a.wait_instances(["127.0.0.1:8001", "127.0.0.1:8002"])
    consul.deregister(first)
    a.wait_instances(["127.0.0.1:8002"])


def test_a_service_is_followed_again_after_consul_was_wiped(consul, probes):
    (a,) = probes("a")
    consul.register(SERVICE, 8001)
    a.wait_instances(["127.0.0.1:8001"])
    consul.kill9()
    wait_until(lambda: a.last("health").get("ok") is False, AGAIN_S, "seen as down")
    assert a.last("instances")["instances"] == ["127.0.0.1:8001"], "the last good list stays"
    consul.restart(wipe=True)
    consul.register(SERVICE, 8002)
    a.wait_instances(["127.0.0.1:8002"], timeout=AGAIN_S)


def test_a_token_file_that_changes_is_taken_over(folder):
    consul = AclConsul(folder).start()
    token = folder / "token"
    token.write_text("00000000-0000-0000-0000-00000000bad0\n")
    a = Probe(consul, folder, "a", 7001, token_file=token).start()
    try:
        wait_until(lambda: "403" in a.process.log_text(), AGAIN_S, "refused", alive=[a.process])
        assert not a.events("members")
        fresh = folder / "token.new"
        fresh.write_text(AclConsul.MASTER + "\n")
        fresh.rename(token)
        a.wait_sees(a, timeout=AGAIN_S + 5)
    finally:
        a.process.end()
        consul.end()


def test_consul_behind_a_unix_socket(folder):
    consul = Consul(folder=folder)
    path = consul.folder / f"{consul.name}.json"
    config = json.loads(path.read_text())
    sock = folder / "consul.sock"
    config["addresses"] = {"http": f"unix://{sock} 127.0.0.1"}
    path.write_text(json.dumps(config))
    consul.start()
    a = Probe(consul, folder, "a", 7001, address=f"unix://{sock}").start()
    try:
        a.wait_sees(a)
    finally:
        a.process.end()
        consul.end()
