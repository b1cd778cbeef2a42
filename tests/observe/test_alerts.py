"""What is deployed beside the metrics: alerts that fire when they should, and a dashboard of metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from slproxy.observe import Tally
from tests.support import ROOT
from tests.support.docs import table
from tests.support.metrics import page_of

RULES, DASHBOARD = ROOT / "deploy" / "prometheus-rules.yaml", ROOT / "deploy" / "grafana-dashboard.json"
# What Prometheus itself adds to each series, and PromQL's own.
ADDED = {"job", "instance", "le"}
# What stands for a time in Grafana.
INTERVAL = "$__rate_interval"


def promtool(*arguments: str) -> str:
    """Return what promtool has to say against something, or nothing."""
    if (program := shutil.which("promtool")) is None:
        pytest.skip("no promtool here (Debian: prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def queries() -> list[str]:
    """Return all queries of the dashboard, those of its variables as well."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return found + [each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]


def expressions() -> list[str]:
    """Return those of the alerts."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["expr"] for rule in group["rules"]]


def documented() -> dict[str, set[str]]:
    """Return the labels of each metric that docs/metrics.md, Names has, and of those that come with the library."""
    found = {
        name: set(re.findall(r"`(\w+)`", labels))
        for names, _, labels, _ in table("metrics.md", "Names")
        for name in re.findall(r"`(\w+)`", names)
    }
    libraries = re.findall(r"^# TYPE ((?:process|python)_\w+) ", page_of(Tally()), re.MULTILINE)
    return found | {name: set[str]() for name in libraries}


def used(query: str) -> tuple[set[str], set[str]]:
    """Return the names of metrics in a query, less the suffixes of histograms, and those of labels."""
    names = {re.sub(r"_(bucket|sum|count)$", "", each) for each in re.findall(r"\b(?:slproxy|process)_\w+", query)}
    selected = re.findall(r'(\w+)(?:=|!=|=~|!~)"', query)
    grouped = [each for group in re.findall(r"\b(?:by|without) \(([^)]*)\)", query) for each in group.split(", ")]
    values = re.findall(r"label_values\(.*, (\w+)\)", query)
    return names, {*selected, *grouped, *values}


@pytest.mark.parametrize("query", [*queries(), *expressions()])
def test_a_query_is_of_metrics_and_labels_that_exist(query: str) -> None:
    metrics = documented()
    names, labels = used(query)
    assert names
    assert names <= metrics.keys()
    assert labels <= ADDED | {label for name in names for label in metrics[name]}


def test_each_metric_of_the_proxy_is_on_the_dashboard() -> None:
    shown = {name for query in queries() for name in used(query)[0]}
    assert {name for name in documented() if name.startswith("slproxy_")} <= shown


def test_the_queries_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.replace(INTERVAL, "5m")}
        for number, query in enumerate(queries())
        if not query.startswith("label_values(")
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert promtool("check", "rules", str(path)) == ""


def test_each_legend_names_a_label_that_its_query_keeps() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= used(target["expr"])[1], panel["title"]


def test_the_alerts_are_rules_of_prometheus() -> None:
    assert promtool("check", "rules", "--lint-fatal", str(RULES)) == ""


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    path = Path(__file__).with_name("alerts.test.yaml")
    tried = {
        each["alertname"] for test in yaml.safe_load(path.read_text())["tests"] for each in test["alert_rule_test"]
    }
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert tried == {rule["alert"] for rule in group["rules"]}
    assert promtool("test", "rules", str(path)) == ""
