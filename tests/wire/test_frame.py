import struct
from typing import Any

import dpkt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, LLC, STP, Dot1Q, Dot3, Ether
from scapy.packet import Raw

from colo_compare.wire import frame as wire
from colo_compare.wire.flow_key import NO_PORTS
from colo_compare.wire.frame import Frame, parse_frame
from tests import packets
from tests.packets import PACKETS, Packet, fields, on_wire

VNET = bytes(12)
GSO = bytes((1, 1, 66, 0, 0xA8, 0x05, 34, 0, 16, 0, 0, 0))
PLAIN_IP = IP(src="10.0.0.2", dst="10.0.0.1")
PLAIN_IPV6 = IPv6(src="2001:db8::2", dst="2001:db8::1")
PLAIN_TCP = TCP(sport=80, dport=43210, seq=7, ack=9, flags="PA", window=500)


def offsets(ip: Any, l3: int) -> tuple[int, int]:
    """Where scapy sees the transport header, and the end of the datagram."""
    if ip.version == 4:
        return l3 + ip.ihl * 4, l3 + ip.len
    at = l3 + 40
    layer = ip.payload
    while "ExtHdr" in type(layer).__name__:
        at += len(layer) - len(layer.payload)
        layer = layer.payload
    return at, l3 + 40 + ip.plen


def assert_ip_fields(frame: Frame, packet: Packet, protocol: int) -> None:
    ip = packet.ip
    l4, end = offsets(ip, packet.l3 + frame.header_len)
    assert (frame.version, frame.l3, frame.l4, frame.end) == (
        ip.version,
        packet.l3 + frame.header_len,
        l4,
        end,
    )
    assert frame.protocol == protocol
    assert frame.reason == wire.NOT_OPAQUE


@given(packets.tcp_packets(), st.sampled_from((b"", VNET)))
def test_tcp_is_what_scapy_and_dpkt_see(packet: Packet, vnet: bytes) -> None:
    frame = parse_frame(vnet + packet.raw, len(vnet), False)
    assert frame.kind == wire.TCP
    assert_ip_fields(frame, packet, 6)
    tcp = packet.ip[TCP]
    assert (frame.seq, frame.ack, frame.flags, frame.window) == (tcp.seq, tcp.ack, int(tcp.flags), tcp.window)
    assert frame.payload == frame.l4 + tcp.dataofs * 4
    assert frame.data[frame.payload : frame.end] == bytes(tcp.payload)
    assert frame.key == packet.key(tcp.sport, tcp.dport, b"")
    assert parse_frame(packet.raw, 0, True).key == packet.reverse_key(tcp.sport, tcp.dport, b"")

    other = dpkt.tcp.TCP(frame.data[frame.l4 : frame.end])
    assert (frame.seq, frame.ack, frame.flags, frame.window) == (other.seq, other.ack, other.flags, other.win)
    parsed = dpkt.tcp.parse_opts(other.opts)
    known = [option for option, _ in parsed if option is not None]
    assert frame.options == any(option not in (0, 1, 8) for option in known)
    assert frame.unrewritable == any(option in (19, 29, 30) for option in known)
    stamps = [value for option, value in parsed if option == 8]
    if stamps:
        assert frame.data[frame.tsval_at : frame.tsval_at + 8] == stamps[-1]
        assert struct.pack(">II", frame.tsval, frame.tsecr) == stamps[-1]
    else:
        assert (frame.tsval_at, frame.tsval, frame.tsecr) == (0, 0, 0)
    blocks = [value for option, value in parsed if option == 5]
    if blocks:
        assert frame.data[frame.sack_at : frame.sack_at + 8 * frame.sack_blocks] == blocks[-1]
    else:
        assert (frame.sack_at, frame.sack_blocks) == (0, 0)


@given(packets.udp_packets())
def test_udp_is_what_scapy_sees(packet: Packet) -> None:
    frame = parse_frame(packet.raw, 0, False)
    assert frame.kind == wire.UDP
    assert_ip_fields(frame, packet, 17)
    udp = packet.ip[UDP]
    assert frame.payload == frame.l4 + 8
    assert frame.data[frame.payload : frame.end] == bytes(udp.payload)
    assert frame.key == packet.key(udp.sport, udp.dport, b"\x11")
    assert parse_frame(packet.raw, 0, True).key == packet.reverse_key(udp.sport, udp.dport, b"\x11")


