"""The proxy as a process of the lab: the real program, told what to do by a file and its control socket."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from colo_compare.control import call
from colo_compare.demo.namespace import Namespace
from colo_compare.errors import ControlError, SetupError

Table = Mapping[str, str | int | bool | list[str]]

START_LIMIT: Final = 20.0  # seconds


def toml(tables: Mapping[str, Table]) -> str:
    """Give tables of texts, numbers, booleans and lists as TOML, for which JSON's notation means the same."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


class ProxyProcess:
    """`colo-compare run -c FILE` in a namespace."""

    def __init__(self, namespace: Namespace, directory: Path, tables: Mapping[str, Table]) -> None:
        self.log = directory / "proxy.log"
        self._namespace = namespace
        self._config = directory / "colo-compare.toml"
        self._socket = directory / "control.sock"
        self._config.write_text(toml({**tables, "control": {"socket": str(self._socket)}}))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready. Raises SetupError with its last words when it is not."""
        self.launch()
        end = time.monotonic() + START_LIMIT
        while self.exit_code() is None and time.monotonic() < end:
            try:
                self.status()
            except ControlError:
                time.sleep(0.02)
            else:
                return
        raise SetupError(f"the proxy did not start: {self.last_words()}")

    def launch(self) -> None:
        """Start it, without waiting for anything."""
        with self.log.open("ab") as log:
            self._process = self._namespace.start(
                [sys.executable, "-m", "colo_compare", "run", "-c", str(self._config)], stdout=log, stderr=log
            )

    def status(self) -> dict[str, Any]:
        """Give what `colo-compare status --json` gives. Raises ControlError when it does not answer."""
        status: dict[str, Any] = call(self._socket, "status")
        return status

    def promote(self) -> None:
        """Let the secondary take over. Raises ControlError when it refuses."""
        call(self._socket, "promote")

    def explain(self) -> dict[str, Any]:
        """Give what `colo-compare explain --json` gives of the last divergence. Raises ControlError."""
        record: dict[str, Any] = call(self._socket, "explain")
        return record

    def protect(self, port: str, secondary: str, limit: float = 60.0) -> None:
        """Give the guest that runs alone a new secondary, and return when the pair is protected.

        What `colo-compare protect --port PORT --set secondary=SECONDARY` does. Raises ControlError.
        """
        params = {"port": port, "set": {"secondary": secondary}, "timeout": limit}
        call(self._socket, "protect", params, timeout=limit + 1)

    def exit_code(self) -> int | None:
        """Give its exit code, None while it runs; minus the signal that killed it."""
        assert self._process is not None
        return self._process.poll()

    def wait(self, limit: float = 10.0) -> int:
        """Wait until it ends and give its exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(limit)

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and give its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Let it die at once (SIGKILL)."""
        assert self._process is not None
        self._process.kill()
        self.wait()

    def last_words(self) -> str:
        """Give the last line that it logged."""
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line), "it said nothing")
