"""A real mariadbd with durable commits, started from a copy of a template that is made once."""
import fcntl
import os
import pathlib
import pwd
import shutil
import subprocess

import pymysql

from .procs import CACHE, Process, free_ports, make_folder, wait_until

SERVER_USER = "nobody"  # mariadbd wants to be no root; used when the tests are
LOG_FILE_SIZE = "32M"   # of the template as of the server: they have to agree


def program(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    assert path, f"no {name}: run `make deps`"
    return path


def template(kind, make):
    """A data folder to be copied; on first use MAKE(folder) makes it."""
    version = subprocess.check_output([program("mariadbd"), "--no-defaults", "--version"], text=True).split()[2]
    folder = CACHE / f"mariadb-{kind}-{version}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"mariadb-{kind}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder


def never_started():
    """The data of a server that was never started."""
    return template("template", lambda folder: subprocess.run(
        [program("mariadb-install-db"), "--no-defaults", f"--datadir={folder}", "--skip-test-db",
         "--auth-root-authentication-method=normal", f"--innodb-log-file-size={LOG_FILE_SIZE}",
         f"--user={pwd.getpwuid(os.getuid()).pw_name}"],
        check=True, stdout=subprocess.DEVNULL))


class MariaDB:
    """One server with a binlog; port, socket and data stay the same over restarts.

    It has a folder for temporary tables of its own: a server that starts removes all that it finds there, and the one whose
    they are then crashes in using them."""

    def __init__(self, name="mariadb", folder=None, options=(), data=None, disk=None):
        """DATA: what it begins with, a folder that is copied. DISK: a lib.disk.Disk for its data."""
        self.folder = pathlib.Path(folder or make_folder())
        self.name = name
        inside = (disk.place if disk else self.folder) / f"{name}-data"
        self.data = disk.outside / inside.name if disk else inside
        self.socket = self.folder / f"{name}.sock"
        [self.port] = free_ports(1)
        self.address = f"127.0.0.1:{self.port}"
        self._copy(data or never_started())
        argv = [program("mariadbd"), "--no-defaults", f"--datadir={inside}", f"--socket={self.socket}",
                f"--pid-file={inside / 'pid'}", f"--tmpdir={self.folder}", "--bind-address=127.0.0.1", f"--port={self.port}",
                "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1", "--log-bin=binlog",
                "--server-id=1", f"--innodb-log-file-size={LOG_FILE_SIZE}", "--innodb-buffer-pool-size=256M",
                "--max-connections=300", "--character-set-server=utf8mb4", *options]
        if os.getuid() == 0:
            argv.append(f"--user={SERVER_USER}")
        self.process = Process(name, disk.wrap(argv) if disk else argv, self.folder)

    def _copy(self, data):
        subprocess.run(["cp", "-r", "--reflink=auto", str(data), str(self.data)], check=True)
        if os.getuid() == 0:
            user = pwd.getpwnam(SERVER_USER)
            subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", str(self.data)], check=True)
            os.chown(self.folder, user.pw_uid, -1)  # it makes its socket here

    def start(self, timeout=30):
        self.process.start()
        wait_until(self.ping, timeout, f"{self.name} ready", alive=[self.process])
        return self

    def ping(self):
        try:
            return self.sql("SELECT 1")
        except pymysql.err.OperationalError:
            return None

    def kill9(self):
        self.process.kill9()

    def stop(self):
        self.process.stop()

    def cont(self):
        self.process.cont()

    def restart(self, timeout=30):
        """Start again on the same port with the same data."""
        self.process.end(grace=20)
        return self.start(timeout)

    def end(self):
        # Nothing of it will be read again, so it need not shut down in order.
        self.process.end(grace=0.5)

    # ---- SQL

    def connect(self, database=None, timeout=10):
        """A connection as the server's root, by its socket, with autocommit."""
        return pymysql.connect(unix_socket=str(self.socket), user="root", database=database, autocommit=True,
                               connect_timeout=timeout, read_timeout=timeout, write_timeout=timeout,
                               cursorclass=pymysql.cursors.DictCursor)

    def sql(self, statement, args=None, database=None):
        """Run one statement on a connection of its own; the rows as dicts."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, args)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def create(self, database="carillon", user="carillon", password="carillon-test"):
        """An empty database and a user who owns it; {host, port, user, password, database}."""
        self.sql(f"DROP DATABASE IF EXISTS `{database}`")
        self.sql(f"CREATE DATABASE `{database}` CHARACTER SET utf8mb4")
        self.sql(f"CREATE USER IF NOT EXISTS '{user}'@'%%' IDENTIFIED BY %s", (password,))
        self.sql(f"GRANT ALL ON `{database}`.* TO '{user}'@'%'")
        return {"host": "127.0.0.1", "port": self.port, "user": user, "password": password, "database": database}
