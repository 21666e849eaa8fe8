"""The primary's end of a session: what it says, in which order, and what it may conclude. No I/O, no clock.

::

    GREETING ──> IDLE ──request──> REQUESTED ──REPLY──> READY ──sync──> SYNCED ──RECEIVED──> RECEIVED
                 │  ^                  └────────abort─────┴───────────────┴────────────────────┤
                 │  └─RESUMED── RESUMING <──resume── APPLIED <──APPLIED── APPLYING <───apply───┘
                 └─promote, fence─> ENDING ──PROMOTED, FENCED──> ENDED          (anything) ──> BROKEN

Until `apply` the secondary has its old state, whatever happens to the connection. From APPLIED on it has the
new one. In between, while APPLYING, only the other end knows; a new session's WELCOME tells
(`applied_number`).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from colo_compare.checkpoint.memory.messages import (
    ABORT,
    APPLIED,
    APPLY,
    BATCH_PAGES,
    DEVICE,
    DEVICE_PART,
    FAILED,
    FENCE,
    FENCED,
    GUEST_LOST,
    PAGES,
    PING,
    PONG,
    PROMOTE,
    PROMOTED,
    RECEIVED,
    REFUSED,
    REPLY,
    REQUEST,
    RESUME,
    RESUMED,
    SYNC,
    WELCOME,
    ZEROS,
    Hello,
    Message,
    ProtocolError,
    Secondary,
    counted,
    parse_count,
    parse_verdict,
    parse_welcome,
)
from colo_compare.checkpoint.memory.page_map import Run
from colo_compare.checkpoint.memory.states import (
    AT_APPLIED,
    AT_APPLYING,
    AT_BROKEN,
    AT_ENDED,
    AT_ENDING,
    AT_GREETING,
    AT_IDLE,
    AT_READY,
    AT_RECEIVED,
    AT_REQUESTED,
    AT_RESUMING,
    AT_SYNCED,
    Sends,
)

_IN_CHECKPOINT: Final = (AT_REQUESTED, AT_READY, AT_SYNCED, AT_RECEIVED)
_PINGS: Final = 4  # in each time-out: as many may be late, or lost in a queue
_WAITING: Final = (AT_GREETING, AT_REQUESTED, AT_SYNCED, AT_APPLYING, AT_RESUMING, AT_ENDING)
_SETTLED: Final = (AT_GREETING, AT_ENDED, AT_BROKEN)

STRIPE: Final = 64
"""Pages that follow each other on one channel, 256 KiB: long enough for few, large writes."""


class Outgoing:
    """One session with a secondary."""

    def __init__(
        self, session: bytes, *, channels: int, page_size: int, size: int, timeout: float, now: float
    ) -> None:
        """Take 16 bytes that no session had before, the shape of the memory (bytes) and a time-out (s)."""
        self.session: Final = session
        self.channels: Final = channels
        self.page_size: Final = page_size
        self.size: Final = size
        self.state = AT_GREETING
        self.number = 1  # of the checkpoint that the next pages belong to
        self.applied_session = b""  # what the secondary has, as it said when the session began
        self.applied_number = 0
        self.secondary = Secondary()  # what its end says of it
        self.pages_applied = 0  # overwritten by the last checkpoint
        self.failure = ""  # of the last checkpoint, or why the session is broken
        self.undecided = False  # broken while APPLYING: the secondary has the old state or the new one
        self.spoilt = False  # the secondary has no complete state any more
        self.guest_lost = ""  # why
        self.fenced: bool | None = None
        self._timeout = timeout
        self._welcomed: set[int] = set()
        self._heard = now
        self._progress = now  # when what we wait for last came nearer
        self._next_ping = now + timeout / _PINGS

    # What the shell wants

    def hello(self) -> Sends:
        """Give the first message of each channel."""
        return [
            (index, Hello(self.session, index, self.channels, self.page_size, self.size).message())
            for index in range(self.channels)
        ]

    def request(self, now: float) -> Sends:
        """Begin a checkpoint; `state` becomes READY when the secondary's end is."""
        self._require(AT_IDLE)
        self.failure = ""
        self._ask(AT_REQUESTED, now)
        return [(0, Message(REQUEST, self.number))]

    def sync(self, device_state: bytes, now: float) -> Sends:
        """Give what follows the last page; `state` becomes RECEIVED when the whole checkpoint is there."""
        self._require(AT_READY)
        self._ask(AT_SYNCED, now)
        view = memoryview(device_state)
        sends: Sends = [
            (0, Message(DEVICE, self.number, view[at : at + DEVICE_PART]))
            for at in range(0, len(view), DEVICE_PART)
        ]
        for index in range(self.channels):
            sends.append((index, counted(SYNC, self.number, 0 if index else len(view))))
        return sends

    def apply(self, now: float) -> Sends:
        """Decide for the new state; `state` becomes APPLIED when the secondary has it, IDLE if it failed."""
        self._require(AT_RECEIVED)
        self._ask(AT_APPLYING, now)
        return [(0, Message(APPLY, self.number))]

    def resume(self, now: float) -> Sends:
        """Let the secondary run from the new state; `state` becomes IDLE when it does."""
        self._require(AT_APPLIED)
        self._ask(AT_RESUMING, now)
        return [(0, Message(RESUME, self.number))]

    def abort(self) -> Sends:
        """End a checkpoint that is not decided. Its pages that were not sent go out with the next."""
        if self.state not in _IN_CHECKPOINT:
            raise ProtocolError(f"no checkpoint can be aborted in state {self.state}")
        number = self.number
        self._begin_next()
        return [(0, Message(ABORT, number))]

    def promote(self, now: float) -> Sends:
        """Let the secondary go on alone; `state` becomes ENDED when it does."""
        return self._end(PROMOTE, now)

    def fence(self, now: float) -> Sends:
        """Have the secondary killed; `state` becomes ENDED, and `fenced` tells whether it is dead."""
        return self._end(FENCE, now)

    def batches(
        self, channel: int, runs: list[Run], memory: memoryview, *, copy: bool, holes: Sequence[Run] = ()
    ) -> Iterator[Message]:
        """Give those of the pages that go out on a channel, in messages, pages of zeros apart.

        A page always takes the same channel, so two versions of it never overtake each other. `copy`: the
        guest runs, so the pages may change between their checksum and their way out. `holes`: pages that are
        known to be zero, and must not be read.
        """
        for at in range(0, len(parts := list(striped(holes, channel, self.channels))), BATCH_PAGES):
            yield Message(ZEROS, self.number, runs=parts[at : at + BATCH_PAGES])
        size = self.page_size
        batch: list[Run] = []
        zeros: list[Run] = []
        count = 0
        for first, length, zero in split_zeros(striped(runs, channel, self.channels), memory, size):
            if zero:
                zeros.append((first, length))
                if len(zeros) == BATCH_PAGES:
                    yield Message(ZEROS, self.number, runs=zeros)
                    zeros = []
                continue
            if count + length > BATCH_PAGES:
                yield self._pages(batch, memory, copy=copy)
                batch, count = [], 0
            batch.append((first, length))
            count += length
        if batch:
            yield self._pages(batch, memory, copy=copy)
        if zeros:
            yield Message(ZEROS, self.number, runs=zeros)

    def _pages(self, runs: list[Run], memory: memoryview, *, copy: bool) -> Message:
        size = self.page_size
        data = [memory[first * size : (first + count) * size] for first, count in runs]
        return Message(PAGES, self.number, runs=runs, data=[bytes(part) for part in data] if copy else data)

    # What happens

    def admit(self, kind: int, number: int) -> None:
        """Say whether a message may come now. Raises ProtocolError."""
        allowed = {
            WELCOME: (AT_GREETING,),
            REPLY: (AT_REQUESTED,),
            RECEIVED: (AT_SYNCED,),
            APPLIED: (AT_APPLYING,),
            FAILED: (AT_APPLYING,),
            RESUMED: (AT_RESUMING,),
            PROMOTED: (AT_ENDING,),
            FENCED: (AT_ENDING,),
        }
        if kind in (PONG, GUEST_LOST, REFUSED) or (self.state == AT_ENDING and kind in allowed):
            return
        if kind in (REPLY, RECEIVED) and number < self.number:
            return  # of a checkpoint that was aborted meanwhile
        if kind not in allowed or self.state not in allowed[kind]:
            raise ProtocolError(f"the secondary's end sends message kind {kind} in state {self.state}")
        if kind not in (WELCOME, PROMOTED, FENCED) and number != self.number:
            raise ProtocolError(f"the secondary's end speaks of checkpoint {number}, not of {self.number}")

    def receive(self, channel: int, message: Message, now: float) -> None:
        """Take a message that was admitted. Raises ProtocolError."""
        self._heard = now
        kind = message.kind
        if kind != PONG:
            self._progress = now
        if kind == WELCOME:
            self._welcome(channel, message)
        elif kind == REFUSED:
            raise ProtocolError(f"the secondary's end refuses: {message.text}")
        elif kind == GUEST_LOST:
            self.guest_lost = message.text
        elif self.state == AT_ENDING and kind not in (PROMOTED, FENCED):
            return  # an answer to what was said before the end
        elif kind in (REPLY, RECEIVED) and message.number == self.number:
            self.state = AT_READY if kind == REPLY else AT_RECEIVED
        elif kind == APPLIED:
            self.pages_applied = parse_count(message)
            self.state = AT_APPLIED
        elif kind == FAILED:
            intact, self.failure = parse_verdict(message)
            self.spoilt = not intact
            self._begin_next()
        elif kind == RESUMED:
            self._begin_next()
        elif kind in (PROMOTED, FENCED):
            if kind == FENCED:
                self.fenced, self.failure = parse_verdict(message)
            self.state = AT_ENDED

    def _welcome(self, channel: int, message: Message) -> None:
        self.applied_session, self.applied_number, self.secondary = parse_welcome(message)
        self._welcomed.add(channel)
        if len(self._welcomed) == self.channels:
            self.state = AT_IDLE

    def progressed(self, now: float) -> None:
        """Note that the other end takes what is sent: it cannot answer what it has not read yet."""
        self._heard = self._progress = now

    def broke(self, why: str) -> None:
        """Note that a channel is gone or speaks nonsense. Only the first reason counts."""
        if self.state not in (AT_BROKEN, AT_ENDED):
            self.undecided = self.state == AT_APPLYING
            self.state = AT_BROKEN
            self.failure = why

    @property
    def deadline(self) -> float:
        """When `handle_timer` wants to be called, if nothing comes before."""
        if self.state in (AT_BROKEN, AT_ENDED):
            return math.inf
        limit = min(self._heard, self._progress if self.state in _WAITING else math.inf) + self._timeout
        return limit if self.state == AT_GREETING else min(self._next_ping, limit)

    def handle_timer(self, now: float) -> Sends:
        """Ask whether the other end lives; give it up when it says nothing, or not what it was asked for."""
        if now >= self._heard + self._timeout:
            self.broke(f"nothing came from the secondary's end for {self._timeout:g} s")
        elif self.state in _WAITING and now >= self._progress + self._timeout:
            self.broke(
                f"the secondary's end lives, but did not answer for {self._timeout:g} s ({self.state})"
            )
        elif now >= self._next_ping and self.state not in _SETTLED:
            self._next_ping = now + self._timeout / _PINGS
            return [(0, Message(PING))]
        return []

    def _begin_next(self) -> None:
        self.number += 1
        self.state = AT_IDLE

    def _end(self, kind: int, now: float) -> Sends:
        if self.state in _SETTLED:
            raise ProtocolError(f"there is no session with the secondary's end (it is {self.state})")
        self._ask(AT_ENDING, now)
        return [(0, Message(kind))]

    def _ask(self, state: str, now: float) -> None:
        """Enter a state that the other end's answer ends."""
        self.state = state
        self._progress = now

    def _require(self, state: str) -> None:
        if self.state != state:
            raise ProtocolError(f"this needs a session in state {state}, it is {self.state}: {self.failure}")


