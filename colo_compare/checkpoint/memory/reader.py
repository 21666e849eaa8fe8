"""Takes what was read from one channel; pages go straight to their place in the cache.

Not "bytes in, messages out": that would copy every page twice more. Instead the reader says where the next
bytes belong (`buffers`); whoever does the I/O puts them there (one vectored read), and says how many there
were.
"""

import zlib
from collections.abc import Callable
from itertools import accumulate
from typing import Final

from colo_compare.checkpoint.memory.messages import (
    CHECKED,
    COMPRESSED,
    HEADER_LENGTH,
    KIND_NAMES,
    PAGES,
    TABLE_ENTRY,
    ZEROS,
    Header,
    Message,
    ProtocolError,
    pages_checksum,
)
from colo_compare.checkpoint.memory.page_map import Run, count_pages

_AT_HEADER: Final = 0
_AT_TABLE: Final = 1
_AT_BODY: Final = 2


class MessageReader:
    """The receiving half of one channel."""

    def __init__(
        self,
        admit: Callable[[int, int], None],
        memory: memoryview | None = None,
        page_size: int = 4096,
        clear: Callable[[int, int], None] | None = None,
    ) -> None:
        """Take where pages go (None: there are none), and who is asked before a message's body is read.

        `clear(first, count)` makes pages zero there; without it they are written over.

        `admit(kind, number)` raises ProtocolError for a message that must not come now: before pages that
        must not come have overwritten anything.
        """
        self._admit = admit
        self._memory = memory
        self._page_size = page_size
        self._clear = clear
        self._sequence = 0
        self._header: Header
        self._runs: list[Run] = []
        self._table = memoryview(b"")
        self._body = bytearray()
        self._scattered: list[memoryview] = []
        self._expect(_AT_HEADER, [memoryview(bytearray(HEADER_LENGTH))])

    def buffers(self) -> list[memoryview]:
        """Say where the next bytes go; never empty."""
        return self._open

    def advance(self, count: int) -> Message | None:
        """Note that `count` bytes were put there; gives the message that is complete with them.

        Raises ProtocolError; from then on the channel has no meaning, and pages of the last message may have
        reached the cache.
        """
        self._missing -= count
        if self._missing:
            self._skip(count)
            return None
        if self._state == _AT_HEADER:
            return self._take_header()
        if self._state == _AT_TABLE:
            return self._take_table()
        return self._take_body()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes in any portions and give the messages that are complete. Raises ProtocolError.

        For whoever has the bytes already (TLS, tests, a simulated network).
        """
        messages = []
        rest = memoryview(data)
        while rest:
            taken = 0
            for buffer in self._open:
                part = rest[taken : taken + len(buffer)]
                buffer[: len(part)] = part
                taken += len(part)
            rest = rest[taken:]
            message = self.advance(taken)
            if message is not None:
                messages.append(message)
        return messages

    @property
    def between_messages(self) -> bool:
        """Whether nothing of a message has come that is not complete."""
        return self._state == _AT_HEADER and self._missing == HEADER_LENGTH

    def _expect(self, state: int, buffers: list[memoryview]) -> None:
        self._state = state
        self._open = self._whole = buffers
        self._missing = sum(map(len, buffers))

    def _skip(self, count: int) -> None:
        """Leave out what is full already."""
        index = 0
        while count >= len(self._open[index]):
            count -= len(self._open[index])
            index += 1
        self._open = [self._open[index][count:], *self._open[index + 1 :]]

    def _take_header(self) -> Message | None:
        header = self._header = Header(self._whole[0])
        if header.sequence != self._sequence:
            raise ProtocolError(
                f"message {self._sequence} of a channel is missing: {KIND_NAMES[header.kind]} "
                f"came with {header.sequence}"
            )
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self._admit(header.kind, header.number)
        self._runs = []
        self._table = memoryview(b"")
        if header.runs:
            self._expect(_AT_TABLE, [memoryview(bytearray(header.runs * TABLE_ENTRY.size))])
            return None
        self._body = bytearray(header.length)
        if not header.length:
            return self._take_body()
        self._expect(_AT_BODY, [memoryview(self._body)])
        return None

    def _take_table(self) -> Message | None:
        header, table = self._header, self._whole[0]
        memory, size = self._memory, self._page_size
        self._runs = list(TABLE_ENTRY.iter_unpack(table))
        self._table = table
        ends = [first + count for first, count in self._runs]
        if memory is None or min(count for _, count in self._runs) < 1 or max(ends) * size > len(memory):
            raise ProtocolError("pages came that this memory does not have: data is corrupted")
        data = header.length - len(table)
        expected = count_pages(self._runs) * size if header.kind == PAGES else 0
        if not header.flags & COMPRESSED and data != expected:
            raise ProtocolError(f"{data} bytes of pages came, not {expected}: data is corrupted")
        self._scattered = [memory[first * size : (first + count) * size] for first, count in self._runs]
        if not data:
            return self._take_body()
        if header.flags & COMPRESSED:
            self._body = bytearray(data)
            self._expect(_AT_BODY, [memoryview(self._body)])
            return None
        self._expect(_AT_BODY, self._scattered)
        return None

    def _take_body(self) -> Message:
        header = self._header
        in_place = header.kind == PAGES and not header.flags & COMPRESSED
        if header.flags & CHECKED:
            checksum = pages_checksum(self._table, self._scattered if in_place else [self._body])
        else:
            checksum = zlib.crc32(self._table if header.runs else self._body)
        if checksum != header.checksum:
            raise ProtocolError(
                f"a message {KIND_NAMES[header.kind]} has a wrong checksum: data is corrupted"
            )
        if header.kind == PAGES and not in_place:
            self._decompress()
        elif header.kind == ZEROS:
            self._clear_pages()
        body = b"" if header.runs else bytes(self._body)
        self._body = bytearray()
        self._scattered = []
        self._expect(_AT_HEADER, [memoryview(bytearray(HEADER_LENGTH))])
        return Message(header.kind, header.number, body, self._runs)

    def _clear_pages(self) -> None:
        if self._clear is not None:
            for first, count in self._runs:
                self._clear(first, count)
        else:
            for part in self._scattered:
                part[:] = bytes(len(part))

    def _decompress(self) -> None:
        lengths = [len(part) for part in self._scattered]
        inflate = zlib.decompressobj()
        try:
            data = memoryview(inflate.decompress(self._body, sum(lengths) + 1))
        except zlib.error as error:
            raise ProtocolError(f"pages cannot be decompressed: {error}") from None
        if len(data) != sum(lengths) or not inflate.eof:
            raise ProtocolError("compressed pages have another length than they should")
        for part, end in zip(self._scattered, accumulate(lengths), strict=True):
            part[:] = data[end - len(part) : end]
