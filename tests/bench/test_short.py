"""The short form of the bench, for CI: has something become much slower than its peers?

Ratios only, and of the best run of each: what else goes on at the machine makes a run worse, never better. A
limit lies half-way (by its logarithm) between what was measured and twice the cost.
"""

from contextlib import nullcontext

import pytest

from colo_compare.build import is_compiled
from tests.bench import comparers, dropin, growth, inline, network, programs
from tests.bench.report import AT_LEAST, AT_MOST, Results, Row, line

compiled = pytest.mark.skipif(not is_compiled(), reason="compiled code is measured: see .ci/test_compiled")
ROUNDS = 3

# What was measured, as `Row.best` has it: the ratio, or bytes.
SMALL, LARGE = 6.5, 3.1
BESIDE_A_RELAY = {
    ("bulk TCP, GSO", "CPU s a GB"): 1.4,
    ("64-byte request/response, p50", "us"): 1.9,
    ("small UDP frames", "frames/s"): 0.57,
}
FLOWS, MEMORY, HELD = 2.0, 770, 1.77
ALL = [(AT_LEAST, SMALL), (AT_LEAST, LARGE), (AT_LEAST, 0.57), (AT_MOST, 1.4), (AT_MOST, FLOWS)]


def check(row: Row, measured: float) -> None:
    """Fail where a row has come closer to twice its cost than to what was measured."""
    assert row.best is not None
    if row.sense == AT_LEAST:
        assert row.best >= measured / 2**0.5, line(row)
    else:
        assert row.best <= measured * 2**0.5, line(row)


@pytest.mark.parametrize(("sense", "measured"), ALL)
def test_twice_the_cost_fails(sense: str, measured: float) -> None:
    for cost, passes in ((0.5, True), (1, True), (1.3, True), (1.5, False), (2, False), (10, False)):
        best = measured / cost if sense == AT_LEAST else measured * cost
        row = Row("table", "case", "us", {"proxy": 1.0}, ratio=best, best=best, sense=sense, target=1.0)
        with nullcontext() if passes else pytest.raises(AssertionError):
            check(row, measured)


@compiled
def test_beside_qemu() -> None:
    if comparers.qemu_missing():
        pytest.skip(comparers.qemu_missing())
    results = Results()
    dropin.measure(results, ROUNDS, True)
    small, large, faults = results.rows
    check(small, SMALL)
    check(large, LARGE)
    assert faults.met, faults.notes


@compiled
def test_beside_a_relay() -> None:
    if why := network.missing() or programs.missing():
        pytest.skip(why)
    results = Results()
    # Requests take half as long in runs where the scheduler puts who talk to each other on one processor:
    # in so many runs that has come to each of the peers.
    inline.measure(results, 3 * ROUNDS, True)
    rows = {(row.case, row.unit): row for row in results.rows}
    for (case, unit), measured in BESIDE_A_RELAY.items():
        check(rows[case, unit], measured)


@compiled
def test_growth() -> None:
    if why := programs.missing():
        pytest.skip(why)
    results = Results()
    growth.measure(results, ROUNDS, True)
    flows, memory, held = results.rows
    check(flows, FLOWS)
    check(memory, MEMORY)
    check(held, HELD)
