"""The secondary's end of the memory checkpointer in virtual time: the shell of the real `Incoming`.

It does what `checkpoint.memory.receiver` does, with the model guest's memory in place of a process's.
"""

import random
from collections import deque
from typing import Final

from colo_compare.checkpoint.memory.incoming import (
    NOTHING_APPLIED,
    Apply,
    Incoming,
    PromoteGuest,
    ResumeGuest,
    Task,
)
from colo_compare.checkpoint.memory.messages import (
    HELLO,
    REFUSED,
    Hello,
    Message,
    MessageWriter,
    ProtocolError,
    Secondary,
)
from colo_compare.checkpoint.memory.page_map import PageMap, Run, count_pages
from colo_compare.checkpoint.memory.reader import MessageReader
from colo_compare.checkpoint.memory.states import AT_BROKEN, AT_ENDED, Sends
from colo_compare.simulate.channels import TO_PRIMARY, TO_SECONDARY, Channel
from colo_compare.simulate.hosts import PAGE
from colo_compare.simulate.schedule import Alarm, Process, Schedule, Steps
from colo_compare.simulate.seat import Seat

SLOWEST_APPLY: Final = 0.005  # seconds that it takes to overwrite a guest's memory


def differing(one: bytearray, other: bytearray) -> list[Run]:
    """Give the runs of pages that differ."""
    runs: list[Run] = []
    if one == other:
        return runs
    # Slices are copied first; to compare views would look at each byte as an object.
    for block in range(0, len(one), 16 * PAGE):
        if one[block : block + 16 * PAGE] == other[block : block + 16 * PAGE]:
            continue
        for at in range(block, block + 16 * PAGE, PAGE):
            if one[at : at + PAGE] != other[at : at + PAGE]:
                page = at // PAGE
                if runs and sum(runs[-1]) == page:
                    runs[-1] = (runs[-1][0], runs[-1][1] + 1)
                else:
                    runs.append((page, 1))
    return runs


