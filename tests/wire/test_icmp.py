from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6Unknown, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from colo_compare.wire.frame import Frame, parse_frame
from colo_compare.wire.icmp import NO_QUOTE, is_icmp_error, quoted_transport
from tests.packets import on_wire

V4 = IP(src="10.0.0.2", dst="10.0.0.1")
V6 = IPv6(src="2001:db8::2", dst="2001:db8::1")
SEGMENT = TCP(sport=80, dport=43210, seq=7)


def frame_of(ip: Any) -> Frame:
    return parse_frame(on_wire(ip).raw, 0, True)


@pytest.mark.parametrize("message", range(20))
def test_errors_of_icmp(message: int) -> None:
    assert is_icmp_error(frame_of(V4 / ICMP(type=message) / bytes(8))) == (message in (3, 4, 5, 11, 12))


@pytest.mark.parametrize("message", [0, 1, 2, 3, 4, 5, 100, 127, 128, 129, 255])
def test_errors_of_icmpv6(message: int) -> None:
    assert is_icmp_error(frame_of(V6 / ICMPv6Unknown(type=message, msgbody=bytes(4)))) == (
        message in (1, 2, 3, 4)
    )


def quoting4(quote: bytes) -> Frame:
    return frame_of(V4 / ICMP(type=3) / Raw(quote))


def quoting6(quote: bytes) -> Frame:
    return frame_of(V6 / ICMPv6Unknown(type=1, msgbody=bytes(4) + quote))


@pytest.mark.parametrize(
    ("frame", "header"),
    [
        (quoting4(bytes(V4 / SEGMENT)), 20),
        (quoting4(bytes(IP(src="10.0.0.2", dst="10.0.0.1", options=b"\x01" * 8) / SEGMENT)), 28),
        (quoting4(bytes(IP(src="10.0.0.2", dst="10.0.0.1", flags="MF") / SEGMENT)), 20),
        (quoting4(bytes(V4 / SEGMENT)[:20]), 20),
        (quoting6(bytes(V6 / SEGMENT)), 40),
        (quoting6(bytes(V6 / SEGMENT)[:40]), 40),
        (quoting6(bytes(V6 / IPv6ExtHdrDestOpt() / SEGMENT)), 48),
        (quoting6(bytes(V6 / IPv6ExtHdrFragment(m=1) / SEGMENT)), 48),
    ],
)
def test_the_transport_header_of_a_quote(frame: Frame, header: int) -> None:
    assert quoted_transport(frame) == (6, frame.payload + header)


LATER4 = bytes(IP(src="10.0.0.2", dst="10.0.0.1", frag=1) / SEGMENT)
LATER6 = bytes(V6 / IPv6ExtHdrFragment(offset=1) / SEGMENT)


@pytest.mark.parametrize(
    "frame",
    [
        quoting4(b""),
        quoting4(bytes(V4)[:19]),
        quoting4(b"\x44" + bytes(V4 / SEGMENT)[1:]),
        quoting4(bytes(V6 / SEGMENT)),
        quoting4(LATER4),
        quoting4(LATER4[:6] + b"\x01\x00" + LATER4[8:]),
        quoting6(b""),
        quoting6(bytes(V6)[:39]),
        quoting6(bytes(V4 / SEGMENT / bytes(20))),
        quoting6(LATER6),
        quoting6(LATER6[:42] + b"\x01\x00" + LATER6[44:]),
        quoting6(bytes(V6 / IPv6ExtHdrDestOpt())[:44]),
    ],
)
def test_no_quote(frame: Frame) -> None:
    assert quoted_transport(frame)[0] == NO_QUOTE
