from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, defragment, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
    fragment6,
)
from scapy.packet import Raw

from colo_compare.wire import frame as wire
from colo_compare.wire.checksum import transport_checksum_ok
from colo_compare.wire.fragments import join_fragments
from colo_compare.wire.frame import Frame, parse_frame
from tests.packets import fields, on_wire

PAYLOAD = bytes(range(256)) * 4
V4 = IP(src="10.0.0.2", dst="10.0.0.1", id=77, ttl=9, tos=4)
V6 = IPv6(src="2001:db8::2", dst="2001:db8::1", hlim=9, fl=3)
TAGS = [(0x88A8, 100, 0), (0x8100, 5, 3)]


def parsed(ip: Any, vnet: bytes = b"", inbound: bool = False) -> Frame:
    frame = parse_frame(vnet + on_wire(ip, TAGS).raw, len(vnet), inbound)
    assert frame.kind == wire.FRAGMENT
    return frame


def cut4(packet: Any, size: int) -> list[Any]:
    return list(fragment(packet, fragsize=size))


def cut6(packet: Any, size: int) -> list[Any]:
    return list(fragment6(packet, size))


WHOLE4 = V4 / UDP(sport=53, dport=999) / Raw(PAYLOAD)
WHOLE6 = V6 / UDP(sport=53, dport=999) / Raw(PAYLOAD)


HEADERS6 = (V6, V6 / IPv6ExtHdrHopByHop(), V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt())
TRANSPORTS = (UDP(sport=53, dport=999), TCP(sport=53, dport=999, seq=5))


def datagram4(transport: Any, payload: bytes, variant: int) -> tuple[Any, list[Any]]:
    """An IPv4 datagram, and its fragments by scapy."""
    whole = V4.copy()
    whole.flags = (0, "DF", 0)[variant]
    whole.options = ([], [], b"\x01" * 4)[variant]
    whole = whole / transport / Raw(payload)
    return whole, cut4(IP(bytes(whole)), (40, 160, 400)[variant])


def datagram6(transport: Any, payload: bytes, variant: int) -> tuple[Any, list[Any]]:
    """An IPv6 datagram, and its fragments by scapy."""
    header = HEADERS6[variant]
    packet = header / IPv6ExtHdrFragment(id=99) / transport / Raw(payload)
    return header / transport / Raw(payload), cut6(packet, (200, 300, 480)[variant])


@given(
    st.sampled_from((datagram4, datagram6)),
    st.sampled_from(TRANSPORTS),
    st.binary(min_size=60, max_size=90),
    st.integers(0, 2),
    st.randoms(use_true_random=False),
    st.sampled_from((b"", bytes(12), b"\x00\x01" + bytes(10))),
    st.booleans(),
)
def test_joined_is_the_datagram_before_it_was_cut(
    cut: Any, transport: Any, payload: bytes, variant: int, random: Random, vnet: bytes, inbound: bool
) -> None:
    whole, pieces = cut(transport, payload * 8, variant)
    pieces += random.sample(pieces, 2)  # duplicates
    random.shuffle(pieces)
    frame = join_fragments([parsed(piece, vnet, inbound) for piece in pieces], inbound)
    assert frame is not None
    expected = parse_frame(bytes(len(vnet)) + on_wire(whole, TAGS).raw, len(vnet), inbound)
    assert fields(frame) == fields(expected)
    assert transport_checksum_ok(frame)


def test_joined_is_what_scapy_joins() -> None:
    pieces = cut4(IP(bytes(WHOLE4)), 200)
    frame = join_fragments([parsed(piece) for piece in pieces], False)
    assert frame is not None
    assert [frame.data[frame.l3 :]] == [bytes(joined) for joined in defragment(pieces)]


@pytest.mark.parametrize(
    "pieces", [cut4(WHOLE4, 200), cut6(V6 / IPv6ExtHdrFragment(id=99) / WHOLE6.payload, 300)]
)
def test_nothing_before_it_is_complete(pieces: list[Any]) -> None:
    frames = [parsed(piece) for piece in pieces]
    assert len(frames) >= 4
    for missing in range(len(frames)):
        assert join_fragments(frames[:missing] + frames[missing + 1 :], False) is None
    assert join_fragments(frames[:1], False) is None
    assert join_fragments(frames[-1:], False) is None
    assert join_fragments(frames, False) is not None


