"""Rules and dashboards ask for what rooms declare, and every alert leads somewhere."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from darkbloom_mesh.telemetry import DECLARED, SPAN_ATTRIBUTES, TTFT_SECONDS

from tests.contract.deploy.alert_stories import STORIES
from tests.contract.deploy.manifests import DEPLOY, ROOMS, ROOT, named, rendered

MONITORING = DEPLOY / "kustomize" / "components" / "monitoring"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
OPERATIONS = ROOT / "docs" / "operations"
RULES: dict[str, Any] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]

# What is not ours, and who publishes it.
OTHERS = {
    "up": "Prometheus",
    "ALERTS": "Prometheus",
    "certmanager_certificate_expiration_timestamp_seconds": "cert-manager",
    "kubelet_volume_stats_capacity_bytes": "kubelet",
    "kubelet_volume_stats_used_bytes": "kubelet",
    "cnpg_collector_up": "CloudNativePG",
    "cnpg_locks_longest_wait_seconds": "CloudNativePG",
    "cnpg_pg_replication_in_recovery": "CloudNativePG",
    "cnpg_pg_replication_lag": "CloudNativePG",
    "cnpg_pg_stat_archiver_last_archived_time": "CloudNativePG",
    "cnpg_pg_stat_archiver_last_failed_time": "CloudNativePG",
    "cnpg_pg_stat_archiver_seconds_since_last_archival": "CloudNativePG",
    "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp": "CloudNativePG",
    "barman_cloud_cloudnative_pg_io_last_failed_backup_timestamp": "CloudNativePG",
}
PLATFORM = {"kubelet": "kubelet_", "cert-manager": "certmanager_"}
"""What the cluster's own Prometheus has to scrape; who is told where that is missing."""
OPERATORS = ("and", "bool", "by", "offset", "on", "or", "unless", "without")
FUNCTIONS = (
    *("abs", "absent", "avg", "count", "histogram_quantile", "increase", "max", "min"),
    *("rate", "sum", "time", "topk", "vector"),
)
CNPG_METRICS = 9187
UNITS = {"short", "percentunit", "percent", "s", "ms", "reqps", "ops", "bytes", "none", "cps"}
# Of Grafana's units, those in use.
WORDS = {*OPERATORS, *FUNCTIONS}
LABELS = {
    "job", "instance", "namespace", "exported_namespace", "pod", "persistentvolumeclaim", "le",
    "alertname", "alertstate", "severity",
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


def test_whatever_a_rule_asks_of_an_exporter_is_scraped_from_it() -> None:
    """By us, as the render has it; else by the platform, and its silence is an alert."""
    documents = rendered("overlays/production")
    used = {name for _, expression in expressions() for name in names_in(expression)}
    exporters = {OTHERS[name] for name in used & set(OTHERS)} - {"Prometheus"}
    assert exporters == {"CloudNativePG", *PLATFORM}

    monitor = named(documents, "PodMonitor", "postgres")["spec"]
    wanted = monitor["selector"]["matchLabels"]
    cluster = named(documents, "Cluster", "postgres")["spec"]
    assert wanted.items() <= cluster["inheritedMetadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == ["metrics"]
    policy = named(documents, "NetworkPolicy", "postgres")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= wanted.items()
    from_monitoring = [
        port["port"]
        for rule in policy["ingress"]
        if any("monitoring" in str(peer.get("namespaceSelector")) for peer in rule["from"])
        for port in rule["ports"]
    ]
    assert from_monitoring == [CNPG_METRICS]

    (missing,) = [rule["expr"] for rule in ALERTS if rule["alert"] == "ScrapesMissing"]
    (row,) = re.findall(r"\| `monitoring` \|.*", (DEPLOY / "README.md").read_text())
    for exporter, prefix in PLATFORM.items():
        assert f"absent({prefix}" in missing
        assert exporter in row
    assert "absent(cnpg_" in missing
    assert "absent(barman_" in missing


def test_our_queries_of_postgresql_are_those_that_rules_ask_for() -> None:
    documents = rendered("overlays/production")
    (told,) = named(documents, "Cluster", "postgres")["spec"]["monitoring"][
        "customQueriesConfigMap"
    ]
    config = named(documents, "ConfigMap", told["name"])
    queries = yaml.safe_load(config["data"][told["key"]])
    ours = {
        f"cnpg_{name}_{column}"
        for name, query in queries.items()
        for metric in query["metrics"]
        for column in metric
    }
    assert ours
    assert ours <= {name for _, expression in expressions() for name in names_in(expression)}


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
    url = alert["annotations"]["runbook_url"]
    assert url == f"{{{{ $externalLabels.docs }}}}/operations/runbooks/{path.name}"
    severity = alert["labels"]["severity"]
    assert path.exists()
    assert alert["alert"] in path.read_text()
    assert severity in {"page", "ticket", "none"}
    index = (OPERATIONS / "README.md").read_text()
    says = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", alert["annotations"]["summary"])
    row = rf"\| `{alert['alert']}` \| {severity} \| \[[^\]]+\]\(runbooks/{path.name}\) \| (.+) \|"
    assert re.findall(row, index) == [says]


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
def test_a_dashboard_is_what_grafana_imports(path: Path) -> None:
    """No Grafana is at hand: what its schema 39 asks of these kinds of panels, written down."""
    board = json.loads(path.read_text())
    assert board["schemaVersion"] == 39
    assert {"title", "uid", "tags", "time", "refresh", "templating", "panels"} <= set(board)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    for panel in board["panels"]:
        assert panel["type"] in {"stat", "timeseries"}, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert "datasource" in variables
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert isinstance(panel["fieldConfig"]["overrides"], list)
        refs = [target["refId"] for target in panel["targets"]]
        assert refs == [chr(ord("A") + number) for number in range(len(refs))]
        assert refs
        for target in panel["targets"]:
            assert set(target) <= {"refId", "expr", "legendFormat", "exemplar"}
            grouped = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert grouped <= LABELS, panel["title"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_panel_of_named_series_draws_no_zero_without_a_name(path: Path) -> None:
    for panel in json.loads(path.read_text())["panels"]:
        for target in panel["targets"]:
            named_series = "{{" in target["legendFormat"]
            assert not (named_series and target["expr"].endswith("or vector(0)")), panel["title"]


def test_the_promised_time_of_a_first_content_is_one_that_is_counted() -> None:
    """A share below a bound is known only where the bound is a bucket's edge."""
    (promised,) = re.findall(
        r"\| first content \| within (\d+) s", (OPERATIONS / "README.md").read_text()
    )
    (rule,) = [rule for rule in rules("record") if "first_content_in_time" in rule["record"]]
    (late,) = [rule for rule in ALERTS if rule["alert"] == "FirstContentLate"]
    assert re.findall(r'le="([\d.]+)"', rule["expr"]) == [f"{float(promised)}"]
    assert late["expr"].endswith(f"> {promised}")
    assert float(promised) in TTFT_SECONDS.buckets


def test_the_first_line_of_the_overview_says_whether_something_is_wrong() -> None:
    board = json.loads((MONITORING / "dashboards" / "overview.json").read_text())
    top = [panel for panel in board["panels"] if panel["gridPos"]["y"] < 8]
    asked = " ".join(target["expr"] for panel in top for target in panel["targets"])
    for needed in ("ALERTS", "darkbloom:uptime", "darkbloom:first_content_in_time", "up{"):
        assert needed in asked


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


def test_the_collector_lets_through_what_spans_may_say_and_nothing_else() -> None:
    config = yaml.safe_load((MONITORING.parent / "collector" / "config.yaml").read_text())
    allowed = set(config["processors"]["redaction"]["allowed_keys"])
    resource = {name for name in allowed if name.startswith(("service.", "telemetry."))}
    assert allowed - resource == set(SPAN_ATTRIBUTES)
    assert not config["processors"]["redaction"]["allow_all_keys"]
    pipeline = config["service"]["pipelines"]["traces"]["processors"]
    assert pipeline.index("redaction") < pipeline.index("tail_sampling")
    late = next(p for p in config["processors"]["tail_sampling"]["policies"] if p["name"] == "late")
    assert late["numeric_attribute"]["key"] in SPAN_ATTRIBUTES


def test_every_alert_has_a_story_in_which_it_fires() -> None:
    told = {alert for _, (alert, _, fires) in STORIES.values() if fires}
    assert {rule["alert"] for rule in ALERTS} - told == set()


def rules_of(alert: str) -> list[dict[str, Any]]:
    """Return an alert's rule, after the recorded series that it is made of."""
    (rule,) = [rule for rule in ALERTS if rule["alert"] == alert]
    names = names_in(rule["expr"])
    return [*(made for made in rules("record") if made["record"] in names), rule]


@pytest.mark.tool("promtool")
def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    """Each story is played with its alert's rules alone; all of them would take minutes."""
    for number, (name, (series, (alert, at, fires))) in enumerate(STORIES.items()):
        group = {"name": "story", "interval": "1m", "rules": rules_of(alert)}
        (tmp_path / f"rules{number}.yaml").write_text(yaml.safe_dump({"groups": [group]}))
        # A record's name alone decides: labels and texts of what fires are the rule's own.
        expression = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
        story = {
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
        document = {
            "rule_files": [f"rules{number}.yaml"], "evaluation_interval": "1m", "tests": [story],
        }  # fmt: skip
        (tmp_path / f"story{number:02}.yaml").write_text(yaml.safe_dump(document))
    files = sorted(path.name for path in tmp_path.glob("story*.yaml"))
    assert len(files) == len(STORIES)
    done = subprocess.run(
        ["promtool", "test", "rules", *files],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
