"""What arrives of ARP and neighbour discovery."""

from colo_compare.guest import neighbours, solicit
from colo_compare.guest.boot import MAPPED
from colo_compare.guest.turn import Turn
from colo_compare.wire.checksum import ICMPV6_PROTOCOL, internet_checksum, pseudo_header_sum
from colo_compare.wire.ethernet import ETHERNET_LEN
from colo_compare.wire.frame import Frame

_ARP_LEN = 28
_MESSAGE = ETHERNET_LEN + 40
_OPTIONS = _MESSAGE + 24


def receive_arp(turn: Turn, frame: Frame) -> None:
    """Take an ARP message (RFC 826: merge first, then answer)."""
    data = frame.data
    at = ETHERNET_LEN
    if len(data) < at + _ARP_LEN or data[at : at + 6] != b"\x00\x01\x08\x00\x06\x04":
        turn.header.damaged += 1
        return
    mac = data[at + 8 : at + 14]
    sender = data[at + 14 : at + 18]
    for_us = MAPPED + data[at + 24 : at + 28] == turn.header.address4
    if not any(sender):  # a probe (RFC 5227, 2.1.1) says nothing of its sender
        if for_us and data[at + 7] == 1:
            turn.out.append(solicit.arp_reply(turn.header, mac, sender))
        return
    if MAPPED + sender == turn.header.address4:
        return  # someone else claims our address; with a clone at our side that is no news
    reply = data[at + 7] == 2
    neighbours.learn(turn, MAPPED + sender, mac, solicited=reply and for_us, create=for_us)
    if for_us and data[at + 7] == 1:
        turn.out.append(solicit.arp_reply(turn.header, mac, sender))


def receive_discovery(turn: Turn, frame: Frame) -> None:
    """Take a neighbour solicitation or advertisement; all else of neighbour discovery is ignored."""
    data = frame.data
    if len(data) < _OPTIONS or data[ETHERNET_LEN + 6] != ICMPV6_PROTOCOL or data[ETHERNET_LEN + 7] != 255:
        turn.header.damaged += 1  # RFC 4861, 7.1: a hop limit below 255 came through a router
        return
    length = (data[ETHERNET_LEN + 4] << 8) | data[ETHERNET_LEN + 5]
    end = _MESSAGE + length
    initial = pseudo_header_sum(data, 6, ETHERNET_LEN, ICMPV6_PROTOCOL, length)
    if length < 24 or end > len(data) or internet_checksum(data, _MESSAGE, end, initial) != 0:
        turn.header.damaged += 1
        return
    sender = data[ETHERNET_LEN + 8 : ETHERNET_LEN + 24]
    target = data[_MESSAGE + 8 : _OPTIONS]
    if data[_MESSAGE] == solicit.SOLICITATION:
        _solicited(turn, data[6:12], sender, target, _option(data, end, 1))
    elif data[_MESSAGE] == solicit.ADVERTISEMENT:
        flags = data[_MESSAGE + 4]
        mac = _option(data, end, 2) or data[6:12]
        neighbours.learn(turn, target, mac, solicited=flags & 0x40 != 0, create=False)


def _solicited(turn: Turn, link: bytes, sender: bytes, target: bytes, mac: bytes) -> None:
    header = turn.header
    if target not in (header.address6, header.link_local):
        return
    if not any(sender):  # it looks for duplicates (RFC 4862, 5.4.3): the answer goes to all nodes
        all_nodes = b"\xff\x02" + bytes(13) + b"\x01"
        turn.out.append(solicit.advertisement(header, b"\x33\x33\x00\x00\x00\x01", all_nodes, target))
        return
    neighbours.learn(turn, sender, mac or link, solicited=False, create=True)
    turn.out.append(solicit.advertisement(header, mac or link, sender, target))


def _option(data: bytes, end: int, kind: int) -> bytes:
    """Give the MAC address in an option of a neighbour discovery message, b"" without one."""
    at = _OPTIONS
    while at + 8 <= end and data[at + 1]:
        if data[at] == kind and data[at + 1] == 1:
            return data[at + 2 : at + 8]
        at += data[at + 1] * 8
    return b""
