"""A cluster of MariaDB servers with Galera: each of them takes writes, and of what two change at once one is refused."""
import os
import pathlib
import re
import shutil
import subprocess

from .mariadb import MariaDB, template
from .procs import free_ports, make_folder, wait_until

PROVIDER = pathlib.Path("/usr/lib/galera/libgalera_smm.so")
JOINER = pathlib.Path(__file__).resolve().parents[2] / "tools/wsrep_sst_missed"
# Seconds until a server that does not answer is left out; the defaults (5, 15, 7.5) are for networks between data centres.
PATIENCE = "evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S;evs.install_timeout=PT4S"
ALONE = "gcomm://"


class GaleraNode(MariaDB):
    """One server of a GaleraCluster. After an absence it gets from another what it missed; a copy of another's data is never asked
    for, as all begin with the same, and the others keep the changes of a test."""

    def __init__(self, name, folder, number=0, options=(), data=None):
        assert PROVIDER.exists(), f"no {PROVIDER}: run `make deps-galera`"
        group, ist = free_ports(2)
        self.group_address = f"127.0.0.1:{group}"
        super().__init__(name, folder, options=(
            f"--server-id={number + 1}", "--binlog-format=ROW", "--log-slave-updates=ON", "--innodb-autoinc-lock-mode=2",
            # A server that is killed loses nothing that was handed to the kernel.
            "--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0", "--innodb-buffer-pool-size=128M",
            "--wsrep-on=ON", f"--wsrep-provider={PROVIDER}", f"--wsrep-node-name={name}", "--wsrep-slave-threads=2",
            f"--wsrep-node-address={self.group_address}", "--wsrep-gtid-mode=ON", "--wsrep-gtid-domain-id=7",
            f"--gtid-domain-id={number + 100}",
            f"--wsrep-provider-options=gmcast.listen_addr=tcp://{self.group_address};gcache.size=128M;"
            f"ist.recv_addr=127.0.0.1:{ist};{PATIENCE}", *options), data=data)
        # The server is another user, who may not look into the folder of the sources.
        shutil.copy(JOINER, self.folder)
        self.process.env = {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        self.plain_argv = list(self.process.argv)
        self.was_started = False

    def launch(self, address):
        """Start it as a member of the cluster at ADDRESS, and wait for nothing."""
        argv = [*self.plain_argv, f"--wsrep-cluster-address={address}", "--wsrep-sst-method=missed"]
        self.process.argv = [*argv, f"--wsrep-start-position={self.position(argv)}"] if self.was_started else argv
        self.process.start()
        self.was_started = True

    def join(self, address, timeout=60):
        """The same; returns when it takes writes."""
        self.launch(address)
        self.wait_primary(timeout)

    def wait_primary(self, timeout=60):
        wait_until(self.primary, timeout, f"{self.name} in the part with the majority", alive=[self.process])

    def position(self, argv):
        """Its place in the order of commits, as its data says: after a kill that is written nowhere else."""
        done = subprocess.run([*argv, "--wsrep-recover"], capture_output=True, text=True, errors="replace", check=False,
                              cwd=self.folder, timeout=120)
        found = re.findall(r"Recovered position: *(\S+)", done.stderr + done.stdout)
        assert found, f"{self.name}: no position recovered:\n{done.stderr[-2000:]}"
        return found[-1]

    def status(self, name):
        return self.sql(f"SHOW GLOBAL STATUS LIKE '{name}'")[0]["Value"]

    def primary(self):
        """Whether it takes statements: a part without a majority does not."""
        return self.ping() and self.status("wsrep_ready") == "ON" and self.status("wsrep_cluster_status") == "Primary"

    def isolate(self, on):
        """Cut off from the others, by a switch that Galera has for tests."""
        self.sql(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(on)}'")


def been_in_a_cluster():
    """The data of a server that was in a cluster of its own: all who begin with it are at the same place of the same history."""
    def make(folder):
        work = make_folder("carillon-galera-")
        node = GaleraNode("first", work)
        node.join(ALONE)
        node.process.term()
        for name in ("galera.cache", "gvwstate.dat", "binlog.*"):
            for path in node.data.glob(name):
                path.unlink()
        shutil.copytree(node.data, folder)
        shutil.rmtree(work)
    return template("galera", make)


class GaleraCluster:
    """COUNT servers."""

    def __init__(self, folder=None, count=3, options=()):
        self.folder = pathlib.Path(folder or make_folder())
        data = been_in_a_cluster()
        self.nodes = [GaleraNode(f"galera-{n + 1}", self.folder, n, options, data) for n in range(count)]
        self.address = ALONE + ",".join(n.group_address for n in self.nodes)

    def start(self):
        first, *others = self.nodes
        first.join(ALONE)
        for node in others:
            node.launch(self.address)
        for node in others:
            node.wait_primary()
        return self
