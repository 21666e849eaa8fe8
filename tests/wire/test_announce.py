from typing import Any

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from colo_compare.wire import frame as wire
from colo_compare.wire.announce import gratuitous_arp, unsolicited_advertisement

MAC = b"\x02\x00\x00\x00\x00\x07"
MAC_TEXT = "02:00:00:00:00:07"
ADDRESS = bytes.fromhex("20010db8000000000000000000000002")


def tags(packet: Any) -> list[tuple[type, int]]:
    found = []
    layer = packet.payload
    while isinstance(layer, Dot1Q | Dot1AD):
        found.append((type(layer), layer.vlan))
        layer = layer.payload
    return found


VLANS = [((), []), ((5,), [(Dot1Q, 5)]), ((100, 4095), [(Dot1AD, 100), (Dot1Q, 4095)])]


@pytest.mark.parametrize(("vlans", "expected"), VLANS)
def test_gratuitous_arp(vlans: tuple[int, ...], expected: list[tuple[type, int]]) -> None:
    frame = gratuitous_arp(MAC, b"\x0a\x00\x00\x02", vlans)
    assert frame.reason == wire.ARP
    assert frame.header_len == 0
    packet = Ether(frame.data)
    assert (packet.dst, packet.src) == ("ff:ff:ff:ff:ff:ff", MAC_TEXT)
    assert tags(packet) == expected
    arp = packet[ARP]
    assert (arp.op, arp.hwlen, arp.plen) == (1, 6, 4)
    assert (arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (
        MAC_TEXT,
        "10.0.0.2",
        "00:00:00:00:00:00",
        "10.0.0.2",
    )
    assert bytes(arp.payload) == b""


@pytest.mark.parametrize(("vlans", "expected"), VLANS)
def test_unsolicited_advertisement(vlans: tuple[int, ...], expected: list[tuple[type, int]]) -> None:
    frame = unsolicited_advertisement(MAC, ADDRESS, vlans)
    assert frame.reason == wire.NDP
    packet = Ether(frame.data)
    assert (packet.dst, packet.src) == ("33:33:00:00:00:01", MAC_TEXT)
    assert tags(packet) == expected
    ip = packet[IPv6]
    assert (ip.src, ip.dst, ip.hlim) == ("2001:db8::2", "ff02::1", 255)
    advertisement = packet[ICMPv6ND_NA]
    assert (advertisement.R, advertisement.S, advertisement.O, advertisement.tgt) == (0, 0, 1, "2001:db8::2")
    assert packet[ICMPv6NDOptDstLLAddr].lladdr == MAC_TEXT
    rebuilt = ip.copy()
    del rebuilt[ICMPv6ND_NA].cksum
    assert IPv6(bytes(rebuilt))[ICMPv6ND_NA].cksum == advertisement.cksum