class Receiver:
    """Serves one guest, the secondary. One session at a time: a new one ends the one before."""

    def __init__(self, schedule: Schedule, seat: Seat, chance: random.Random, patience: float) -> None:
        self.schedule: Final = schedule
        self.seat: Final = seat
        self.chance: Final = chance
        self.cache: Final = bytearray(len(seat.guest.memory))
        self.spoilt = ""  # why the guest has no complete state any more
        self.promoted = False
        self.applied_states = 0
        self._patience: Final = patience
        self._applied = NOTHING_APPLIED
        self._written: Final = PageMap(len(self.cache) // PAGE)
        self._session: _Session | None = None
        self._waiting: deque[tuple[Channel, Hello, _Greeting]] = deque()

    def accept(self, channel: Channel) -> None:
        """Take a new connection."""
        greeting = _Greeting(self, channel)
        channel.attach(TO_SECONDARY, greeting.take, greeting.end)

    def serve(self, channel: Channel, hello: Hello, greeting: "_Greeting") -> None:
        """Take a channel that has said which session it belongs to."""
        session = self._session
        if session is None or session.incoming.session != hello.session or session.over:
            if session is not None and not session.closed:
                session.end("another session began")
                self._waiting.append((channel, hello, greeting))
                return
            try:
                session = self._session = self._begin(hello)
            except ProtocolError as error:
                greeting.refuse(str(error))
                return
        session.serve(channel, hello, greeting)

    def _begin(self, hello: Hello) -> "_Session":
        incoming = Incoming(
            hello,
            page_size=PAGE,
            size=len(self.cache),
            timeout=self._patience,
            now=self.schedule.now,
            applied=self._applied,
            secondary=Secondary("compare"),
        )
        if self.spoilt:
            raise ProtocolError(self.spoilt)
        return _Session(incoming, self)

    def lose_guest(self) -> None:
        """Note that the guest has died."""
        self.spoilt = self.spoilt or "the secondary guest is gone"
        if self._session is not None:
            self._session.say(self._session.incoming.lost_guest(self.spoilt))

    def perform(self, incoming: Incoming, task: Task) -> "Steps":
        """Do it to the end, whatever becomes of the session meanwhile."""
        seat = self.seat
        sends: Sends
        if isinstance(task, Apply):
            yield from self._apply(incoming, task)
            return
        if isinstance(task, ResumeGuest):
            self.let_run()
            sends = incoming.lost_guest(self.spoilt) if self.spoilt else incoming.resumed()
        elif isinstance(task, PromoteGuest):
            self.let_run()
            self.promoted = True
            sends = incoming.promoted()
        else:
            seat.kill()
            sends = incoming.fenced(True, "")
        assert self._session is not None
        self._session.say(sends)

    def _apply(self, incoming: Incoming, task: Apply) -> "Steps":
        session = self._session
        assert session is not None
        seat = self.seat
        hangs = seat.hangs_until - self.schedule.now
        if hangs > 0:
            yield self.schedule.now + min(hangs, self._patience)
        if not seat.alive or hangs >= self._patience:
            session.say(incoming.not_applied("the guest does not stop", intact=seat.alive))
            return
        seat.pause()
        self._written.add(differing(self.cache, seat.guest.memory))
        self._written.add(task.received)
        runs = self._written.runs()
        yield self.schedule.now + self.chance.random() * SLOWEST_APPLY
        if not self.seat.alive:
            self.spoilt = "the secondary guest died while its state was replaced"
            session.say(incoming.not_applied(self.spoilt, intact=False))
            return
        for first, count in runs:
            part = slice(first * PAGE, (first + count) * PAGE)
            seat.guest.memory[part] = self.cache[part]
        seat.load(task.device_state)
        self._written.clear()
        self.applied_states += 1
        sends = incoming.applied_state(count_pages(runs))
        self._applied = incoming.applied
        session.say(sends)

    def let_run(self) -> None:
        """Let the guest run, if it has a complete state."""
        if not self.spoilt:
            self.seat.resume()

    def session_closed(self) -> None:
        """Let the next session begin: the one that is over does nothing to the guest any more."""
        while self._waiting and (self._session is None or self._session.closed or not self._session.over):
            channel, hello, greeting = self._waiting.popleft()
            if not channel.broken:
                self.serve(channel, hello, greeting)


class _Greeting:
    """Takes the first message of a channel, and what the session lets in after it."""

    def __init__(self, receiver: Receiver, channel: Channel) -> None:
        self._receiver: Final = receiver
        self._channel: Final = channel
        self._early: list[bytes] = []
        self._greeted = False
        self._refused = False
        self.session: _Session | None = None
        self.index = 0
        self.writer: Final = MessageWriter()
        self.reader: Final = MessageReader(self._admit, memoryview(receiver.cache), PAGE)

    def _admit(self, kind: int, number: int) -> None:
        if self.session is not None:
            self.session.incoming.admit(self.index, kind, number)
        elif kind != HELLO:
            raise ProtocolError("a channel must begin with HELLO")

    def take(self, data: bytes) -> None:
        if self._refused:
            return
        if self._greeted and self.session is None:
            self._early.append(data)  # the session before is not closed yet
            return
        try:
            for message in self.reader.feed(data):
                if self.session is None:
                    self._greeted = True
                    self._receiver.serve(self._channel, Hello.parse(message), self)
                else:
                    self.session.receive(self.index, message)
        except ProtocolError as error:
            self.refuse(str(error))

    def begin(self, session: "_Session", index: int) -> None:
        self.session, self.index = session, index
        early, self._early = self._early, []
        for data in early:
            self.take(data)

    def refuse(self, why: str) -> None:
        self._refused = True
        self.say(Message(REFUSED, 0, why.encode()))
        if self.session is not None:
            self.session.end(why)
        self._channel.close(why)

    def say(self, message: Message) -> None:
        self._channel.send(TO_PRIMARY, b"".join(self.writer.encode(message)))

    def end(self, why: str) -> None:
        if self.session is not None:
            self.session.end(why)


class _Session:
    """The channels of one session, and the one process that does something to the guest."""

    def __init__(self, incoming: Incoming, receiver: Receiver) -> None:
        self.incoming: Final = incoming
        self.over = False
        self.closed = False
        self._receiver: Final = receiver
        self._greetings: dict[int, _Greeting] = {}
        self._channels: list[Channel] = []
        self._tasks: deque[Task] = deque()
        self._alarm: Final = Alarm(receiver.schedule, self._deadline, self._ring)
        self._process: Final = Process(receiver.schedule, self._perform(), self._close)

    def _deadline(self) -> float:
        return self.incoming.deadline

    def _ring(self) -> None:
        self.incoming.handle_timer(self._receiver.schedule.now)
        if self.incoming.state == AT_BROKEN:
            self.end(self.incoming.failure)

    def serve(self, channel: Channel, hello: Hello, greeting: _Greeting) -> None:
        self._greetings[hello.index] = greeting
        self._channels.append(channel)
        try:
            sends = self.incoming.open_channel(hello, self._receiver.schedule.now)
        except ProtocolError as error:
            greeting.refuse(str(error))
            return
        self.say(sends)
        self._alarm.look()
        greeting.begin(self, hello.index)

    def receive(self, index: int, message: Message) -> None:
        sends, tasks = self.incoming.receive(index, message, self._receiver.schedule.now)
        self.say(sends)
        self._alarm.look()
        if tasks:
            self._tasks.extend(tasks)
            self._process.wake()

    def say(self, sends: Sends) -> None:
        for index, message in sends:
            if index in self._greetings:
                self._greetings[index].say(message)

    def end(self, why: str) -> None:
        self.incoming.broke(why)
        self._alarm.off = True
        if not self.over:
            self.over = True
            for channel in self._channels:
                channel.close(why)
            self._process.wake()

    def _perform(self) -> Steps:
        while True:
            while self._tasks:
                yield from self._receiver.perform(self.incoming, self._tasks.popleft())
                if self.incoming.state == AT_ENDED or self._receiver.spoilt:
                    self._receiver.schedule.after(0.1, self.end, "the session is over")
            if self.over:
                return
            yield float("inf")

    def _close(self) -> None:
        self._receiver.let_run()
        self.closed = True
        self._receiver.session_closed()
