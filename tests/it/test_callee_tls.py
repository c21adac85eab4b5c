"""Balanced callees over TLS: a private authority, the service's name as SNI, Host and certificate name, a certificate of our own."""
import pytest
from lib.procs import wait_until
from lib.tls import Authority

QUICK = {"min_backoff": "100ms", "factor": 1, "max_backoff": "100ms", "jitter": 0, "max_attempts": 2}


def job(service):
    return {"schedule": "@after 50ms", "retry": QUICK,
            "callback": {"http": {"service": service, "scheme": "https", "path": "/tls"}, "timeout": "5s"}}


def fire_of(agent, job_id):
    return wait_until(lambda: (f := agent.fires(job_id)) and f[0]["outcome"] != "pending" and f[0], 20, f"{job_id} ended",
                      interval=0.1)


@pytest.fixture
def secure(cluster, callees, shared_consul, folder):
    """secure(**options) registers a TLS callee and starts an agent with these options of its service."""
    ours, made = Authority(folder), []

    def make(cert_name=None, ca=ours.path, client=False, **options):
        callee = callees(ports=0)
        service = f"tls-{folder.name[-6:].replace('_', '-').lower()}"
        tls = ours.issue(cert_name or service)
        if client:
            tls["client_ca"] = str(ours.path)
            mine = ours.issue("agent")
            options.update(tls_cert=mine["cert"], tls_key=mine["key"])
        port = callee.add_port(tls)
        made.append(shared_consul.register(service, port))
        options.update({"tls_ca": str(ca)} if ca else {})
        [agent] = cluster.start(1, config={"services": {service: options}})
        agent.put("secure", job(service))
        return callee, service, fire_of(agent, "secure")

    make.authority = ours
    yield make
    for instance in made:
        shared_consul.deregister(instance)


def test_callee_with_a_private_authority_sees_the_services_name(secure):
    callee, service, fire = secure()
    assert fire["outcome"] == "succeeded" and len(fire["attempts"]) == 1, fire
    [record] = callee.records()
    assert (record["sni"], record["headers"]["host"], record["peer"]) == (service, service, None)


def test_server_name_replaces_the_services_in_certificate_and_sni_only(secure):
    callee, service, fire = secure(cert_name="callee.internal", tls_server_name="callee.internal")
    assert fire["outcome"] == "succeeded", fire
    [record] = callee.records()
    assert (record["sni"], record["headers"]["host"]) == ("callee.internal", service)


def test_callee_that_asks_for_a_certificate_gets_ours(secure):
    callee, _, fire = secure(client=True)
    assert fire["outcome"] == "succeeded", fire
    [record] = callee.records()
    assert record["peer"] == [[["commonName", "agent"]]]


@pytest.mark.parametrize("case, word", [("other authority", "certificate"), ("system", "certificate"), ("other name", "match")])
def test_callee_that_cannot_be_trusted_gets_nothing(secure, folder, case, word):
    options = {"other authority": {"ca": Authority(folder, "other").path}, "system": {"ca": None},
               "other name": {"cert_name": "somebody-else"}}[case]
    callee, _, fire = secure(**options)
    print(f"{case}: {fire['attempts'][0]['error']}")
    assert (fire["outcome"], fire["reason"]) == ("dead", "max_attempts"), fire
    assert len(fire["attempts"]) == 2 and all(word in a["error"] and a["status"] is None for a in fire["attempts"]), fire
    assert callee.count() == 0
