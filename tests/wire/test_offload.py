from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from colo_compare.wire import frame as wire
from colo_compare.wire.checksum import pseudo_header_sum, transport_checksum_ok
from colo_compare.wire.frame import Frame, parse_frame
from colo_compare.wire.offload import materialise
from colo_compare.wire.rewrite import rewrite_tcp
from colo_compare.wire.vnet import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    NEEDS_CSUM,
    VnetHeader,
)
from tests import packets
from tests.packets import Packet, on_wire

V4 = IP(src="10.0.0.2", dst="10.0.0.1", id=0xFFFE)
V6 = IPv6(src="2001:db8::2", dst="2001:db8::1")
PAYLOADS = st.binary(max_size=40).map(lambda part: part * 40)


def offloaded(packet: Packet, gso_type: int = 0, gso_size: int = 0) -> Frame:
    """The frame as a guest with offloads sends it: the checksum field holds the pseudo-header's sum."""
    plain = parse_frame(packet.raw, 0, False)
    field = plain.l4 + (16 if plain.kind == wire.TCP else 6)
    total = pseudo_header_sum(packet.raw, plain.version, plain.l3, plain.protocol, plain.end - plain.l4)
    raw = packet.raw[:field] + (total % 0xFFFF or 0xFFFF).to_bytes(2, "big") + packet.raw[field + 2 :]
    header = VnetHeader(NEEDS_CSUM, gso_type, plain.payload, gso_size, plain.l4, field - plain.l4)
    return parse_frame(header.pack() + raw, 12, False)


def dissect(raw: bytes, packet: Packet) -> Any:
    """The IP layer of a segment; its checksums and lengths are scapy's own."""
    ip = Packet(raw, packet.vlans, packet.l3, 0).ip
    rebuilt = ip.copy()
    if ip.version == 4:
        del rebuilt.chksum, rebuilt.len
    else:
        del rebuilt.plen
    transport = TCP if TCP in ip else UDP
    del rebuilt[transport].chksum
    if transport is UDP:
        del rebuilt[transport].len
    assert bytes(rebuilt) == bytes(ip)
    assert raw[: packet.l3] == packet.raw[: packet.l3]
    return ip


@given(packets.tcp_packets() | packets.udp_packets())
def test_a_partial_checksum_is_completed(packet: Packet) -> None:
    frame = offloaded(packet)
    assert materialise(frame) == [packet.raw]


@given(packets.PACKETS)
def test_nothing_to_do(packet: Packet) -> None:
    assert materialise(parse_frame(packet.raw, 0, False)) == [packet.raw]
    assert materialise(parse_frame(bytes(12) + packet.raw, 12, False)) == [packet.raw]


def test_a_checksum_of_zero_is_sent_as_ones() -> None:
    raw = on_wire(V4 / UDP(sport=1, dport=2) / b"\x00\x00").raw
    checksum = int.from_bytes(raw[40:42], "big")
    packet = on_wire(V4 / UDP(sport=1, dport=2) / checksum.to_bytes(2, "big"))
    assert packet.raw[40:42] == b"\xff\xff"
    assert materialise(offloaded(packet)) == [packet.raw]


