"""The network: links with delay, loss, duplicates, reordering, limited speed and partitions."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from colo_compare.simulate.schedule import Schedule


@dataclass(frozen=True)
class Weather:
    """How a link treats what it carries."""

    delay: float = 0.0005  # seconds
    jitter: float = 0.0  # seconds more, at most; order is kept
    loss: float = 0.0  # the share of frames that never arrive
    duplication: float = 0.0  # the share that arrive twice
    reordering: float = 0.0  # the share that others overtake

    def calm(self) -> "Weather":
        """Give the same link without faults."""
        return Weather(self.delay)


class Link:
    """One direction of a link between a port and a machine."""

    def __init__(
        self, schedule: Schedule, weather: Weather, seed: int, arrive: Callable[[bytes], None]
    ) -> None:
        self.weather = weather
        self._schedule: Final = schedule
        self._chance: Final = random.Random(seed)
        self._arrive: Final = arrive
        self._last = 0.0  # when the newest frame in order arrives
        self._cut_until = 0.0
        self._slow_until = 0.0
        self._bytes_per_second = 0.0
        self._busy_until = 0.0
        self._flying: dict[int, bytes] = {}  # by number, what is on its way
        self._sent = 0
        self.lost = 0
        self.down = False  # one of its ends is no more

    def cut(self, until: float) -> None:
        """Lose everything for a while."""
        self._cut_until = max(self._cut_until, until)

    def slow_down(self, until: float, bytes_per_second: float) -> None:
        """Carry only so much for a while."""
        self._slow_until = until
        self._bytes_per_second = bytes_per_second

    def drop_all(self) -> None:
        """Lose what is on its way."""
        self._flying.clear()

    def hurry(self) -> None:
        """Let everything that is on its way arrive now."""
        flying, self._flying = self._flying, {}
        for frame in flying.values():
            self._arrive(frame)

    def send(self, frame: bytes) -> None:
        """Carry a frame."""
        now = self._schedule.now
        weather = self.weather
        chance = self._chance
        if self.down or now < self._cut_until or (weather.loss and chance.random() < weather.loss):
            self.lost += 1
            return
        at = now + weather.delay
        if weather.jitter:
            at += chance.random() * weather.jitter
        if now < self._slow_until:
            self._busy_until = max(self._busy_until, now) + len(frame) / self._bytes_per_second
            at += self._busy_until - now
        if weather.reordering and chance.random() < weather.reordering:
            at += chance.random() * 0.01  # alone, behind others
        else:
            at = self._last = max(at, self._last)
        self._fly(at, frame)
        if weather.duplication and chance.random() < weather.duplication:
            self._fly(at + chance.random() * 0.02, frame)

    def _fly(self, at: float, frame: bytes) -> None:
        self._sent += 1
        self._flying[self._sent] = frame
        self._schedule.at(at, self._deliver, self._sent)

    def _deliver(self, number: int) -> None:
        frame = self._flying.pop(number, None)
        if frame is not None and not self.down:
            self._arrive(frame)
