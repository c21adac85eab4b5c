"""The MySQL store against a real MariaDB: the contract that every store keeps, a random comparison with the store in
memory, and that comparison again while connections are cut, answers are lost and the server is killed.

tests/tools/store_contract_mysql.c does the work.
"""
import os
import pathlib
import random
import subprocess
import threading
import time

import pytest

from lib.proxy import Proxy

PASSWORD = "it's \\ a \" secret"
MODEL = "random_batches_leave_what_memory_holds"


def program():
    return pathlib.Path(os.environ["CARILLON_TOOLS"]) / "store_contract_mysql"


def pytest_generate_tests(metafunc):
    if "contract_test" in metafunc.fixturenames:
        names = subprocess.run([program(), "list"], capture_output=True, text=True, check=True, timeout=10).stdout.split()
        metafunc.parametrize("contract_test", names)


def environment(server, folder, through=None):
    server.sql("CREATE USER IF NOT EXISTS 'contract'@'%%' IDENTIFIED BY %s", (PASSWORD,))
    server.sql("GRANT ALL ON *.* TO 'contract'@'%' WITH GRANT OPTION")
    password_file = pathlib.Path(folder) / "password"
    password_file.write_text(PASSWORD + "\n", encoding="utf-8")
    env = dict(os.environ, CARILLON_TEST_MYSQL=server.address, CARILLON_TEST_MYSQL_USER="contract",
               CARILLON_TEST_MYSQL_PASSWORD_FILE=str(password_file))
    if through:
        env["CARILLON_TEST_MYSQL_THROUGH"] = through
    return env


def test_contract(contract_test, shared_mariadb, folder):
    done = subprocess.run([program(), contract_test], env=environment(shared_mariadb, folder), capture_output=True, text=True,
                          timeout=120, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("read, second", [(b"SELECT k.n, j.uid", "jobs SET {} WHERE version = 2"),
                                          (b"SELECT k.n, f.uid", "fires SET {} WHERE seq = 2")])
def test_a_row_that_moves_between_key_and_row_hides_no_other(read, second, shared_mariadb, folder):
    """The second of a page of two is moved away, as by whoever ends a fire that it holds, when its key was read and its row was not."""
    name = "a_row_that_moves_meanwhile_hides_no_other"
    moved = threading.Event()

    def move(data):
        if read in data and not moved.is_set():
            shared_mariadb.sql("UPDATE " + second.format("wake_ms = wake_ms + 1000000"), database=f"t_{name}"[:52])
            moved.set()

    proxy = Proxy(shared_mariadb.port)
    proxy.watch(move)
    done = subprocess.run([program(), name], env=environment(shared_mariadb, folder, proxy.address), capture_output=True, text=True,
                          timeout=120, check=False)
    proxy.close()
    assert moved.is_set()
    assert done.returncode == 0, done.stderr


def test_three_agents_make_one_store_at_once(shared_mariadb, folder):
    env = environment(shared_mariadb, folder)
    for turn in range(3):
        database = f"at_once_{turn}"
        shared_mariadb.sql(f"DROP DATABASE IF EXISTS {database}")
        started = [subprocess.Popen([program(), "open", database], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                   for _ in range(3)]
        outputs = [p.communicate(timeout=60) for p in started]
        assert all(p.returncode == 0 for p in started), outputs
        assert len({out for out, _ in outputs}) == 1, outputs
        assert shared_mariadb.sql("SELECT COUNT(*) AS n FROM slots", database=database) == [{"n": 64}]


def model_while(env, disturb):
    """The model test while DISTURB(running) is called again and again; how often it was."""
    times = 0
    process = subprocess.Popen([program(), MODEL], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seed = process.stdout.readline()
    print(seed)
    watchdog = threading.Timer(600, process.kill)
    watchdog.start()
    while process.poll() is None:
        disturb()
        times += 1
    watchdog.cancel()
    out, errors = process.communicate()
    assert process.returncode == 0, seed + out + errors
    return times


def wait_for_requests(proxy, count):
    """By what was done, not by time: a slow machine, which needs longer for each, gets on between two cuts all the same."""
    left, reached = [count], threading.Event()

    def seen(_):
        left[0] -= 1
        if left[0] <= 0:
            reached.set()

    proxy.watch(seen)
    reached.wait(1)
    time.sleep(random.uniform(0, 0.01))  # anywhere between two


# The first bytes of a query's packet after its length: a session is set up with the word COMMITTED too.
LOSE = {"cut": None, "commit": b"\x03COMMIT", "update": b"UPDATE (SELECT"}


@pytest.mark.parametrize("what", LOSE)
def test_lost_connections_and_answers_leave_the_right_rows(what, shared_mariadb, folder):
    proxy = Proxy(shared_mariadb.port)
    env = environment(shared_mariadb, folder, proxy.address)

    def disturb():
        if what == "cut":
            wait_for_requests(proxy, random.randint(5, 150))
            proxy.cut()
            time.sleep(0.02)
            proxy.heal()
        else:
            proxy.lose_reply(lambda data: LOSE[what] in data)
            proxy.lost.wait(0.5)
            time.sleep(random.uniform(0, 0.4))

    times = model_while(env, disturb)
    print(f"{times} times")
    proxy.close()
    assert times >= 5


def test_a_killed_server_loses_nothing(mariadb, folder):
    times = 0

    def disturb():
        nonlocal times
        time.sleep(0.4)
        if times < 3:
            mariadb.kill9()
            mariadb.restart()
            times += 1

    model_while(environment(mariadb, folder), disturb)
    assert times >= 2
