"""Alert rules and dashboard of configs/: promtool plays each rule what it is there for; all metrics that they name exist."""
import json
import re
import subprocess

import pytest
import yaml

from lib import procs
from lib.carillon import ROOT, Agent

RULES = ROOT / "configs/prometheus-alerts.yaml"
DASHBOARD = ROOT / "configs/grafana-dashboard.json"
DAY = 86400
# A healthy agent, a sample a minute for an hour.
HEALTHY = {
    'up{job="carillon",instance="a"}': "1x60",
    'carillon_slots_unowned{instance="a"}': "0x60",
    'carillon_oldest_overdue_seconds{instance="a"}': "0x60",
    'carillon_fire_lateness_seconds_bucket{instance="a",le="0.1"}': "0+60x60",
    'carillon_fire_lateness_seconds_bucket{instance="a",le="10"}': "0+60x60",
    'carillon_fire_lateness_seconds_bucket{instance="a",le="+Inf"}': "0+60x60",
    'carillon_attempts_total{instance="a",transport="http",result="ok"}': "0+60x60",
    'carillon_attempts_total{instance="a",transport="http",result="failed"}': "0+6x60",
    'carillon_fires_total{instance="a",namespace="team",outcome="succeeded",reason=""}': "0+60x60",
    'carillon_fires_total{instance="a",namespace="team",outcome="dead",reason="max_age"}': "3x60",
    'carillon_store_errors_total{instance="a",class="retry"}': "2x60",
    'carillon_raft_leader_known{instance="a"}': "1x60",
    'carillon_raft_leader{instance="a"}': "1x60",
    'carillon_raft_voters{instance="a"}': "3x60",
    'carillon_raft_voters_reached{instance="a"}': "3x60",
    'carillon_raft_lag_entries{instance="a"}': "12x60",
    'carillon_raft_term{instance="a"}': "7x60",
    'carillon_audit_differences{instance="a",kind="lost_dues"}': "0x60",
    'carillon_requests_rejected_total{instance="a",code="quota_exceeded"}': "5x60",
    'carillon_requests_rejected_total{instance="a",code="not_found"}': "0+60x60",
    'carillon_events_dropped_total{instance="a",listener="client"}': "9x60",
    'carillon_trace_spans_total{instance="a",result="sent"}': "0+60x60",
    'carillon_trace_spans_total{instance="a",result="lost"}': "4x60",
    'carillon_clock_offset_seconds{instance="a"}': "0.01x60",
    'carillon_config_last_reload_successful{instance="a"}': "1x60",
    'carillon_tls_cert_expiry_timestamp_seconds{instance="a"}': f"{30 * DAY}x60",
}
# What is different when an alert has to fire: the start of a sample's name, and its values from the tenth minute on.
TROUBLE = {
    "CarillonAgentDown": ("up", "1x9 0x50"),
    "CarillonSlotsUnowned": ("carillon_slots_unowned", "0x9 7x50"),
    "CarillonOverdue": ("carillon_oldest_overdue_seconds", "0x9 61+60x50"),
    "CarillonLate": ('carillon_fire_lateness_seconds_bucket{instance="a",le="0.1"}', "0+60x9 600x50"),
    "CarillonCallbacksFail": ('carillon_attempts_total{instance="a",transport="http",result="failed"}', "0+6x9 60+90x50"),
    "CarillonDeadLetters": ('carillon_fires_total{instance="a",namespace="team",outcome="dead"', "3x9 4+1x50"),
    "CarillonStoreFails": ("carillon_store_errors_total", "2x9 2+60x50"),
    "CarillonLogLeaderless": ("carillon_raft_leader_known", "1x9 0x50"),
    "CarillonVoterAway": ("carillon_raft_voters_reached", "3x9 2x50"),
    "CarillonVotersFew": ('carillon_raft_voters{', "3x9 2x50"),
    "CarillonVoterBehind": ("carillon_raft_lag_entries", "12x9 10001+5000x50"),
    "CarillonLogElections": ("carillon_raft_term", "7x9 8+1x50"),
    "CarillonAuditDiffers": ("carillon_audit_differences", "0x9 2x50"),
    "CarillonQuotaFull": ('carillon_requests_rejected_total{instance="a",code="quota_exceeded"', "5x9 5+6x50"),
    "CarillonEventsDropped": ("carillon_events_dropped_total", "9x9 9+6x50"),
    "CarillonTracesLost": ('carillon_trace_spans_total{instance="a",result="lost"', "4x9 4+6x50"),
    "CarillonClockOff": ("carillon_clock_offset_seconds", "0.01x9 -0.21x50"),
    "CarillonReloadFailed": ("carillon_config_last_reload_successful", "1x9 0x50"),
    "CarillonCertificateEnds": ("carillon_tls_cert_expiry_timestamp_seconds", f"{30 * DAY}x9 {7 * DAY}x150"),
}
LAST_MINUTE = {"CarillonCertificateEnds": 75}


