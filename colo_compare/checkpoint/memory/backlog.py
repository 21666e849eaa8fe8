"""Which of the primary's pages the secondary's cache does not have yet, and which may go before the pause.

A page that was written a moment ago will most likely be written again, and sending it now would be in vain.
So a page goes out between checkpoints only when it was left alone from one look at the tracker to the next
(*quiet*); all others wait for the pause. Without that a guest with a small busy heap would have the same
pages sent over and over.
"""

from collections.abc import Iterable
from typing import Final

from colo_compare.checkpoint.memory.page_map import PageMap, Run


class Backlog:
    """Pages to be sent."""

    def __init__(self, pages: int, holes: Iterable[Run] = ()) -> None:
        """Begin with all of the memory: the other end has nothing.

        `holes`: pages that are zeros and are not to be read, until they are written.
        """
        self._missing: Final = PageMap(pages, full=True)
        self._holes: Final = PageMap(pages)
        self._holes.add(holes)
        self._busy: list[Run] = []
        self._next = 0  # the page from which the next quiet ones are taken

    def note(self, written: list[Run]) -> None:
        """Take what a look at the tracker gave: the pages written since the look before."""
        self._missing.add(written)
        self._holes.discard(written)
        self._busy = written

    def put_back(self, runs: Iterable[Run]) -> None:
        """Take pages back that were not sent after all."""
        self._missing.add(runs)

    def divide(self, runs: Iterable[Run]) -> tuple[list[Run], list[Run]]:
        """Give the parts of runs that are to be read, and those that are holes."""
        holes, memory = self._holes.divide(runs)
        return memory, holes

    def take_quiet(self, limit: int) -> list[Run]:
        """Take out at most `limit` pages that were not written between the last two looks.

        Goes round the memory, so that no part of it waits for ever.
        """
        quiet = PageMap(self._missing.pages)
        quiet.add(self._missing.runs())
        quiet.discard(self._busy)
        runs = quiet.runs(self._next) or quiet.runs()
        taken: list[Run] = []
        for first, count in runs:
            if not limit:
                break
            count = min(count, limit)
            limit -= count
            taken.append((first, count))
            self._next = first + count
        self._missing.discard(taken)
        return taken

    def take_all(self) -> list[Run]:
        """Take everything out: the guest stands still."""
        runs = self._missing.runs()
        self._missing.clear()
        self._busy = []
        return runs

    def __len__(self) -> int:
        """Give the number of pages in it."""
        return len(self._missing)
