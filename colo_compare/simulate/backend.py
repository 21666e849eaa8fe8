"""The primary's end of the memory checkpointer in virtual time: the shell of the real `Outgoing`.

It does what `checkpoint.memory.backend` and `sender` do, step by step, and is read beside them.
"""

import math
import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, Protocol

from colo_compare.checkpoint.memory.backlog import Backlog
from colo_compare.checkpoint.memory.messages import MessageWriter, ProtocolError
from colo_compare.checkpoint.memory.outgoing import Outgoing
from colo_compare.checkpoint.memory.page_map import Run
from colo_compare.checkpoint.memory.reader import MessageReader
from colo_compare.checkpoint.memory.states import (
    AT_BROKEN,
    AT_ENDED,
    AT_IDLE,
    Sends,
)
from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import CheckpointerError, CheckpointFailed, PromotionFailed
from colo_compare.simulate.channels import TO_PRIMARY, TO_SECONDARY, Channel
from colo_compare.simulate.hosts import PAGE
from colo_compare.simulate.receiver import Receiver, differing
from colo_compare.simulate.schedule import Alarm, Process, Schedule, Steps
from colo_compare.simulate.seat import Seat

_RECONNECT_INTERVAL: Final = 0.1


@dataclass(frozen=True)
class Wiring:
    """What the checkpointer is made of."""

    channels: int = 1
    delay: float = 0.0003  # seconds
    bytes_per_second: float = 1e9
    presend_interval: float = math.inf  # seconds
    presend_pages: int = 32
    compression: int = 0
    checksums: bool = True
    timeout: float = 1.0
    reconnect_timeout: float = 1.0
    reports_steps: bool = True  # says when the primary has stopped and the secondary is loaded


class Handlers(Protocol):
    """Who is told how a checkpoint goes: `checkpoint.contract.CheckpointHandlers`, without waiting."""

    def paused(self, epoch: int) -> None:
        """Note that the primary stands still."""

    def loaded(self, epoch: int) -> None:
        """Note that the secondary has the new state."""

    def committed(self, epoch: int) -> None:
        """Note that the secondary can take over from it."""

    def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        """Note that nothing was committed."""

    def guest_lost(self, side: int, detail: str) -> None:
        """Note that a guest is gone."""

    def backend_changed(self) -> None:
        """Look again at what is waited for."""