def alerts():
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def promtool(*argv):
    done = subprocess.run([procs.CACHE / "promtool/promtool", *argv], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def firing(minute, names):
    """At MINUTE these alerts fire and no others."""
    return {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]}


def played(series, checks):
    return {"interval": "1m", "promql_expr_test": checks,
            "input_series": [{"series": name, "values": values} for name, values in series.items()]}


def test_each_alert_fires_for_its_trouble_alone_and_none_without():
    tests = [played(HEALTHY, [firing(minute, []) for minute in (5, 20, 50)])]
    for alert, (start, values) in TROUBLE.items():
        changed = [name for name in HEALTHY if name.startswith(start)]
        assert len(changed) == 1, alert
        last = LAST_MINUTE.get(alert, 50)
        series = {**{k: v.replace("x60", f"x{last + 20}") for k, v in HEALTHY.items()}, changed[0]: values}
        tests.append(played(series, [firing(9, []), firing(last, [alert])]))
    path = procs.make_folder("carillon-it-alerts-") / "alerts.test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}, width=1000))
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(path))


def test_each_alert_has_a_trouble_a_severity_and_a_line_that_says_what_to_do():
    runbook = re.findall(r"^\| `(Carillon\w+)` \| .{40,} \|$", (ROOT / "configs/README.md").read_text(), re.MULTILINE)
    assert set(alerts()) == set(TROUBLE) == set(runbook) and len(runbook) == len(set(runbook))
    for rule in alerts().values():
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]


@pytest.fixture(scope="module")
def families():
    """{metric: type} of a real agent's /metrics."""
    agent = Agent("families", procs.make_folder("carillon-it-families-"))
    try:
        text = agent.start().call("GET", "/metrics").text
    finally:
        agent.end()
    return dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE "))


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda p: p.name)
def test_every_metric_that_is_named_exists(families, path):
    named = set(re.findall(r"\bcarillon_\w+", path.read_text()))
    known = {name + end for name, kind in families.items() for end in (["_bucket", "_sum", "_count"] if kind == "histogram" else [""])}
    assert named and not named - known, named - known


def test_every_metric_that_there_is_can_be_seen(families):
    shown = re.sub(r"_(bucket|sum|count)\b", "", DASHBOARD.read_text())
    unseen = [name for name in families if not re.search(rf"\b{name}\b", shown)]
    assert families and not unseen, f"on no panel of configs/{DASHBOARD.name}: {unseen}"


def test_the_dashboard_asks_what_prometheus_understands():
    board = json.loads(DASHBOARD.read_text())
    asked = [target["expr"].replace("$__rate_interval", "5m") for panel in board["panels"] for target in panel["targets"]]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) > 10
    rules = [{"record": f"carillon:asked{n}", "expr": expr} for n, expr in enumerate(asked)]
    path = procs.make_folder("carillon-it-dashboard-") / "asked.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}, width=1000))
    promtool("check", "rules", str(path))
