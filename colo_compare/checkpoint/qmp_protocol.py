"""QMP, QEMU's monitor protocol, without I/O: bytes in, messages out (QEMU's docs/interop/qmp-spec).

One JSON object a line each way. The server greets; from then on every command gets one reply, known by its
id, and events come in between at any time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from colo_compare.errors import MonitorError

# The longest reply that QEMU gives (query-qmp-schema) has 150 KiB. What is longer is no monitor.
LONGEST_LINE: Final = 16 << 20  # bytes


@dataclass(frozen=True)
class Greeting:
    """What a monitor says first."""

    version: tuple[int, int, int]
    package: str  # the distributor's words about it
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class MonitorEvent:
    """Something that happened in QEMU."""

    name: str
    data: Mapping[str, Any]
    at: float  # QEMU's wall clock, seconds since 1970


@dataclass(frozen=True)
class Reply:
    """The answer to the command with this id: a value, or why it was refused."""

    id: int | None  # None where QEMU could not even read the command
    value: Any
    refusal: str  # "" for success


Message = Greeting | MonitorEvent | Reply


class MonitorProtocol:
    """One connection to a monitor."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._last_id = 0

    def command(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, out_of_band: bool = False
    ) -> tuple[int, bytes]:
        """Give the id of a command, and the bytes that say it."""
        self._last_id += 1
        said: dict[str, Any] = {"exec-oob" if out_of_band else "execute": name, "id": self._last_id}
        if arguments:
            said["arguments"] = arguments
        return self._last_id, json.dumps(said).encode() + b"\n"

    def receive(self, data: bytes) -> list[Message]:
        """Take bytes in any portions and give the messages that are complete. Raises MonitorError."""
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise MonitorError(f"no monitor: a line of more than {LONGEST_LINE >> 20} MiB came")
        self._rest = rest
        return [_parse(bytes(line)) for line in lines if line.strip()]


def _parse(line: bytes) -> Message:
    try:
        return _classify(json.loads(line))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise MonitorError(f"no monitor (is it in QMP mode, mode=control?): it says {line[:80]!r}") from None


def _classify(message: Any) -> Message:
    if "event" in message:
        stamp = message["timestamp"]
        at = stamp["seconds"] + stamp["microseconds"] / 1e6
        return MonitorEvent(message["event"], message.get("data", {}), at)
    if "QMP" in message:
        version = message["QMP"]["version"]
        number = version["qemu"]
        return Greeting(
            (number["major"], number["minor"], number["micro"]),
            version["package"],
            tuple(message["QMP"]["capabilities"]),
        )
    if "error" in message:
        return Reply(message.get("id"), None, str(message["error"]["desc"]))
    return Reply(message.get("id"), message["return"], "")
