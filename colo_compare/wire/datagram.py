"""What must be equal for two datagrams to be equal: all that a receiver can see above IP.

IP identification, TTL, TOS and checksums differ between two guests that say the same (rule 3), so they are
left out, also of a packet that an ICMP error quotes.
"""

from typing import Final

from colo_compare.wire import frame as frames
from colo_compare.wire.checksum import TCP_PROTOCOL
from colo_compare.wire.ethernet import network_start
from colo_compare.wire.frame import Frame
from colo_compare.wire.icmp import is_icmp_error, quoted_transport
from colo_compare.wire.ipv6 import HEADER_LEN as IPV6_HEADER_LEN
from colo_compare.wire.vnet import GSO_UDP_L4, gso_size, gso_type

_QUOTED_TCP: Final = 8  # bytes of it: ports and sequence number; what follows was rewritten for the secondary


def comparable(frame: Frame) -> list[bytes]:
    """Give what must be equal, one bytes object for each datagram in the frame.

    UDP: the payload, with what may follow the UDP length (RFC 9868); a UDP_L4 GSO frame holds several. ICMP:
    type, code and body; an error's quote without the fields that routers and guests choose. TCP (a frame
    joined from fragments): header and payload without the checksum. Other IP and a lone fragment: protocol
    and payload. Opaque: everything behind the Ethernet header.
    """
    data = frame.data
    if frame.kind == frames.UDP:
        payload = data[frame.payload : frame.end]
        if gso_type(frame) != GSO_UDP_L4:
            return [payload]
        size = gso_size(frame)
        return [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    if frame.kind == frames.ICMP:
        return [data[frame.l4 : frame.l4 + 2] + _icmp_body(frame)]
    if frame.kind == frames.TCP:
        checksum = frame.l4 + 16
        return [data[frame.l4 : checksum] + b"\x00\x00" + data[checksum + 2 : frame.end]]
    if frame.kind == frames.OPAQUE:
        return [data[network_start(data, frame.header_len) or frame.header_len :]]
    return [bytes((frame.protocol,)) + data[frame.l4 : frame.end]]


def _icmp_body(frame: Frame) -> bytes:
    """Give an ICMP message behind its checksum, the quote of an error normalised."""
    data = frame.data
    if not is_icmp_error(frame):
        return data[frame.l4 + 4 : frame.end]
    quote = frame.payload
    end = frame.end
    body = data[frame.l4 + 4 : quote]
    protocol, transport = quoted_transport(frame)
    if protocol == TCP_PROTOCOL:
        end = min(end, transport + _QUOTED_TCP)
    if frame.version == 4 and quote + 20 <= end and data[quote] >> 4 == 4:
        body += data[quote : quote + 1] + data[quote + 2 : quote + 4]  # not TOS
        body += data[quote + 6 : quote + 8] + data[quote + 9 : quote + 10]  # not identification, TTL
        return body + data[quote + 12 : end]  # not the checksum
    if frame.version == 6 and quote + IPV6_HEADER_LEN <= end and data[quote] >> 4 == 6:
        body += data[quote + 4 : quote + 7]  # not traffic class and flow label, hop limit
        return body + data[quote + 8 : end]
    return body + data[quote:end]
