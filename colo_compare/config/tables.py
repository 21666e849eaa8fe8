"""The tables of the configuration, frozen. Each key, its unit and its default: docs/configuration.md."""

import math
from typing import Annotated, Any, Final, Literal

import msgspec

from colo_compare.checkpoint.contract import Capabilities, Checkpointer
from colo_compare.checkpoint.registry import load_checkpointer
from colo_compare.core.settings import Settings
from colo_compare.quantities import Duration, Period, Size

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class ProxyTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[proxy]``: the core's settings, see core.settings.Settings."""

    mode: Literal["protect", "observe", "bypass"] = "protect"
    mirror: bool = True
    rewrite: bool = True
    compare_timeout: Duration = Duration(3)
    datagram_window: Duration = Duration(0.02)
    mirror_retry: Period = Period(0.02)
    coalesce: Duration = Duration(0)
    min_interval: Duration = Duration(0)
    max_interval: Period = Period(math.inf)
    checkpoint_timeout: Duration = Duration(10)
    retry_interval: Duration = Duration(0.5)
    max_failures: AtLeastOne = 3
    on_secondary_loss: Literal["solo", "block"] = "solo"
    max_held_frames: AtLeastOne = 65536
    max_held_bytes: Size = Size(64 << 20)
    max_flow_bytes: Size = Size(8 << 20)
    max_flows: AtLeastOne = 1 << 20
    max_half_open: AtLeastOne = 1 << 16
    idle_timeout: Duration = Duration(7200)
    half_open_timeout: Duration = Duration(60)
    closed_timeout: Duration = Duration(60)
    datagram_idle_timeout: Duration = Duration(60)
    fragment_timeout: Duration = Duration(30)
    announce: bool = True


class PortsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[ports]``: the URLs of the three sides."""

    client: str
    primary: str
    secondary: str


class CheckpointerTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[checkpointer]``: the name of the backend, and its own options."""

    backend: str
    options: msgspec.Struct  # of the backend's class Options


class ControlTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[control]``: the socket that `status`, `promote` and the other commands talk to."""

    socket: str = "/run/colo-compare/control.sock"
    mode: str = "0600"  # of the socket file, octal

    @property
    def file_mode(self) -> int:
        """The mode of the socket file as a number."""
        return int(self.mode, 8)


class HttpTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[http]``: where /metrics, /healthz, /readyz and the live page are served."""

    listen: str = "off"  # ADDRESS:PORT
    page: bool = False  # /page, for people
    payload: bool = False  # the page may show what the guests said where they diverged


class CaptureTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[capture]``: a capture file for each divergence."""

    directory: str = "off"
    ring: Size = Size(4 << 20)  # of the last frames, in memory
    after: Duration = Duration(0.2)  # how long to go on after a divergence
    interval: Duration = Duration(1)  # between two files
    max_files: AtLeastOne = 64
    max_bytes: Size = Size(256 << 20)  # of all files


class ProcessTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[process]``: how the daemon's process runs."""

    cpus: list[Annotated[int, msgspec.Meta(ge=0)]] = []  # the only ones that it uses; empty: any


class LogTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[log]``: what the daemon says on its standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration."""

    proxy: ProxyTable
    ports: PortsTable
    checkpointer: CheckpointerTable
    control: ControlTable
    http: HttpTable
    capture: CaptureTable
    process: ProcessTable
    log: LogTable

    def settings(self, capabilities: Capabilities) -> Settings:
        """Give the core's settings: the operator's, and what the backend can do."""
        return Settings(
            **{name: _plain(getattr(self.proxy, name)) for name in ProxyTable.__struct_fields__},
            copies_state=capabilities.copies_state,
            reports_pause=capabilities.reports_pause,
        )

    def make_checkpointer(self) -> Checkpointer:
        """Make the backend, not yet connected to anything.

        Raises ConfigError when it refuses its options.
        """
        return load_checkpointer(self.checkpointer.backend)(self.checkpointer.options)


def _plain(value: Any) -> Any:
    """Give a quantity as the bare number that it is: compiled core code holds C doubles and ints."""
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Size):
        return int(value)
    return value


# The tables of fixed keys, in the order in which they are printed. [checkpointer] depends on its backend.
FIXED_TABLES: Final[dict[str, type[msgspec.Struct]]] = {
    "proxy": ProxyTable,
    "ports": PortsTable,
    "control": ControlTable,
    "http": HttpTable,
    "capture": CaptureTable,
    "process": ProcessTable,
    "log": LogTable,
}
TABLE_NAMES: Final = ("proxy", "ports", "checkpointer", "control", "http", "capture", "process", "log")
