"""A set of pages, as runs in and runs out.

One byte for each page: searching a gibibyte's 262,144 bytes for the next 1 takes microseconds, and setting a
run is one slice assignment. (A Python integer as a bit set copies itself at each change; a sorted list of
runs has to be merged in Python.)
"""

from collections.abc import Iterable
from typing import Final

Run = tuple[int, int]
"""The first page, and how many follow each other from there (at least one)."""

_IN: Final = b"\x01"
_OUT: Final = b"\x00"


class PageMap:
    """Which of a memory's pages belong to a set."""

    def __init__(self, pages: int, *, full: bool = False) -> None:
        self.pages: Final = pages
        self._flags = bytearray((_IN if full else _OUT) * pages)

    def add(self, runs: Iterable[Run]) -> None:
        """Put pages in. Raises IndexError for pages that the memory does not have."""
        for first, count in runs:
            if first < 0 or count < 1 or first + count > self.pages:
                raise IndexError(f"pages {first} to {first + count} are not in a memory of {self.pages}")
            self._flags[first : first + count] = _IN * count

    def discard(self, runs: Iterable[Run]) -> None:
        """Take pages out, whether or not they are in."""
        for first, count in runs:
            self._flags[first : first + count] = _OUT * count

    def clear(self) -> None:
        """Take all pages out."""
        self._flags = bytearray(self.pages)

    def runs(self, start: int = 0) -> list[Run]:
        """Give what is in it from page `start` on, in ascending order; no two runs touch."""
        found: list[Run] = []
        flags = self._flags
        first = flags.find(1, start)
        while first >= 0:
            end = flags.find(0, first)
            if end < 0:
                end = self.pages
            found.append((first, end - first))
            first = flags.find(1, end)
        return found

    def divide(self, runs: Iterable[Run]) -> tuple[list[Run], list[Run]]:
        """Give the parts of runs that are in it, and those that are not."""
        parts: tuple[list[Run], list[Run]] = ([], [])
        flags = self._flags
        for first, count in runs:
            end = first + count
            while first < end:
                inside = flags[first]
                stop = flags.find(not inside, first, end)
                if stop < 0:
                    stop = end
                parts[not inside].append((first, stop - first))
                first = stop
        return parts

    def __len__(self) -> int:
        """Give the number of pages in it."""
        return self._flags.count(1)

    def __bool__(self) -> bool:
        return self._flags.find(1) >= 0

    def __contains__(self, page: int) -> bool:
        return self._flags[page] == 1


def count_pages(runs: Iterable[Run]) -> int:
    """Give the number of pages in runs that do not overlap."""
    return sum(count for _, count in runs)
