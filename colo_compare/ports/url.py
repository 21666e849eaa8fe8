"""Port URLs: what a port is, as text in the configuration.

::

    packet:IFNAME            vnet_hdr=auto|yes|no
    tap:IFNAME               vnet_hdr=auto|yes|no  multi_queue=auto|yes|no
    stream+unix:///PATH      listen=no|yes  vnet_hdr=no|yes  reconnect=1s
    stream+tcp://HOST:PORT   listen=no|yes  vnet_hdr=no|yes  reconnect=1s
    dgram+unix:///PATH       peer=PATH
    pcap:FILE                mode=read|write
    memory:NAME
    any of them              trace=FILE  fault=FAULTS  fault_receive=FAULTS  fault_send=FAULTS

Options follow a ``?`` and are joined by ``&``; the first value above is the default. Paths, names and values
are percent-decoded, so that any byte can stand in them. For FAULTS see `ports.faults`.

Everything is checked here, without touching the machine: a configuration can be checked where its interfaces
do not exist.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote

from colo_compare.ports.faults import Faults, parse_faults
from colo_compare.quantities import Duration

AUTO: Final = "auto"
YES: Final = "yes"
NO: Final = "no"

MAX_SOCKET_PATH: Final = 107  # bytes: sun_path of struct sockaddr_un, without the final zero
_MAX_INTERFACE_NAME: Final = 15  # bytes: IFNAMSIZ, without the final zero


@dataclass(frozen=True)
class PacketTarget:
    """``packet:``"""

    interface: str
    vnet_hdr: str  # auto, yes or no


@dataclass(frozen=True)
class TapTarget:
    """``tap:``"""

    interface: str
    vnet_hdr: str  # auto, yes or no
    multi_queue: str  # auto, yes or no


@dataclass(frozen=True)
class StreamTarget:
    """``stream+unix:`` and ``stream+tcp:``"""

    address: str | tuple[str, int]  # a path, or host and port
    listen: bool
    vnet_hdr: bool
    reconnect: float  # seconds between attempts; 0: the first loss is the last


@dataclass(frozen=True)
class DgramTarget:
    """``dgram+unix:``"""

    path: str
    peer: str


@dataclass(frozen=True)
class PcapTarget:
    """``pcap:``"""

    path: Path
    write: bool


@dataclass(frozen=True)
class MemoryTarget:
    """``memory:``"""

    name: str


Target = PacketTarget | TapTarget | StreamTarget | DgramTarget | PcapTarget | MemoryTarget


@dataclass(frozen=True)
class PortUrl:
    """A port URL, understood."""

    text: str  # as in the configuration
    target: Target
    trace: Path | None  # a pcapng file that gets every frame
    fault_receive: Faults | None
    fault_send: Faults | None


def parse_port_url(text: str) -> PortUrl:
    """Understand a port URL.

    Raises ValueError with the mistake, and what would be right, as its text.
    """
    kind, colon, rest = text.partition(":")
    reader = _READERS.get(kind)
    if reader is None or not colon:
        raise ValueError(f'"{text}" is no port URL: it must begin with {_listing(f"{k}:" for k in _READERS)}')
    place, _, query = rest.partition("?")
    options = _Options(kind, query)
    trace = options.take("trace", _path, None)
    both = options.take("fault", parse_faults, None)
    fault_receive = options.take("fault_receive", parse_faults, both)
    fault_send = options.take("fault_send", parse_faults, both)
    target = reader(place, options)
    options.finish()
    return PortUrl(text, target, trace, fault_receive, fault_send)


_T = TypeVar("_T")


class _Options:
    """The options of one URL. Each is taken once; `finish` refuses what nobody took."""

    def __init__(self, kind: str, query: str) -> None:
        self._kind = kind
        self._known: list[str] = []
        self._given: dict[str, str] = {}
        for part in query.split("&") if query else ():
            name, equals, value = part.partition("=")
            if not equals or not name:
                raise ValueError(f'"{part}" is no option: write name=value')
            if name in self._given:
                raise ValueError(f"{name} is given twice")
            self._given[name] = unquote(value)

    def take(self, name: str, read: Callable[[str], _T], default: _T) -> _T:
        """Give an option's value, read by `read`, or the default where it is not given."""
        self._known.append(name)
        return self._read(name, read) if name in self._given else default

    def need(self, name: str, read: Callable[[str], _T], example: str) -> _T:
        """Give the value of an option that must be there."""
        if name not in self._given:
            raise ValueError(f"{self._kind} needs {name}=..., for example {name}={example}")
        return self._read(name, read)

    def _read(self, name: str, read: Callable[[str], _T]) -> _T:
        try:
            return read(self._given.pop(name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def choose(self, name: str, *choices: str) -> str:
        """Give one of the choices; the first is the default."""
        self._known.append(name)
        value = self._given.pop(name, choices[0])
        if value not in choices:
            raise ValueError(f'{name}: "{value}" is none of {", ".join(choices)}')
        return value

    def finish(self) -> None:
        """Refuse options that are left."""
        for name in self._given:
            known = ", ".join(sorted(self._known))
            raise ValueError(f"{self._kind} has no option {name}; it has {known}")


def _listing(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}"


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("the name of a file is missing" if not text else "a file name has no zero byte")
    return Path(text)


def _socket_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f'"{text}" must be an absolute path')
    if len(text.encode()) > MAX_SOCKET_PATH:
        raise ValueError(f"a unix socket's path has at most {MAX_SOCKET_PATH} bytes")
    return text


def _unix_place(kind: str, place: str) -> str:
    if not place.startswith("///"):
        raise ValueError(f"write {kind}:///absolute/path, with three slashes")
    return _socket_path(unquote(place[2:]))


def _interface(kind: str, place: str) -> str:
    name = unquote(place)
    if not name:
        raise ValueError(f"the name of the interface is missing: write {kind}:eth0")
    if len(name.encode()) > _MAX_INTERFACE_NAME:
        raise ValueError(f'"{name}": an interface name has at most {_MAX_INTERFACE_NAME} bytes')
    if name in {".", ".."} or re.search(r"[\s/:\0]", name):
        raise ValueError(f'"{name}" cannot be the name of an interface')
    return name


def _seconds(text: str) -> float:
    """Read a duration; a bare number is seconds here, as in QEMU's option of the same name."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return float(text)
    return float(Duration.parse(text))


def _read_packet(place: str, options: _Options) -> PacketTarget:
    return PacketTarget(_interface("packet", place), options.choose("vnet_hdr", AUTO, YES, NO))


def _read_tap(place: str, options: _Options) -> TapTarget:
    return TapTarget(
        _interface("tap", place),
        options.choose("vnet_hdr", AUTO, YES, NO),
        options.choose("multi_queue", AUTO, YES, NO),
    )


def _read_stream(address: str | tuple[str, int], options: _Options) -> StreamTarget:
    return StreamTarget(
        address,
        options.choose("listen", NO, YES) == YES,
        options.choose("vnet_hdr", NO, YES) == YES,
        options.take("reconnect", _seconds, 1.0),
    )


def _read_stream_unix(place: str, options: _Options) -> StreamTarget:
    return _read_stream(_unix_place("stream+unix", place), options)


def _read_stream_tcp(place: str, options: _Options) -> StreamTarget:
    match = re.fullmatch(r"//(?:\[([0-9A-Fa-f:.]+(?:%[^\]]+)?)\]|([^\[\]:/]+)):([0-9]{1,5})", place)
    if match is None:
        raise ValueError("write stream+tcp://HOST:PORT, an IPv6 address in brackets")
    port = int(match[3])
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is no TCP port: it must be 1 to 65535")
    return _read_stream((unquote(match[1] or match[2]), port), options)


def _read_dgram(place: str, options: _Options) -> DgramTarget:
    path = _unix_place("dgram+unix", place)
    peer = options.need("peer", _socket_path, "/run/qemu/net0.sock")
    if peer == path:
        raise ValueError("peer: must be another path than the port's own")
    return DgramTarget(path, peer)


def _read_pcap(place: str, options: _Options) -> PcapTarget:
    return PcapTarget(_path(unquote(place)), options.choose("mode", "read", "write") == "write")


def _read_memory(place: str, _: _Options) -> MemoryTarget:
    if not place:
        raise ValueError("a name is missing: write memory:NAME, the same at both ends")
    return MemoryTarget(unquote(place))


_READERS: Final[dict[str, Callable[[str, _Options], Target]]] = {
    "packet": _read_packet,
    "tap": _read_tap,
    "stream+unix": _read_stream_unix,
    "stream+tcp": _read_stream_tcp,
    "dgram+unix": _read_dgram,
    "pcap": _read_pcap,
    "memory": _read_memory,
}
