import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.core.histogram import Histogram

FIRST = 0.0000625


def bucket_of(seconds: float) -> int:
    histogram = Histogram(FIRST, 18)
    histogram.observe(seconds)
    (index,) = [i for i, count in enumerate(histogram.counts) if count]
    return index


def test_each_bound_is_twice_the_one_before() -> None:
    histogram = Histogram(FIRST, 18)
    assert histogram.bounds[:4] == [0.0000625, 0.000125, 0.00025, 0.0005]
    assert histogram.bounds[-1] == 8.192
    assert histogram.counts == [0] * 19


@given(st.integers(0, 100_000_000_000))
def test_a_duration_counts_in_the_first_bucket_that_is_not_shorter(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    bounds = Histogram(FIRST, 18).bounds
    expected = [i for i, bound in enumerate(bounds) if seconds <= bound]
    assert bucket_of(seconds) == (expected[0] if expected else 18)


@pytest.mark.parametrize("index", range(18))
def test_a_duration_equal_to_a_bound_is_below_it(index: int) -> None:
    bound = Histogram(FIRST, 18).bounds[index]
    assert bucket_of(bound) == index
    assert bucket_of(bound * 1.000001) == index + 1


@pytest.mark.parametrize("seconds", [0.0, 1e-12])
def test_no_time_at_all_is_in_the_first_bucket(seconds: float) -> None:
    assert bucket_of(seconds) == 0


def test_sum_and_total() -> None:
    histogram = Histogram(0.001, 3)
    for seconds in (0.0005, 0.003, 0.004, 5.0):
        histogram.observe(seconds)
    assert histogram.counts == [1, 0, 2, 1]
    assert histogram.total() == 4
    assert histogram.sum == pytest.approx(5.0075)
