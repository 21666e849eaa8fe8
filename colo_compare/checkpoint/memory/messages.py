r"""What the two ends of a channel say to each other, as bytes.

Every message begins with 36 bytes, big-endian::

     0  4  "COLM"
     4  1  version (1)
     5  1  kind
     6  1  flags: 1 the checksum covers the pages, 2 the pages are compressed (zlib)
     7  1  zero
     8  4  sequence: counts this channel's messages in this direction from 0
    12  4  runs: entries in the table that comes first in the body
    16  8  number of the checkpoint
    24  4  length of the body
    28  4  checksum of the body: CRC-32; of PAGES that of the table alone, with flag 1 see `pages_checksum`
    32  4  CRC-32 of the 32 bytes before

The first five bytes are the same in every version to come, so that each end can say which one it speaks. A
table entry is the first page and the number of pages, 4 bytes each; the pages follow in that order.

=============  ====  =======================================================================================
from outgoing  chan
=============  ====  =======================================================================================
HELLO          all   session (16 bytes), index, channels, page size (4 each), bytes of memory (8)
PAGES, ZEROS   any   pages; pages that are all zero (a table only)
REQUEST        0     a checkpoint begins
DEVICE         0     a part of the device state
SYNC           all   all pages of the checkpoint, and on channel 0 all device state (its length, 8), were sent
APPLY          0     the decision: take the new state
RESUME         0     the secondary may run
ABORT          0     the checkpoint ends without a decision to apply; what came stays in the cache
PROMOTE        0     the secondary goes on alone
FENCE          0     kill the secondary
PING           0
=============  ====  =======================================================================================

=============  ====  =======================================================================================
from incoming  chan
=============  ====  =======================================================================================
WELCOME        all   session (16) and number (8) of the last state that was applied; the guest (`Secondary`)
REFUSED        any   why the channel is closed (text)
REPLY          0     to REQUEST
RECEIVED       0     the new state is here, complete and checked
APPLIED        0     the secondary has the new state and does not run yet: pages overwritten (8)
FAILED         0     it could not be applied: 1 if the old state is intact (1), why (text)
RESUMED        0     to RESUME
PROMOTED       0     to PROMOTE
FENCED         0     to FENCE: 1 if the guest is dead (1), why it is not (text)
GUEST_LOST     0     the secondary guest is gone (text)
PONG           0
=============  ====  =======================================================================================
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from xxhash import xxh3_64

from colo_compare.checkpoint.memory.page_map import Run
from colo_compare.errors import CheckpointerError

VERSION: Final = 1
MAGIC: Final = b"COLM"
HEADER: Final = struct.Struct(">4sBBBxIIQII")
HEADER_LENGTH: Final = HEADER.size + 4
_CRC: Final = struct.Struct(">I")

CHECKED: Final = 1
COMPRESSED: Final = 2

HELLO: Final = 1
REQUEST: Final = 2
PAGES: Final = 3
ZEROS: Final = 4
DEVICE: Final = 5
SYNC: Final = 6
APPLY: Final = 7
RESUME: Final = 8
ABORT: Final = 9
PROMOTE: Final = 10
FENCE: Final = 11
PING: Final = 12

WELCOME: Final = 64
REFUSED: Final = 65
REPLY: Final = 66
RECEIVED: Final = 67
APPLIED: Final = 68
FAILED: Final = 69
RESUMED: Final = 70
PROMOTED: Final = 71
FENCED: Final = 72
GUEST_LOST: Final = 73
PONG: Final = 74

KIND_NAMES: Final = {
    HELLO: "HELLO",
    REQUEST: "REQUEST",
    PAGES: "PAGES",
    ZEROS: "ZEROS",
    DEVICE: "DEVICE",
    SYNC: "SYNC",
    APPLY: "APPLY",
    RESUME: "RESUME",
    ABORT: "ABORT",
    PROMOTE: "PROMOTE",
    FENCE: "FENCE",
    PING: "PING",
    WELCOME: "WELCOME",
    REFUSED: "REFUSED",
    REPLY: "REPLY",
    RECEIVED: "RECEIVED",
    APPLIED: "APPLIED",
    FAILED: "FAILED",
    RESUMED: "RESUMED",
    PROMOTED: "PROMOTED",
    FENCED: "FENCED",
    GUEST_LOST: "GUEST_LOST",
    PONG: "PONG",
}

BATCH_PAGES: Final = 256
"""The most pages in one message: a mebibyte, and no more buffers than one vectored write takes (1,024)."""
LONGEST_BODY: Final = (4 << 20) + 4096  # 256 pages of 16 KiB and their table
LONGEST_DEVICE_STATE: Final = 1 << 30
DEVICE_PART: Final = 1 << 20

TABLE_ENTRY: Final = struct.Struct(">II")
_HELLO: Final = struct.Struct(">16sIIIQ")
_WELCOME: Final = struct.Struct(">16sQ")
_COUNT: Final = struct.Struct(">Q")

Buffer = bytes | bytearray | memoryview


class ProtocolError(CheckpointerError):
    """The other end said what makes no sense: this session is over."""


def pages_checksum(table: Buffer, pages: Iterable[Buffer]) -> int:
    """Give the checksum of pages: the lower half of their XXH3-64, whose seed is the CRC-32 of their table.

    Not CRC-32: zlib's takes longer than the copies into a socket and out of it, this one a seventh of that.
    """
    digest = xxh3_64(seed=zlib.crc32(table))
    for buffer in pages:
        digest.update(buffer)
    return digest.intdigest() & 0xFFFFFFFF


class Message:
    """One message. `runs` and `data` are of PAGES and ZEROS only; `data` is empty when it was received."""

    __slots__ = ("body", "data", "kind", "number", "runs")

    def __init__(
        self,
        kind: int,
        number: int = 0,
        body: Buffer = b"",
        runs: Sequence[Run] = (),
        data: Sequence[Buffer] = (),
    ) -> None:
        self.kind = kind
        self.number = number
        self.body = body
        self.runs = runs
        self.data = data

    @property
    def text(self) -> str:
        """The body as text for people."""
        return bytes(self.body).decode(errors="replace")

    def __repr__(self) -> str:
        return f"{KIND_NAMES[self.kind]}({self.number})"


class MessageWriter:
    """Makes bytes of one channel's messages, in the order in which they are sent."""

    def __init__(self, *, checksums: bool = True, compression: int = 0) -> None:
        """Take whether pages have a checksum, and zlib's level (0: none)."""
        self._checksums = checksums
        self._compression = compression
        self._sequence = 0

    def encode(self, message: Message) -> list[Buffer]:
        """Give the buffers to send, one after the other. Pages are not copied unless they are compressed."""
        if message.kind in (PAGES, ZEROS):
            return self._encode_pages(message)
        header = self._header(message, 0, 0, len(message.body), zlib.crc32(message.body))
        return [header, message.body] if message.body else [header]

    def _encode_pages(self, message: Message) -> list[Buffer]:
        table = b"".join([TABLE_ENTRY.pack(first, count) for first, count in message.runs])
        data: list[Buffer] = list(message.data)
        flags = CHECKED if self._checksums and data else 0
        if self._compression and data:
            data = [zlib.compress(b"".join(data), self._compression)]
            flags |= COMPRESSED
        checksum = pages_checksum(table, data) if flags & CHECKED else zlib.crc32(table)
        length = len(table) + sum(map(len, data))
        return [self._header(message, flags, len(message.runs), length, checksum), table, *data]

    def _header(self, message: Message, flags: int, runs: int, length: int, checksum: int) -> bytes:
        start = HEADER.pack(
            MAGIC, VERSION, message.kind, flags, self._sequence, runs, message.number, length, checksum
        )
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return start + _CRC.pack(zlib.crc32(start))