def striped(runs: Iterable[Run], channel: int, channels: int) -> Iterator[Run]:
    """Give the parts of runs that belong to a channel: stripes go to the channels in turn."""
    for first, count in runs:
        if channels == 1:
            for at in range(first, first + count, BATCH_PAGES):
                yield at, min(BATCH_PAGES, first + count - at)
            continue
        end = first + count
        at = first
        while at < end:
            stop = min(end, (at // STRIPE + 1) * STRIPE)
            if at // STRIPE % channels == channel:
                yield at, stop - at
            at = stop


def split_zeros(runs: Iterator[Run], memory: memoryview, size: int) -> Iterator[tuple[int, int, bool]]:
    """Cut runs where pages of zeros begin or end: first page, pages, whether they are all zero."""
    zero_page = bytes(size)
    for first, count in runs:
        # Only a page that begins with a zero can be one of zeros: the first bytes of all pages of a run are
        # looked at in one step. (Page by page it took ten times as long.)
        starts = memory[first * size : (first + count) * size : size].tobytes()
        at = 0
        while at < count:
            end = at
            while (end := starts.find(0, end)) >= 0 and not _is_zero(memory, first + end, zero_page):
                end += 1
            if end < 0:
                yield first + at, count - at, False
                break
            if end > at:
                yield first + at, end - at, False
            at = end + 1
            while at < count and not starts[at] and _is_zero(memory, first + at, zero_page):
                at += 1
            yield first + end, at - end, True


def _is_zero(memory: memoryview, page: int, zero_page: bytes) -> bool:
    size = len(zero_page)
    return memory[page * size : (page + 1) * size].tobytes() == zero_page
