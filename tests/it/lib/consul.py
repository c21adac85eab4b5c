"""A real Consul 1.8.7 agent in server mode, and its HTTP API."""
import base64
import json
import os
import pathlib
import shutil

import requests

from .procs import CACHE, SLACK, Process, TransientError, free_ports, make_folder, wait_until


def program():
    path = os.environ.get("CARILLON_CONSUL") or CACHE / "consul-1.8/usr/bin/consul"
    assert pathlib.Path(path).exists(), f"no Consul at {path}: run `make deps`"
    return path


class Consul:
    """One server that is its own cluster. Ports and data stay the same over restarts, unless wiped."""

    def __init__(self, name="consul", folder=None, tls=None):
        """TLS: an Authority; the API is then https alone, and wants a certificate of it."""
        self.folder = pathlib.Path(folder or make_folder())
        self.name = name
        self.registered = set()  # ids of instances
        self.data = self.folder / f"{name}-data"
        ports = free_ports(4)
        self.http_port = ports[0]
        self.address = f"127.0.0.1:{self.http_port}"
        self.url = f"http://{self.address}"
        self.web = requests.Session()
        secure = {}
        if tls:
            self.url = f"https://{self.address}"
            own = tls.issue(name, "IP:127.0.0.1")
            self.web.trust_env = False  # an environment may name authorities of its own
            self.web.verify, self.web.cert = tls.ca, (own.cert, own.key)
            secure = {"ca_file": tls.ca, "cert_file": own.cert, "key_file": own.key, "verify_incoming_https": True}
        config = self.folder / f"{name}.json"
        config.write_text(json.dumps({
            "node_name": name, "server": True, "bootstrap_expect": 1, "data_dir": str(self.data),
            "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
            **secure,
            "ports": {"http": -1 if tls else ports[0], "https": ports[0] if tls else -1, "server": ports[1], "serf_lan": ports[2], "serf_wan": ports[3],
                      "dns": -1, "grpc": -1},
            "performance": {"raft_multiplier": 1},
            "leave_on_terminate": False, "disable_update_check": True, "connect": {"enabled": False},
            "log_level": "INFO",
        }))
        self.process = Process(name, [program(), "agent", f"-config-file={config}"], self.folder)

    def start(self, timeout=30):
        """Start, and wait until there is a leader and the node's own health check (which sessions bind to)."""
        self.process.start()
        return self.wait_ready(timeout)

    def wait_ready(self, timeout=30):
        wait_until(self._ready, timeout, f"{self.name} ready", alive=[self.process])
        return self

    def _ready(self):
        if not self._call("GET", "/v1/status/leader").json():
            return False
        checks = self._call("GET", f"/v1/health/node/{self.name}").json()
        return any(c["CheckID"] == "serfHealth" and c["Status"] == "passing" for c in checks)

    def kill9(self):
        self.process.kill9()

    def stop(self):
        self.process.stop()

    def cont(self):
        self.process.cont()

    def restart(self, wipe=False, timeout=30):
        """Start again on the same ports, with the data it had or (WIPE) with none."""
        self.process.end()
        if wipe:
            shutil.rmtree(self.data)
        return self.start(timeout)

    def end(self):
        self.process.end()

    # ---- HTTP API

    def _call(self, method, path, timeout=10, **kwargs):
        answer = self.web.request(method, self.url + path, timeout=timeout * SLACK, **kwargs)
        if answer.status_code >= 500:
            raise TransientError(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer

    def put(self, key, value):
        """Value is text or bytes."""
        assert self._call("PUT", f"/v1/kv/{key}", data=value).json() is True

    def get(self, key):
        """The value's bytes, or None."""
        answer = self._call("GET", f"/v1/kv/{key}")
        if answer.status_code == 404:
            return None
        return base64.b64decode(answer.json()[0]["Value"] or "")

    def entries(self, prefix):
        """{key: bytes} of everything below PREFIX."""
        answer = self._call("GET", f"/v1/kv/{prefix}", params={"recurse": "true"})
        if answer.status_code == 404:
            return {}
        return {e["Key"]: base64.b64decode(e["Value"] or "") for e in answer.json()}

    def delete(self, key, recurse=False):
        self._call("DELETE", f"/v1/kv/{key}", params={"recurse": "true"} if recurse else {})

    def members(self, cluster="default"):
        """{member key: value as JSON} of a carillon cluster."""
        prefix = f"carillon/{cluster}/members/"
        return {k[len(prefix):]: json.loads(v) for k, v in self.entries(prefix).items()}

    def sessions(self):
        return self._call("GET", "/v1/session/list").json()

    def destroy_session(self, session):
        assert self._call("PUT", f"/v1/session/destroy/{session}").json() is True

    def register(self, service, port, instance=None, address="127.0.0.1", tags=(), meta=None, weight=None, check=None):
        """Register an instance of a service and return its id. Without CHECK it gets a TTL check that passes for a day
        and that fail() and heal() turn; CHECK is a Consul check definition, for example {"TCP": …, "Interval": "1s"}."""
        instance = instance or f"{service}-{port}"
        check = check or {"CheckID": f"service:{instance}", "TTL": "24h", "Status": "passing"}
        body = {"Name": service, "ID": instance, "Address": address, "Port": port, "Tags": list(tags),
                "Meta": meta or {}, "Check": check}
        if weight is not None:
            body["Weights"] = {"Passing": weight, "Warning": 1}
        answer = self._call("PUT", "/v1/agent/service/register", json=body)
        assert answer.status_code == 200, answer.text
        self.registered.add(instance)
        return instance

    def register_elsewhere(self, node, service, port, meta=None, node_meta=None, weight=None):
        """An instance on another NODE, passing; unregister_node() takes it away."""
        entry = {"Service": service, "ID": f"{service}-{port}", "Address": "127.0.0.1", "Port": port, "Meta": meta or {}}
        if weight is not None:
            entry["Weights"] = {"Passing": weight, "Warning": 1}
        body = {"Node": node, "Address": "127.0.0.1", "NodeMeta": node_meta or {}, "Service": entry,
                "Check": {"Node": node, "CheckID": f"service:{service}-{port}", "ServiceID": f"{service}-{port}",
                          "Name": "up", "Status": "passing"}}
        assert self._call("PUT", "/v1/catalog/register", json=body).json() is True

    def unregister_node(self, node):
        assert self._call("PUT", "/v1/catalog/deregister", json={"Node": node}).json() is True

    def deregister(self, instance):
        self.registered.discard(instance)
        assert self._call("PUT", f"/v1/agent/service/deregister/{instance}").status_code == 200

    def heal(self, instance):
        assert self._call("PUT", f"/v1/agent/check/pass/service:{instance}").status_code == 200

    def fail(self, instance):
        assert self._call("PUT", f"/v1/agent/check/fail/service:{instance}").status_code == 200

    def health(self, service, passing=True):
        """Entries of /v1/health/service."""
        params = {"passing": "true"} if passing else {}
        return self._call("GET", f"/v1/health/service/{service}", params=params).json()

    def passing(self, service):
        """Sorted (address, port) of the healthy instances."""
        return sorted((e["Service"]["Address"] or e["Node"]["Address"], e["Service"]["Port"])
                      for e in self.health(service))


class AclConsul(Consul):
    """Denies all that has no token."""

    MASTER = "11111111-2222-3333-4444-555555555555"

    def __init__(self, folder, **kwargs):
        super().__init__(folder=folder, **kwargs)
        path = self.folder / f"{self.name}.json"
        config = json.loads(path.read_text())
        config["acl"] = {"enabled": True, "default_policy": "deny", "tokens": {"master": self.MASTER,
                                                                               "agent": self.MASTER}}
        path.write_text(json.dumps(config))
        self.web.headers["X-Consul-Token"] = self.MASTER

    def token(self, name, rules):
        """A new token that may do what RULES (HCL) say, and nothing else."""
        self._acl("policy", {"Name": name, "Rules": rules})
        return self._acl("token", {"Description": name, "Policies": [{"Name": name}]})["SecretID"]

    def _acl(self, kind, body):
        """Asked again while the ACL system has not begun."""
        return wait_until(lambda: self._made(kind, body), 30, f"ACL {kind}", alive=[self.process])

    def _made(self, kind, body):
        answer = self._call("PUT", f"/v1/acl/{kind}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


class ConsulServers:
    """Three servers that elect a leader among them, each of which may be killed. What is registered stays when the server that
    was asked dies: it is said to be on a node of its own."""

    def __init__(self, folder, count=3):
        self.servers = [Consul(f"consul{i}", folder) for i in range(count)]
        configs = [json.loads((s.folder / f"{s.name}.json").read_text()) for s in self.servers]
        for server, config in zip(self.servers, configs):
            config["bootstrap_expect"] = count
            config["retry_join"] = [f"127.0.0.1:{c['ports']['serf_lan']}" for c in configs if c is not config]
            config["retry_interval"] = "1s"
            (server.folder / f"{server.name}.json").write_text(json.dumps(config))
        self.raft_ports = {c["ports"]["server"]: s for s, c in zip(self.servers, configs)}
        self.address = self.servers[0].address

    def start(self, timeout=60):
        for server in self.servers:
            server.process.start()
        for server in self.servers:
            server.wait_ready(timeout)
        return self

    def leader(self):
        """The server that leads, or None."""
        for server in self.servers:
            try:
                answer = server._call("GET", "/v1/status/leader", timeout=1).json()  # pylint: disable=protected-access
            except (requests.exceptions.RequestException, TransientError):
                continue
            found = self.raft_ports.get(int(answer.rsplit(":", 1)[1])) if answer else None
            if found and found.process.alive():
                return found
        return None

    def register(self, service, port):
        wait_until(lambda: self._registered(service, port), 30, f"{service} registered")
        return f"{service}-{port}"

    def _registered(self, service, port):
        leader = self.leader()
        if leader:
            leader.register_elsewhere(f"node-{port}", service, port)
        return leader

    def end(self):
        for server in self.servers:
            server.end()
