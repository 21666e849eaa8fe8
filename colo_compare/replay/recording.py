"""One capture file, read as often as needed, so that a capture of any size costs the memory of one frame."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from colo_compare.errors import CaptureError
from colo_compare.ports.pcap import read_capture
from colo_compare.wire.frame import ACK, FRAGMENT, OPAQUE, SYN, TCP, UDP, Frame, parse_frame

_MAX_OPENINGS: Final = (
    65536  # first frames of flows that are kept: they tell the sides apart and align clocks
)


class Opening:
    """The first frame of one direction of one flow in one capture."""

    at: int  # nanoseconds since 1970
    source: bytes
    syn: bool
    answers: bool  # a SYN-ACK
    seq: int
    content: bytes  # of what is not TCP: all that the two captures must agree in

    def __init__(self, at: int, frame: Frame) -> None:
        self.at = at
        self.source = source_mac(frame.data)
        self.syn = frame.flags & SYN != 0
        self.answers = self.syn and frame.flags & ACK != 0
        self.seq = frame.seq
        self.content = b""
        if frame.kind != TCP:
            self.content = frame.data[frame.payload if frame.kind == UDP else frame.l4 : frame.end]


class Recording:
    """One capture file, with what one look through it tells.

    Raises CaptureError from the constructor and from `frames` if the file cannot be read, holds no frames,
    or holds frames that were cut short when they were captured.
    """

    path: Path
    start: int  # time of the first frame, nanoseconds since 1970
    count: int  # frames
    note: str  # what is odd about the file, and does not keep it from being used
    sources: dict[bytes, int]  # MAC address -> IP frames that it sent
    openings: dict[bytes, Opening]  # flow key in the frame's own direction -> its first frame, in file order

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = 0
        self.count = 0
        self.note = ""
        self.sources = {}
        self.openings = {}
        for at, data in self.frames():
            if self.count == 0:
                self.start = at
            self.count += 1
            self._look_at(at, parse_frame(data, 0, inbound=False))
        if self.count == 0:
            raise CaptureError(f"{path}: no frames in it; capture with: tcpdump -i INTERFACE -s 0 -w FILE")

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Give every frame with its time (nanoseconds since 1970), in file order."""
        with read_capture(self.path) as capture:
            for captured in capture:
                if len(captured.data) < captured.length:
                    raise CaptureError(
                        f"{self.path}: packet {capture.packets} holds {len(captured.data)} of its "
                        f"{captured.length} bytes; capture it whole: tcpdump -s 0"
                    )
                yield captured.at, captured.data
            self.note = capture.note

    def _look_at(self, at: int, frame: Frame) -> None:
        if frame.kind == OPAQUE:
            return
        source = source_mac(frame.data)
        self.sources[source] = self.sources.get(source, 0) + 1
        if frame.kind != FRAGMENT and frame.key not in self.openings and len(self.openings) < _MAX_OPENINGS:
            self.openings[frame.key] = Opening(at, frame)


def source_mac(data: bytes) -> bytes:
    """Give the address that an Ethernet frame comes from."""
    return data[6:12]


def destination_mac(data: bytes) -> bytes:
    """Give the address that an Ethernet frame goes to."""
    return data[:6]


def is_group(mac: bytes) -> bool:
    """Say whether an address is a multicast or the broadcast address (IEEE 802.3, 3.2.3)."""
    return len(mac) > 0 and mac[0] & 1 != 0


def mac_text(mac: bytes) -> str:
    """Give an address as people write it."""
    return mac.hex(":")
