"""ARP and neighbour discovery messages: questions for a neighbour's MAC address, and answers to them."""

from typing import Final

from colo_compare.guest.boot import MAPPED
from colo_compare.guest.header import Header
from colo_compare.wire import ethernet
from colo_compare.wire.announce import gratuitous_arp, unsolicited_advertisement
from colo_compare.wire.checksum import ICMPV6_PROTOCOL, internet_checksum, pseudo_header_sum

BROADCAST: Final = b"\xff\xff\xff\xff\xff\xff"
SOLICITATION: Final = 135
ADVERTISEMENT: Final = 136
_ETHERNET_IPV4: Final = b"\x00\x01\x08\x00\x06\x04"  # hardware and protocol types and lengths
_SOLICITED_NODE: Final = b"\xff\x02" + bytes(9) + b"\x01\xff"  # RFC 4291, 2.7.1
_SOURCE_ADDRESS: Final = b"\x01\x01"  # option type, length in units of 8 bytes
_TARGET_ADDRESS: Final = b"\x02\x01"


def solicited_node(address: bytes) -> bytes:
    """Give the multicast address at which an IPv6 address is asked for."""
    return _SOLICITED_NODE + address[13:]


def question(header: Header, address: bytes, mac: bytes) -> bytes:
    """Give the frame that asks who has an address: to all (`mac` is empty), or to who had it last."""
    if address[:12] == MAPPED:
        arp = _ETHERNET_IPV4 + b"\x00\x01" + header.mac + header.address4[12:] + bytes(6) + address[12:]
        return (mac or BROADCAST) + header.mac + ethernet.ARP.to_bytes(2, "big") + arp
    target = address if mac else solicited_node(address)
    source = header.link_local if address[:2] == b"\xfe\x80" else header.address6
    body = bytes(4) + address + _SOURCE_ADDRESS + header.mac
    return _neighbour_message(header, mac or b"\x33\x33" + target[12:], source, target, SOLICITATION, body)


def arp_reply(header: Header, mac: bytes, address: bytes) -> bytes:
    """Give the answer to an ARP request from this neighbour (4 bytes of address)."""
    arp = _ETHERNET_IPV4 + b"\x00\x02" + header.mac + header.address4[12:] + mac + address
    return mac + header.mac + ethernet.ARP.to_bytes(2, "big") + arp


def advertisement(header: Header, mac: bytes, neighbour: bytes, asked: bytes) -> bytes:
    """Give the solicited advertisement of the guest's address `asked` (RFC 4861, 7.2.4)."""
    body = b"\x60\x00\x00\x00" + asked + _TARGET_ADDRESS + header.mac  # solicited, override
    return _neighbour_message(header, mac, asked, neighbour, ADVERTISEMENT, body)


def announcements(header: Header) -> list[bytes]:
    """Give the frames that say to all where the guest's addresses are."""
    return [
        gratuitous_arp(header.mac, header.address4[12:], ()).data,
        unsolicited_advertisement(header.mac, header.address6, ()).data,
    ]


def _neighbour_message(
    header: Header, mac: bytes, source: bytes, target: bytes, kind: int, body: bytes
) -> bytes:
    length = 4 + len(body)
    ip = b"\x60\x00\x00\x00" + length.to_bytes(2, "big") + bytes((ICMPV6_PROTOCOL, 255)) + source + target
    icmp = bytes((kind, 0, 0, 0)) + body
    checksum = internet_checksum(icmp, 0, length, pseudo_header_sum(ip, 6, 0, ICMPV6_PROTOCOL, length))
    link = mac + header.mac + ethernet.IPV6.to_bytes(2, "big")
    return link + ip + icmp[:2] + checksum.to_bytes(2, "big") + body
