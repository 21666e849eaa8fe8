"""A Loop between six memory ports under a test clock, with a checkpointer that does what the test says.

Nothing here sleeps: `settle` returns when every task has nothing left to do, and time only goes on by `jump`.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from colo_compare.checkpoint.contract import (
    Capabilities,
    Checkpointer,
    CheckpointHandlers,
    Figures,
    NewSecondary,
)
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.settings import Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.loop import Loop
from colo_compare.ports.memory import CAPACITY, MemoryPort, memory_pair
from colo_compare.wire.frame import Frame
from tests.conversation import Clock, Conversation, Packet

ABLE = Capabilities(
    reports_pause=True,
    reports_load=True,
    copies_state=True,
    can_promote=True,
    can_fence=True,
    starts_by_itself=True,
    can_protect=True,
)

SETTINGS = Settings(compare_timeout=3.0, checkpoint_timeout=10.0, retry_interval=0.5, datagram_window=0.02)


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No options."""


class Scripted(Checkpointer):
    """A backend whose answers a test sets. As it stands, everything succeeds at once."""

    Options = Nothing

    def __init__(self, capabilities: Capabilities = ABLE) -> None:
        super().__init__(Nothing())
        self.capabilities = capabilities
        self.is_ready = True
        self.advice = math.inf  # seconds
        self.calls: list[str] = []  # requests, promotions and farewells, in order
        self.cancelled: list[str] = []  # those that did not come to their end
        self.end = trio.Event()  # lets run() end
        self.ending: Exception | None = None  # what run() raises then
        self.on_request: Callable[[CheckpointRequest], Awaitable[None]] = self.commit
        self.on_promote: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.on_abandon: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.on_protect: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    async def run(self, handlers: CheckpointHandlers) -> None:
        self.handlers = handlers
        await self.end.wait()
        if self.ending is not None:
            raise self.ending

    @property
    def ready(self) -> bool:
        return self.is_ready

    async def request(self, request: CheckpointRequest) -> None:
        await self._do(f"request {request.epoch}", self.on_request(request))

    async def promote(self, side: int) -> None:
        await self._do(f"promote {SIDE_NAMES[side]}", self.on_promote())

    async def abandon(self, side: int) -> None:
        await self._do(f"abandon {SIDE_NAMES[side]}", self.on_abandon())

    async def protect(self, new: NewSecondary) -> None:
        self.connect_client = new.connect_client
        await self._do(f"protect {new.port} {new.url}", self.on_protect())

    def advised_interval(self) -> float:
        return self.advice

    async def _do(self, what: str, script: Awaitable[None]) -> None:
        self.calls.append(what)
        try:
            await script
        except trio.Cancelled:
            self.cancelled.append(what)
            raise

    async def commit(self, request: CheckpointRequest) -> None:
        """Make a whole checkpoint."""
        if self.capabilities.reports_pause:
            await self.handlers.paused(request.epoch)
        if self.capabilities.reports_load:
            await self.handlers.loaded(request.epoch)
        await self.handlers.committed(request.epoch, Figures(pause=0.004, bytes=8192, pages=2))


async def hang(*_: object) -> None:
    """Script that never ends."""
    await trio.sleep_forever()


class Rig:
    """The loop, the far ends of its ports, and its checkpointer."""

    def __init__(
        self,
        clock: MockClock,
        settings: Settings = SETTINGS,
        backend: Scripted | None = None,
        capacity: tuple[int, int, int] = (CAPACITY, CAPACITY, CAPACITY),
    ) -> None:
        self.clock = clock
        self.backend = Scripted() if backend is None else backend
        capabilities = self.backend.capabilities
        self.settings = replace(
            settings, copies_state=capabilities.copies_state, reports_pause=capabilities.reports_pause
        )
        pairs = [memory_pair(room, name=name) for room, name in zip(capacity, SIDE_NAMES, strict=True)]
        self.ports = [near for near, _ in pairs]
        self.client, self.primary, self.secondary = [far for _, far in pairs]
        self.error: Exception | None = None  # that Loop.run raised
        self.ended = trio.Event()
        self.talk = Conversation(Clock(1000.0))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Rig"]:
        """Run the loop until the test is done with it, or it has ended by itself."""
        for port in (*self.ports, self.client, self.primary, self.secondary):
            await port.open()
        self.loop = Loop(
            self.settings, self.ports[CLIENT], self.ports[PRIMARY], self.ports[SECONDARY], self.backend
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            await self.settle()
            yield self
            nursery.cancel_scope.cancel()

    async def _run(self) -> None:
        try:
            await self.loop.run()
        except Exception as error:  # for the test to look at
            self.error = error
        finally:
            self.ended.set()

    def held_back(self) -> set[str]:
        """Which ports the loop does not read now."""
        return {link.name for link in self.loop.links if link.waits_at_gate}

    async def settle(self) -> None:
        """Let every task do what it can do now."""
        await wait_all_tasks_blocked()

    async def jump(self, seconds: float) -> None:
        """Let time go on, and every task do what it can do then."""
        self.clock.jump(seconds)
        self.talk.clock.now += seconds
        await self.settle()

    def put(self, port: MemoryPort, *packets: Packet | bytes) -> None:
        """Put frames on their way to the loop, which does not see them before the test waits."""
        frames = [Frame(p.data if isinstance(p, Packet) else p, 0) for p in packets]
        assert port.send_batch(frames) == len(frames), "the port of the rig is too small for that"

    async def send(self, port: MemoryPort, *packets: Packet | bytes) -> None:
        """Let a side send frames, and the loop do what follows from them."""
        self.put(port, *packets)
        await self.settle()

    async def both_say(self, *payloads: bytes) -> list[bytes]:
        """Let both guests send the same datagrams; gives the primary's frames."""
        said = [self.talk.primary.datagram(payload) for payload in payloads]
        await self.send(self.primary, *said)
        await self.send(self.secondary, *[self.talk.secondary.datagram(payload) for payload in payloads])
        return [packet.data for packet in said]


def seen(port: MemoryPort) -> list[bytes]:
    """Take the frames that have arrived at a far end."""
    return port.drain()
