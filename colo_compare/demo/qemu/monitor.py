"""A look into a guest from beside the proxy: its spare monitor, asked one thing at a time."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from colo_compare.demo.qemu.machine import Machine
from colo_compare.errors import MonitorError, MonitorTimeout

PATIENCE: Final = 20.0  # seconds
_LOOK_AGAIN: Final = 0.02


class SpareMonitor:
    """A QMP client that waits for whatever it asks for."""

    def __init__(self, machine: Machine, path: Path | None = None) -> None:
        """Connect to the spare monitor, or to another one where the proxy does not need it."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path or machine.spare_qmp))
        self._stream = self._socket.makefile("rb")
        self._stream.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Give a command and what it returns; events that come before are dropped. Raises MonitorError."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while "return" not in (message := json.loads(self._stream.readline())):
            if "error" in message:
                raise MonitorError(f"{command}: {message['error']['desc']}")
        return message["return"]

    def wait_for(self, event: str) -> None:
        """Wait until QEMU tells of an event. Raises MonitorTimeout."""
        end = time.monotonic() + PATIENCE
        while json.loads(self._stream.readline()).get("event") != event:
            if time.monotonic() > end:
                raise MonitorTimeout(f"no event {event} within {PATIENCE:g} s")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so that QEMU has no event for. Raises MonitorTimeout."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise MonitorTimeout(f"what was waited for is not so within {PATIENCE:g} s")
            time.sleep(_LOOK_AGAIN)

    def save(self, path: Path) -> None:
        """Write the guest's state to a file, from which another one can go on. It stands still then."""
        self.execute("migrate", uri=f"exec:cat >'{path}'")
        while (status := self.execute("query-migrate")["status"]) != "completed":
            if status == "failed":
                raise MonitorError(f"the state cannot be saved to {path}")
            time.sleep(_LOOK_AGAIN)

    @property
    def colo_mode(self) -> str:
        """Its part in COLO: none, primary or secondary."""
        mode: str = self.execute("query-colo-status")["mode"]
        return mode

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
