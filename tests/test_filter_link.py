"""What may not have reached the client when the QEMU between dies."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from colo_compare.filter_link import UNREAD, FilterLink
from colo_compare.ports.stream import StreamPort
from colo_compare.wire.frame import Frame, parse_frame
from tests.conversation import Clock, Conversation

TALK = Conversation(Clock(1000.0))
SIZE = 1000  # bytes of a payload


def segment() -> Frame:
    return parse_frame(TALK.primary.data(bytes(SIZE)).data, 0, False)


class Scene:
    def __init__(self, link: FilterLink, port: StreamPort, path: Path) -> None:
        self.link = link
        self.port = port
        self._path = path
        self.peers: list[trio.socket.SocketType] = []

    async def connect(self) -> trio.socket.SocketType:
        sock = trio.socket.socket(socket.AF_UNIX)
        self.peers.append(sock)
        await sock.connect(str(self._path))
        await self.port.wait_connected()
        return sock

    async def lose(self, peer: trio.socket.SocketType) -> None:
        peer.close()
        while self.port.connected:
            self.port.drain()
            await trio.lowlevel.checkpoint()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    path = tmp_path / "released"
    async with StreamPort("released", str(path), listen=True) as port:
        with trio.fail_after(20):
            scene = Scene(FilterLink(port), port, path)
            yield scene
        for peer in scene.peers:
            peer.close()


async def test_what_the_socket_may_hold(scene: Scene) -> None:
    peer = await scene.connect()
    sent = [segment() for _ in range(1500)]
    for frame in sent:
        scene.link.send([frame])
        if frame is not sent[-1]:
            while scene.link.backlog:
                await peer.recv(1 << 20)
                scene.link.flush()
    unread = scene.link.take_unread()
    assert unread == sent[-len(unread) :]
    assert UNREAD <= sum(len(frame.data) for frame in unread) < UNREAD + 2 * SIZE
    assert scene.link.take_unread() == []


async def test_what_the_port_has_not_taken_and_what_comes_when_nobody_listens(scene: Scene) -> None:
    peer = await scene.connect()
    sent = [segment() for _ in range(2000)]
    scene.link.send(sent)
    waiting = len(scene.link.backlog)
    assert 0 < waiting < 2000
    scene.link.send([segment()])
    sent.append(scene.link.backlog[-1])
    await scene.lose(peer)
    scene.link.flush()  # into nothing
    assert scene.link.backlog == []
    late = segment()
    scene.link.send([late])
    unread = scene.link.take_unread()
    assert unread == [*sent, late][-len(unread) :]
    assert len(unread) >= waiting + 2


async def test_a_backlog_goes_with_it(scene: Scene) -> None:
    await scene.connect()
    sent = [segment() for _ in range(2000)]
    scene.link.send(sent)
    unread = scene.link.take_unread()
    assert unread == sent[-len(unread) :]
    assert scene.link.backlog == []
    assert not scene.link.backlogged.is_set()
    assert scene.link.dropped == 0


async def test_a_new_peer_is_not_told_of_what_was_lost_before(scene: Scene) -> None:
    scene.link.send([segment() for _ in range(3000)])
    await scene.connect()
    last = segment()
    scene.link.send([last])
    unread = scene.link.take_unread()
    assert unread[-1] is last
    assert len(unread) < 3000


async def test_datagrams_are_not_repeated(scene: Scene) -> None:
    await scene.connect()
    scene.link.send([parse_frame(TALK.primary.datagram(b"answer").data, 0, False)])
    scene.link.send([])
    assert scene.link.take_unread() == []


async def test_it_forgets(scene: Scene) -> None:
    peer = await scene.connect()
    first = segment()
    scene.link.send([first])
    for _ in range(600):
        scene.link.send([parse_frame(TALK.primary.data(b"x").data, 0, False)])
        while scene.link.backlog:
            await peer.recv(1 << 20)
            scene.link.flush()
    assert first not in scene.link.take_unread()
