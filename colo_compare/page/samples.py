"""The last minutes of one loop, a sample each second: a page that is opened later has a past, too."""

import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import msgspec

from colo_compare.loop import Loop

INTERVAL: Final = 1.0  # seconds between two samples
KEPT: Final = 300


class Flow(msgspec.Struct, frozen=True, array_like=True):
    """What has passed a port so far: from its side to the proxy, and from the proxy to its side."""

    received_frames: int
    received_bytes: int
    sent_frames: int
    sent_bytes: int


class Sample(msgspec.Struct, frozen=True):
    """One moment of a loop. Counts are totals, of which a reader takes the differences."""

    number: int
    time: float  # Unix time
    ports: dict[str, Flow]  # by the port's name in the configuration
    held: int  # frames
    hold: list[int]  # counts of the histogram of hold times


class Samples:
    """The last samples, numbered from 1."""

    def __init__(self, unix_time: Callable[[], float] = time.time) -> None:
        self._unix_time = unix_time
        self._kept: deque[Sample] = deque(maxlen=KEPT)
        self.last = 0  # number of the newest sample

    def take(self, loop: Loop) -> None:
        """Take one now."""
        self.last += 1
        ports: dict[str, Any] = {link.name: link.port.counters for link in loop.links}
        self._kept.append(
            Sample(
                self.last,
                self._unix_time(),
                {
                    name: Flow(
                        counters.received_frames,
                        counters.received_bytes,
                        counters.sent_frames,
                        counters.sent_bytes,
                    )
                    for name, counters in ports.items()
                },
                loop.proxy.held_frames,
                list(loop.proxy.counters.hold_time.counts),
            )
        )

    def since(self, number: int) -> list[Sample]:
        """Give those that came after the one with this number, as far as they are kept."""
        count = min(self.last - number, len(self._kept))
        return list(islice(self._kept, len(self._kept) - count, None)) if count > 0 else []
