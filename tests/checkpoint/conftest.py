from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from colo_compare.checkpoint.command import CommandCheckpointer, CommandOptions
from colo_compare.checkpoint.contract import Figures
from colo_compare.core.actions import CheckpointRequest


class Reports:
    """What a backend reported, in order, and what to do when it says that the primary stopped."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []
        self.figures = Figures()
        self.paused_event = trio.Event()
        self.on_paused: Callable[[], None] = self.paused_event.set

    async def begun(self) -> int:
        raise AssertionError("nobody begins here")

    async def paused(self, epoch: int) -> None:
        self.seen.append(("paused", epoch))
        self.on_paused()
        await trio.lowlevel.checkpoint()

    async def loaded(self, epoch: int) -> None:
        self.seen.append(("loaded", epoch))
        await trio.lowlevel.checkpoint()

    async def committed(self, epoch: int, figures: Figures) -> None:
        self.seen.append(("committed", epoch))
        self.figures = figures
        await trio.lowlevel.checkpoint()

    async def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        self.seen.append(("failed", epoch, detail, secondary_intact))
        await trio.lowlevel.checkpoint()

    async def guest_lost(self, side: int, detail: str) -> None:
        raise AssertionError("no guest is lost here")


REQUEST = CheckpointRequest(7, ("payload", "timeout"), "tcp 10.0.0.1:80 10.0.0.2:40000")

Running = Callable[[CommandOptions], AbstractAsyncContextManager[tuple[CommandCheckpointer, Reports]]]


@pytest.fixture
def running() -> Running:
    """Give a function that runs a command backend in a block."""

    @asynccontextmanager
    async def running(options: CommandOptions) -> AsyncIterator[tuple[CommandCheckpointer, Reports]]:
        reports = Reports()
        backend = CommandCheckpointer(options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run, reports)
            await trio.testing.wait_all_tasks_blocked()
            assert backend.ready
            yield backend, reports
            nursery.cancel_scope.cancel()
        assert not backend.ready

    return running
