"""What the types of single keys cannot say: combinations that make no sense, and why."""

from collections.abc import Mapping
from typing import Final

from colo_compare.config.tables import CaptureTable, Config, ControlTable, HttpTable, PortsTable, ProxyTable
from colo_compare.errors import ConfigError
from colo_compare.http import parse_listen
from colo_compare.ports.url import (
    MAX_SOCKET_PATH,
    DgramTarget,
    MemoryTarget,
    PacketTarget,
    PcapTarget,
    StreamTarget,
    TapTarget,
    Target,
    parse_port_url,
)
from colo_compare.quantities import Duration, Size

# A frame from a port with offloads is up to 64 KiB and its headers; a queue that cannot hold one never moves.
_SMALLEST_QUEUE: Final = Size(128 << 10)


def check_config(config: Config) -> None:
    """Raise ConfigError for the first combination that makes no sense."""
    _check_proxy(config.proxy)
    _check_ports(config.ports)
    _check_control(config.control)
    _check_http(config.http)
    _check_capture(config.capture)
    config.make_checkpointer().check_mode(config.proxy.mode)


def _check_proxy(proxy: ProxyTable) -> None:
    # Zero would be a queue that times out at once, or a request repeated without a pause.
    for name in (
        "compare_timeout",
        "mirror_retry",
        "max_interval",
        "checkpoint_timeout",
        "retry_interval",
        "idle_timeout",
        "half_open_timeout",
        "closed_timeout",
        "datagram_idle_timeout",
        "fragment_timeout",
    ):
        duration: Duration = getattr(proxy, name)
        if not duration:
            raise ConfigError(f"$.proxy.{name}", "must be longer than 0s")
    for name in ("max_held_bytes", "max_flow_bytes"):
        size: Size = getattr(proxy, name)
        if size < _SMALLEST_QUEUE:
            raise ConfigError(
                f"$.proxy.{name}", f"{size} cannot hold a frame of 64KiB: give at least {_SMALLEST_QUEUE}"
            )
    _check_proxy_pairs(proxy)


def _check_proxy_pairs(proxy: ProxyTable) -> None:
    if proxy.min_interval > proxy.max_interval:
        raise ConfigError(
            "$.proxy.min_interval", f"{proxy.min_interval} is longer than max_interval, {proxy.max_interval}"
        )
    if proxy.datagram_window >= proxy.compare_timeout:
        raise ConfigError(
            "$.proxy.datagram_window",
            f"{proxy.datagram_window} is not shorter than compare_timeout, {proxy.compare_timeout}: "
            "no datagram would ever be compared in time",
        )
    if proxy.max_half_open > proxy.max_flows:
        raise ConfigError(
            "$.proxy.max_half_open", f"{proxy.max_half_open} is more than max_flows, {proxy.max_flows}"
        )
    # The rewriter translates what goes to the secondary as well as what comes from it. Frames that something
    # else mirrors never pass here, so the secondary would get acknowledgements that it rejects.
    # The other mix, mirror without rewrite, stands: QEMU's filter-rewriter in the secondary's own QEMU
    # translates whatever the proxy mirrors to it.
    if proxy.rewrite and not proxy.mirror:
        raise ConfigError(
            "$.proxy.rewrite",
            "true needs mirror = true: the client's frames must pass through the proxy to be rewritten; "
            "set rewrite = false and let QEMU's filter-rewriter do it, or let the proxy mirror",
        )


def _check_ports(ports: PortsTable) -> None:
    seen: dict[str, str] = {}  # place: side
    for side in ("client", "primary", "secondary"):
        url: str = getattr(ports, side)
        try:
            place = _place(parse_port_url(url).target)
        except ValueError as error:
            raise ConfigError(f"$.ports.{side}", str(error)) from None
        if place in seen:
            raise ConfigError(
                f"$.ports.{side}", f"{place} is the {seen[place]} port already; the three must differ"
            )
        seen[place] = side


def check_new_port(url: str, others: Mapping[str, str]) -> None:
    """Raise ConfigError for a port URL that is none, or that takes hold of what another port has.

    `others`: the URLs of the other sides, by name.
    """
    try:
        place = _place(parse_port_url(url).target)
    except ValueError as error:
        raise ConfigError("port", str(error)) from None
    for side, other in others.items():
        if place == _place(parse_port_url(other).target):
            raise ConfigError("port", f"{place} is the {side} port already; the three must differ")


def _place(target: Target) -> str:
    """Say what a port takes hold of, whatever the options: two sides at one place would hear each other."""
    match target:
        case PacketTarget() | TapTarget():
            return f"interface {target.interface}"
        case StreamTarget():
            return f"socket {target.address}"
        case DgramTarget():
            return f"socket {target.path}"
        case PcapTarget():
            return f"file {target.path}"
        case MemoryTarget():
            return f"memory {target.name}"


def _check_control(control: ControlTable) -> None:
    if control.socket != "off":
        if not control.socket.startswith("/"):
            raise ConfigError("$.control.socket", f'"{control.socket}" must be an absolute path, or "off"')
        if len(control.socket.encode()) > MAX_SOCKET_PATH:
            raise ConfigError(
                "$.control.socket", f"is longer than {MAX_SOCKET_PATH} bytes, a unix socket's limit"
            )
    if len(control.mode) not in (3, 4) or set(control.mode) - set("01234567"):
        raise ConfigError(
            "$.control.mode", f'"{control.mode}" is no file mode: write octal digits, like "0600"'
        )


def _check_http(http: HttpTable) -> None:
    if http.listen != "off":
        try:
            parse_listen(http.listen)
        except ValueError as error:
            raise ConfigError("$.http.listen", str(error)) from None


def _check_capture(capture: CaptureTable) -> None:
    if capture.directory != "off" and not capture.directory.startswith("/"):
        raise ConfigError("$.capture.directory", f'"{capture.directory}" must be an absolute path, or "off"')
    if capture.ring < _SMALLEST_QUEUE:
        raise ConfigError(
            "$.capture.ring", f"{capture.ring} cannot hold a frame of 64KiB: give at least {_SMALLEST_QUEUE}"
        )
    if capture.max_bytes < capture.ring:
        raise ConfigError(
            "$.capture.max_bytes",
            f"{capture.max_bytes} is less than ring, {capture.ring}: one file may need it",
        )
