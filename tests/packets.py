"""Packets that scapy builds, and Hypothesis strategies that draw them: an oracle independent of wire/.

`tests.frames` builds packets with struct, without scapy's 0.3 s of import and 0.3 ms a packet.
"""

import ast
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
)
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6Unknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from colo_compare.wire.frame import Frame

U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF) | st.sampled_from((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
PORTS = st.integers(1, 0xFFFF)
IPV4_ADDRESSES = st.integers(1, 0xDFFFFFFF).map(lambda value: str(ip_address(value)))
IPV6_ADDRESSES = st.binary(min_size=15, max_size=15).map(lambda tail: str(ip_address(b"\x20" + tail)))
PAYLOADS = st.binary(max_size=50)
VLANS = st.lists(
    st.tuples(st.sampled_from((0x8100, 0x88A8, 0x9100)), st.integers(0, 0xFFF), st.integers(0, 15)),
    max_size=4,
)
PADDING = st.just(b"") | st.binary(max_size=20)

TCP_OPTIONS = st.one_of(
    st.just(("NOP", None)),
    st.tuples(st.just("MSS"), U16),
    st.tuples(st.just("WScale"), st.integers(0, 14)),
    st.just(("SAckOK", b"")),
    st.tuples(st.just("Timestamp"), st.tuples(U32, U32)),
    st.tuples(st.just("SAck"), st.lists(U32, min_size=2, max_size=2).map(tuple)),
    st.tuples(st.just("SAck"), st.lists(U32, min_size=4, max_size=4).map(tuple)),
    st.tuples(st.just("SAck"), st.lists(U32, min_size=6, max_size=6).map(tuple)),
    st.tuples(st.sampled_from((30, 253)), st.binary(max_size=10)),
    st.tuples(st.just("MD5"), st.binary(min_size=16, max_size=16)),
)
STANDARD_OPTIONS = st.tuples(U32, U32).map(lambda times: [("NOP", None), ("NOP", None), ("Timestamp", times)])


def _frame_fields() -> tuple[str, ...]:
    """Read the names of all fields from the source: a class that mypyc compiled has no annotations."""
    source = Path(__file__).parent.parent / "colo_compare" / "wire" / "frame.py"
    classes = [node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef)]
    fields = [ast.unparse(node.target) for node in classes[0].body if isinstance(node, ast.AnnAssign)]
    assert {"data", "addresses", "ports", "long_key", "more_fragments"} <= set(fields)
    return tuple(fields)


FRAME_FIELDS = _frame_fields()


def fields(frame: Frame) -> dict[str, object]:
    """Give every field of a frame by name, to compare two frames."""
    return {name: getattr(frame, name) for name in FRAME_FIELDS}


@dataclass
class Packet:
    """A packet as the wire carries it, and what scapy sees in it."""

    raw: bytes  # the Ethernet frame
    vlans: tuple[int, ...]
    l3: int  # start of the IP header
    padding: int  # bytes behind the IP datagram

    @property
    def ip(self) -> Any:
        """The IP layer, dissected by scapy."""
        layer = IP if self.raw[self.l3] >> 4 == 4 else IPv6
        return layer(self.raw[self.l3 : len(self.raw) - self.padding])

    def key(self, sport: int, dport: int, tail: bytes) -> bytes:
        """The flow key that this packet has to have if a guest sent it."""
        ip = self.ip
        addresses = ip_address(ip.src).packed + ip_address(ip.dst).packed
        ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
        return addresses + ports + b"".join(vlan.to_bytes(2, "big") for vlan in self.vlans) + tail

    def reverse_key(self, sport: int, dport: int, tail: bytes) -> bytes:
        """The flow key that this packet has to have if the client sent it."""
        ip = self.ip
        addresses = ip_address(ip.dst).packed + ip_address(ip.src).packed
        ports = dport.to_bytes(2, "big") + sport.to_bytes(2, "big")
        return addresses + ports + b"".join(vlan.to_bytes(2, "big") for vlan in self.vlans) + tail


def on_wire(ip: Any, vlans: list[tuple[int, int, int]] | None = None, padding: bytes = b"") -> Packet:
    """Put an IP packet into an Ethernet frame; `vlans` are (TPID, VLAN id, priority and DEI)."""
    ethertype = 0x0800 if ip.version == 4 else 0x86DD
    header = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=ethertype))
    tags = b"".join(
        tpid.to_bytes(2, "big") + (priority << 12 | vlan).to_bytes(2, "big")
        for tpid, vlan, priority in vlans or []
    )
    raw = header[:12] + tags + header[12:] + bytes(ip) + padding
    return Packet(raw, tuple(vlan for _, vlan, _ in vlans or []), 14 + len(tags), len(padding))


