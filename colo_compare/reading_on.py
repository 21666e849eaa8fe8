"""Reading on while traffic flows, without a trip through trio's scheduler for each batch.

A trip, from epoll to the task that waits, takes many times as long as what follows from a small frame, and a
request with its two answers takes three. So whoever has read a batch looks for the next one itself, at all
three ports, for a moment: guests that answer answer soon. Compiled with `traffic`.

All other tasks wait meanwhile: monitors, timers, the control socket. So it ends when nothing has come for
QUIET, after LONGEST in any case, when a timer of the core is due, and when another task has got something to
do: a checkpoint is asked for, a gate opens, something is to be told.
"""

from typing import Final

import trio

from colo_compare.errors import PortError
from colo_compare.link import LOST, Link
from colo_compare.ports.batch import readable
from colo_compare.traffic import Traffic, feed_at, lose, may_read

QUIET: Final = 0.0003  # seconds
LONGEST: Final = 0.005  # seconds: after 2 ms, the trips took 7 % of the CPU time of a bulk transfer


def read_on(loop: Traffic) -> None:
    """Feed the loop what comes to its ports now, and shortly after."""
    end = trio.current_time() + LONGEST
    loop.woken = False
    while True:
        descriptors: list[int] = []
        watched: list[Link] = []
        for link in loop.links:
            descriptor: int = link.port.descriptor
            if descriptor >= 0 and _is_read(loop, link):
                descriptors.append(descriptor)
                watched.append(link)
        ready = readable(descriptors, QUIET) if descriptors else descriptors
        if not ready:
            return
        now = trio.current_time()  # one look at the clock for all that came together
        for descriptor in ready:
            _read(loop, watched[descriptors.index(descriptor)], now)
        if loop.woken or now >= end or now >= loop.wakes_at:
            return


def _is_read(loop: Traffic, link: Link) -> bool:
    """Whether the link's reader reads, or would if it had its turn."""
    return link.role != LOST and not link.failure and may_read(loop, link)


def _read(loop: Traffic, link: Link, now: float) -> None:
    # What the port before it gave may have shut the gate, or have fenced the guest.
    if not _is_read(loop, link):
        return
    try:
        batch = link.port.receive_now()
    except (PortError, OSError) as error:
        lose(loop, link, str(error))
    else:
        if batch:
            feed_at(loop, link, batch, now)
