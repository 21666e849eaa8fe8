"""Capture files: pcap and pcapng, read and written.

Of pcapng (IETF draft-ietf-opsawg-pcapng) what captures of Ethernet consist of: section headers of both byte
orders, interface descriptions with name and time resolution, enhanced and simple packet blocks, comments;
other blocks are skipped. Of pcap both byte orders, micro- and nanoseconds. Nothing but Ethernet is taken.

dpkt reads such files too, and the tests hold this module against it; but it gives neither the interface nor
the comment of a packet, rounds times to microseconds, and does not say where a file is broken.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from colo_compare.errors import CaptureError

LINKTYPE_ETHERNET: Final = 1
LONGEST_FRAME: Final = 0x40000  # bytes; tcpdump's limit, too

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_SIMPLE_PACKET: Final = 3
_ENHANCED_PACKET: Final = 6
_SECTION_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDERS: Final = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_LONGEST_BLOCK: Final = 1 << 24

INBOUND: Final = 1  # epb_flags, bits 0 and 1: received, sent
OUTBOUND: Final = 2

_END: Final = 0  # options
_COMMENT: Final = 1
_IF_NAME: Final = 2
_PACKET_FLAGS: Final = 2
_IF_TSRESOL: Final = 9
_IF_TSOFFSET: Final = 14

_PCAP_MAGICS: Final = {  # the magic as it stands in the file: byte order, nanoseconds in a unit of time
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}


@dataclass(frozen=True)
class CapturedFrame:
    """One frame of a capture."""

    interface: str  # its name, or its number where it has none; "" in pcap files
    at: int  # nanoseconds since 1970
    data: bytes  # the Ethernet frame, as much of it as was captured
    length: int  # bytes that it had on the wire
    comment: str


@dataclass(frozen=True)
class _Interface:
    """One interface description of a pcapng section."""

    name: str
    link_type: int
    snap_length: int
    units: int  # of time in a second
    offset: int  # seconds to add


class Capture:
    """A capture file that is being read: an iterator of CapturedFrame, and a context manager.

    A file that ends in mid-packet, as one does whose writer was killed, ends before that packet; `note` says
    so then. Everything else that is wrong raises CaptureError with the number of the packet.
    """

    def __init__(self, path: Path | str) -> None:
        """Open it. Raises CaptureError."""
        self.path: Final = Path(path)
        self.note = ""
        self.packets = 0  # given so far
        try:
            self._file: BinaryIO = self.path.open("rb")
        except OSError as error:
            raise CaptureError(f"{self.path}: cannot be read: {error.strerror}") from None
        self._frames = self._read()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> CapturedFrame:
        frame = next(self._frames)
        self.packets += 1
        return frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; at its end that happens by itself."""
        self._file.close()

    def _read(self) -> Iterator[CapturedFrame]:
        with self._file:
            magic = self._file.read(4)
            if magic == _SECTION_MAGIC:
                yield from self._read_pcapng()
            elif magic in _PCAP_MAGICS:
                yield from self._read_pcap(*_PCAP_MAGICS[magic])
            else:
                raise CaptureError(f"{self.path}: is neither a pcap nor a pcapng file")

    def _broken(self, what: str) -> CaptureError:
        return CaptureError(f"{self.path}: packet {self.packets + 1}: {what}")

    def _take(self, size: int) -> bytes | None:
        """Read so many bytes; None, with a note, if the file ends before."""
        data = self._file.read(size)
        if len(data) == size:
            return data
        self.note = f"{self.path}: ends in the middle of packet {self.packets + 1}, which is left out"
        return None

    # pcap

    def _read_pcap(self, order: str, unit: int) -> Iterator[CapturedFrame]:
        header = self._file.read(20)
        if len(header) < 20:
            raise CaptureError(f"{self.path}: ends within the file header")
        link_type: int = struct.unpack(order + "16xI", header)[0] & 0xFFFF  # above are bits about the FCS
        if link_type != LINKTYPE_ETHERNET:
            raise CaptureError(f"{self.path}: link type {link_type} is not Ethernet (1)")
        layout = struct.Struct(order + "IIII")
        while first := self._file.read(1):
            rest = self._take(layout.size - 1)
            if rest is None:
                return
            seconds, fraction, captured, length = layout.unpack(first + rest)
            if captured > LONGEST_FRAME:
                raise self._broken(f"claims {captured} bytes, more than {LONGEST_FRAME}: the file is broken")
            data = self._take(captured)
            if data is None:
                return
            yield CapturedFrame("", seconds * 10**9 + fraction * unit, data, length, "")

    # pcapng

    def _read_pcapng(self) -> Iterator[CapturedFrame]:
        interfaces: list[_Interface] = []
        order = "<"
        kind_bytes = _SECTION_MAGIC
        while kind_bytes:
            if len(kind_bytes) < 4:
                self._take(4)  # notes that the file ends here
                return
            if kind_bytes == _SECTION_MAGIC:
                start = self._take(8)
                if start is None:
                    return
                if start[4:] not in _BYTE_ORDERS:
                    raise self._broken("a section header has no byte order: the file is broken")
                order = _BYTE_ORDERS[start[4:]]
                interfaces = []
                body = self._take_block(order, start[:4], 4)
            else:
                size = self._take(4)
                body = None if size is None else self._take_block(order, size, 0)
            if body is None:
                return
            kind: int = struct.unpack(order + "I", kind_bytes)[0]
            try:
                frame = self._understand(kind, order, body, interfaces)
            except struct.error:
                raise self._broken("a block is too short for what it must hold: the file is broken") from None
            if frame is not None:
                yield frame
            kind_bytes = self._file.read(4)

    def _take_block(self, order: str, size_bytes: bytes, taken: int) -> bytes | None:
        """Read the rest of a block, of whose body `taken` bytes are read already."""
        size: int = struct.unpack(order + "I", size_bytes)[0]
        if size % 4 or not 12 + taken <= size <= _LONGEST_BLOCK:
            raise self._broken(f"a block claims {size} bytes: the file is broken")
        data = self._take(size - 8 - taken)
        if data is None:
            return None
        if data[-4:] != size_bytes:
            raise self._broken("a block does not end with its own length: the file is broken")
        return data[:-4]

    def _understand(
        self, kind: int, order: str, body: bytes, interfaces: list[_Interface]
    ) -> CapturedFrame | None:
        """Take in one block; gives the frame if it holds one."""
        if kind == _SECTION:
            major: int = struct.unpack_from(order + "H", body)[0]
            if major != 1:
                raise self._broken(f"pcapng version {major} is not known")
        elif kind == _INTERFACE:
            interfaces.append(_interface(order, body, len(interfaces)))
        elif kind == _ENHANCED_PACKET:
            number, high, low, captured, length = struct.unpack_from(order + "IIIII", body)
            interface = self._interface(interfaces, number)
            at = ((high << 32) | low) * 10**9 // interface.units + interface.offset * 10**9
            end = 20 + captured
            if end > len(body):
                raise self._broken(f"claims {captured} bytes, more than its block: the file is broken")
            comments = _options(order, body, end + -captured % 4).get(_COMMENT, b"")
            comment = comments.decode("utf-8", "replace")
            return CapturedFrame(interface.name, at, body[20:end], length, comment)
        elif kind == _SIMPLE_PACKET:
            length = struct.unpack_from(order + "I", body)[0]
            interface = self._interface(interfaces, 0)
            captured = min(length, len(body) - 4, interface.snap_length or length)
            return CapturedFrame(interface.name, 0, body[4 : 4 + captured], length, "")
        return None

    def _interface(self, interfaces: list[_Interface], number: int) -> _Interface:
        if number >= len(interfaces):
            raise self._broken(f"is of interface {number}, which is not described: the file is broken")
        interface = interfaces[number]
        if interface.link_type != LINKTYPE_ETHERNET:
            raise self._broken(
                f"is of interface {interface.name}, whose link type {interface.link_type} is not Ethernet (1)"
            )
        return interface


