"""The chart, by Helm's own engine: what it renders is valid for Kubernetes, wrong values are refused, and the real agent starts with it."""
import re
import shutil
import subprocess
import sys

import helm_python as helm
import pytest
import yaml

from lib import procs
from lib.carillon import ROOT
from lib.chart import CHART, Pod, documents, is_safe, one, ports, validate
from lib.procs import wait_until

CLUSTER = {"mode": "cluster", "mysql": {"host": "db", "passwordSecret": "mysql"}, "cluster": {"secretName": "cluster"}}
EVERYTHING = {
    "mode": "cluster", "imagePullSecrets": [{"name": "pull"}],
    "mysql": {"host": "db", "passwordSecret": "mysql", "caSecret": "mysql-ca"},
    "cluster": {"secretName": "cluster", "tlsSecret": "cluster-tls"},
    "consul": {"address": "https://consul:8501", "tokenSecret": "consul", "caSecret": "consul-ca"},
    "api": {"tokensSecret": "tokens", "tlsSecret": "api-tls"}, "callback": {"signingKeysSecret": "signing"},
    "autoscaling": {"enabled": True}, "serviceMonitor": {"enabled": True},
    "networkPolicy": {"enabled": True, "apiFrom": [{"podSelector": {}}], "opsFrom": [{"namespaceSelector": {}}]},
    "podLabels": {"team": "x"}, "podAnnotations": {"a": "b"}, "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "k", "operator": "Exists"}], "affinity": {"nodeAffinity": {}},
}
MODES = {"standalone": {}, "cluster": CLUSTER, "everything": EVERYTHING,
         "standalone-tokens": {"api": {"tokensSecret": "tokens"}, "persistence": {"storageClass": "fast"}}}
TEAM = {
    "Chart.yaml": "apiVersion: v2\nname: team\nversion: 1.0.0\ndependencies: [{name: carillon, version: 0.1.0}]\n",
    "templates/app.yaml": """apiVersion: apps/v1
kind: Deployment
metadata: {name: billing}
spec:
  selector: {matchLabels: {app: billing}}
  template:
    metadata: {labels: {app: billing}}
    spec:
      enableServiceLinks: false
      terminationGracePeriodSeconds: 40
      initContainers: {{- include "carillon.sidecar" (dict "root" . "service" "billing" "port" 8080) | nindent 8 }}
      containers: [{name: app, image: billing}]
      volumes: {{- include "carillon.sidecarVolumes" (dict "root" .) | nindent 8 }}
""",
}


@pytest.fixture(scope="module")
def team():
    """A team's own chart, which depends on ours."""
    folder = procs.make_folder("carillon-it-chart-")
    for name, text in TEAM.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    shutil.copytree(CHART, folder / "charts/carillon")
    return folder


def test_it_lints():
    result = helm.lint(str(CHART))
    assert not result["errors"] and all(m["severity"] < 2 for m in result["messages"]), result


@pytest.mark.parametrize("mode", MODES)
def test_what_it_renders_is_valid_for_kubernetes(mode):
    found = documents(CHART, MODES[mode])
    validate(found)
    kinds = {d["kind"] for d in found}
    if mode == "everything":
        assert kinds == {"ConfigMap", "StatefulSet", "Service", "ServiceAccount", "PodDisruptionBudget", "Pod",
                         "HorizontalPodAutoscaler", "NetworkPolicy", "ServiceMonitor"}
        assert "replicas" not in one(found, "StatefulSet")["spec"]
    pod = one(found, "StatefulSet")["spec"]["template"]["spec"]
    mounted = {m["name"] for m in pod["containers"][0]["volumeMounts"]}
    assert mounted - {"data"} == {v["name"] for v in pod["volumes"]} - {"data"}
    assert pod["terminationGracePeriodSeconds"] > 20 and pod["enableServiceLinks"] is False
    config = yaml.safe_load(one(found, "ConfigMap")["data"]["carillon.yaml"])
    folders = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    for path in re.findall(r"/etc/carillon/[\w-]+", yaml.safe_dump(config)):
        assert path in folders
    is_safe(pod["containers"][0])


@pytest.mark.parametrize("values, why", [
    ({"mode": "raft"}, "mode"), ({"replica": 3}, "replica"), ({"api": {"port": "x"}}, "port"), ({"replicas": 0}, "replicas"),
    ({"mode": "cluster", "cluster": {"secretName": "s"}}, "mysql"), ({"image": {"pullPolicy": "never"}}, "pullPolicy"),
    ({"persistence": {"size": "much"}}, "size"),
    ({"mode": "cluster", "mysql": {"host": "db", "passwordSecret": "m"}}, "cluster.secretName or cluster.tlsSecret is needed"),
])
def test_wrong_values_are_refused_with_a_reason(values, why):
    with pytest.raises(helm.HelmError) as refused:
        documents(CHART, values)
    assert why in str(refused.value)


def test_the_values_table_is_that_of_the_values():
    done = subprocess.run([sys.executable, ROOT / "tests/tools/check_chart.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the real agent

def member(folder, name, values, secrets=None):
    found = documents(CHART, values)
    container = one(found, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    return Pod(name, container, folder, values, one(found, "ConfigMap")["data"]["carillon.yaml"], secrets)


def test_the_standalone_pod_starts_and_keeps_its_jobs(folder):
    pod = member(folder, "alone-0", ports())
    pod.start()
    try:
        pod.put("kept", {"schedule": "0 9 1 1 *", "callback": {"http": {"url": "http://127.0.0.1:1/x"}}})
        answer = pod.web.get(f"http://127.0.0.1:{pod.ops_port}/metrics", timeout=60)
        assert "carillon_build_info" in answer.text
        pod.term()
        pod.start()
        assert pod.get("kept")["status"]["version"] == 1
    finally:
        pod.end()


def test_members_and_the_sidecar_of_a_team_work_together(folder, clusters, shared_consul, shared_mariadb, team):
    cluster = clusters(shared_consul, shared_mariadb)
    database = cluster.database
    common = {"cluster": {"name": cluster.name, "secretName": "cluster"}, "consul": {"address": shared_consul.address}}
    mysql = {"host": "127.0.0.1", "port": shared_mariadb.port, "user": database["user"], "database": database["database"],
             "passwordSecret": "mysql"}
    pods = [member(folder, "member-0", {"mode": "cluster", **ports(), **common, "mysql": mysql},
                   {"cluster/secret": "very secret\n", "mysql/password": database["password"] + "\n"})]
    values = {**common, **ports()}
    found = documents(team, {"carillon": values})
    spec = one(found, "Deployment")["spec"]["template"]["spec"]
    validate([one(found, "Deployment")])
    [container] = spec["initContainers"]
    is_safe(container)
    assert container["restartPolicy"] == "Always" and "readinessProbe" not in container
    assert container["image"] == "carillon:0.1.0" and spec["terminationGracePeriodSeconds"] > values.get("shutdownGraceSeconds", 20)
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    pods.append(Pod("sidecar", container, folder, values, secrets={"cluster/secret": "very secret\n"}))
    try:
        for pod in pods:
            pod.start()
        job = {"schedule": "0 9 1 1 *", "callback": {"http": {"path": "/hook"}}}
        wait_until(lambda: pods[1].call("PUT", "/v1/jobs/j", json=job).status_code in (200, 201), 60, "the sidecar reaches its member")
        kept = pods[0].get("j")
        assert kept["status"]["owner"] == "member-0" and kept["callback"]["http"]["service"] == "billing"
    finally:
        for pod in pods:
            pod.end()
