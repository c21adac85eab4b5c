"""Processes of the end-to-end tests: each has its own log file, is polled until ready, and is ended by its pid.

Three nets make sure that none outlives the tests: fixtures end what they started, atexit ends the rest, and the kernel
kills a child whose parent died (PR_SET_PDEATHSIG).
"""
import atexit
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pymysql

CACHE = pathlib.Path(os.environ.get("CARILLON_CACHE")
                     or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "carillon")
LOG_TAIL_LINES = 60
# Timeouts in the tests say what is quick on a machine of one's own. All waiting is stretched by this: it costs nothing
# when things go well, and a slow machine fails nothing.
SLACK = float(os.environ.get("IT_SLACK", "5"))
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)
_running = {}  # Process -> None, in order of their start
_started = []  # every Process ever started
_running_lock = threading.Lock()


class NotReady(AssertionError):
    """A condition did not come true in time."""


def wait_until(condition, timeout, what, interval=0.02, alive=()):
    """Poll CONDITION until it returns something true, and return that. Exceptions of the kind that a server not yet
    there causes count as false. Gives up at once when one of the processes ALIVE has ended, else after SLACK times
    TIMEOUT seconds."""
    timeout *= SLACK
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except NOT_YET as e:
            last = e
        for process in alive:
            if not process.alive():
                raise NotReady(f"{what}: {process.name} ended with {process.code}\n{process.log_tail()}")
        if time.monotonic() > end:
            raise NotReady(f"{what}: not within {timeout} s; last: {last!r}"
                           + "".join(f"\n{p.log_tail()}" for p in alive))
        time.sleep(interval)


class TransientError(Exception):
    """Raised by helpers for an answer that may become right by asking again."""


# A database that is coming up or joins others ends connections in the middle of a statement.
NOT_YET = (OSError, AssertionError, LookupError, ValueError, TransientError, pymysql.err.OperationalError)


def make_folder(prefix="carillon-it-"):
    """A new short-named folder that other users may enter (mariadbd does not run as root); removed at exit."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    if not os.environ.get("CARILLON_KEEP"):
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def free_ports(count, address="127.0.0.1"):
    """Ports chosen by the kernel. Each is left in TIME_WAIT: it can be bound with SO_REUSEADDR, as servers do, but the
    kernel gives it to nobody else for a minute, also not while its server is away between two starts."""
    listeners = []
    for _ in range(count):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, 0))
        s.listen(1)
        listeners.append(s)
    ports = []
    for s in listeners:
        ports.append(s.getsockname()[1])
        with socket.create_connection(s.getsockname()) as client:
            accepted, _ = s.accept()
            accepted.close()
            client.recv(1)
        s.close()
    return ports


def can_connect(port, address="127.0.0.1", timeout=1.0):
    try:
        socket.create_connection((address, port), timeout=timeout).close()
        return True
    except OSError:
        return False


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """One child process with a log file FOLDER/NAME.log that survives restarts."""

    def __init__(self, name, argv, folder, env=None):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.folder = pathlib.Path(folder)
        self.env = env
        self.log_path = self.folder / f"{name}.log"
        self.popen = None
        self.stopped = False
        self.started_at = 0.0
        self.life_at = 0  # where in the log its last start was

    def start(self):
        assert not self.alive(), f"{self.name} runs already"
        with open(self.log_path, "ab") as log:
            self.life_at = log.tell()
            self.popen = subprocess.Popen(  # pylint: disable=consider-using-with
                self.argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **(self.env or {})}, start_new_session=True, preexec_fn=_die_with_parent)
        self.stopped = False
        self.started_at = time.monotonic()
        with _running_lock:
            _running[self] = None
            if self not in _started:
                _started.append(self)
        return self

    @property
    def pid(self):
        return self.popen.pid

    @property
    def code(self):
        """Exit code, negative for a signal; None while it runs."""
        return self.popen.poll() if self.popen else None

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def wait(self, timeout):
        """Wait for its end, up to SLACK times TIMEOUT seconds; the exit code."""
        return self._wait(timeout * SLACK)

    def _wait(self, seconds):
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise NotReady(f"{self.name} did not end within {seconds} s\n{self.log_tail()}") from None
        with _running_lock:
            _running.pop(self, None)
        return code

    def signal(self, number):
        if self.alive():
            os.kill(self.pid, number)

    def kill9(self):
        """SIGKILL, and wait: afterwards its sockets are closed."""
        self.signal(signal.SIGKILL)
        return self.wait(10)

    def term(self, grace=30):
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(grace)

    def stop(self):
        """SIGSTOP: hung, but its sockets stay open. Returns when every thread stands: until then one may still answer."""
        self.signal(signal.SIGSTOP)
        wait_until(self._stands, 10, f"{self.name} stopped", interval=0.001)
        self.stopped = True

    def _stands(self):
        tasks = pathlib.Path(f"/proc/{self.pid}/task").glob("*/stat")
        return all(t.read_text().rsplit(")", 1)[1].split()[0] == "T" for t in tasks)

    def cont(self):
        self.signal(signal.SIGCONT)
        self.stopped = False

    def end(self, grace=5):
        """End it whatever state it is in: SIGTERM, after GRACE seconds SIGKILL."""
        if not self.alive():
            with _running_lock:
                _running.pop(self, None)
            return
        self.cont()
        self.signal(signal.SIGTERM)
        try:
            self._wait(grace)
        except NotReady:
            self.kill9()

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def life_text(self):
        """What it logged since its last start."""
        return self.log_path.read_bytes()[self.life_at:].decode(errors="replace")

    def log_tail(self, lines=LOG_TAIL_LINES):
        text = "\n".join(self.log_text().splitlines()[-lines:])
        return f"---- {self.name} ({self.log_path})\n{text}\n"


def running():
    with _running_lock:
        return list(_running)


def started_since(monotonic):
    """Processes that were started after that time or still run."""
    with _running_lock:
        return [p for p in _started if p.started_at >= monotonic or p.alive()]


def end_all(grace=5):
    """End every process still running, the youngest first."""
    for process in reversed(running()):
        try:
            process.end(grace)
        except Exception as e:  # pylint: disable=broad-except  # the others have to be ended all the same
            print(f"cannot end {process.name}: {e}", file=sys.stderr)


atexit.register(end_all, 1)
