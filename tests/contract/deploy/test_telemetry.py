"""Rules and dashboards ask for what rooms declare, and every alert leads somewhere."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from darkbloom_mesh.telemetry import DECLARED

from tests.contract.deploy.manifests import DEPLOY, ROOMS, ROOT, named, rendered

MONITORING = DEPLOY / "kustomize" / "components" / "monitoring"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
OPERATIONS = ROOT / "docs" / "operations"
RULES: dict[str, Any] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]

# What is not ours, and who publishes it.
OTHERS = {
    "up": "Prometheus",
    "certmanager_certificate_expiration_timestamp_seconds": "cert-manager",
    "cnpg_pg_replication_lag": "CloudNativePG",
    "cnpg_backends_max_tx_duration_seconds": "CloudNativePG",
    "cnpg_backends_waiting_total": "CloudNativePG",
}
OPERATORS = ("and", "bool", "by", "offset", "on", "or", "unless", "without")
FUNCTIONS = (
    *("abs", "absent", "avg", "count", "histogram_quantile", "increase", "max", "min"),
    *("rate", "sum", "time", "topk", "vector"),
)
WORDS = {*OPERATORS, *FUNCTIONS}
LABELS = {
    "job", "instance", "namespace", "exported_namespace", "le",
    *(label for spec in DECLARED for label in spec.labels),
}  # fmt: skip


def rules(kind: str) -> Iterator[dict[str, Any]]:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            if kind in rule:
                yield rule


RECORDED = {rule["record"] for rule in rules("record")}
ALERTS = list(rules("alert"))


def names_in(expression: str) -> set[str]:
    """Return the metrics of an expression."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\b(by|without|on)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    return {
        word for word in re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*", bare) if word not in WORDS
    } - set(re.findall(r"\b\d+[smhd]\b", bare))


def labels_in(expression: str) -> set[str]:
    """Return the labels that an expression selects or groups by."""
    found = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    for group in re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", expression):
        found |= {label.strip() for label in group.split(",") if label.strip()}
    return found


def declared(name: str) -> bool:
    """Say whether a room has this series."""
    base = re.sub(r"_(bucket|count|sum)$", "", name)
    known = {spec.name for spec in DECLARED}
    return name in known or base in known


def expressions() -> Iterator[tuple[str, str]]:
    for rule in (*rules("record"), *ALERTS):
        yield rule.get("alert") or rule["record"], rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]
    for room in ROOMS:
        scaled = named(rendered("overlays/production"), "ScaledObject", room)["spec"]
        for trigger in scaled["triggers"]:
            if trigger["type"] == "prometheus":
                yield f"autoscaling: {room}", trigger["metadata"]["query"]


def test_every_metric_in_a_rule_a_dashboard_or_a_scaler_is_declared() -> None:
    judged = 0
    for where, expression in expressions():
        for name in names_in(expression):
            assert name in OTHERS or name in RECORDED or declared(name), (where, name)
            judged += 1
    assert judged > 80


def test_every_label_is_one_that_somebody_sets() -> None:
    for where, expression in expressions():
        assert labels_in(expression) <= LABELS, (where, labels_in(expression) - LABELS)


def test_the_reading_of_expressions_sees_what_is_not_declared() -> None:
    expression = 'sum by (model) (rate(darkbloom_wishes_total{kind="x", why="y"}[5m])) > 0.5'
    assert names_in(expression) == {"darkbloom_wishes_total"}
    assert labels_in(expression) == {"model", "kind", "why"}
    assert not declared("darkbloom_wishes_total")
    assert declared("darkbloom_ttft_seconds_bucket")


def test_each_recorded_series_is_used_and_named_after_ours() -> None:
    used = {name for _, expression in expressions() for name in names_in(expression)}
    assert used >= RECORDED
    assert all(name.startswith("darkbloom:") for name in RECORDED)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_its_runbook_and_the_index_knows_it(alert: dict[str, Any]) -> None:
    path = ROOT / alert["annotations"]["runbook"]
    severity = alert["labels"]["severity"]
    assert path.exists()
    assert alert["alert"] in path.read_text()
    assert severity in {"page", "ticket", "none"}
    index = (OPERATIONS / "README.md").read_text()
    row = rf"\| `{alert['alert']}` \| {severity} \| \[[^\]]+\]\(runbooks/{path.name}\) \|"
    assert re.search(row, index)


