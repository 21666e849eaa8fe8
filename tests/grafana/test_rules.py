"""The rules: by Prometheus's own tool, and against the pages and metrics of the project."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.grafana.boards import GRAFANA, ROOT, RULES, alerts, metrics, recorded, selectors

RUNBOOKS = ROOT / "docs" / "runbooks"
TESTS = GRAFANA / "rules" / "tests" / "alerts.yaml"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)


def promtool(*argv: str | Path, page: str | None = None) -> str:
    done = subprocess.run(["promtool", *argv], input=page, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@needs_promtool
def test_the_rules_are_valid() -> None:
    said = promtool("check", "rules", "--lint-fatal", *RULES)
    assert said.count("SUCCESS") == len(RULES) == 2


@needs_promtool
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", TESTS)


@needs_promtool
def test_the_scrape_configuration_is_valid() -> None:
    assert "prometheus.yml is valid" in promtool("check", "config", GRAFANA / "prometheus.yml")


def test_each_alert_is_tested_both_ways() -> None:
    text = TESTS.read_text()
    tested = re.findall(r"^ +alertname: (\w+)\n +exp_alerts:\n +- exp_labels", text, re.MULTILINE)
    silent = re.findall(r"alertname: (\w+), exp_alerts: \[\]", text)
    assert tested == list(alerts())
    assert set(silent) == set(alerts())


@pytest.mark.parametrize("alert", alerts())
def test_each_alert_has_its_page(alert: str) -> None:
    page = (RUNBOOKS / f"{alert}.md").read_text()
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    assert titles == [alert, "What it means", "What to look at", "What to do"]
    rule = (
        (GRAFANA / "rules" / "alerts.yaml").read_text().split(f"- alert: {alert}\n")[1].split("- alert:")[0]
    )
    assert f"runbook: docs/runbooks/{alert}.md\n" in rule
    severity, summary = re.findall(r"severity: (\w+)|summary: (.+)", rule)
    assert f"{summary[1]}. Severity: {severity[0]}.\n" in page
    assert severity[0] in {"critical", "warning"}
    assert (
        f"| [{alert}]({alert}.md) | {severity[0]} | {summary[1]} |\n" in (RUNBOOKS / "README.md").read_text()
    )


def test_no_page_is_left_without_its_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == set(alerts())


@pytest.mark.parametrize("name", [*recorded(), *alerts()])
def test_a_rule_asks_for_what_there_is(name: str) -> None:
    expression = (recorded() | alerts())[name]
    known = set(metrics()) | set(recorded())
    names = {selector.name for selector in selectors(expression)}
    assert names
    assert names <= known


def test_a_provisioned_dashboard_finds_its_data_source() -> None:
    datasource = (GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    assert re.search(r"^ +type: prometheus$", datasource, re.MULTILINE)
    assert re.search(r"^ +timeInterval: 15s", datasource, re.MULTILINE)
    assert "scrape_interval: 15s\n" in (GRAFANA / "prometheus.yml").read_text()
    provider = (GRAFANA / "provisioning" / "dashboards" / "colo-compare.yaml").read_text()
    assert re.search(r"^ +type: file$", provider, re.MULTILINE)


@needs_promtool
async def test_the_page_of_a_daemon_is_a_good_page(metrics_page: str) -> None:
    assert promtool("check", "metrics", page=metrics_page) == ""
