"""The secondary's end of a session: what it takes, in which order, and what becomes of it. No I/O, no clock.

::

    GREETING ──HELLO*N──> IDLE ──REQUEST──> REQUESTED ──SYNC*N──> RECEIVED ──APPLY──> APPLYING
                           ^ └────ABORT─────────┴────────────────────┘                   │ applied
                           └─────────── RESUMING <───────────────RESUME─────────────  APPLIED

Pages go to the cache in IDLE and REQUESTED; the guest's memory is touched in APPLYING only, by `Apply`, when
everything is here and checked, and then in one step. So the guest can run on from a complete state at any
moment.
"""

import math
from dataclasses import dataclass
from typing import Final

from colo_compare.checkpoint.memory.messages import (
    ABORT,
    APPLIED,
    APPLY,
    DEVICE,
    FAILED,
    FENCE,
    FENCED,
    GUEST_LOST,
    HELLO,
    KIND_NAMES,
    LONGEST_DEVICE_STATE,
    PAGES,
    PING,
    PONG,
    PROMOTE,
    PROMOTED,
    RECEIVED,
    REPLY,
    REQUEST,
    RESUME,
    RESUMED,
    SYNC,
    ZEROS,
    Hello,
    Message,
    ProtocolError,
    Secondary,
    counted,
    parse_count,
    verdict,
    welcome,
)
from colo_compare.checkpoint.memory.page_map import PageMap, Run, count_pages
from colo_compare.checkpoint.memory.states import (
    AT_APPLIED,
    AT_APPLYING,
    AT_BROKEN,
    AT_ENDED,
    AT_GREETING,
    AT_IDLE,
    AT_RECEIVED,
    AT_REQUESTED,
    AT_RESUMING,
    Sends,
)

NOTHING_APPLIED: Final = (bytes(16), 0)
_UNKNOWN: Final = Secondary()
MOST_CHANNELS: Final = 64


@dataclass(frozen=True)
class Apply:
    """Stop the guest, and give it the cache's pages and this device state. Answer `applied` or `not_applied`.

    To be overwritten: these pages, and those that the guest wrote since the last state was applied.
    """

    received: list[Run]
    device_state: bytes


@dataclass(frozen=True)
class ResumeGuest:
    """Let the guest run. Answer `resumed`."""


@dataclass(frozen=True)
class PromoteGuest:
    """Let the guest run, alone from now on. Answer `promoted`."""


@dataclass(frozen=True)
class FenceGuest:
    """Kill the guest. Answer `fenced`."""


Task = Apply | ResumeGuest | PromoteGuest | FenceGuest


