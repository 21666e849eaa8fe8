"""The report on real guests, made of figures that nobody measured: nothing may be lost at its end."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from colo_compare.demo.qemu.image import Image
from tests.bench import colo_measure, colo_report
from tests.bench.colo_forms import Alone, DropIn, Form, Inline, Qemu
from tests.bench.colo_measure import Cell, Failovers, Standing, longest_gap, try_failover
from tests.bench.colo_page import page, readme
from tests.bench.colo_results import Results, read_json, write_json
from tests.bench.colo_tables import held_quantile, quantile, targets
from tests.bench.colo_workloads import WORKLOADS, Workload

ALIKE = next(workload for workload in WORKLOADS if not workload.diverges)


def replace(found: Cell | Failovers, by: Cell | Failovers) -> None:
    found.__dict__.update(vars(by))


def full() -> Results:
    """A run in which all went well."""
    results = Results({"date": "2026-11-25T01:00+00:00", "took": "20 min"})
    for forms in results.cells.values():
        for form, cell in forms.items():
            cell.latencies = [0.001 * number for number in range(1, 101)]
            cell.seconds = 5.0
            if form is not Alone:
                cell.requests = Counter({"payload": 2}) if form is Qemu else Counter()
                cell.pauses = [0.01, 0.02]
            if form in (Inline, DropIn):
                cell.holds = Counter({0.001: 50, 0.002: 99, math.inf: 100})
    for seen in results.failovers.values():
        seen.gaps = [0.05] * 19 + [0.09]
        seen.connections = 100
    return results


def empty() -> Results:
    """A run that ended before it began."""
    return Results()


def failed() -> Results:
    """A run of which one workload, one form and all failovers came to nothing."""
    results = full()
    for workload, forms in results.cells.items():
        for form, cell in forms.items():
            if workload is ALIKE:
                replace(cell, Cell(failed=3, words=["ControlError: no answer"]))
            elif form is DropIn:
                replace(cell, Cell(lost=1, wrong=2, broken=3))
    for seen in results.failovers.values():
        replace(seen, Failovers(failed=20))
    return results


RUNS = pytest.mark.parametrize("results", [full(), empty(), failed()], ids=["full", "empty", "failed"])


@RUNS
def test_every_run_can_be_published_and_once_more_from_its_figures(results: Results, tmp_path: Path) -> None:
    raw = tmp_path / "colo.json"
    write_json(results, raw)
    assert read_json(raw) == results
    colo_report.publish(read_json(raw), tmp_path)
    text = (tmp_path / "qemu-report.md").read_text()
    assert text == page(results)
    for workload in WORKLOADS:
        assert text.lower().count(f"### {workload.name.lower()}\n") == 1
    assert "nan" not in text
    assert "$" not in text
    assert (tmp_path / "readme.md").read_text() == readme(results)
    assert (tmp_path / "qemu-report.svg").read_text().startswith("<?xml")


def test_figures_of_another_version_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    raw = tmp_path / "colo.json"
    raw.write_text(
        '{"about": {}, "workloads": {"one of old": {}, "HTTP, keep-alive": {"inline": {"lost": 1}}}}'
    )
    results = read_json(raw)
    assert results.cells[WORKLOADS[1]][Inline] == Cell(lost=1)
    assert results.failovers[Qemu] == Failovers()


def test_all_targets_met() -> None:
    assert {target.met for target in targets(full().cells, full().failovers)} == {True}


def test_nothing_measured_is_not_met() -> None:
    assert {target.met for target in targets(empty().cells, empty().failovers)} == {None}


@pytest.mark.parametrize(
    ("wanted", "spoil"),
    [
        ("QEMU's checkpoints", lambda cell, seen: cell.requests.update(payload=9)),
        ("p90", lambda cell, seen: cell.latencies.extend([0.2] * 100)),
        ("failover", lambda cell, seen: seen.gaps.append(0.2)),
        ("connection lost", lambda cell, seen: setattr(seen, "lost", 1)),
        ("connection lost", lambda cell, seen: setattr(cell, "lost", 1)),
        ("wrong byte", lambda cell, seen: setattr(cell, "wrong", 1)),
        ("pair lost", lambda cell, seen: setattr(cell, "broken", 1)),
    ],
)
@pytest.mark.parametrize("form", [Inline, DropIn])
def test_a_target_that_is_missed(form: type[Form], wanted: str, spoil: Any) -> None:
    results = full()
    spoil(results.cells[ALIKE][form], results.failovers[form])
    missed = [target.wanted for target in targets(results.cells, results.failovers) if not target.met]
    assert len(missed) == 1
    assert missed[0].startswith(form.name)
    assert wanted in missed[0]
    assert missed[0] in readme(results).replace("\n", " ")


def test_quantiles() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0], 0.99) == 1.0
    assert math.isnan(quantile([], 0.5))
    assert held_quantile(Counter({0.1: 5, 0.2: 9, math.inf: 10}), 0.9) == 0.2
    assert math.isnan(held_quantile(Counter(), 0.5))


def test_the_longest_gap_is_one_that_ended_after_the_death() -> None:
    assert longest_gap([0.0, 5.0, 6.0, 6.5], 5.5) == 1.0
    with pytest.raises(ValueError, match="over before"):
        longest_gap([0.0, 1.0], 2.0)


class Scripted(Form):
    """A form without guests."""

    name = "scripted"
    started: ClassVar[list["Scripted"]] = []
    whole: ClassVar[list[bool]] = []

    def __init__(self, image: Image, state: Path) -> None:
        self.closed = False
        self.started.append(self)

    def requests(self) -> Mapping[str, int]:
        raise OSError("no answer")

    def is_whole(self) -> bool:
        return self.whole.pop(0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch, guest: Image, tmp_path: Path) -> Standing:
    monkeypatch.setattr(Scripted, "started", [])
    return Standing(Scripted, guest, tmp_path)


@pytest.fixture
def guest(tmp_path: Path) -> Image:
    return Image(tmp_path, tmp_path, tmp_path, "tcg")


def test_a_turn_that_comes_to_nothing_costs_a_new_start(standing: Standing) -> None:
    cell = Cell()
    for _ in range(2):
        standing.take_turn(ALIKE, 1.0, cell)
    standing.close()
    assert (cell.failed, cell.broken) == (2, 0)
    assert cell.words == ["OSError: no answer"] * 2
    assert [form.closed for form in Scripted.started] == [True, True]


def test_a_lost_pair_is_counted_and_started_again(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "whole", [True, False, True])
    turns: list[Workload] = []
    monkeypatch.setattr(
        colo_measure, "take_turn", lambda form, workload, seconds, cell: turns.append(workload)
    )
    cell = Cell()
    with standing:
        for _ in range(3):
            standing.take_turn(ALIKE, 1.0, cell)
        assert [form.closed for form in Scripted.started] == [True, False]
    assert (cell.failed, cell.broken, len(turns)) == (0, 1, 3)
    assert Scripted.started[1].closed


def test_a_failover_that_comes_to_nothing_is_counted(guest: Image, tmp_path: Path) -> None:
    class Broken(Scripted):
        def __init__(self, image: Image, state: Path) -> None:
            raise RuntimeError("no boot")

    seen = Failovers()
    try_failover(Broken, guest, tmp_path, seen)
    assert seen == Failovers(failed=1, words=["RuntimeError: no boot"])
