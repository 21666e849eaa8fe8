"""The daemon in this process between memory ports: what `colo-compare run` does, without the process."""

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.config import load_config
from colo_compare.control import call
from colo_compare.daemon import Daemon
from colo_compare.errors import ColoCompareError
from colo_compare.logs import Log
from colo_compare.ports import FramePort, open_port
from colo_compare.wire.frame import Frame
from tests.conversation import Clock, Conversation

DETERMINISTIC = 'backend = "null"\nassume_deterministic = true'


def write_config(
    directory: Path, ports: dict[str, str], proxy: str = "", backend: str = DETERMINISTIC
) -> Path:
    lines = ["[proxy]", proxy, "[ports]"]
    lines += [f'{name} = "{url}"' for name, url in ports.items()]
    lines += ["[checkpointer]", backend, "[control]", f'socket = "{directory / "control.sock"}"']
    path = directory / "pair.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


class Rig:
    """A daemon between memory ports: what `colo-compare run` does, without the process."""

    def __init__(self, path: Path, environ: dict[str, str] | None = None) -> None:
        self.path = path
        self.config = load_config(path, {})
        self.daemon = Daemon(path, environ or {}, self.config, Log(sys.stderr))
        self.ended = trio.Event()
        self.error: Exception | None = None
        self.client, self.primary, self.secondary = [
            open_port(url)
            for url in (self.config.ports.client, self.config.ports.primary, self.config.ports.secondary)
        ]
        self.seen = 0  # number of the last event that `event` has looked at
        self.talk = Conversation(Clock(1000.0))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Rig"]:
        async with self.client, self.primary, self.secondary, trio.open_nursery() as nursery:
            await nursery.start(self._run)
            yield self
            nursery.cancel_scope.cancel()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self.daemon.run(task_status)
        except ColoCompareError as error:
            self.error = error
        finally:
            self.ended.set()

    async def call(self, method: str, **params: Any) -> Any:
        """Ask the daemon, as the commands do."""
        await wait_all_tasks_blocked()
        return await trio.to_thread.run_sync(call, Path(self.config.control.socket), method, params)

    async def event(self, kind: str) -> dict[str, Any]:
        """Wait for the next event of a kind, but at most a few seconds."""
        history = self.daemon.loop.history
        with trio.fail_after(5):
            async with aclosing(history.follow(self.seen)) as events:
                async for event in events:
                    self.seen = event["number"]
                    if event["event"] == kind:
                        return event
        raise AssertionError

    async def send(self, port: FramePort, data: bytes) -> None:
        assert port.send_batch([Frame(data, 0)]) == 1
        await wait_all_tasks_blocked()


def memory_rig(directory: Path, proxy: str = "", backend: str = DETERMINISTIC) -> Rig:
    """A pair between memory ports."""
    ports = {side: f"memory:{side}" for side in ("client", "primary", "secondary")}
    return Rig(write_config(directory, ports, proxy, backend))
