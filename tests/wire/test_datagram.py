from typing import Any

import pytest
from hypothesis import given
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, ICMPv6Unknown, IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw

from colo_compare.wire.datagram import comparable
from colo_compare.wire.frame import Frame, parse_frame
from colo_compare.wire.vnet import GSO_UDP, GSO_UDP_L4, VnetHeader
from tests.packets import PACKETS, Packet, on_wire


def compared(ip: Any, vnet: bytes = b"", inbound: bool = False) -> list[bytes]:
    return comparable(parse_frame(vnet + on_wire(ip, [], b"padding").raw, len(vnet), inbound))


def v4(**fields: Any) -> Any:
    return IP(src="10.0.0.2", dst="10.0.0.1", **fields)


def v6(**fields: Any) -> Any:
    return IPv6(src="2001:db8::2", dst="2001:db8::1", **fields)


@pytest.mark.parametrize(
    "ip", [v4(), v4(id=7, ttl=3, tos=8, options=b"\x01" * 4), v6(), v6(fl=5, tc=8, hlim=3)]
)
def test_udp_is_its_payload(ip: Any) -> None:
    assert compared(ip / UDP(sport=1, dport=2) / b"said") == [b"said"]
    assert compared(ip / UDP(sport=1, dport=2, chksum=0x1234) / b"said") == [b"said"]
    assert compared(ip / UDP(sport=1, dport=2) / b"") == [b""]


def test_a_gso_frame_holds_several_datagrams() -> None:
    vnet = VnetHeader(gso_type=GSO_UDP_L4, gso_size=4).pack()
    assert compared(v4() / UDP() / b"one.two.six", vnet) == [b"one.", b"two.", b"six"]
    assert compared(v6() / UDP() / b"one.two.", vnet) == [b"one.", b"two."]
    assert compared(v6() / UDP() / b"", vnet) == [b""]


def test_a_datagram_to_be_fragmented_is_one() -> None:
    assert compared(v4() / UDP() / b"one.two.", VnetHeader(gso_type=GSO_UDP, gso_size=4).pack()) == [
        b"one.two."
    ]


def test_icmp_is_type_code_and_body() -> None:
    assert compared(v4() / ICMP(id=7, seq=9) / b"ping") == [b"\x08\x00\x00\x07\x00\x09ping"]
    assert compared(v4() / ICMP(id=7, seq=9, chksum=5) / b"ping") == [b"\x08\x00\x00\x07\x00\x09ping"]
    assert compared(v6() / ICMPv6EchoRequest(id=7, seq=9, data=b"ping")) == [b"\x80\x00\x00\x07\x00\x09ping"]
    assert compared(v4() / ICMP(type=3) / b"") == [b"\x03\x00" + bytes(4)]


QUOTED_UDP = UDP(sport=1, dport=2) / b"said"


def error4(quote: Any, **fields: Any) -> Any:
    return v4() / ICMP(type=3, code=3, **fields) / quote


def error6(quote: Any) -> Any:
    return v6() / ICMPv6PacketTooBig(mtu=1280) / quote


def test_a_quote_is_compared_without_what_routers_choose() -> None:
    plain = compared(error4(v4() / QUOTED_UDP))
    assert plain == compared(error4(v4(id=9, ttl=3, tos=5) / QUOTED_UDP))
    assert plain != compared(error4(v4(flags="DF") / QUOTED_UDP))
    assert plain != compared(error4(v4(len=32 + 256) / QUOTED_UDP))
    assert plain == compared(error4(v4(len=32) / QUOTED_UDP))
    assert plain != compared(error4(v4(proto=18) / QUOTED_UDP))
    assert plain != compared(error4(v4(options=b"\x01" * 4) / QUOTED_UDP))
    assert plain != compared(error4(IP(src="11.0.0.2", dst="10.0.0.1") / QUOTED_UDP))
    assert plain != compared(error4(IP(src="10.0.0.2", dst="10.0.0.3") / QUOTED_UDP))
    assert plain != compared(error4(v4() / UDP(sport=1, dport=2) / b"sent"))
    assert plain != compared(error4(v4() / QUOTED_UDP, nexthopmtu=1280))
    assert len(plain) == 1


