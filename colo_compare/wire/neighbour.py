"""ARP and neighbour discovery: who says that it has which address, who asks for one, and the answer.

RFC 826 (ARP), RFC 5227 (its probes), RFC 4861 (neighbour discovery).
"""

from typing import Final, NamedTuple

from colo_compare.wire.checksum import ICMPV6_PROTOCOL, internet_checksum, pseudo_header_sum
from colo_compare.wire.ethernet import network_start
from colo_compare.wire.frame import ARP, NDP, Frame, parse_frame

_ETHERNET_IPV4: Final = b"\x00\x01\x08\x00\x06\x04"  # hardware and protocol types and lengths
_REQUEST: Final = b"\x00\x01"
_REPLY: Final = b"\x00\x02"
_ARP_LEN: Final = 28
_SOLICITATION: Final = 135
_ADVERTISEMENT: Final = 136
_SOLICITED_OVERRIDE: Final = 0x60
_TARGET_LINK_LAYER_ADDRESS: Final = b"\x02\x01"  # option type, length in units of 8 bytes
_MESSAGE: Final = 40  # the ICMPv6 message behind an IPv6 header without extensions
_MESSAGE_LEN: Final = 24  # a solicitation or advertisement without options


class Claim(NamedTuple):
    """A host says that it has an address."""

    mac: bytes  # 6
    address: bytes  # 4 or 16
    vlans: tuple[int, ...]  # from the outermost


class Question(NamedTuple):
    """A host asks for the MAC address behind an address."""

    mac: bytes  # of who asks
    asker: bytes  # 4 or 16: its address
    target: bytes  # 4 or 16
    vlans: tuple[int, ...]


def claim(frame: Frame) -> Claim | None:
    """Give what the sender of an ARP or neighbour discovery frame says of itself, None where it says nothing.

    A probe (RFC 5227, 2.1.1) or a solicitation for duplicates (RFC 4862, 5.4.2) says nothing yet.
    """
    data = frame.data
    at = network_start(data, frame.header_len)
    address = b""
    if frame.reason == ARP and _is_arp(data, at):
        address = data[at + 14 : at + 18]
    elif frame.reason == NDP and _is_neighbour_message(data, at):
        if data[at + _MESSAGE] == _ADVERTISEMENT:
            address = data[at + _MESSAGE + 8 : at + _MESSAGE + _MESSAGE_LEN]
        elif data[at + _MESSAGE] == _SOLICITATION:
            address = data[at + 8 : at + 24]
    if not any(address):
        return None
    return Claim(data[frame.header_len + 6 : frame.header_len + 12], address, _vlans(frame, at))


def question(frame: Frame) -> Question | None:
    """Give what the sender of an ARP request or a neighbour solicitation asks for, None if nothing.

    Who asks for its own address announces it, or looks for duplicates; no answer is due.
    """
    data = frame.data
    at = network_start(data, frame.header_len)
    asker = target = b""
    if frame.reason == ARP and _is_arp(data, at) and data[at + 6 : at + 8] == _REQUEST:
        asker = data[at + 14 : at + 18]
        target = data[at + 24 : at + 28]
    elif frame.reason == NDP and _is_neighbour_message(data, at) and data[at + _MESSAGE] == _SOLICITATION:
        asker = data[at + 8 : at + 24]
        target = data[at + _MESSAGE + 8 : at + _MESSAGE + _MESSAGE_LEN]
    if not any(asker) or asker == target:
        return None
    mac = data[frame.header_len + 6 : frame.header_len + 12]
    return Question(mac, asker, target, _vlans(frame, at))


def answer(frame: Frame, asked: Question, mac: bytes) -> Frame:
    """Give the answer to `asked`, which `frame` brought, as the host with address `mac` would say it."""
    data = frame.data
    at = network_start(data, frame.header_len)
    header = bytes(frame.header_len) + asked.mac + mac + data[frame.header_len + 12 : at]
    if len(asked.target) == 4:
        arp = _ETHERNET_IPV4 + _REPLY + mac + asked.target + asked.mac + asked.asker
        return parse_frame(header + arp, frame.header_len, True)
    body = bytes((_SOLICITED_OVERRIDE, 0, 0, 0)) + asked.target + _TARGET_LINK_LAYER_ADDRESS + mac
    length = 4 + len(body)
    ip = b"\x60\x00\x00\x00" + length.to_bytes(2, "big") + bytes((ICMPV6_PROTOCOL, 255))
    ip += asked.target + asked.asker
    icmp = bytes((_ADVERTISEMENT, 0, 0, 0)) + body
    checksum = internet_checksum(icmp, 0, length, pseudo_header_sum(ip, 6, 0, ICMPV6_PROTOCOL, length))
    return parse_frame(header + ip + icmp[:2] + checksum.to_bytes(2, "big") + body, frame.header_len, True)


def _is_arp(data: bytes, at: int) -> bool:
    return len(data) >= at + _ARP_LEN and data[at : at + 6] == _ETHERNET_IPV4


def _is_neighbour_message(data: bytes, at: int) -> bool:
    return len(data) >= at + _MESSAGE + _MESSAGE_LEN and data[at + 6] == ICMPV6_PROTOCOL


def _vlans(frame: Frame, network: int) -> tuple[int, ...]:
    """Give the VLAN ids between the Ethernet addresses and the network header."""
    return tuple(
        [
            int.from_bytes(frame.data[at : at + 2], "big") & 0x0FFF
            for at in range(frame.header_len + 14, network, 4)
        ]
    )
