"""The callee as a process of its own: fast HTTP/1.1 on several ports, everything recorded, told how to misbehave.

Run by lib/callee.py: `python callee_server.py CONTROL_PORT`. Control is JSON, a line a question and a line an answer.
It is written on asyncio's protocols, without an HTTP library, because a callee that is slow itself would make the
agent look late: the arrival time is taken as soon as a request's head is complete, before anything else.
"""
import asyncio
import base64
import gc
import json
import random
import socket
import ssl
import struct
import sys
import time

REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 400: "Bad Request", 404: "Not Found",
           410: "Gone", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}
HEAD_BYTES_MAX = 65536


class Server:
    """The ports, the rules and the records."""

    def __init__(self):
        self.records = []
        self.rules = []
        self.held = []         # connections whose answer waits for the release
        self.listeners = {}    # port -> asyncio server, None while down
        self.connections = {}  # port -> set of Connection

    async def listen(self, port=0, tls=None):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        port = s.getsockname()[1]
        connections = self.connections.setdefault(port, set())
        self.listeners[port] = await asyncio.get_running_loop().create_server(
            lambda: Connection(self, port, connections), sock=s, backlog=1024, ssl=tls and context(**tls))
        return port

    async def down(self, port):
        """Connections reset and new ones refused, as if the callee was killed."""
        self.listeners[port].close()
        self.listeners[port] = None
        for connection in list(self.connections[port]):
            connection.reset()

    def rule_for(self, port, path):
        for rule in self.rules:
            if rule.get("port") not in (None, port) or not path.startswith(rule.get("path", "")):
                continue
            if "times" in rule:
                if rule["times"] <= 0:
                    continue
                rule["times"] -= 1
            return rule
        return {}


def context(cert, key, client_ca=None):
    """TLS with this certificate; with CLIENT_CA only for clients that show a certificate of it."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    tls.sni_callback = lambda connection, name, _: setattr(connection, "sni", name)
    if client_ca:
        tls.load_verify_locations(client_ca)
        tls.verify_mode = ssl.CERT_REQUIRED
    return tls


class Connection(asyncio.Protocol):
    """One client connection: requests one after the other."""

    def __init__(self, server, port, connections):
        self.server, self.port, self.connections = server, port, connections
        self.buffer = bytearray()
        self.record = None   # of the request whose body or answer is outstanding
        self.rule = None     # how to answer it
        self.body_left = 0   # bytes, or -1: chunked
        self.answering = False
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.connections.add(self)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc):
        self.connections.discard(self)
        if self.record is not None and self.record["done"] is None:
            self.record["aborted"] = time.monotonic()

    def data_received(self, data):
        self.buffer += data
        self.advance()

    def advance(self):
        """Go as far as the bytes at hand allow."""
        while not self.answering and self.transport and not self.transport.is_closing():
            if self.record is None and not self.read_head():
                return
            if not self.read_body():
                return
            self.answering = True
            self.answer()

    def read_head(self):
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > HEAD_BYTES_MAX:
                self.reset()
            return False
        mono, wall = time.monotonic(), time.time()
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        del self.buffer[:end + 4]
        method, path, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self.record = {"n": len(self.server.records), "at": mono, "wall": wall, "port": self.port, "method": method,
                       "path": path, "headers": headers, "body": b"", "status": None, "done": None, "aborted": None}
        tls = self.transport.get_extra_info("ssl_object")
        if tls:
            self.record["sni"] = getattr(tls, "sni", None)
            self.record["peer"] = (tls.getpeercert() or {}).get("subject")
        self.server.records.append(self.record)
        # Chosen at arrival: rules with a count are used up in the order in which requests arrive.
        self.rule = self.server.rule_for(self.port, path)
        self.body_left = -1 if headers.get("transfer-encoding", "").lower() == "chunked" else \
            int(headers.get("content-length", 0))
        if headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def read_body(self):
        if self.body_left < 0:
            return self.read_chunks()
        if len(self.buffer) < self.body_left:
            return False
        self.record["body"] = bytes(self.buffer[:self.body_left])
        del self.buffer[:self.body_left]
        return True

    def read_chunks(self):
        while True:
            end = self.buffer.find(b"\r\n")
            if end < 0:
                return False
            size = int(self.buffer[:end].split(b";")[0], 16)
            if len(self.buffer) < end + 2 + size + 2:
                return False
            self.record["body"] += bytes(self.buffer[end + 2:end + 2 + size])
            del self.buffer[:end + 2 + size + 2]
            if size == 0:
                return True

    def answer(self):
        rule = self.rule
        if rule.get("hang"):
            return
        if rule.get("hold"):
            self.server.held.append(self)
            return
        delay = rule.get("delay", 0)
        if isinstance(delay, list):
            delay = random.uniform(*delay)
        if delay:
            asyncio.get_running_loop().call_later(delay, self.answer_now)
        else:
            self.answer_now()

    def answer_now(self):
        rule, record = self.rule, self.record
        if self.transport.is_closing():
            return
        if rule.get("reset") or rule.get("close"):
            record["done"] = time.monotonic()
            self.reset() if rule.get("reset") else self.transport.close()
            return
        status = rule.get("status", 200)
        body = rule.get("body", "").encode()
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", f"Content-Length: {len(body)}"]
        lines += [f"{k}: {v}" for k, v in rule.get("headers", {}).items()]
        if rule.get("last"):
            lines.append("Connection: close")
        self.transport.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        record["status"], record["done"] = status, time.monotonic()
        if rule.get("last"):
            self.transport.close()
        self.record, self.answering = None, False
        if self.buffer:
            self.advance()

    def reset(self):
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def as_json(record):
    body = record["body"]
    try:
        return {**record, "body": body.decode()}
    except UnicodeDecodeError:
        return {**record, "body": None, "body_base64": base64.b64encode(body).decode()}


async def obey(server, question):
    op = question["op"]
    if op == "listen":
        return {"port": await server.listen(question.get("port", 0), question.get("tls"))}
    if op == "down":
        return await server.down(question["port"]) or {}
    if op == "rules":
        server.rules = question["rules"]
        return {}
    if op == "count":
        return {"count": len(server.records)}
    if op == "records":
        since = question["since"]
        return {"records": [as_json(r) for r in server.records[since:since + question["limit"]]]}
    if op == "release":
        held, server.held = server.held, []
        for connection in held:
            connection.answer_now()
        return {"count": len(held)}
    if op == "clear":
        server.records.clear()
        return {}
    raise ValueError(f"no such operation: {op}")


async def control(server, reader, writer):
    while line := await reader.readline():
        try:
            answer = await obey(server, json.loads(line))
        except Exception as e:  # pylint: disable=broad-except  # the test is told instead
            answer = {"error": repr(e)}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
    writer.close()


async def main():
    gc.disable()  # records are no cycles, and a collection over many of them would show as lateness
    server = Server()
    port = int(sys.argv[1])
    serving = await asyncio.start_server(lambda r, w: control(server, r, w), "127.0.0.1", port, limit=1 << 26)
    async with serving:
        await serving.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
