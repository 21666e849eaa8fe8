"""QEMU's framing of frames on a byte stream (its net/stream.c, net/filter-mirror.c, net/colo-compare.c).

Without virtio-net headers: 4 bytes of big-endian length, then the frame. With them (vnet_hdr_support=on): 4
bytes of length of header and frame, 4 bytes of length of the header alone, the header, the frame. The header
has no bytes, 10 or 12, and its length changes in mid-stream when the guest's driver negotiates.
"""

from typing import Final

from librt.strings import BytesWriter, read_i32_be, write_i32_be

from colo_compare.errors import FramingError
from colo_compare.wire.frame import VNET_HEADER_LEN, Frame
from colo_compare.wire.offload import materialise
from colo_compare.wire.vnet import EMPTY_VNET_HEADER

MAX_LENGTH: Final = 4096 + 65536
"""The longest frame, header included: NET_BUFSIZE in QEMU's net/net.h; QEMU drops the link beyond it, too."""

_SHORT_HEADER_LEN: Final = 10  # struct virtio_net_hdr: the same without num_buffers
_JOINED: Final = 4096  # bytes up to which a frame is copied into a chunk with others


class StreamDecoder:
    """Takes what was read from one stream, gives the frames in it."""

    peer_header_len: int
    """Bytes of virtio-net header that the peer last sent: 0, 10 or 12; 12 before it sent any."""

    def __init__(self, vnet: bool) -> None:
        self.peer_header_len = VNET_HEADER_LEN
        self._vnet = vnet
        self._prefix = 8 if vnet else 4
        self._parts: list[bytes] = []  # of a frame that goes on in the next read
        self._have = 0  # bytes in them
        self._want = 0  # bytes with which the next thing is known: its lengths, or the frame itself

    def feed(self, data: bytes) -> list[bytes]:
        """Give the frames that `data` completes; with `vnet`, 12 bytes of header in front of each.

        Raises FramingError where a length is zero, longer than MAX_LENGTH, or no virtio-net header's. The
        stream has no meaning from there on: close it.
        """
        frames: list[bytes] = []
        at = 0
        while self._parts and at < len(data):
            part = data[at : at + self._want - self._have]
            at += len(part)
            self._parts.append(part)
            self._have += len(part)
            if self._have == self._want:
                start = b"".join(self._parts)
                self._parts = []
                self._decode(start, 0, frames)
        if at < len(data):
            self._decode(data, at, frames)
        return frames

    def _decode(self, data: bytes, at: int, frames: list[bytes]) -> None:
        """Cut data[at:] into frames, and keep the rest."""
        size = len(data)
        prefix = self._prefix
        want = prefix
        while size - at >= prefix:
            length: int = read_i32_be(data, at)  # signed: a huge one is negative, and as absurd
            if not 0 < length <= MAX_LENGTH:
                raise FramingError(
                    f"stream carries a frame length of {length & 0xFFFFFFFF}, not 1 to {MAX_LENGTH}: "
                    "the other end speaks another protocol or another vnet_hdr setting; the link is reset"
                )
            start = at + prefix
            end = start + length
            if self._vnet:
                header_len: int = read_i32_be(data, at + 4)
                if header_len not in (0, _SHORT_HEADER_LEN, VNET_HEADER_LEN) or header_len > length:
                    raise FramingError(
                        f"stream carries a virtio-net header length of {header_len & 0xFFFFFFFF} in a frame "
                        f"of {length}, not 0, 10 or 12: set vnet_hdr the same on both ends; the link is reset"
                    )
                self.peer_header_len = header_len
            if end > size:
                want = prefix + length
                break
            if not self._vnet or self.peer_header_len == VNET_HEADER_LEN:
                frames.append(data[start:end])
            else:
                body = start + self.peer_header_len
                missing = bytes(VNET_HEADER_LEN - self.peer_header_len)
                frames.append(b"".join((data[start:body], missing, memoryview(data)[body:end])))
            at = end
        if at < size:
            self._parts.append(data[at:])
            self._have = size - at
            self._want = want


def run_end(frames: list[Frame], start: int, limit: int) -> int:
    """Give where a run ends that begins at frames[start]: one frame, or more of up to `limit` bytes in all.

    It ends before a frame that no stream can carry, as that is empty or too long; `start` is one itself.
    """
    size = 0
    index = start
    while index < len(frames):
        frame = frames[index]
        length = len(frame.data)
        if length == frame.header_len or length - frame.header_len > MAX_LENGTH - VNET_HEADER_LEN:
            break
        size += length
        if size > limit and index > start:
            break
        index += 1
    return index


def bytes_in(frames: list[Frame], start: int, end: int) -> int:
    """Give how many bytes of the network frames[start:end] are: virtio-net headers are none."""
    size = 0
    for index in range(start, end):
        frame = frames[index]
        size += len(frame.data) - frame.header_len
    return size


def encode(frames: list[Frame], vnet: bool, header_len: int, start: int, end: int) -> list[bytes]:
    """Give frames[start:end] as chunks of a stream, ready for one vectored write.

    With `vnet`, each gets a header of `header_len` (0, 10 or 12) bytes, an empty one where it has none.
    Where the stream takes no header, offloads are done here (`offload.materialise`).

    Small frames share a chunk: to copy one costs less than the kernel's look at two chunks more.
    """
    chunks: list[bytes] = []
    joined = BytesWriter()
    for index in range(start, end):
        frame = frames[index]
        data = frame.data
        if not vnet or header_len == 0:
            for bare in [data] if frame.header_len == 0 else materialise(frame):
                write_i32_be(joined, len(bare))
                if vnet:
                    write_i32_be(joined, 0)
                _append(chunks, joined, bare)
            continue
        length: int = len(data) - frame.header_len + header_len
        write_i32_be(joined, length)
        write_i32_be(joined, header_len)
        if frame.header_len == 0:
            joined.write(EMPTY_VNET_HEADER[:header_len])
            _append(chunks, joined, data)
        elif header_len == VNET_HEADER_LEN:
            _append(chunks, joined, data)
        else:
            joined.write(data[:header_len])
            _append(chunks, joined, data[VNET_HEADER_LEN:])
    if len(joined):
        chunks.append(joined.getvalue())
    return chunks


def _append(chunks: list[bytes], joined: BytesWriter, data: bytes) -> None:
    """Put data behind what has been joined, or behind it in a chunk of its own."""
    if len(data) <= _JOINED:
        joined.write(data)
    else:
        chunks.append(joined.getvalue())
        joined.truncate(0)
        chunks.append(data)
