"""The state of one daemon as Prometheus metrics: docs/metrics.md.

In a straight line: `take_snapshot` copies numbers on the loop, in one stretch without an await, so that they
belong together; `families` turns them into metric families, and `MetricsPage` those into text, both in a
thread of its own.
"""

from colo_compare.metrics.collector import LoopCollector
from colo_compare.metrics.page import OPENMETRICS, TEXT, MetricsPage

__all__ = ["OPENMETRICS", "TEXT", "LoopCollector", "MetricsPage"]
