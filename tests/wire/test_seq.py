import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.wire.seq import diff, unwrap, wrap

POSITIONS = st.integers(-(1 << 40), 1 << 40)
DISTANCES = st.integers(-(1 << 31), (1 << 31) - 1)


@given(POSITIONS, DISTANCES)
def test_unwrap_finds_the_nearest_position(near: int, distance: int) -> None:
    position = near + distance
    assert unwrap(wrap(position), near) == position


@given(POSITIONS, DISTANCES)
def test_diff_is_the_distance(position: int, distance: int) -> None:
    assert diff(wrap(position + distance), wrap(position)) == distance


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(0, 0xFFFFFFFF, 1), (0xFFFFFFFF, 0, -1), (0x80000000, 0, -0x80000000), (0x7FFFFFFF, 0, 0x7FFFFFFF)],
)
def test_the_edges(a: int, b: int, expected: int) -> None:
    assert diff(a, b) == expected
    assert unwrap(a, b) == b + expected
    assert wrap(b + expected) == a
