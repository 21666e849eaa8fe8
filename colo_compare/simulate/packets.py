"""The simulation's own frames: bytes to values and back, apart from `wire`.

Nothing here uses `colo_compare.wire`: what both got wrong in the same way would stay unseen. It knows only
the frames that the simulated machines make, and is fast because of that.

A *tag* names a packet on both sides of the proxy: the IPv4 identification, or the IPv6 flow label. The proxy
leaves both alone.
"""

import struct
from functools import lru_cache
from typing import Final

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMP6: Final = 58

CLIENT_MAC: Final = bytes.fromhex("02c000000001")
GUEST_MAC: Final = bytes.fromhex("025000000002")
CLIENT_ADDRESS: Final = {4: bytes((10, 0, 0, 1)), 6: bytes.fromhex("fd000000000000000000000000000001")}
GUEST_ADDRESS: Final = {4: bytes((10, 0, 0, 2)), 6: bytes.fromhex("fd000000000000000000000000000002")}

_IPV4: Final = struct.Struct(">BBHHHBBH4s4s")
_IPV6: Final = struct.Struct(">IHBB16s16s")
_TCP: Final = struct.Struct(">HHIIBBHHH")
_UDP: Final = struct.Struct(">HHHH")
_PORTS: Final = struct.Struct(">HH")
_TIMES: Final = struct.Struct(">HBBII")
_WORDS: Final = struct.Struct(">II")
_MASK: Final = 0xFFFFFFFF


def checksum(data: bytes) -> int:
    """Sum as RFC 1071 has it, never 0; data that contains its own right checksum gives 0xFFFF.

    One's complement addition is addition modulo 65,535, so that one division does it.
    """
    if len(data) & 1:
        data += b"\0"
    return 0xFFFF - int.from_bytes(data, "big") % 0xFFFF


class End:
    """One end of all packets of a machine: whose addresses they carry."""

    def __init__(
        self, version: int, mac: bytes, peer_mac: bytes, address: dict[int, bytes], peer: dict[int, bytes]
    ) -> None:
        self.version: Final = version
        self._source: Final = address[version]
        self._target: Final = peer[version]
        self._ethernet: Final = peer_mac + mac + (b"\x08\x00" if version == 4 else b"\x86\xdd")
        self._pseudo: Final = self._source + self._target
        self.icmp: Final = ICMP if version == 4 else ICMP6

    def packet(self, protocol: int, payload: bytes, tag: int) -> bytes:
        """Give a frame with one whole packet."""
        if self.version == 4:
            length = 20 + len(payload)
            header = _IPV4.pack(0x45, 0, length, tag, 0, 64, protocol, 0, self._source, self._target)
            header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
        else:
            header = _IPV6.pack(6 << 28 | tag, len(payload), protocol, 64, self._source, self._target)
        return self._ethernet + header + payload

    def _sum(self, protocol: int, body: bytes) -> bytes:
        return checksum(self._pseudo + struct.pack(">HH", protocol, len(body)) + body).to_bytes(2, "big")

    def segment(
        self, source: int, target: int, seq: int, ack: int, flags: int, window: int, options: bytes,
        payload: bytes, tag: int,
    ) -> bytes:  # fmt: skip
        """Give a frame with a TCP segment; numbers are taken modulo 2^32."""
        body = b"".join((
            _TCP.pack(
                source, target, seq & _MASK, ack & _MASK, (20 + len(options)) << 2, flags, window, 0, 0
            ),
            options,
            payload,
        ))  # fmt: skip
        body = body[:16] + self._sum(TCP, body) + body[18:]
        return self.packet(TCP, body, tag)

    def datagram(self, source: int, target: int, payload: bytes, tag: int) -> bytes:
        """Give a frame with a UDP datagram."""
        body = _UDP.pack(source, target, 8 + len(payload), 0) + payload
        return self.packet(UDP, body[:6] + self._sum(UDP, body) + body[8:], tag)

    def echo(self, reply: bool, rest: bytes, payload: bytes, tag: int) -> bytes:
        """Give a frame with an ICMP or ICMPv6 echo; `rest` are its identifier and sequence number."""
        kind = (0 if reply else 8) if self.version == 4 else (129 if reply else 128)
        body = bytes((kind, 0, 0, 0)) + rest + payload
        value = checksum(body).to_bytes(2, "big") if self.version == 4 else self._sum(ICMP6, body)
        return self.packet(self.icmp, body[:2] + value + body[4:], tag)


