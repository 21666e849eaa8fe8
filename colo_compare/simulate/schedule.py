"""Virtual time: what is to happen, in order; and processes, which wait for times and for each other.

A process is a generator. It yields when it wants to go on at the latest (`math.inf`: only when told), and
goes on then, or as soon as something that it watches has changed: like a task that waits on a condition
variable, it then looks again at what it waits for. What happens at the same time happens in the order in
which it was asked for, so the same seed gives the same run.
"""

import math
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any, Final

Steps = Generator[float, None, None]


class Cancelled(Exception):
    """Raised in a process that is not to go on."""


class Schedule:
    """A clock, and what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        """Let something happen at a time, or now if that is past; never, for `math.inf`."""
        if when == math.inf:
            return
        self._count += 1
        heappush(self._heap, (when if when > self.now else self.now, self._count, what, args))

    def after(self, delay: float, what: Callable[..., None], *args: Any) -> None:
        """Let something happen after some seconds."""
        self.at(self.now + delay, what, *args)

    def step(self, limit: float) -> bool:
        """Let the next thing happen, unless it lies behind `limit`; say whether it did."""
        heap = self._heap
        if not heap or heap[0][0] > limit:
            return False
        self.now, _, what, args = heappop(heap)
        self.steps += 1
        what(*args)
        return True


class Alarm:
    """Calls something when it is due, as often as its due time has come: for whoever has a `next_timer`."""

    def __init__(self, schedule: Schedule, due: Callable[[], float], ring: Callable[[], None]) -> None:
        self._schedule: Final = schedule
        self._due: Final = due
        self._ring: Final = ring
        self._set_for = math.inf
        self.off = False

    def look(self) -> None:
        """Note that the due time may be another one now."""
        due = self._due()
        if due < self._set_for and not self.off:
            self._set_for = due
            self._schedule.at(due, self._wake, due)

    def _wake(self, due: float) -> None:
        if due != self._set_for or self.off:
            return  # an earlier one was set meanwhile, and it has looked since
        self._set_for = math.inf
        if self._due() <= self._schedule.now:
            self._ring()
        self.look()


class Process:
    """Runs a generator."""

    def __init__(self, schedule: Schedule, steps: Steps, then: Callable[[], None] | None = None) -> None:
        """Begin at once. `then` is called when it has ended, in whatever way."""
        self._schedule: Final = schedule
        self._steps: Final = steps
        self._then: Final = then
        self._turn = 0
        self._running = False
        self._woken = False
        self.over = False
        self._go(0)

    def wake(self) -> None:
        """Let it look again at what it waits for."""
        if self._running:
            self._woken = True
        elif not self.over:
            self._turn += 1
            self._schedule.at(self._schedule.now, self._go, self._turn)

    def cancel(self) -> None:
        """Raise Cancelled in it, unless it is over."""
        if not self.over and not self._running:
            self._turn += 1
            self._advance(cancel=True)

    def _go(self, turn: int) -> None:
        if turn == self._turn and not self.over and not self._running:
            self._advance(cancel=False)

    def _advance(self, *, cancel: bool) -> None:
        self._running = True
        self._woken = False
        until = math.inf
        try:
            until = self._steps.throw(Cancelled()) if cancel else next(self._steps)
        except (StopIteration, Cancelled):
            self.over = True
        finally:
            self._running = False
        if self.over:
            if self._then is not None:
                self._then()
            return
        self._turn += 1
        self._schedule.at(self._schedule.now if self._woken else until, self._go, self._turn)
