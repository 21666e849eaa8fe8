"""A network that misbehaves on purpose, as a line that frames wait in: no clock, no I/O.

The kernel's netem does the same for an interface, but needs a module and a privilege that not every machine
gives; this needs nothing, is repeatable by its seed, and its clock can be a test's.

FAULTS are ``name:value`` pairs joined by commas, as in ``loss:0.01,delay:20ms,seed:7``:

===============  =======================================================================================
loss:P           a frame is lost with probability P (0 to 1)
duplicate:P      a frame comes twice
corrupt:P        one bit of a frame is turned over (behind its virtio-net header)
reorder:P        a frame is held back for another 1 ms, so that later ones overtake it
delay:TIME       every frame comes so much later (``20ms``); the order stays
rate:MBIT        frames leave one after the other at so many Mbit/s
seed:N           of the random numbers (default 0); each direction has its own sequence
===============  =======================================================================================
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from random import Random
from typing import Final, Generic, TypeVar

from colo_compare.quantities import Duration

REORDER_DELAY: Final = 0.001  # seconds


@dataclass(frozen=True)
class Faults:
    """What a line does to the frames of one direction."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0  # seconds
    rate: float = math.inf  # Mbit/s
    seed: int = 0


def parse_faults(text: str) -> Faults:
    """Read FAULTS. Raises ValueError with the mistake as its text."""
    values: dict[str, float] = {}
    for part in text.split(","):
        name, colon, value = part.partition(":")
        read = _READERS.get(name)
        if read is None or not colon:
            known = ", ".join(f"{field.name}:..." for field in fields(Faults))
            raise ValueError(f'"{part}" is none of {known}')
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = read(value)
    return Faults(seed=int(values.pop("seed", 0)), **values)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise ValueError(f'"{text}" is no probability: write a number from 0 to 1')
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < math.inf:
        raise ValueError(f'"{text}" is no rate: write a number of Mbit/s above 0')
    return value


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f'"{text}" is no seed: write a whole number')
    return int(text)


_READERS: Final[dict[str, Callable[[str], float]]] = {
    "loss": _probability,
    "duplicate": _probability,
    "corrupt": _probability,
    "reorder": _probability,
    "delay": Duration.parse,
    "rate": _rate,
    "seed": _seed,
}

T = TypeVar("T")


class FaultLine(Generic[T]):
    """Frames of one direction on their way. Items are whatever a frame is to its user.

    `damage(item, random)` gives the item with one bit turned over. Times are seconds of one clock.
    """

    def __init__(self, faults: Faults, salt: str, damage: Callable[[T, Random], T]) -> None:
        self._faults = faults
        self._random = Random(f"{faults.seed} {salt}")
        self._damage = damage
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0  # breaks ties: frames due at the same time keep their order
        self._idle_at = 0.0  # when the last frame has left at the given rate
        self.lost = 0
        self.duplicated = 0
        self.corrupted = 0
        self.reordered = 0

    def __len__(self) -> int:
        return len(self._heap)

    def enter(self, item: T, size: int, now: float) -> None:
        """Take a frame of `size` bytes; it may be lost here, or twice in the line afterwards."""
        faults = self._faults
        chance = self._random.random
        if faults.loss and chance() < faults.loss:
            self.lost += 1
            return
        if faults.corrupt and chance() < faults.corrupt:
            self.corrupted += 1
            item = self._damage(item, self._random)
        self._place(item, size, now)
        if faults.duplicate and chance() < faults.duplicate:
            self.duplicated += 1
            self._place(item, size, now)

    def _place(self, item: T, size: int, now: float) -> None:
        faults = self._faults
        leaves = now
        if faults.rate != math.inf:
            self._idle_at = leaves = max(now, self._idle_at) + size * 8 / (faults.rate * 1e6)
        due = leaves + faults.delay
        if faults.reorder and self._random.random() < faults.reorder:
            self.reordered += 1
            due += REORDER_DELAY
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, item))

    def next_due(self) -> float:
        """Give the time at which a frame comes out next, math.inf if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def leave(self, now: float) -> list[T]:
        """Give the frames that have come out by `now`, in order. `math.inf` empties the line."""
        out: list[T] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            out.append(heapq.heappop(heap)[2])
        return out
