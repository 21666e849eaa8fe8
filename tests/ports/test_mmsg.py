import socket
from collections.abc import Iterator

import pytest

from colo_compare.ports.mmsg import MessageReceiver, MessageSender


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        yield one, other


def texts(receiver: MessageReceiver, got: int) -> list[bytes]:
    slot = receiver.slot
    return [
        receiver.data[i * slot : i * slot + length].tobytes()
        for i, length in enumerate(receiver.lengths[:got].tolist())
    ]


def test_several_messages_at_once(sockets: tuple[socket.socket, socket.socket]) -> None:
    one, other = sockets
    sender, receiver = MessageSender(8), MessageReceiver(8, 64, 16)
    messages = [b"a" * size for size in (1, 60, 2, 59, 64)]
    assert sender.send(one.fileno(), messages, 0) == 5
    assert texts(receiver, receiver.receive(other.fileno())) == messages
    assert sender.send(one.fileno(), messages, 3) == 2
    assert texts(receiver, receiver.receive(other.fileno())) == messages[3:]


def test_no_more_than_there_are_buffers(sockets: tuple[socket.socket, socket.socket]) -> None:
    one, other = sockets
    sender, receiver = MessageSender(3), MessageReceiver(2, 64, 16)
    messages = [b"a", b"bb", b"ccc", b"dddd"]
    assert sender.send(one.fileno(), messages, 0) == 3
    assert texts(receiver, receiver.receive(other.fileno())) == [b"a", b"bb"]
    assert texts(receiver, receiver.receive(other.fileno())) == [b"ccc"]


def test_what_is_too_long_fills_its_slot(sockets: tuple[socket.socket, socket.socket]) -> None:
    one, other = sockets
    receiver = MessageReceiver(2, 64, 16)
    one.send(b"x" * 100)
    one.send(b"y" * 63)
    assert receiver.receive(other.fileno()) == 2
    assert receiver.lengths.tolist() == [64, 63]


def test_a_gap_is_left_out_and_put_in(sockets: tuple[socket.socket, socket.socket]) -> None:
    one, other = sockets
    sender, receiver = MessageSender(4, (10, 12)), MessageReceiver(4, 64, 16, (10, 12))
    messages = [b"0123456789..abcdef", b"9876543210..fedcba"]
    assert sender.send(one.fileno(), messages, 0) == 2
    assert other.recv(64) == b"0123456789abcdef"
    assert sender.send(one.fileno(), messages, 0) == 1 + 1
    assert receiver.receive(other.fileno()) == 3
    assert receiver.hidden == 2
    assert receiver.data[:18].tobytes() == b"9876543210\0\0fedcba"
    assert receiver.lengths[:3].tolist() == [16, 16, 16]


def test_nothing_there_and_no_room(sockets: tuple[socket.socket, socket.socket]) -> None:
    one, other = sockets
    with pytest.raises(BlockingIOError):
        MessageReceiver(2, 64, 16).receive(other.fileno())
    sender = MessageSender(64)
    sent = sender.send(one.fileno(), [b"a"] * 64, 0)
    while sent == 64:  # as long as the send buffer has room
        sent = sender.send(one.fileno(), [b"a"] * 64, 0)
    with pytest.raises(BlockingIOError):
        sender.send(one.fileno(), [b"a"], 0)


def test_other_errors_are_raised(sockets: tuple[socket.socket, socket.socket]) -> None:
    one, other = sockets
    other.close()
    with pytest.raises(ConnectionRefusedError):
        MessageSender(2).send(one.fileno(), [b"a"], 0)
