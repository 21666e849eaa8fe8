from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from colo_compare.wire.checksum import transport_checksum_ok
from colo_compare.wire.frame import ACK, FIN, PSH, SYN, URG, Frame, parse_frame
from colo_compare.wire.offload import materialise
from colo_compare.wire.split import can_split, split_tcp
from colo_compare.wire.vnet import GSO_NONE, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, VnetHeader, gso_size, gso_type

CWR = 0x80


def packet(payload: bytes, flags: int = ACK, version: int = 4, vlan: bool = False, **tcp: Any) -> bytes:
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    if vlan:
        ether /= Dot1Q(vlan=5)
    ip = IP(src="10.0.0.2", dst="10.0.0.1") if version == 4 else IPv6(src="fd00::2", dst="fd00::1")
    segment = TCP(
        sport=80, dport=4000, seq=0xFFFFFFF0, ack=7, flags=flags, options=[("Timestamp", (5, 6))], **tcp
    )
    return bytes(ether / ip / segment / Raw(payload))


def large(payload: bytes, version: int, size: int) -> Frame:
    """A GSO frame with a partial checksum, as a guest with offloads sends it."""
    bare = parse_frame(packet(payload, ACK | PSH, version), 0, False)
    kind = GSO_TCPV4 if version == 4 else GSO_TCPV6
    header = VnetHeader(NEEDS_CSUM, kind, bare.payload, size, bare.l4, 16, 0)
    return parse_frame(header.pack() + bare.data, 12, False)


@given(
    payload=st.binary(min_size=2, max_size=300),
    version=st.sampled_from([4, 6]),
    vlan=st.booleans(),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN, ACK | CWR | PSH | FIN]),
    data=st.data(),
)
def test_two_frames_say_what_one_said(
    payload: bytes, version: int, vlan: bool, flags: int, data: st.DataObject
) -> None:
    frame = parse_frame(packet(payload, flags, version, vlan), 0, False)
    length = data.draw(st.integers(1, len(payload) - 1))
    first, rest = split_tcp(frame, length)
    for part, said, seq in (
        (first, payload[:length], 0xFFFFFFF0),
        (rest, payload[length:], 0xFFFFFFF0 + length),
    ):
        assert part.data[part.payload : part.end] == said
        assert part.seq == seq & 0xFFFFFFFF
        assert (part.ack, part.window, part.tsval, part.tsecr) == (7, frame.window, 5, 6)
        assert part.key == frame.key
        assert transport_checksum_ok(part)
        seen = Ether(part.data)
        layer = seen[IP] if version == 4 else seen[IPv6]
        rebuilt = layer.copy()
        if version == 4:
            del rebuilt.chksum
            assert IP(bytes(rebuilt)).chksum == layer.chksum
            assert layer.len == len(bytes(layer))
        else:
            assert layer.plen == len(bytes(layer)) - 40
    assert first.flags == flags & ~(FIN | PSH)
    assert rest.flags == flags & ~CWR


@pytest.mark.parametrize("version", [4, 6])
def test_a_gso_frame_stays_one_where_it_is_large(version: int) -> None:
    payload = bytes(range(256)) * 16
    frame = large(payload, version, 1000)
    first, rest = split_tcp(frame, 600)
    assert gso_type(first) == GSO_NONE
    assert gso_size(first) == 0
    assert gso_type(rest) == gso_type(frame)
    assert gso_size(rest) == 1000
    pieces = [parse_frame(data, 0, False) for part in (first, rest) for data in materialise(part)]
    assert b"".join([piece.data[piece.payload : piece.end] for piece in pieces]) == payload
    for piece in pieces:
        assert transport_checksum_ok(piece), "the partial checksum was of the new length"
    assert [piece.flags & PSH for piece in pieces] == [0] * (len(pieces) - 1) + [PSH]


def test_a_syn_and_urgent_data_are_not_cut() -> None:
    assert can_split(parse_frame(packet(b"ab"), 0, False))
    assert not can_split(parse_frame(packet(b"ab", SYN | ACK), 0, False))
    assert not can_split(parse_frame(packet(b"ab", ACK | URG, urgptr=1), 0, False))


def test_a_frame_longer_than_ip_can_tell_is_not_cut() -> None:
    """BIG TCP: the length field of such a frame is zero."""
    frame = parse_frame(packet(b"ab"), 0, False)
    frame.end = frame.l3 + 0x10000
    assert not can_split(frame)