@given(packets.icmp_packets())
def test_icmp_is_what_scapy_sees(packet: Packet) -> None:
    frame = parse_frame(packet.raw, 0, False)
    assert frame.kind == wire.ICMP
    protocol = 1 if packet.ip.version == 4 else 58
    assert_ip_fields(frame, packet, protocol)
    assert frame.payload == frame.l4 + 8
    message = packet.raw[frame.l4]
    echo = message in ((0, 8) if protocol == 1 else (128, 129))
    identifier = int.from_bytes(packet.raw[frame.l4 + 4 : frame.l4 + 6], "big") if echo else 0
    assert frame.key == packet.key(identifier, identifier, bytes((protocol,)))
    assert parse_frame(packet.raw, 0, True).key == packet.reverse_key(
        identifier, identifier, bytes((protocol,))
    )


@given(packets.other_packets())
def test_other_ip_is_what_scapy_sees(packet: Packet) -> None:
    frame = parse_frame(packet.raw, 0, False)
    assert frame.kind == wire.OTHER_IP
    protocol = packet.raw[packet.l3 + 9] if packet.ip.version == 4 else frame.protocol
    assert frame.protocol == protocol
    assert frame.payload == frame.l4
    assert frame.end == len(packet.raw) - packet.padding
    assert frame.key == packet.key(0, 0, bytes((protocol,)))
    assert parse_frame(packet.raw, 0, True).key == packet.reverse_key(0, 0, bytes((protocol,)))


@given(packets.fragment_packets())
def test_a_fragment_is_what_scapy_sees(packet: Packet) -> None:
    frame = parse_frame(packet.raw, 0, False)
    assert frame.kind == wire.FRAGMENT
    ip = packet.ip
    header = (
        ip
        if ip.version == 4
        else [layer for layer in layers(ip) if isinstance(layer, IPv6ExtHdrFragment)][-1]
    )
    more = "MF" in ip.flags if ip.version == 4 else header.m == 1
    offset = header.frag if ip.version == 4 else header.offset
    assert (frame.fragment_id, frame.fragment_offset, frame.more_fragments) == (header.id, offset * 8, more)
    assert frame.protocol == 17
    assert frame.payload == frame.l4
    assert frame.end == len(packet.raw) - packet.padding
    assert frame.end - frame.l4 == len(packet.raw) - packet.padding - offsets(ip, packet.l3)[0]
    assert frame.key == packet.key(0, 0, b"\xff\x11")
    assert parse_frame(packet.raw, 0, True).key == packet.reverse_key(0, 0, b"\xff\x11")


def layers(ip: Any) -> list[Any]:
    found = []
    layer = ip
    while layer:
        found.append(layer)
        layer = layer.payload
    return found


@given(PACKETS, st.sampled_from((b"", VNET, GSO)), st.booleans())
def test_no_prefix_raises_or_reaches_beyond_its_end(packet: Packet, vnet: bytes, inbound: bool) -> None:
    data = vnet + packet.raw
    for length in range(len(data) + 1):
        frame = parse_frame(data[:length], len(vnet), inbound)
        assert 0 <= frame.l3 <= frame.l4 <= frame.payload <= frame.end <= length
        assert (frame.kind == wire.OPAQUE) == (frame.reason != wire.NOT_OPAQUE) == (frame.key == b"")
        if length < len(vnet):
            assert frame.reason == wire.BAD_VNET_HEADER
        elif length < len(vnet) + packet.l3:
            assert frame.reason == wire.RUNT
        elif vnet != GSO and length < len(data) - packet.padding:
            assert frame.reason == wire.TRUNCATED


@given(PACKETS, st.data())
def test_no_changed_byte_raises(packet: Packet, data: st.DataObject) -> None:
    mutant = bytearray(packet.raw)
    for _ in range(data.draw(st.integers(1, 6))):
        mutant[data.draw(st.integers(12, len(mutant) - 1))] = data.draw(st.integers(0, 255))
    frame = parse_frame(bytes(mutant), 0, False)
    assert 0 <= frame.l3 <= frame.l4 <= frame.payload <= frame.end <= len(mutant)
    assert (frame.kind == wire.OPAQUE) == (frame.reason != wire.NOT_OPAQUE)


