"""Traces as a collector gets them: OTLP over HTTP, read with OpenTelemetry's own definitions."""
import base64
import collections
import http.server
import json
import threading

import pytest
from google.protobuf import json_format
from lib.carillon import Agent
from lib.procs import wait_until
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Span = collections.namedtuple("Span", "name trace id parent kind start end attributes links status")


def ids_as_bytes(node):
    """OTLP's JSON has ids in hexadecimal, where protobuf's has base64."""
    if isinstance(node, list):
        return [ids_as_bytes(n) for n in node]
    if not isinstance(node, dict):
        return node
    return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ("traceId", "spanId", "parentSpanId") else ids_as_bytes(v)
            for k, v in node.items()}


class Collector(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.spans, self.resources, self.refusals, self.wrong = [], [], [], []
        self.requests = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def take(self, body):
        request = json_format.Parse(json.dumps(ids_as_bytes(json.loads(body))), trace_service_pb2.ExportTraceServiceRequest())
        for resource in request.resource_spans:
            self.resources.append({a.key: a.value.string_value for a in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans += [self.span(s) for s in scope.spans]

    @staticmethod
    def span(s):
        assert len(s.trace_id) == 16 and len(s.span_id) == 8 and len(s.parent_span_id) in (0, 8)
        assert 0 < s.start_time_unix_nano <= s.end_time_unix_nano
        attributes = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in s.attributes}
        return Span(s.name, s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex(), s.kind, s.start_time_unix_nano,
                    s.end_time_unix_nano, attributes, [(link.trace_id.hex(), link.span_id.hex()) for link in s.links], s.status)

    def find(self, **wanted):
        return [s for s in list(self.spans) if all(s.attributes.get(k.replace("_", ".")) == v for k, v in wanted.items())]

    def wait(self, count, what, **wanted):
        return wait_until(lambda: (found := self.find(**wanted)) and len(found) >= count and found, 60, what)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests += 1
        status = self.server.refusals.pop(0) if self.server.refusals else 200
        try:
            assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json"
            if status == 200:
                self.server.take(body)
        except Exception as e:  # pylint: disable=broad-except
            self.server.wrong.append((e, body))
            status = 400
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.shutdown()
    made.server_close()
    assert not made.wrong


@pytest.fixture
def traced(folder):
    made = []

    def start(env=None, **telemetry):
        agent = Agent("traced", folder, {"telemetry": telemetry} if telemetry else {})
        agent.process.env = env
        made.append(agent)
        return agent.start(60)

    yield start
    for agent in made:
        agent.end()


def job(callee, **more):
    return {"schedule": "0 9 1 1 *", "callback": {"http": {"url": callee.url("/hook")}}, "retry": {"min_backoff": "10ms"}, **more}


def records_of(callee, count):
    return wait_until(lambda: len(callee.records()) >= count and callee.records(), 60, f"{count} callbacks")


def test_request_fire_and_attempts_are_the_traces_that_traceparent_names(collector, traced, callee):
    agent = traced(otlp_endpoint=collector.url)
    callee.behave({"path": "/hook", "times": 1, "status": 503})
    agent.ask("PUT", "/v1/jobs/t", 201, json=job(callee), headers={"traceparent": PARENT})
    fire = agent.ask("POST", "/v1/jobs/t/run", 202)["fire"]
    records = records_of(callee, 2)
    [request] = collector.wait(1, "the request's span", http_route="/v1/jobs/{id}", http_request_method="PUT")
    assert (request.trace, request.parent) == (PARENT[3:35], PARENT[36:52]) and request.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert request.name == "PUT /v1/jobs/{id}" and request.attributes["http.response.status_code"] == 201
    spans = collector.wait(3, "the fire's spans", carillon_fire=fire)
    [whole] = [s for s in spans if s.name == "fire"]
    attempts = sorted((s for s in spans if s.name == "callback http"), key=lambda s: s.attributes["carillon.attempt"])
    assert whole.parent == "" and whole.links == [(PARENT[3:35], PARENT[36:52])]
    assert whole.attributes["carillon.outcome"] == "succeeded" and whole.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    assert [s.attributes["http.response.status_code"] for s in attempts] == [503, 200]
    assert [s.status.code for s in attempts] == [trace_pb2.Status.STATUS_CODE_ERROR, trace_pb2.Status.STATUS_CODE_UNSET]
    for span, record in zip(attempts, records):
        assert record["headers"]["traceparent"] == f"00-{span.trace}-{span.id}-01"
        assert span.parent == whole.id and span.trace == whole.trace and span.kind == trace_pb2.Span.SPAN_KIND_CLIENT
        assert span.attributes["carillon.job"] == "t" and span.attributes["carillon.namespace"] == "default"
    resource = collector.resources[0]
    assert resource["service.name"] == "carillon" and resource["service.instance.id"] == "traced"
    assert agent.call("GET", "/readyz").ok and not collector.find(http_route="/readyz")


def test_what_no_trace_asks_for_is_traced_by_the_ratio(collector, traced, callee):
    agent = traced(otlp_endpoint=collector.url, sample_ratio=1)
    agent.put("t", job(callee))
    fire = agent.ask("POST", "/v1/jobs/t/run", 202)["fire"]
    [record] = records_of(callee, 1)
    spans = collector.wait(2, "the fire's spans", carillon_fire=fire)
    [attempt] = [s for s in spans if s.name == "callback http"]
    assert record["headers"]["traceparent"] == f"00-{attempt.trace}-{attempt.id}-01" and not attempt.links
    # Who asks for a run is asked about, whoever made the job.
    fire = agent.ask("POST", "/v1/jobs/t/run", 202, headers={"traceparent": PARENT, "tracestate": "a=1"})["fire"]
    record = records_of(callee, 2)[1]
    [whole] = [s for s in collector.wait(2, "the run's spans", carillon_fire=fire) if s.name == "fire"]
    assert whole.links == [(PARENT[3:35], PARENT[36:52])] and whole.trace == record["headers"]["traceparent"][3:35]
    assert record["headers"]["tracestate"] == f"carillon={PARENT},a=1"


def test_a_ratio_of_nothing_leaves_what_asks_for_it(collector, traced, callee):
    agent = traced(otlp_endpoint=collector.url, sample_ratio=0)
    agent.put("quiet", job(callee))
    agent.ask("POST", "/v1/jobs/quiet/run", 202)
    [record] = records_of(callee, 1)
    assert record["headers"]["traceparent"].endswith("-00")
    agent.ask("PUT", "/v1/jobs/unsampled", 201, json=job(callee), headers={"traceparent": PARENT[:-1] + "0"})
    agent.ask("PUT", "/v1/jobs/asked", 201, json=job(callee), headers={"traceparent": PARENT})
    fire = agent.ask("POST", "/v1/jobs/asked/run", 202)["fire"]
    collector.wait(2, "the spans of what asked", carillon_fire=fire)
    [request] = [s for s in collector.spans if "http.route" in s.attributes]
    assert request.trace == PARENT[3:35] and len(collector.spans) == 3


def spans_by_result(agent):
    return {k: v for k, v in agent.metrics().items() if k.startswith("carillon_trace_spans_total")}


def test_a_collector_that_is_away_costs_spans_and_nothing_else(collector, traced, callee):
    agent = traced({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    collector.refusals += [503, 429]  # then it takes them
    agent.put("t", job(callee))
    [request] = collector.wait(1, "the request's span, tried again", http_route="/v1/jobs/{id}")
    assert request.attributes["http.request.method"] == "PUT" and collector.requests >= 3
    collector.refusals += [400]
    agent.get("t")
    wait_until(lambda: any('"lost"' in k for k in spans_by_result(agent)), 60, "what was refused for good is counted")
    fire = agent.ask("POST", "/v1/jobs/t/run", 202)["fire"]
    collector.wait(2, "later spans arrive", carillon_fire=fire)
    # The collector has them before the agent knows.
    wait_until(lambda: any('"sent"' in k and v >= 3 for k, v in spans_by_result(agent).items()), 20, "what was taken is counted")
    wait_until(lambda: all(f"collector takes {what}" in agent.process.log_text() for what in ("no spans", "spans again")), 20, "it is logged")
