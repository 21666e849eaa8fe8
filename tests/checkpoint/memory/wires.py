"""Both ends of a session and the bytes between them, in virtual time: no sockets, no guests, no clock."""

from collections.abc import Callable
from math import inf
from random import Random

from colo_compare.checkpoint.memory.backlog import Backlog
from colo_compare.checkpoint.memory.incoming import (
    NOTHING_APPLIED,
    Apply,
    FenceGuest,
    Incoming,
    PromoteGuest,
    ResumeGuest,
    Task,
)
from colo_compare.checkpoint.memory.messages import (
    REFUSED,
    Buffer,
    Hello,
    Message,
    MessageWriter,
    ProtocolError,
)
from colo_compare.checkpoint.memory.outgoing import Outgoing
from colo_compare.checkpoint.memory.page_map import PageMap
from colo_compare.checkpoint.memory.reader import MessageReader
from colo_compare.checkpoint.memory.states import (
    AT_APPLIED,
    AT_BROKEN,
    AT_ENDED,
    AT_IDLE,
    AT_READY,
    AT_RECEIVED,
    Sends,
)

PAGE = 64  # bytes: the protocol does not mind, and a page of four kibibytes says no more than one of these


class Guest:
    """Memory, device state, and which pages were written."""

    def __init__(self, pages: int) -> None:
        self.memory = bytearray(pages * PAGE)
        self.device = b"at start"
        self.written = PageMap(pages)
        self.running = True
        self.alive = True

    def write(self, page: int, value: int) -> None:
        self.memory[page * PAGE : (page + 1) * PAGE] = bytes([value]) * PAGE
        self.written.add([(page, 1)])

    @property
    def state(self) -> tuple[bytes, bytes]:
        return bytes(self.memory), self.device


class Secondary:
    """The secondary's end: what survives a session, and the guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.cache = bytearray(len(guest.memory))
        self.applied = NOTHING_APPLIED
        self.session: Incoming | None = None
        self.overwritten: list[int] = []  # pages, for each state that was applied

    def hello(self, message: Message, now: float) -> Sends:
        hello = Hello.parse(message)
        if self.session is None or self.session.session != hello.session:
            self.lose_session("another session begins")
            size = len(self.guest.memory)
            self.session = Incoming(
                hello, page_size=PAGE, size=size, timeout=4.0, now=now, applied=self.applied
            )
        return self.session.open_channel(hello, now)

    def perform(self, session: Incoming, task: Task) -> Sends:
        if isinstance(task, Apply):
            self.guest.running = False
            pages = PageMap(len(self.guest.memory) // PAGE)
            pages.add(task.received)
            pages.add(self.guest.written.runs())
            self.guest.written.clear()
            for first, count in pages.runs():
                part = slice(first * PAGE, (first + count) * PAGE)
                self.guest.memory[part] = self.cache[part]
            self.guest.device = task.device_state
            self.overwritten.append(len(pages))
            sends = session.applied_state(len(pages))
            self.applied = session.applied
            return sends
        if isinstance(task, ResumeGuest):
            self.guest.running = True
            return session.resumed()
        if isinstance(task, PromoteGuest):
            self.guest.running = True
            return session.promoted()
        assert isinstance(task, FenceGuest)
        self.guest.alive = False
        return session.fenced(True, "")

    def lose_session(self, why: str) -> None:
        if self.session is not None:
            self.session.broke(why)
            self.guest.running = True
            self.session = None


Tamper = Callable[[int, int, bytes], bytes | None]
"""Gets the channel (negative on the way back: -1 - channel), the message's place on it and its bytes."""