@given(
    st.binary(max_size=100),
    st.sampled_from(
        (b"", b"\x08\x00", b"\x86\xdd", b"\x08\x00\x45", b"\x81\x00\x00\x05\x08\x00\x46", b"\x86\xdd\x60")
    ),
    st.sampled_from((0, 12)),
)
def test_no_garbage_raises(garbage: bytes, start: bytes, header_len: int) -> None:
    data = bytes(header_len + 12) + start + garbage
    frame = parse_frame(data, header_len, False)
    assert frame.end <= len(data)
    if frame.kind == wire.OPAQUE:
        blank = Frame(data, header_len)
        blank.reason = frame.reason
        assert fields(frame) == fields(blank)


@given(packets.ipv4_headers(), packets.tcp_segments(), packets.PADDING, st.booleans())
@example(PLAIN_IP, PLAIN_TCP, b"", False)
def test_the_short_path_and_the_full_one_agree(ip: Any, tcp: Any, padding: bytes, inbound: bool) -> None:
    plain = parse_frame(on_wire(ip / tcp, [], padding).raw, 0, inbound)
    tagged = parse_frame(on_wire(ip / tcp, [(0x8100, 0, 0)], padding).raw, 0, inbound)
    assert tagged.key == plain.key + b"\x00\x00"
    short, full = fields(plain), fields(tagged)
    for name in ("l3", "l4", "payload", "end", "tsval_at", "sack_at"):
        value = short[name]
        assert isinstance(value, int)
        short[name] = value and value + 4
    for name in ("data", "addresses", "ports", "long_key"):
        del short[name], full[name]
    assert short == full


@st.composite
def flows(draw: st.DrawFn) -> tuple[object, bytes]:
    """A flow as values, and its key. Few values, so that two draws often agree in most of them."""
    version = draw(st.sampled_from((4, 6)))
    ports = draw(st.sampled_from(((0x0001, 0x0001), (0xFF06, 0x0011), (0x0011, 0xFF06))))
    vlans = draw(st.lists(st.sampled_from((0, 6, 0x11, 0x106)), max_size=2))
    protocol = draw(st.sampled_from((6, 17, 1, 58, 47, 255)))
    fragment = draw(st.booleans())
    address = draw(st.integers(1, 2))
    ip: Any
    if version == 4:
        ip = IP(src=f"10.0.0.{address}", dst="10.0.0.9", proto=protocol, flags="MF" if fragment else 0)
    else:
        ip = IPv6(src=f"2001:db8::{address}", dst="2001:db8::9", nh=44 if fragment else protocol)
        if fragment:
            ip /= IPv6ExtHdrFragment(nh=protocol, m=1)
    source, destination = ports
    body = (
        source.to_bytes(2, "big")
        + destination.to_bytes(2, "big")
        + b"\x00\x14"
        + bytes(6)
        + b"\x50"
        + bytes(11)
    )
    frame = parse_frame(on_wire(ip / Raw(body), [(0x8100, vlan, 0) for vlan in vlans]).raw, 0, False)
    if protocol == 1 and version == 4 and source >> 8 == 0:
        ports = (0x0014, 0x0014)  # an echo reply: its identifier
    elif frame.kind not in (wire.TCP, wire.UDP):
        ports = (0, 0)
    if fragment:
        ports = (0, 0)
    return (version, address, protocol, fragment, tuple(vlans), ports), frame.key


@given(flows(), flows())
def test_keys_are_equal_where_flows_are(one: tuple[object, bytes], other: tuple[object, bytes]) -> None:
    assert one[1] != b""
    assert (one[0] == other[0]) == (one[1] == other[1])


def ether(payload: Any, ethertype: int) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=ethertype) / payload)


def changed(raw: bytes, at: int, value: bytes) -> bytes:
    return raw[:at] + value + raw[at + len(value) :]


