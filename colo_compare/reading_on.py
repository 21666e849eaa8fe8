"""Reading on while traffic flows, without a trip through trio's scheduler for each batch.

A trip, from epoll to the task that waits, takes many times as long as what follows from a small frame, and a
request with its two answers takes three. So whoever has read a batch looks for the next one itself, at all
three ports, for a moment: guests that answer answer soon.

All other tasks wait meanwhile: monitors, timers, the control socket. So it ends when nothing has come for
QUIET, after LONGEST in any case, and when a timer of the core is due.
"""

import select
from typing import TYPE_CHECKING, Final

import trio

from colo_compare.errors import PortError
from colo_compare.link import LOST, Link

if TYPE_CHECKING:
    from colo_compare.loop import Loop

QUIET: Final = 0.0003  # seconds
LONGEST: Final = 0.002  # seconds
_SELECTABLE: Final = 1024  # descriptors below this: FD_SETSIZE


def read_on(loop: "Loop") -> None:
    """Feed the loop what comes to its ports now, and shortly after."""
    end = trio.current_time() + LONGEST
    while True:
        watched: dict[int, Link] = {}
        for link in loop.links:
            descriptor = link.port.descriptor
            if 0 <= descriptor < _SELECTABLE and _is_read(loop, link):
                watched[descriptor] = link
        # Not epoll: there is nothing to keep up to date when links break and gates shut, and its
        # shortest time is a millisecond.
        ready, _, _ = select.select(watched, (), (), QUIET) if watched else ((), (), ())
        if not ready:
            return
        for descriptor in ready:
            _read(loop, watched[descriptor])
        if trio.current_time() >= end or loop.timer_is_due():
            return


def _is_read(loop: "Loop", link: Link) -> bool:
    """Whether the link's reader reads, or would if it had its turn."""
    return link.role != LOST and not link.failure and loop.may_read(link)


def _read(loop: "Loop", link: Link) -> None:
    # What the port before it gave may have shut the gate, or have fenced the guest.
    if not _is_read(loop, link):
        return
    try:
        batch = link.port.receive_now()
    except (PortError, OSError) as error:
        loop.failover.report(link, str(error))
    else:
        if batch:
            loop.feed(link, batch)
