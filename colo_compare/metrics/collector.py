"""The collector that a registry asks."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import InfoMetricFamily
from prometheus_client.registry import Collector

import colo_compare
from colo_compare.build import is_compiled
from colo_compare.loop import Loop
from colo_compare.metrics.families import families
from colo_compare.metrics.snapshot import Snapshot, take_snapshot


class LoopCollector(Collector):
    """Gives the families of one loop, as it was when `take` was called last.

    Apart, because `collect` runs in another thread, where the loop must not be touched.
    """

    def __init__(self, backend: str) -> None:
        """Take the checkpointer's name."""
        self._build = InfoMetricFamily(
            "colo_build",
            "The program.",
            {"version": colo_compare.__version__, "compiled": str(is_compiled()).lower(), "backend": backend},
        )
        self._snapshot: Snapshot | None = None

    def take(self, loop: Loop | None) -> None:
        """Copy the state of the loop; None where there is none yet. To be called where the loop runs."""
        self._snapshot = None if loop is None else take_snapshot(loop)

    def describe(self) -> Iterator[Metric]:
        """Give what is there in any case: a registry asks at registration, when there is no loop yet."""
        yield self._build

    def collect(self) -> Iterator[Metric]:
        """Give all families."""
        yield self._build
        if self._snapshot is not None:
            yield from families(self._snapshot)
