"""A TCP proxy that can be told to misbehave, to cut one process off from one other only.

It runs as threads of the test: what passes through it is an agent's control traffic, not the callbacks whose lateness
is measured.
"""
import os
import pathlib
import selectors
import socket
import threading

CHUNK_BYTES = 65536
SO_LINGER_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"


def owns(pid, port):
    """Whether process PID has a connected socket whose own port is PORT."""
    # Asked for each connection that is tried while it is refused; there may be thousands of rows, of other tests' too.
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table if f":{port:04X} " in line]
    inodes = {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[2] != "00000000:0000"}
    for fd in pathlib.Path(f"/proc/{pid}/fd").glob("*"):
        try:
            name = os.readlink(fd)
        except OSError:
            continue
        if name.startswith("socket:[") and name[8:-1] in inodes:
            return True
    return False


class Proxy:
    """Listens on 127.0.0.1:PORT (from the kernel) and passes to (HOST, PORT) of the target.

    cut()         existing connections are reset, new ones refused, until heal()
    stall()       nothing passes, connections stay open and new ones are accepted (a network that swallows packets)
    drop_replies() requests reach the target, their answers are swallowed
    lose_reply(when) once: the first request for whose bytes WHEN is true reaches the target; when the target answers,
                  the connection is reset instead. Sets the event `lost`
    refuse(pid)   connections of that process are reset, new ones too, until heal(); others pass
    hold_reply(when) the same, but the connection stays open and silent
    heal()        everything passes again; what was stalled is delivered; a connection with a swallowed reply is reset

    reset()       existing connections are reset, new ones pass
    watch(seen)   SEEN is called with the bytes of each request, on the proxy's thread
    choose        called for each new connection; the (HOST, PORT) that it gets
    """

    def __init__(self, target_port, target_host="127.0.0.1", port=0):
        self.choose = lambda: (target_host, target_port)
        self._lock = threading.RLock()
        self._mode = "pass"
        self._when = None
        self._seen = None
        self._keep = False   # of the reply that is lost: its connection
        self._pairs = {}     # socket -> its peer, both ways
        self._clients = set()
        self._gaps = set()   # sockets to a target, some of whose bytes were swallowed
        self._doomed = set() # sockets to a target whose next bytes end the connection
        self._refused = None # a process that is not let through
        self._selector = selectors.DefaultSelector()
        self._listener = None
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._selector.register(self._wake_r, selectors.EVENT_READ, self._on_wake)
        self.port = port
        self._listen()
        self.address = f"127.0.0.1:{self.port}"
        self.lost = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    # ---- what tests call

    def cut(self):
        with self._lock:
            self._mode = "cut"
            self._unlisten()
            for client in list(self._clients):
                self._close_pair(client, reset=True)
        self._wake()

    def reset(self):
        with self._lock:
            for client in list(self._clients):
                self._close_pair(client, reset=True)
        self._wake()

    def stall(self):
        with self._lock:
            self._mode = "stall"
        self._wake()

    def drop_replies(self):
        with self._lock:
            self._mode = "drop"
        self._wake()

    def lose_reply(self, when):
        with self._lock:
            self.lost.clear()
            self._when, self._keep = when, False

    def hold_reply(self, when):
        with self._lock:
            self.lost.clear()
            self._when, self._keep = when, True

    def watch(self, seen):
        with self._lock:
            self._seen = seen

    def refuse(self, pid):
        with self._lock:
            self._refused = pid
            for client in [c for c in self._clients if owns(pid, c.getpeername()[1])]:
                self._close_pair(client, reset=True)
        self._wake()

    def heal(self):
        with self._lock:
            self._mode = "pass"
            self._refused = None
            if self._listener is None:
                self._listen()
            for s in list(self._gaps):
                self._close_pair(s, reset=True)
        self._wake()

    def close(self):
        with self._lock:  # or the thread, seeing that it is to end, closes what wakes it before that is used
            if not self._closing:
                self._closing = True
                self._wake()
        self._thread.join(5)

    def connections(self):
        with self._lock:
            return len(self._clients)

    # ---- one thread, one selector; the lock is held for every change of the tables

    def _wake(self):
        self._wake_w.send(b"x")

    def _on_wake(self, s):
        s.recv(CHUNK_BYTES)

    def _listen(self):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", self.port))
        s.listen(128)
        s.setblocking(False)
        self.port = s.getsockname()[1]
        self._listener = s
        self._selector.register(s, selectors.EVENT_READ, self._on_accept)

    def _unlisten(self):
        if self._listener:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _run(self):
        while not self._closing:
            # While stalled, readable sockets are left alone: the kernel's buffers fill up as on a dead link.
            if self._mode == "stall":
                self._stalled_turn()
                continue
            for key, _ in self._selector.select(1.0):
                with self._lock:
                    if key.fileobj.fileno() >= 0 and self._mode != "stall":
                        key.data(key.fileobj)
        with self._lock:
            self._unlisten()
            for client in list(self._clients):
                self._close_pair(client, reset=False)
            self._selector.close()
            self._wake_r.close()
            self._wake_w.close()

    def _stalled_turn(self):
        """Only wake-ups are served; the backlog of the listening socket accepts for us."""
        with selectors.DefaultSelector() as only_wake:
            only_wake.register(self._wake_r, selectors.EVENT_READ)
            if only_wake.select(1.0):
                self._on_wake(self._wake_r)

    def _on_accept(self, listener):
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        if self._refused is not None and owns(self._refused, client.getpeername()[1]):
            self._reset(client)
            return
        try:
            target = socket.create_connection(self.choose(), timeout=2)
        except OSError:
            self._reset(client)
            return
        self._clients.add(client)
        for a, b in ((client, target), (target, client)):
            a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[a] = b
            self._selector.register(a, selectors.EVENT_READ, self._on_data)

    def _on_data(self, s):
        peer = self._pairs.get(s)
        if peer is None:
            return
        try:
            s.setblocking(False)
            data = s.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._close_pair(s, reset=True)
            return
        if not data:
            self._close_pair(s, reset=False)
            return
        if s in self._clients:
            if self._seen:
                self._seen(data)
            if self._when and self._when(data):
                self._when = None
                self._doomed.add(peer)
        elif s in self._doomed:
            self.lost.set()  # before the client can see it
            if self._keep:
                self._gaps.add(s)
            else:
                self._close_pair(s, reset=True)
            return
        elif self._mode == "drop":
            self._gaps.add(s)
            return
        try:
            peer.settimeout(5)
            peer.sendall(data)
        except OSError:
            self._close_pair(s, reset=True)

    def _close_pair(self, s, reset):
        peer = self._pairs.get(s)
        for one in (s, peer):
            if one is None or one not in self._pairs:
                continue
            del self._pairs[one]
            self._clients.discard(one)
            self._gaps.discard(one)
            self._doomed.discard(one)
            self._selector.unregister(one)
            if reset:
                self._reset(one)
            else:
                one.close()

    @staticmethod
    def _reset(s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, SO_LINGER_RESET)
        s.close()
