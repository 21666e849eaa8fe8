"""Back-pressure over real sockets: whoever does not read makes the others wait, and nothing is lost.

A frame's number stands in it, so that order and number are seen at the other end.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from colo_compare.core.settings import Settings
from colo_compare.filter_link import FilterLink
from colo_compare.link import Link
from colo_compare.loop import Loop
from colo_compare.ports.stream import StreamPort
from colo_compare.ports.stream_batch import READ
from colo_compare.traffic import FILTER_ROOM
from tests import frames
from tests.rig import Scripted

COUNT = 60_000  # frames: 4 MiB, much more than the sockets take
NAMES = ("client", "primary", "secondary")


def framed(number: int) -> bytes:
    data = frames.ethernet(number.to_bytes(4).ljust(50), 0x88B5, frames.GUEST_MAC, frames.CLIENT_MAC)
    return len(data).to_bytes(4) + data


SIZE = len(framed(0))
SAID = b"".join(map(framed, range(COUNT)))
# What may wait for one port: what follows from a read that was under way when the gate shut, and from the one
# that ends the wait of the reader.
BOUND = 2 * READ // SIZE


class Scene:
    def __init__(self, loop: Loop, sockets: list[trio.socket.SocketType]) -> None:
        self.loop = loop
        self.client, self.primary, self.secondary = sockets


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def scene(tmp_path: Path, nursery: trio.Nursery, settings: Settings) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        ports, sockets = [], []
        for name in NAMES:
            path = str(tmp_path / name)
            ports.append(await stack.enter_async_context(StreamPort(name, path, listen=True)))
            sockets.append(stack.enter_context(trio.socket.socket(socket.AF_UNIX)))
            await sockets[-1].connect(path)
            await ports[-1].wait_connected()
        client, primary, secondary = ports
        loop = Loop(settings, client, primary, secondary, Scripted())
        await nursery.start(loop.run)
        with trio.fail_after(60):
            while not loop.proxy.protected:  # a checkpoint drains a port at once, however much there is
                await trio.lowlevel.checkpoint()
            yield Scene(loop, sockets)
        nursery.cancel_scope.cancel()


async def say(sock: trio.socket.SocketType) -> None:
    rest = memoryview(SAID)
    while rest:
        rest = rest[await sock.send(rest) :]


async def hear(sock: trio.socket.SocketType) -> None:
    """Take everything; fails where it is not exactly what was said."""
    at = 0
    while at < len(SAID):
        data = await sock.recv(READ)
        assert data == SAID[at : at + len(data)]
        at += len(data)


async def shut(link: Link) -> None:
    """Wait until a port is not read any more."""
    while not link.waits_at_gate:
        await trio.lowlevel.checkpoint()


async def test_a_client_that_does_not_read(scene: Scene) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, scene.primary)
        await shut(scene.loop.primary)
        assert 0 < len(scene.loop.client.backlog) <= BOUND
        assert scene.loop.client.port.counters.sent_frames < COUNT
        nursery.start_soon(hear, scene.client)
    assert scene.loop.primary.port.counters.received_frames == COUNT
    assert scene.loop.proxy.held_frames == 0


@pytest.mark.parametrize("slow", ["primary", "secondary"])
async def test_a_guest_that_does_not_read(scene: Scene, slow: str) -> None:
    guests = {"primary": scene.primary, "secondary": scene.secondary}
    links = {link.name: link for link in scene.loop.links}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear, guests.pop("secondary" if slow == "primary" else "primary"))
        nursery.start_soon(say, scene.client)
        await shut(scene.loop.client)
        assert 0 < len(links[slow].backlog) <= BOUND
        nursery.start_soon(hear, guests[slow])
    assert [links[name].dropped for name in NAMES] == [0, 0, 0]


@pytest.mark.parametrize("settings", [Settings(mirror=False, rewrite=False)])
async def test_filters_of_a_qemu_that_reads_only_when_it_has_written(scene: Scene) -> None:
    await say(scene.primary)
    assert scene.loop.client.backlog
    await hear(scene.client)
    assert scene.loop.client.dropped == 0


@pytest.mark.parametrize("settings", [Settings(mirror=False, rewrite=False, max_held_frames=COUNT // 4)])
async def test_what_waits_for_filters_that_do_not_read_is_bounded(scene: Scene) -> None:
    await say(scene.primary)
    while scene.loop.primary.port.counters.received_frames < COUNT:
        await trio.lowlevel.checkpoint()
    link = scene.loop.client
    assert COUNT // 4 <= len(link.backlog) <= COUNT // 4 + BOUND
    assert link.port.counters.sent_frames + len(link.backlog) + link.dropped == COUNT


@pytest.mark.parametrize("settings", [Settings(mirror=False, rewrite=False)])
async def test_filters_that_go_on_reading_keep_what_waits_small(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colo_compare.loop.FILTER_PATIENCE", 30.0)  # a busy machine is no QEMU that waits
    link = scene.loop.client
    assert isinstance(link, FilterLink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, scene.primary)
        await shut(scene.loop.primary)
        assert FILTER_ROOM <= link.waiting_bytes < FILTER_ROOM + 2 * READ
        nursery.start_soon(hear, scene.client)
    assert (link.waiting_bytes, link.backlog, link.dropped) == (0, [], 0)
