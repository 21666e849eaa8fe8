"""What was measured, as Markdown, JSON and pictures."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.colo_forms import Alone, DropIn, Form, Inline, Qemu
from tests.bench.colo_measure import Cell, Failovers
from tests.bench.colo_workloads import Workload

Cells = Mapping[Workload, Mapping[type[Form], Cell]]
MILLI = 1000.0
NOTHING = "-"
P90_ABOVE = 0.005  # seconds that p90 may be above that without COLO
CHECKPOINTS_SHARE = 0.1  # of QEMU's own
FAILOVER_P99 = 0.1  # seconds


def quantile(values: Sequence[float], share: float) -> float:
    """Give the smallest value that at least this share of all is not above; NaN of none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


def held_quantile(holds: Counter[float], share: float) -> float:
    """Give the bound of the bucket that a quantile lies in; NaN where nobody counted anything."""
    total = holds.get(math.inf, 0)
    if not total:
        return math.nan
    return min(bound for bound, count in holds.items() if count >= share * total)


def ms(seconds: float) -> str:
    if math.isnan(seconds):
        return NOTHING
    if math.isinf(seconds):
        return "> 8,192"
    return f"{seconds * MILLI:,.0f}" if seconds >= 0.1 else f"{seconds * MILLI:.1f}"


def checkpoints(cell: Cell) -> float:
    """Give the checkpoints for each 1,000 questions."""
    return 1000 * sum(cell.requests.values()) / len(cell.latencies) if cell.latencies else math.nan


def causes(cell: Cell) -> str:
    if not cell.requests:
        return ""
    return ", ".join(f"{cause} {count}" for cause, count in cell.requests.most_common())


HEAD = (
    "| | questions | /s | p50 ms | p90 ms | p99 ms | checkpoints /1,000 | by cause "
    "| pause p50/p99 ms | held p50/p99 ms | lost | wrong |\n|---|" + "---:|" * 6 + "---|---:|---:|---:|---:|"
)


FAILOVER_HEAD = "| | rounds | p50 ms | p90 ms | p99 ms | longest ms | lost | wrong |\n|---|" + "---:|" * 7


def row(form: type[Form], cell: Cell) -> str:
    latencies = cell.latencies
    columns = [
        form.name,
        f"{len(latencies):,}",
        f"{len(latencies) / cell.seconds:,.1f}" if cell.seconds else NOTHING,
        *(ms(quantile(latencies, share)) for share in (0.5, 0.9, 0.99)),
        NOTHING if form is Alone or not latencies else f"{checkpoints(cell):,.1f}",
        causes(cell),
        " / ".join(ms(quantile(cell.pauses, share)) for share in (0.5, 0.99)),
        " / ".join(ms(held_quantile(cell.holds, share)) for share in (0.5, 0.99)),
        str(cell.lost),
        str(cell.wrong),
    ]
    return f"| {' | '.join(columns)} |"


def failover_row(form: type[Form], seen: Failovers) -> str:
    gaps = seen.gaps
    columns = [form.name, str(len(gaps)), *(ms(quantile(gaps, share)) for share in (0.5, 0.9, 0.99))]
    columns += [ms(max(gaps, default=math.nan)), f"{seen.lost} of {seen.connections}", str(seen.wrong)]
    return f"| {' | '.join(columns)} |"


def targets(cells: Cells, failovers: Mapping[type[Form], Failovers]) -> list[tuple[str, str, bool]]:
    """Give each target: what is wanted, what was seen, whether it is met."""
    rows: list[tuple[str, str, bool]] = []
    for form in (Inline, DropIn):
        alike = [forms for workload, forms in cells.items() if not workload.diverges]
        ours = sum(sum(forms[form].requests.values()) for forms in alike)
        asked = sum(len(forms[form].latencies) for forms in alike)
        theirs = sum(sum(forms[Qemu].requests.values()) for forms in alike)
        their_asked = sum(len(forms[Qemu].latencies) for forms in alike)
        rate, their_rate = 1000 * ours / max(asked, 1), 1000 * theirs / max(their_asked, 1)
        wanted = f"{form.name}: at most a tenth of QEMU's checkpoints where nothing diverges"
        seen = f"{rate:.2f} to {their_rate:.2f} for each 1,000 questions"
        rows.append((wanted, seen, rate <= CHECKPOINTS_SHARE * their_rate))
        late = [
            f"{workload.name} ({ms(quantile(forms[form].latencies, 0.9))} to "
            f"{ms(quantile(forms[Alone].latencies, 0.9))} ms)"
            for workload, forms in cells.items()
            if not workload.diverges and not _in_time(forms[form], forms[Alone])
        ]
        wanted = f"{form.name}: p90 no more than 5 ms above no COLO, where nothing diverges"
        seen = f"missed by {', '.join(late)}" if late else f"all {len(alike)} workloads"
        rows.append((wanted, seen, not late))
        if form in failovers:
            p99 = quantile(failovers[form].gaps, 0.99)
            seen = f"{ms(p99)} ms in {len(failovers[form].gaps)} rounds"
            rows.append((f"{form.name}: failover under 100 ms (p99)", seen, p99 < FAILOVER_P99))
        all_cells = [forms[form] for forms in cells.values()]
        found = failovers.get(form, Failovers())
        lost, wrong = (
            sum(cell.lost for cell in all_cells) + found.lost,
            sum(cell.wrong for cell in all_cells) + found.wrong,
        )
        rows.append((f"{form.name}: no connection lost", str(lost), lost == 0))
        rows.append((f"{form.name}: no wrong byte", f"{wrong} answers", wrong == 0))
    return rows


