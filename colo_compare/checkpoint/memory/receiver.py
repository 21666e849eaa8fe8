"""The secondary's end: the cache, the guest, and the sessions that primaries open.

The trio shell of `incoming`.
"""

import logging
from typing import Final

import trio

from colo_compare.checkpoint.memory.channel import Channel
from colo_compare.checkpoint.memory.endpoint import Endpoint
from colo_compare.checkpoint.memory.guest_control import AUTO, GuestControl
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
    HELLO,
    PAGES,
    REFUSED,
    ZEROS,
    Hello,
    Message,
    MessageWriter,
    ProtocolError,
    Secondary,
)
from colo_compare.checkpoint.memory.page_map import PageMap, count_pages
from colo_compare.checkpoint.memory.reader import MessageReader
from colo_compare.checkpoint.memory.region import PAGE_SIZE, Region
from colo_compare.checkpoint.memory.speaker import Speaker
from colo_compare.checkpoint.memory.states import AT_BROKEN, AT_ENDED, Sends
from colo_compare.errors import CheckpointerError

logger: Final = logging.getLogger(__name__)

_PINGS: Final = 3  # of the guest, in each time-out
_LAST_WORDS: Final = 0.5  # seconds for a message that ends a session to get out


class Receiver:
    """Serves one guest, the secondary. One session at a time: a new one ends the one before."""

    def __init__(
        self, guest: GuestControl, endpoint: Endpoint, *, patience: float, tracker: str = AUTO
    ) -> None:
        self._guest = guest
        self._endpoint = endpoint
        self._timeout = patience
        self._choice = tracker
        self._cache: Region
        self._nursery: trio.Nursery
        self._session: _Session | None = None
        self._taking_over = trio.Lock()
        self._done = trio.Event()
        self._stopped = False  # the guest stands still
        self._applied = NOTHING_APPLIED
        self.spoilt = ""  # why the guest has no complete state any more
        self.promoted = False
        self._fencing = False  # its death is no surprise
        self.written: PageMap
        self._zeros: PageMap  # of the cache: pages that are not to be read there

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until the guest is promoted, fenced or gone, or this is cancelled; then let go of it.

        Raises CheckpointerError when the guest is gone without anybody having asked for it.
        """
        try:
            await self._run(task_status)
        finally:
            with trio.CancelScope(shield=True):
                await self._guest.aclose()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        guest = self._guest
        self._cache = Region.create(guest.region.size, "colo-cache")
        self.written = PageMap(guest.region.pages)
        self._zeros = PageMap(guest.region.pages, full=True)
        await guest.lend_cache(self._cache)
        self._tracker = guest.track(self._choice, self._cache)
        listeners = await self._endpoint.listen()
        try:
            async with trio.open_nursery() as self._nursery:
                nursery = self._nursery
                nursery.start_soon(self._watch_guest)
                nursery.start_soon(self._feel_pulse)
                for listener in listeners:
                    nursery.start_soon(self._accept, listener, nursery)
                task_status.started()
                logger.info("%s: waiting for a primary; tracker %s", self._endpoint, self._tracker.name)
                await self._done.wait()
                nursery.cancel_scope.cancel()
        finally:
            for listener in listeners:
                await trio.aclose_forcefully(listener)
            self._tracker.close()
            self._cache.close()
        if self.spoilt:
            raise CheckpointerError(self.spoilt)

    async def _watch_guest(self) -> None:
        await self._guest.wait_gone()
        if self._fencing:
            return
        self.spoilt = self.spoilt or "the secondary guest is gone: its process has ended"
        logger.error(self.spoilt)
        if self._session is not None:
            self._session.say(self._session.incoming.lost_guest(self.spoilt))
            with trio.move_on_after(_LAST_WORDS):
                await self._session.flush()
        self._done.set()

    async def _feel_pulse(self) -> None:
        """Find out when the guest hangs, and kill it: it could not take over. `_watch_guest` tells."""
        while True:
            await trio.sleep(self._timeout / _PINGS)
            try:
                await self._guest.ping()
            except CheckpointerError as error:
                if self._fencing or self.promoted:
                    return
                self.spoilt = self.spoilt or f"the secondary guest hangs: {error}"
                try:
                    await self._guest.kill()
                except CheckpointerError:
                    logger.exception("a secondary guest that hangs cannot be killed")
                return

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(self._take_channel, await listener.accept())

    async def _take_channel(self, stream: trio.SocketStream) -> None:
        try:
            with trio.fail_after(self._timeout):
                channel = await self._endpoint.accept(stream)
        except (CheckpointerError, trio.TooSlowError) as error:
            why = str(error) or "no TLS within the time-out"
            logger.warning("%s: a connection comes to nothing: %s", self._endpoint, why)
            await trio.aclose_forcefully(stream)
            return
        try:
            await self._serve_channel(channel)
        except ProtocolError as error:
            logger.warning("%s: a channel is refused: %s", self._endpoint, error)
            await self._refuse(channel, str(error))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            logger.debug("%s: a channel ended: %s", self._endpoint, error)
        finally:
            with trio.CancelScope(shield=True):
                await channel.aclose()

    async def _refuse(self, channel: Channel, why: str) -> None:
        """Say why, where that is still possible: nothing was sent on this channel yet."""
        writer = MessageWriter()
        with trio.move_on_after(_LAST_WORDS):
            try:
                await channel.send(writer.encode(Message(REFUSED, 0, why.encode())))
            except trio.BrokenResourceError:
                return

    async def _serve_channel(self, channel: Channel) -> None:
        greeting = _Greeting()
        reader = MessageReader(greeting.admit, self._cache.view, PAGE_SIZE, self._cache.clear)
        hello: Hello | None = None
        with trio.fail_after(self._timeout):
            while hello is None:
                count = await channel.receive_into(reader.buffers())
                if not count:
                    return
                message = reader.advance(count)
                hello = Hello.parse(message) if message is not None else None
        async with self._taking_over:
            session = self._session
            if session is None or session.incoming.session != hello.session or session.over.is_set():
                if session is not None:
                    session.end("another session began")
                    await session.closed.wait()
                session = self._session = self._begin(hello)
        await session.serve(channel, reader, hello, greeting)

    def _begin(self, hello: Hello) -> "_Session":
        incoming = Incoming(
            hello,
            page_size=PAGE_SIZE,
            size=self._guest.region.size,
            timeout=self._timeout,
            now=trio.current_time(),
            applied=self._applied,
            secondary=Secondary(self._tracker.name, self._guest.region.identity, self._guest.address),
        )
        if self.spoilt:
            raise ProtocolError(self.spoilt)
        session = _Session(incoming, self)
        self._nursery.start_soon(session.perform)
        self._nursery.start_soon(session.watch_time)
        return session

    # What a session has done to the guest, one task at a time

    async def perform(self, incoming: Incoming, task: Task) -> Sends:
        """Do it to the end, whatever becomes of the session meanwhile."""
        if isinstance(task, Apply):
            return await self._apply(incoming, task)
        if isinstance(task, ResumeGuest):
            await self.let_run()
            return incoming.lost_guest(self.spoilt) if self.spoilt else incoming.resumed()
        if isinstance(task, PromoteGuest):
            await self.let_run()
            self.promoted = True
            return incoming.promoted()
        assert isinstance(task, FenceGuest)
        self._fencing = True
        try:
            await self._guest.kill()
        except CheckpointerError as error:
            return incoming.fenced(False, str(error))
        return incoming.fenced(True, "")

    async def _apply(self, incoming: Incoming, task: Apply) -> Sends:
        try:
            await self._guest.pause()
        except CheckpointerError as error:
            return incoming.not_applied(str(error), intact=True)
        self._stopped = True
        pages = self.written
        try:
            pages.add(self._tracker.look())
            pages.add(task.received)
            runs = pages.runs()
            zeros, memory = self._zeros.divide(runs)
            await self._guest.load(memory, task.device_state, zeros)
            pages.clear()
            self._tracker.look()  # what the guest itself has copied just now
        except CheckpointerError as error:
            self.spoilt = f"the secondary has no complete state any more: {error}"
            return incoming.not_applied(str(error), intact=False)
        sends = incoming.applied_state(count_pages(runs))
        self._applied = incoming.applied
        return sends

    async def let_run(self) -> None:
        """Let the guest run, if it stands still and has a complete state."""
        if self._stopped and not self.spoilt:
            try:
                await self._guest.resume()
            except CheckpointerError as error:
                self.spoilt = f"the secondary guest does not run on: {error}"
                logger.exception("the secondary guest does not run on")
        self._stopped = False

    def note_pages(self, message: Message) -> None:
        """Take note of pages that are in the cache now."""
        if message.kind == PAGES:
            self._zeros.discard(message.runs)
        elif message.kind == ZEROS:
            self._zeros.add(message.runs)

    def note_end(self, session: "_Session") -> None:
        """Take note that a session is over."""
        logger.info("%s: session over: %s", self._endpoint, session.incoming.failure or "as it was asked for")
        if self.promoted or self.spoilt or self._fencing:
            self._done.set()


class _Greeting:
    """Lets HELLO in, and after it what the session lets in."""

    def __init__(self) -> None:
        self.session: Incoming | None = None
        self.index = 0

    def admit(self, kind: int, number: int) -> None:
        if self.session is not None:
            self.session.admit(self.index, kind, number)
        elif kind != HELLO:
            raise ProtocolError("a channel must begin with HELLO")


class _Session:
    """The channels of one session, and the one task that does something to the guest."""

    def __init__(self, incoming: Incoming, receiver: Receiver) -> None:
        self.incoming = incoming
        self._receiver = receiver
        self._speakers: dict[int, Speaker] = {}
        self._tasks_in: trio.MemorySendChannel[Task]
        self._tasks_in, self._tasks = trio.open_memory_channel[Task](8)
        self.over = trio.Event()  # no channel is served any more
        self.closed = trio.Event()  # the guest runs, and nothing is done to it any more
        self._changed = trio.Event()

    def say(self, sends: Sends) -> None:
        for index, message in sends:
            if index in self._speakers:
                self._speakers[index].say(message)

    async def flush(self) -> None:
        for speaker in self._speakers.values():
            await speaker.flush()

    def end(self, why: str) -> None:
        self.incoming.broke(why)
        self.over.set()

    async def serve(self, channel: Channel, reader: MessageReader, hello: Hello, greeting: _Greeting) -> None:
        """Serve one channel until the session is over."""
        incoming = self.incoming
        speaker = Speaker(channel, MessageWriter(), _ignore)
        greeting.session, greeting.index = incoming, hello.index
        sends = incoming.open_channel(hello, trio.current_time())
        self._speakers[hello.index] = speaker
        self.say(sends)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, speaker)
                nursery.start_soon(self._read, hello.index, channel, reader)
                await self.over.wait()
                with trio.move_on_after(_LAST_WORDS):
                    await speaker.flush()
                nursery.cancel_scope.cancel()
        finally:
            self.end("the secondary's end stops")

    async def _read(self, index: int, channel: Channel, reader: MessageReader) -> None:
        incoming = self.incoming
        try:
            while count := await channel.receive_into(reader.buffers()):
                message = reader.advance(count)
                if message is None:
                    continue
                self._receiver.note_pages(message)
                sends, tasks = incoming.receive(index, message, trio.current_time())
                self.say(sends)
                for task in tasks:
                    self._tasks_in.send_nowait(task)
            self.end("the primary's end closed the connection")
        except ProtocolError as error:
            self.say([(index, Message(REFUSED, 0, str(error).encode()))])
            self.end(str(error))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.end(f"the connection broke ({error})")

    async def _write(self, speaker: Speaker) -> None:
        try:
            await speaker.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.end(f"the connection broke ({error})")

    async def watch_time(self) -> None:
        while not self.over.is_set():
            with trio.move_on_at(self.incoming.deadline):
                await self.over.wait()
            self.incoming.handle_timer(trio.current_time())
            if self.incoming.state == AT_BROKEN:
                self.end(self.incoming.failure)

    async def perform(self) -> None:
        """Do what is asked for, in order, and leave the guest running when the session is over."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._perform_tasks)
                await self.over.wait()
                self._tasks_in.close()
            await self._receiver.let_run()
            self._receiver.note_end(self)
            self.closed.set()

    async def _perform_tasks(self) -> None:
        async for task in self._tasks:
            self.say(await self._receiver.perform(self.incoming, task))
            if self.incoming.state == AT_ENDED or self._receiver.spoilt:
                await self.flush()
                self.over.set()


def _ignore() -> None:
    """Do nothing: the primary's end watches the time, and what is sent here is small."""
