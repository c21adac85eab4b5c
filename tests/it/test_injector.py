"""`carillon injector` with what the chart renders for it, asked as Kubernetes asks: over TLS that the webhook's caBundle verifies."""
import base64
import copy
import json
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess

import jsonpatch
import kubernetes_validate
import pytest
import requests

from lib import procs
from lib.carillon import ROOT, binary
from lib.certs import Authority
from lib.chart import CHART, KUBERNETES, Pod, documents, is_safe, one, ports, validate
from lib.mount import Mount
from lib.procs import Process, free_ports, wait_until

REVIEWS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "tests/it/reviews").glob("*.json")}
VALUES = {"mode": "cluster", "mysql": {"host": "db", "passwordSecret": "mysql"}, "cluster": {"secretName": "cluster"},
          "injector": {"enabled": True}}


def named(found, kind):
    """The injector's own document of this kind."""
    return one([d for d in found if "injector" in d["metadata"]["name"]], kind)


class Pinned(requests.adapters.HTTPAdapter):
    """Connects to 127.0.0.1, and verifies the certificate for the Service's name as the API server does."""

    def __init__(self, host, bundle):
        self.host = host
        self.context = ssl.create_default_context(cadata=bundle)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, ssl_context=self.context, server_hostname=self.host, assert_hostname=self.host, **kwargs)


