"""A callee: records every request and answers as told. It runs in a process of its own (callee_server.py), so that
what the test does at the same time is not seen as lateness. Times are CLOCK_MONOTONIC, comparable with the test's
time.monotonic(); `wall` is Unix time."""
import json
import pathlib
import socket
import sys

from .procs import Process, can_connect, free_ports, make_folder, wait_until

PIECE = 500  # records a question
SERVER = pathlib.Path(__file__).with_name("callee_server.py")


class Callee:
    """Several ports in one process: each may stand for an instance of a service."""

    def __init__(self, ports=1, name="callee", folder=None, server=SERVER):
        self.folder = pathlib.Path(folder or make_folder())
        [control_port] = free_ports(1)
        self.process = Process(name, [sys.executable, str(server), control_port], self.folder)
        self._control_port = control_port
        self._wanted = ports
        self._stream = None
        self.ports = []

    def start(self, timeout=10):
        self.process.start()
        wait_until(lambda: can_connect(self._control_port), timeout, "callee ready", alive=[self.process])
        self._stream = socket.create_connection(("127.0.0.1", self._control_port), timeout=60).makefile("rwb")
        self.ports = [self._ask(op="listen")["port"] for _ in range(self._wanted)]
        return self

    def end(self):
        if self._stream:
            self._stream.close()
        self.process.end(grace=0.5)

    def _ask(self, **question):
        self._stream.write(json.dumps(question).encode() + b"\n")
        self._stream.flush()
        line = self._stream.readline()
        assert line, f"callee ended\n{self.process.log_tail()}"
        answer = json.loads(line)
        assert "error" not in answer, answer
        return answer

    @property
    def port(self):
        return self.ports[0]

    def url(self, path="/", port=None):
        return f"http://127.0.0.1:{port or self.port}{path}"

    def behave(self, *rules):
        """Replace the rules. The first that matches a request counts; none: 200 at once.
        Matching: port, path (a prefix), times (only so many requests). Answer: status, headers, body, delay (seconds,
        or [from, to] at random), hang (no answer at all), hold (no answer before release()), reset (RST instead of an answer), close (FIN instead),
        last (the answer, then FIN)."""
        self._ask(op="rules", rules=list(rules))

    def release(self):
        """Answer what is held, all at once; how many there were, those counted that have gone meanwhile."""
        return self._ask(op="release")["count"]

    def down(self, port):
        """As if the instance was killed: its connections are reset, new ones refused."""
        self._ask(op="down", port=port)

    def up(self, port):
        """Listen again on a port that was down."""
        self._ask(op="listen", port=port)

    def add_port(self, tls=None):
        """TLS: {"cert", "key"} and perhaps "client_ca", paths of PEM files; its records have `sni` and `peer`."""
        self.ports.append(self._ask(op="listen", tls=tls)["port"])
        return self.ports[-1]

    def count(self):
        return self._ask(op="count")["count"]

    def records(self, since=0):
        """Requests in order of their arrival, each {n, at, wall, port, method, path, headers (names in lower case),
        body, status, done (when answered), aborted (when the client gave up)}."""
        return list(self.each(since))

    def each(self, since=0):
        """The same one by one, for those that are too many to keep. They are read in pieces, so that the callee goes on answering
        meanwhile."""
        while True:
            piece = self._ask(op="records", since=since, limit=PIECE)["records"]
            yield from piece
            since += len(piece)
            if len(piece) < PIECE:
                return

    def clear(self):
        self._ask(op="clear")

    def wait_for(self, count, timeout):
        """Wait until COUNT requests have arrived since the last clear()."""
        wait_until(lambda: self.count() >= count, timeout, f"{count} callbacks", alive=[self.process])
        return self.records()
