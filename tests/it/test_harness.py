"""The library itself against real servers: a test built on it must be able to trust what it does and says."""
import copy
import socket
import threading
import time

import pymysql
import pytest
import requests
from lib import oracle, procs
from lib.carillon import ApiError
from lib.mariadb import MariaDB
from lib.procs import NotReady, Process, can_connect, free_ports, wait_until


def test_process_is_ended_by_its_pid_whatever_it_does(folder):
    stubborn = Process("stubborn", ["bash", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], folder).start()
    wait_until(lambda: "up" in stubborn.log_text(), 5, "stubborn up")
    stubborn.stop()
    stubborn.end(grace=0.2)
    assert not stubborn.alive()
    assert stubborn not in procs.running()


def test_a_process_has_a_log_of_each_life(folder):
    twice = Process("twice", ["bash", "-c", "echo $$"], folder)
    lives = []
    for _ in range(2):
        twice.start().wait(10)
        lives.append(twice.life_text())
    assert twice.log_text() == "".join(lives) and all(lives)


def test_wait_until_gives_up_early_when_the_process_died(folder):
    short = Process("short", ["bash", "-c", "echo last words; exit 3"], folder).start()
    begin = time.monotonic()
    with pytest.raises(NotReady, match="ended with 3(.|\n)*last words"):
        wait_until(lambda: False, 30, "never", alive=[short])
    assert time.monotonic() - begin < 30


def test_wait_until_asks_a_database_again_that_is_not_there_yet(folder):
    mariadb = MariaDB(folder=folder)
    with pytest.raises(NotReady, match="not within .* OperationalError"):
        wait_until(lambda: mariadb.sql("SELECT 1"), 0, "a database that was never started")


def test_an_agent_is_asked_again_after_a_503(cluster, callee):
    agent = cluster.agent()
    agent.url = callee.url("")
    callee.behave({"path": "/v1/jobs/a", "status": 503, "body": '{"code":"no_owner"}', "times": 2},
                  {"path": "/v1/jobs/a", "body": '{"id":"a"}'})
    with pytest.raises(ApiError, match="503"):
        agent.patch("a", {})
    assert wait_until(lambda: agent.patch("a", {}), 20, "the job is changed") == {"id": "a"}
    assert [r["status"] for r in callee.records()] == [503, 503, 200]


def test_free_ports_are_not_given_out_again():
    ports = set(free_ports(20))
    assert len(ports) == 20
    others = []
    try:
        for _ in range(200):
            s = socket.socket()
            s.bind(("127.0.0.1", 0))
            others.append(s)
        assert not ports & {s.getsockname()[1] for s in others}
    finally:
        for s in others:
            s.close()


def test_consul_keeps_its_data_over_kill9_and_loses_it_when_wiped(consul):
    consul.put("carillon/it/a", "1")
    consul.kill9()
    assert not can_connect(consul.http_port)
    consul.restart()
    assert consul.get("carillon/it/a") == b"1"
    assert consul.entries("carillon/it/") == {"carillon/it/a": b"1"}
    consul.kill9()
    consul.restart(wipe=True)
    assert consul.get("carillon/it/a") is None
    assert not consul.entries("carillon/")


def test_consul_shows_a_service_while_its_check_passes(shared_consul):
    instance = shared_consul.register("billing", 4711, tags=["v2"], weight=7)
    [entry] = wait_until(lambda: shared_consul.health("billing"), 5, "billing known")  # registered is not yet listed
    assert (entry["Service"]["Port"], entry["Service"]["Tags"]) == (4711, ["v2"])
    assert entry["Service"]["Weights"]["Passing"] == 7
    shared_consul.fail(instance)
    wait_until(lambda: not shared_consul.passing("billing"), 5, "billing critical")
    shared_consul.heal(instance)
    wait_until(lambda: shared_consul.passing("billing") == [("127.0.0.1", 4711)], 5, "billing passing")
    shared_consul.deregister(instance)
    wait_until(lambda: not shared_consul.health("billing", passing=False), 5, "billing gone")


