"""The MySQL store on a Galera cluster, whose servers learn a little later what another one committed: nothing may depend on which of
them a connection is to. `make chaos STORE=galera` runs agents on one while its servers die."""
import itertools
import subprocess

import pytest

from lib.galera import GaleraCluster
from lib.procs import wait_until
from test_store_mysql import MODEL, environment, program

# Of the store's contract what reads after it wrote; all of it passes but what is about locks that others see.
CONTRACT = ("every_write_repeats_as_success", "slots_of_a_batch_move_with_it", "loads_page_in_key_order_without_gaps",
            "killed_connections_cost_no_call")


@pytest.fixture(scope="module")
def galera():
    cluster = GaleraCluster().start()
    yield cluster
    for node in cluster.nodes:
        node.end()


@pytest.fixture
def in_turn(galera, proxies):
    """An address at which each connection gets to the next server."""
    turns = itertools.cycle([("127.0.0.1", node.port) for node in galera.nodes])
    proxy = proxies(0)
    proxy.choose = lambda: next(turns)
    return proxy.address


def contract(galera, folder, in_turn):
    env = environment(galera.nodes[0], folder, in_turn)
    for node in galera.nodes:
        wait_until(lambda node=node: node.sql("SELECT User FROM mysql.user WHERE User = 'contract'"), 20, f"the user at {node.name}")
    return env


def test_contract_while_each_connection_is_to_another_server(galera, folder, in_turn):
    env = contract(galera, folder, in_turn)
    for name in CONTRACT:
        done = subprocess.run([program(), name], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


def test_model_while_each_connection_is_to_another_server_and_one_refuses_all(galera, folder, in_turn):
    env = contract(galera, folder, in_turn)
    cut = galera.nodes[2]
    cut.isolate(True)
    wait_until(lambda: not cut.primary(), 20, "the server that is cut off refuses")
    done = subprocess.run([program(), MODEL], env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cut.isolate(False)
    wait_until(cut.primary, 30, "the server is back")
