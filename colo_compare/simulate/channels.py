"""The checkpointer's connections, as bytes in virtual time: they are slow, they stall, and they break."""

import random
from collections.abc import Callable
from typing import Final

from colo_compare.simulate.schedule import Schedule

TO_SECONDARY: Final = 0
TO_PRIMARY: Final = 1

Taker = Callable[[bytes], None]
Ender = Callable[[str], None]


class Channel:
    """One connection. Each end says who takes what arrives there, and who is told of the end."""

    def __init__(
        self, schedule: Schedule, chance: random.Random, delay: float, bytes_per_second: float
    ) -> None:
        self.broken = ""
        self._schedule: Final = schedule
        self._chance: Final = chance
        self._delay: Final = delay
        self._rate: Final = bytes_per_second
        self._free_at: Final = [0.0, 0.0]
        self._stalls_until = 0.0
        self._takers: list[Taker | None] = [None, None]
        self._enders: list[Ender | None] = [None, None]
        self._told = [False, False]
        self._closing = False

    def attach(self, direction: int, take: Taker, end: Ender) -> None:
        """Say who takes what goes in a direction, and who is told there when it is over."""
        self._takers[direction] = take
        self._enders[direction] = end

    def send(self, direction: int, data: bytes) -> None:
        """Carry bytes; they arrive in one or two portions."""
        if self.broken or self._closing:
            return
        cut = self._chance.randrange(len(data)) if self._chance.random() < 0.3 else 0
        for part in (data[:cut], data[cut:]):
            if part:
                begin = max(self._schedule.now, self._free_at[direction], self._stalls_until)
                self._free_at[direction] = end = begin + len(part) / self._rate
                self._schedule.at(end + self._delay, self._deliver, direction, part)

    def _deliver(self, direction: int, data: bytes) -> None:
        if self.broken:
            return
        if self._schedule.now < self._stalls_until:
            self._schedule.at(self._stalls_until, self._deliver, direction, data)
            return
        taker = self._takers[direction]
        if taker is not None:
            taker(data)

    def stall(self, until: float) -> None:
        """Carry nothing for a while; nothing is lost."""
        self._stalls_until = max(self._stalls_until, until)

    def end(self, why: str) -> None:
        """Break: what is on its way is lost, and each end learns of it at a time of its own."""
        if not self.broken:
            self.broken = why
            for direction in (TO_SECONDARY, TO_PRIMARY):
                self._schedule.after(self._chance.random() * 0.02, self._tell, direction)

    def close(self, why: str) -> None:
        """End it when all that was sent has arrived."""
        if not self.broken and not self._closing:
            self._closing = True
            last = max(*self._free_at, self._stalls_until, self._schedule.now) + self._delay
            self._schedule.at(last + 1e-6, self.end, why)

    def _tell(self, direction: int) -> None:
        ender = self._enders[direction]
        if ender is not None and not self._told[direction]:
            self._told[direction] = True
            ender(self.broken)
