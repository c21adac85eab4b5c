"""A gRPC server that records what it gets and answers as told. Run by lib/grpc_callee.py. Control is JSON, a line a question and a
line an answer. The messages are read by what grpcio-tools makes of the proto that carillon ships."""
import base64
import concurrent.futures
import json
import pathlib
import socket
import sys
import threading
import time

import grpc
from google.protobuf import json_format

# In the place of this folder, whose carillon.py is not the package of the proto.
sys.path[0] = str(pathlib.Path(__file__).resolve().parents[3] / "callback/proto")
callback_pb2, _ = grpc.protos_and_services("carillon/v1/callback.proto")
FIRE = "/carillon.v1.Callback/Fire"


class Server(grpc.GenericRpcHandler):
    """The ports, the rules and the records."""

    def __init__(self):
        self.lock = threading.Lock()
        self.records, self.rules, self.servers = [], [], {}

    def listen(self, port=0, tls=None):
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(128), options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)])
        server.add_generic_rpc_handlers([Port(self, lambda: port)])
        address = f"127.0.0.1:{port}"
        port = server.add_secure_port(address, credentials(**tls)) if tls else server.add_insecure_port(address)
        server.start()
        self.servers[port] = server
        return port

    def down(self, port, grace=0):
        self.servers.pop(port).stop(grace).wait()

    def rule_for(self, record):
        for rule in self.rules:
            if rule.get("port") not in (None, record["port"]) or not record["method"].startswith(rule.get("method", "")):
                continue
            if "times" in rule:
                if rule["times"] <= 0:
                    continue
                rule["times"] -= 1
            return rule
        return {}

    def service(self, handler_call_details):
        raise NotImplementedError

    def take(self, port, method, message, context):
        metadata = dict(context.invocation_metadata())
        record = {"at": time.monotonic(), "wall": time.time(), "port": port, "method": method, "peer": context.peer(),
                  "timeout": context.time_remaining(), "message": base64.b64encode(message).decode(), "code": None,
                  "metadata": {k: v if isinstance(v, str) else base64.b64encode(v).decode() for k, v in metadata.items()}}
        if method == FIRE:
            record["request"] = json_format.MessageToDict(callback_pb2.FireRequest.FromString(message),
                                                          preserving_proto_field_name=True)
        with self.lock:
            record["n"] = len(self.records)
            self.records.append(record)
            rule = self.rule_for(record)
        self.answer(record, rule, context)
        if "zeros" in rule:
            context.set_compression(grpc.Compression.Gzip)
            return bytes(rule["zeros"])
        return b"" if method == FIRE else b"thank you"

    @staticmethod
    def answer(record, rule, context):
        if rule.get("hang"):
            over = threading.Event()
            if context.add_callback(over.set):
                over.wait()
            context.abort(grpc.StatusCode.CANCELLED, "hung")
        time.sleep(rule.get("delay", 0))
        record["code"] = rule.get("code", "OK")
        if rule.get("trailing"):
            context.set_trailing_metadata(list(rule["trailing"].items()))
        if record["code"] != "OK":
            context.abort(grpc.StatusCode[record["code"]], rule.get("details", ""))


class Port(grpc.GenericRpcHandler):
    """Any unary method of one port; messages stay bytes."""

    def __init__(self, server, port):
        self.server, self.port = server, port

    def service(self, handler_call_details):
        method = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(
            lambda message, context: self.server.take(self.port(), method, message, context))


def credentials(cert, key, client_ca=None):
    read = lambda path: pathlib.Path(path).read_bytes() if path else None
    return grpc.ssl_server_credentials([(read(key), read(cert))], root_certificates=read(client_ca),
                                       require_client_auth=client_ca is not None)


def obey(server, question):
    op = question["op"]
    if op == "listen":
        return {"port": server.listen(question.get("port", 0), question.get("tls"))}
    if op == "down":
        return server.down(question["port"], question.get("grace", 0)) or {}
    with server.lock:
        if op == "rules":
            server.rules = question["rules"]
        elif op == "count":
            return {"count": len(server.records)}
        elif op == "records":
            return {"records": server.records[question["since"]:question["since"] + question["limit"]]}
        elif op == "clear":
            server.records.clear()
        else:
            raise ValueError(f"no such operation: {op}")
    return {}


def main():
    server = Server()
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=16)
    while True:
        stream = listener.accept()[0].makefile("rwb")
        for line in stream:
            try:
                answer = obey(server, json.loads(line))
            except Exception as e:  # pylint: disable=broad-except  # the test is told instead
                answer = {"error": repr(e)}
            stream.write(json.dumps(answer).encode() + b"\n")
            stream.flush()


if __name__ == "__main__":
    main()
