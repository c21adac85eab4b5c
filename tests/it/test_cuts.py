"""One agent cut off from Consul only, from the store only, from its peers only: each is recovered by itself."""
import time

import pytest
from lib.load import Load, Writer, check_store, lateness_between, show

CUT_S = 8.0  # longer than a lease, and than it takes Consul to delete the key of a member whose check it does not hear


@pytest.fixture
def cut_off(cluster, shared_consul, shared_mariadb, proxies):
    """Agents a and b, and c behind a proxy each to Consul, to the store and for its peers."""
    a, b = (cluster.agent().start(wait=False) for _ in range(2))
    to_consul, to_store = proxies(shared_consul.http_port), proxies(shared_mariadb.port)
    c = cluster.agent(consul_address=to_consul.address, mysql_port=to_store.port)
    to_peer = proxies(c.cluster_port)
    c.config["cluster"]["advertise"] = to_peer.address
    c.start(wait=False)
    for agent in (a, b, c):
        agent.wait_ready()
    cluster.wait_settled()
    return (a, b, c), {"consul": to_consul, "store": to_store, "peers": to_peer}


@pytest.mark.parametrize("what, how", [("consul", "cut"), ("store", "cut"), ("store", "stall"), ("peers", "cut"),
                                       ("peers", "stall")])
def test_one_agent_cut_off(cut_off, cluster, callee, what, how):
    agents, links = cut_off
    load = Load(cluster, callee, f"{what}-{how}", 150).begin(agents[0])
    with Writer(agents, f"w-{what}-{how}") as writer:
        begin, proxy = time.time(), links[what]
        proxy.cut() if how == "cut" else proxy.stall()
        time.sleep(CUT_S)
        healed = time.time()
        proxy.heal()
        cluster.wait_settled(40)
        print(f"{what} {how}: settled {time.time() - healed:.1f} s after it was healed")
        time.sleep(2)
    verdict = load.finish(agents[0])
    check_store(cluster)
    show("  lateness while cut off", lateness_between(verdict, begin, healed))
    show("  lateness afterwards", lateness_between(verdict, healed, time.time()))
    writer.check(agents[-1])
    lives = cluster.sql("SELECT COUNT(*) AS n FROM members WHERE name = 'c'")[0]["n"]
    print(f"  lives of the one that was cut off: {lives}")
    assert lives <= 2, "who cannot be reached must not be killed again and again"
    assert verdict.lateness()[-1] < 60000
