"""What was measured, as tables."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.colo_forms import Alone, DropIn, Form, Inline, Qemu
from tests.bench.colo_measure import Cell, Failovers
from tests.bench.colo_results import AllFailovers, Cells

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


def decimal(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.2f}"


def checkpoints(cell: Cell) -> float:
    """Give the checkpoints for each 1,000 questions."""
    return 1000 * sum(cell.requests.values()) / len(cell.latencies) if cell.latencies else math.nan


def causes(cell: Cell) -> str:
    if not cell.requests:
        return ""
    return ", ".join(f"{cause} {count}" for cause, count in cell.requests.most_common())


HEAD = (
    "| | questions | /s | p50 ms | p90 ms | p99 ms | checkpoints /1,000 | by cause "
    "| pause p50/p99 ms | held p50/p99 ms | lost | wrong | pairs lost |\n|---|"
    + "---:|" * 6
    + "---|"
    + "---:|" * 5
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
        NOTHING if form is Alone else str(cell.broken),
    ]
    return f"| {' | '.join(columns)} |"


def failover_row(form: type[Form], seen: Failovers) -> str:
    gaps = seen.gaps
    columns = [form.name, str(len(gaps)), *(ms(quantile(gaps, share)) for share in (0.5, 0.9, 0.99))]
    columns += [ms(max(gaps, default=math.nan)), f"{seen.lost} of {seen.connections}", str(seen.wrong)]
    return f"| {' | '.join(columns)} |"


@dataclass(frozen=True)
class Target:
    """What is wanted, what was seen, and whether that is enough; None: it was not measured."""

    wanted: str
    seen: str
    met: bool | None


def targets(cells: Cells, failovers: AllFailovers) -> list[Target]:
    """Give all targets, of this proxy inline and as a drop-in."""
    found: list[Target] = []
    for form in (Inline, DropIn):
        alike = {workload: forms for workload, forms in cells.items() if not workload.diverges}
        found.append(_checkpoint_target(form, alike))
        found.append(_latency_target(form, alike))
        seen = failovers[form]
        p99 = quantile(seen.gaps, 0.99)
        found.append(
            Target(
                f"{form.name}: failover under 100 ms (p99)",
                f"{ms(p99)} ms in {len(seen.gaps)} rounds",
                p99 < FAILOVER_P99 if seen.gaps else None,
            )
        )
        of_form = [forms[form] for forms in cells.values()]
        asked = any(cell.latencies for cell in of_form)
        lost = seen.lost + sum(cell.lost for cell in of_form)
        wrong = seen.wrong + sum(cell.wrong for cell in of_form)
        broken = sum(cell.broken for cell in of_form)
        for what, number in (("connection lost", lost), ("wrong byte", wrong), ("pair lost", broken)):
            met = number == 0 if asked or number else None
            found.append(Target(f"{form.name}: no {what}", str(number), met))
    return found


def rate(form: type[Form], cells: Cells) -> float:
    """Give the checkpoints for each 1,000 questions of all workloads together; NaN without a question."""
    asked = sum(len(forms[form].latencies) for forms in cells.values())
    made = sum(sum(forms[form].requests.values()) for forms in cells.values())
    return 1000 * made / asked if asked else math.nan


def _checkpoint_target(form: type[Form], alike: Cells) -> Target:
    ours, theirs = rate(form, alike), rate(Qemu, alike)
    measured = not math.isnan(ours) and not math.isnan(theirs)
    return Target(
        f"{form.name}: at most a tenth of QEMU's checkpoints where nothing diverges",
        f"{decimal(ours)} to {decimal(theirs)} for each 1,000 questions",
        ours <= CHECKPOINTS_SHARE * theirs if measured else None,
    )


def _latency_target(form: type[Form], alike: Cells) -> Target:
    late = []
    measured = 0
    for workload, forms in alike.items():
        ours, alone = quantile(forms[form].latencies, 0.9), quantile(forms[Alone].latencies, 0.9)
        if math.isnan(ours) or math.isnan(alone):
            continue
        measured += 1
        if ours > alone + P90_ABOVE:
            late.append(f"{workload.name} ({ms(ours)} to {ms(alone)} ms)")
    return Target(
        f"{form.name}: p90 no more than 5 ms above no COLO, where nothing diverges",
        f"missed by {', '.join(late)}" if late else f"all {measured} workloads",
        not late if measured else None,
    )


VERDICTS = {True: "met", False: "**not met**", None: "not measured"}


def target_table(cells: Cells, failovers: AllFailovers) -> list[str]:
    """Give the lines of the table of targets."""
    rows = [f"| {each.wanted} | {each.seen} | {VERDICTS[each.met]} |" for each in targets(cells, failovers)]
    return ["| wanted | seen | |", "|---|---|---|", *rows]


def workload_table(forms: Mapping[type[Form], Cell]) -> list[str]:
    """Give the lines of one workload's table."""
    return [HEAD, *(row(form, cell) for form, cell in forms.items())]


def failover_table(failovers: AllFailovers) -> list[str]:
    """Give the lines of the table of failovers."""
    return [FAILOVER_HEAD, *(failover_row(form, seen) for form, seen in failovers.items())]
