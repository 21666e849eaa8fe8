"""Two monitors that behave like those of a QEMU pair in COLO, as far as a checkpointer can tell.

A fake, because real QEMU cannot be made to hang or to fail at a chosen step; tests/qemu/ has the real one.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from tests.checkpoint.scripted_monitor import GREETING, Peer, serve

BREATHS = 3
# Properties of the secondary's filters, by their names.
REDIRECTOR = {"type": "filter-redirector", "netdev": "n0", "vnet_hdr_support": True}
FILTERS = {
    "f1": REDIRECTOR | {"queue": "tx", "indev": "mirror", "outdev": ""},
    "f2": REDIRECTOR | {"queue": "rx", "indev": "", "outdev": "said"},
}
COMMANDS = ("query-colo-status", "x-colo-lost-heartbeat", "query-status")


class FakeQemu:
    """One of the two."""

    def __init__(self, pair: "FakePair", name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.address = f"unix:{path}"
        self.version = (7, 2, 22)
        self.commands: tuple[str, ...] = COMMANDS
        self._pair = pair
        self._goes_on = trio.Event()  # set while it does not hang
        self.reset("primary", "running")

    def reset(self, mode: str, status: str) -> None:
        """Be as if just started."""
        self.mode = mode
        self.status = status
        self.delay = (1 << 32) - 1
        self.hangs = False
        self.on_breath: Callable[[], None] = lambda: None  # called when it was asked so often while locked
        self._breaths = 0
        self.locked = False  # only what is out-of-band does
        self.refuses: set[str] = set()  # commands, or "command id"
        self.filters: dict[str, dict[str, Any]] = {name: dict(known) for name, known in FILTERS.items()}
        self.added: list[dict[str, Any]] = []  # objects
        self.devices: dict[str, Any] = {"mirror": None, "said": None}  # where they listen
        self.peerless: set[str] = set()  # devices to which nobody connects
        self.on_look: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint  # when that is asked for
        self.dead = False
        self._peer: Peer | None = None

    @property
    def hangs(self) -> bool:
        """Whether nothing is answered: as of a stopped process, before it goes on."""
        return not self._goes_on.is_set()

    @hangs.setter
    def hangs(self, hangs: bool) -> None:
        if hangs:
            self._goes_on = trio.Event()
        else:
            self._goes_on.set()

    async def talk(self, peer: Peer) -> None:
        """Serve one client."""
        if self.dead:
            await peer.stream.aclose()
            return
        major, minor, micro = self.version
        greeting = {
            "QMP": {
                **GREETING["QMP"],
                "version": {"qemu": {"major": major, "minor": minor, "micro": micro}, "package": ""},
            }
        }
        await peer.say(greeting)
        self._peer = peer
        while True:
            command = await peer.hear()
            await self._goes_on.wait()
            if not (self.locked and "execute" in command):
                await self._obey(peer, command)

    async def _obey(self, peer: Peer, command: dict[str, Any]) -> None:
        name = command.get("execute") or command["exec-oob"]
        if not name.startswith(("query-", "qmp_", "qom-get")):
            self._pair.log.append(f"{self.name}: {name}")
        if not self.refuses.isdisjoint((name, f"{name} {command.get('arguments', {}).get('id')}")):
            await peer.say({"error": {"class": "GenericError", "desc": "refused"}, "id": command["id"]})
            return
        try:
            value = await getattr(self, f"do_{name.replace('-', '_')}")(command.get("arguments", {}))
        except KeyError as error:
            await peer.say({"error": {"class": "GenericError", "desc": f"no {error}"}, "id": command["id"]})
            return
        await peer.say({"return": value, "id": command["id"]})

    async def tell(self, name: str, **data: Any) -> None:
        """Send an event."""
        if self._peer is not None:
            await self._peer.say(self._peer.event(name, **data))

    async def die(self) -> None:
        """End the connection, and take no other."""
        self.dead = True
        await self.hang_up()

    async def hang_up(self) -> None:
        """End the connection."""
        assert self._peer is not None
        await self._peer.stream.aclose()

    async def set_running(self, running: bool) -> None:
        """Stop or start the vCPUs, and tell so where that changes anything."""
        if running != (self.status == "running"):
            self.status = "running" if running else "paused"
            await self.tell("RESUME" if running else "STOP")

    # Commands

    async def do_qmp_capabilities(self, arguments: dict[str, Any]) -> Any:
        return {}

    async def do_query_yank(self, arguments: dict[str, Any]) -> Any:
        self._breaths += self.locked
        if self._breaths == BREATHS:
            self.on_breath()
        return []

    async def do_query_commands(self, arguments: dict[str, Any]) -> Any:
        return [{"name": name} for name in self.commands]

    async def do_query_status(self, arguments: dict[str, Any]) -> Any:
        return {"status": self.status, "running": self.status == "running"}

    async def do_query_colo_status(self, arguments: dict[str, Any]) -> Any:
        return {"mode": self.mode, "last-mode": "none", "reason": "none"}

    async def do_query_migrate(self, arguments: dict[str, Any]) -> Any:
        return {"status": self._pair.migration}

    async def do_query_migrate_parameters(self, arguments: dict[str, Any]) -> Any:
        return {"x-checkpoint-delay": self.delay}

    async def do_stop(self, arguments: dict[str, Any]) -> Any:
        await self.set_running(False)
        return {}

    async def do_cont(self, arguments: dict[str, Any]) -> Any:
        await self.set_running(True)
        return {}

    async def do_qom_get(self, arguments: dict[str, Any]) -> Any:
        known = self.filters | {properties["id"]: properties for properties in self.added}
        return known[arguments["path"].removeprefix("/objects/")][arguments["property"]]

    async def do_object_add(self, arguments: dict[str, Any]) -> Any:
        if arguments["id"] in self.filters or arguments["id"] in [added["id"] for added in self.added]:
            raise KeyError(arguments["id"])
        self.added.append(arguments)
        return {}

    async def do_object_del(self, arguments: dict[str, Any]) -> Any:
        name = arguments["id"]
        if self.filters.pop(name, None) is None and name not in [added["id"] for added in self.added]:
            raise KeyError(name)
        self.added = [properties for properties in self.added if properties["id"] != name]
        self._pair.log.append(f"{self.name}: without {name}")
        return {}

    async def do_chardev_add(self, arguments: dict[str, Any]) -> Any:
        assert arguments["backend"]["type"] == "socket"
        self.devices[arguments["id"]] = arguments["backend"]["data"]
        return {}

    async def do_chardev_remove(self, arguments: dict[str, Any]) -> Any:
        del self.devices[arguments["id"]]
        return {}

    async def do_query_chardev(self, arguments: dict[str, Any]) -> Any:
        await self.on_look()
        return [
            {"label": name, "filename": "disconnected:unix:/x" if name in self.peerless else "unix:/x"}
            for name in self.devices
        ]

    async def do_migrate_set_capabilities(self, arguments: dict[str, Any]) -> Any:
        assert arguments == {"capabilities": [{"capability": "x-colo", "state": True}]}
        return {}

    async def do_migrate(self, arguments: dict[str, Any]) -> Any:
        self._pair.log.append(f"to {arguments['uri']}")
        await self._pair.migrate()
        return {}

    async def do_migrate_cancel(self, arguments: dict[str, Any]) -> Any:
        return {}

    async def do_migrate_set_parameters(self, arguments: dict[str, Any]) -> Any:
        self.delay = arguments["x-checkpoint-delay"]
        if self.mode == "primary":
            self._pair.nursery.start_soon(self._pair.on_trigger)
        return {}

    async def do_x_colo_lost_heartbeat(self, arguments: dict[str, Any]) -> Any:
        assert self._pair.fenced, "split brain"
        self.mode = "none"
        await self.set_running(True)
        return {}


class FakePair:
    """The two, in COLO at first. What is done to them goes to `log`, and so does what their fence is told."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._brought = 0
        self.log: list[str] = []
        self.migration = "colo"
        self.migrate: Callable[[], Awaitable[None]] = self.become_a_pair
        self.on_trigger: Callable[[], Awaitable[None]] = self.checkpoint
        self.primary = FakeQemu(self, "primary", directory / "a.qmp")
        self.secondary = FakeQemu(self, "secondary", directory / "b.qmp")
        self._fenced = directory / "fenced"
        # The monitors are this process's, which must not be killed: a program stands for the kill.
        self.fence = ("/bin/sh", "-c", f'echo "$COLO_SIDE $COLO_MONITOR" >> {self._fenced}')
        self.reset()

    def reset(self) -> None:
        """Be a pair in COLO."""
        self.primary.reset("primary", "running")
        self.secondary.reset("secondary", "running")

    async def serve(self, nursery: trio.Nursery) -> None:
        """Answer until the nursery is cancelled."""
        self.nursery = nursery
        for qemu in (self.primary, self.secondary):
            await serve(nursery, qemu.path, qemu.talk)

    @property
    def fenced(self) -> list[str]:
        """Who was fenced, by role and monitor."""
        return self._fenced.read_text().splitlines() if self._fenced.exists() else []

    def forget_fences(self) -> None:
        """Begin with nobody fenced."""
        self._fenced.unlink(missing_ok=True)

    async def become_a_pair(self) -> None:
        """Do what a migration with x-colo does."""
        for qemu, mode in ((self.primary, "primary"), (self.secondary, "secondary")):
            qemu.mode, qemu.status = mode, "running"

    async def bring(self) -> FakeQemu:
        """Let a new guest wait for the state of the one that is left, which is the primary from here on."""
        if any(self.primary.address in who for who in self.fenced):
            self.primary = self.secondary
        self._brought += 1
        name = f"guest{self._brought}"
        self.secondary = FakeQemu(self, name, self._directory / f"{name}.qmp")
        self.secondary.reset("none", "inmigrate")
        await serve(self.nursery, self.secondary.path, self.secondary.talk)
        return self.secondary

    async def checkpoint(self) -> None:
        """Do what QEMU does when one is triggered."""
        await self.secondary.set_running(False)
        await self.primary.set_running(False)
        await self.secondary.set_running(True)
        await self.primary.set_running(True)
