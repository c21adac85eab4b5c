"""Consul and the database killed, hung, emptied; a reply lost: the agents recover by themselves and nothing that was
acknowledged is lost."""
import os
import time

import pytest
from lib.load import Load, Writer, check_store, lateness_between, show
from lib.procs import wait_until

CONSUL_AWAY_S = float(os.environ.get("IT_CONSUL_AWAY", "30"))


@pytest.fixture
def own(clusters, shared_consul, mariadb):
    """A cluster on a database of its own, three agents started."""
    cluster = clusters(shared_consul, mariadb)
    cluster.start(3)
    return cluster


def test_consul_killed_then_started_empty(clusters, consul, shared_mariadb, callee):
    """Firing goes on, members join again, callees are found again when they have registered again."""
    cluster = clusters(consul, shared_mariadb)
    a, b, c = cluster.start(3)
    load = Load(cluster, callee, "consul", 150).begin(a)
    ids = {agent.cluster()["self"] for agent in (a, b, c)}
    begin = time.time()
    consul.kill9()
    with Writer((a, b, c), "w-consul") as writer:
        time.sleep(CONSUL_AWAY_S)
    away = time.time()
    assert not a.cluster()["consul"]["ok"]
    consul.restart(wipe=True)
    load.register()
    back = time.time()
    wait_until(lambda: set(consul.members(cluster.name)) == ids, 30, "all members in Consul again")
    joined = time.time()
    wait_until(lambda: all(agent.cluster()["consul"]["ok"] for agent in (a, b, c)), 10, "Consul well again")
    cluster.wait_settled()
    assert {agent.cluster()["self"] for agent in (a, b, c)} == ids, "Consul's absence must not end a member's life"
    verdict = load.finish(a)
    writer.check(b)
    check_store(cluster)
    show(f"Consul away for {CONSUL_AWAY_S:.0f} s, lateness meanwhile", lateness_between(verdict, begin, away))
    show("  lateness while it started, empty", lateness_between(verdict, away, joined))
    print(f"  members back {joined - back:.1f} s after the services were")
    assert max(lateness_between(verdict, begin, away)) < 1000 * (joined - away) + 10000
    assert verdict.lateness()[-1] < 1000 * (joined - away) + 20000


def test_database_killed_and_restarted(own, mariadb, callee):
    agents = own.agents
    load = Load(own, callee, "dbkill", 150).begin(agents[0])
    with Writer(agents, "w-dbkill") as writer:
        begin = time.time()
        mariadb.kill9()
        time.sleep(3)
        mariadb.restart()
        back = time.time()
        own.wait_settled(40)
        print(f"database away for {back - begin:.1f} s, settled {time.time() - back:.1f} s later")
        time.sleep(2)
    judge(own, load, writer, begin, back)


def test_database_hung_for_ten_seconds(own, mariadb, callee):
    agents = own.agents
    load = Load(own, callee, "dbstop", 150).begin(agents[0])
    ids = {agent.cluster()["self"] for agent in agents}
    with Writer(agents, "w-dbstop") as writer:
        begin = time.time()
        mariadb.stop()
        time.sleep(9)
        answer = agents[0].call("PUT", "/v1/jobs/w-late", json={
            "schedule": "@after 1d", "callback": {"http": {"service": "w", "path": "/w"}}})
        assert answer.status_code == 503 and "retry-after" in answer.headers, answer.text
        assert answer.json()["code"] in ("store_unavailable", "no_owner"), answer.text
        time.sleep(max(0.0, 10 - (time.time() - begin)))
        mariadb.cont()
        back = time.time()
        own.wait_settled(40)
        print(f"database hung for {back - begin:.1f} s, settled {time.time() - back:.1f} s later; "
              f"same members: {ids == {agent.cluster()['self'] for agent in agents}}")
        time.sleep(2)
    judge(own, load, writer, begin, back)


def test_reply_to_a_taking_statement_is_lost(cluster, shared_mariadb, proxies, callee):
    """Who takes a dead member's slots does not learn whether it has them: it finds out."""
    links = [proxies(shared_mariadb.port) for _ in range(2)]
    a, b = (cluster.agent(mysql_port=link.port).start(wait=False) for link in links)
    c = cluster.agent().start(wait=False)
    for agent in (a, b, c):
        agent.wait_ready()
    cluster.wait_settled()
    load = Load(cluster, callee, "taking", 150).begin(a)
    with Writer((a, b), "w-taking") as writer:
        for link in links:
            link.lose_reply(lambda data: b"UPDATE (SELECT slot" in data)
        begin = time.time()
        c.kill9()
        for link in links:
            assert link.lost.wait(20), "no taking statement was seen"
        print(f"both replies lost {time.time() - begin:.2f} s after the kill")
        cluster.wait_settled(30)
        back = time.time()
        print(f"settled {back - begin:.2f} s after the kill")
        time.sleep(2)
    judge(cluster, load, writer, begin, back)


def judge(cluster, load, writer, begin, back):
    agents = cluster.alive()
    verdict = load.finish(agents[0])
    check_store(cluster)
    show("  lateness meanwhile", lateness_between(verdict, begin, back))
    show("  lateness afterwards", lateness_between(verdict, back, time.time()))
    writer.check(agents[-1])
    assert verdict.lateness()[-1] < 1000 * (back - begin) + 60000


def test_agent_that_starts_before_its_database_says_so_and_then_goes_on(clusters, shared_consul, mariadb):
    cluster = clusters(shared_consul, mariadb)
    mariadb.kill9()
    agent = cluster.agent()
    agent.start(wait=False)
    wait_until(lambda: agent.call("GET", "/livez").status_code == 200, 10, "alive without a database")
    assert agent.call("GET", "/readyz").status_code == 503
    refused = agent.call("PUT", "/v1/jobs/early", json={"schedule": "@after 1d", "callback": {"http": {"service": "x"}}})
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable") and refused.headers["Retry-After"]
    assert agent.call("POST", "/v1/bulk", data=b"{}\n", headers={"Content-Type": "application/x-ndjson"}).status_code == 503
    [store] = [c for c in agent.health()["checks"] if c["name"] == "store"]
    assert store["ok"] is False and store["detail"]
    mariadb.restart()
    agent.wait_ready(20)
    agent.put("early", {"schedule": "@after 1d", "callback": {"http": {"service": "x"}}})
    agent.term()


def test_agent_that_waits_for_its_database_ends_at_once(clusters, shared_consul, mariadb):
    cluster = clusters(shared_consul, mariadb)
    mariadb.kill9()
    agent = cluster.agent()
    agent.start(wait=False)
    wait_until(lambda: agent.call("GET", "/livez").status_code == 200, 10, "alive without a database")
    agent.term(grace=5)
