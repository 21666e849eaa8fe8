"""UDP (RFC 768): an echo on port 7."""

import struct
from typing import Final

from colo_compare.guest import icmp, ip
from colo_compare.guest.ports import ECHO_PORT
from colo_compare.guest.turn import Turn
from colo_compare.wire.checksum import UDP_PROTOCOL
from colo_compare.wire.frame import Frame

_HEADER: Final = struct.Struct(">HHHH")


def receive(turn: Turn, frame: Frame) -> None:
    """Take a datagram."""
    target = ip.destination_of(frame)
    if not ip.is_own(turn.header, target):
        turn.header.foreign += 1
        return
    source_port, port, length, _ = _HEADER.unpack_from(frame.data, frame.l4)
    if port != ECHO_PORT:
        icmp.port_unreachable(turn, frame)
        return
    turn.header.datagrams += 1
    payload = frame.data[frame.payload : frame.l4 + length]
    body = _HEADER.pack(port, source_port, 8 + len(payload), 0) + payload
    ip.send(turn, target, ip.source_of(frame), UDP_PROTOCOL, body, 6)
