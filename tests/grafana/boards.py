"""The dashboards, the rules and the metrics, as the tests look at them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"
RULES = sorted((GRAFANA / "rules").glob("*.yaml"))
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}


@dataclass(frozen=True)
class Panel:
    """One panel that shows something."""

    board: str
    raw: dict[str, Any]

    @property
    def title(self) -> str:
        title: str = self.raw["title"]
        return title

    @property
    def unit(self) -> str:
        unit: str = self.raw["fieldConfig"]["defaults"]["unit"]
        return unit

    def __str__(self) -> str:
        return f"{self.board}: {self.title}"


def panels(board: str) -> list[Panel]:
    """Give the panels of a dashboard without its rows."""
    return [Panel(board, raw) for raw in BOARDS[board]["panels"] if raw["type"] != "row"]


PANELS = [panel for board in BOARDS for panel in panels(board)]


def expressions() -> Iterator[tuple[str, str]]:
    """Give every expression of every dashboard, and where it stands."""
    for panel in PANELS:
        for target in panel.raw["targets"]:
            yield str(panel), target["expr"]
    for name, board in BOARDS.items():
        for annotation in board["annotations"]["list"]:
            yield f"{name}: annotation {annotation['name']}", annotation["expr"]


def substitute(expression: str, *, job: str = ".+", instance: str = ".+", interval: str = "5s") -> str:
    """Put values where Grafana would; `interval` is that of rates, and the shown time is a hundred hours."""
    values = {"job": job, "instance": instance, "__rate_interval": interval, "__range": "100h"}
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], expression)


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Give the selectors of an expression without variables. Raises ValueError when it is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def recorded() -> dict[str, str]:
    """Give the recording rules: name and expression."""
    text = (GRAFANA / "rules" / "recording.yaml").read_text()
    return dict(re.findall(r"- record: (\S+)\n +expr: (.+)", text))


def alerts() -> dict[str, str]:
    """Give the alerts: name and expression."""
    text = (GRAFANA / "rules" / "alerts.yaml").read_text()
    found = {}
    for part in text.split("- alert: ")[1:]:
        name, rest = part.split("\n", 1)
        expression = re.match(r" +expr: (?:>-\n((?: {10}.*\n)+)|(.+)\n)", rest)
        assert expression is not None, name
        found[name] = " ".join((expression[1] or expression[2]).split())
    return found


def metrics() -> dict[str, str]:
    """Give what docs/metrics.md tells, which a test holds against the collector: sample names and types."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    found = dict(re.findall(r"^\| `(colo_\w+)` \| (\w+) \|", page, re.MULTILINE))
    for name, kind in list(found.items()):
        if kind == "histogram":
            del found[name]
            found |= {f"{name}_{part}": "counter" for part in ("bucket", "count", "sum")}
    process = {"cpu_seconds_total": "counter", "resident_memory_bytes": "gauge", "open_fds": "gauge"}
    return found | {f"process_{name}": kind for name, kind in process.items()} | {"up": "gauge"}