@given(st.binary(max_size=80), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
@example(bytes(60), 59, 0)
def test_a_header_that_points_outside_changes_no_length(body: bytes, start: int, offset: int) -> None:
    header = VnetHeader(NEEDS_CSUM, 0, 0, 0, start, offset)
    (bare,) = materialise(parse_frame(header.pack() + body, 12, False))
    assert len(bare) == len(body)
    if start + offset + 2 > len(body):
        assert bare == body


def test_a_frame_without_a_whole_header() -> None:
    assert materialise(Frame(bytes(11), 12)) == [b""]


@given(
    packets.IP_HEADERS,
    packets.tcp_segments(),
    PAYLOADS,
    packets.VLANS,
    st.sampled_from((1, 100, 536, 1448, 65535)),
    st.sampled_from((0, GSO_ECN)),
)
def test_tcp_segments(
    ip: Any, tcp: Any, payload: bytes, vlans: list[tuple[int, int, int]], size: int, ecn: int
) -> None:
    payload = payload[: 20 * size]
    tcp.remove_payload()
    packet = on_wire(ip / tcp / Raw(payload), vlans)
    segments = materialise(offloaded(packet, (GSO_TCPV4 if ip.version == 4 else GSO_TCPV6) | ecn, size))
    assert len(segments) == max(1, -(-len(payload) // size))
    whole = packet.ip
    joined = b""
    for index, raw in enumerate(segments):
        part = dissect(raw, packet)
        assert part[TCP].seq == (whole[TCP].seq + len(joined)) & 0xFFFFFFFF
        flags = int(whole[TCP].flags)
        if index > 0:
            flags &= 0x7F
        if index < len(segments) - 1:
            flags &= 0xF6
        assert int(part[TCP].flags) == flags
        assert part[TCP].options == whole[TCP].options
        assert (part[TCP].ack, part[TCP].window) == (whole[TCP].ack, whole[TCP].window)
        if ip.version == 4:
            assert part.id == (whole.id + index) & 0xFFFF
            assert (part.tos, part.ttl, part.flags) == (whole.tos, whole.ttl, whole.flags)
        said = bytes(part[TCP].payload)
        assert len(said) <= size
        joined += said
    assert joined == payload


@given(packets.IP_HEADERS, PAYLOADS, packets.VLANS, st.sampled_from((1, 100, 536, 1448)))
def test_udp_datagrams(ip: Any, payload: bytes, vlans: list[tuple[int, int, int]], size: int) -> None:
    payload = payload[: 20 * size]
    packet = on_wire(ip / UDP(sport=53, dport=999) / Raw(payload), vlans)
    segments = materialise(offloaded(packet, GSO_UDP_L4, size))
    assert len(segments) == max(1, -(-len(payload) // size))
    said = []
    for index, raw in enumerate(segments):
        part = dissect(raw, packet)
        assert (part[UDP].sport, part[UDP].dport) == (53, 999)
        if ip.version == 4:
            assert part.id == (packet.ip.id + index) & 0xFFFF
        said.append(bytes(part[UDP].payload))
    assert b"".join(said) == payload
    assert all(len(part) == size for part in said[:-1])


def test_a_rewritten_frame_is_cut_right() -> None:
    packet = on_wire(V4 / TCP(sport=1, dport=2, seq=5, options=[("Timestamp", (1, 2))]) / bytes(3000))
    rewritten = rewrite_tcp(offloaded(packet, GSO_TCPV4, 1448), 0xFFFFFFFF, 7, 8, 9, 10, 0)
    segments = [dissect(raw, packet) for raw in materialise(rewritten)]
    assert [part[TCP].seq for part in segments] == [0xFFFFFFFF, 1447, 2895]
    assert {(part[TCP].ack, part[TCP].window, part[TCP].options[0]) for part in segments} == {
        (7, 8, ("Timestamp", (9, 10)))
    }


@pytest.mark.parametrize(
    ("packet", "gso_type"),
    [
        (on_wire(V4 / UDP(sport=1, dport=2) / bytes(3000)), GSO_UDP),
        (on_wire(V4 / UDP(sport=1, dport=2) / bytes(3000)), GSO_TCPV4),
        (on_wire(V6 / TCP(sport=1, dport=2) / bytes(3000)), GSO_UDP_L4),
        (on_wire(V6 / TCP(sport=1, dport=2) / bytes(3000)), 0x55),
    ],
)
def test_what_cannot_be_cut_comes_out_whole(packet: Packet, gso_type: int) -> None:
    (bare,) = materialise(offloaded(packet, gso_type, 1000))
    assert bare == packet.raw
    assert transport_checksum_ok(parse_frame(bare, 0, False))
