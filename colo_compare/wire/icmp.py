"""ICMP and ICMPv6 errors, which quote the packet that caused them (RFC 792, RFC 4443)."""

from typing import Final

from colo_compare.wire.frame import Frame
from colo_compare.wire.ipv6 import HEADER_LEN as IPV6_HEADER_LEN
from colo_compare.wire.ipv6 import skip_extension_headers

NO_QUOTE: Final = -1
"""What `quoted_transport` gives for a protocol where there is none."""


def is_icmp_error(frame: Frame) -> bool:
    """Say whether an ICMP frame is an error, which quotes the packet that caused it."""
    message = frame.data[frame.l4]
    return message in (3, 4, 5, 11, 12) if frame.version == 4 else 1 <= message <= 4


def quoted_transport(frame: Frame) -> tuple[int, int]:
    """Give (protocol, where its header begins) of the packet that an ICMP error quotes.

    (NO_QUOTE, 0) where that is no IP packet of the same version, or a fragment other than the first.
    """
    data = frame.data
    quote = frame.payload
    if frame.version == 4:
        if quote + 20 > frame.end or data[quote] >> 4 != 4 or data[quote] & 0x0F < 5:
            return NO_QUOTE, 0
        if data[quote + 6] & 0x1F or data[quote + 7]:
            return NO_QUOTE, 0
        return data[quote + 9], quote + (data[quote] & 0x0F) * 4
    start = quote + IPV6_HEADER_LEN
    if start > frame.end or data[quote] >> 4 != 6:
        return NO_QUOTE, 0
    protocol, transport, fragment = skip_extension_headers(data, start, frame.end, data[quote + 6])
    if fragment and (data[fragment + 2] or data[fragment + 3] & 0xF8):
        return NO_QUOTE, 0
    return protocol, transport
