"""The picture of a run: what a frame costs with more flows, and how long requests take."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

from tests.bench.report import Results


def draw(results: Results, path: Path) -> None:
    """Draw what there is. Raises OSError."""
    figure, (costs, requests) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for name, points in results.curves.items():
        costs.plot(*zip(*points, strict=True), marker="o", label=name)
    costs.set(xscale="log", yscale="log", xlabel="flows", ylabel="CPU µs for each released frame")
    costs.set_title("cost against flows")
    for name, samples in results.latencies.items():
        requests.plot(np.sort(samples) * 1e6, np.linspace(0, 100, len(samples)), label=name)
    requests.set(xscale="log", xlabel="µs", ylabel="% of requests answered within")
    requests.set_title("64-byte request and response")
    for axes in (costs, requests):
        axes.grid(visible=True, which="both", alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
