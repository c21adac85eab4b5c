"""A gRPC callee in a process of its own (grpc_callee_server.py), with the real grpcio. Told and asked as lib/callee.py's."""
import pathlib

from .callee import Callee

SERVER = pathlib.Path(__file__).with_name("grpc_callee_server.py")
PROTO = pathlib.Path(__file__).resolve().parents[3] / "callback/proto"


class GrpcCallee(Callee):
    """Rules match by port, method (a prefix), times. Answer: code (a name), details, delay in seconds, hang, trailing
    (metadata), zeros (so many, compressed, as the reply). Records: {n, at, wall, port, method, authority, metadata (name: value), request (of Fire, as a dict), message
    (base64), timeout (seconds that were left at arrival), peer, code}."""

    def __init__(self, ports=1, name="grpc-callee", folder=None):
        super().__init__(ports, name, folder, SERVER)

    def address(self, port=None):
        return f"127.0.0.1:{port or self.port}"

    def down(self, port, grace=0):
        """Stop listening; calls under way are cancelled after GRACE seconds."""
        self._ask(op="down", port=port, grace=grace)