class Incoming:
    """One session with a primary."""

    def __init__(
        self,
        hello: Hello,
        *,
        page_size: int,
        size: int,
        timeout: float,
        now: float,
        applied: tuple[bytes, int] = NOTHING_APPLIED,
        secondary: Secondary = _UNKNOWN,
    ) -> None:
        """Take the HELLO that opens the session, what memory there is, what was applied last, and what is
        to be said of the guest.

        Raises ProtocolError, to be sent as REFUSED, for a primary with another memory.
        """
        if (hello.page_size, hello.size) != (page_size, size):
            raise ProtocolError(
                f"the primary has {hello.size} bytes of memory in pages of {hello.page_size}, the secondary "
                f"{size} in pages of {page_size}: give both guests the same memory"
            )
        if not 1 <= hello.channels <= MOST_CHANNELS:
            raise ProtocolError(f"a session of {hello.channels} channels: 1 to {MOST_CHANNELS} are possible")
        self.session: Final = hello.session
        self.channels: Final = hello.channels
        self.state = AT_GREETING
        self.number = 0  # of the checkpoint under way, or of the last one
        self.applied: tuple[bytes, int] = applied
        self.failure = ""  # why the session is broken
        self._secondary = secondary
        self._timeout = timeout
        self._heard = now
        self._open: set[int] = set()
        self._received = PageMap(size // page_size)  # since the last state was applied
        self._everything = False  # all of the memory came once
        self._superseded = False  # pages of the next checkpoint came: this one was aborted
        self._device: list[bytes] = []
        self._device_length = 0
        self._synced: set[int] = set()

    # Channels

    def open_channel(self, hello: Hello, now: float) -> Sends:
        """Take another channel of the session; it must be open before its next message is read.

        Raises ProtocolError, to be sent as REFUSED.
        """
        if (hello.session, hello.channels) != (self.session, self.channels):
            raise ProtocolError("this channel belongs to another session")
        if hello.index in self._open or hello.index >= self.channels:
            raise ProtocolError(f"channel {hello.index} of {self.channels} is open already, or one too many")
        self._heard = now
        self._open.add(hello.index)
        if len(self._open) < self.channels:
            return []
        self.state = AT_IDLE
        return [(index, welcome(*self.applied, self._secondary)) for index in range(self.channels)]

    def admit(self, channel: int, kind: int, number: int) -> None:
        """Say whether a message may come now, before its body is read. Raises ProtocolError."""
        if self.state in (AT_GREETING, AT_BROKEN, AT_ENDED) or kind == HELLO or kind not in _FROM_OUTGOING:
            raise ProtocolError(f"{KIND_NAMES[kind]} came in state {self.state}")
        if kind in (PAGES, ZEROS):
            self._admit_pages(channel, number)
        elif channel and kind != SYNC:
            raise ProtocolError(f"{KIND_NAMES[kind]} came on channel {channel}, not on 0")

    def _admit_pages(self, channel: int, number: int) -> None:
        if number > self.number:
            # Of the next checkpoint. Where this one is not decided it was aborted: the ABORT is on its way.
            if self.state in (AT_APPLYING, AT_APPLIED, AT_RESUMING):
                raise ProtocolError("pages came while the cache is being applied")
            self._superseded = self.state != AT_IDLE
        elif self.state not in (AT_IDLE, AT_REQUESTED) or channel in self._synced:
            raise ProtocolError(f"pages of checkpoint {number} came after its last page")

    def receive(self, channel: int, message: Message, now: float) -> tuple[Sends, list[Task]]:
        """Take a message that was admitted, and give what to answer and what to do. Raises ProtocolError."""
        self._heard = now
        kind = message.kind
        if kind in (PAGES, ZEROS):
            self._received.add(message.runs)
            return [], []
        if kind == PING:
            return [(0, Message(PONG))], []
        if kind in (DEVICE, SYNC) and message.number <= self.number and self.state == AT_IDLE:
            return [], []  # of a checkpoint that was aborted
        handle = {
            REQUEST: self._request,
            DEVICE: self._take_device,
            SYNC: self._sync,
            APPLY: self._apply,
            RESUME: self._resume,
            ABORT: self._abort,
            PROMOTE: self._promote,
            FENCE: self._fence,
        }[kind]
        return handle(channel, message)

    # One message each

    def _request(self, _channel: int, message: Message) -> tuple[Sends, list[Task]]:
        if self.state != AT_IDLE or message.number <= self.number:
            raise ProtocolError(f"{message} came in state {self.state} of checkpoint {self.number}")
        self.number = message.number
        self._forget()
        self.state = AT_REQUESTED
        return [(0, Message(REPLY, self.number))], []

    def _take_device(self, _channel: int, message: Message) -> tuple[Sends, list[Task]]:
        self._require(AT_REQUESTED, message)
        self._device.append(bytes(message.body))
        self._device_length += len(message.body)
        if self._device_length > LONGEST_DEVICE_STATE:
            raise ProtocolError(f"more than {LONGEST_DEVICE_STATE} bytes of device state came")
        return [], []

    def _sync(self, channel: int, message: Message) -> tuple[Sends, list[Task]]:
        if message.number < self.number:
            return [], []  # of a checkpoint that was aborted
        self._require(AT_REQUESTED, message)
        if channel in self._synced:
            raise ProtocolError(f"channel {channel} ends checkpoint {message.number} twice")
        if channel == 0 and parse_count(message) != self._device_length:
            raise ProtocolError(
                f"{self._device_length} bytes of device state came, {parse_count(message)} were sent"
            )
        self._synced.add(channel)
        if len(self._synced) < self.channels:
            return [], []
        if not self._everything and count_pages(self._received.runs()) < self._received.pages:
            raise ProtocolError("the first checkpoint of a session does not have all of the memory")
        self.state = AT_RECEIVED
        return [(0, Message(RECEIVED, self.number))], []

    def _apply(self, _channel: int, message: Message) -> tuple[Sends, list[Task]]:
        self._require(AT_RECEIVED, message)
        if self._superseded:
            raise ProtocolError(f"{message} came after pages of the next checkpoint")
        self.state = AT_APPLYING
        return [], [Apply(self._received.runs(), b"".join(self._device))]

    def _resume(self, _channel: int, message: Message) -> tuple[Sends, list[Task]]:
        self._require(AT_APPLIED, message)
        self.state = AT_RESUMING
        return [], [ResumeGuest()]

    def _abort(self, _channel: int, message: Message) -> tuple[Sends, list[Task]]:
        if self.state not in (AT_REQUESTED, AT_RECEIVED) or message.number != self.number:
            raise ProtocolError(f"{message} came in state {self.state} of checkpoint {self.number}")
        self._forget()
        self.state = AT_IDLE
        return [], []

    def _promote(self, _channel: int, _message: Message) -> tuple[Sends, list[Task]]:
        return [], [PromoteGuest()]

    def _fence(self, _channel: int, _message: Message) -> tuple[Sends, list[Task]]:
        return [], [FenceGuest()]

    # What became of the tasks

    def applied_state(self, pages: int) -> Sends:
        """Note that the guest has the new state and does not run; `pages` were overwritten."""
        self.applied = (self.session, self.number)
        self._everything = True
        self._received.clear()
        self._forget()
        if self.state != AT_APPLYING:
            return []  # broken meanwhile
        self.state = AT_APPLIED
        return [(0, counted(APPLIED, self.number, pages))]

    def not_applied(self, why: str, *, intact: bool) -> Sends:
        """Note that the new state could not be applied. `intact`: the guest has its old one."""
        self._forget()
        if self.state != AT_APPLYING:
            return []
        self.state = AT_IDLE
        return [(0, verdict(FAILED, self.number, intact, why))]

    def resumed(self) -> Sends:
        """Note that the guest runs from the new state."""
        if self.state != AT_RESUMING:
            return []
        self.state = AT_IDLE
        return [(0, Message(RESUMED, self.number))]

    def promoted(self) -> Sends:
        """Note that the guest runs alone."""
        return self._end(Message(PROMOTED))

    def fenced(self, dead: bool, why: str) -> Sends:
        """Note that the guest is dead, or why it is not."""
        return self._end(verdict(FENCED, 0, dead, why))

    def lost_guest(self, why: str) -> Sends:
        """Note that the guest is gone."""
        return [] if self.state in (AT_BROKEN, AT_ENDED) else [(0, Message(GUEST_LOST, 0, why.encode()))]

    def broke(self, why: str) -> None:
        """Note that a channel is gone or speaks nonsense. What came and was not applied is void.

        The guest is to run: from the state applied last, or from the one that is just being applied.
        """
        if self.state not in (AT_BROKEN, AT_ENDED):
            self.state = AT_BROKEN
            self.failure = why

    @property
    def deadline(self) -> float:
        """When `handle_timer` wants to be called, if nothing comes before."""
        return math.inf if self.state in (AT_BROKEN, AT_ENDED) else self._heard + self._timeout

    def handle_timer(self, now: float) -> None:
        """Give the other end up when it did not say anything for the time-out; it sends PINGs."""
        if now >= self.deadline:
            self.broke(f"nothing came from the primary's end for {self._timeout:g} s")

    def _end(self, message: Message) -> Sends:
        if self.state in (AT_BROKEN, AT_ENDED):
            return []
        self.state = AT_ENDED
        return [(0, message)]

    def _forget(self) -> None:
        self._device = []
        self._device_length = 0
        self._synced.clear()
        self._superseded = False

    def _require(self, state: str, message: Message) -> None:
        if self.state != state or message.number != self.number:
            raise ProtocolError(f"{message} came in state {self.state} of checkpoint {self.number}")


_FROM_OUTGOING: Final = frozenset(
    (REQUEST, PAGES, ZEROS, DEVICE, SYNC, APPLY, RESUME, ABORT, PROMOTE, FENCE, PING)
)
