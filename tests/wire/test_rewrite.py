from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6TimeExceeded, IPv6
from scapy.packet import Raw

from colo_compare.wire import frame as wire
from colo_compare.wire.checksum import transport_checksum_ok
from colo_compare.wire.frame import Frame, parse_frame
from colo_compare.wire.rewrite import pure_ack, rewrite_tcp, selective_ack, shift_embedded_tcp
from colo_compare.wire.vnet import GSO_TCPV4, NEEDS_CSUM, VnetHeader
from tests import packets
from tests.packets import U16, U32, Packet, fields, on_wire

MASK = 0xFFFFFFFF
VNET = bytes(12)
NUMBERS = st.tuples(U32, U32, U16, U32, U32, st.integers(-MASK, MASK))
V4 = IP(src="10.0.0.2", dst="10.0.0.1")
V6 = IPv6(src="2001:db8::2", dst="2001:db8::1")
SACK_ODD = [("SAck", (1, 2, 0xFFFFFFF0, 5)), ("NOP", None)]
STAMP_ODD = [("NOP", None), ("Timestamp", (0xFFFFFFFF, 0)), ("NOP", None)]


def assert_consistent(frame: Frame) -> None:
    """Every field is what a parse of the bytes gives (the key's direction aside: none here is inbound)."""
    assert fields(frame) == fields(parse_frame(frame.data, frame.header_len, False))


def scapy_checksum_of(ip: Any) -> int:
    """What scapy would put there."""
    copy = type(ip)(bytes(ip))
    del copy[TCP].chksum
    return int(type(ip)(bytes(copy))[TCP].chksum)


@given(packets.tcp_packets(), NUMBERS, st.sampled_from((b"", VNET)))
@example(on_wire(V4 / TCP(options=SACK_ODD) / b"odd"), (1, 2, 3, 4, 5, 6), b"")
@example(on_wire(V4 / TCP(options=STAMP_ODD) / b"odd"), (MASK, MASK, 0xFFFF, 0, MASK, -1), VNET)
def test_rewritten_numbers_are_what_scapy_reads(
    packet: Packet, numbers: tuple[int, ...], vnet: bytes
) -> None:
    seq, ack, window, tsval, tsecr, shift = numbers
    frame = parse_frame(vnet + packet.raw, len(vnet), False)
    rewritten = rewrite_tcp(frame, seq, ack, window, tsval, tsecr, shift)
    assert frame.data == vnet + packet.raw
    assert_consistent(rewritten)
    result = Packet(rewritten.data[len(vnet) :], packet.vlans, packet.l3, packet.padding)
    tcp = result.ip[TCP]
    assert (tcp.seq, tcp.ack, tcp.window) == (seq, ack, window)
    assert tcp.chksum == scapy_checksum_of(result.ip)
    changed = {*range(4, 12), 14, 15, 16, 17}  # offsets in the TCP header
    if frame.tsval_at:
        assert (rewritten.tsval, rewritten.tsecr) == (tsval, tsecr)
        changed |= set(range(frame.tsval_at - frame.l4, frame.tsval_at - frame.l4 + 8))
    if frame.sack_at:
        before = next(edges for name, edges in reversed(packet.ip[TCP].options) if name == "SAck")
        after = next(edges for name, edges in reversed(tcp.options) if name == "SAck")
        assert after == tuple((edge + shift) & MASK for edge in before)
        changed |= set(range(frame.sack_at - frame.l4, frame.sack_at - frame.l4 + 8 * frame.sack_blocks))
    assert len(rewritten.data) == len(frame.data)
    for at, (old, new) in enumerate(zip(frame.data, rewritten.data, strict=True)):
        assert old == new or at - frame.l4 in changed


