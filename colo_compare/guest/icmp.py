"""ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, and port unreachable."""

from typing import Final

from colo_compare.guest import ip
from colo_compare.guest.turn import Turn
from colo_compare.wire.checksum import ICMP_PROTOCOL, ICMPV6_PROTOCOL
from colo_compare.wire.frame import Frame

_LONGEST_IPV6: Final = 1232  # as much as fits into the minimum MTU (RFC 4443, 3.1)


def receive(turn: Turn, frame: Frame) -> None:
    """Answer an echo request to one of the guest's addresses; everything else is ignored."""
    data = frame.data
    request, answer = (8, 0) if frame.version == 4 else (128, 129)
    target = ip.destination_of(frame)
    if data[frame.l4] != request or not ip.is_own(turn.header, target):
        return
    protocol = ICMP_PROTOCOL if frame.version == 4 else ICMPV6_PROTOCOL
    body = bytes((answer, 0, 0, 0)) + data[frame.l4 + 4 : frame.end]
    ip.send(turn, target, ip.source_of(frame), protocol, body, 2)


def port_unreachable(turn: Turn, frame: Frame) -> None:
    """Say that nothing listens there (RFC 1122, 4.1.3.1), at most so often a second (RFC 4443, 2.4 f)."""
    turn.start_second()
    if turn.header.unreachable_left <= 0:
        return
    turn.header.unreachable_left -= 1
    data = frame.data
    source = ip.destination_of(frame)
    target = ip.source_of(frame)
    if frame.version == 4:
        quoted = data[frame.l3 : min(frame.end, frame.l4 + 8)]
        ip.send(turn, source, target, ICMP_PROTOCOL, b"\x03\x03" + bytes(6) + quoted, 2)
    else:
        quoted = data[frame.l3 : min(frame.end, frame.l3 + _LONGEST_IPV6)]
        ip.send(turn, source, target, ICMPV6_PROTOCOL, b"\x01\x04" + bytes(6) + quoted, 2)