def _in_time(cell: Cell, alone: Cell) -> bool:
    return quantile(cell.latencies, 0.9) <= quantile(alone.latencies, 0.9) + P90_ABOVE


def markdown(about: Mapping[str, Any], cells: Cells, failovers: Mapping[type[Form], Failovers]) -> str:
    """Give the tables."""
    lines = [f"- {name}: {value}" for name, value in about.items()]
    lines += ["", "## Targets", "", "| wanted | seen | |", "|---|---|---|"]
    lines += [
        f"| {wanted} | {seen} | {'met' if met else '**not met**'} |"
        for wanted, seen, met in targets(cells, failovers)
    ]
    for workload, forms in cells.items():
        lines += ["", f"## {workload.name[0].upper()}{workload.name[1:]}", "", HEAD]
        lines += [row(form, cell) for form, cell in forms.items()]
    if failovers:
        lines += ["", "## Failover", "", FAILOVER_HEAD]
        lines += [failover_row(form, seen) for form, seen in failovers.items()]
    return "\n".join(lines) + "\n"


def write_json(
    about: Mapping[str, Any], cells: Cells, failovers: Mapping[type[Form], Failovers], path: Path
) -> None:
    """Write everything that was measured."""
    written: dict[str, Any] = {"about": dict(about), "workloads": {}, "failovers": {}}
    for workload, forms in cells.items():
        written["workloads"][workload.name] = {
            form.name: {**vars(cell), "holds": {str(bound): n for bound, n in cell.holds.items()}}
            for form, cell in forms.items()
        }
    for form, seen in failovers.items():
        written["failovers"][form.name] = vars(seen)
    path.write_text(json.dumps(written, indent=1) + "\n")


COLOURS = {Alone: "#888888", Qemu: "#d97706", Inline: "#1d4ed8", DropIn: "#60a5fa"}


def draw(cells: Cells, failovers: Mapping[type[Form], Failovers], path: Path) -> None:
    """Draw p50 and p90 of each workload, the checkpoints, and how long failovers took."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplot_mosaic([["latency", "latency"], ["checkpoints", "failover"]])
    names = [workload.name for workload in cells]
    width = 0.2
    for number, form in enumerate(COLOURS):
        at = [place + (number - 1.5) * width for place in range(len(names))]
        p50, p90 = (
            [quantile(forms[form].latencies, share) * MILLI for forms in cells.values()]
            for share in (0.5, 0.9)
        )
        axes["latency"].bar(at, p90, width, color=COLOURS[form], alpha=0.4)
        axes["latency"].bar(at, p50, width, color=COLOURS[form], label=form.name)
        if form is not Alone:
            made = [checkpoints(forms[form]) for forms in cells.values()]
            axes["checkpoints"].bar(at, made, width, color=COLOURS[form], label=form.name)
        if form in failovers:
            gaps = sorted(failovers[form].gaps)
            share = [(place + 1) / len(gaps) for place in range(len(gaps))]
            axes["failover"].step([gap * MILLI for gap in gaps], share, where="post", color=COLOURS[form])
    axes["latency"].set(yscale="log", ylabel="ms", title="one question: median, and 90 % (pale)")
    axes["checkpoints"].set(yscale="symlog", title="checkpoints for each 1,000 questions")
    axes["failover"].set(xscale="log", xlabel="ms", title="share of failovers within", ylim=(0, 1.02))
    axes["latency"].legend()
    for name in ("latency", "checkpoints"):
        axes[name].set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize=7)
    figure.savefig(path)
