"""The short form of the bench, for CI: has something become much slower than its peers?

Ratios only, and of the best run of each: what else goes on at the machine makes a run worse, never better. A
limit lies half-way (by its logarithm) between what is measured and twice the cost.
"""

import pytest

from colo_compare.build import is_compiled
from tests.bench import comparers, dropin, growth, inline, network, programs
from tests.bench.report import AT_LEAST, Results, Row, line

pytestmark = pytest.mark.skipif(not is_compiled(), reason="compiled code is measured: see .ci/test_compiled")
ROUNDS = 3


def check(row: Row, limit: float) -> None:
    assert row.best is not None
    assert row.best >= limit if row.sense == AT_LEAST else row.best <= limit, line(row)


def test_beside_qemu() -> None:
    if comparers.qemu_missing():
        pytest.skip(comparers.qemu_missing())
    results = Results()
    dropin.measure(results, ROUNDS, True)
    small, large, faults = results.rows
    check(small, 2.4)
    check(large, 2.2)
    assert faults.met, faults.notes


def test_beside_a_relay() -> None:
    if why := network.missing() or programs.missing():
        pytest.skip(why)
    results = Results()
    inline.measure(results, ROUNDS, True)
    rows = {(row.case, row.unit): row for row in results.rows}
    for (case, unit), limit in LIMITS.items():
        check(rows[case, unit], limit)


LIMITS = {
    ("bulk TCP, GSO", "CPU s a GB"): 2.0,
    ("64-byte request/response, p50", "us"): 2.7,
    ("small UDP frames", "frames/s"): 0.4,
}


def test_growth() -> None:
    if why := programs.missing():
        pytest.skip(why)
    results = Results()
    growth.measure(results, ROUNDS, True)
    flows, memory, held = results.rows
    check(flows, 2.6)
    check(memory, 1200)
    check(held, 2.5)
