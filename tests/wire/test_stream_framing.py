from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP

from colo_compare.errors import FramingError
from colo_compare.wire.frame import Frame, parse_frame
from colo_compare.wire.stream_framing import MAX_LENGTH, StreamDecoder, bytes_in, encode, run_end
from colo_compare.wire.vnet import GSO_TCPV4, NEEDS_CSUM, VnetHeader
from tests.packets import on_wire

BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def word(value: int) -> bytes:
    return value.to_bytes(4, "big")


def plain_stream(bodies: list[bytes]) -> bytes:
    return b"".join(word(len(body)) + body for body in bodies)


def vnet_stream(bodies: list[bytes], header_lens: list[int]) -> bytes:
    stream = b""
    for body, header_len in zip(bodies, header_lens, strict=True):
        stream += word(header_len + len(body)) + word(header_len) + b"\x02" * header_len + body
    return stream


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(stream) + 1) for place in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(places)]


def feed(decoder: StreamDecoder, pieces: list[bytes]) -> list[bytes]:
    return [frame for piece in pieces for frame in decoder.feed(piece)]


@given(BODIES, st.lists(st.integers(0, 1000), max_size=8))
def test_frames_come_out_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = plain_stream(bodies)
    assert feed(StreamDecoder(vnet=False), [stream]) == bodies
    assert feed(StreamDecoder(vnet=False), cut(stream, cuts)) == bodies
    assert feed(StreamDecoder(vnet=False), [stream[at : at + 1] for at in range(len(stream))]) == bodies


@given(
    BODIES,
    st.lists(st.sampled_from((0, 10, 12)), min_size=8, max_size=8),
    st.lists(st.integers(0, 1000), max_size=8),
)
def test_frames_get_a_header_of_twelve_bytes(
    bodies: list[bytes], header_lens: list[int], cuts: list[int]
) -> None:
    header_lens = header_lens[: len(bodies)]
    stream = vnet_stream(bodies, header_lens)
    expected = [
        b"\x02" * header_len + bytes(12 - header_len) + body
        for body, header_len in zip(bodies, header_lens, strict=True)
    ]
    for pieces in ([stream], cut(stream, cuts), [stream[at : at + 1] for at in range(len(stream))]):
        decoder = StreamDecoder(vnet=True)
        assert decoder.peer_header_len == 12
        assert feed(decoder, pieces) == expected
        assert decoder.peer_header_len == (header_lens[-1] if header_lens else 12)


def test_the_header_length_changes_in_mid_stream() -> None:
    decoder = StreamDecoder(vnet=True)
    assert decoder.feed(vnet_stream([b"one"], [10])) == [b"\x02" * 10 + b"\x00\x00" + b"one"]
    assert decoder.peer_header_len == 10
    assert decoder.feed(vnet_stream([b"two"], [12])) == [b"\x02" * 12 + b"two"]
    assert decoder.peer_header_len == 12


def test_a_frame_is_given_as_soon_as_it_is_complete() -> None:
    decoder = StreamDecoder(vnet=False)
    assert decoder.feed(word(3) + b"on") == []
    assert decoder.feed(b"e" + word(3) + b"two" + word(9)) == [b"one", b"two"]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"trailing") == []
    assert decoder.feed(b"!") == [b"trailing!"]


def test_the_longest_frame() -> None:
    assert MAX_LENGTH == 69632
    body = bytes(MAX_LENGTH)
    assert StreamDecoder(vnet=False).feed(word(MAX_LENGTH) + body) == [body]
    assert StreamDecoder(vnet=True).feed(word(MAX_LENGTH) + word(12) + body) == [body]


