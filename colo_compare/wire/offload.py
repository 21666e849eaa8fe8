"""Frames for a port without offloads: checksums completed, large frames cut, no virtio-net header.

What Linux does in skb_checksum_help, tcp_gso_segment and __udp_gso_segment, on plain bytes.
"""

from typing import Final

from colo_compare.wire import frame as frames
from colo_compare.wire.checksum import TCP_PROTOCOL, UDP_PROTOCOL, internet_checksum, pseudo_header_sum
from colo_compare.wire.frame import FIN, PSH, VNET_HEADER_LEN, Frame
from colo_compare.wire.ipv6 import HEADER_LEN as IPV6_HEADER_LEN
from colo_compare.wire.vnet import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    gso_size,
    gso_type,
    needs_csum,
    parse_vnet,
)

_CWR: Final = 0x80
_UDP_HEADER_LEN: Final = 8


def materialise(frame: Frame) -> list[bytes]:
    """Give the bare Ethernet frames that a frame stands for.

    A frame without a virtio-net header is given as it is. A UDP datagram to be fragmented (UFO), which no
    port here offers to its guest, comes out whole, as does a GSO frame that is not what its header says.
    """
    if frame.header_len == 0:
        return [frame.data]
    kind = gso_type(frame)
    if kind in (GSO_TCPV4, GSO_TCPV6) and frame.kind == frames.TCP:
        return _segment_tcp(frame, gso_size(frame))
    if kind == GSO_UDP_L4 and frame.kind == frames.UDP:
        return _segment_udp(frame, gso_size(frame))
    if needs_csum(frame):
        return [_complete_checksum(frame)]
    return [frame.data[VNET_HEADER_LEN:]]


def _complete_checksum(frame: Frame) -> bytes:
    """Give the bare frame with its partial checksum made full; as it is where the header points outside."""
    header = parse_vnet(frame.data)
    start = header.csum_start + VNET_HEADER_LEN
    field = start + header.csum_offset
    end = frame.end or len(frame.data)
    if field + 2 > end:
        return frame.data[VNET_HEADER_LEN:]
    checksum = internet_checksum(frame.data, start, end) or 0xFFFF  # RFC 768: a zero would mean none
    return frame.data[VNET_HEADER_LEN:field] + checksum.to_bytes(2, "big") + frame.data[field + 2 :]


def _segment_tcp(frame: Frame, size: int) -> list[bytes]:
    """Cut a TCP frame: FIN and PSH stay on the last segment only, CWR on the first (RFC 3168, 6.1.2)."""
    l4 = frame.l4
    segments: list[bytes] = []
    last = max(frame.payload, frame.end - 1 - (frame.end - 1 - frame.payload) % size)
    for at in range(frame.payload, last + 1, size):
        piece = frame.data[at : min(at + size, frame.end)]
        segment = _ip_header(frame, len(segments), frame.payload - l4 + len(piece))
        tcp = bytearray(frame.data[l4 : frame.payload])
        seq: int = (frame.seq + at - frame.payload) & 0xFFFFFFFF
        tcp[4:8] = seq.to_bytes(4, "big")
        if at != frame.payload:
            tcp[13] &= ~_CWR
        if at != last:
            tcp[13] &= ~(FIN | PSH)
        segments.append(_seal(frame, segment, tcp, 16, piece, TCP_PROTOCOL))
    return segments


def _segment_udp(frame: Frame, size: int) -> list[bytes]:
    """Cut a frame of several UDP datagrams (USO)."""
    segments: list[bytes] = []
    for at in range(frame.payload, max(frame.end, frame.payload + 1), size):
        piece = frame.data[at : min(at + size, frame.end)]
        length = _UDP_HEADER_LEN + len(piece)
        segment = _ip_header(frame, len(segments), length)
        udp = bytearray(frame.data[frame.l4 : frame.l4 + 4])
        udp += length.to_bytes(2, "big") + b"\x00\x00"
        segments.append(_seal(frame, segment, udp, 6, piece, UDP_PROTOCOL))
    return segments


def _ip_header(frame: Frame, index: int, length: int) -> bytearray:
    """Give the Ethernet and IP headers of segment `index`, for `length` bytes behind them."""
    l3: int = frame.l3 - VNET_HEADER_LEN
    header = bytearray(frame.data[VNET_HEADER_LEN : frame.l4])
    if frame.version == 6:
        header[l3 + 4 : l3 + 6] = (len(header) - l3 - IPV6_HEADER_LEN + length).to_bytes(2, "big")
        return header
    header[l3 + 2 : l3 + 4] = (len(header) - l3 + length).to_bytes(2, "big")
    identification = (header[l3 + 4] << 8 | header[l3 + 5]) + index
    header[l3 + 4 : l3 + 6] = (identification & 0xFFFF).to_bytes(2, "big")
    header[l3 + 10 : l3 + 12] = b"\x00\x00"
    checksum = internet_checksum(bytes(header), l3, len(header))
    header[l3 + 10 : l3 + 12] = checksum.to_bytes(2, "big")
    return header


def _seal(
    frame: Frame, header: bytearray, transport: bytearray, field: int, piece: bytes, protocol: int
) -> bytes:
    """Put a segment together, with its full checksum at `field` of the transport header."""
    transport[field : field + 2] = b"\x00\x00"
    body = bytes(transport) + piece
    initial = pseudo_header_sum(frame.data, frame.version, frame.l3, protocol, len(body))
    checksum = internet_checksum(body, 0, len(body), initial) or 0xFFFF
    transport[field : field + 2] = checksum.to_bytes(2, "big")
    return bytes(header + transport) + piece