def ipv6_with(next_header: int, body: bytes) -> bytes:
    ip = IPv6(src="2001:db8::2", dst="2001:db8::1", nh=next_header)
    return ether(ip / Raw(body), 0x86DD)


TCP_RAW = on_wire(PLAIN_IP / PLAIN_TCP / b"abc").raw
TCP6_RAW = on_wire(PLAIN_IPV6 / PLAIN_TCP / b"abc").raw
UDP_RAW = on_wire(PLAIN_IP / UDP(sport=53, dport=999) / b"abc").raw
FRAGMENT_RAW = on_wire(IP(src="10.0.0.2", dst="10.0.0.1", flags="MF", proto=17) / Raw(bytes(16))).raw
DESTINATION_OPTIONS = b"\x3c\x00\x01\x04\x00\x00\x00\x00"  # followed by the same

OPAQUE_FRAMES = {
    "arp": (wire.ARP, ether(ARP(), 0x0806)),
    "arp in a vlan": (wire.ARP, bytes(Ether(type=0x8100) / Dot1Q(vlan=5, type=0x0806) / ARP())),
    "lldp": (wire.LINK_CONTROL, ether(Raw(bytes(30)), 0x88CC)),
    "stp": (wire.LINK_CONTROL, bytes(Dot3(dst="01:80:c2:00:00:00", src="02:00:00:00:00:01") / LLC() / STP())),
    "longest length": (wire.LINK_CONTROL, ether(Raw(bytes(30)), 0x05FF)),
    "lowest type": (wire.NON_IP, ether(Raw(bytes(30)), 0x0600)),
    "unknown type": (wire.NON_IP, ether(Raw(bytes(30)), 0x88B5)),
    "five vlans": (wire.NON_IP, on_wire(PLAIN_IP / PLAIN_TCP, [(0x8100, 1, 0)] * 5).raw),
    "empty": (wire.RUNT, b""),
    "router solicitation": (wire.NDP, ipv6_with(58, b"\x85" + bytes(7))),
    "redirect": (wire.NDP, ipv6_with(58, b"\x89" + bytes(39))),
    "mld query": (wire.MLD, ipv6_with(58, b"\x82" + bytes(23))),
    "mld done": (wire.MLD, ipv6_with(58, b"\x84" + bytes(23))),
    "mld report": (wire.MLD, ipv6_with(0, b"\x3a\x00\x05\x02\x00\x00\x01\x00\x8f" + bytes(7))),
    "ipv4 version": (wire.BAD_IP_HEADER, changed(TCP_RAW, 14, b"\x65")),
    "ipv6 version": (wire.BAD_IP_HEADER, changed(TCP6_RAW, 14, b"\x40")),
    "ipv4 header length": (wire.BAD_IP_HEADER, changed(TCP_RAW, 14, b"\x44")),
    "ipv4 header beyond its total length": (wire.BAD_IP_HEADER, changed(TCP_RAW, 16, b"\x00\x13")),
    "ipv4 total length zero": (wire.BAD_IP_HEADER, changed(TCP_RAW, 16, b"\x00\x00")),
    "ipv4 total length beyond the frame": (wire.TRUNCATED, changed(TCP_RAW, 16, b"\x00\x2c")),
    "ipv6 payload length beyond the frame": (wire.TRUNCATED, changed(TCP6_RAW, 18, b"\x00\x18")),
    "extension header beyond the datagram": (wire.BAD_IP_HEADER, ipv6_with(60, b"\x06\x01" + bytes(7))),
    "extension header cut short": (wire.BAD_IP_HEADER, ipv6_with(60, b"\x06\x00" + bytes(5))),
    "endless extension headers": (wire.BAD_IP_HEADER, ipv6_with(60, DESTINATION_OPTIONS * 20)),
    "fragment with a ragged end": (wire.BAD_IP_HEADER, changed(FRAGMENT_RAW, 16, b"\x00\x23")),
    "fragment without data": (wire.BAD_IP_HEADER, changed(FRAGMENT_RAW, 16, b"\x00\x14")),
    "fragment beyond 65535": (wire.BAD_IP_HEADER, changed(FRAGMENT_RAW, 20, b"\x1f\xff")),
    "tcp cut short": (wire.BAD_TRANSPORT_HEADER, changed(TCP_RAW, 16, b"\x00\x27")),
    "tcp data offset too small": (wire.BAD_TRANSPORT_HEADER, changed(TCP_RAW, 46, b"\x40")),
    "tcp data offset too large": (wire.BAD_TRANSPORT_HEADER, changed(TCP_RAW, 46, b"\x60")),
    "udp cut short": (wire.BAD_TRANSPORT_HEADER, changed(UDP_RAW, 16, b"\x00\x1b")),
    "udp length below its header": (wire.BAD_TRANSPORT_HEADER, changed(UDP_RAW, 38, b"\x00\x07")),
    "udp length beyond the datagram": (wire.TRUNCATED, changed(UDP_RAW, 38, b"\x00\x0c")),
    "icmp cut short": (
        wire.BAD_TRANSPORT_HEADER,
        changed(UDP_RAW, 16, b"\x00\x1b")[:23] + b"\x01" + UDP_RAW[24:],
    ),
}


