"""The page docs/qemu-report.md, and the paragraph of the README, from what was measured."""

import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from string import Template

from tests.bench.colo_forms import FORMS, DropIn, Form, Inline, Qemu
from tests.bench.colo_results import Results
from tests.bench.colo_tables import (
    decimal,
    failover_table,
    ms,
    quantile,
    rate,
    target_table,
    targets,
    workload_table,
)
from tests.bench.colo_workloads import WORKLOADS

TEMPLATE = Path(__file__).with_suffix(".txt")
KEPT_ALIVE = WORKLOADS[1]


def page(results: Results) -> str:
    """Give the page."""
    figures: list[str] = []
    for workload, forms in results.cells.items():
        figures += [f"### {workload.name[0].upper()}{workload.name[1:]}", "", *workload_table(forms), ""]
    figures += ["### Failover", "", *failover_table(results.failovers)]
    return Template(TEMPLATE.read_text()).substitute(
        conditions="\n".join(f"- {name}: {value}" for name, value in results.about.items()),
        targets="\n".join(target_table(results.cells, results.failovers)),
        trust=_trust(results),
        checkpoints=_checkpoints(results),
        failovers=_failovers(results),
        figures="\n".join(figures),
    )


def readme(results: Results) -> str:
    """Give what the README quotes."""
    missed = [target.wanted for target in targets(results.cells, results.failovers) if target.met is False]
    latencies = _each(FORMS, lambda form: quantile(results.cells[KEPT_ALIVE][form].latencies, 0.9))
    failovers = _each(results.failovers, lambda form: quantile(results.failovers[form].gaps, 0.5))
    worst = _each(results.failovers, lambda form: quantile(results.failovers[form].gaps, 0.99))
    date = results.about.get("date", "without a date")[:10]
    text = (
        f"Measured side by side on real guests without KVM ([report](docs/qemu-report.md), {date}): "
        f"{_trust(results)} "
        f"Failover, the longest time without a byte: median {failovers}; 99 % within {worst}. "
        f"{KEPT_ALIVE.name}, 90 % within: {latencies}. "
        f"Targets missed: {'; '.join(missed) or 'none'}."
    )
    return "\n".join(textwrap.wrap(text, 128, break_long_words=False, break_on_hyphens=False)) + "\n"


def _each(forms: Iterable[type[Form]], figure: Callable[[type[Form]], float]) -> str:
    return ", ".join(f"{ms(figure(form))} ms {form.name}" for form in forms)


def _trust(results: Results) -> str:
    cells = [cell for forms in results.cells.values() for cell in forms.values()]
    rounds = list(results.failovers.values())
    wrong = sum(cell.wrong for cell in cells) + sum(seen.wrong for seen in rounds)
    lost = sum(cell.lost for cell in cells) + sum(seen.lost for seen in rounds)
    broken = sum(cell.broken for cell in cells)
    failed = sum(cell.failed for cell in cells) + sum(seen.failed for seen in rounds)
    rounds_made = sum(len(seen.gaps) for seen in rounds)
    text = (
        f"{sum(len(cell.latencies) for cell in cells):,} checked answers, and "
        f"{sum(seen.connections for seen in rounds)} connections through "
        f"{rounds_made} failovers: {wrong} wrong, {lost} lost; {broken} pairs lost."
    )
    return f"{text} {failed} turns or rounds came to nothing." if failed else text


def _checkpoints(results: Results) -> str:
    alike = {workload: forms for workload, forms in results.cells.items() if not workload.diverges}
    return ", ".join(f"{decimal(rate(form, alike))} {form.name}" for form in (Qemu, Inline, DropIn))


def _failovers(results: Results) -> str:
    return ", ".join(
        f"{form.name} {ms(quantile(seen.gaps, 0.5))} ms (99 %: {ms(quantile(seen.gaps, 0.99))} ms)"
        for form, seen in results.failovers.items()
    )