def options(
    times: tuple[int, int] | None,
    blocks: tuple[tuple[int, int], ...],
    syn: tuple[int, bool, int] | None,
) -> bytes:
    """Give TCP options: timestamps, SACK blocks, and of a SYN its MSS, whether SACK is permitted, scale."""
    out = b""
    if syn is not None:
        mss, sack, scale = syn
        out = b"\x02\x04" + mss.to_bytes(2, "big") + (b"\x01\x01\x04\x02" if sack else b"")
        out += b"\x01\x03\x03" + bytes((scale,))
    if times is not None:
        out += _TIMES.pack(0x0101, 8, 10, times[0] & _MASK, times[1] & _MASK)
    if blocks:
        out += b"\x01\x01\x05" + bytes((2 + 8 * len(blocks),))
        for left, right in blocks:
            out += _WORDS.pack(left & _MASK, right & _MASK)
    return out


class Seen:
    """What is in a frame. `problem` is empty where all lengths and checksums are right."""

    __slots__ = (
        "ack", "blocks", "flags", "payload", "problem", "protocol", "sack", "scale", "seq", "source_port",
        "tag", "target_port", "times", "window",
    )  # fmt: skip

    def __init__(self, data: bytes) -> None:
        """Take a well-formed frame apart."""
        self.problem = ""
        self.source_port = self.target_port = 0
        self.seq = self.ack = self.flags = self.window = 0
        self.times: tuple[int, int] | None = None
        self.blocks: tuple[tuple[int, int], ...] = ()
        self.scale = -1  # no such option
        self.sack = False
        if data[12] == 0x08:
            _, _, length, self.tag, _, _, self.protocol, _, source, target = _IPV4.unpack_from(data, 14)
            if checksum(data[14:34]) != 0xFFFF:
                self.problem = "IPv4 checksum"
            body = data[34 : 14 + length]
        else:
            word, length, self.protocol, _, source, target = _IPV6.unpack_from(data, 14)
            self.tag = word & 0xFFFFF
            body = data[54 : 54 + length]
        self.payload = body
        protocol = self.protocol
        if protocol == ICMP:
            good = checksum(body) == 0xFFFF
        else:
            good = checksum(source + target + _PORTS.pack(protocol, len(body)) + body) == 0xFFFF
        if not good:
            self.problem = f"checksum of protocol {protocol}"
        if protocol == TCP:
            self._tcp(body)
        elif protocol == UDP:
            self.source_port, self.target_port = _PORTS.unpack_from(body)
            self.payload = body[8:]

    def _tcp(self, body: bytes) -> None:
        (
            self.source_port, self.target_port, self.seq, self.ack, offset, self.flags, self.window, _, _,
        ) = _TCP.unpack_from(body)  # fmt: skip
        header = offset >> 2
        self.payload = body[header:]
        at = 20
        while at < header and body[at]:
            kind = body[at]
            if kind == 1:
                at += 1
                continue
            if kind == 8:
                self.times = _WORDS.unpack_from(body, at + 2)
            elif kind == 3:
                self.scale = body[at + 2]
            elif kind == 4:
                self.sack = True
            elif kind == 5:
                self.blocks = tuple(_WORDS.iter_unpack(body[at + 2 : at + body[at + 1]]))
            at += body[at + 1]

    @property
    def span(self) -> int:
        """The sequence space that a segment occupies."""
        return len(self.payload) + (self.flags & SYN > 0) + (self.flags & FIN > 0)

    @property
    def ports(self) -> tuple[int, int]:
        """Source and target."""
        return self.source_port, self.target_port

    def __str__(self) -> str:
        if self.protocol != TCP:
            name = {UDP: "UDP", ICMP: "ICMP", ICMP6: "ICMPv6"}.get(self.protocol, str(self.protocol))
            return f"{name} {self.source_port}>{self.target_port} {len(self.payload)} bytes, tag {self.tag}"
        flags = "".join(name for bit, name in _FLAG_NAMES if self.flags & bit)
        times = "" if self.times is None else f" ts {self.times[0]},{self.times[1]}"
        blocks = "".join(f" sack {left}-{right}" for left, right in self.blocks)
        return (
            f"TCP {self.source_port}>{self.target_port} {flags or '-'} seq {self.seq} ack {self.ack} "
            f"win {self.window} len {len(self.payload)}{times}{blocks}, tag {self.tag}"
        )


@lru_cache(maxsize=512)
def look(data: bytes) -> Seen:
    """Give what is in a frame. The same frame is looked at by several, who change nothing in it."""
    return Seen(data)


_FLAG_NAMES: Final = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "A"))
