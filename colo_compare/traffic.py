"""The half of the loop that never waits: frames in, actions out, and which port may be read.

Compiled with the core, as it runs for each batch, and a request with its answer is three of them. What waits,
and what a loss or an event means, is in `loop`. Its work is done by functions, not methods: as the subclass
is not compiled, a class would look up its own methods by name.
"""

from abc import ABC, abstractmethod
from typing import Final

import trio
from mypy_extensions import mypyc_attr

from colo_compare.core.actions import CheckpointRequest, Event
from colo_compare.core.proxy import Proxy
from colo_compare.core.settings import BLOCK, PROTECT, Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.errors import PortError
from colo_compare.filter_link import FilterLink
from colo_compare.link import Link
from colo_compare.operate.frames import FrameWatch
from colo_compare.ports.port import FramePort
from colo_compare.suitability.survey import Surveyor
from colo_compare.wire.frame import Frame, parse_frames

FILTER_ROOM: Final = 2 << 20  # bytes that may wait for a client port between filters before the primary waits
UNPROTECTED_BACKLOG: Final = 4096  # frames that may wait for a secondary in the modes that do not protect


@mypyc_attr(allow_interpreted_subclasses=True)
class Traffic(ABC):
    """One proxy between three links. Each method is one stretch of code, in which no other task runs."""

    def __init__(
        self, settings: Settings, client: FramePort, primary: FramePort, secondary: FramePort, now: float
    ) -> None:
        self.settings = settings
        self.proxy = Proxy(settings, now)
        self.client = self.client_link(client)
        self.primary = Link(PRIMARY, primary)
        self.secondary: Link | None = Link(SECONDARY, secondary)
        self.way_out = self.client  # where what is released goes
        self.links = [self.client, self.primary, self.secondary]  # by name, the lost ones too
        self.frames = FrameWatch()
        self.surveyors: list[Surveyor] = []
        self.error: Exception | None = None  # the bug that ended it: nothing reaches the core any more
        self.stopping = False
        self.draining = False  # the client is not read, by an operator's decision
        self.wakes_at = 0.0  # when the core's timer task wakes up by itself
        self.woken = False  # whether a task has got something to do, and should have its turn
        self.awaiting_change = 0  # tasks to be told when the core has done something

    # What the loop makes of it

    @abstractmethod
    def report(self, link: Link, why: str) -> None:
        """Note that a link is lost."""

    @abstractmethod
    def tell(self, event: Event) -> None:
        """Take what the core has to tell."""

    @abstractmethod
    def ask(self, request: CheckpointRequest) -> None:
        """Ask the checkpointer for a checkpoint."""

    @abstractmethod
    def wake_earlier(self) -> None:
        """Note that `wakes_at` is earlier than it was."""

    @abstractmethod
    def tell_change(self) -> None:
        """Wake up the tasks that wait for a change."""

    # What happens

    def feed(self, link: Link, batch: list[bytes]) -> None:
        """Give frames that a port has just given to the core, and perform what follows."""
        feed_at(self, link, batch, trio.current_time())

    def drain(self, link: Link) -> None:
        """Feed everything that the guest has sent so far, whether or not its port is being read now."""
        try:
            batch = link.port.drain()
        except (PortError, OSError) as error:
            lose(self, link, str(error))
        else:
            if batch:
                self.feed(link, batch)

    def perform(self) -> None:
        """Do what the core wants done. To be called after each call of the core, before any await."""
        _perform(self)

    def may_read(self, link: Link) -> bool:
        """Whether what would come of this link's frames has room (back-pressure)."""
        return may_read(self, link)

    def open_gates(self) -> None:
        """Let those readers go on whose frames have room now."""
        _open_gates(self)

    def client_link(self, port: FramePort) -> Link:
        """Give a link for a port of the client."""
        return Link(CLIENT, port) if self.settings.mirror else FilterLink(port)

    def redirect(self) -> None:
        """Let what is released go out by the primary's port, as the client's was that of another QEMU."""
        self.way_out = self.primary
        if isinstance(self.client, FilterLink):
            _send(self, self.primary, self.client.take_unread())


# Frames in


def feed_at(traffic: Traffic, link: Link, batch: list[bytes], now: float) -> None:
    """Feed frames of a moment that is known."""
    if traffic.error is not None:
        return
    frames = parse_frames(batch, link.port.header_len, link.role == CLIENT)
    ring = traffic.frames.ring
    if ring is not None:
        ring.note(link.role, False, frames)
    for surveyor in traffic.surveyors:
        surveyor.see(link.role, frames)
    traffic.proxy.receive(link.role, frames, now)
    _perform(traffic)


def may_read(traffic: Traffic, link: Link) -> bool:
    """Whether what would come of this link's frames has room (back-pressure)."""
    if link.role == CLIENT:
        if traffic.stopping or traffic.draining or traffic.primary.backlog:
            return False
        secondary = traffic.secondary
        if secondary is not None and secondary.backlog and traffic.proxy.mode == PROTECT:
            return False
    elif link.role == PRIMARY:
        client = traffic.client
        if isinstance(client, FilterLink) and traffic.proxy.mode != BLOCK:
            # See `loop`: a QEMU that is not read does not read either.
            return client.waiting_bytes < FILTER_ROOM or client.blocked or traffic.way_out is not client
        if traffic.client.backlog:
            return False
    return traffic.proxy.wants(link.role)


def _open_gates(traffic: Traffic) -> None:
    for link in traffic.links:
        if link.waits_at_gate and may_read(traffic, link):
            link.open_gate()
            traffic.woken = True


# Actions out


def _perform(traffic: Traffic) -> None:
    actions = traffic.proxy.take_actions()
    ring = traffic.frames.ring
    if ring is not None:
        ring.note_sent(actions)
    if actions.to_primary:
        _send(traffic, traffic.primary, actions.to_primary)
    if actions.to_secondary and traffic.secondary is not None:
        _send_secondary(traffic, traffic.secondary, actions.to_secondary)
    if actions.to_client:
        _send_client(traffic, actions.to_client)
    for event in actions.events:
        traffic.tell(event)
        traffic.woken = True
    for request in actions.requests:
        traffic.ask(request)
        traffic.woken = True
    # Held frames come and go, and with them the next deadline moves on all the time. Only an earlier one
    # is worth the work of waking the timer task; for a later one it wakes in vain, and looks again.
    due = traffic.proxy.next_timer()
    if due < traffic.wakes_at:
        traffic.wakes_at = due
        traffic.wake_earlier()
    _open_gates(traffic)
    if traffic.awaiting_change:
        traffic.tell_change()
        traffic.woken = True


def _send(traffic: Traffic, link: Link, frames: list[Frame]) -> None:
    waiting = len(link.backlog)
    try:
        link.send(frames)
    except (PortError, OSError) as error:
        lose(traffic, link, str(error))
    if not waiting and link.backlog:
        traffic.woken = True  # the task that sends it when there is room


def lose(traffic: Traffic, link: Link, why: str) -> None:
    """Report a link whose port broke, and let that be dealt with."""
    traffic.report(link, why)
    traffic.woken = True


def _send_client(traffic: Traffic, frames: list[Frame]) -> None:
    link = traffic.way_out
    if len(link.backlog) >= traffic.settings.max_held_frames and not traffic.settings.mirror:
        link.dropped += len(frames)
    else:
        _send(traffic, link, frames)


def _send_secondary(traffic: Traffic, link: Link, frames: list[Frame]) -> None:
    if len(link.backlog) >= UNPROTECTED_BACKLOG and traffic.proxy.mode != PROTECT:
        link.dropped += len(frames)
    else:
        _send(traffic, link, frames)
