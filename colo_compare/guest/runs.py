"""Runs of positions: start and end of each, one after the other, ascending, none touching the next."""

from typing import Final

MAX_RUNS: Final = 8  # that a connection keeps in each direction


def insert(bounds: list[int], first: int, last: int) -> bool:
    """Add the run from `first` to `last`, joined with those that it touches. False: too many."""
    merged: list[int] = []
    placed = False
    for at in range(0, len(bounds), 2):
        start, end = bounds[at], bounds[at + 1]
        if end < first:
            merged += (start, end)
        elif start > last:
            if not placed:
                merged += (first, last)
                placed = True
            merged += (start, end)
        else:
            first = min(first, start)
            last = max(last, end)
    if not placed:
        merged += (first, last)
    if len(merged) > 2 * MAX_RUNS:
        return False
    bounds[:] = merged
    return True


def drop_below(bounds: list[int], position: int) -> None:
    """Take away what lies below a position."""
    while bounds and bounds[1] <= position:
        del bounds[:2]
    if bounds and bounds[0] < position:
        bounds[0] = position


def length(bounds: list[int]) -> int:
    """Give how many positions lie in the runs."""
    return sum(bounds[1::2]) - sum(bounds[::2])


def holes(bounds: list[int], first: int, last: int) -> int:
    """Give how many positions from `first` to `last` lie in no run."""
    missing = max(0, last - first)
    for at in range(0, len(bounds), 2):
        missing -= max(0, min(bounds[at + 1], last) - max(bounds[at], first))
    return missing
