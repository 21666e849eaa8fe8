"""The sending half of one channel: a queue, and the one task that writes.

Messages are numbered and given their checksums when their turn comes, and only this task writes: whoever is
cancelled while waiting for something to be sent never leaves half a message behind.
"""

from collections import deque
from collections.abc import Callable, Iterator

import trio

from colo_compare.checkpoint.memory.channel import Channel
from colo_compare.checkpoint.memory.messages import PAGES, ZEROS, Message, MessageWriter
from colo_compare.checkpoint.memory.page_map import count_pages


class Delivery:
    """Some messages that belong together, on one channel."""

    def __init__(self, messages: Iterator[Message]) -> None:
        self._messages = messages
        self.over = trio.Event()  # all are written, or it was given up
        self.pages = 0
        self.bytes = 0

    def take(self) -> Message | None:
        """Give the next one."""
        return next(self._messages, None)

    def give_up(self) -> None:
        """Write no more than the message that is being written."""
        self._messages = iter(())


class Speaker:
    """Writes what it is given, in order."""

    def __init__(self, channel: Channel, writer: MessageWriter, progressed: Callable[[], None]) -> None:
        """Take what is called when a message was written."""
        self._channel = channel
        self._writer = writer
        self._progressed = progressed
        self._queue: deque[Delivery] = deque()
        self._filled = trio.Event()
        self._emptied = trio.Event()
        self._ended = False
        self.bytes = 0  # written altogether
        self.pages = 0

    def say(self, message: Message) -> None:
        """Write a message when its turn comes."""
        self.deliver(iter((message,)))

    def deliver(self, messages: Iterator[Message]) -> Delivery:
        """Write messages when their turn comes; each is taken from the iterator only then."""
        delivery = Delivery(messages)
        if self._ended:
            delivery.over.set()
        else:
            self._queue.append(delivery)
            self._filled.set()
        return delivery

    async def flush(self) -> None:
        """Wait until everything is written, or nothing can be any more."""
        while self._queue:
            await self._emptied.wait()

    async def run(self) -> None:
        """Write until cancelled. Raises trio.BrokenResourceError when the channel is gone."""
        try:
            while True:
                await self._filled.wait()
                while self._queue:
                    await self._write(self._queue[0])
                    self._queue.popleft().over.set()
                self._filled = trio.Event()
                self._emptied.set()
                self._emptied = trio.Event()
        finally:
            self._ended = True
            for delivery in self._queue:
                delivery.over.set()
            self._queue.clear()
            self._emptied.set()

    async def _write(self, delivery: Delivery) -> None:
        while (message := delivery.take()) is not None:
            buffers = self._writer.encode(message)
            await self._channel.send(buffers)
            size = sum(map(len, buffers))
            self.bytes += size
            delivery.bytes += size
            if message.kind in (PAGES, ZEROS):
                count = count_pages(message.runs)
                self.pages += count
                delivery.pages += count
            self._progressed()
