"""What was measured, as a picture."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tests.bench.colo_forms import Alone, DropIn, Inline, Qemu
from tests.bench.colo_results import AllFailovers, Cells
from tests.bench.colo_tables import MILLI, checkpoints, quantile

COLOURS = {Alone: "#888888", Qemu: "#d97706", Inline: "#1d4ed8", DropIn: "#60a5fa"}


def draw(cells: Cells, failovers: AllFailovers, path: Path) -> None:
    """Draw p50 and p90 of each workload, the checkpoints, and how long failovers took."""
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
    # Matplotlib's own labels of a logarithmic axis that is shorter than a decade run into each other.
    axes["failover"].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes["failover"].xaxis.set_major_formatter("{x:g}")
    axes["failover"].xaxis.set_minor_formatter(NullFormatter())
    axes["latency"].legend()
    for name in ("latency", "checkpoints"):
        axes[name].set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize=7)
    figure.savefig(path)
