"""TCP segments on the wire (RFC 9293, 3.1; RFC 7323; RFC 2018)."""

import struct
from typing import Final

from colo_compare.guest import ip, neighbours
from colo_compare.guest.connection import Connection
from colo_compare.guest.turn import Turn
from colo_compare.wire.checksum import TCP_PROTOCOL
from colo_compare.wire.frame import ACK, FIN, RST, SYN, Frame

IPV4_OVERHEAD: Final = 40  # IP and TCP headers
IPV6_OVERHEAD: Final = 60
TIMESTAMPS_LEN: Final = 12  # with the two NOPs in front (RFC 7323, appendix A)

_HEADER: Final = struct.Struct(">IIIHHHH")  # ports, seq, ack, length and flags, window, checksum, urgent
_TIMES: Final = struct.Struct(">III")
_TIMES_HEAD: Final = 0x0101080A
_MASK: Final = 0xFFFFFFFF


def clock_ms(turn: Turn, offset: int) -> int:
    """Give a connection's timestamp clock: milliseconds (RFC 7323, 5.4)."""
    return (turn.now // 1000 + offset) & _MASK


class Outlet:
    """Where segments of one connection go in this turn: what they have in common, worked out once."""

    __slots__ = (
        "_ack",
        "_connection",
        "_hop",
        "_key",
        "_mac",
        "_ports",
        "_sum",
        "_times",
        "_turn",
        "_window",
    )

    def __init__(self, turn: Turn, connection: Connection) -> None:
        self._turn = turn
        self._connection = connection
        key = connection.key
        self._key = key
        self._ports = int.from_bytes(key[32:36], "big")
        self._hop = ip.next_hop(turn.header, key[16:32])
        self._mac = b""
        if self._hop:
            self._mac = neighbours.resolve(turn, self._hop, confirmed=connection.progress == 1)
        connection.progress = 0
        self._times = b""
        if connection.timestamps:
            now = clock_ms(turn, connection.ts_offset)
            self._times = _TIMES.pack(_TIMES_HEAD, now, connection.ts_recent)
        self._ack = 0 if connection.state <= 1 else connection.rcv_nxt & _MASK
        self._window = 0
        # Of the pseudo-header and the options, which are the same in each segment.
        addresses = key[:32] if connection.version == 6 else key[12:16] + key[28:32]
        self._sum = int.from_bytes(addresses, "big") + self._ports + TCP_PROTOCOL

    def offer(self, window: int) -> None:
        """Set the window field, already scaled."""
        self._window = window

    def emit(self, position: int, flags: int, payload: bytes, options: bytes = b"") -> None:
        """Send one segment; `options` come behind the timestamps, a multiple of 4 bytes.

        The checksum is worked out as one sum of the fields, without a second look at the bytes: all of them
        begin at an even offset, so each may be added as the number that it is (RFC 1071, section 2).
        """
        options = self._times + options
        seq = position & _MASK
        ack = self._ack if flags & ACK else 0
        offset = (20 + len(options)) << 10 | flags
        size = 20 + len(options) + len(payload)
        total = int.from_bytes(payload, "big")
        if len(payload) & 1:
            total <<= 8
        if options:
            total += int.from_bytes(options, "big")
        total += self._sum + seq + ack + offset + self._window + size
        segment = _HEADER.pack(
            self._ports, seq, ack, offset, self._window, 0xFFFF - (total % 0xFFFF or 0xFFFF), 0
        )
        key = self._key
        link = ip.link_header(self._turn, key[:16], key[16:32], TCP_PROTOCOL, size)
        if self._mac:
            self._turn.out.append(b"".join((self._mac, link[6:], segment, options, payload)))
        elif self._hop:
            neighbours.send(self._turn, self._hop, b"".join((link, segment, options, payload)))


def sack_option(connection: Connection) -> bytes:
    """Give the SACK option for what has come out of order: 3 blocks beside timestamps (RFC 2018, 3)."""
    bounds = connection.runs()
    if not bounds or not connection.sack:
        return b""
    pairs = [(bounds[at], bounds[at + 1]) for at in range(0, len(bounds), 2)]
    pairs.sort(key=lambda pair: pair[0] != connection.latest_run)  # the latest first, the others as they are
    blocks = b"".join(
        struct.pack(">II", start & _MASK, end & _MASK)
        for start, end in pairs[: 3 if connection.timestamps else 4]
    )
    return bytes((1, 1, 5, 2 + len(blocks))) + blocks


def syn_options(connection: Connection, mss: int) -> bytes:
    """Give the options of a SYN (MSS, SACK-permitted, window scale); the Outlet adds the timestamps."""
    options = b"\x02\x04" + mss.to_bytes(2, "big")
    if connection.sack:
        options += b"\x01\x01\x04\x02"
    if connection.rcv_scale >= 0:
        options += bytes((1, 3, 3, connection.rcv_scale))
    return options


def own_mss(turn: Turn, version: int) -> int:
    """Give the MSS to announce: options are not taken off (RFC 6691)."""
    return turn.header.mtu - (IPV4_OVERHEAD if version == 4 else IPV6_OVERHEAD)


def reset_answer(turn: Turn, frame: Frame) -> None:
    """Answer a segment that belongs to no connection with a RST (RFC 9293, 3.10.7.1)."""
    if frame.flags & RST:
        return
    length = frame.end - frame.payload
    length += (frame.flags & SYN != 0) + (frame.flags & FIN != 0)
    if frame.flags & ACK:
        seq, ack, flags = frame.ack, 0, RST
    else:
        seq, ack, flags = 0, (frame.seq + length) & _MASK, RST | ACK
    ports = int.from_bytes(
        frame.data[frame.l4 + 2 : frame.l4 + 4] + frame.data[frame.l4 : frame.l4 + 2], "big"
    )
    body = _HEADER.pack(ports, seq, ack, 20 << 10 | flags, 0, 0, 0)
    turn.header.resets_out += 1
    ip.send(turn, ip.destination_of(frame), ip.source_of(frame), TCP_PROTOCOL, body, 16)
