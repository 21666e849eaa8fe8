"""The rows of the tables: what was measured, against what, and whether the target is met."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from colo_compare.build import describe_build

AT_LEAST = ">="
AT_MOST = "<="


@dataclass
class Row:
    """One line of a table. The ratio is so made that its target says what is wanted."""

    table: str
    case: str
    unit: str
    figures: dict[str, float]  # the median of each peer, and of the proxy
    ratio: float | None = None
    best: float | None = None  # the ratio of each one's best run: noise only ever makes a run worse
    sense: str = ""  # AT_LEAST or AT_MOST
    target: float | None = None
    skipped: str = ""  # why there is no figure
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio >= self.target if self.sense == AT_LEAST else self.ratio <= self.target


@dataclass
class Results:
    """All rows, and the samples behind the plots."""

    rows: list[Row] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # CPU us a frame by flows
    latencies: dict[str, list[float]] = field(default_factory=dict)  # seconds

    def add(self, row: Row) -> None:
        """Take a row, and show it."""
        self.rows.append(row)
        print(line(row), flush=True)


def interleaved(rounds: int, runs: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run each of several things `rounds` times, in turns: A B A B.

    What else goes on at the machine then concerns all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return found


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Give the median of the ratios of two series whose members were measured next to each other."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Give the median of each series."""
    return {name: statistics.median(series) for name, series in found.items()}


def line(row: Row) -> str:
    """Give a row as text."""
    if row.skipped:
        return f"  {row.case:44} skipped: {row.skipped}"
    figures = ", ".join(f"{name} {_number(value)}" for name, value in row.figures.items())
    text = f"  {row.case:44} {figures} {row.unit}"
    if row.ratio is not None:
        text += f"; ratio {_number(row.ratio)}"
    if row.target is not None:
        text += f" (wanted {row.sense} {_number(row.target)}: {'met' if row.met else 'NOT MET'})"
    return text


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """Give what the figures were measured on."""
    processor = next(
        (
            text.partition(":")[2].strip()
            for text in Path("/proc/cpuinfo").read_text().splitlines()
            if text.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": processor,
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "version": describe_build(),
        "load": os.getloadavg()[0],
    }


def write_json(results: Results, about: Mapping[str, Any], path: Path) -> None:
    """Write everything that was measured."""
    rows = [{**asdict(row), "met": row.met} for row in results.rows]
    path.write_text(
        json.dumps(
            {**about, "rows": rows, "curves": results.curves, "latencies": results.latencies}, indent=1
        )
        + "\n"
    )


def write_markdown(results: Results, path: Path) -> None:
    """Write the rows as the tables of docs/performance.md."""
    lines: list[str] = []
    table = ""
    for row in results.rows:
        if row.table != table:
            table = row.table
            lines += ["", f"| {table} | measured | ratio | target | |", "|---|---|---|---|---|"]
        measured = "; ".join(f"{name} {_number(value)}" for name, value in row.figures.items())
        against = "" if row.ratio is None else _number(row.ratio)
        target = "" if row.target is None else f"{row.sense} {_number(row.target)}"
        verdict = row.skipped or {True: "met", False: "not met", None: ""}[row.met]
        lines.append(f"| {row.case} | {measured} {row.unit} | {against} | {target} | {verdict} |")
    path.write_text("\n".join(lines).lstrip() + "\n")
