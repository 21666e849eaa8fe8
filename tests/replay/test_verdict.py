import pytest

from colo_compare.replay.verdict import Waits


@pytest.mark.parametrize(
    ("waits", "frames", "expected"),
    [
        ([], 0, (0, 0, 0.0, 0.0, 0.0)),
        ([], 10, (10, 0, 0.0, 0.0, 0.0)),
        ([3.0], 1, (1, 1, 3.0, 3.0, 3.0)),
        ([3.0], 2, (2, 1, 0.0, 3.0, 3.0)),
        ([2.0, 1.0], 2, (2, 2, 1.0, 2.0, 2.0)),
        ([float(n) for n in range(1, 201)], 200, (200, 200, 100.0, 198.0, 200.0)),
        ([float(n) for n in range(1, 101)], 200, (200, 100, 0.0, 98.0, 100.0)),
        ([1.0, 2.0], 1, (2, 2, 1.0, 2.0, 2.0)),  # fragments: one datagram waits, each of its frames goes out
    ],
)
def test_percentiles_count_those_that_did_not_wait(
    waits: list[float], frames: int, expected: tuple[int, int, float, float, float]
) -> None:
    found = Waits.of(waits, frames)
    assert (found.frames, found.waited, found.p50, found.p99, found.max) == expected