def test_duplicates_fill_no_hole() -> None:
    frames = [piece(0, PAYLOAD[:16], True), piece(0, PAYLOAD[:16], True), piece(24, PAYLOAD[24:32], False)]
    assert join_fragments(frames, False) is None
    frame = join_fragments([*frames, piece(16, PAYLOAD[16:24], True)], False)
    assert frame is not None
    assert frame.data[frame.l4 : frame.end] == PAYLOAD[:32]


def piece(offset: int, data: bytes, more: bool) -> Frame:
    ip = IP(src="10.0.0.2", dst="10.0.0.1", proto=47, frag=offset // 8, flags="MF" if more else 0)
    return parsed(ip / Raw(data))


def test_overlap_that_agrees_is_joined() -> None:
    frames = [piece(0, PAYLOAD[:24], True), piece(8, PAYLOAD[8:16], True), piece(16, PAYLOAD[16:40], False)]
    for order in (frames, frames[::-1]):
        frame = join_fragments(order, False)
        assert frame is not None
        assert frame.kind == wire.OTHER_IP
        assert frame.data[frame.l4 : frame.end] == PAYLOAD[:40]


@pytest.mark.parametrize(
    "frames",
    [
        [piece(0, PAYLOAD[:16], True), piece(8, PAYLOAD[9:25], False)],
        [piece(0, PAYLOAD[:16], True), piece(0, PAYLOAD[1:17], True), piece(16, b"end", False)],
        [piece(0, PAYLOAD[:16], True), piece(16, PAYLOAD[:8], False), piece(16, PAYLOAD[:9], False)],
        [piece(0, PAYLOAD[:16], True), piece(16, PAYLOAD[16:32], True), piece(16, PAYLOAD[16:24], False)],
        [piece(0, PAYLOAD[:16], True), piece(8, PAYLOAD[8:12], False)],
    ],
)
def test_fragments_that_disagree_give_an_opaque_frame(frames: list[Frame]) -> None:
    for order in (frames, frames[::-1]):
        frame = join_fragments(order, False)
        assert frame is not None
        assert (frame.kind, frame.reason, frame.key) == (wire.OPAQUE, wire.BAD_IP_HEADER, b"")
        assert sorted(frame.data) == sorted(b"".join(part.data for part in frames))


def test_what_exceeds_a_length_field_gives_an_opaque_frame() -> None:
    frames = [piece(0, bytes(32768), True), piece(32768, bytes(32744), True)]
    whole = join_fragments([*frames, piece(65512, bytes(3), False)], False)
    assert whole is not None
    assert whole.end - whole.l3 == 0xFFFF
    beyond = join_fragments([*frames, piece(65512, bytes(4), False)], False)
    assert beyond is not None
    assert beyond.reason == wire.BAD_IP_HEADER


def test_a_long_ipv6_datagram() -> None:
    def part(offset: int, data: bytes, more: bool) -> Frame:
        return parsed(
            V6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(offset=offset // 8, m=more, nh=47) / Raw(data)
        )

    frames = [part(0, bytes(32768), True), part(32768, bytes(32752), True)]
    whole = join_fragments([*frames, part(65520, bytes(7), False)], False)
    assert whole is not None
    assert whole.end - whole.l3 == 40 + 0xFFFF
    beyond = join_fragments([*frames, part(65520, bytes(8), False)], False)
    assert beyond is not None
    assert beyond.reason == wire.BAD_IP_HEADER


def test_an_atomic_fragment_header_stays_before_the_joined_data() -> None:
    ip = V6 / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]) / IPv6ExtHdrFragment(id=1, res1=5)
    frames = [
        parsed(ip / IPv6ExtHdrFragment(id=2, m=1, nh=47) / Raw(bytes(8))),
        parsed(ip / IPv6ExtHdrFragment(id=2, offset=1, nh=47) / Raw(b"end")),
    ]
    frame = join_fragments(frames, False)
    assert frame is not None
    assert (frame.kind, frame.protocol) == (wire.OTHER_IP, 47)
    assert frame.data[frame.l4 : frame.end] == bytes(8) + b"end"
