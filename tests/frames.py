"""Frames as tests make them, and an independent look at those that come out.

Nothing here uses `colo_compare.wire`: whatever both got wrong in the same way would stay unseen. Packets are
built with struct, as scapy takes milliseconds for one.

A *tag* names a packet on both sides of the proxy: the IPv4 identification, or the IPv6 flow label. The proxy
must leave both alone.
"""

import struct
from dataclasses import dataclass, field

FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10
URG = 0x20

CLIENT_MAC = bytes.fromhex("02c000000001")
GUEST_MAC = bytes.fromhex("025000000002")
CLIENT_IP4 = bytes((10, 0, 0, 1))
GUEST_IP4 = bytes((10, 0, 0, 2))
CLIENT_IP6 = bytes.fromhex("fd000000000000000000000000000001")
GUEST_IP6 = bytes.fromhex("fd000000000000000000000000000002")

TCP = 6
UDP = 17
ICMP = 1
ICMP6 = 58

VNET_NEEDS_CSUM = 1


def checksum(data: bytes) -> int:
    """Sum as RFC 1071 has it: 0 over data that contains its own right checksum."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pseudo_header(source: bytes, target: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + target + struct.pack(">BBH", 0, protocol, length)
    return source + target + struct.pack(">II", length, protocol)


def ethernet(
    payload: bytes,
    ethertype: int,
    source: bytes,
    target: bytes,
    vlans: tuple[int, ...] = (),
    pad: bool = False,
) -> bytes:
    """An Ethernet II frame; of several VLAN tags the outermost is 802.1ad."""
    tags = b""
    for depth, vlan in enumerate(vlans):
        tpid = 0x88A8 if depth + 1 < len(vlans) else 0x8100
        tags += struct.pack(">HH", tpid, vlan)
    frame = target + source + tags + struct.pack(">H", ethertype) + payload
    return frame.ljust(60, b"\0") if pad else frame


def ipv4(
    payload: bytes, protocol: int, source: bytes, target: bytes, tag: int,
    fragment: int = 0, more: bool = False, tos: int = 0, ttl: int = 64,
) -> bytes:  # fmt: skip
    """`fragment` is the offset in bytes."""
    flags = (0x2000 if more else 0) | fragment >> 3
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, tos, 20 + len(payload), tag, flags, ttl, protocol, 0, source, target
    )
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


def ipv6(
    payload: bytes, protocol: int, source: bytes, target: bytes, tag: int,
    fragment: tuple[int, int, bool] | None = None, tos: int = 0, ttl: int = 64,
) -> bytes:  # fmt: skip
    """`fragment`: offset in bytes, identification, more fragments."""
    if fragment is not None:
        offset, identification, more = fragment
        payload = struct.pack(">BBHI", protocol, 0, offset | more, identification) + payload
        protocol = 44
    word = 6 << 28 | tos << 20 | tag
    return struct.pack(">IHBB", word, len(payload), protocol, ttl) + source + target + payload


def tcp_options(
    mss: int | None = None, sack_permitted: bool = False, scale: int | None = None,
    times: tuple[int, int] | None = None, blocks: tuple[tuple[int, int], ...] = (), other: bytes = b"",
) -> bytes:  # fmt: skip
    out = b""
    if mss is not None:
        out += struct.pack(">BBH", 2, 4, mss)
    if sack_permitted:
        out += b"\x01\x01\x04\x02"
    if times is not None:
        out += b"\x01\x01" + struct.pack(">BBII", 8, 10, times[0] & 0xFFFFFFFF, times[1] & 0xFFFFFFFF)
    if scale is not None:
        out += b"\x01" + struct.pack(">BBB", 3, 3, scale)
    if blocks:
        out += b"\x01\x01" + struct.pack(">BB", 5, 2 + 8 * len(blocks))
        for left, right in blocks:
            out += struct.pack(">II", left & 0xFFFFFFFF, right & 0xFFFFFFFF)
    out += other
    return out + b"\x01" * (-len(out) % 4)


def tcp_segment(
    source: bytes, target: bytes, source_port: int, target_port: int, seq: int, ack: int, flags: int,
    window: int, options: bytes, payload: bytes, urgent: int = 0, partial_checksum: bool = False,
) -> bytes:  # fmt: skip
    header = struct.pack(
        ">HHIIBBHHH", source_port, target_port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF,
        (20 + len(options)) // 4 << 4, flags, window, 0, urgent,
    )  # fmt: skip
    segment = header + options + payload
    pseudo = pseudo_header(source, target, TCP, len(segment))
    value = checksum(pseudo) ^ 0xFFFF if partial_checksum else checksum(pseudo + segment)
    return segment[:16] + struct.pack(">H", value) + segment[18:]


def udp_datagram(
    source: bytes,
    target: bytes,
    source_port: int,
    target_port: int,
    payload: bytes,
    with_checksum: bool = True,
) -> bytes:
    header = struct.pack(">HHHH", source_port, target_port, 8 + len(payload), 0)
    if not with_checksum:
        return header + payload
    value = checksum(pseudo_header(source, target, UDP, 8 + len(payload)) + header + payload) or 0xFFFF
    return header[:6] + struct.pack(">H", value) + payload


def icmp_message(source: bytes, target: bytes, kind: int, code: int, rest: bytes, payload: bytes) -> bytes:
    """ICMP or, between IPv6 addresses, ICMPv6; `rest` is the second word of the header."""
    message = struct.pack(">BBH", kind, code, 0) + rest + payload
    pseudo = pseudo_header(source, target, ICMP6, len(message)) if len(source) == 16 else b""
    return message[:2] + struct.pack(">H", checksum(pseudo + message)) + message[4:]


def arp(source: bytes, sender_ip: bytes, target_ip: bytes, operation: int = 1) -> bytes:
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + source + sender_ip + bytes(6) + target_ip
    return ethernet(body, 0x0806, source, b"\xff" * 6)


@dataclass
class Dissected:
    """What is really in a frame. `problem` is empty where all lengths and checksums are right."""

    data: bytes
    vnet: bytes = b""
    source_mac: bytes = b""
    target_mac: bytes = b""
    vlans: tuple[int, ...] = ()
    ethertype: int = 0
    source: bytes = b""
    target: bytes = b""
    protocol: int = -1
    tag: int = -1
    fragment: int = 0
    more: bool = False
    source_port: int = 0
    target_port: int = 0
    seq: int = 0
    ack: int = 0
    flags: int = 0
    window: int = 0
    urgent: int = 0
    times: tuple[int, int] | None = None
    blocks: tuple[tuple[int, int], ...] = ()
    scale: int | None = None
    mss: int | None = None
    sack_permitted: bool = False
    payload: bytes = b""
    problems: list[str] = field(default_factory=list)

    @property
    def is_tcp(self) -> bool:
        return self.protocol == TCP and not self.fragment and not self.more

    @property
    def span(self) -> int:
        """Sequence space that it occupies."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)


