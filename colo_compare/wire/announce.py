"""Frames that tell the network where a MAC address is now, after a guest took over."""

from typing import Final

from colo_compare.wire import ethernet
from colo_compare.wire.checksum import ICMPV6_PROTOCOL, internet_checksum, pseudo_header_sum
from colo_compare.wire.frame import Frame, parse_frame

_BROADCAST: Final = b"\xff\xff\xff\xff\xff\xff"
_ALL_NODES_MAC: Final = b"\x33\x33\x00\x00\x00\x01"  # RFC 2464, section 7
_ALL_NODES: Final = b"\xff\x02" + bytes(13) + b"\x01"  # ff02::1
_ARP_REQUEST: Final = b"\x00\x01\x08\x00\x06\x04\x00\x01"  # Ethernet, IPv4, lengths, request
_NEIGHBOUR_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 0x20
_TARGET_LINK_LAYER_ADDRESS: Final = b"\x02\x01"  # option type, length in units of 8 bytes


def gratuitous_arp(mac: bytes, address: bytes, vlans: tuple[int, ...]) -> Frame:
    """Give an ARP announcement of an IPv4 address (RFC 5227, 2.3): a broadcast request for itself.

    `mac` has 6 bytes, `address` 4, `vlans` the VLAN ids from the outermost.
    """
    arp = _ARP_REQUEST + mac + address + bytes(6) + address
    return parse_frame(_ethernet(_BROADCAST, mac, vlans, ethernet.ARP) + arp, 0, False)


def unsolicited_advertisement(mac: bytes, address: bytes, vlans: tuple[int, ...]) -> Frame:
    """Give an unsolicited neighbour advertisement of an IPv6 address (RFC 4861, 4.4 and 7.2.6) to all nodes.

    The override flag makes neighbours replace what they know. `mac` has 6 bytes, `address` 16, `vlans` the
    VLAN ids from the outermost.
    """
    body = bytes((_OVERRIDE, 0, 0, 0)) + address + _TARGET_LINK_LAYER_ADDRESS + mac
    length = 4 + len(body)
    ip = b"\x60\x00\x00\x00" + length.to_bytes(2, "big") + bytes((ICMPV6_PROTOCOL, 255))
    ip += address + _ALL_NODES
    icmp = bytes((_NEIGHBOUR_ADVERTISEMENT, 0, 0, 0)) + body
    checksum = internet_checksum(icmp, 0, length, pseudo_header_sum(ip, 6, 0, ICMPV6_PROTOCOL, length))
    packet = ip + icmp[:2] + checksum.to_bytes(2, "big") + body
    return parse_frame(_ethernet(_ALL_NODES_MAC, mac, vlans, ethernet.IPV6) + packet, 0, False)


def _ethernet(destination: bytes, source: bytes, vlans: tuple[int, ...], ethertype: int) -> bytes:
    """Give an Ethernet header; all tags but the innermost are a provider's (802.1ad)."""
    header = destination + source
    for index, vlan in enumerate(vlans):
        tag = ethernet.VLAN if index == len(vlans) - 1 else ethernet.SERVICE_VLAN
        header += tag.to_bytes(2, "big") + vlan.to_bytes(2, "big")
    return header + ethertype.to_bytes(2, "big")
