"""How often regular checkpoints are made follows what they cost and how often guests differ."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.checkpoint.pace import FADES, LONGEST, SHARE, SHORTEST, Pace


def paced(fixed: float, growth: float, ages: list[float], *, diverge_every: int = 0) -> tuple[Pace, float]:
    """Make checkpoints at these ages, of which every so many is for a divergence; give the time, too."""
    pace, now = Pace(0.0), 0.0
    for number, age in enumerate(ages):
        now += age
        diverged = bool(diverge_every) and number % diverge_every == 0
        pace.committed(now, fixed + growth * age, diverged=diverged)
    return pace, now


def lost(interval: float, fixed: float, growth: float, rate: float) -> float:
    """Give the share of time that is lost with this interval."""
    return (fixed + growth * interval) / interval + rate * (fixed + growth * interval / 2)


def test_nothing_is_known_at_first() -> None:
    assert Pace(5.0).interval(5.0) == LONGEST


def test_guests_that_never_differ_get_few_checkpoints() -> None:
    pace, now = paced(0.01, 0.01, [1.0, 5.0, 10.0])
    assert pace.interval(now) == LONGEST


def test_pauses_that_do_not_grow_get_few_checkpoints() -> None:
    pace, now = paced(0.01, 0.0, [1.0, 5.0, 10.0] * 5, diverge_every=2)
    assert pace.interval(now) == LONGEST


def test_the_line_is_found() -> None:
    pace, _ = paced(0.005, 0.002, [1.0, 2.0, 7.0, 3.0, 20.0])
    assert pace.cost() == pytest.approx((0.005, 0.002))


@pytest.mark.parametrize("fixed", [0.002, 0.01])
@pytest.mark.parametrize("growth", [0.001, 0.02])
@pytest.mark.parametrize("diverge_every", [1, 3])
def test_no_other_interval_loses_less(fixed: float, growth: float, diverge_every: int) -> None:
    pace, now = paced(fixed, growth, [8.0, 12.0, 10.0, 6.0, 14.0] * 60, diverge_every=diverge_every)
    interval, rate = pace.interval(now), pace.rate(now)
    assert rate == pytest.approx(0.1 / diverge_every, rel=0.1)
    allowed = max(SHORTEST, (fixed + growth * 14) / SHARE)
    if allowed < interval < LONGEST:
        assert lost(interval, fixed, growth, rate) <= lost(interval * 1.1, fixed, growth, rate)
        assert lost(interval, fixed, growth, rate) <= lost(interval / 1.1, fixed, growth, rate)
    else:
        assert interval == pytest.approx(allowed)


def test_checkpoints_become_more_frequent_when_guests_differ_more_often() -> None:
    intervals = []
    for every in (10, 3, 1):
        pace, now = paced(0.002, 0.002, [8.0, 12.0] * 30, diverge_every=every)
        intervals.append(pace.interval(now))
    assert intervals == sorted(intervals, reverse=True)
    assert intervals[0] > intervals[-1]


def test_long_pauses_are_not_made_often() -> None:
    """Whatever the best interval would be, regular checkpoints take a small share of the time."""
    pace, now = paced(0.0, 0.5, [2.0, 3.0] * 20, diverge_every=1)
    assert pace.interval(now) == pytest.approx(1.5 / SHARE)


def test_divergences_are_forgotten() -> None:
    pace, now = paced(0.002, 0.002, [8.0, 12.0] * 30, diverge_every=1)
    soon, later = pace.rate(now), pace.rate(now + 3 * FADES)
    assert later < soon / 10
    assert pace.interval(now + 3 * FADES) > pace.interval(now)


def test_a_pause_that_nobody_knows_teaches_nothing() -> None:
    pace = Pace(0.0)
    pace.committed(1.0, None, diverged=True)
    pace.committed(2.0, None, diverged=True)
    assert pace.cost() == (0.0, 0.0)
    assert pace.interval(2.0) == LONGEST


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 100), st.booleans()), max_size=50))
def test_the_interval_is_always_within_its_bounds(checkpoints: list[tuple[float, float, bool]]) -> None:
    pace, now = Pace(0.0), 0.0
    for age, pause, diverged in checkpoints:
        now += age
        pace.committed(now, pause, diverged=diverged)
        assert SHORTEST <= pace.interval(now) <= LONGEST
        assert all(part >= 0.0 and math.isfinite(part) for part in (*pace.cost(), pace.rate(now)))