def dissect(data: bytes, header_len: int = 0) -> Dissected:
    """Take a well-formed frame apart, noting each wrong checksum."""
    found = Dissected(data, vnet=data[:header_len])
    frame = data[header_len:]
    found.target_mac, found.source_mac = frame[:6], frame[6:12]
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        found.vlans += (struct.unpack_from(">H", frame, at + 2)[0] & 0xFFF,)
        at += 4
    (found.ethertype,) = struct.unpack_from(">H", frame, at)
    packet = frame[at + 2 :]
    if found.ethertype == 0x0800:
        _dissect_ipv4(found, packet)
    elif found.ethertype == 0x86DD:
        _dissect_ipv6(found, packet)
    return found


def _dissect_ipv4(found: Dissected, packet: bytes) -> None:
    length = (packet[0] & 15) * 4
    if checksum(packet[:length]):
        found.problems.append("IPv4 checksum")
    total, found.tag, word = struct.unpack_from(">HHH", packet, 2)
    found.fragment, found.more = (word & 0x1FFF) * 8, bool(word & 0x2000)
    found.protocol = packet[9]
    found.source, found.target = packet[12:16], packet[16:20]
    _dissect_transport(found, packet[length:total])


def _dissect_ipv6(found: Dissected, packet: bytes) -> None:
    word, length, found.protocol = struct.unpack_from(">IHB", packet)
    found.tag = word & 0xFFFFF
    found.source, found.target = packet[8:24], packet[24:40]
    body = packet[40 : 40 + length]
    if found.protocol == 44:
        found.protocol = body[0]
        (word,) = struct.unpack_from(">H", body, 2)
        found.fragment, found.more = word & 0xFFF8, bool(word & 1)
        body = body[8:]
    _dissect_transport(found, body)


def _dissect_transport(found: Dissected, body: bytes) -> None:
    found.payload = body
    if found.fragment or found.more:
        return
    pseudo = pseudo_header(found.source, found.target, found.protocol, len(body))
    partial = bool(found.vnet and found.vnet[0] & VNET_NEEDS_CSUM)
    if found.protocol == TCP:
        _dissect_tcp(found, body)
        good = (
            checksum(pseudo) ^ 0xFFFF == struct.unpack_from(">H", body, 16)[0]
            if partial
            else not checksum(pseudo + body)
        )
        if not good:
            found.problems.append("TCP checksum")
    elif found.protocol == UDP:
        found.source_port, found.target_port = struct.unpack_from(">HH", body)
        found.payload = body[8:]
        if not partial and body[6:8] != b"\0\0" and checksum(pseudo + body):
            found.problems.append("UDP checksum")
    elif found.protocol in (ICMP, ICMP6) and checksum((pseudo if found.protocol == ICMP6 else b"") + body):
        found.problems.append("ICMP checksum")


def _dissect_tcp(found: Dissected, body: bytes) -> None:
    (
        found.source_port, found.target_port, found.seq, found.ack, offset, found.flags, found.window, _,
        found.urgent,
    ) = struct.unpack_from(">HHIIBBHHH", body)  # fmt: skip
    header = (offset >> 4) * 4
    found.payload = body[header:]
    at = 20
    while at < header and body[at]:
        if body[at] == 1:
            at += 1
            continue
        kind, length = body[at], body[at + 1]
        value = body[at + 2 : at + length]
        if kind == 2:
            (found.mss,) = struct.unpack(">H", value)
        elif kind == 3:
            found.scale = value[0]
        elif kind == 4:
            found.sack_permitted = True
        elif kind == 5:
            found.blocks = tuple((left, right) for left, right in struct.iter_unpack(">II", value))
        elif kind == 8:
            left, right = struct.unpack(">II", value)
            found.times = (left, right)
        at += length