def test_stopped_consul_answers_again_after_cont(consul):
    consul.stop()
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"{consul.url}/v1/status/leader", timeout=0.5)
    consul.cont()
    consul.wait_ready()


def test_mariadb_keeps_what_it_committed_over_kill9(mariadb):
    account = mariadb.create("shop")
    mariadb.sql("CREATE TABLE t (a INT PRIMARY KEY) ENGINE=InnoDB", database="shop")
    connection = pymysql.connect(host=account["host"], port=account["port"], user=account["user"],
                                 password=account["password"], database="shop", autocommit=True)
    for a in range(50):
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (%s)", (a,))
    mariadb.kill9()
    assert not can_connect(mariadb.port)
    mariadb.restart()
    assert mariadb.sql("SELECT COUNT(*) AS n FROM t", database="shop") == [{"n": 50}]
    assert mariadb.sql("SHOW VARIABLES LIKE 'sync_binlog'")[0]["Value"] == "1"


def test_stopped_mariadb_times_out_and_goes_on(mariadb):
    mariadb.stop()
    with pytest.raises(pymysql.err.OperationalError):
        mariadb.connect(timeout=1).ping()
    mariadb.cont()
    assert mariadb.sql("SELECT 1 AS one") == [{"one": 1}]


def test_callee_records_arrival_and_answers_as_told(callee):
    callee.behave({"path": "/fail", "status": 503, "headers": {"Retry-After": "1"}, "times": 1},
                  {"path": "/slow", "delay": 0.2}, {"path": "/reset", "reset": True}, {"path": "/hang", "hang": True})
    web = requests.Session()
    before = time.monotonic()
    assert web.post(callee.url("/fail"), data=b"\xff\x00").status_code == 503
    assert web.post(callee.url("/fail"), json={"a": 1}).status_code == 200
    assert web.get(callee.url("/slow")).elapsed.total_seconds() >= 0.2
    with pytest.raises(requests.exceptions.ConnectionError):
        web.get(callee.url("/reset"))
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(callee.url("/hang"), timeout=1)
    wait_until(lambda: callee.records()[-1]["aborted"], 5, "the client's hanging up seen")
    first, second, slow, _, _ = callee.records()
    assert first["body_base64"] == "/wA=" and first["status"] == 503
    assert second["body"] == '{"a": 1}' and second["headers"]["content-type"] == "application/json"
    assert before <= first["at"] <= second["at"] <= time.monotonic()
    assert slow["done"] - slow["at"] >= 0.2


def test_callee_port_goes_down_and_up_alone(callees):
    callee = callees(ports=2)
    first, second = callee.ports
    callee.down(first)
    assert not can_connect(first) and can_connect(second)
    callee.up(first)
    assert requests.get(callee.url("/", first), timeout=30).status_code == 200
    assert [r["port"] for r in callee.records()] == [first]


def test_callee_takes_thousands_of_requests_a_second(callee):
    """Raw sockets as clients: what is measured is the callee."""
    request = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    each, lanes = 1000, 4

    def lane():
        with socket.create_connection(("127.0.0.1", callee.port)) as s:
            for _ in range(each):
                s.sendall(request)
                assert s.recv(4096).startswith(b"HTTP/1.1 200")

    begin = time.monotonic()
    threads = [threading.Thread(target=lane) for _ in range(lanes)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    rate = each * lanes / (time.monotonic() - begin)
    print(f"callee: {rate:.0f} requests/s")
    assert callee.count() == each * lanes
    assert rate > 100


def test_proxy_cuts_and_heals(callee, proxies):
    proxy = proxies(callee.port)
    web = requests.Session()
    url = f"http://{proxy.address}/"
    assert web.get(url, timeout=30).status_code == 200
    proxy.cut()
    with pytest.raises(requests.exceptions.ConnectionError):
        web.get(url, timeout=30)
    assert not can_connect(proxy.port)
    proxy.heal()
    assert web.get(url, timeout=30).status_code == 200
    assert callee.count() == 2


def test_proxy_stalls_without_losing_anything(callee, proxies):
    proxy = proxies(callee.port)
    with socket.create_connection(("127.0.0.1", proxy.port)) as s:
        s.sendall(b"GET /one HTTP/1.1\r\n\r\n")
        assert s.recv(4096).startswith(b"HTTP/1.1 200")
        proxy.stall()
        s.sendall(b"GET /two HTTP/1.1\r\n\r\n")
        s.settimeout(0.5)
        with pytest.raises(TimeoutError):
            s.recv(4096)
        assert callee.count() == 1
        proxy.heal()
        s.settimeout(30)
        assert s.recv(4096).startswith(b"HTTP/1.1 200")
    assert callee.count() == 2


def test_proxy_drops_replies_only(callee, proxies):
    proxy = proxies(callee.port)
    proxy.drop_replies()
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"http://{proxy.address}/dropped", timeout=0.5)
    assert [r["path"] for r in callee.wait_for(1, 5)] == ["/dropped"]
    proxy.heal()
    assert requests.get(f"http://{proxy.address}/", timeout=30).status_code == 200


