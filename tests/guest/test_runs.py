"""Runs of positions."""

from hypothesis import given
from hypothesis import strategies as st

from colo_compare.guest import runs

Runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), max_size=12)


def positions(bounds: list[int]) -> set[int]:
    return {at for start, end in zip(bounds[::2], bounds[1::2], strict=True) for at in range(start, end)}


@given(added=Runs, below=st.integers(0, 70))
def test_runs_are_sets_of_positions(added: list[tuple[int, int]], below: int) -> None:
    bounds: list[int] = []
    expected: set[int] = set()
    for start, count in added:
        before = list(bounds)
        if runs.insert(bounds, start, start + count):
            expected |= set(range(start, start + count))
        else:
            assert bounds == before
            assert len(before) == 2 * runs.MAX_RUNS
    assert positions(bounds) == expected
    assert bounds == sorted(set(bounds))  # ascending, and none touches the next
    assert runs.length(bounds) == len(expected)
    assert runs.holes(bounds, 5, below) == len(set(range(5, below)) - expected)
    runs.drop_below(bounds, below)
    assert positions(bounds) == {at for at in expected if at >= below}