@pytest.mark.parametrize("name", OPAQUE_FRAMES)
def test_opaque(name: str) -> None:
    reason, raw = OPAQUE_FRAMES[name]
    for vnet in (b"", VNET):
        frame = parse_frame(vnet + raw, len(vnet), False)
        assert wire.OPAQUE_REASONS[frame.reason] == wire.OPAQUE_REASONS[reason]
        blank = Frame(vnet + raw, len(vnet))
        blank.reason = reason
        assert fields(frame) == fields(blank)


def test_a_frame_begins_with_nothing_but_its_data() -> None:
    blank = fields(Frame(b"data", 12))
    assert (blank.pop("data"), blank.pop("header_len"), blank.pop("kind")) == (b"data", 12, wire.OPAQUE)
    assert (blank.pop("long_key"), blank.pop("ports")) == (b"", NO_PORTS)
    assert set(blank.values()) == {0}  # False, too


def test_the_last_fragment_that_fits() -> None:
    ip = IP(src="10.0.0.2", dst="10.0.0.1", proto=17, frag=8191)
    frame = parse_frame(on_wire(ip / Raw(bytes(7))).raw, 0, False)
    assert (frame.kind, frame.fragment_offset + frame.end - frame.l4) == (wire.FRAGMENT, 65535)
    assert parse_frame(on_wire(ip / Raw(bytes(8))).raw, 0, False).reason == wire.BAD_IP_HEADER


def test_every_reason_and_kind_has_a_name() -> None:
    reasons = {reason for reason, _ in OPAQUE_FRAMES.values()} | {wire.BAD_VNET_HEADER}
    assert reasons == set(range(1, len(wire.OPAQUE_REASONS)))
    assert wire.KIND_NAMES[wire.OPAQUE] == "opaque"
    assert wire.KIND_NAMES[wire.FRAGMENT] == "fragment"


def test_udp_with_options_behind_its_length() -> None:
    frame = parse_frame(changed(UDP_RAW, 38, b"\x00\x09"), 0, False)
    assert frame.kind == wire.UDP
    assert frame.data[frame.payload : frame.end] == b"abc"


@pytest.mark.parametrize("raw", [changed(TCP_RAW, 16, b"\x00\x00"), changed(TCP6_RAW, 18, b"\x00\x00")])
def test_a_gso_frame_may_have_no_ip_length(raw: bytes) -> None:
    frame = parse_frame(GSO + raw, 12, False)
    assert frame.kind == wire.TCP
    assert frame.end == len(frame.data)
    assert frame.data[frame.payload : frame.end] == b"abc"
    assert parse_frame(VNET + raw, 12, False).kind == wire.OPAQUE


@pytest.mark.parametrize("length", [b"\x00\x00", b"\xff\xff"])
def test_a_gso_frame_may_have_any_udp_length(length: bytes) -> None:
    frame = parse_frame(GSO + changed(UDP_RAW, 38, length), 12, False)
    assert frame.kind == wire.UDP
    assert frame.data[frame.payload : frame.end] == b"abc"


def test_an_unknown_gso_type_loses_nothing() -> None:
    assert parse_frame(changed(GSO, 1, b"\x77") + TCP_RAW, 12, False).kind == wire.TCP


