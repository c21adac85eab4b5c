"""The chart, by Helm's own engine: what it renders is valid for Kubernetes, wrong values are refused, and the real agent starts with it."""
import copy
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

import helm_python as helm
import pytest
import yaml

from lib import procs
from lib.carillon import ROOT, binary, merge
from lib.certs import Authority
from lib.chart import CHART, Pod, documents, is_safe, one, ports, validate, validate_service_monitor
from lib.load import Load
from lib.procs import wait_until

CLUSTER = {"mode": "cluster", "mysql": {"host": "db", "passwordSecret": "mysql"}, "cluster": {"secretName": "cluster"}}
EVERYTHING = {
    "mode": "cluster", "imagePullSecrets": [{"name": "pull"}],
    "mysql": {"host": "db", "passwordSecret": "mysql", "caSecret": "mysql-ca"},
    "cluster": {"secretName": "cluster", "tlsSecret": "cluster-tls"},
    "consul": {"address": "https://$(HOST_IP):8501", "tokenSecret": "consul", "caSecret": "consul-ca", "tlsServerName": "server.dc1.consul"},
    "api": {"tokensSecret": "tokens", "tlsSecret": "api-tls", "clientCaSecret": "api-client-ca"}, "callback": {"signingKeysSecret": "signing", "headerSecrets": {"default": "keys", "team-b": "keys-of-b"}},
    "autoscaling": {"enabled": True}, "serviceMonitor": {"enabled": True},
    "networkPolicy": {"enabled": True, "apiFrom": [{"podSelector": {}}], "opsFrom": [{"namespaceSelector": {}}],
                      "egress": [{"ports": [{"port": 443}], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
    "podLabels": {"team": "x"}, "podAnnotations": {"a": "b"}, "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "k", "operator": "Exists"}], "affinity": {"nodeAffinity": {}},
}
RAFT = {"mode": "raft-cluster", "cluster": {"secretName": "cluster"}}
# Every value that is a mode's own, or that changes what is rendered.
FURTHER = {k: v for k, v in EVERYTHING.items() if k not in ("mode", "mysql")}
MODES = {"standalone": {}, "cluster": CLUSTER, "everything": EVERYTHING, "raft-cluster": RAFT,
         "raft-cluster-everything": {**FURTHER, "mode": "raft-cluster", "raft": {"voters": 5}, "replicas": 7,
                                     "autoscaling": {"enabled": True, "minReplicas": 5}, "persistence": {"storageClass": "fast"}},
         "cluster-ipv6": {**CLUSTER, "ipFamily": "IPv6"}, "raft-cluster-ipv6": {**RAFT, "ipFamily": "IPv6"},
         "standalone-everything": {**FURTHER, "preStopWaitSeconds": 0, "persistence": {"storageClass": "fast"}}}
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
      terminationGracePeriodSeconds: 60
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
    single = {"ConfigMap", "StatefulSet", "Service", "ServiceAccount", "Pod"}
    several = single | {"PodDisruptionBudget"}
    if mode.endswith("everything"):
        alone = mode.startswith("standalone")
        assert kinds == (single if alone else several | {"HorizontalPodAutoscaler"}) | {"NetworkPolicy", "ServiceMonitor"}
        assert ("replicas" in one(found, "StatefulSet")["spec"]) == alone
    else:
        assert kinds == (single if mode.startswith("standalone") else several)
    pod = one(found, "StatefulSet")["spec"]["template"]["spec"]
    assert ("topologySpreadConstraints" in pod) == ("PodDisruptionBudget" in kinds)
    mounted = {m["name"] for m in pod["containers"][0]["volumeMounts"]}
    assert mounted - {"data"} == {v["name"] for v in pod["volumes"]} - {"data"}
    assert pod["enableServiceLinks"] is False and pod["automountServiceAccountToken"] is False
    config = yaml.safe_load(one(found, "ConfigMap")["data"]["carillon.yaml"])
    folders = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    for path in re.findall(r"/etc/carillon/[\w-]+", yaml.safe_dump(config)):
        assert path in folders or path == "/etc/carillon/headers" and {f"{path}/default", f"{path}/team-b"} <= folders
    is_safe(pod["containers"][0])


@pytest.mark.parametrize("mode", MODES)
def test_notes_name_each_secret_that_has_to_be_there(mode):
    values = {**MODES[mode], **({} if mode.startswith("standalone") else {"injector": {"enabled": True}})}
    with helm.Chart.load(str(CHART)) as loaded:
        files = loaded.render(values, name="demo", namespace="prod")
    [text] = [t for n, t in files.items() if n.endswith("/NOTES.txt")]
    lines = {line.split(": ")[0]: line.split(": ")[1].split(", ") for line in text.splitlines() if "Secrets" in line}
    pod = one(documents(CHART, values), "StatefulSet")["spec"]["template"]["spec"]
    assert lines.get("Its pods wait for these Secrets of this namespace", []) == sorted({v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v})
    theirs = []
    if not mode.startswith("standalone"):
        [parts] = [d["data"]["sidecar.json"] for d in documents(CHART, values) if d["kind"] == "ConfigMap" and "sidecar.json" in d["data"]]
        theirs = sorted({v["secret"]["secretName"] for v in json.loads(parts)["client"]["volumes"] if "secret" in v})
        assert 'carillon/inject: "true"' in text
    assert lines.get("Secrets that a sidecar needs in the namespace of its pod", []) == theirs


@pytest.mark.parametrize("mode", [m for m in MODES if m.endswith("everything")])
def test_what_is_rendered_fits_together(mode):
    found = documents(CHART, MODES[mode])
    stateful, services = one(found, "StatefulSet"), [d for d in found if d["kind"] == "Service"]
    template = stateful["spec"]["template"]
    labels, ports_there = template["metadata"]["labels"], {p["name"] for p in template["spec"]["containers"][0]["ports"]}
    assert stateful["spec"]["serviceName"] in {s["metadata"]["name"] for s in services}
    others = [d["metadata"]["labels"] for d in found if d["kind"] == "Pod"]
    for service in services:
        assert service["spec"]["selector"].items() <= labels.items()
        assert others and not any(service["spec"]["selector"].items() <= pod.items() for pod in others)
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports_there
    [endpoint] = one(found, "ServiceMonitor")["spec"]["endpoints"]
    wanted = one(found, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    scraped = [s for s in services if wanted.items() <= s["metadata"]["labels"].items()
               and endpoint["port"] in {p["name"] for p in s["spec"]["ports"]}]
    assert len(scraped) == 1  # else each pod would be scraped twice
    policy = one(found, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert {p["port"] for rule in policy["ingress"] for p in rule["ports"]} == ports_there
    if not mode.startswith("standalone"):
        target = one(found, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("StatefulSet", stateful["metadata"]["name"])
        assert one(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
        for spread in template["spec"]["topologySpreadConstraints"]:
            assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("mode, values, ports_out", [
    ("standalone-everything", {}, {53, 443}), ("everything", {}, {53, 443, 7421, 8501, 3306}),
    ("everything", {"mysql": {"port": 3307}, "consul": {"address": ""}}, {53, 443, 7421, 8500, 3307}),
    ("everything", {"consul": {"address": "http://consul.example"}}, {53, 443, 7421, 8500, 3306}),
    ("raft-cluster-everything", {}, {53, 443, 7421, 7422, 8501})])
def test_members_are_let_out_to_whom_they_need_and_to_whom_they_are_to_call(mode, values, ports_out):
    found = documents(CHART, merge(MODES[mode], values))
    policy = one(found, "NetworkPolicy")["spec"]
    validate([one(found, "NetworkPolicy")])
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {p["port"] for rule in policy["egress"] for p in rule["ports"]} == ports_out
    assert EVERYTHING["networkPolicy"]["egress"][0] in policy["egress"]
    found = documents(CHART, merge(MODES[mode], {**values, "networkPolicy": {"egress": []}}))
    assert "egress" not in one(found, "NetworkPolicy")["spec"] and one(found, "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress"]


def test_what_is_no_service_monitor_is_not_taken_for_one():
    good = one(documents(CHART, EVERYTHING), "ServiceMonitor")
    validate_service_monitor(good)
    for key, wrong in [("port", 7423), ("interval", "30 sec"), ("interva", "30s")]:
        bad = copy.deepcopy(good)
        bad["spec"]["endpoints"][0][key] = wrong
        with pytest.raises((ValueError, AssertionError)):
            validate_service_monitor(bad)


@pytest.mark.parametrize("mode", MODES)
def test_a_pod_has_time_for_its_pre_stop_and_its_grace(mode):
    found = documents(CHART, {**MODES[mode], "shutdownGraceSeconds": 33})
    pod = one(found, "StatefulSet")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    config = yaml.safe_load(one(found, "ConfigMap")["data"]["carillon.yaml"])
    assert config["agent"]["shutdown_grace"] == "33s"
    waits = MODES[mode].get("preStopWaitSeconds", 5)
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["/usr/bin/carillon", "drain"] + ([f"--wait={waits}s"] if waits else [])
    assert pod["terminationGracePeriodSeconds"] == waits + 33 + 15


def test_the_log_of_a_raft_cluster_has_volumes_and_stable_addresses_of_its_own():
    found = documents(CHART, MODES["raft-cluster-everything"])
    [stateful] = [d for d in found if d["kind"] == "StatefulSet"]
    spec = stateful["spec"]
    assert spec["volumeClaimTemplates"][0]["metadata"]["name"] == "data" and spec["podManagementPolicy"] == "Parallel"
    [headless] = [d for d in found if d["kind"] == "Service" and d["spec"].get("clusterIP") == "None"]
    assert headless["metadata"]["name"] == spec["serviceName"] and headless["spec"]["publishNotReadyAddresses"]
    args = spec["template"]["spec"]["containers"][0]["args"]
    assert f"--set=store.raft.advertise=$(CARILLON_AGENT_NAME).{spec['serviceName']}:7422" in args
    config = yaml.safe_load(one(found, "ConfigMap")["data"]["carillon.yaml"])
    assert config["store"] == {"driver": "raft", "raft": {"voters": 5}} and config["cluster"]["mode"] == "consul"
    assert one(found, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    [rule] = [r for r in one(found, "NetworkPolicy")["spec"]["ingress"] if r["ports"] == [{"port": "log"}]]
    assert rule["from"] == [{"podSelector": {"matchLabels": spec["selector"]["matchLabels"]}}]
    assert not [v for v in spec["template"]["spec"]["volumes"] if v["name"] in ("data", "mysql")]


def test_the_names_of_a_log_fit_whatever_the_release_is_called():
    with helm.Chart.load(str(CHART)) as loaded:
        files = loaded.render({**RAFT, "replicas": 1000}, name="r" * 53, namespace="n" * 63)
    [text] = [text for name, text in files.items() if name.endswith("/statefulset.yaml")]
    spec = yaml.safe_load(text)["spec"]
    [shown] = [a for a in spec["template"]["spec"]["containers"][0]["args"] if "advertise" in a]
    name = yaml.safe_load(text)["metadata"]["name"] + "-999"
    assert len(name) <= 63 and len(shown.split("=")[2].replace("$(CARILLON_AGENT_NAME)", name)) < 128


@pytest.mark.parametrize("values, why", [
    ({"mode": "raft"}, "mode"), ({"ipFamily": "IPv5"}, "ipFamily"), ({**RAFT, "replicas": 2}, "replicas"), ({**RAFT, "raft": {"voters": 4}}, "voters"),
    ({**RAFT, "raft": {"voters": 5}}, "replicas"), ({**RAFT, "autoscaling": {"enabled": True, "minReplicas": 2}}, "minReplicas"),
    ({"mode": "raft-cluster"}, "cluster.secretName or cluster.tlsSecret is needed in mode raft-cluster"),
    ({"api": {"clientCaSecret": "ca"}}, "tlsSecret"), ({"cluster": {"tlsServerName": "a b"}}, "tlsServerName"),
    ({"callback": {"headerSecrets": {"Team B": "x"}}}, "headerSecrets"), ({"preStopWaitSeconds": "5s"}, "preStopWaitSeconds"), ({"shutdownGraceSeconds": -1}, "shutdownGraceSeconds"), ({"replica": 3}, "replica"), ({"api": {"port": "x"}}, "port"), ({"replicas": 0}, "replicas"),
    ({"mode": "cluster", "cluster": {"secretName": "s"}}, "mysql"), ({"image": {"pullPolicy": "never"}}, "pullPolicy"),
    ({"persistence": {"size": "much"}}, "size"), ({"podLabels": {"a": 1}}, "podLabels"), ({"imagePullSecrets": ["pull"]}, "imagePullSecrets"),
    ({"networkPolicy": {"egress": [443]}}, "egress"), ({"ops": {"port": 7420}}, "api.port and ops.port must differ"),
    ({"api": {"port": 7422}}, "api.port and ops.port must differ"),
    (merge(CLUSTER, {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}), "minReplicas is more than autoscaling.maxReplicas"),
    ({"mode": "cluster", "mysql": {"host": "db", "passwordSecret": "m"}}, "cluster.secretName or cluster.tlsSecret is needed"),
])
def test_wrong_values_are_refused_with_a_reason(values, why):
    with pytest.raises(helm.HelmError) as refused:
        documents(CHART, values)
    assert why in str(refused.value)


def test_the_values_table_is_that_of_the_values():
    done = subprocess.run([sys.executable, ROOT / "tests/tools/check_chart.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_the_program_takes_what_is_rendered(folder, mode):
    """Each option is one that there is, and they go together: with files in the places of the Secrets."""
    found = documents(CHART, MODES[mode])
    config = one(found, "ConfigMap")["data"]["carillon.yaml"]
    [container] = one(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    own = Authority("ours", folder).issue("any")
    contents = {"tokens.yaml": "[]", "ca.crt": (folder / "ours-ca.crt").read_text(), "tls.crt": pathlib.Path(own.cert).read_text(),
                "tls.key": pathlib.Path(own.key).read_text(), "keys": "* k whsec_" + "QUJD" * 8 + "\n"}
    for path in re.findall(r"/etc/carillon/([\w./-]+)", config):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if path == "headers":
            (folder / path).mkdir()
            continue
        (folder / path).write_text(contents.get(path.split("/")[1], "very secret"))
    (folder / "carillon.yaml").write_text(config.replace("/etc/carillon", str(folder)))
    address = "fd00::1" if mode.endswith("ipv6") else "10.0.0.1"
    sets = [re.sub(r"\$\(\w+_IP\)", address, a).replace("$(CARILLON_AGENT_NAME)", "m-0") for a in container["args"] if a.startswith("--set")]
    done = subprocess.run([binary(), "config", "check", folder / "carillon.yaml", *sets], capture_output=True, text=True, check=False)
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


def tried_by_helm(folder, values):
    """What `helm test` runs: its pod's sidecar, and beside it its application, which ends well."""
    values = merge(values, {**ports(), "api": {**ports()["api"], "tokensSecret": "tokens"}})
    spec = one(documents(CHART, values), "Pod")["spec"]
    validate([one(documents(CHART, values), "Pod")])
    [sidecar], [application] = spec["initContainers"], spec["containers"]
    is_safe(sidecar)
    is_safe(application)
    assert {m["name"] for m in sidecar["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    pod = Pod("tried", sidecar, folder, values, secrets={"cluster/secret": "very secret\n"})
    try:
        pod.start()
        done = subprocess.run([binary(), *application["args"]], capture_output=True, text=True, timeout=60 * procs.SLACK, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        pod.end()
    again = subprocess.run([binary(), *application["args"]], capture_output=True, text=True, timeout=60 * procs.SLACK, check=False)
    assert again.returncode != 0


def test_members_and_the_sidecar_of_a_team_work_together(folder, clusters, shared_consul, shared_mariadb, team):
    cluster = clusters(shared_consul, shared_mariadb)
    common = {"cluster": {"name": cluster.name, "secretName": "cluster"}, "consul": {"address": shared_consul.address}}
    mysql, password = mysql_values(cluster, shared_mariadb)
    pods = [member(folder, "member-0", {"mode": "cluster", **ports(), **common, **mysql}, {"cluster/secret": "very secret\n", **password})]
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
        tried_by_helm(folder, {"mode": "cluster", **common, **mysql})
        kept = pods[0].get("j")
        assert kept["status"]["owner"] == "member-0" and kept["callback"]["http"]["service"] == "billing"
    finally:
        for pod in pods:
            pod.end()


# ---- the end of a pod

RENDERED = {"shutdownGraceSeconds": 10, "preStopWaitSeconds": 1}


def end_as_kubernetes_does(pod, grace, meanwhile):
    """preStop, then SIGTERM, both within GRACE seconds, or it would be killed; MEANWHILE is done again and again until SIGTERM."""
    begin = time.monotonic()
    hook = pod.pre_stop()
    while hook.poll() is None:
        meanwhile()
    assert hook.returncode == 0
    pod.term(grace - (time.monotonic() - begin))
    took = time.monotonic() - begin
    assert took < grace * procs.SLACK, took
    return took


def mysql_values(cluster, mariadb):
    database = cluster.database
    return ({"mysql": {"host": "127.0.0.1", "port": mariadb.port, "user": database["user"], "database": database["database"],
                       "passwordSecret": "mysql"}},
            {"mysql/password": database["password"] + "\n"})


def tls_of(authority):
    """Values, files of the Secrets, and what a client needs: mutual TLS between members and to the API, by one certificate each; no
    address of a pod stands in the members'."""
    mounted, files = {"cluster-tls": authority.issue("members", "DNS:carillon"), "api-tls": authority.issue("api", "DNS:localhost")}, {}
    for folder, pair in mounted.items():
        files.update({f"{folder}/ca.crt": authority.ca, f"{folder}/tls.crt": pair.cert, f"{folder}/tls.key": pair.key})
    files = {name: pathlib.Path(path).read_text() for name, path in {**files, "api-client-ca/ca.crt": authority.ca}.items()}
    files["tokens/tokens.yaml"] = yaml.safe_dump([{"name": "test", "sha256": hashlib.sha256(b"open sesame").hexdigest(),
                                                   "namespaces": ["*"], "can": ["read", "write", "operate"]}])
    return {"cluster": {"tlsSecret": "cluster-tls"},
            "api": {"tlsSecret": "api-tls", "clientCaSecret": "api-client-ca", "tokensSecret": "tokens"}}, files, authority.issue("test")


@pytest.mark.parametrize("mode", ["cluster", "raft-cluster"])
def test_a_pod_ends_within_its_grace_under_load_and_repeats_nothing(folder, clusters, shared_consul, shared_mariadb, callee, mode):
    """The cluster with MySQL by its secret, that with a log by TLS on every port."""
    cluster = clusters(shared_consul, shared_mariadb)
    common = {"cluster": {"name": cluster.name, "secretName": "cluster"}}
    more, secrets, own, authority = *mysql_values(cluster, shared_mariadb), None, Authority("ours")
    if mode == "raft-cluster":
        more, secrets, own = tls_of(authority)
    secrets["cluster/secret"] = "very secret\n"
    values = merge({"mode": mode, **RENDERED, **common, "consul": {"address": shared_consul.address}}, more)
    pods = [member(folder, f"demo-carillon-{n}", merge(values, ports()), secrets) for n in range(3)]
    for pod in pods if own else []:
        pod.over_tls(authority, own, "localhost").web.headers["Authorization"] = "Bearer open sesame"
    grace = one(documents(CHART, values), "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace == 26
    try:
        for pod in pods:
            pod.start(wait=False)
        for pod in pods:
            pod.wait_ready(60)
        wait_until(lambda: all(m["slots"] for m in pods[0].cluster()["members"]) and len(pods[0].cluster()["members"]) == 3, 60,
                   "all three own something")
        callee.behave({"delay": [0.5, 3.0]})
        load = Load(cluster, callee, f"ending-{mode}", 60, slowest=3.0).begin(pods[1])
        ending = pods[0]
        if mode == "raft-cluster":
            ending = next(p for p in pods if p.cluster()["store"]["raft"]["role"] == "leader")
        stays = next(p for p in pods if p is not ending)
        made = []

        def write():
            made.append(ending.put(f"made-{len(made)}", {"schedule": "@after 1d", "callback": {"http": {"service": "x", "path": "/x"}}}))

        took = end_as_kubernetes_does(ending, grace, write)
        print(f"{mode}: ended within {took:.1f} of {grace} s; {len(made)} requests served meanwhile")
        assert len(made) > 1
        assert "callbacks in flight, their new owners repeat them" not in ending.process.log_text()
        time.sleep(1)
        callee.behave()
        load.finish(stays, repeats_allowed=False)
        assert len(stays.list(prefix="made-", limit=1000)) == len(made)
        ending.start()  # as the StatefulSet makes it anew, with its volume
        wait_until(lambda: len(stays.cluster()["members"]) == 3, 60, "it is back")
    finally:
        for pod in pods:
            pod.end()