class Header:
    """The first 36 bytes of a message, checked."""

    __slots__ = ("checksum", "flags", "kind", "length", "number", "runs", "sequence")

    def __init__(self, data: Buffer) -> None:
        """Read it. Raises ProtocolError."""
        magic, version, kind, flags, sequence, runs, number, length, checksum = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise ProtocolError(
                f"this is no channel of the memory checkpointer: it begins with {bytes(magic)!r}; "
                "look at the address of both ends"
            )
        if version != VERSION:
            raise ProtocolError(
                f"the other end speaks version {version} of the protocol, this one {VERSION}: "
                "install the same release on both"
            )
        if _CRC.unpack_from(data, HEADER.size)[0] != zlib.crc32(memoryview(data)[: HEADER.size]):
            raise ProtocolError("a message's header has a wrong checksum: the connection corrupts data")
        if kind not in KIND_NAMES or length > LONGEST_BODY or runs > BATCH_PAGES:
            raise ProtocolError(
                f"a message of kind {kind}, {length} bytes and {runs} runs came: no release sends such a one"
            )
        if (
            (runs > 0) != (kind in (PAGES, ZEROS))
            or runs * TABLE_ENTRY.size > length
            or (flags and kind != PAGES)
            or flags & ~(CHECKED | COMPRESSED)
        ):
            raise ProtocolError(
                f"a message {KIND_NAMES[kind]} with {runs} runs in {length} bytes, flags {flags}, came"
            )
        self.kind: int = kind
        self.flags: int = flags
        self.sequence: int = sequence
        self.runs: int = runs
        self.number: int = number
        self.length: int = length
        self.checksum: int = checksum


