"""Messages as bytes: whole, in pieces, and broken on purpose by a sender that knows the checksums."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.checkpoint.memory.messages import (
    CHECKED,
    COMPRESSED,
    HEADER,
    MAGIC,
    PAGES,
    REQUEST,
    SYNC,
    VERSION,
    ZEROS,
    Hello,
    Message,
    MessageWriter,
    ProtocolError,
    pages_checksum,
    parse_verdict,
    parse_welcome,
)
from colo_compare.checkpoint.memory.reader import MessageReader

PAGE = 16


def reader(memory: bytearray | None) -> MessageReader:
    return MessageReader(lambda _kind, _number: None, None if memory is None else memoryview(memory), PAGE)


@given(
    cuts=st.lists(st.integers(1, 50), max_size=20),
    compression=st.sampled_from([0, 1, 9]),
    checksums=st.booleans(),
)
def test_messages_in_pieces_of_any_size(cuts: list[int], compression: int, checksums: bool) -> None:
    source = memoryview(bytes(range(PAGE)) * 8)
    writer = MessageWriter(checksums=checksums, compression=compression)
    pages = Message(
        PAGES, 3, runs=[(1, 2), (6, 1)], data=[source[PAGE : 3 * PAGE], source[6 * PAGE : 7 * PAGE]]
    )
    said = [Message(REQUEST, 3), pages, Message(ZEROS, 3, runs=[(2, 1)]), Message(SYNC, 3, b"12345678")]
    data = b"".join(b"".join(writer.encode(message)) for message in said)
    memory = bytearray(b"." * (8 * PAGE))
    receiving = reader(memory)
    heard: list[Message] = []
    for cut in cuts:
        heard += receiving.feed(data[:cut])
        data = data[cut:]
    heard += receiving.feed(data)
    assert receiving.between_messages
    assert [(m.kind, m.number, list(m.runs)) for m in heard] == [
        (m.kind, m.number, list(m.runs)) for m in said
    ]
    assert heard[-1].body == b"12345678"
    assert memory[PAGE : 2 * PAGE] == memory[6 * PAGE : 7 * PAGE] == bytes(range(PAGE))
    assert memory[2 * PAGE : 3 * PAGE] == bytes(PAGE)
    assert memory[3 * PAGE : 6 * PAGE] == b"." * (3 * PAGE)


def forge(kind: int, body: bytes, *, runs: int = 0, flags: int = 0, length: int | None = None) -> bytes:
    """Make a message with right checksums, whatever is in it."""
    size = len(body) if length is None else length
    entries = body[: runs * 8]
    checksum = pages_checksum(entries, [body[len(entries) :]]) if flags & CHECKED else zlib.crc32(body)
    header = HEADER.pack(MAGIC, VERSION, kind, flags, 0, runs, 1, size, checksum)
    return header + struct.pack(">I", zlib.crc32(header)) + body


def table(*runs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">II", *run) for run in runs)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n....", "no channel of the memory checkpointer"),
        (forge(99, b""), "kind 99"),
        (forge(REQUEST, b"", length=1 << 30), "1073741824 bytes"),
        (forge(PAGES, b""), "PAGES with 0 runs"),
        (forge(REQUEST, table((0, 1)), runs=1), "REQUEST with 1 runs"),
        (forge(PAGES, b"1234", runs=1), "PAGES with 1 runs in 4 bytes"),
        (forge(ZEROS, table((0, 1)), runs=1, flags=COMPRESSED), "flags 2"),
        (forge(PAGES, table((0, 1)), runs=1, flags=64), "flags 64"),
        (forge(PAGES, table((8, 1)) + bytes(PAGE), runs=1, flags=CHECKED), "does not have"),
        (forge(PAGES, table((0, 0)), runs=1, flags=CHECKED), "does not have"),
        (forge(PAGES, table((0, 2)) + bytes(PAGE), runs=1, flags=CHECKED), "16 bytes of pages came, not 32"),
        (forge(ZEROS, table((0, 1)) + bytes(PAGE), runs=1), "16 bytes of pages came, not 0"),
        (forge(PAGES, table((0, 1)) + b"garbage", runs=1, flags=3), "cannot be decompressed"),
        (forge(PAGES, table((0, 2)) + zlib.compress(bytes(PAGE)), runs=1, flags=3), "another length"),
        (forge(PAGES, table((0, 1)) + zlib.compress(bytes(PAGE * 9)), runs=1, flags=3), "another length"),
    ],
)
def test_what_makes_no_sense_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        reader(bytearray(8 * PAGE)).feed(data)


def test_an_end_without_memory_takes_no_pages() -> None:
    with pytest.raises(ProtocolError, match="does not have"):
        reader(None).feed(forge(ZEROS, table((0, 1)), runs=1))


def test_what_may_not_come_now_does_not_reach_the_memory() -> None:
    def admit(_kind: int, _number: int) -> None:
        raise ProtocolError("not now")

    memory = bytearray(b"." * PAGE)
    receiving = MessageReader(admit, memoryview(memory), PAGE)
    with pytest.raises(ProtocolError, match="not now"):
        receiving.feed(forge(PAGES, table((0, 1)) + bytes(PAGE), runs=1, flags=CHECKED))
    assert memory == b"." * PAGE


def test_bodies_that_are_too_short_are_refused() -> None:
    with pytest.raises(ProtocolError, match="not with HELLO"):
        Hello.parse(Message(REQUEST))
    with pytest.raises(ProtocolError, match="has only 3 bytes"):
        parse_welcome(Message(64, 0, b"123"))
    with pytest.raises(ProtocolError, match="neither yes nor no"):
        parse_verdict(Message(69, 0, b""))
