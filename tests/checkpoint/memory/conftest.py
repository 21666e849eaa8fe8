import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from colo_compare.checkpoint.contract import Figures
from colo_compare.checkpoint.memory.backend import MemoryCheckpointer
from colo_compare.checkpoint.memory.endpoint import Endpoint
from colo_compare.checkpoint.memory.guest_control import SocketGuest
from colo_compare.checkpoint.memory.options import MemoryOptions
from colo_compare.checkpoint.memory.receiver import Receiver
from colo_compare.core.actions import CheckpointRequest
from colo_compare.errors import CheckpointerError

ROOT = Path(__file__).resolve().parents[3]
PAGES = 600


class GuestProcess:
    """A scribbler."""

    def __init__(self, path: Path, *words: str, pages: int = PAGES) -> None:
        self.path = str(path)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.checkpoint.memory.scribbler", self.path, str(pages * 4096), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    @property
    def digest(self) -> str:
        return self.tell("digest")

    @property
    def memory(self) -> int:
        """Pages of its memory that are more than holes."""
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            if str(descriptor.readlink()).startswith("/memfd:guest"):
                return descriptor.stat().st_blocks * 512 // 4096
        raise AssertionError("it has no memory")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


Start = Callable[..., GuestProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a guest by its name."""
    started: list[GuestProcess] = []

    def start(name: str, *words: str, pages: int = PAGES) -> GuestProcess:
        started.append(GuestProcess(tmp_path / f"{name}.sock", *words, pages=pages))
        return started[-1]

    yield start
    for guest in started:
        guest.stop()


class Reports:
    """The proxy's side: keeps what is reported, and does what a test wants in the middle."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.details: list[str] = []
        self.figures = Figures()
        self.lost: list[tuple[int, str]] = []
        self.lost_event = trio.Event()
        self.on: dict[str, Callable[[], object]] = {}

    async def _note(self, name: str) -> None:
        self.seen.append(name)
        if name in self.on:
            self.on[name]()
        await trio.lowlevel.checkpoint()

    async def begun(self) -> int:
        raise AssertionError("nobody begins here")

    async def paused(self, epoch: int) -> None:
        await self._note("paused")

    async def loaded(self, epoch: int) -> None:
        await self._note("loaded")

    async def committed(self, epoch: int, figures: Figures) -> None:
        self.figures = figures
        await self._note("committed")

    async def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        self.details.append(detail)
        await self._note("failed, intact" if secondary_intact else "failed, spoilt")

    async def guest_lost(self, side: int, detail: str) -> None:
        self.lost.append((side, detail))
        self.lost_event.set()
        await trio.lowlevel.checkpoint()


class Pair:
    """Two guests, the secondary's receiver, and the backend."""

    def __init__(
        self, primary: GuestProcess, secondary: GuestProcess, backend: MemoryCheckpointer, reports: Reports
    ) -> None:
        self.primary = primary
        self.secondary = secondary
        self.backend = backend
        self.reports = reports
        self.epoch = 0
        self.receiving: Receiving

    async def checkpoint(self) -> list[str]:
        """Ask for a checkpoint; gives what was reported."""
        self.epoch += 1
        self.reports.seen.clear()
        await self.backend.request(CheckpointRequest(self.epoch, ("payload",), ""))
        return list(self.reports.seen)


class Receiving:
    """A receiver that runs."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.scope = trio.CancelScope()
        self.error: CheckpointerError | None = None
        self.ended = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.scope:
            try:
                await self._receiver.run(task_status)
            except CheckpointerError as error:
                self.error = error
        self.ended.set()


@asynccontextmanager
async def receiving(path: str, endpoint: str, tracker: str = "auto") -> AsyncIterator[Receiving]:
    """Run a receiver for the guest with this control socket."""
    guest = await SocketGuest.attach(path, patience=2.0)
    running = Receiving(Receiver(guest, Endpoint(endpoint), patience=1.0, tracker=tracker))
    async with trio.open_nursery() as nursery:
        await nursery.start(running.run)
        yield running
        nursery.cancel_scope.cancel()


Together = Callable[..., AbstractAsyncContextManager[Pair]]


@pytest.fixture
def together(start: Start, tmp_path: Path) -> Together:
    """Give a function that runs a pair in a block, with options of the backend."""

    @asynccontextmanager
    async def together(**options: object) -> AsyncIterator[Pair]:
        words = ["plain"] if options.pop("plain", False) else []
        primary, secondary = start("primary", *words), start("secondary", *words)
        endpoint = str(options.pop("secondary", f"unix:{tmp_path}/receiver.sock"))
        settings = {"timeout": 1.0, "reconnect_timeout": 0.5, "presend_rate": 0, **options}
        backend = MemoryCheckpointer(
            MemoryOptions(primary=primary.path, secondary=endpoint, **settings)  # type: ignore[arg-type]  # by name
        )
        reports = Reports()
        pair = Pair(primary, secondary, backend, reports)
        async with receiving(secondary.path, endpoint) as pair.receiving, trio.open_nursery() as nursery:
            nursery.start_soon(backend.run, reports)
            with trio.fail_after(5):
                while not backend.ready:  # noqa: ASYNC110 - the contract has no event for it
                    await trio.sleep(0.001)
            yield pair
            nursery.cancel_scope.cancel()

    return together
