from typing import Any

import pytest
from hypothesis import given
from scapy.layers.inet import TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment

from colo_compare.wire.ipv6 import MALFORMED, skip_extension_headers
from tests import packets


def skip(raw: bytes) -> tuple[int, int, int]:
    return skip_extension_headers(raw, 40, len(raw), raw[6])


@given(packets.ipv6_headers(), packets.tcp_segments())
def test_headers_are_skipped(ip: Any, tcp: Any) -> None:
    raw = bytes(ip / tcp)
    assert skip(raw) == (6, len(raw) - len(bytes(tcp)), 0)


@given(packets.ipv6_headers())
def test_a_fragment_header_is_where_it_stops(ip: Any) -> None:
    for header in (IPv6ExtHdrFragment(m=1, nh=60), IPv6ExtHdrFragment(offset=1, m=0, nh=60)):
        raw = bytes(ip / header / bytes(8))
        assert skip(raw) == (60, len(raw) - 8, len(raw) - 16)


@pytest.mark.parametrize("protocol", [50, 51, 59, 135])
def test_what_is_no_extension_header_is_a_protocol(protocol: int) -> None:
    assert skip_extension_headers(bytes(40), 40, 40, protocol) == (protocol, 40, 0)


@given(packets.ipv6_headers())
def test_a_header_cut_short_is_malformed(ip: Any) -> None:
    raw = bytes(ip / TCP())
    start = len(raw) - 20
    for length in range(40, start):
        assert skip(raw[:length])[0] == MALFORMED


def test_headers_without_end_are_malformed() -> None:
    chain = bytes(IPv6(src="::2", dst="::1", nh=60)) + b"\x3c\x00\x01\x04\x00\x00\x00\x00" * 15
    assert skip(chain + b"\x06" + bytes(7)) == (MALFORMED, len(chain) + 8, 0)
    chain = chain[:-8]
    assert skip(chain + b"\x06" + bytes(7)) == (6, len(chain) + 8, 0)