@pytest.mark.parametrize("length", [4096, 4097, 60000])
def test_a_long_payload_stays_behind_its_header(length: int) -> None:
    payload = bytes(range(256)) * (length // 256) + bytes(length % 256)
    frame = parse_frame(on_wire(V4 / TCP(seq=1) / payload, [], b"padding").raw, 0, False)
    rewritten = rewrite_tcp(frame, 2, 3, 4, 0, 0, 0)
    assert_consistent(rewritten)
    assert transport_checksum_ok(rewritten)
    assert rewritten.data[rewritten.payload :] == payload + b"padding"


@given(packets.tcp_packets(), st.sampled_from((0, 1 << 32, -(1 << 32))))
def test_nothing_to_change_gives_the_frame_itself(packet: Packet, shift: int) -> None:
    frame = parse_frame(packet.raw, 0, False)
    again = rewrite_tcp(frame, frame.seq, frame.ack, frame.window, frame.tsval, frame.tsecr, shift)
    assert again is frame


def test_absent_options_are_not_changed() -> None:
    frame = parse_frame(on_wire(V4 / TCP(seq=7)).raw, 0, False)
    assert rewrite_tcp(frame, 7, frame.ack, frame.window, 5, 6, 7) is frame
    assert rewrite_tcp(frame, 8, frame.ack, frame.window, 5, 6, 7).tsval == 0


@pytest.mark.parametrize("change", range(4))
def test_each_change_alone(change: int) -> None:
    options = [*STAMP_ODD, ("SAck", (5, 6))]
    frame = parse_frame(on_wire(V4 / TCP(seq=1, ack=2, window=3, options=options) / b"x").raw, 0, False)
    numbers = [1, 2, 3, frame.tsval, frame.tsecr, 0]
    numbers[(0, 1, 2, 4)[change]] = 0x1234
    rewritten = rewrite_tcp(frame, *numbers)
    assert rewritten is not frame
    assert_consistent(rewritten)
    assert transport_checksum_ok(rewritten)
    shifted = rewrite_tcp(frame, 1, 2, 3, frame.tsval, frame.tsecr, 1)
    assert_consistent(shifted)
    assert transport_checksum_ok(shifted)


@given(packets.tcp_packets(), NUMBERS)
def test_a_wrong_checksum_stays_wrong(packet: Packet, numbers: tuple[int, ...]) -> None:
    frame = parse_frame(packet.raw, 0, False)
    broken = bytearray(packet.raw)
    broken[frame.l4 + 17] ^= 1
    assert not transport_checksum_ok(rewrite_tcp(parse_frame(bytes(broken), 0, False), *numbers))


@given(packets.tcp_packets(), NUMBERS)
def test_a_partial_checksum_stays(packet: Packet, numbers: tuple[int, ...]) -> None:
    frame = parse_frame(VnetHeader(flags=NEEDS_CSUM).pack() + packet.raw, 12, False)
    rewritten = rewrite_tcp(frame, *numbers)
    field = slice(frame.l4 + 16, frame.l4 + 18)
    assert rewritten.data[field] == frame.data[field]
    assert_consistent(rewritten)


@given(packets.tcp_packets(), U32, U32, U16, st.booleans())
def test_a_pure_ack_is_what_scapy_would_build(
    packet: Packet, seq: int, ack: int, window: int, gso: bool
) -> None:
    vnet = VnetHeader(NEEDS_CSUM, GSO_TCPV4, 66, 1448, 34, 16).pack() if gso else b""
    template = parse_frame(vnet + packet.raw, len(vnet), False)
    lone = pure_ack(template, seq, ack, window)
    assert_consistent(lone)
    assert lone.key == template.key
    assert lone.header_len == len(vnet)
    assert lone.data[: len(vnet)] == bytes(len(vnet))
    bare = lone.data[len(vnet) :]
    assert bare[: packet.l3] == packet.raw[: packet.l3]
    result = Packet(bare, packet.vlans, packet.l3, 0)
    ip = result.ip
    tcp = ip[TCP]
    assert (tcp.seq, tcp.ack, tcp.window, tcp.flags, tcp.urgptr) == (seq, ack, window, "A", 0)
    assert bytes(tcp.payload) == b""
    assert tcp.chksum == scapy_checksum_of(ip)
    stamps = [value for name, value in packet.ip[TCP].options if name == "Timestamp"]
    assert tcp.options == ([("NOP", None), ("NOP", None), ("Timestamp", stamps[-1])] if stamps else [])
    if ip.version == 4:
        assert ip.len == len(bare) - packet.l3
        assert ip.tos == packet.ip.tos & 0xFC
        rebuilt = ip.copy()
        del rebuilt.chksum
        assert IP(bytes(rebuilt)).chksum == ip.chksum
    else:
        assert ip.plen == len(bare) - packet.l3 - 40
        assert (ip.tc, ip.fl) == (packet.ip.tc & 0xFC, packet.ip.fl)


def test_a_pure_ack_of_a_client_frame_keeps_its_flow() -> None:
    frame = parse_frame(on_wire(V4 / TCP(sport=1, dport=2)).raw, 0, True)
    assert pure_ack(frame, 1, 2, 3).key == frame.key


@given(
    packets.tcp_packets(),
    st.tuples(U32, U16, U32),
    st.lists(st.tuples(U32, U32), min_size=1, max_size=3),
    st.booleans(),
)
def test_a_selective_ack_is_what_scapy_would_build(
    packet: Packet, numbers: tuple[int, int, int], blocks: list[tuple[int, int]], gso: bool
) -> None:
    ack, window, tsval = numbers
    vnet = VnetHeader(NEEDS_CSUM, GSO_TCPV4, 66, 1448, 34, 16).pack() if gso else b""
    received = parse_frame(vnet + packet.raw, len(vnet), False)
    answer = selective_ack(received, ack, window, tsval, blocks)
    assert fields(answer) == fields(parse_frame(answer.data, len(vnet), True))
    bare = answer.data[len(vnet) :]
    assert answer.data[: len(vnet)] == bytes(len(vnet))
    assert (bare[:6], bare[6:12]) == (packet.raw[6:12], packet.raw[:6])
    ip = Packet(bare, packet.vlans, packet.l3, 0).ip
    tcp = ip[TCP]
    asked = packet.ip[TCP]
    assert (ip.src, ip.dst, tcp.sport, tcp.dport) == (packet.ip.dst, packet.ip.src, asked.dport, asked.sport)
    assert (tcp.seq, tcp.ack, tcp.window, tcp.flags) == (asked.ack, ack, window, "A")
    assert tcp.chksum == scapy_checksum_of(ip)
    stamps = [value for name, value in asked.options if name == "Timestamp"]
    nops = [("NOP", None), ("NOP", None)]
    expected = [*nops, ("Timestamp", (tsval, stamps[-1][0]))] if stamps else []
    edges = tuple(edge for block in blocks for edge in block)
    assert tcp.options == [*expected, *nops, ("SAck", edges)]
    if ip.version == 4:
        rebuilt = ip.copy()
        del rebuilt.chksum
        assert IP(bytes(rebuilt)).chksum == ip.chksum


QUOTED4 = V4 / TCP(sport=80, dport=43210, seq=0xFFFFFFF0, ack=5) / b"abc"
QUOTED6 = V6 / TCP(sport=80, dport=43210, seq=0xFFFFFFF0, ack=5) / b"abc"
ERRORS = {
    "unreachable": IP(src="10.0.0.9", dst="10.0.0.2") / ICMP(type=3, code=4, nexthopmtu=1400) / QUOTED4,
    "time exceeded, 8 bytes": IP(src="10.0.0.9", dst="10.0.0.2") / ICMP(type=11) / Raw(bytes(QUOTED4)[:28]),
    "unreachable, IPv6": IPv6(src="2001:db8::9", dst="2001:db8::2") / ICMPv6DestUnreach(code=1) / QUOTED6,
    "time exceeded, IPv6": IPv6(src="2001:db8::9", dst="2001:db8::2") / ICMPv6TimeExceeded() / QUOTED6,
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("shift", [1, 0x20, -0x12345678, 0x80000000])
def test_an_error_quotes_the_shifted_number(name: str, shift: int) -> None:
    frame = parse_frame(on_wire(ERRORS[name], [(0x8100, 5, 0)]).raw, 0, True)
    shifted = shift_embedded_tcp(frame, shift)
    assert transport_checksum_ok(shifted)
    again = fields(parse_frame(shifted.data, 0, True))
    assert fields(shifted) == again
    at = frame.data.index(b"\xff\xff\xff\xf0")
    number = ((0xFFFFFFF0 + shift) & MASK).to_bytes(4, "big")
    checksum = slice(frame.l4 + 2, frame.l4 + 4)
    expected = bytearray(frame.data)
    expected[at : at + 4] = number
    expected[checksum] = shifted.data[checksum]
    assert shifted.data == bytes(expected)


@given(packets.icmp_packets(), st.integers(-MASK, MASK))
def test_shifting_back_gives_the_same_bytes(packet: Packet, shift: int) -> None:
    frame = parse_frame(packet.raw, 0, True)
    shifted = shift_embedded_tcp(frame, shift)
    assert transport_checksum_ok(shifted)
    assert shift_embedded_tcp(shifted, -shift).data == frame.data


def test_a_partial_icmp_checksum_stays() -> None:
    raw = VnetHeader(flags=NEEDS_CSUM).pack() + on_wire(ERRORS["unreachable"]).raw
    frame = parse_frame(raw, 12, True)
    shifted = shift_embedded_tcp(frame, 5)
    assert shifted is not frame
    assert shifted.data[frame.l4 : frame.l4 + 4] == frame.data[frame.l4 : frame.l4 + 4]


NO_ERRORS = {
    "echo": V4 / ICMP() / QUOTED4,
    "echo, IPv6": V6 / ICMPv6EchoRequest(data=bytes(QUOTED6)),
    "udp": V4 / UDP() / b"x",
    "quotes udp": V4 / ICMP(type=3) / V4 / UDP() / b"x",
    "quotes 7 bytes of tcp": V4 / ICMP(type=3) / Raw(bytes(QUOTED4)[:27]),
    "quotes too little": V4 / ICMP(type=3) / Raw(bytes(QUOTED4)[:19]),
}


@pytest.mark.parametrize("name", NO_ERRORS)
def test_what_quotes_no_tcp_stays(name: str) -> None:
    frame = parse_frame(on_wire(NO_ERRORS[name]).raw, 0, True)
    assert frame.kind in (wire.ICMP, wire.UDP)
    assert shift_embedded_tcp(frame, 5) is frame


def test_no_shift_gives_the_frame_itself() -> None:
    frame = parse_frame(on_wire(ERRORS["unreachable"]).raw, 0, True)
    assert shift_embedded_tcp(frame, 0) is frame
