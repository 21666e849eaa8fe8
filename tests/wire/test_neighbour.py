from typing import Any

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from colo_compare.wire.frame import Frame, parse_frame
from colo_compare.wire.neighbour import Claim, Question, answer, claim, question

GUEST = "02:50:00:00:00:02"
CLIENT = "02:c0:00:00:00:01"
GUEST_MAC = bytes.fromhex("025000000002")
CLIENT_MAC = bytes.fromhex("02c000000001")
GUEST4, CLIENT4 = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 1))
GUEST6, CLIENT6 = bytes.fromhex("fd" + "00" * 14 + "02"), bytes.fromhex("fd" + "00" * 14 + "01")


def frame(packet: Any, header_len: int = 0) -> Frame:
    return parse_frame(bytes(header_len) + bytes(packet), header_len, False)


def request(vlan: int = 0, **arp: Any) -> Any:
    tags = Ether(src=GUEST, dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=vlan) if vlan else Ether(src=GUEST)
    fields = {"op": 1, "hwsrc": GUEST, "psrc": "10.0.0.2", "pdst": "10.0.0.1"} | arp
    return tags / ARP(**fields)


def solicitation(source: str = "fd00::2", target: str = "fd00::1") -> Any:
    return (
        Ether(src=GUEST, dst="33:33:ff:00:00:01")
        / IPv6(src=source, dst="ff02::1:ff00:1", hlim=255)
        / ICMPv6ND_NS(tgt=target)
        / ICMPv6NDOptSrcLLAddr(lladdr=GUEST)
    )


def test_who_asks_or_answers_claims_its_address() -> None:
    assert claim(frame(request())) == Claim(GUEST_MAC, GUEST4, ())
    assert claim(frame(request(vlan=7), 12)) == Claim(GUEST_MAC, GUEST4, (7,))
    reply = Ether(src=CLIENT, dst=GUEST) / ARP(op=2, hwsrc=CLIENT, psrc="10.0.0.1", pdst="10.0.0.2")
    assert claim(frame(reply)) == Claim(CLIENT_MAC, CLIENT4, ())
    assert claim(frame(solicitation())) == Claim(GUEST_MAC, GUEST6, ())
    advertisement = Ether(src=CLIENT) / IPv6(src="fd00::1", dst="fd00::2") / ICMPv6ND_NA(tgt="fd00::1")
    assert claim(frame(advertisement)) == Claim(CLIENT_MAC, CLIENT6, ())


@pytest.mark.parametrize(
    "packet",
    [
        request(psrc="0.0.0.0"),  # a probe (RFC 5227, 2.1.1)
        solicitation(source="::"),  # duplicate address detection
        Ether(src=GUEST, type=0x0806) / Raw(bytes(10)),  # truncated
        Ether(src=GUEST) / IPv6(src="fd00::2", dst="ff02::2", nh=58) / Raw(b"\x85" + bytes(7)),  # a router's
        Ether(src=GUEST) / IPv6(src="fd00::2", dst="ff02::2", nh=58) / Raw(b"\x85" + bytes(30)),
        Ether(src=GUEST, type=0x88CC) / Raw(bytes(40)),
    ],
)
def test_what_claims_and_asks_nothing(packet: Any) -> None:
    assert claim(frame(packet)) is None
    assert question(frame(packet)) is None


def test_an_answer_and_an_announcement_ask_nothing() -> None:
    assert question(frame(request(op=2))) is None
    assert question(frame(request(pdst="10.0.0.2"))) is None


def test_an_arp_request_is_answered() -> None:
    asks = frame(request(vlan=7), 12)
    asked = question(asks)
    assert asked == Question(GUEST_MAC, GUEST4, CLIENT4, (7,))
    assert asked is not None
    seen = Ether(answer(asks, asked, CLIENT_MAC).data[12:])
    assert (seen.src, seen.dst, seen[Dot1Q].vlan) == (CLIENT, GUEST, 7)
    reply = seen[ARP]
    assert (reply.op, reply.hwsrc, reply.psrc) == (2, CLIENT, "10.0.0.1")
    assert (reply.hwdst, reply.pdst) == (GUEST, "10.0.0.2")


def test_a_solicitation_is_answered() -> None:
    asks = frame(solicitation())
    asked = question(asks)
    assert asked == Question(GUEST_MAC, GUEST6, CLIENT6, ())
    assert asked is not None
    seen = Ether(answer(asks, asked, CLIENT_MAC).data)
    assert (seen.src, seen.dst) == (CLIENT, GUEST)
    assert (seen[IPv6].src, seen[IPv6].dst, seen[IPv6].hlim) == ("fd00::1", "fd00::2", 255)
    advertisement = seen[ICMPv6ND_NA]
    assert (advertisement.S, advertisement.O, advertisement.R) == (1, 1, 0)
    assert advertisement.tgt == "fd00::1"
    assert advertisement[ICMPv6NDOptDstLLAddr].lladdr == CLIENT
    rebuilt = seen.copy()
    del rebuilt[ICMPv6ND_NA].cksum
    assert Ether(bytes(rebuilt))[ICMPv6ND_NA].cksum == advertisement.cksum