class Injector:
    """The rendered Deployment's container as a process of this machine, and its client."""

    def __init__(self, folder, values=None, own=None):
        self.folder = pathlib.Path(folder)
        self.found = documents(CHART, values or VALUES)
        container = named(self.found, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        is_safe(container)
        [self.port] = free_ports(1)
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        self.tls, self.sidecar = (Mount(self.folder / name) for name in ["tls", "sidecar"])
        self.webhook = one(self.found, "MutatingWebhookConfiguration")["webhooks"][0]
        if own:
            self.bundle, files = own
        else:
            self.bundle = base64.b64decode(self.webhook["clientConfig"]["caBundle"]).decode()
            files = {k: base64.b64decode(v).decode() for k, v in named(self.found, "Secret")["data"].items()}
        self.tls.put(files)
        self.sidecar.put(named(self.found, "ConfigMap")["data"])
        args = [a.replace(mounts["tls"], str(self.tls.folder)).replace(mounts["sidecar"], str(self.sidecar.folder))
                .replace("0.0.0.0:8443", f"127.0.0.1:{self.port}") for a in container["args"]]
        self.process = Process("injector", [binary(), *args, "--linger=0s"], self.folder)
        self.url = f"https://127.0.0.1:{self.port}"

    def client(self, bundle=None):
        service = self.webhook["clientConfig"]["service"]
        web = requests.Session()
        web.trust_env = False
        web.mount("https://", Pinned(f"{service['name']}.{service['namespace']}.svc", bundle or self.bundle))
        return web

    def start(self):
        self.process.start()
        wait_until(self.answers, 60, "the injector answers", alive=[self.process])
        return self

    def answers(self, bundle=None):
        with self.client(bundle) as web:
            try:
                return web.get(self.url + "/readyz", timeout=60).text == "ok\n"
            except requests.RequestException:
                return False

    def post(self, data, path=None, **headers):
        with self.client() as web:
            return web.post(self.url + (path or self.webhook["clientConfig"]["service"]["path"]) + "?timeout=5s", data=data, timeout=60,
                            headers={"Content-Type": "application/json", "Accept": "application/json, */*", **headers})

    def says(self, request):
        """The status that answers these bytes."""
        context = ssl.create_default_context(cadata=self.bundle)
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as plain, \
                context.wrap_socket(plain, server_hostname=self.webhook["name"]) as stream:
            stream.sendall(request)
            return int(stream.makefile("rb").readline().split()[1])

    def review(self, document):
        """The response to it, as the contract has it."""
        answer = self.post(json.dumps(document))
        assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/json", answer.text
        answer = answer.json()
        assert answer["apiVersion"] == "admission.k8s.io/v1" and answer["kind"] == "AdmissionReview"
        response = answer["response"]
        assert response["uid"] == document["request"]["uid"] and isinstance(response["allowed"], bool)
        assert ("patch" in response) == ("patchType" in response) and response.get("patchType", "JSONPatch") == "JSONPatch"
        assert all(len(w) <= 256 for w in response.get("warnings", []))
        return response

    def inject(self, document):
        """The pod as it comes out, and the warnings."""
        response = self.review(document)
        assert response["allowed"], response
        pod = document["request"]["object"]
        patch = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
        return jsonpatch.apply_patch(pod, patch), response.get("warnings", [])


@pytest.fixture(scope="module")
def injector():
    made = Injector(procs.make_folder("carillon-it-injector-")).start()
    yield made
    made.process.end()


def annotated(**annotations):
    """The review of a pod with these annotations of ours."""
    document = copy.deepcopy(REVIEWS["deployment"])
    document["request"]["object"]["metadata"]["annotations"] = {"carillon/inject": "true",
                                                                **{f"carillon/{k}": v for k, v in annotations.items()}}
    return document


def is_valid_pod(pod):
    pod = copy.deepcopy(pod)
    pod["metadata"].pop("creationTimestamp")  # null, as it comes, is for requests alone
    for version in KUBERNETES:
        kubernetes_validate.validate(pod, version, strict=True)


def sidecar_of_a_team(folder, values, **arguments):
    """The chart's named template in a chart of a team's own."""
    for name, text in {"Chart.yaml": "apiVersion: v2\nname: team\nversion: 1.0.0\ndependencies: [{name: carillon, version: 0.1.0}]\n",
                       "templates/it.yaml": "kind: It\nmetadata: {name: it}\ninitContainers: {{- include \"carillon.sidecar\" (dict \"root\" . "
                       + " ".join(f'"{k}" "{v}"' for k, v in arguments.items()) + ") | nindent 2 }}\n"
                       "volumes: {{- include \"carillon.sidecarVolumes\" (dict \"root\" . "
                       + " ".join(f'"{k}" "{v}"' for k, v in arguments.items()) + ") | nindent 2 }}\n"}.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    shutil.copytree(CHART, folder / "charts/carillon", dirs_exist_ok=True)
    return one(documents(folder, {"carillon": values}), "It")


# ---- what Kubernetes asks

@pytest.mark.parametrize("name", REVIEWS)
def test_the_pod_of_a_review_comes_out_valid_and_is_left_alone_then(injector, name):
    document = REVIEWS[name]
    before = document["request"]["object"]
    is_valid_pod(before)
    pod, _ = injector.inject(document)
    is_valid_pod(pod)
    container = pod["spec"]["initContainers"][0]
    assert container["name"] == "carillon" and container["restartPolicy"] == "Always" and "readinessProbe" not in container
    is_safe(container)
    assert pod["spec"]["initContainers"][1:] == before["spec"].get("initContainers", [])
    assert pod["spec"]["containers"] == before["spec"]["containers"]
    assert {m["name"] for m in container["volumeMounts"]} <= {v["name"] for v in pod["spec"]["volumes"]}
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 30
    assert "--set=app.address=$(POD_IP)" in container["args"]
    assert pod["metadata"]["annotations"].pop("carillon/injected") == "0.1.0"
    assert pod["metadata"] == before["metadata"]
    again = copy.deepcopy(document)
    again["request"]["object"] = injector.inject(document)[0]
    assert "patch" not in injector.review(again) and "warnings" not in injector.review(again)


def test_a_member_beside_an_application_has_what_callbacks_need(folder):
    values = {k: v for k, v in VALUES.items() if k not in ("injector", "mode")}
    for role, there in [("member", True), ("client", False)]:
        made = sidecar_of_a_team(pathlib.Path(folder) / role, {**values, "callback": {"headerSecrets": {"team-b": "keys"}}}, role=role)
        [container] = made["initContainers"]
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert set(mounts) == {v["name"] for v in made["volumes"]}
        assert (mounts.get("carillon-headers-team-b") == "/etc/carillon/headers/team-b") == there
        assert ("--set=callback.secrets_dir=/etc/carillon/headers" in container["args"]) == there


def test_what_is_injected_is_what_the_charts_template_renders(injector, folder):
    pod, _ = injector.inject(REVIEWS["deployment"])
    values = {k: v for k, v in VALUES.items() if k not in ("injector", "mode")}
    theirs = sidecar_of_a_team(pathlib.Path(folder) / "client", values, service="billing", port="8080")
    assert pod["spec"]["initContainers"][0] == theirs["initContainers"][0]
    assert [v for v in pod["spec"]["volumes"] if v["name"].startswith("carillon")] == theirs["volumes"]
    pod, _ = injector.inject(REVIEWS["bare"])
    theirs = sidecar_of_a_team(pathlib.Path(folder) / "member", values, service="shell", role="member")
    assert pod["spec"]["initContainers"] == theirs["initContainers"] and pod["spec"]["volumes"] == theirs["volumes"]


def test_annotations_change_the_container(injector):
    pod, warnings = injector.inject(REVIEWS["job"])
    container = pod["spec"]["initContainers"][0]
    assert container["image"] == "registry.example/carillon@sha256:6b1f"
    assert container["resources"] == {"requests": {"cpu": "50m", "memory": "32Mi"}}
    assert container["args"][-2:] == ["--set=log.level=debug", "--set=api.wait=2s"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 30 and "terminationGracePeriodSeconds" in warnings[0]


@pytest.mark.parametrize("annotations, why", [
    ({"inject": "yes"}, 'annotation carillon/inject: must be "true" or "false", not "yes"'),
    ({"port": "http"}, "annotation carillon/port: "), ({"service": "two words"}, "annotation carillon/service: "),
    ({"role": "leader"}, 'there is no sidecar of role "leader" here, but client, member'),
    ({"set": "store.drivr=mysql"}, "store.driver"), ({"resources": "much"}, "annotation carillon/resources: must be JSON"),
])
def test_a_wrong_annotation_is_refused_with_a_reason(injector, annotations, why):
    response = injector.review(annotated(**annotations))
    assert response["allowed"] is False and "patch" not in response
    assert response["status"]["code"] == 400 and why in response["status"]["message"], response


def test_an_unknown_annotation_is_warned_of(injector):
    _, warnings = injector.inject(annotated(prot="80"))
    assert warnings == ["annotation carillon/prot is not known; is it carillon/port"]


def test_pods_that_do_not_ask_are_left_as_they_are(injector):
    for document in [annotated(inject="false"), annotated()]:
        if document["request"]["object"]["metadata"]["annotations"]["carillon/inject"] == "true":
            document["request"]["object"]["metadata"].pop("annotations")
        assert injector.review(document) == {"uid": document["request"]["uid"], "allowed": True}


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "{}", json.dumps({**REVIEWS["bare"], "apiVersion": "admission.k8s.io/v1beta1"}),
                                  json.dumps({**REVIEWS["bare"], "request": None}), "[" * 10000, '{"a": 1, "a": 2}'])
