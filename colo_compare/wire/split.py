"""A TCP frame cut in two, as any router of bytes may do with a stream (RFC 9293, section 3.7)."""

from typing import Final

from colo_compare.wire.checksum import TCP_PROTOCOL, internet_checksum, pseudo_header_sum
from colo_compare.wire.frame import FIN, PSH, SYN, URG, Frame, parse_frame
from colo_compare.wire.ipv6 import HEADER_LEN as IPV6_HEADER_LEN
from colo_compare.wire.vnet import GSO_NONE, gso_size, needs_csum

_CWR: Final = 0x80
_MAX_LENGTH: Final = 0xFFFF  # of what an IP length field can tell


def can_split(frame: Frame) -> bool:
    """Whether a TCP frame can be cut: a SYN and an urgent pointer (RFC 9293, 3.8.5) stay where they are."""
    return not frame.flags & (SYN | URG) and frame.end - frame.l3 <= _MAX_LENGTH


def split_tcp(frame: Frame, length: int) -> tuple[Frame, Frame]:
    """Give the frame's first `length` bytes of payload as one frame, and the rest as another.

    0 < length < payload length, and `can_split`. FIN and PSH stay with the rest, CWR with the first part
    (RFC 3168, 6.1.2). A partial checksum stays partial; a GSO frame is one still if it is larger than its
    segment size. Ethernet padding goes.
    """
    middle = frame.payload + length
    flags: int = frame.flags  # not u8, which has no negative numbers
    first = _part(frame, frame.payload, middle, flags & ~(FIN | PSH))
    rest = _part(frame, middle, frame.end, flags & ~_CWR)
    return first, rest


def _part(frame: Frame, start: int, end: int, flags: int) -> Frame:
    data = frame.data
    l3: int = frame.l3  # not i64, which has no to_bytes
    l4: int = frame.l4
    header = bytearray(data[: frame.payload])
    segment_size = gso_size(frame)
    if frame.header_len and end - start <= segment_size:
        header[1] = GSO_NONE
        header[4:6] = b"\x00\x00"
    tcp_length: int = frame.payload - l4 + end - start
    if frame.version == 4:
        header[l3 + 2 : l3 + 4] = (l4 - l3 + tcp_length).to_bytes(2, "big")
        header[l3 + 10 : l3 + 12] = b"\x00\x00"
        header[l3 + 10 : l3 + 12] = internet_checksum(bytes(header), l3, l4).to_bytes(2, "big")
    else:
        header[l3 + 4 : l3 + 6] = (l4 - l3 - IPV6_HEADER_LEN + tcp_length).to_bytes(2, "big")
    seq: int = (frame.seq + start - frame.payload) & 0xFFFFFFFF
    header[l4 + 4 : l4 + 8] = seq.to_bytes(4, "big")
    header[l4 + 13] = flags
    initial = pseudo_header_sum(data, frame.version, l3, TCP_PROTOCOL, tcp_length)
    if needs_csum(frame):
        checksum = 0xFFFF - internet_checksum(b"", 0, 0, initial)
    else:
        header[l4 + 16 : l4 + 18] = b"\x00\x00"
        body = bytes(header[l4:]) + data[start:end]
        checksum = internet_checksum(body, 0, len(body), initial)
    header[l4 + 16 : l4 + 18] = checksum.to_bytes(2, "big")
    return parse_frame(bytes(header) + data[start:end], frame.header_len, False)