def test_a_quote_of_ipv6_too() -> None:
    plain = compared(error6(v6() / QUOTED_UDP))
    assert plain == compared(error6(v6(tc=9, fl=3, hlim=5) / QUOTED_UDP))
    assert plain != compared(error6(v6() / IPv6ExtHdrDestOpt() / QUOTED_UDP))
    assert plain != compared(error6(v6(plen=12 + 256) / QUOTED_UDP))
    assert plain == compared(error6(v6(plen=12) / QUOTED_UDP))
    assert plain != compared(error6(IPv6(src="3001:db8::2", dst="2001:db8::1") / QUOTED_UDP))
    assert plain != compared(error6(IPv6(src="2001:db8::2", dst="2001:db8::3") / QUOTED_UDP))
    assert plain != compared(error6(v6() / UDP(sport=1, dport=2) / b"sent"))


@pytest.mark.parametrize(
    ("error", "ip"),
    [(error4, v4(len=60)), (error6, v6(plen=40)), (error6, v6(plen=40) / IPv6ExtHdrDestOpt())],
)
def test_of_a_quoted_segment_only_ports_and_number_count(error: Any, ip: Any) -> None:
    plain = compared(error(ip / TCP(sport=1, dport=2, seq=7, ack=8, window=9)))
    assert plain == compared(error(ip / TCP(sport=1, dport=2, seq=7, ack=0xFF000008, window=4) / b"more"))
    assert plain != compared(error(ip / TCP(sport=1, dport=2, seq=8, ack=8, window=9)))
    assert plain != compared(error(ip / TCP(sport=1, dport=3, seq=7, ack=8, window=9)))


def test_a_quote_may_end_with_its_header() -> None:
    assert compared(error4(v4(id=1, proto=47))) == compared(error4(v4(id=2, proto=47)))
    assert compared(error6(v6(hlim=1, nh=47))) == compared(error6(v6(hlim=2, nh=47)))


@pytest.mark.parametrize(
    "packet",
    [
        error4(Raw(bytes(v4())[:19])),
        error4(Raw(bytes(v6() / QUOTED_UDP))),
        v6() / ICMPv6Unknown(type=1, msgbody=bytes(4) + bytes(v6())[:39]),
        v6() / ICMPv6Unknown(type=1, msgbody=bytes(4) + bytes(v4() / QUOTED_UDP / bytes(20))),
    ],
)
def test_what_is_no_packet_is_compared_as_it_is(packet: Any) -> None:
    frame = parse_frame(on_wire(packet).raw, 0, False)
    assert comparable(frame) == [frame.data[frame.l4 : frame.l4 + 2] + frame.data[frame.l4 + 4 : frame.end]]


def test_other_ip_is_protocol_and_payload() -> None:
    assert compared(v4(proto=47) / b"said") == [b"\x2fsaid"]
    assert compared(v6(nh=50) / b"said") == [b"\x32said"]
    assert compared(v4(proto=17, flags="MF", id=9) / b"fragment") == [b"\x11fragment"]


def test_tcp_is_all_but_its_checksum() -> None:
    segment = TCP(sport=1, dport=2, seq=7, options=[("MSS", 1460)]) / b"said"
    expected = bytes(TCP(sport=1, dport=2, seq=7, options=[("MSS", 1460)], chksum=0) / b"said")
    assert compared(v4() / segment) == compared(v6() / segment) == [expected]


@pytest.mark.parametrize("vnet", [b"", bytes(12)])
def test_an_opaque_frame_is_all_behind_its_ethernet_header(vnet: bytes) -> None:
    raw = on_wire(v4(ihl=3) / UDP(), [(0x88A8, 5, 0), (0x8100, 6, 0)])
    assert comparable(parse_frame(vnet + raw.raw, len(vnet), False)) == [raw.raw[raw.l3 :]]
    assert comparable(Frame(vnet + b"runt", len(vnet))) == [b"runt"]
    assert comparable(Frame(b"", len(vnet))) == [b""]


@given(PACKETS)
def test_what_is_compared_does_not_depend_on_tags_or_headers(packet: Packet) -> None:
    bare = comparable(parse_frame(packet.raw, 0, False))
    assert comparable(parse_frame(bytes(12) + packet.raw, 12, False)) == bare
    retagged = packet.raw[:12] + b"\x81\x00\x00\x09" + packet.raw[12:]
    if len(packet.vlans) < 4:
        assert comparable(parse_frame(retagged, 0, False)) == bare
