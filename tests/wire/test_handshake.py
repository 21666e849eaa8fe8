import pytest
from hypothesis import given
from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from colo_compare.wire.frame import parse_frame
from colo_compare.wire.handshake import NO_WINDOW_SCALE, HandshakeOptions, handshake_options
from tests import packets
from tests.packets import Packet, on_wire

NOTHING = HandshakeOptions(0, NO_WINDOW_SCALE, sack_permitted=False, timestamps=False)


@given(packets.tcp_packets())
def test_options_are_what_scapy_sees(packet: Packet) -> None:
    seen = dict(packet.ip[TCP].options)
    assert handshake_options(parse_frame(packet.raw, 0, False)) == HandshakeOptions(
        mss=seen.get("MSS", 0),
        window_scale=seen.get("WScale", NO_WINDOW_SCALE),
        sack_permitted="SAckOK" in seen,
        timestamps="Timestamp" in seen,
    )


def options(raw: bytes) -> HandshakeOptions:
    raw += bytes(-len(raw) % 4)
    tcp = bytes(TCP(sport=1, dport=2, flags="S", dataofs=5 + len(raw) // 4))
    return handshake_options(
        parse_frame(on_wire(IP(src="10.0.0.2", dst="10.0.0.1", proto=6) / Raw(tcp + raw)).raw, 0, False)
    )


LINUX_SYN = bytes.fromhex("020405b40402080a000000010000000001030307")
LINUX = HandshakeOptions(1460, 7, sack_permitted=True, timestamps=True)


def test_the_syn_of_linux() -> None:
    assert options(LINUX_SYN) == LINUX
    assert options(LINUX_SYN).agree(LINUX)


@pytest.mark.parametrize(
    "raw",
    [
        LINUX_SYN[:3] + b"\xb3" + LINUX_SYN[4:],
        LINUX_SYN[:-1] + b"\x08",
        LINUX_SYN.replace(b"\x04\x02\x08", b"\x01\x01\x08"),
        LINUX_SYN.replace(b"\x08\x0a", b"\xfd\x0a"),
    ],
)
def test_a_difference_in_any_option_is_one(raw: bytes) -> None:
    assert options(raw) != LINUX
    assert not options(raw).agree(LINUX)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\x02\x04\x05\xb4",  # behind the end
        b"\x01\x01\x02\x00",  # length zero
        b"\x02\x01\x05\xb4",  # length one
        b"\x01\x01\x02\x04",  # beyond the header
        b"\x01\x01\x01\x02",  # no length
        b"\x02\x03\x05",  # MSS of a wrong length
        b"\x03\x04\x07\x07",  # window scale of a wrong length
        b"\x04\x04\x00\x00",  # SACK-permitted of a wrong length
    ],
)
def test_malformed_options_are_none(raw: bytes) -> None:
    assert options(raw) == NOTHING


def test_what_stands_before_a_malformed_option_counts() -> None:
    assert options(b"\x02\x04\x05\xb4\x04\x00\x00\x00") == HandshakeOptions(
        1460, -1, sack_permitted=False, timestamps=False
    )


def test_the_last_of_two_counts() -> None:
    assert options(b"\x02\x04\x05\xb4\x02\x04\x05\x00").mss == 0x500