@pytest.mark.parametrize("size", [0, 1, 11])
def test_a_vnet_header_cut_short(size: int) -> None:
    assert parse_frame(VNET[:size], 12, False).reason == wire.BAD_VNET_HEADER


def tcp_with_options(options: bytes) -> Frame:
    options += bytes(-len(options) % 4)
    header = bytes(PLAIN_TCP)[:12] + bytes(((20 + len(options)) << 2,)) + bytes(PLAIN_TCP)[13:] + options
    return parse_frame(on_wire(IP(src="10.0.0.2", dst="10.0.0.1", proto=6) / Raw(header)).raw, 0, False)


STAMP = b"\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x02"

ODD_OPTIONS = {
    "timestamps at an odd offset": (b"\x01" + STAMP, {"tsval_at": 57, "tsval": 1, "tsecr": 2}),
    "the last timestamps count": (
        STAMP + STAMP[:5] + b"\x07" + STAMP[6:], {"tsval_at": 66, "tsval": 7, "tsecr": 2}
    ),
    "nothing counts behind the end": (b"\x00\x02" + STAMP, {}),
    "a length of zero": (b"\x01\x08\x00" + bytes(9), {"options": True}),
    "a length of one": (b"\xfe\x01" + STAMP, {"options": True}),
    "a length beyond the header": (b"\x01\x01\x05\x0a", {"options": True}),
    "a kind without a length": (b"\x01\x01\x01\x08", {"options": True}),
    "timestamps of a wrong length": (b"\x08\x0b" + bytes(9), {"options": True}),
    "sack without blocks": (b"\x05\x02", {"options": True}),
    "sack of half a block": (b"\x05\x06" + bytes(4), {"options": True}),
    "sack of a block and a half": (b"\x05\x0e" + bytes(12), {"options": True}),
    "four sack blocks": (b"\x01\x01\x05\x22" + bytes(32), {"options": True, "sack_at": 58, "sack_blocks": 4}),
    "md5": (b"\x13\x12" + bytes(16), {"options": True, "unrewritable": True}),
    "ao": (b"\x1d\x10" + bytes(14), {"options": True, "unrewritable": True}),
    "mptcp": (b"\x1e\x04\x00\x00", {"options": True, "unrewritable": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_OPTIONS)
def test_tcp_options(name: str) -> None:
    options, expected = ODD_OPTIONS[name]
    frame = tcp_with_options(options)
    assert frame.kind == wire.TCP
    found = {
        field: getattr(frame, field)
        for field in ("options", "tsval_at", "tsval", "tsecr", "sack_at", "sack_blocks", "unrewritable")
        if getattr(frame, field)
    }
    assert found == expected


def test_a_batch_is_parsed_frame_by_frame() -> None:
    batch = [bytes(Ether() / IP() / TCP(sport=port)) for port in (1, 2)]
    for inbound in (False, True):
        assert [frame.key for frame in wire.parse_frames(batch, 0, inbound)] == [
            wire.parse_frame(data, 0, inbound).key for data in batch
        ]
    assert wire.parse_frames([], 0, False) == []


def test_options_of_ip_make_no_other_flow() -> None:
    tcp = TCP(sport=80, dport=7)
    plain, options = (bytes(Ether() / IP(dst="10.0.0.2", options=each) / tcp) for each in (b"", b"\x01" * 4))
    for inbound in (False, True):
        one, two = (parse_frame(data, 0, inbound) for data in (plain, options))
        assert (one.addresses, one.ports, one.long_key) == (two.addresses, two.ports, two.long_key)
        assert (one.ports, one.long_key) == (((80 << 16) | 7, (7 << 16) | 80)[inbound], b"")


@pytest.mark.parametrize("data", [bytes(Ether() / IP() / TCP()), bytes(Ether() / Dot1Q() / IP() / TCP())])
def test_a_frame_of_the_same_flow(data: bytes) -> None:
    frame, other = parse_frame(data, 0, False), Frame(b"", 0)
    other.join_flow_of(frame)
    assert (other.addresses, other.ports, other.key) == (frame.addresses, frame.ports, frame.key)
