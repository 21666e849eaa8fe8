"""The half of the loop that never waits: frames in, actions out, and which port may be read.

Compiled with the core, as it runs for each batch, and a request with its answer is four of them. What waits,
and what a loss or an event means, is in `loop`.
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

UNPROTECTED_BACKLOG: Final = 4096  # frames that may wait for a secondary in the modes that do not protect


@mypyc_attr(allow_interpreted_subclasses=True)
class Traffic(ABC):
    """One proxy between three links. Each method is one stretch of code, in which no other task runs."""

    def __init__(
        self, settings: Settings, client: FramePort, primary: FramePort, secondary: FramePort, now: float
    ) -> None:
        self.settings = settings
        self.proxy = Proxy(settings, now)
        self.client = Link(CLIENT, client) if settings.mirror else FilterLink(client)
        self.primary = Link(PRIMARY, primary)
        self.secondary: Link | None = Link(SECONDARY, secondary)
        self._way_out = self.client  # where what is released goes
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

    # Frames in

    def feed(self, link: Link, batch: list[bytes]) -> None:
        """Give frames that a port has just given to the core, and perform what follows."""
        self.feed_at(link, batch, trio.current_time())

    def feed_at(self, link: Link, batch: list[bytes], now: float) -> None:
        """Do that for frames of a moment that is known."""
        if self.error is not None:
            return
        frames = parse_frames(batch, link.port.header_len, link.role == CLIENT)
        ring = self.frames.ring
        if ring is not None:
            ring.note(link.role, False, frames)
        for surveyor in self.surveyors:
            surveyor.see(link.role, frames)
        self.proxy.receive(link.role, frames, now)
        self.perform()

    def drain(self, link: Link) -> None:
        """Feed everything that the guest has sent so far, whether or not its port is being read now."""
        try:
            batch = link.port.drain()
        except (PortError, OSError) as error:
            self.lose(link, str(error))
        else:
            if batch:
                self.feed(link, batch)

    def may_read(self, link: Link) -> bool:
        """Whether what would come of this link's frames has room (back-pressure)."""
        if link.role == CLIENT:
            if self.stopping or self.draining or self.primary.backlog:
                return False
            if self.secondary is not None and self.secondary.backlog and self.proxy.mode == PROTECT:
                return False
        elif link.role == PRIMARY:
            if not self.settings.mirror and self.proxy.mode != BLOCK:
                return True
            if self.client.backlog:
                return False
        return self.proxy.wants(link.role)

    def open_gates(self) -> None:
        """Let those readers go on whose frames have room now."""
        for link in self.links:
            if link.waits_at_gate and self.may_read(link):
                link.open_gate()
                self.woken = True

    # Actions out

    def perform(self) -> None:
        """Do what the core wants done. To be called after each call of the core, before any await."""
        actions = self.proxy.take_actions()
        ring = self.frames.ring
        if ring is not None:
            ring.note_sent(actions)
        if actions.to_primary:
            self._send(self.primary, actions.to_primary)
        if actions.to_secondary and self.secondary is not None:
            self._send_secondary(self.secondary, actions.to_secondary)
        if actions.to_client:
            self._send_client(actions.to_client)
        for event in actions.events:
            self.tell(event)
            self.woken = True
        for request in actions.requests:
            self.ask(request)
            self.woken = True
        # Held frames come and go, and with them the next deadline moves on all the time. Only an earlier one
        # is worth the work of waking the timer task; for a later one it wakes in vain, and looks again.
        due = self.proxy.next_timer()
        if due < self.wakes_at:
            self.wakes_at = due
            self.wake_earlier()
        self.open_gates()
        if self.awaiting_change:
            self.tell_change()
            self.woken = True

    def _send(self, link: Link, frames: list[Frame]) -> None:
        waiting = len(link.backlog)
        try:
            link.send(frames)
        except (PortError, OSError) as error:
            self.lose(link, str(error))
        if not waiting and link.backlog:
            self.woken = True  # the task that sends it when there is room

    def lose(self, link: Link, why: str) -> None:
        """Report a link whose port broke, and let that be dealt with."""
        self.report(link, why)
        self.woken = True

    def _send_client(self, frames: list[Frame]) -> None:
        link = self._way_out
        if len(link.backlog) >= self.settings.max_held_frames and not self.settings.mirror:
            link.dropped += len(frames)
        else:
            self._send(link, frames)

    def _send_secondary(self, link: Link, frames: list[Frame]) -> None:
        if len(link.backlog) >= UNPROTECTED_BACKLOG and self.proxy.mode != PROTECT:
            link.dropped += len(frames)
        else:
            self._send(link, frames)

    def redirect(self) -> None:
        """Let what is released go out by the primary's port, as the client's was that of another QEMU."""
        self._way_out = self.primary
        if isinstance(self.client, FilterLink):
            self._send(self.primary, self.client.take_unread())