def test_what_is_no_review_is_a_bad_request(injector, body):
    answer = injector.post(body)
    assert answer.status_code == 400 and answer.text


def test_other_requests_are_refused(injector):
    review = json.dumps(REVIEWS["bare"])
    assert injector.post(review, path="/").status_code == 404
    assert injector.post(review, **{"Content-Type": "text/plain"}).status_code == 415
    assert injector.says(b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n\r\n") == 413
    with injector.client() as web:
        assert web.get(injector.url + "/inject", timeout=60).headers["Allow"] == "POST"
        assert web.get(injector.url + "/livez", timeout=60).status_code == 200
    with socket.create_connection(("127.0.0.1", injector.port), timeout=60) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            assert b"HTTP" not in plain.recv(100)
        except ConnectionResetError:
            pass


def test_readme_and_program_name_the_same_annotations():
    known = set(re.findall(r'INJECT_PREFIX "(\w+)"', (ROOT / "agent/inject_wish.c").read_text()))
    told = set(re.findall(r"^\| `carillon/(\w+)` \|", (CHART / "README.md").read_text(), re.MULTILINE))
    assert known | {"injected"} == told


# ---- its files, its end

def test_certificate_and_sidecar_are_replaced_while_it_runs(folder):
    authorities = [Authority("first"), Authority("second")]
    host = "demo-carillon-injector.prod.svc"
    own = []
    for authority in authorities:
        pair = authority.issue("injector", f"DNS:{host}")
        own.append((pathlib.Path(authority.ca).read_text(), {"tls.crt": pathlib.Path(pair.cert).read_text(),
                                                             "tls.key": pathlib.Path(pair.key).read_text()}))
    injector = Injector(folder, own=own[0]).start()
    try:
        assert not injector.answers(own[1][0])
        injector.tls.put({**own[1][1], "tls.key": own[0][1]["tls.key"]})  # half of a change
        wait_until(lambda: "not read again" in injector.process.log_tail(), 60, "it says that they do not fit")
        assert injector.answers(own[0][0])
        injector.tls.put(own[1][1])
        injector.process.signal(signal.SIGHUP)
        wait_until(lambda: injector.answers(own[1][0]), 60, "the second certificate", interval=0.2)
        assert not injector.answers(own[0][0])
        injector.bundle = own[1][0]
        injector.sidecar.put({"sidecar.json": "{}"})
        injector.process.signal(signal.SIGHUP)
        wait_until(lambda: "sidecar not read again" in injector.process.log_tail(), 60, "it says that this is none")
        parts = json.loads(named(injector.found, "ConfigMap")["data"]["sidecar.json"])
        parts["client"]["initContainers"][0]["image"] = "carillon:next"
        injector.sidecar.put({"sidecar.json": json.dumps(parts)})
        wait_until(lambda: injector.inject(REVIEWS["deployment"])[0]["spec"]["initContainers"][0]["image"] == "carillon:next", 60,
                   "the next sidecar", interval=0.2)
        assert injector.process.term() == 0
    finally:
        injector.process.end()


@pytest.mark.parametrize("args, why", [
    ([], "--sidecar is needed"), (["--sidecar=/nonexistent", "--tls-cert=x", "--tls-key=y"], "/nonexistent"),
    (["--sidecar=/dev/null", "--tls-cert=x", "--tls-key=y"], "/dev/null"),
])
def test_what_it_lacks_is_told_before_it_begins(args, why):
    done = subprocess.run([binary(), "injector", *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (1, 2) and why in done.stderr


# ---- the chart

def test_the_webhook_is_valid_for_kubernetes_and_asks_about_annotated_pods_alone():
    for values in [{}, {"tlsSecret": "own", "caBundle": "-----BEGIN CERTIFICATE-----\nx\n", "failurePolicy": "Ignore"},
                   {"tlsSecret": "own", "annotations": {"cert-manager.io/inject-ca-from": "prod/own"},
                    "namespaceSelector": {"matchLabels": {"carillon": "yes"}}}]:
        found = documents(CHART, {**VALUES, "networkPolicy": {"enabled": True}, "injector": {"enabled": True, **values}})
        validate([d for d in found if "injector" in d["metadata"]["name"]])
        [webhook] = one(found, "MutatingWebhookConfiguration")["webhooks"]
        assert webhook["failurePolicy"] == values.get("failurePolicy", "Fail") and webhook["sideEffects"] == "None"
        assert '"carillon/inject" in object.metadata.annotations' in webhook["matchConditions"][0]["expression"]
        assert ("Secret" in {d["kind"] for d in found}) == ("tlsSecret" not in values)
        assert ("caBundle" in webhook["clientConfig"]) == ("annotations" not in values)
        service, deployment = named(found, "Service"), named(found, "Deployment")
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert webhook["clientConfig"]["service"]["name"] == service["metadata"]["name"]
        assert service["spec"]["selector"].items() <= labels.items()
        others = [d["spec"]["selector"] for d in found if d["kind"] == "Service" and d is not service]
        assert others and not any(s.items() <= labels.items() for s in others)


@pytest.mark.parametrize("injector_values, why", [({"failurePolicy": "fail"}, "failurePolicy"), ({"replicas": 0}, "replicas"),
                                                  ({"caBundle": "x"}, "caBundle"), ({"timeoutSeconds": 31}, "timeoutSeconds")])
def test_wrong_values_are_refused(injector_values, why):
    with pytest.raises(Exception, match=why):
        documents(CHART, {**VALUES, "injector": {"enabled": True, **injector_values}})


def test_sidecars_of_a_log_are_clients(folder):
    values = {"mode": "raft-cluster", "cluster": {"secretName": "cluster"}, "injector": {"enabled": True}}
    found = documents(CHART, values)
    validate([d for d in found if "injector" in d["metadata"]["name"]])
    assert set(json.loads(named(found, "ConfigMap")["data"]["sidecar.json"])) == {"client"}
    with pytest.raises(Exception, match="a sidecar is no member in mode raft-cluster"):
        sidecar_of_a_team(pathlib.Path(folder), {"mode": "raft-cluster", "cluster": {"secretName": "cluster"}}, role="member")


def test_without_members_there_is_nothing_to_inject():
    with pytest.raises(Exception, match="injector.enabled needs mode cluster or raft-cluster"):
        documents(CHART, {"injector": {"enabled": True}})


# ---- the pods it makes

def test_injected_pods_start_the_agent(folder, clusters, shared_consul, shared_mariadb):
    cluster = clusters(shared_consul, shared_mariadb)
    database = cluster.database
    secrets = {"cluster/secret": "very secret\n", "mysql/password": database["password"] + "\n"}
    pods = []
    for name in ["bare", "deployment"]:  # a member and a client
        own = ports()
        values = {**VALUES, **own, "cluster": {"name": cluster.name, "secretName": "cluster"}, "consul": {"address": shared_consul.address},
                  "mysql": {"host": "127.0.0.1", "port": shared_mariadb.port, "user": database["user"],
                            "database": database["database"], "passwordSecret": "mysql"}}
        injector = Injector(pathlib.Path(folder) / f"injector-{name}", values).start()
        pod, _ = injector.inject(REVIEWS[name])
        injector.process.end()
        is_valid_pod(pod)
        mounted = {m["mountPath"] for m in pod["spec"]["initContainers"][0]["volumeMounts"]}
        assert {f"/etc/carillon/{s.split('/')[0]}" for s in secrets if name == "bare" or "mysql" not in s} <= mounted
        pods.append(Pod(f"injected-{name}", pod["spec"]["initContainers"][0], folder, own, secrets=secrets))
    try:
        for pod in pods:
            pod.start()
        job = {"schedule": "0 9 1 1 *", "callback": {"http": {"path": "/hook"}}}
        wait_until(lambda: pods[1].call("PUT", "/v1/jobs/j", json=job).status_code in (200, 201), 60, "the client reaches the member")
        kept = pods[0].get("j")
        assert kept["status"]["owner"] == "injected-bare" and kept["callback"]["http"]["service"] == "billing"
    finally:
        for pod in pods:
            pod.end()


def test_the_reviews_are_of_the_shape_of_kubernetes():
    for document in REVIEWS.values():
        request = document["request"]
        assert {"uid", "kind", "resource", "requestKind", "requestResource", "namespace", "operation", "userInfo", "object", "oldObject",
                "dryRun", "options"} <= set(request)
