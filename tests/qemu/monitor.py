"""The test's own look into a guest: its spare monitor."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

from tests.qemu.machine import Machine

PATIENCE = 20.0  # seconds


class SpareMonitor:
    """A QMP client that waits for whatever it asks for."""

    def __init__(self, machine: Machine) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(machine.spare_qmp))
        self._stream = self._socket.makefile("rb")
        self._stream.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str) -> Any:
        """Give a command and what it returns; events that come before are dropped."""
        self._socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while "return" not in (message := json.loads(self._stream.readline())):
            assert "error" not in message, message
        return message["return"]

    def wait_for(self, event: str) -> None:
        """Wait until QEMU tells of an event."""
        end = time.monotonic() + PATIENCE
        while json.loads(self._stream.readline()).get("event") != event:
            assert time.monotonic() < end, f"no {event}"

    @property
    def colo_mode(self) -> str:
        """Its part in COLO: none, primary or secondary."""
        mode: str = self.execute("query-colo-status")["mode"]
        return mode

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> "SpareMonitor":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def when(machine: Machine, event: str, ask: Callable[[], object], act: Callable[[], object]) -> None:
    """Ask for something, and act as soon as the guest tells of an event that follows from it."""
    with SpareMonitor(machine) as monitor:
        ask()
        monitor.wait_for(event)
        act()
