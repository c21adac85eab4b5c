"""Fixtures of the end-to-end tests. See README.md."""
import json
import os
import pathlib
import signal
import time

import pytest

from lib import procs
from lib.callee import Callee
from lib.carillon import Cluster, RaftCluster
from lib.consul import Consul
from lib.mariadb import MariaDB
from lib.procs import wait_until
from lib.proxy import Proxy


# The files that take longest, first, so that no worker is left with one of them at the end (`make check-it` has two workers,
# which take whole files in this order).
SLOW_FILES = ("test_raft_cluster", "test_raft_voters",
              "test_failover", "test_cuts", "test_store_mysql", "test_servers_away", "test_consul", "test_retries",
              "test_safety", "test_schedules", "test_api", "test_many_jobs")


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.stem
        return SLOW_FILES.index(name) if name in SLOW_FILES else len(SLOW_FILES)

    items.sort(key=place)


def pytest_configure():
    """SIGTERM ends a run as Ctrl-C does. mariadbd changes its user, and the kernel then forgets that it should die with us."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture
def folder(request):
    """A folder of this test, for logs and data."""
    return procs.make_folder(f"carillon-it-{request.node.name[:20]}-")


@pytest.fixture(scope="session")
def shared_consul():
    """One Consul for tests that leave it alone. Whoever kills or stops it uses `consul`."""
    server = Consul("consul-shared").start()
    yield server
    server.end()


@pytest.fixture(scope="session")
def shared_mariadb():
    """One MariaDB for tests that leave it alone; each cluster has its own database in it."""
    server = MariaDB("mariadb-shared").start()
    yield server
    server.end()


@pytest.fixture(autouse=True)
def no_service_is_left(request):
    """What a test registered on the shared Consul goes with it: its callees do, and others may use its names."""
    yield
    if "shared_consul" in request.fixturenames:
        server = request.getfixturevalue("shared_consul")
        for instance in list(server.registered):
            server.deregister(instance)


@pytest.fixture
def consul(folder):
    """A Consul of this test alone, started."""
    server = Consul(folder=folder).start()
    yield server
    server.end()


@pytest.fixture
def mariadb(folder):
    """A MariaDB of this test alone, started."""
    server = MariaDB(folder=folder).start()
    yield server
    server.end()


@pytest.fixture
def callees(folder):
    """callees(ports=2) starts a callee process with that many ports."""
    started = []

    def start(ports=1):
        started.append(Callee(ports, f"callee{len(started)}", folder).start())
        return started[-1]

    yield start
    for callee in started:
        callee.end()


@pytest.fixture
def callee(callees):
    """A callee with one port, started."""
    return callees()


@pytest.fixture
def proxies():
    """proxies(port) puts a proxy in front of a port."""
    opened = []

    def start(port):
        opened.append(Proxy(port))
        return opened[-1]

    yield start
    for proxy in opened:
        proxy.close()


@pytest.fixture
def clusters(folder):
    """clusters(consul, mariadb, **options) makes a Cluster; its agents are ended with the test."""
    made = []

    def make(consul_server, mariadb_server, **kwargs):
        kwargs.setdefault("name", f"{os.path.basename(folder)[-8:].replace('_', '-').lower()}-{len(made)}")
        made.append(Cluster(consul_server, mariadb_server, folder=folder, **kwargs))
        return made[-1]

    yield make
    for cluster in made:
        cluster.end()


def pytest_generate_tests(metafunc):
    """A file that says STORES has its tests of `three` run on each of them, and those of `cluster` that are marked `every_store`."""
    stores = getattr(metafunc.module, "STORES", None)
    marked = metafunc.definition.get_closest_marker("every_store")
    if stores and ("three" in metafunc.fixturenames or marked):
        metafunc.parametrize("store", stores, scope="session")


@pytest.fixture(scope="session")
def store():
    """Where the jobs of `three` and `cluster` are kept."""
    return "mysql"


@pytest.fixture
def cluster(request, store, clusters, shared_consul):
    """A cluster on the shared servers, no agent started: cluster.start(3)."""
    if store == "mysql":
        yield clusters(shared_consul, request.getfixturevalue("shared_mariadb"))
        return
    folder = request.getfixturevalue("folder")
    made = RaftCluster(shared_consul, name=os.path.basename(folder)[-8:].replace("_", "-").lower(), folder=folder)
    yield made
    made.end()


@pytest.fixture
def raft_cluster(folder, consul):
    """A cluster whose log is its store, on a Consul of this test alone; no agent started."""
    made = RaftCluster(consul, name=os.path.basename(folder)[-8:].replace("_", "-").lower(), folder=folder,
                       config={"api": {"wait": "1s"}})  # most of what is asked of a minority is refused
    yield made
    made.end()


@pytest.fixture(scope="session")
def shared_clusters():
    """{store: cluster}, made when they are asked for first, until the end of the session."""
    made = {}
    yield made
    for one in made.values():
        one.end()


@pytest.fixture
def shared_cluster(request, store, shared_clusters, shared_consul):
    """Three agents that all tests use which only ask and write: whoever ends or stops one uses `cluster`."""
    if store not in shared_clusters:
        folder, name = procs.make_folder(f"carillon-it-{store}-"), f"shared-{store}"
        made = (RaftCluster(shared_consul, name=name, folder=folder) if store == "raft" else
                Cluster(shared_consul, request.getfixturevalue("shared_mariadb"), name=name, folder=folder))
        shared_clusters[store] = made
        made.start(3, timeout=60)
    return shared_clusters[store]


@pytest.fixture
def three(shared_cluster):
    """Its agents, all well."""
    wait_until(shared_cluster.settled, 20, "shared cluster settled")
    return shared_cluster.agents


@pytest.fixture
def service(shared_consul, callee):
    """The callee's name in Consul; it goes with the test."""
    name = f"svc-{callee.port}"
    instance = shared_consul.register(name, callee.port)
    yield name
    shared_consul.deregister(instance)


# ---- logs of everything that runs, when a test fails; counts for `make test`; nothing is skipped

_counts = {"passed": 0, "failed": 0}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: a test that cannot run has failed"
    if report.when == "call" and report.failed:
        # Also those that died in the test: their last words matter most.
        for process in procs.started_since(_begin.get(item.nodeid, 0.0)):
            report.sections.append((process.name, process.log_tail()))


_begin = {}


def pytest_runtest_setup(item):
    _begin[item.nodeid] = time.monotonic()


def pytest_runtest_logreport(report):
    if report.failed:
        _counts["failed"] += 1
    elif report.when == "call":
        _counts["passed"] += 1


def pytest_sessionfinish(session, exitstatus):
    procs.end_all()
    path = os.environ.get("CARILLON_RESULTS")
    if path and not hasattr(session.config, "workerinput"):  # the one who gets all workers' reports counts
        if exitstatus != 0 and _counts["failed"] == 0:
            _counts["failed"] = 1  # collection failed, or no test was found
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text(json.dumps(_counts), encoding="utf-8")


# Tests whose output is no figure of the program.
NO_FIGURES = ("test_harness", "test_gates", "test_cli", "test_store_mysql")


def pytest_terminal_summary(terminalreporter):
    """What tests measured is shown also when they passed."""
    terminalreporter.section("figures")
    for report in terminalreporter.stats.get("passed", []):
        name = report.nodeid.split("::")[0]
        if report.when == "call" and report.capstdout.strip() and not any(n in name for n in NO_FIGURES):
            terminalreporter.write_line(report.nodeid)
            for line in report.capstdout.strip().splitlines():
                terminalreporter.write_line(f"    {line}")