def test_proxy_loses_the_reply_to_one_statement(mariadb, proxies):
    account = mariadb.create("shop")
    mariadb.sql("CREATE TABLE t (a INT PRIMARY KEY) ENGINE=InnoDB", database="shop")
    proxy = proxies(mariadb.port)
    connection = pymysql.connect(host="127.0.0.1", port=proxy.port, user=account["user"],
                                 password=account["password"], database="shop", autocommit=True)
    proxy.lose_reply(lambda request: b"INSERT INTO t" in request)
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    with pytest.raises(pymysql.err.OperationalError):
        cursor.execute("INSERT INTO t VALUES (7)")
    assert proxy.lost.is_set()
    assert mariadb.sql("SELECT a FROM t", database="shop") == [{"a": 7}]


# ---- the oracle has to see what is wrong

def record(seq, *, job="j", uid="u", due=1000.0, late=0.005, attempt=1, epoch=5):
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(due)) + f".{int(due * 1000) % 1000:03d}Z"
    return {"at": due + late, "wall": due + late, "port": 1, "status": 200, "headers": {
        "ce-id": f"{uid}.{seq}", "ce-subject": job, "ce-time": stamp, "idempotency-key": f'"{uid}.{seq}"',
        "carillon-seq": str(seq), "carillon-attempt": str(attempt), "carillon-epoch": str(epoch)}}


GOOD = [record(1, due=1000), record(2, due=1001), record(3, due=1002)]


def test_oracle_is_content_with_a_good_log_and_with_repeats():
    verdict = oracle.Verdict(GOOD + [record(2, due=1001, late=0.9, attempt=2, epoch=6)], jobs=["j"]).check()
    assert len(verdict.repeats) == 1 and len(verdict.firsts()) == 3
    assert verdict.longest_gap()[0] == pytest.approx(1.0)
    assert verdict.lateness() == pytest.approx([5, 5, 5], abs=0.01)
    with pytest.raises(AssertionError, match="came again"):
        verdict.check(repeats_allowed=False)
    # Two owners' requests that were under way at once arrive in any order.
    overtaken = oracle.Verdict(GOOD + [record(3, due=1002, late=0.02, epoch=4)]).check().overtaken
    assert overtaken == ["job j: fire u.3: epoch went from 5 to 4 after 0.015 s"]


@pytest.mark.parametrize("records, jobs, message", [
    ([GOOD[0], GOOD[2]], None, r"never came: \[2\]"),
    (GOOD + [record(3, due=1003)], None, "with due"),
    (GOOD + [record(4, due=1003, late=-0.002)], None, "2.0 ms early"),
    (GOOD + [record(4, due=1002)], None, "dues do not grow"),
    (GOOD + [record(3, due=1002, late=1.5, epoch=4)], None, "epoch went"),
    (GOOD, ["j", "k"], "job k: no callback"),
    ([], None, "no callback arrived"),
])
def test_oracle_refuses(records, jobs, message):
    with pytest.raises(AssertionError, match=message):
        oracle.Verdict(copy.deepcopy(records), jobs).check()