class Hello:
    """What HELLO says."""

    __slots__ = ("channels", "index", "page_size", "session", "size")

    def __init__(self, session: bytes, index: int, channels: int, page_size: int, size: int) -> None:
        self.session = session  # 16 bytes, the same on all channels of one session and never used before
        self.index = index
        self.channels = channels
        self.page_size = page_size
        self.size = size

    def message(self) -> Message:
        """Give it as a message."""
        body = _HELLO.pack(self.session, self.index, self.channels, self.page_size, self.size)
        return Message(HELLO, 0, body)

    @classmethod
    def parse(cls, message: Message) -> "Hello":
        """Read it. Raises ProtocolError."""
        if message.kind != HELLO or len(message.body) != _HELLO.size:
            raise ProtocolError(f"a channel begins with {message}, not with HELLO")
        return cls(*_HELLO.unpack(message.body))


class Secondary(NamedTuple):
    """What a secondary's end says of its guest."""

    tracker: str = ""  # how its written pages are found
    memory: str = ""  # Region.identity
    address: str = ""  # its control socket there


def welcome(session: bytes, number: int, secondary: Secondary) -> Message:
    """Give WELCOME: the last state that was applied (sixteen zeros and 0 where none was), and the guest."""
    return Message(WELCOME, 0, _WELCOME.pack(session, number) + "\n".join(secondary).encode())


def parse_welcome(message: Message) -> tuple[bytes, int, Secondary]:
    """Read WELCOME: session and number of the last state applied, the guest. Raises ProtocolError."""
    words = bytes(message.body[_WELCOME.size :]).decode(errors="replace").split("\n", 2)
    if len(message.body) < _WELCOME.size or len(words) != len(Secondary._fields):
        raise ProtocolError(f"{message} has only {len(message.body)} bytes")
    session, number = _WELCOME.unpack_from(message.body)
    return session, number, Secondary(*words)


def counted(kind: int, number: int, count: int) -> Message:
    """Give a SYNC or an APPLIED."""
    return Message(kind, number, _COUNT.pack(count))


def parse_count(message: Message) -> int:
    """Read what `counted` made. Raises ProtocolError."""
    return int(_unpack(_COUNT, message)[0])


def verdict(kind: int, number: int, good: bool, why: str) -> Message:
    """Give a FAILED or a FENCED."""
    return Message(kind, number, bytes([good]) + why.encode())


def parse_verdict(message: Message) -> tuple[bool, str]:
    """Read what `verdict` made. Raises ProtocolError."""
    body = bytes(message.body)
    if body[:1] not in (b"\x00", b"\x01"):
        raise ProtocolError(f"{message} says neither yes nor no")
    return body[:1] == b"\x01", body[1:].decode(errors="replace")


def _unpack(layout: struct.Struct, message: Message) -> tuple[bytes | int, ...]:
    if len(message.body) != layout.size:
        raise ProtocolError(f"{message} has {len(message.body)} bytes, not {layout.size}")
    return layout.unpack(message.body)
