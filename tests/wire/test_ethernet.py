import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP

from colo_compare.wire.ethernet import network_start
from tests.packets import VLANS, on_wire


@given(VLANS, st.integers(0, 12))
def test_tags_are_skipped(vlans: list[tuple[int, int, int]], start: int) -> None:
    packet = on_wire(IP(src="10.0.0.2", dst="10.0.0.1"), vlans)
    assert network_start(bytes(start) + packet.raw, start) == start + packet.l3


@given(VLANS)
def test_a_frame_that_ends_before_gives_zero(vlans: list[tuple[int, int, int]]) -> None:
    packet = on_wire(IP(src="10.0.0.2", dst="10.0.0.1"), vlans)
    for length in range(packet.l3):
        assert network_start(packet.raw[:length], 0) == 0
    assert network_start(packet.raw[: packet.l3], 0) == packet.l3


@pytest.mark.parametrize("depth", [5, 6])
def test_no_more_than_four(depth: int) -> None:
    packet = on_wire(IP(src="10.0.0.2", dst="10.0.0.1"), [(0x8100, 1, 0)] * depth)
    at = network_start(packet.raw, 0)
    assert at == 14 + 4 * 4
    assert packet.raw[at - 2 : at] == b"\x81\x00"
