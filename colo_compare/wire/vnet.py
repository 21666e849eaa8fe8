"""The virtio-net header, `struct virtio_net_hdr_v1` of linux/virtio_net.h (virtio 1.2, section 5.1.6).

Little-endian, as the ports set it (TUNSETVNETLE; AF_PACKET and QEMU on little-endian hosts). A header that
makes no sense never loses its frame: an unknown GSO type counts as none, and what its fields point to is
checked where it is used.
"""

import struct
from typing import Final

from mypy_extensions import i64

from colo_compare.wire.frame import VNET_HEADER_LEN, Frame

NEEDS_CSUM: Final = 1  # flags: the checksum field holds the pseudo-header's sum only
DATA_VALID: Final = 2  # flags: the checksum was checked, whatever the field holds

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_UDP: Final = 3  # one UDP datagram to be fragmented (UFO)
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5  # several UDP datagrams (USO)
GSO_ECN: Final = 0x80  # a bit beside the type: CWR may be set

EMPTY_VNET_HEADER: Final = bytes(VNET_HEADER_LEN)

_LAYOUT: Final = struct.Struct("<BBHHHHH")


def with_headers(frames: list[Frame], start: i64, end: i64) -> list[bytes]:
    """Give frames[start:end] for a port that knows virtio-net headers: those without one get an empty one."""
    messages: list[bytes] = []
    for index in range(start, end):
        frame = frames[index]
        messages.append(frame.data if frame.header_len else EMPTY_VNET_HEADER + frame.data)
    return messages


class VnetHeader:
    """One header. Offsets count from the start of the Ethernet frame."""

    def __init__(
        self,
        flags: int = 0,
        gso_type: int = GSO_NONE,
        hdr_len: int = 0,
        gso_size: int = 0,
        csum_start: int = 0,
        csum_offset: int = 0,
        num_buffers: int = 0,
    ) -> None:
        self.flags = flags
        self.gso_type = gso_type  # with GSO_ECN, as in the header
        self.hdr_len = hdr_len  # bytes of all headers, a hint only
        self.gso_size = gso_size  # payload bytes of a segment
        self.csum_start = csum_start
        self.csum_offset = csum_offset  # of the checksum, from csum_start
        self.num_buffers = num_buffers

    def pack(self) -> bytes:
        """Give the 12 bytes."""
        return _LAYOUT.pack(
            self.flags,
            self.gso_type,
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        )


def parse_vnet(data: bytes) -> VnetHeader:
    """Parse the first 12 bytes of `data`; there must be as many."""
    flags, gso_type, hdr_len, size, csum_start, csum_offset, num_buffers = _LAYOUT.unpack_from(data)
    return VnetHeader(flags, gso_type, hdr_len, size, csum_start, csum_offset, num_buffers)


def needs_csum(frame: Frame) -> bool:
    """Say whether the transport checksum is partial: only the pseudo-header is summed up in its field."""
    return frame.header_len != 0 and len(frame.data) >= VNET_HEADER_LEN and frame.data[0] & NEEDS_CSUM != 0


def gso_type(frame: Frame) -> int:
    """Give the GSO type without GSO_ECN; GSO_NONE for an unknown one, and where there is no gso_size."""
    if frame.header_len == 0 or len(frame.data) < VNET_HEADER_LEN or not (frame.data[4] | frame.data[5]):
        return GSO_NONE
    kind = frame.data[1] & ~GSO_ECN
    return kind if kind in (GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4) else GSO_NONE


def gso_size(frame: Frame) -> int:
    """Give the payload bytes of each segment that a GSO frame stands for, 0 where it stands for itself."""
    if gso_type(frame) == GSO_NONE:
        return 0
    return frame.data[4] | (frame.data[5] << 8)
