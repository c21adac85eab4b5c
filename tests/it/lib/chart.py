"""The chart, rendered by Helm's own engine, validated against Kubernetes' schemas, and its containers as processes of this machine."""
import re
import subprocess

import helm_python as helm
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

from .carillon import ROOT, Agent, binary
from .procs import Process, free_ports

CHART = ROOT / "helm/carillon"
KUBERNETES = ["1.37", "1.36", "1.35", "1.34", "1.29"]  # the newest, three before it, and the oldest that the chart is for


def documents(chart, values):
    with helm.Chart.load(str(chart)) as loaded:
        loaded.validate_schema(values)
        files = loaded.render(values, name="demo", namespace="prod")
    return [d for name, text in sorted(files.items()) if name.endswith(".yaml") for d in yaml.safe_load_all(text) if d]


def one(found, kind):
    [document] = [d for d in found if d["kind"] == kind]
    return document


def validate(found):
    assert found
    for version in KUBERNETES:
        for document in found:
            if document["kind"] != "ServiceMonitor":
                kubernetes_validate.validate(document, version, strict=True)
    for document in found:
        if document["kind"] == "ServiceMonitor":
            validate_service_monitor(document)


def validate_service_monitor(document):
    """It is the Prometheus operator's, not Kubernetes': against models made of the operator's own definition. They drop keys that it does not
    have, so what is left has to be the whole."""
    known = ServiceMonitor.model_validate(document).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert known == document, f"{known} is what the operator knows of {document}"


def is_safe(container):
    context = container["securityContext"]
    assert context["runAsNonRoot"] and context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]} and context["seccompProfile"] == {"type": "RuntimeDefault"}


class Pod(Agent):
    """The container of a rendered pod, as a process: paths and ports are those of this machine."""

    def __init__(self, name, container, folder, values, config=None, secrets=None):
        super().__init__(name, folder)
        self.ops_port = values["ops"]["port"]
        self.api_port = values["api"]["port"]
        self.url = f"http://127.0.0.1:{self.api_port}"
        data = self.folder / f"{name}-data"
        data.mkdir()
        for key, text in {**({"config/carillon.yaml": self.local(config)} if config else {}), **(secrets or {})}.items():
            path = self.folder / name / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        [self.raft_port] = free_ports(1)
        # Its name in the headless Service is this machine.
        args = [re.sub(r"\$\(CARILLON_AGENT_NAME\)\.[\w.-]+", "127.0.0.1", self.local(a))
                .replace("$(POD_IP)", "127.0.0.1").replace("$(HOST_IP)", "127.0.0.1")
                .replace(":7421", f":{self.cluster_port}").replace(":7422", f":{self.raft_port}") for a in container["args"]]
        assert not any("$(" in a for a in args)
        if any("store.raft.advertise" in a for a in args):
            args.append(f"--set=store.raft.listen=127.0.0.1:{self.raft_port}")  # all pods have one address here
        self.hook = container["lifecycle"]["preStop"]["exec"]["command"]
        self.process = Process(name, ["env", "-C", data, f"CARILLON_AGENT_NAME={name}", binary(), *args], self.folder)

    def local(self, text):
        return text.replace("/etc/carillon/", f"{self.folder}/{self.name}/").replace("/data", f"{self.folder}/{self.name}-data")

    def start(self, timeout=60, wait=True):
        self.process.start()
        return self.wait_ready(timeout) if wait else self


    def pre_stop(self):
        """What Kubernetes runs in the container as soon as the pod is to end, begun; it ends by itself."""
        assert self.hook[0] == "/usr/bin/carillon"
        return subprocess.Popen([binary(), *self.hook[1:], f"--pid={self.process.pid}"])


def ports():
    api, ops = free_ports(2)
    return {"api": {"port": api}, "ops": {"port": ops}}
