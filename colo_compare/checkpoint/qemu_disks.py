"""The disks of a QEMU COLO pair: what must be plugged and unplugged around the life of the pair.

Each disk of the primary is a ``quorum`` node with one child, its image. While there is a pair it has a second
child: the driver ``replication`` in front of the secondary's NBD server, so that every write reaches the
secondary's machine, too. There the driver's other half keeps what the secondary itself writes apart (an
active and a hidden image), and throws it away at each checkpoint.

QEMU 7.2: docs/block-replication.txt, docs/COLO-FT.txt, block/replication.c. Between being plugged in and the
beginning of COLO the driver refuses all writes (its stage is none), and quorum goes on without them: so the
guest stands still from the one to the other. The migration state in which QEMU could wait for us with the
memory already copied (pre-switchover) leads past COLO in migration/migration.c.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from colo_compare.checkpoint.qemu_guest import QemuGuest, qapi_address, unless_refused
from colo_compare.checkpoint.qmp_address import MonitorAddress
from colo_compare.errors import CheckpointerError

logger: Final = logging.getLogger(__name__)

_SECOND_CHILD: Final = "children.1"  # the first is children.0, and there are never more
_LOOK_AGAIN: Final = 0.05  # seconds between two looks at a copy
_PAUSED: Final = "paused"
_READY: Final = "ready"  # of a job (qapi/job.json)
_OVER: Final = ("concluded",)


@dataclass(frozen=True)
class Disk:
    """One disk that both guests have."""

    quorum: str  # name of the primary's quorum node, which its device uses
    export: str  # name of the secondary's image, below its replication node


class Disks:
    """The disks of a pair."""

    def __init__(self, disks: Mapping[str, str], nbd: str, *, copy: bool) -> None:
        """Take the disks (export by quorum), where the secondary is to offer them, and whether to copy first.

        Raises ValueError with a message for people, for an address that is none.
        """
        self._disks = [Disk(quorum, export) for quorum, export in disks.items()]
        self._nbd = MonitorAddress.parse(nbd) if disks else None
        self._copy = copy

    async def plug(self, primary: QemuGuest, secondary: QemuGuest) -> None:
        """Make the secondary's images equal to the primary's disks, and let every write reach both.

        The primary stands still from here on, until the pair is in COLO or `unplug_primary`. Raises
        MonitorError, CheckpointerError.
        """
        if not self._disks:
            return
        await self._offer(secondary)
        if self._copy:
            for disk in self._disks:
                await self._begin_copy(primary, disk)
            for disk in self._disks:
                await self._wait_for_copy(primary, disk)
        await primary.stop()
        if self._copy:
            for disk in self._disks:
                await self._end_copy(primary, disk)
        for disk in self._disks:
            await self._plug_in(primary, disk)

    async def _offer(self, secondary: QemuGuest) -> None:
        execute = secondary.monitor.execute
        await execute("nbd-server-start", {"addr": self._server(nested=True)})
        for disk in self._disks:
            await execute("nbd-server-add", {"device": disk.export, "writable": True})

    async def _begin_copy(self, primary: QemuGuest, disk: Disk) -> None:
        execute = primary.monitor.execute
        await execute("blockdev-add", {"node-name": _target(disk), **self._client(disk)})
        await execute(
            "blockdev-mirror",
            {
                "job-id": _job(disk),
                "device": disk.quorum,
                "target": _target(disk),
                "sync": "full",
                "auto-dismiss": False,  # else a copy that failed would be gone before anybody looks at it
            },
        )
        logger.info("%s: the disk %s is copied to the secondary", primary.address, disk.quorum)

    async def _wait_for_copy(self, primary: QemuGuest, disk: Disk) -> None:
        """Wait until source and target are equal, which they then stay. A copy takes as long as it takes."""
        job = await _wait_for_job(primary, disk, (_READY, *_OVER))
        if job["status"] != _READY:
            await primary.monitor.execute("job-dismiss", {"id": _job(disk)})
            raise CheckpointerError(
                f"{primary.address}: the disk {disk.quorum} could not be copied to the secondary: "
                f"{job.get('error', 'it was cancelled')}"
            )

    async def _end_copy(self, primary: QemuGuest, disk: Disk) -> None:
        execute = primary.monitor.execute
        # "Cancel" is QEMU's word for ending a mirror that is ready without going over to its target.
        await execute("block-job-cancel", {"device": _job(disk)})
        await _wait_for_job(primary, disk, _OVER)
        await execute("job-dismiss", {"id": _job(disk)})
        await execute("blockdev-del", {"node-name": _target(disk)})

    async def _plug_in(self, primary: QemuGuest, disk: Disk) -> None:
        execute = primary.monitor.execute
        node = {
            "driver": "replication",
            "mode": "primary",
            "node-name": _node(disk),
            "file": self._client(disk),
        }
        await execute("blockdev-add", node)
        await execute("x-blockdev-change", {"parent": disk.quorum, "node": _node(disk)})

    async def unplug_primary(self, primary: QemuGuest) -> None:
        """Let the primary write to its own images alone, the secondary being lost or never made."""
        for disk in self._disks:
            execute = primary.monitor.execute
            child = {"parent": disk.quorum, "child": _SECOND_CHILD}
            await unless_refused(execute("x-blockdev-change", child))
            await unless_refused(execute("blockdev-del", {"node-name": _node(disk)}))

    async def give_up(self, primary: QemuGuest) -> None:
        """Undo `plug`, as no pair came of it: the primary goes on as it was."""
        if not self._disks:
            return
        await self.unplug_primary(primary)
        for disk in self._disks:
            await unless_refused(
                primary.monitor.execute("block-job-cancel", {"device": _job(disk), "force": True})
            )
        if await primary.status() == _PAUSED:
            await primary.cont()

    async def unplug_secondary(self, secondary: QemuGuest) -> None:
        """Offer its images no more, before the secondary takes over: its halves of the driver then merge."""
        if self._disks:
            await unless_refused(secondary.monitor.execute("nbd-server-stop"))

    def _client(self, disk: Disk) -> Mapping[str, Any]:
        return {"driver": "nbd", "server": self._server(nested=False), "export": disk.export}

    def _server(self, *, nested: bool) -> Mapping[str, Any]:
        """Give the server's address; `nested`: as the older of QEMU's two types has it."""
        assert self._nbd is not None
        kind, where = qapi_address(self._nbd)
        return {"type": kind, "data": where} if nested else {"type": kind, **where}


def _node(disk: Disk) -> str:
    return f"{disk.export}-replication"


def _target(disk: Disk) -> str:
    return f"{disk.export}-target"


def _job(disk: Disk) -> str:
    return f"{disk.export}-copy"


async def _wait_for_job(guest: QemuGuest, disk: Disk, states: tuple[str, ...]) -> Mapping[str, Any]:
    """Wait until the copy of a disk is in one of these states."""
    while True:
        for job in await guest.monitor.execute("query-jobs"):
            if job["id"] == _job(disk) and job["status"] in states:
                return dict(job)
        await trio.sleep(_LOOK_AGAIN)
