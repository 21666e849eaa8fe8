"""Reading on, on a loop whose tasks do not run: whatever moves here, moves without the scheduler."""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from colo_compare.core.settings import BYPASS, Settings
from colo_compare.core.sides import SECONDARY
from colo_compare.loop import Loop
from colo_compare.ports.stream import StreamPort
from colo_compare.reading_on import read_on
from colo_compare.wire.frame import Frame
from tests import frames
from tests.rig import Scripted

DATA = frames.ethernet(b"payload".ljust(50), 0x88B5, frames.GUEST_MAC, frames.CLIENT_MAC)
FRAME = Frame(DATA, 0)
ZERO = os.open("/dev/zero", os.O_RDONLY)


class Scene:
    """A loop between stream ports, and the other ends of these."""

    def __init__(self, loop: Loop, client: StreamPort, primary: StreamPort, secondary: StreamPort) -> None:
        self.loop = loop
        self.client = client
        self.primary = primary
        self.secondary = secondary

    async def said(self, port: StreamPort) -> list[bytes]:
        with trio.fail_after(5):
            return await port.receive_batch()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    names = ("client", "primary", "secondary")
    async with (
        stream(tmp_path, names[0]) as c,
        stream(tmp_path, names[1]) as p,
        stream(tmp_path, names[2]) as s,
    ):
        loop = Loop(Settings(mode=BYPASS), c[0], p[0], s[0], Scripted())
        loop.wakes_at = math.inf  # as in a loop that runs, and has no timer
        yield Scene(loop, c[1], p[1], s[1])


@asynccontextmanager
async def stream(directory: Path, name: str) -> AsyncIterator[tuple[StreamPort, StreamPort]]:
    """A port, and its other end."""
    path = str(directory / name)
    async with (
        StreamPort(name, path, listen=True, reconnect=0) as near,
        StreamPort(name, path, reconnect=0) as far,
    ):
        await near.wait_connected()
        yield near, far


async def test_every_port_is_read(scene: Scene) -> None:
    scene.client.send_batch([FRAME])
    scene.primary.send_batch([FRAME, FRAME])
    read_on(scene.loop)
    assert await scene.said(scene.primary) == [DATA]
    assert await scene.said(scene.client) == [DATA, DATA]


async def test_it_ends_where_nothing_comes(scene: Scene) -> None:
    read_on(scene.loop)
    assert scene.loop.proxy.counters.received == [0, 0, 0]


async def test_a_shut_gate_is_kept_shut(scene: Scene) -> None:
    scene.loop.draining = True
    scene.client.send_batch([FRAME])
    scene.primary.send_batch([FRAME])
    read_on(scene.loop)
    assert scene.loop.proxy.counters.received == [0, 1, 0]


async def test_a_fenced_guest_is_not_read(scene: Scene) -> None:
    scene.loop.primary.fence("for the test")
    scene.primary.send_batch([FRAME])
    read_on(scene.loop)
    assert scene.loop.proxy.counters.received == [0, 0, 0]


async def test_a_port_that_breaks_is_reported_once(scene: Scene) -> None:
    await scene.primary.aclose()
    read_on(scene.loop)
    assert "the other end closed it" in scene.loop.primary.failure
    scene.client.send_batch([FRAME])
    read_on(scene.loop)
    assert scene.loop.proxy.counters.received == [1, 0, 0]


class Talker(StreamPort):
    """Always readable, and never silent."""

    reads = 0

    @property
    def descriptor(self) -> int:
        return ZERO

    def receive_now(self) -> list[bytes]:
        self.reads += 1
        return [DATA]


async def test_it_ends_though_a_guest_never_does(scene: Scene) -> None:
    talker = Talker("talker", "")
    scene.loop.links[SECONDARY].port = talker
    scene.loop.wakes_at = 0.0
    read_on(scene.loop)
    assert talker.reads == 1  # a timer is due
    scene.loop.wakes_at = math.inf
    read_on(scene.loop)
    assert talker.reads > 1


async def test_it_ends_when_a_task_has_something_to_do(scene: Scene) -> None:
    talker = Talker("talker", "")
    scene.loop.links[SECONDARY].port = talker
    scene.loop.awaiting_change = 1
    read_on(scene.loop)
    assert talker.reads == 1


async def test_it_ends_when_frames_have_to_wait(scene: Scene) -> None:
    talker = Talker("talker", "")
    scene.loop.links[SECONDARY].port = talker
    scene.primary.send_batch([FRAME])
    scene.loop.client.port = Full("full", "")
    read_on(scene.loop)
    assert scene.loop.client.backlog
    assert talker.reads <= 1


class Full(StreamPort):
    """Takes nothing."""

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        return start