class Session:
    """One session: the real `Outgoing` and its channels."""

    def __init__(self, backend: "Backend", number: int) -> None:
        self._backend: Final = backend
        wiring = backend.wiring
        schedule = backend.schedule
        size = len(backend.primary.guest.memory)
        self.outgoing: Final = Outgoing(
            number.to_bytes(16, "big"),
            channels=wiring.channels,
            page_size=PAGE,
            size=size,
            timeout=wiring.timeout,
            now=schedule.now,
        )
        self.backlog: Final = Backlog(size // PAGE)
        self.reference: Final = bytearray(size)  # the memory as the tracker saw it last
        self.channels: Final[list[Channel]] = []
        self._writers: Final[list[MessageWriter]] = []
        self._alarm: Final = Alarm(schedule, self._deadline, self._ring)
        for index in range(wiring.channels):
            channel = Channel(schedule, backend.chance, wiring.delay, wiring.bytes_per_second)
            self.channels.append(channel)
            self._writers.append(MessageWriter(checksums=wiring.checksums, compression=wiring.compression))
            channel.attach(TO_PRIMARY, _Listener(self, index).take, self.broke)
            backend.receiver.accept(channel)
        self.say(self.outgoing.hello())

    def _deadline(self) -> float:
        return self.outgoing.deadline

    def _ring(self) -> None:
        self.say(self.outgoing.handle_timer(self._backend.schedule.now))
        self._note_change()

    def receive(self, index: int, reader: MessageReader, data: bytes) -> None:
        """Take what has come on a channel."""
        if self.outgoing.state in (AT_BROKEN, AT_ENDED):
            return
        try:
            for message in reader.feed(data):
                self.outgoing.receive(index, message, self._backend.schedule.now)
        except ProtocolError as error:
            self.broke(str(error))
        self._note_change()

    def say(self, sends: Sends) -> None:
        """Send messages."""
        for index, message in sends:
            self.channels[index].send(TO_SECONDARY, b"".join(self._writers[index].encode(message)))
        self._alarm.look()

    def transfer(self, runs: list[Run], *, copy: bool) -> None:
        """Send pages on all channels."""
        memory = memoryview(self._backend.primary.guest.memory)
        for index, writer in enumerate(self._writers):
            for message in self.outgoing.batches(index, runs, memory, copy=copy):
                self.channels[index].send(TO_SECONDARY, b"".join(writer.encode(message)))

    def look(self) -> None:
        """Note what the primary has written since the look before."""
        memory = self._backend.primary.guest.memory
        written = differing(memory, self.reference)
        self.reference[:] = memory
        self.backlog.note(written)

    def broke(self, why: str) -> None:
        """Note that a channel is gone."""
        self.outgoing.broke(why)
        for channel in self.channels:
            channel.end(why)
        self._alarm.off = True
        self._note_change()

    def _note_change(self) -> None:
        self._alarm.look()
        if self.outgoing.state in (AT_BROKEN, AT_ENDED):
            self._alarm.off = True
            for channel in self.channels:
                channel.close(self.outgoing.failure or "the session has ended")
        self._backend.changed()


class _Listener:
    def __init__(self, session: Session, index: int) -> None:
        self._session = session
        self._index = index
        self._reader = MessageReader(session.outgoing.admit)

    def take(self, data: bytes) -> None:
        self._session.receive(self._index, self._reader, data)


class Backend:
    """Copies a primary's memory and device state to a secondary."""

    def __init__(
        self,
        schedule: Schedule,
        handlers: Handlers,
        primary: Seat,
        receiver: Receiver,
        wiring: Wiring,
        chance: random.Random,
    ) -> None:
        self.schedule: Final = schedule
        self.handlers: Final = handlers
        self.primary: Final = primary
        self.receiver: Final = receiver
        self.wiring: Final = wiring
        self.chance: Final = chance
        self.lost = ""  # why there is no pair any more
        self.busy = False
        self.committed = 0
        self.session: Session | None = None
        self.over = False  # the proxy is gone, and this with it
        self._processes: list[Process] = []
        self._unreachable_until = 0.0
        self.start(self._keep_connected())
        if wiring.presend_interval < math.inf:
            self.start(self._presend())

    def start(self, steps: Steps) -> Process:
        """Run something that ends with the backend."""
        process = Process(self.schedule, steps, self.changed)
        self._processes.append(process)
        return process

    def changed(self) -> None:
        """Let everybody look again who waits here."""
        for process in self._processes:
            process.wake()
        self._processes = [process for process in self._processes if not process.over]
        self.handlers.backend_changed()

    def crash(self) -> None:
        """End as a process does that is killed: the connections close, and the primary runs on."""
        self.over = True
        if self.session is not None:
            self.session.broke("the proxy is gone")
        for process in self._processes:
            process.cancel()
        self.primary.resume()

    def cut_off(self, until: float) -> None:
        """Let the secondary's end be out of reach for new connections."""
        self._unreachable_until = until

    # Sessions

    def _keep_connected(self) -> Steps:
        why = "not connected yet"
        while not self.over:
            give_up = self.schedule.now + self.wiring.reconnect_timeout
            while self.session is None or self.session.outgoing.state in (AT_BROKEN, AT_ENDED):
                if self.lost:
                    return
                if self.schedule.now >= give_up:
                    self._lose_secondary(why)
                    return
                if self.schedule.now >= self._unreachable_until and self.receiver.seat.alive:
                    self.session = Session(self, self.chance.getrandbits(127) + 1)
                    self.changed()
                    limit = self.schedule.now + self.wiring.timeout
                    while self.session.outgoing.state not in (AT_IDLE, AT_BROKEN):
                        if self.schedule.now >= limit:
                            self.session.broke("no session in time")
                            break
                        yield limit
                    why = self.session.outgoing.failure
                if self.session is None or self.session.outgoing.state == AT_BROKEN:
                    yield min(self.schedule.now + _RECONNECT_INTERVAL, give_up)
            outgoing = self.session.outgoing
            while outgoing.state not in (AT_BROKEN, AT_ENDED):
                if outgoing.guest_lost and not self.lost:
                    self._lose_secondary(outgoing.guest_lost)
                yield math.inf
            why = outgoing.failure

    def _lose_secondary(self, why: str) -> None:
        if not self.lost:
            self.lost = why
            self.handlers.guest_lost(SECONDARY, why)

    @property
    def ready(self) -> bool:
        """Whether there is a pair."""
        session = self.session
        return (
            session is not None
            and not self.lost
            and len(session.channels) > 0
            and session.outgoing.state not in (AT_BROKEN, AT_ENDED, "greeting")
        )

    def session_after(self, broken: Session | None) -> Generator[float, None, Session]:
        """Wait for a session that works and is not this one. Raises CheckpointFailed."""
        limit = self.schedule.now + self.wiring.reconnect_timeout
        while True:
            session = self.session
            if (
                session is not None
                and session is not broken
                and session.outgoing.state not in (AT_BROKEN, "greeting")
            ):
                return session
            if self.schedule.now >= limit:
                raise CheckpointFailed("no connection to the secondary's end")
            yield limit

    def until(self, session: Session, *states: str) -> Steps:
        """Wait for one of the states, or for IDLE. Raises CheckpointFailed when the session breaks first."""
        outgoing = session.outgoing
        while outgoing.state not in (*states, AT_IDLE):
            if outgoing.state in (AT_BROKEN, AT_ENDED) and outgoing.state not in states:
                raise CheckpointFailed(f"the session broke: {outgoing.failure}")
            yield math.inf

    def _presend(self) -> Steps:
        interval = self.wiring.presend_interval
        due = self.schedule.now + interval
        while not (self.over or self.lost):
            if self.schedule.now < due:
                yield due
                continue
            due = self.schedule.now + interval
            session = self.session
            if self.busy or session is None or session.outgoing.state != AT_IDLE or not self.primary.runs:
                continue
            self.primary.guest.save(self.schedule.now)
            session.look()
            session.transfer(session.backlog.take_quiet(self.wiring.presend_pages), copy=True)

    # One checkpoint

    def promote(self) -> Steps:
        """Kill the primary, and let the secondary run alone. Raises PromotionFailed."""
        try:
            yield from self._dissolve(PRIMARY)
        except CheckpointerError as error:
            raise PromotionFailed(f"the secondary was not promoted: {error}") from None

    def abandon(self) -> Steps:
        """Kill the secondary, and let the primary run alone."""
        try:
            yield from self._dissolve(SECONDARY)
        except CheckpointerError:
            return

    def _dissolve(self, side: int) -> Steps:
        before, self.lost = self.lost, "fenced"
        try:
            if side == PRIMARY:
                self.primary.kill()
            session = yield from self.session_after(None)
            outgoing, now = session.outgoing, self.schedule.now
            session.say(outgoing.promote(now) if side == PRIMARY else outgoing.fence(now))
            yield from self.until(session, AT_ENDED)
        except CheckpointerError:
            self.lost = before
            raise
