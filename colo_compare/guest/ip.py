"""Internet protocol, both versions: which addresses are the guest's, and packets to others.

Addresses have 16 bytes everywhere; IPv4's are mapped (RFC 4291, 2.5.5.2).
"""

import struct
from typing import Final

from colo_compare.guest import neighbours
from colo_compare.guest.boot import MAPPED
from colo_compare.guest.header import Header
from colo_compare.guest.turn import Turn
from colo_compare.wire.checksum import ICMP_PROTOCOL, UDP_PROTOCOL, internet_checksum
from colo_compare.wire.frame import Frame

HOPS: Final = 64

_ETHERNET_IPV4: Final = struct.Struct(">6s6sHBBHHHBBH4s4s")
_ETHERNET_IPV6: Final = struct.Struct(">6s6sHIHBB16s16s")
_DONT_FRAGMENT: Final = 0x4000


def source_of(frame: Frame) -> bytes:
    """Give the address that an IP frame comes from."""
    data = frame.data
    if frame.version == 4:
        return MAPPED + data[frame.l3 + 12 : frame.l3 + 16]
    return data[frame.l3 + 8 : frame.l3 + 24]


def destination_of(frame: Frame) -> bytes:
    """Give the address that an IP frame goes to."""
    data = frame.data
    if frame.version == 4:
        return MAPPED + data[frame.l3 + 16 : frame.l3 + 20]
    return data[frame.l3 + 24 : frame.l3 + 40]


def is_own(header: Header, address: bytes) -> bool:
    """Say whether an address is the guest's."""
    return address in (header.address4, header.address6, header.link_local)


def _network(address: bytes, bits: int) -> int:
    return int.from_bytes(address, "big") >> (128 - bits)


def next_hop(header: Header, address: bytes) -> bytes:
    """Give the address of the neighbour that packets to this address go to; b"" if there is none."""
    if address[:12] == MAPPED:
        home, bits, gateway = header.address4, header.prefix4, header.gateway4
    elif address[:2] == b"\xfe\x80":
        return address
    else:
        home, bits, gateway = header.address6, header.prefix6, header.gateway6
    if _network(address, bits) == _network(home, bits):
        return address
    return gateway if any(gateway) else b""


def own_for(header: Header, address: bytes) -> bytes:
    """Give the guest's address for packets to this address."""
    if address[:12] == MAPPED:
        return header.address4
    return header.link_local if address[:2] == b"\xfe\x80" else header.address6


def link_header(turn: Turn, source: bytes, target: bytes, protocol: int, size: int) -> bytes:
    """Give the Ethernet and IP headers of a packet with `size` bytes behind them, Ethernet destination zero.

    IPv4 goes out as atomic datagrams, whose identification means nothing (RFC 6864, 4.1).
    """
    mac = turn.header.mac
    if source[:12] != MAPPED:
        return _ETHERNET_IPV6.pack(bytes(6), mac, 0x86DD, 0x60000000, size, protocol, HOPS, source, target)
    length = 20 + size
    near = source[12:]
    far = target[12:]
    total = 0x4500 + length + _DONT_FRAGMENT + (HOPS << 8 | protocol)
    total += int.from_bytes(near, "big") + int.from_bytes(far, "big")
    checksum = 0xFFFF - (total % 0xFFFF or 0xFFFF)
    return _ETHERNET_IPV4.pack(
        bytes(6), mac, 0x0800, 0x45, 0, length, 0, _DONT_FRAGMENT, HOPS, protocol, checksum, near, far
    )


def transport_checksum(source: bytes, target: bytes, protocol: int, body: bytes) -> int:
    """Give the checksum of a whole transport message that holds a zero checksum."""
    initial = 0
    if source[:12] != MAPPED:
        initial = int.from_bytes(source + target, "big")
    elif protocol != ICMP_PROTOCOL:
        initial = int.from_bytes(source[12:] + target[12:], "big")
    if initial:
        initial += protocol + len(body)
    return internet_checksum(body, 0, len(body), initial)


def send(turn: Turn, source: bytes, target: bytes, protocol: int, body: bytes, checksum_at: int) -> None:
    """Send one packet, whose transport message has its checksum, still zero, at `checksum_at`.

    A packet that is longer than the MTU, or has no way to go, is dropped.
    """
    if len(body) + (20 if source[:12] == MAPPED else 40) > turn.header.mtu:
        return
    checksum = transport_checksum(source, target, protocol, body)
    if checksum == 0 and protocol == UDP_PROTOCOL:
        checksum = 0xFFFF  # zero would say that there is none (RFC 768)
    packet = (
        link_header(turn, source, target, protocol, len(body))
        + body[:checksum_at]
        + checksum.to_bytes(2, "big")
        + body[checksum_at + 2 :]
    )
    hop = next_hop(turn.header, target)
    if hop:
        neighbours.send(turn, hop, packet)
