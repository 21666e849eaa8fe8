from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment

from colo_compare.wire.describe import describe_flow
from colo_compare.wire.frame import parse_frame
from tests.packets import on_wire

V4 = IP(src="10.0.0.2", dst="10.0.0.1")
V6 = IPv6(src="2001:db8::2", dst="2001:db8::1")


@pytest.mark.parametrize(
    ("ip", "vlans", "expected"),
    [
        (V4 / TCP(sport=80, dport=43210), [], "tcp 10.0.0.2:80 - 10.0.0.1:43210"),
        (V4 / TCP(sport=80, dport=43210), [5], "tcp 10.0.0.2:80 - 10.0.0.1:43210 vlan 5"),
        (V4 / UDP(sport=53, dport=9), [4095, 5], "udp 10.0.0.2:53 - 10.0.0.1:9 vlan 4095 vlan 5"),
        (V6 / TCP(sport=80, dport=43210), [], "tcp [2001:db8::2]:80 - [2001:db8::1]:43210"),
        (V6 / UDP(sport=53, dport=9), [1], "udp [2001:db8::2]:53 - [2001:db8::1]:9 vlan 1"),
        (V4 / ICMP(id=77), [], "icmp 10.0.0.2 - 10.0.0.1 id 77"),
        (V6 / ICMPv6EchoRequest(id=77), [2], "icmpv6 2001:db8::2 - 2001:db8::1 id 77 vlan 2"),
        (V6 / ICMPv6PacketTooBig(), [], "icmpv6 2001:db8::2 - 2001:db8::1"),
        (IP(src="10.0.0.2", dst="10.0.0.1", proto=47) / b"x", [], "ip protocol 47 10.0.0.2 - 10.0.0.1"),
        (
            IP(src="10.0.0.2", dst="10.0.0.1", proto=17, flags="MF") / bytes(8),
            [3],
            "fragment of udp 10.0.0.2 - 10.0.0.1 vlan 3",
        ),
        (
            IPv6(src="::2", dst="::1") / IPv6ExtHdrFragment(m=1, nh=6) / bytes(8),
            [],
            "fragment of tcp ::2 - ::1",
        ),
        (
            IPv6(src="::2", dst="::1") / IPv6ExtHdrFragment(m=1, nh=50) / bytes(8),
            [],
            "fragment of ip protocol 50 ::2 - ::1",
        ),
    ],
)  # fmt: skip
def test_flows(ip: Any, vlans: list[int], expected: str) -> None:
    frame = parse_frame(on_wire(ip, [(0x8100, vlan, 0) for vlan in vlans]).raw, 0, False)
    assert describe_flow(frame.key) == expected


def test_an_opaque_frame_has_no_flow() -> None:
    assert describe_flow(b"") == "(no flow)"
