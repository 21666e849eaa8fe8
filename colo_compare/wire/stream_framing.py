"""QEMU's framing of frames on a byte stream (its net/stream.c, net/filter-mirror.c, net/colo-compare.c).

Without virtio-net headers: 4 bytes of big-endian length, then the frame. With them (vnet_hdr_support=on): 4
bytes of length of header and frame, 4 bytes of length of the header alone, the header, the frame. The header
has no bytes, 10 or 12, and its length changes in mid-stream when the guest's driver negotiates.
"""

import struct
from typing import Final

from librt.strings import read_i32_be

from colo_compare.errors import FramingError
from colo_compare.wire.frame import VNET_HEADER_LEN, Frame
from colo_compare.wire.offload import materialise
from colo_compare.wire.vnet import EMPTY_VNET_HEADER

MAX_LENGTH: Final = 4096 + 65536
"""The longest frame, header included: NET_BUFSIZE in QEMU's net/net.h; QEMU drops the link beyond it, too."""

_SHORT_HEADER_LEN: Final = 10  # struct virtio_net_hdr: the same without num_buffers
_LENGTH: Final = struct.Struct(">I")
_LENGTHS: Final = struct.Struct(">II")


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


def encode(frames: list[Frame], vnet: bool, header_len: int, start: int) -> list[bytes]:
    """Give frames[start:] as chunks of a stream, ready for one vectored write.

    With `vnet`, each gets a header of `header_len` (0, 10 or 12) bytes, an empty one where it has none.
    Where the stream takes no header, offloads are done here (`offload.materialise`).
    """
    chunks: list[bytes] = []
    for index in range(start, len(frames)):
        frame = frames[index]
        data = frame.data
        if not vnet or header_len == 0:
            for bare in materialise(frame):
                chunks.append(_LENGTHS.pack(len(bare), 0) if vnet else _LENGTH.pack(len(bare)))
                chunks.append(bare)
        elif frame.header_len == 0:
            prefix = _LENGTHS.pack(len(data) + header_len, header_len)
            chunks.append(prefix + EMPTY_VNET_HEADER[:header_len])
            chunks.append(data)
        elif header_len == VNET_HEADER_LEN:
            chunks.append(_LENGTHS.pack(len(data), header_len))
            chunks.append(data)
        else:
            length = len(data) - VNET_HEADER_LEN + header_len
            chunks.append(_LENGTHS.pack(length, header_len) + data[:header_len])
            chunks.append(data[VNET_HEADER_LEN:])
    return chunks
