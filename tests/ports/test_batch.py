"""Both forms, on sockets and pipes that are no network: what a packet socket adds is in test_packet."""

import errno
import os
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def sockets() -> Iterator[Pair]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        other.setblocking(False)
        yield one, other


def received(receiver: object, sock: socket.socket) -> list[bytes]:
    messages: list[bytes] = []
    assert receiver.receive(sock.fileno(), messages) >= len(messages)  # type: ignore[attr-defined]  # either form
    return messages


def test_several_messages_at_once(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    sender, receiver = form.MessageSender(8), form.MessageReceiver(8, 64)
    messages = [b"a" * size for size in (1, 60, 2, 59, 63)]
    assert sender.send(one.fileno(), messages, 0) == 5
    assert received(receiver, other) == messages
    assert receiver.tags == ()
    assert sender.send(one.fileno(), messages, 3) == 2
    assert received(receiver, other) == messages[3:]


def test_they_are_put_behind_what_was_there(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    one.send(b"second")
    messages = [b"first"]
    assert form.MessageReceiver(8, 64).receive(other.fileno(), messages) == 1
    assert messages == [b"first", b"second"]


def test_no_more_than_there_are_buffers(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    sender, receiver = form.MessageSender(3), form.MessageReceiver(2, 64)
    assert sender.send(one.fileno(), [b"a", b"bb", b"ccc", b"dddd"], 0) == 3
    assert received(receiver, other) == [b"a", b"bb"]
    assert received(receiver, other) == [b"ccc"]


def test_what_fills_its_slot_is_left_out(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    receiver = form.MessageReceiver(4, 64)
    messages: list[bytes] = []
    for message in (b"x" * 100, b"y" * 64, b"z" * 63):
        one.send(message)
    assert receiver.receive(other.fileno(), messages) == 3
    assert messages == [b"z" * 63]


def test_a_gap_is_left_out_and_put_in(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    sender, receiver = form.MessageSender(4, (10, 12)), form.MessageReceiver(4, 64, (10, 12))
    messages = [b"0123456789..abcdef", b"9876543210..fedcba"]
    assert sender.send(one.fileno(), messages, 0) == 2
    assert other.recv(64) == b"0123456789abcdef"
    assert sender.send(one.fileno(), messages, 0) == 2
    want = [message.replace(b"..", b"\0\0") for message in messages]
    assert received(receiver, other) == [want[1], *want]
    # The gap keeps its zeros, also where the buffer before was given away.
    one.send(b"l" * 60)
    assert received(receiver, other) == [b"l" * 10 + b"\0\0" + b"l" * 50]
    one.send(b"s" * 11)
    assert received(receiver, other) == [b"s" * 10 + b"\0\0s"]


def test_messages_stay_as_they_were_received(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    receiver = form.MessageReceiver(4, 0x1000)
    chance = random.Random(1)
    kept: list[bytes] = []
    sent: list[bytes] = []
    for _ in range(200):
        sent += [chance.randbytes(chance.choice((1, 60, 1500, 2047, 2048, 2049, 0xFFF))) for _ in range(3)]
        for message in sent[-3:]:
            one.send(message)
        receiver.receive(other.fileno(), kept)
    assert kept == sent
    assert {hash(a) == hash(b) for a, b in zip(kept, sent, strict=True)} == {True}


@pytest.mark.parametrize("size", [1, 4, 5, 8, 9])
def test_what_does_not_reach_behind_a_gap_is_sent_whole(form: ModuleType, sockets: Pair, size: int) -> None:
    one, other = sockets
    message = bytes(range(size))
    assert form.MessageSender(2, (4, 8)).send(one.fileno(), [b"before", message], 1) == 1
    assert other.recv(64) == (message if size <= 8 else message[:4] + message[8:])


def test_nothing_there_and_no_room(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    with pytest.raises(BlockingIOError):
        form.MessageReceiver(2, 64).receive(other.fileno(), [])
    sender = form.MessageSender(64)
    sent = sender.send(one.fileno(), [b"a"] * 64, 0)
    while sent == 64:  # as long as the send buffer has room
        sent = sender.send(one.fileno(), [b"a"] * 64, 0)
    with pytest.raises(BlockingIOError):
        sender.send(one.fileno(), [b"a"], 0)


def test_other_errors_are_raised(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    other.close()
    with pytest.raises(ConnectionRefusedError):
        form.MessageSender(2).send(one.fileno(), [b"a"], 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        form.MessageReceiver(2, 64).receive(other.fileno(), [])


def test_reading_goes_on_to_the_limit_or_an_error(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    reader = form.MessageReader(64)
    messages: list[bytes] = []
    for size in (1, 31, 32, 33, 64):
        one.send(bytes(size))
    assert reader.read(other.fileno(), messages, 4) == 0
    assert reader.read(other.fileno(), messages, 9) == errno.EAGAIN
    assert list(map(len, messages)) == [1, 31, 32, 33, 64]
    assert reader.read(-1, messages, 9) == errno.EBADF


def test_writing_goes_on_to_the_end_or_an_error(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    one.setblocking(False)
    assert form.write_messages(one.fileno(), [b"a", b"bb", b"ccc"], 1) == 2
    assert [other.recv(64) for _ in range(2)] == [b"bb", b"ccc"]
    many = [b"a"] * 1000
    assert 0 < form.write_messages(one.fileno(), many, 0) < 1000
    with pytest.raises(BlockingIOError):
        form.write_messages(one.fileno(), many, 0)


def test_bytes_are_summed_up(form: ModuleType) -> None:
    messages = [b"", b"a", b"bbb"]
    assert [form.size_of(messages, start, 3) for start in range(4)] == [4, 4, 3, 0]
    assert form.size_of(messages, 0, 2) == 1


def test_who_is_readable_is_told_at_once(form: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    fds = [one.fileno(), other.fileno()]
    assert form.readable(fds, 0.0) == []
    assert form.readable([], 0.0) == []
    one.send(b"a")
    assert form.readable(fds, 60.0) == [other.fileno()]
    other.send(b"a")
    assert form.readable(fds[::-1], 60.0) == fds[::-1]


def test_an_end_is_readable(form: ModuleType) -> None:
    one, other = socket.socketpair()
    with other:
        one.close()
        assert form.readable([other.fileno()], 60.0) == [other.fileno()]


@given(
    slot=st.integers(16, 3000),
    gap=st.none() | st.tuples(st.integers(0, 8), st.integers(8, 16)),
    sizes=st.lists(st.integers(1, 4000), max_size=8),
    count=st.integers(1, 8),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_sizes(
    form: ModuleType, sockets: Pair, slot: int, gap: tuple[int, int] | None, sizes: list[int], count: int
) -> None:
    one, other = sockets
    chance = random.Random(slot)
    sent = [chance.randbytes(size) for size in sizes]
    for message in sent:
        one.send(message)
    start, end = gap or (0, 0)
    stored = [m[:start] + bytes(end - start) + m[start:] if len(m) > start else m for m in sent]
    receiver = form.MessageReceiver(count, slot, gap)
    messages: list[bytes] = []
    got = 0
    while got < len(sent):
        got += receiver.receive(other.fileno(), messages)
    assert messages == [message for message in stored if len(message) < slot]


# What only the compiled form could do: harm.


@pytest.fixture
def compiled(form: ModuleType) -> ModuleType:
    if form.__name__.endswith("mmsg"):
        pytest.skip("for the compiled form")
    return form


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MessageReceiver", (0, 64)),
        ("MessageReceiver", (1025, 64)),
        ("MessageReceiver", (1, 15)),
        ("MessageReceiver", (1, 16, (10, 17))),
        ("MessageReceiver", (1, 64, (12, 10))),
        ("MessageReceiver", (1, 64, (-1, 10))),
        ("MessageReceiver", (1, 64, (1,))),
        ("MessageReceiver", (1, 64, 5)),
        ("MessageReceiver", ("1", 64)),
        ("MessageSender", (-1,)),
        ("MessageSender", (1, (2, 1))),
        ("MessageReader", (0,)),
        ("write_messages", (0, [b""], 1)),
        ("write_messages", (0, (b"",), 0)),
        ("size_of", ([b""], -1, 1)),
        ("size_of", ([b""], 0, 2)),
        ("size_of", (["x"], 0, 1)),
        ("readable", (["x"], 0)),
        ("readable", ([0] * 65, 0)),
        ("readable", ([0], "x")),
    ],
)
def test_nonsense_is_refused(compiled: ModuleType, name: str, words: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, ValueError)):
        getattr(compiled, name)(*words)


def test_messages_that_are_no_bytes_are_refused(compiled: ModuleType, sockets: Pair) -> None:
    one, _ = sockets
    for messages in ([b"a", "b"], [bytearray(b"a")], [None]):
        with pytest.raises(TypeError):
            compiled.MessageSender(4).send(one.fileno(), messages, 0)
        with pytest.raises(TypeError):
            compiled.write_messages(one.fileno(), messages, len(messages) - 1)
    for start in (-1, 1):
        with pytest.raises(ValueError, match="no message"):
            compiled.MessageSender(4).send(one.fileno(), [b"a"], start)
    with pytest.raises(TypeError):
        compiled.MessageReceiver(2, 64).receive(one.fileno(), ())
    with pytest.raises(TypeError):
        compiled.MessageReader(64).read(one.fileno(), None, 1)


def test_no_memory_is_lost(compiled: ModuleType, sockets: Pair) -> None:
    one, other = sockets
    sender = compiled.MessageSender(8)

    def rounds(count: int) -> None:
        for _ in range(count):
            receiver, reader = compiled.MessageReceiver(4, 64), compiled.MessageReader(64)
            sender.send(one.fileno(), [b"s" * 10, b"l" * 60, b"x" * 64], 0)
            messages: list[bytes] = []
            receiver.receive(other.fileno(), messages)
            one.send(b"l" * 60)
            reader.read(other.fileno(), messages, 99)
            assert compiled.readable([other.fileno()], 0.0) == []
            assert [sys.getrefcount(message) for message in messages] == [2 + 1] * 3

    rounds(10)
    before = sys.getallocatedblocks(), resident()
    rounds(20_000)
    assert sys.getallocatedblocks() - before[0] < 100
    assert resident() - before[1] < 1 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