@pytest.mark.parametrize("length", [0, MAX_LENGTH + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("vnet", [False, True])
def test_an_absurd_length(length: int, vnet: bool) -> None:
    decoder = StreamDecoder(vnet)
    with pytest.raises(FramingError, match=rf"frame length of {length}, not 1 to {MAX_LENGTH}: .*reset$"):
        decoder.feed(word(length) + word(12))


@pytest.mark.parametrize("header_len", [1, 9, 11, 13, 20, 0x80000000, 0xFFFFFFFF])
def test_an_absurd_header_length(header_len: int) -> None:
    decoder = StreamDecoder(vnet=True)
    with pytest.raises(
        FramingError, match=rf"header length of {header_len} in a frame of 100, not 0, 10 or 12"
    ):
        decoder.feed(word(100) + word(header_len))


@pytest.mark.parametrize("header_len", [10, 12])
def test_a_header_without_a_frame_is_a_frame_of_no_bytes(header_len: int) -> None:
    assert StreamDecoder(vnet=True).feed(word(header_len) * 2 + bytes(header_len)) == [bytes(12)]


@pytest.mark.parametrize("header_len", [10, 12])
def test_a_header_longer_than_its_frame(header_len: int) -> None:
    with pytest.raises(FramingError, match=f"header length of {header_len} in a frame of 9"):
        StreamDecoder(vnet=True).feed(word(9) + word(header_len) + bytes(9))


def test_an_absurd_length_is_noticed_byte_by_byte_and_behind_frames() -> None:
    decoder = StreamDecoder(vnet=False)
    assert feed(decoder, [plain_stream([b"one"]), b"\x00", b"\x00", b"\x00"]) == [b"one"]
    with pytest.raises(FramingError):
        decoder.feed(b"\x00")
    with pytest.raises(FramingError):
        StreamDecoder(vnet=False).feed(plain_stream([b"one"]) + bytes(4))


HEADER = VnetHeader(NEEDS_CSUM, 0, 54, 0, 34, 16, 0x0102).pack()
RAW = on_wire(IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=1, dport=2) / b"said").raw
BARE = parse_frame(RAW, 0, False)
HEADED = parse_frame(bytes(10) + b"\x01\x02" + RAW, 12, False)


@pytest.mark.parametrize("header_len", [0, 10, 12])
def test_vnet_streams(header_len: int) -> None:
    chunks = encode([BARE, HEADED], True, header_len, 0, 2)
    tail = b"\x01\x02" if header_len == 12 else b""
    prefix = word(len(RAW) + header_len) + word(header_len)
    assert b"".join(chunks) == (
        prefix + bytes(header_len) + RAW + prefix + bytes(header_len)[: header_len - len(tail)] + tail + RAW
    )
    decoder = StreamDecoder(vnet=True)
    assert decoder.feed(b"".join(chunks)) == [bytes(12) + RAW, bytes(12 - len(tail)) + tail + RAW]
    assert decoder.peer_header_len == header_len


def test_plain_streams() -> None:
    assert encode([BARE, HEADED, BARE], False, 12, 1, 3) == [(word(len(RAW)) + RAW) * 2]
    assert encode([BARE, BARE], False, 0, 0, 1) == [word(len(RAW)) + RAW]
    assert encode([BARE], False, 0, 1, 1) == []
    assert encode([], True, 12, 0, 0) == []


def test_large_frames_are_not_copied() -> None:
    large = Frame(bytes(5000), 0)
    chunks = encode([BARE, large, large, BARE], False, 0, 0, 4)
    small = word(len(RAW)) + RAW
    assert chunks == [small + word(5000), large.data, word(5000), large.data, small]
    assert chunks[1] is large.data


def test_runs_end_at_their_size_and_before_what_cannot_be_sent() -> None:
    frames = [Frame(bytes(size), 0) for size in (100, 100, 100, 0, MAX_LENGTH - 12, MAX_LENGTH - 11)]
    assert [run_end(frames, 0, limit) for limit in (50, 100, 200, 250, 1000)] == [1, 1, 2, 2, 3]
    assert [run_end(frames, start, 50) for start in (2, 3, 4, 5)] == [3, 3, 5, 5]
    assert run_end([HEADED, Frame(bytes(12), 12)], 0, 1000) == 1
    assert run_end(frames, 6, 1000) == 6


def test_headers_are_no_bytes_of_the_network() -> None:
    assert bytes_in([BARE, HEADED, BARE], 1, 3) == 2 * len(RAW)
    assert bytes_in([BARE], 1, 1) == 0


@pytest.mark.parametrize(("vnet", "prefix"), [(False, b""), (True, word(0))])
def test_offloads_are_done_where_the_stream_takes_no_header(vnet: bool, prefix: bytes) -> None:
    header = VnetHeader(NEEDS_CSUM, GSO_TCPV4, 54, 100, 34, 16).pack()
    raw = on_wire(IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=1, dport=2) / bytes(250)).raw
    frame = parse_frame(header + raw, 12, False)
    sent = StreamDecoder(vnet).feed(b"".join(encode([frame], vnet, 0, 0, 1)))
    assert encode([frame], vnet, 0, 0, 1)[0].startswith(word(154) + prefix + raw[:14])
    assert [len(body) for body in sent] == [size + (12 if vnet else 0) for size in (154, 154, 104)]


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=5), st.booleans(), st.sampled_from((10, 12)))
def test_what_is_encoded_is_decoded(bodies: list[bytes], vnet: bool, header_len: int) -> None:
    frames = [Frame(body, 0) for body in bodies]
    stream = b"".join(encode(frames, vnet, header_len, 0, len(frames)))
    assert StreamDecoder(vnet).feed(stream) == [bytes(12 if vnet else 0) + body for body in bodies]