def fitting(options: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Leave out what exceeds the 40 bytes that TCP has for options."""
    fitted: list[tuple[Any, Any]] = []
    for option in options:
        if len(bytes(TCP(options=[*fitted, option]))) <= 60:
            fitted.append(option)
    return fitted


@st.composite
def tcp_segments(draw: st.DrawFn) -> Any:
    options = draw(st.just([]) | STANDARD_OPTIONS | st.lists(TCP_OPTIONS, max_size=6).map(fitting))
    segment = TCP(
        sport=draw(PORTS),
        dport=draw(PORTS),
        seq=draw(U32),
        ack=draw(U32),
        flags=draw(st.integers(0, 0xFF)),
        window=draw(U16),
        urgptr=draw(U16),
        options=options,
    )
    return segment / Raw(draw(PAYLOADS))


@st.composite
def ipv4_headers(draw: st.DrawFn) -> Any:
    options = st.sampled_from(
        (IPOption_NOP(), IPOption_Router_Alert(), IPOption_RR(length=7, routers=["10.0.0.9"]))
    )
    return IP(
        src=draw(IPV4_ADDRESSES),
        dst=draw(IPV4_ADDRESSES),
        tos=draw(st.integers(0, 255)),
        ttl=draw(st.integers(0, 255)),
        id=draw(U16),
        flags=draw(st.sampled_from((0, "DF"))),
        options=draw(st.just([]) | st.lists(options, max_size=4)),
    )


@st.composite
def ipv6_headers(draw: st.DrawFn) -> Any:
    ip = IPv6(
        src=draw(IPV6_ADDRESSES),
        dst=draw(IPV6_ADDRESSES),
        tc=draw(st.integers(0, 255)),
        fl=draw(st.integers(0, 0xFFFFF)),
        hlim=draw(st.integers(0, 255)),
    )
    if draw(st.booleans()):
        return ip
    if draw(st.booleans()):
        ip /= IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(draw(st.integers(0, 12))))])
    for extension in draw(st.lists(st.integers(0, 2), max_size=3)):
        if extension == 0:
            ip /= IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(draw(st.integers(0, 12))))])
        elif extension == 1:
            ip /= IPv6ExtHdrRouting(addresses=["2001:db8::5"], segleft=0)
        else:
            ip /= IPv6ExtHdrFragment(offset=0, m=0, id=draw(U32))
    return ip


IP_HEADERS = ipv4_headers() | ipv6_headers()


@st.composite
def tcp_packets(draw: st.DrawFn) -> Packet:
    return on_wire(draw(IP_HEADERS) / draw(tcp_segments()), draw(VLANS), draw(PADDING))


@st.composite
def udp_packets(draw: st.DrawFn) -> Packet:
    datagram = UDP(sport=draw(PORTS), dport=draw(PORTS)) / Raw(draw(PAYLOADS))
    return on_wire(draw(IP_HEADERS) / datagram, draw(VLANS), draw(PADDING))


@st.composite
def icmp_packets(draw: st.DrawFn) -> Packet:
    """Echo, other messages without ports, and errors that quote a TCP segment."""
    kind = draw(st.integers(0, 2))
    if draw(st.booleans()):
        quoted = draw(ipv4_headers()) / draw(tcp_segments())
        message = (
            ICMP(type=draw(st.sampled_from((0, 8))), id=draw(U16), seq=draw(U16)) / Raw(draw(PAYLOADS)),
            ICMP(type=draw(st.sampled_from((13, 14, 40)))),
            ICMP(type=draw(st.sampled_from((3, 4, 5, 11, 12))), code=draw(st.integers(0, 3))) / quoted,
        )[kind]
        return on_wire(draw(ipv4_headers()) / message, draw(VLANS), draw(PADDING))
    quoted = draw(ipv6_headers()) / draw(tcp_segments())
    message = (
        draw(st.sampled_from((ICMPv6EchoRequest, ICMPv6EchoReply)))(id=draw(U16), data=draw(PAYLOADS)),
        ICMPv6Unknown(type=144, msgbody=draw(st.binary(min_size=4, max_size=20))),
        ICMPv6PacketTooBig(mtu=1280) / quoted,
    )[kind]
    return on_wire(draw(ipv6_headers()) / message, draw(VLANS), draw(PADDING))


@st.composite
def other_packets(draw: st.DrawFn) -> Packet:
    """Protocols that are compared whole: GRE, ESP, AH, OSPF, SCTP."""
    ip = draw(IP_HEADERS)
    protocol = draw(st.sampled_from((47, 50, 51, 89, 132)))
    if ip.version == 4:
        ip.proto = protocol
    else:
        ip.lastlayer().nh = protocol
    return on_wire(ip / Raw(draw(st.binary(min_size=1, max_size=40))), draw(VLANS), draw(PADDING))


@st.composite
def fragment_packets(draw: st.DrawFn) -> Packet:
    """One fragment, the first or a later one."""
    more = draw(st.booleans())
    offset = draw(st.integers(0 if more else 1, 8000))
    data = Raw(draw(st.binary(min_size=1, max_size=5)) * 8)
    if draw(st.booleans()):
        ip = draw(ipv4_headers())
        ip.flags = "MF" if more else 0
        ip.frag = offset
        ip.proto = 17
        return on_wire(ip / data, draw(VLANS), draw(PADDING))
    header = IPv6ExtHdrFragment(offset=offset, m=int(more), id=draw(U32), nh=17)
    return on_wire(draw(ipv6_headers()) / header / data, draw(VLANS), draw(PADDING))


PACKETS = st.one_of(tcp_packets(), udp_packets(), icmp_packets(), other_packets(), fragment_packets())
