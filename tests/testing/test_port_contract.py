"""The contract check finds what it is there for: ports that are wrong in one way each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from colo_compare.errors import PortClosed
from colo_compare.ports.memory import MemoryPort, memory_pair
from colo_compare.ports.port import FramePort
from colo_compare.testing import check_port
from colo_compare.testing.port_contract import MakePair
from colo_compare.wire.frame import Frame
from colo_compare.wire.offload import materialise


class Wrapper(FramePort):
    """A port that is right; each subclass spoils one thing."""

    def __init__(self, inner: MemoryPort) -> None:
        self.inner = inner
        self.url = inner.url
        self.header_len = inner.header_len
        self.counters = inner.counters
        self.pushes_back = inner.pushes_back
        self.connected = False

    async def open(self) -> None:
        await self.inner.open()
        self.connected = True

    async def receive_batch(self) -> list[bytes]:
        return await self.inner.receive_batch()

    def drain(self) -> list[bytes]:
        return self.inner.drain()

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        return self.inner.send_batch(frames, start)

    async def wait_writable(self) -> None:
        await self.inner.wait_writable()

    async def aclose(self) -> None:
        self.connected = False
        await self.inner.aclose()


class NoUrl(Wrapper):
    async def open(self) -> None:
        await super().open()
        self.url = ""


class OddHeader(Wrapper):
    async def open(self) -> None:
        await super().open()
        self.header_len = 10


class NeverConnected(Wrapper):
    async def open(self) -> None:
        await super().open()
        self.connected = False


class CutsFrames(Wrapper):
    def drain(self) -> list[bytes]:
        return [data[:1500] for data in super().drain()]

    async def receive_batch(self) -> list[bytes]:
        return [data[:1500] for data in await super().receive_batch()]


class Reorders(Wrapper):
    async def receive_batch(self) -> list[bytes]:
        return (await super().receive_batch())[::-1]


class IgnoresStart(Wrapper):
    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        return super().send_batch(frames)


class CountsFromStart(Wrapper):
    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        return super().send_batch(frames, start) - start


class DrainsNothing(Wrapper):
    def drain(self) -> list[bytes]:
        super().drain()
        return []


class Polls(Wrapper):
    async def receive_batch(self) -> list[bytes]:
        while True:
            await trio.lowlevel.checkpoint()
            frames = super().drain()
            if frames:
                return frames


class GivesEmptyBatches(Wrapper):
    async def receive_batch(self) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        return super().drain()


class GivesByteArrays(Wrapper):
    async def receive_batch(self) -> list[bytes]:
        return [bytearray(data) for data in await super().receive_batch()]  # type: ignore[misc]  # the mistake


class NeverWaitsForRoom(Wrapper):
    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()


class ClaimsToPushBack(Wrapper):
    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        super().send_batch(frames, start)
        return len(frames)


class SleepsThroughItsEnd(Wrapper):
    async def receive_batch(self) -> list[bytes]:
        try:
            return await super().receive_batch()
        except PortClosed:
            await trio.sleep_forever()


class WorksWhenClosed(Wrapper):
    def drain(self) -> list[bytes]:
        try:
            return super().drain()
        except PortClosed:
            return []


class CountsHeaders(Wrapper):
    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        taken = super().send_batch(frames, start)
        self.counters.sent_bytes += 12 * (taken - start)
        return taken


class StripsHeaders(Wrapper):
    """Sends what a guest left to be done as if it were done."""

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        bare = [Frame(frame.data[frame.header_len :], 0) for frame in frames]
        return super().send_batch(bare, start)


class SwapsSegments(Wrapper):
    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        for index in range(start, len(frames)):
            pieces = [Frame(data, 0) for data in materialise(frames[index])][::-1]
            if super().send_batch(pieces) < len(pieces):
                return index
        return len(frames)


class ChokesOnRunts(Wrapper):
    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        if any(len(frame.data) < 14 for frame in frames):
            raise PortClosed("what was that?")
        return super().send_batch(frames, start)


class LosesWhenCancelled(Wrapper):
    async def receive_batch(self) -> list[bytes]:
        frames = await super().receive_batch()
        await trio.lowlevel.checkpoint()
        return frames


def pair_of(kind: type[Wrapper]) -> MakePair:
    @asynccontextmanager
    async def make_pair() -> AsyncIterator[tuple[FramePort, FramePort]]:
        one, other = memory_pair()
        async with kind(one) as first, kind(other) as second:
            yield first, second

    return make_pair


async def test_a_port_that_is_right_passes() -> None:
    await check_port(pair_of(Wrapper), longest=65549)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (NoUrl, "url is not set"),
        (OddHeader, "header_len is 10, not 0 or 12"),
        (NeverConnected, "connected is not set although frames pass"),
        (CutsFrames, r"frame 0 of 1 came as 1500 bytes, frame none of those"),
        (Reorders, r"frame 0 of \d+ came as 64 bytes, frame \d+ of those"),
        (IgnoresStart, "frame 0 of 5 came as 64 bytes, frame none of those"),
        (CountsFromStart, "send_batch from behind the last frame did not give"),
        (DrainsNothing, 'drains" is not done after'),
        (Polls, 'waits for frames" is not done after'),
        (GivesEmptyBatches, "receive_batch gave 0 frames, not one to a few thousand"),
        (GivesByteArrays, "receive_batch gave frames that are not bytes"),
        (NeverWaitsForRoom, "wait_writable returned although the port was full"),
        (ClaimsToPushBack, 'keeps order" is not done after'),
        (SleepsThroughItsEnd, 'wakes who waits when closed" is not done after'),
        (WorksWhenClosed, "drain on a closed port did not raise PortClosed"),
        (CountsHeaders, "sent_bytes does not count bytes of Ethernet frames"),
        (StripsHeaders, "a TCP frame with a partial checksum came with a wrong one"),
        (SwapsSegments, "segments of a large TCP frame came out of order"),
        (ChokesOnRunts, "raised PortClosed.*what was that"),
        (LosesWhenCancelled, 'loses nothing when cancelled" is not done after|frames were lost'),
    ],
)
async def test_what_is_wrong_is_said(kind: type[Wrapper], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        await check_port(pair_of(kind), longest=65549, patience=0.2)
