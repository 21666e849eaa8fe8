import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import checksum as scapy_checksum

from colo_compare.wire.checksum import (
    adjust,
    internet_checksum,
    pseudo_header_sum,
    transport_checksum_ok,
    update16,
    update32,
)
from colo_compare.wire.frame import parse_frame
from tests import packets
from tests.packets import U16, U32, Packet, on_wire


def test_the_example_of_rfc_1071() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7"), 0, 8) == 0xFFFF - 0xDDF2


def test_the_example_of_rfc_1624() -> None:
    assert update16(0xDD2F, 0x5555, 0x3285) == 0x0000


@pytest.mark.parametrize(
    ("checksum", "difference", "expected"), [(0, 0, 0), (0, 1, 0xFFFE), (0, -1, 1), (1, 1, 0), (1, 2, 0xFFFE)]
)
def test_a_carry_comes_round(checksum: int, difference: int, expected: int) -> None:
    assert adjust(checksum, difference) == expected


@given(st.binary(max_size=70), st.binary(max_size=3), st.binary(max_size=3))
def test_full_checksum_is_that_of_scapy(data: bytes, before: bytes, behind: bytes) -> None:
    assert internet_checksum(before + data + behind, len(before), len(before) + len(data)) == scapy_checksum(
        data
    )


@given(st.binary(max_size=30).filter(lambda data: len(data) % 2 == 0), st.binary(max_size=30))
def test_a_sum_can_begin_with_another(first: bytes, second: bytes) -> None:
    initial = sum(int.from_bytes(first[at : at + 2], "big") for at in range(0, len(first), 2))
    assert internet_checksum(second, 0, len(second), initial) == scapy_checksum(first + second)


@pytest.mark.parametrize(
    ("data", "expected"), [(b"", 0xFFFF), (bytes(7), 0xFFFF), (b"\xff\xff", 0), (b"\xff\xff\xff\xff", 0)]
)
def test_both_zeros(data: bytes, expected: int) -> None:
    assert internet_checksum(data, 0, len(data)) == expected


@given(st.binary(min_size=12, max_size=40), st.integers(0, 8), U32, st.booleans())
def test_checksum_by_difference_is_the_full_one(data: bytes, at: int, new: int, wide: bool) -> None:
    data = b"\x01\x02" + data  # a pseudo-header is never all zeros: the one case with two right answers
    at += 2
    width = 4 if wide else 2
    new &= (1 << 8 * width) - 1
    old = int.from_bytes(data[at : at + width], "big")
    before = internet_checksum(data, 0, len(data))
    changed = data[:at] + new.to_bytes(width, "big") + data[at + width :]
    after = internet_checksum(changed, 0, len(data))
    if at % 2:
        assert adjust(before, (new - old) << 8) == after
    else:
        assert (update32 if wide else update16)(before, old, new) == after


@given(U16, U16, U16)
def test_a_wrong_checksum_stays_as_wrong(checksum: int, old: int, new: int) -> None:
    assert (update16(update16(checksum, old, new), new, old) - checksum) % 0xFFFF == 0


@given(packets.IPV6_ADDRESSES, packets.IPV6_ADDRESSES, packets.PAYLOADS)
def test_pseudo_header_of_ipv6(source: str, destination: str, payload: bytes) -> None:
    raw = bytes(IPv6(src=source, dst=destination) / UDP(sport=1, dport=2) / payload)
    pseudo = pseudo_header_sum(raw, 6, 0, 17, len(raw) - 40)
    pseudo_bytes = raw[8:40] + (len(raw) - 40).to_bytes(4, "big") + b"\x00\x00\x00\x11"
    assert internet_checksum(b"", 0, 0, pseudo) == scapy_checksum(pseudo_bytes)


@given(packets.tcp_packets() | packets.udp_packets() | packets.icmp_packets(), st.data())
def test_transport_checksum(packet: Packet, data: st.DataObject) -> None:
    frame = parse_frame(packet.raw, 0, False)
    assert transport_checksum_ok(frame)
    at = data.draw(st.sampled_from([*range(frame.l4, frame.l4 + 4), *range(frame.payload, frame.end)]))
    broken = bytearray(packet.raw)
    broken[at] ^= 0x10
    assert not transport_checksum_ok(parse_frame(bytes(broken), 0, False))


@pytest.mark.parametrize(
    ("ip", "right"), [(IP(src="10.0.0.2", dst="10.0.0.1"), True), (IPv6(src="::2", dst="::1"), False)]
)
def test_udp_without_a_checksum(ip: IP | IPv6, right: bool) -> None:
    raw = on_wire(ip / UDP(sport=1, dport=2, chksum=0) / b"abc").raw
    assert transport_checksum_ok(parse_frame(raw, 0, False)) is right


def test_udp_options_are_not_summed() -> None:
    datagram = UDP(sport=1, dport=2) / b"abcd"
    ip = IP(bytes(IP(src="10.0.0.2", dst="10.0.0.1") / datagram))
    ip.len += 4
    del ip.chksum
    raw = on_wire(ip, [], b"\x01\x02\x03\x04").raw
    frame = parse_frame(raw, 0, False)
    assert frame.end == len(raw)
    assert transport_checksum_ok(frame)


def test_what_has_no_checksum_is_right() -> None:
    assert transport_checksum_ok(parse_frame(b"", 0, False))
    assert transport_checksum_ok(
        parse_frame(on_wire(IP(src="10.0.0.2", dst="10.0.0.1", proto=47) / b"x").raw, 0, False)
    )


def test_a_partial_checksum_is_not_right() -> None:
    raw = on_wire(IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=1, dport=2, chksum=0x1434) / b"abc").raw
    assert not transport_checksum_ok(parse_frame(raw, 0, False))
