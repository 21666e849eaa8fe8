import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.wire.frame import Frame
from colo_compare.wire.vnet import (
    EMPTY_VNET_HEADER,
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    NEEDS_CSUM,
    VnetHeader,
    gso_size,
    gso_type,
    needs_csum,
    parse_vnet,
    with_headers,
)


@given(st.binary(min_size=12, max_size=20))
def test_a_header_comes_back_as_it_was(data: bytes) -> None:
    assert parse_vnet(data).pack() == data[:12]


def test_fields_are_little_endian_and_in_order() -> None:
    header = VnetHeader(1, 2, 0x0304, 0x0506, 0x0708, 0x090A, 0x0B0C)
    assert header.pack() == bytes((1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11))
    again = parse_vnet(header.pack())
    assert (again.flags, again.gso_type, again.hdr_len, again.gso_size) == (1, 2, 0x0304, 0x0506)
    assert (again.csum_start, again.csum_offset, again.num_buffers) == (0x0708, 0x090A, 0x0B0C)


def test_an_empty_header_is_all_zeros() -> None:
    assert VnetHeader().pack() == EMPTY_VNET_HEADER == bytes(12)


def with_header(flags: int, kind: int, size: int) -> Frame:
    return Frame(VnetHeader(flags=flags, gso_type=kind, gso_size=size).pack() + bytes(60), 12)


@pytest.mark.parametrize(("flags", "expected"), [(0, False), (NEEDS_CSUM, True), (2, False), (3, True)])
def test_needs_csum(flags: int, expected: bool) -> None:
    assert needs_csum(with_header(flags, 0, 0)) is expected


@pytest.mark.parametrize("kind", [GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4])
@pytest.mark.parametrize("ecn", [0, GSO_ECN])
def test_gso(kind: int, ecn: int) -> None:
    frame = with_header(NEEDS_CSUM, kind | ecn, 0x1234)
    assert gso_type(frame) == kind
    assert gso_size(frame) == 0x1234
    assert gso_type(with_header(NEEDS_CSUM, kind | ecn, 0)) == GSO_NONE


@pytest.mark.parametrize("kind", [GSO_NONE, 2, 6, 0x7F])
def test_an_unknown_gso_type_counts_as_none(kind: int) -> None:
    frame = with_header(0, kind, 1448)
    assert gso_type(frame) == GSO_NONE
    assert gso_size(frame) == 0


@pytest.mark.parametrize("frame", [Frame(b"\xff" * 60, 0), Frame(b"\xff" * 11, 12), Frame(b"", 12)])
def test_a_frame_without_a_whole_header_has_neither(frame: Frame) -> None:
    assert not needs_csum(frame)
    assert gso_type(frame) == GSO_NONE
    assert gso_size(frame) == 0


def test_too_few_bytes_are_an_error_of_the_caller() -> None:
    with pytest.raises(struct.error):
        parse_vnet(bytes(11))


def test_frames_without_a_header_get_an_empty_one() -> None:
    bare, headed = Frame(b"bare", 0), with_header(NEEDS_CSUM, GSO_NONE, 0)
    assert with_headers([bare, headed, bare], 0, 2) == [bytes(12) + b"bare", headed.data]
    assert with_headers([bare, headed], 1, 1) == []