def read_capture(path: Path | str) -> Capture:
    """Read a pcap or pcapng file. Raises CaptureError, now or while the frames are read."""
    return Capture(path)


def _interface(order: str, body: bytes, number: int) -> _Interface:
    link_type, snap_length = struct.unpack_from(order + "HxxI", body)
    options = _options(order, body, 8)
    resolution: int = struct.unpack_from("B", options.get(_IF_TSRESOL, b"\x06"))[0]
    base = 2 if resolution & 0x80 else 10
    offset: int = struct.unpack(order + "q", options.get(_IF_TSOFFSET, bytes(8)))[0]
    name = options[_IF_NAME].decode("utf-8", "replace") if _IF_NAME in options else str(number)
    return _Interface(name, link_type, snap_length, base ** (resolution & 0x7F), offset)


def _options(order: str, body: bytes, at: int) -> dict[int, bytes]:
    """Read the options of a block, of each kind the first one."""
    options: dict[int, bytes] = {}
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        if code == _END:
            break
        options.setdefault(code, body[at + 4 : at + 4 + length])
        at += 4 + length + -length % 4
    return options


class CaptureEncoder:
    """Turns frames into the bytes of a capture file. No I/O.

    A name that ends in ``.pcap`` gives the old format, which knows neither interfaces nor comments; any other
    one pcapng. Both with times in nanoseconds.
    """

    def __init__(self, path: Path, interfaces: list[str]) -> None:
        self._pcapng = path.suffix != ".pcap"
        self._numbers = {name: number for number, name in enumerate(interfaces)}

    def header(self, comment: str = "") -> bytes:
        """Give what a file begins with, in pcapng with a comment on all of it."""
        if not self._pcapng:
            return struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, LONGEST_FRAME, LINKTYPE_ETHERNET)
        section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)  # of a length that is not known yet
        if comment:
            section += _option(_COMMENT, comment.encode()[:0xFFFF]) + _option(_END, b"")
        blocks = [_block(_SECTION, section)]
        for name in self._numbers:
            body = struct.pack("<HxxI", LINKTYPE_ETHERNET, LONGEST_FRAME)
            body += _option(_IF_NAME, name.encode())
            body += _option(_IF_TSRESOL, b"\x09")  # units of 10^-9 seconds
            body += _option(_END, b"")
            blocks.append(_block(_INTERFACE, body))
        return b"".join(blocks)

    def frame(self, interface: str, at: int, data: bytes, comment: str = "", direction: int = 0) -> bytes:
        """Give one frame, `at` nanoseconds since 1970. `direction`: INBOUND, OUTBOUND, or 0 if not known.

        Raises KeyError for an interface not named before.
        """
        number = self._numbers[interface]
        size = len(data)
        if not self._pcapng:
            return struct.pack("<IIII", at // 10**9, at % 10**9, size, size) + data
        options = _option(_COMMENT, comment.encode()[:0xFFFF]) if comment else b""
        if direction:
            options += _option(_PACKET_FLAGS, struct.pack("<I", direction))
        if options:
            options += _option(_END, b"")
        packet = struct.pack("<IIIII", number, at >> 32, at & 0xFFFFFFFF, size, size)
        return _block(_ENHANCED_PACKET, packet + data + bytes(-size % 4) + options)


class CaptureWriter:
    """Writes a capture file; a context manager. See CaptureEncoder for the formats."""

    def __init__(self, path: Path | str, interfaces: list[str]) -> None:
        """Create the file, or empty it. Raises CaptureError."""
        self.path: Final = Path(path)
        self._encoder = CaptureEncoder(self.path, interfaces)
        try:
            self._file: BinaryIO = self.path.open("wb")
            self._file.write(self._encoder.header())
        except OSError as error:
            raise CaptureError(f"{self.path}: cannot be written: {error.strerror}") from None

    def write(self, interface: str, at: int, data: bytes, comment: str = "") -> None:
        """Write one frame, `at` nanoseconds since 1970. Raises CaptureError."""
        try:
            self._file.write(self._encoder.frame(interface, at, data, comment))
        except OSError as error:
            raise CaptureError(f"{self.path}: cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Write out what is buffered, and close the file. Raises CaptureError."""
        try:
            self._file.close()
        except OSError as error:
            raise CaptureError(f"{self.path}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
