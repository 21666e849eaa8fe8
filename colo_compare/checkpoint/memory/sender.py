"""The primary's end of a session, with its channels: the trio shell of `outgoing`."""

import logging
from collections.abc import Iterable
from typing import Final

import trio

from colo_compare.checkpoint.memory.channel import Channel
from colo_compare.checkpoint.memory.endpoint import Endpoint
from colo_compare.checkpoint.memory.messages import MessageWriter, ProtocolError
from colo_compare.checkpoint.memory.outgoing import Outgoing
from colo_compare.checkpoint.memory.page_map import Run
from colo_compare.checkpoint.memory.reader import MessageReader
from colo_compare.checkpoint.memory.speaker import Delivery, Speaker
from colo_compare.checkpoint.memory.states import AT_BROKEN, AT_ENDED, AT_IDLE, Sends
from colo_compare.errors import CheckpointFailed

logger: Final = logging.getLogger(__name__)

GIVING_UP: Final = 0.25
"""Seconds that a message under way may take to end when what it belongs to is given up."""


class Sender:
    """One session."""

    def __init__(
        self, channels: list[Channel], outgoing: Outgoing, *, checksums: bool, compression: int
    ) -> None:
        self.outgoing: Final = outgoing
        self._channels = channels
        self.speakers: Final = [
            Speaker(channel, MessageWriter(checksums=checksums, compression=compression), self._progressed)
            for channel in channels
        ]
        self._changed = trio.Event()
        self.lost_guest_told = False

    async def run(self) -> None:
        """Speak and listen until the session is over; `outgoing` has the reason. Ends the channels."""
        try:
            async with trio.open_nursery() as nursery:
                for index, channel in enumerate(self._channels):
                    nursery.start_soon(self._read, index, channel)
                    nursery.start_soon(self._write, self.speakers[index])
                nursery.start_soon(self._watch_time)
                self.say(self.outgoing.hello())
                while self.outgoing.state not in (AT_BROKEN, AT_ENDED):
                    await self._changed.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._break("the session was ended")
            with trio.CancelScope(shield=True):
                for channel in self._channels:
                    await channel.aclose()

    def say(self, sends: Sends) -> None:
        """Send messages after all that is to be sent already."""
        for index, message in sends:
            self.speakers[index].say(message)
        self._note_change()

    async def until(self, *states: str) -> None:
        """Wait for one of the states, or for IDLE. Raises CheckpointFailed when the session breaks first."""
        while self.outgoing.state not in (*states, AT_IDLE):
            if self.outgoing.state in (AT_BROKEN, AT_ENDED) and self.outgoing.state not in states:
                raise CheckpointFailed(f"the session with the secondary's end broke: {self.outgoing.failure}")
            await self._changed.wait()

    async def changed(self) -> None:
        """Wait until something has happened to `outgoing`."""
        await self._changed.wait()

    async def transfer(
        self, runs: list[Run], memory: memoryview, *, copy: bool, holes: list[Run]
    ) -> list[Delivery]:
        """Send pages, and holes, on all channels, and wait until they are written.

        Gives what went on each channel.

        Cancelled, it lets the messages under way end first: the pages must not change before that.
        """
        deliveries = [
            speaker.deliver(self.outgoing.batches(index, runs, memory, copy=copy, holes=holes))
            for index, speaker in enumerate(self.speakers)
        ]
        try:
            await _all_over(deliveries)
        except trio.Cancelled:
            for delivery in deliveries:
                delivery.give_up()
            with trio.CancelScope(shield=True), trio.move_on_after(GIVING_UP) as patience:
                await _all_over(deliveries)
            if patience.cancelled_caught:
                self._break("a transfer was given up, and the secondary's end does not take the rest of it")
            raise
        if self.outgoing.state == AT_BROKEN:
            raise CheckpointFailed(f"the session with the secondary's end broke: {self.outgoing.failure}")
        return deliveries

    async def _read(self, index: int, channel: Channel) -> None:
        reader = MessageReader(self.outgoing.admit)
        try:
            while count := await channel.receive_into(reader.buffers()):
                message = reader.advance(count)
                if message is not None:
                    self.outgoing.receive(index, message, trio.current_time())
                    self._note_change()
            self._break("the secondary's end closed the connection")
        except ProtocolError as error:
            self._break(str(error))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._break(f"the connection broke ({error})")

    async def _write(self, speaker: Speaker) -> None:
        try:
            await speaker.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # What the other end said last (REFUSED) tells more, and is read by `_read`, which ends, too.
            logger.debug("a channel takes nothing more: %s", error)
            with trio.move_on_after(GIVING_UP):
                await trio.sleep_forever()
            self._break(f"the connection broke ({error})")

    async def _watch_time(self) -> None:
        while True:
            changed = self._changed
            with trio.move_on_at(self.outgoing.deadline):
                await changed.wait()
            if trio.current_time() >= self.outgoing.deadline:
                self.say(self.outgoing.handle_timer(trio.current_time()))

    def _progressed(self) -> None:
        self.outgoing.progressed(trio.current_time())

    def _break(self, why: str) -> None:
        self.outgoing.broke(why)
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _all_over(deliveries: Iterable[Delivery]) -> None:
    for delivery in deliveries:
        await delivery.over.wait()


async def open_channels(endpoint: Endpoint, count: int) -> list[Channel]:
    """Connect the channels of one session. Raises CheckpointerError."""
    channels: list[Channel] = []
    try:
        for _ in range(count):
            channels.append(await endpoint.connect())
    except BaseException:
        with trio.CancelScope(shield=True):
            for channel in channels:
                await channel.aclose()
        raise
    return channels
