"""The last events of one loop, numbered, for whoever asks or follows."""

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from itertools import islice
from typing import Any, Final

import trio

from colo_compare.core.actions import Event
from colo_compare.event_log import event_fields

KEPT: Final = 1024  # events


class EventHistory:
    """Numbered events, each with the time of this world.

    Followers hold no queue of their own, only the number that they have come to: one that is too slow finds
    events gone, and is told how many. So any number of them costs nothing while nobody reads.
    """

    def __init__(self, unix_time: Callable[[], float] = time.time) -> None:
        self._unix_time = unix_time
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._changed = trio.Event()
        self.last = 0  # number of the newest event

    def note(self, event: Event) -> None:
        """Take an event that happened now."""
        self.last += 1
        self._kept.append({"number": self.last, "time": self._unix_time(), **event_fields(event)})
        if self._changed.statistics().tasks_waiting:
            self._changed.set()
            self._changed = trio.Event()

    def since(self, number: int) -> list[dict[str, Any]]:
        """Give the events that came after the one with this number, as far as they are still known."""
        count = min(self.last - number, len(self._kept))
        if count <= 0:
            return []
        return list(islice(self._kept, len(self._kept) - count, None))

    async def follow(self, number: int) -> AsyncGenerator[dict[str, Any], None]:
        """Give the events after the one with this number, and for ever those that come.

        In place of events that are gone comes ``{"event": "Missed", "events": 7}``.
        """
        while True:
            while self.last <= number:
                await self._changed.wait()
            fresh = self.since(number)
            missed = self.last - number - len(fresh)
            number = self.last
            if missed:
                yield {"event": "Missed", "events": missed}
            for entry in fresh:
                yield entry
