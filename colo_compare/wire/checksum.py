"""The internet checksum: in full (RFC 1071), by difference (RFC 1624), and over the pseudo-header.

Sums are taken modulo 65535 of one large integer, as 2^16 is 1 there: for 20 to 1,480 bytes the fastest of six
ways measured in plain CPython (0.15 to 2.6 us; struct, array and memoryview.cast with sum() take 2 to 3
times that), and no slower compiled.
"""

from typing import Final

from colo_compare.wire import frame as frames
from colo_compare.wire.frame import Frame

TCP_PROTOCOL: Final = 6
UDP_PROTOCOL: Final = 17
ICMP_PROTOCOL: Final = 1
ICMPV6_PROTOCOL: Final = 58


def internet_checksum(data: bytes, start: int, end: int, initial: int = 0) -> int:
    """Give the checksum of data[start:end], an odd last byte padded with a zero (RFC 1071).

    `initial` is a sum to begin with (not complemented, any size), as `pseudo_header_sum` gives it.
    """
    total = int.from_bytes(data[start:end], "big")
    if (end - start) & 1:
        total <<= 8
    total += initial
    if total == 0:
        return 0xFFFF
    return 0xFFFF - (total % 0xFFFF or 0xFFFF)


def adjust(checksum: int, difference: int) -> int:
    """Give the checksum after the sum of what it covers grew by `difference`, which may be negative.

    Equation 3 of RFC 1624 for any number of changes at once. A 16-bit word that lies at an odd offset counts
    256 times (RFC 1071, section 2: byte order independence), a 32-bit word at an even one as it is.
    """
    total = (0xFFFF - checksum) + difference % 0xFFFF
    return 0xFFFF - (total if total <= 0xFFFF else total - 0xFFFF)


def update16(checksum: int, old: int, new: int) -> int:
    """Give the checksum after a 16-bit word at an even offset changed (RFC 1624, equation 3)."""
    return adjust(checksum, new - old)


def update32(checksum: int, old: int, new: int) -> int:
    """Give the checksum after a 32-bit word at an even offset changed (RFC 1624, equation 3)."""
    return adjust(checksum, new - old)


def pseudo_header_sum(data: bytes, version: int, l3: int, protocol: int, length: int) -> int:
    """Give the sum of a pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1), not complemented and not folded.

    `l3` is where the IP header begins in data, `length` that of the transport header and its payload. An
    IPv6 routing header is not followed: behind it the destination is not the final one.
    """
    if version == 4:
        addresses = data[l3 + 12 : l3 + 20]
    else:
        addresses = data[l3 + 8 : l3 + 40]
    return int.from_bytes(addresses, "big") + protocol + length


def transport_checksum_ok(frame: Frame) -> bool:
    """Say whether the checksum of a TCP, UDP, ICMP or ICMPv6 frame is right, in full.

    UDP over IPv4 without one is right (RFC 768). Other kinds have none, and are right. A partial checksum
    (virtio-net NEEDS_CSUM) is not: it is right once it is completed.
    """
    if frame.kind not in (frames.TCP, frames.UDP, frames.ICMP):
        return True
    length = frame.end - frame.l4
    if frame.kind == frames.UDP:
        field = frame.data[frame.l4 + 6 : frame.l4 + 8]
        if field == b"\x00\x00":
            return frame.version == 4
        length = (frame.data[frame.l4 + 4] << 8) | frame.data[frame.l4 + 5]
    initial = 0
    if frame.protocol != ICMP_PROTOCOL:
        initial = pseudo_header_sum(frame.data, frame.version, frame.l3, frame.protocol, length)
    return internet_checksum(frame.data, frame.l4, frame.l4 + length, initial) == 0