@pytest.mark.tool("promtool")
def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(RULES))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole_and_its_panels_do_not_overlap(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == f"darkbloom-{path.stem}"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    listed = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    assert f"dashboards/{path.name}" in listed["configMapGenerator"][0]["files"]


OUTCOME = 'darkbloom_request_outcomes_total{job="gateway", model="m", class="%s"}'
PROVIDERS = 'darkbloom_providers{job="router", state="online", trust="%s"}'
WARM = 'darkbloom_warm_pool_machines{job="router", model="m", which="warm"}'
ASKED = 'darkbloom_routing_decisions_total{job="router", model="m", outcome="no_provider"}'

# What happens, minute by minute (promtool's notation); which alert; when; whether it fires.
STORIES = {
    "one in ten fails": (
        {OUTCOME % "success": "0+90x120", OUTCOME % "provider_5xx": "0+10x120"},
        ("RequestsFailFast", "2h", True),
    ),
    "one in a thousand fails": (
        {OUTCOME % "success": "0+999x120", OUTCOME % "provider_5xx": "0+1x120"},
        ("RequestsFailFast", "2h", False),
    ),
    "nothing fails and refusals do not count": (
        {OUTCOME % "success": "0+10x120", OUTCOME % "rate_limited": "0+90x120"},
        ("RequestsFailFast", "2h", False),
    ),
    "a third of the streams leaves at once": (
        {"darkbloom_provider_streams": "300x20 200x20"},
        ("FleetDrop", "23m", True),
    ),
    "a third leaves within an hour": (
        {"darkbloom_provider_streams": "300-2x60"},
        ("FleetDrop", "45m", False),
    ),
    "half of the hardware trust goes": (
        {PROVIDERS % "hardware": "90x20 45x20", PROVIDERS % "self_signed": "10x20 55x20"},
        ("TrustCollapse", "24m", True),
    ),
    "all hardware trust goes, and its series with it": (
        {PROVIDERS % "hardware": "90x20 stale", PROVIDERS % "self_signed": "10x20 100x20"},
        ("TrustCollapse", "24m", True),
    ),
    "a model is asked for and nobody holds it": (
        {WARM: "0x30", ASKED: "0+5x30"},
        ("NoCapacity", "20m", True),
    ),
    "nobody holds it and nobody asks": (
        {WARM: "0x30", ASKED: "7x30"},
        ("NoCapacity", "20m", False),
    ),
    "a cent is missing": (
        {'darkbloom_billing_ledger_imbalance_micros{job="billing"}': "0x5 -10000x5"},
        ("BooksDoNotBalance", "8m", True),
    ),
    "no billing can be scraped": (
        {
            'up{job="billing", instance="a"}': "1x5 0x10",
            **{f'up{{job="{room}"}}': "1x20" for room in ROOMS if room != "billing"},
        },
        ("RoomDown", "12m", True),
    ),
    "one of two replicas is down": (
        {
            'up{job="billing", instance="a"}': "1x5 0x10",
            'up{job="billing", instance="b"}': "1x20",
            **{f'up{{job="{room}"}}': "1x20" for room in ROOMS if room != "billing"},
        },
        ("RoomDown", "12m", False),
    ),
    "a certificate was not renewed": (
        {'darkbloom_tls_certificate_expiry_seconds{job="router"}': "14000x30"},
        ("RoomCertificateExpires", "20m", True),
    ),
    "a router stays at an old catalog": (
        {
            'darkbloom_catalog_generation{job="registry"}': "7x5 8x20",
            'darkbloom_catalog_generation{job="router", instance="a"}': "7x5 8x20",
            'darkbloom_catalog_generation{job="router", instance="b"}': "7x26",
        },
        ("CatalogLags", "9m", True),
    ),
    "every router follows within a minute": (
        {
            'darkbloom_catalog_generation{job="registry"}': "7x5 8x20",
            'darkbloom_catalog_generation{job="router"}': "7x5 8x20",
            'darkbloom_catalog_generation{job="gateway"}': "7x5 8x20",
        },
        ("CatalogLags", "9m", False),
    ),
    "a rollout waits for attempts that nobody makes": (
        {'darkbloom_rollout_overdue_seconds{job="registry", model="m"}': "0+60x60"},
        ("RolloutStuck", "40m", True),
    ),
    "a rollout soaks": (
        {'darkbloom_rollout_overdue_seconds{job="registry", model="m"}': "0x60"},
        ("RolloutStuck", "40m", False),
    ),
    "a third of the machines cannot fetch a build": (
        {
            f'darkbloom_model_prefetch_providers{{job="registry", model="m", state="{state}"}}': row
            for state, row in {"failed": "5x30", "verified": "10x30"}.items()
        },
        ("FetchesFail", "20m", True),
    ),
    "routers differ from the full scan": (
        {'darkbloom_routing_audits_total{job="router", outcome="disagreed"}': "0x5 1x60"},
        ("RoutingDisagrees", "20m", True),
    ),
}


@pytest.mark.tool("promtool")
def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    tests = []
    for name, (series, (alert, at, fires)) in STORIES.items():
        # A record's name alone decides: labels and texts of what fires are the rule's own.
        expression = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
        tests.append(
            {
                "name": name,
                "interval": "1m",
                "input_series": [{"series": k, "values": v} for k, v in series.items()],
                "promql_expr_test": [
                    {
                        "expr": expression,
                        "eval_time": at,
                        "exp_samples": [{"labels": "{}", "value": int(fires)}],
                    }
                ],
            }
        )
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