class Wires:
    """A session: delivers messages, in order on each channel, the channels in an order of chance."""

    def __init__(
        self,
        primary: Guest,
        secondary: Secondary,
        *,
        session: bytes = b"s" * 16,
        channels: int = 1,
        checksums: bool = True,
        compression: int = 0,
        random: Random | None = None,
        tamper: Tamper = lambda _channel, _place, data: data,
    ) -> None:
        size = len(primary.memory)
        self.now = 0.0
        self.primary = primary
        self.secondary = secondary
        self.outgoing = Outgoing(
            session, channels=channels, page_size=PAGE, size=size, timeout=4.0, now=self.now
        )
        self.backlog = Backlog(size // PAGE)
        self.random = random or Random(0)
        self.tamper = tamper
        self.broken = False
        self.delivered = 0
        self.places = [0] * (2 * channels)
        self.out_writers = [
            MessageWriter(checksums=checksums, compression=compression) for _ in range(channels)
        ]
        self.in_writers = [MessageWriter() for _ in range(channels)]
        self.queues: list[list[bytes]] = [[] for _ in range(2 * channels)]  # the second half: on the way back
        self.in_readers = [self._in_reader(index) for index in range(channels)]
        self.out_readers = [MessageReader(self.outgoing.admit) for _ in range(channels)]
        self.greeted = [False] * channels

    def _in_reader(self, channel: int) -> MessageReader:
        def admit(kind: int, number: int) -> None:
            if self.greeted[channel]:
                assert self.secondary.session is not None
                self.secondary.session.admit(channel, kind, number)

        return MessageReader(admit, memoryview(self.secondary.cache), PAGE)

    # The two ends speak

    def say(self, sends: Sends) -> None:
        for channel, message in sends:
            self._post(channel, channel, self.out_writers[channel].encode(message))

    def answer(self, sends: Sends) -> None:
        half = len(self.queues) // 2
        for channel, message in sends:
            self._post(half + channel, -1 - channel, self.in_writers[channel].encode(message))

    def _post(self, queue: int, channel: int, buffers: list[Buffer]) -> None:
        data = self.tamper(channel, self.places[queue], b"".join(buffers))
        self.places[queue] += 1
        if data is None:
            self.cut("cut")
        elif not self.broken:
            self.queues[queue].append(data)

    def cut(self, why: str) -> None:
        """Break the connection: what is under way is lost, and both ends see it."""
        if not self.broken:
            self.broken = True
            for queue in self.queues:
                queue.clear()
            self.outgoing.broke(why)
            self.secondary.lose_session(why)

    def deliver(self) -> bool:
        """Deliver one message; say whether there was one."""
        waiting = [index for index, queue in enumerate(self.queues) if queue]
        if not waiting:
            return False
        index = self.random.choice(waiting)
        data = self.queues[index].pop(0)
        half = len(self.queues) // 2
        self.delivered += 1
        try:
            if index < half:
                self._deliver_in(index, data)
            else:
                for message in self.out_readers[index - half].feed(data):
                    self.outgoing.receive(index - half, message, self.now)
        except ProtocolError as error:
            if index < half and self.outgoing.state != AT_BROKEN:
                for buffer in [self.in_writers[index].encode(Message(REFUSED, body=str(error).encode()))]:
                    try:
                        for message in self.out_readers[index].feed(b"".join(buffer)):
                            self.outgoing.receive(index, message, self.now)
                    except ProtocolError as refusal:
                        self.cut(str(refusal))
            self.cut(str(error))
        return True

    def _deliver_in(self, channel: int, data: bytes) -> None:
        for message in self.in_readers[channel].feed(data):
            if not self.greeted[channel]:
                sends = self.secondary.hello(message, self.now)
                self.greeted[channel] = True
                self.answer(sends)
                continue
            session = self.secondary.session
            assert session is not None
            sends, tasks = session.receive(channel, message, self.now)
            self.answer(sends)
            for task in tasks:
                self.answer(self.secondary.perform(session, task))

    def settle(self) -> None:
        while self.deliver():
            pass

    def wait(self, *states: str) -> bool:
        """Let time go by until the primary's end is in one of the states; say whether it came to that."""
        self.settle()
        while self.outgoing.state not in (*states, AT_IDLE, AT_BROKEN, AT_ENDED):
            self.now = min(self.outgoing.deadline, self.secondary_deadline)
            self.say(self.outgoing.handle_timer(self.now))
            if self.secondary.session is not None:
                self.secondary.session.handle_timer(self.now)
            if AT_BROKEN in (self.outgoing.state, self.secondary.session and self.secondary.session.state):
                self.cut("time-out")
            self.settle()
        return self.outgoing.state in states

    @property
    def secondary_deadline(self) -> float:
        return inf if self.secondary.session is None else self.secondary.session.deadline

    # The primary's shell

    def open(self) -> None:
        self.say(self.outgoing.hello())
        self.settle()

    def look(self) -> None:
        """Look at the tracker."""
        self.backlog.note(self.primary.written.runs())
        self.primary.written.clear()

    def send_pages(self, runs: list[tuple[int, int]]) -> None:
        memory = memoryview(self.primary.memory)
        for channel in range(self.outgoing.channels):
            for message in self.outgoing.batches(channel, runs, memory, copy=True):
                self.say([(channel, message)])

    def presend(self, limit: int) -> None:
        self.look()
        self.send_pages(self.backlog.take_quiet(limit))

    def send_checkpoint(self) -> bool:
        """Go as far as RECEIVED; say whether it was reached."""
        self.settle()
        if not self.idle:
            return False
        self.say(self.outgoing.request(self.now))
        if not self.wait(AT_READY):
            return False
        self.look()
        self.send_pages(self.backlog.take_all())
        if self.outgoing.state == AT_BROKEN:
            return False
        self.say(self.outgoing.sync(self.primary.device, self.now))
        return self.wait(AT_RECEIVED)

    def checkpoint(self) -> bool:
        """Make a checkpoint; say whether it was committed."""
        if not self.send_checkpoint():
            return False
        self.say(self.outgoing.apply(self.now))
        if not self.wait(AT_APPLIED):
            return False
        self.say(self.outgoing.resume(self.now))
        self.wait(AT_IDLE)
        return True

    @property
    def idle(self) -> bool:
        return self.outgoing.state == AT_IDLE

    @property
    def ended(self) -> bool:
        return self.outgoing.state == AT_ENDED
