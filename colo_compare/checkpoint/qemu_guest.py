"""One guest of a QEMU COLO pair: its monitor, its process, and the commands that it is given.

Commands and their effects: QEMU 7.2, qapi/migration.json and migration/colo.c.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio

from colo_compare.checkpoint.local_process import LocalProcess
from colo_compare.checkpoint.qemu_blame import BREATHES, LIVES, SILENT
from colo_compare.checkpoint.qemu_fence import Fence, Fenced, process_behind
from colo_compare.checkpoint.qmp import Monitor
from colo_compare.checkpoint.qmp_address import MonitorAddress
from colo_compare.checkpoint.qmp_protocol import MonitorEvent
from colo_compare.checkpoint.socket_address import UNIX, SocketAddress
from colo_compare.errors import MonitorError, MonitorRefused, MonitorTimeout

logger: Final = logging.getLogger(__name__)

# Setting this parameter, to whatever value, makes a primary in COLO begin a checkpoint. The value is when
# QEMU begins one by itself, counted from the last: as far away as 32 bits of milliseconds allow, 49 days.
DELAY_PARAMETER: Final = "x-checkpoint-delay"
NEVER: Final = (1 << 32) - 1

_LOOK_AGAIN: Final = 0.005  # seconds between two looks at a state that QEMU has no event for
COLO_NONE: Final = "none"
RUNNING: Final = "running"


class QemuGuest:
    """A guest. Its role may change, so it is called by its monitor's address."""

    fence: Fence  # from `connect` on

    def __init__(
        self, address: str, on_event: Callable[["QemuGuest", MonitorEvent], None], *, timeout: float
    ) -> None:
        """Take the monitor's address, what to call with its events, and how long it may take to answer."""
        self.monitor = Monitor(MonitorAddress.parse(address), self._take, timeout=timeout)
        self.address: Final = address
        self._timeout = timeout
        self.process: LocalProcess | None = None
        self._on_event = on_event
        self._expected: dict[str, trio.Event] = {}

    def _take(self, event: MonitorEvent) -> None:
        expected = self._expected.pop(event.name, None)
        if expected is not None:
            expected.set()
        self._on_event(self, event)

    def expect(self, name: str) -> trio.Event:
        """Give what is set when the next event of this name comes."""
        return self._expected.setdefault(name, trio.Event())

    async def connect(self, tls_dir: str, fence: tuple[str, ...], fence_timeout: float) -> None:
        """Connect to the monitor, and find out how the guest can be killed. Raises CheckpointerError."""
        await self.monitor.connect(tls_dir)
        self.process = process_behind(self.monitor.socket.socket)
        self.fence = Fence(self.address, self.process, fence, timeout=fence_timeout)

    async def connect_again(self, tls_dir: str) -> Monitor:
        """Connect to the monitor once more, whose connection was lost; gives what is to be `monitor`.

        A QEMU that lives always takes the connection, so one that is refused is not tried again. Raises
        MonitorError for that, and where another process answers: that is another guest.
        """
        monitor = Monitor(self.monitor.address, self._take, timeout=self._timeout)
        try:
            await monitor.connect(tls_dir)
            self._check_same(monitor)
        except BaseException:
            with trio.CancelScope(shield=True):
                await monitor.aclose()
            raise
        return monitor

    def _check_same(self, monitor: Monitor) -> None:
        found = process_behind(monitor.socket.socket)
        pid = None if found is None else found.pid
        if found is not None:
            found.close()
        if pid != (None if self.process is None else self.process.pid):
            raise MonitorError(f"{self.address}: another process answers now: that is another guest")

    @property
    def dead(self) -> bool:
        """Whether its process is known to have ended."""
        return self.process is not None and self.process.dead

    async def wait_until_gone(self) -> None:
        """Wait until its process has ended, or its connection."""
        async with trio.open_nursery() as nursery:
            if self.process is not None:
                nursery.start_soon(_then_cancel, nursery, self.process.wait)
            nursery.start_soon(_then_cancel, nursery, self.monitor.gone.wait)

    async def vitality(self) -> str:
        """Say how much of it answers.

        Every command passes through the main loop, but out-of-band ones do not. A secondary that loads a
        state holds the lock of its main loop for as long as the state comes in.
        """
        answered = SILENT

        async def ask(command: str, meaning: str, *, out_of_band: bool) -> None:
            nonlocal answered
            try:
                await self.monitor.execute(command, out_of_band=out_of_band)
            except MonitorError:
                return
            if answered != LIVES:
                answered = meaning
            if meaning == LIVES:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask, "query-status", LIVES, out_of_band=False))
            if self.monitor.out_of_band:
                nursery.start_soon(partial(ask, "query-yank", BREATHES, out_of_band=True))
        return answered

    async def status(self) -> str:
        """Give QEMU's RunState: running, paused, inmigrate, colo, ... Raises MonitorError."""
        return str((await self.monitor.execute("query-status"))["status"])

    async def colo_mode(self) -> str:
        """Give its part in COLO: none, primary or secondary. Raises MonitorError."""
        return str((await self.monitor.execute("query-colo-status"))["mode"])

    async def stop(self) -> None:
        """Stop its vCPUs. Raises MonitorError."""
        await self.monitor.execute("stop")

    async def cont(self) -> None:
        """Let its vCPUs run, if they do not. Raises MonitorError."""
        await self.monitor.execute("cont")

    async def trigger(self) -> None:
        """Let it, the primary, begin a checkpoint. Raises MonitorError."""
        await self.monitor.execute("migrate-set-parameters", {DELAY_PARAMETER: NEVER})

    async def delete_object(self, name: str) -> None:
        """Delete one of its objects: a network filter. Raises MonitorError."""
        await self.monitor.execute("object-del", {"id": name})

    async def add_object(self, kind: str, name: str, properties: Mapping[str, Any]) -> None:
        """Make an object. Raises MonitorError."""
        await self.monitor.execute("object-add", {"qom-type": kind, "id": name, **properties})

    async def listen(self, name: str, address: SocketAddress) -> None:
        """Make a character device that listens, for one peer at a time. Raises MonitorError."""
        kind, where = qapi_address(address)
        data = {"addr": {"type": kind, "data": where}, "server": True, "wait": False}
        await self.monitor.execute("chardev-add", {"id": name, "backend": {"type": "socket", "data": data}})

    async def is_connected(self, name: str) -> bool:
        """Say whether a character device has a peer now. Raises MonitorError."""
        devices = await self.monitor.execute("query-chardev")
        return any(
            device["label"] == name and not device["filename"].startswith("disconnected:")
            for device in devices
        )

    async def remove_device(self, name: str) -> None:
        """Remove a character device that nothing uses. Raises MonitorError."""
        await self.monitor.execute("chardev-remove", {"id": name})

    async def property_of(self, name: str, key: str) -> Any:
        """Give what a property of one of its objects is. Raises MonitorError."""
        return await self.monitor.execute("qom-get", {"path": f"/objects/{name}", "property": key})

    async def run_alone(self, other: Fenced, patience: float) -> None:
        """Leave the pair, whose other guest is dead, and run on as an ordinary guest.

        Raises MonitorError, MonitorTimeout when it does not run within `patience` seconds.
        """
        with trio.move_on_after(patience):
            while True:
                if await self.colo_mode() != COLO_NONE:
                    # Refused when it is said again, which is for a guest that is only on its way into COLO.
                    with suppress(MonitorRefused):
                        await self.monitor.execute("x-colo-lost-heartbeat")
                # In this order: it stops for a moment while it leaves the pair.
                elif await self.status() == RUNNING:
                    return
                await trio.sleep(_LOOK_AGAIN)
        raise MonitorTimeout(
            f"{self.address}: it does not run alone within {patience:g} s, though {other.who} is dead: "
            "see what QEMU says"
        )

    async def aclose(self) -> None:
        """Let go of it."""
        await self.monitor.aclose()
        if self.process is not None:
            self.process.close()
            self.process = None


def qapi_address(address: SocketAddress) -> tuple[str, dict[str, str]]:
    """Give an address as QEMU knows it, its type and the rest (qapi/sockets.json)."""
    if address.kind == UNIX:
        return UNIX, {"path": address.path}
    return "inet", {"host": address.host, "port": str(address.port)}


async def unless_refused(command: Awaitable[Any]) -> None:
    """Let QEMU refuse what had been done, or never was to be undone."""
    try:
        await command
    except MonitorRefused as error:
        logger.debug("%s", error)


async def _then_cancel(nursery: trio.Nursery, wait: Callable[[], Awaitable[None]]) -> None:
    await wait()
    nursery.cancel_scope.cancel()
