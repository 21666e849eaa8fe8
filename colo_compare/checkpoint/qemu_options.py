"""The options of the `qemu` backend, and what their types cannot refuse."""

from typing import Annotated, Final

import msgspec

from colo_compare.checkpoint.qemu_disks import Disks
from colo_compare.checkpoint.qmp_address import MonitorAddress
from colo_compare.checkpoint.socket_address import TLS, SocketAddress
from colo_compare.errors import ConfigError
from colo_compare.quantities import Duration

LISTENERS: Final = ("listen_mirror", "listen_released")


class QemuOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the `qemu` backend. Monitors: ``unix:PATH``, ``tcp:HOST:PORT``, ``tls:HOST:PORT``."""

    primary: Annotated[str, msgspec.Meta(min_length=1)]
    secondary: Annotated[str, msgspec.Meta(min_length=1)]
    migrate_uri: str = ""  # where the secondary waits for the primary's state; "": they are a pair already
    migrate_timeout: Duration = Duration(300)  # until they are
    checkpoint_timeout: Duration = Duration(1)  # beyond what the longest of the last checkpoints took, twice
    heartbeat_interval: Duration = Duration(0.5)
    heartbeat_timeout: Duration = Duration(3)  # of each answer of a monitor
    adaptive_interval: bool = True  # regular checkpoints as often as costs least
    fence: tuple[str, ...] = ()  # a program that kills a guest; a local QEMU process is killed without one
    fence_timeout: Duration = Duration(30)
    secondary_filters: tuple[str, ...] = ()  # objects that a secondary must lose when it takes over
    listen_mirror: str = ""  # where one that took over listens for the filters of its new secondary
    listen_released: str = ""  # and for the proxy's client port
    disks: dict[str, str] = {}  # quorum of the primary = what the secondary offers for it
    nbd: str = ""  # where the secondary offers its images of them
    copy_disks: bool = True  # before they are a pair; else the images are the same already
    tls_dir: str = ""  # with ca-cert.pem, client-cert.pem and client-key.pem


def check_options(options: QemuOptions) -> None:
    """Raise ConfigError for options that cannot be meant."""
    for key in ("migrate_timeout", "checkpoint_timeout", "heartbeat_interval", "heartbeat_timeout"):
        if not getattr(options, key):
            raise ConfigError(f"$.checkpointer.{key}", "must be longer than 0s")
    for key in ("primary", "secondary"):
        _check_address(key, getattr(options, key), options)
    if options.primary == options.secondary:
        raise ConfigError("$.checkpointer.secondary", "is the primary's: name its own monitor")
    disks_of(options)
    for key in LISTENERS:
        if text := getattr(options, key):
            listener_at(key, text)


def listener_at(key: str, text: str) -> SocketAddress:
    """Give where a guest is to listen. Raises ConfigError."""
    try:
        address = SocketAddress.parse(text)
    except ValueError as error:
        raise ConfigError(f"$.checkpointer.{key}", str(error)) from None
    if address.kind == TLS:
        raise ConfigError(f"$.checkpointer.{key}", "must be unix:PATH or tcp:HOST:PORT")
    return address


def disks_of(options: QemuOptions) -> Disks:
    """Give the pair's disks. Raises ConfigError."""
    if options.disks and not options.nbd:
        raise ConfigError("$.checkpointer.nbd", "is missing: where does the secondary offer its images?")
    try:
        return Disks(options.disks, options.nbd, copy=options.copy_disks)
    except ValueError as error:
        raise ConfigError("$.checkpointer.nbd", str(error)) from None


def _check_address(key: str, text: str, options: QemuOptions) -> None:
    """Raise ConfigError for a monitor that cannot be meant."""
    path = f"$.checkpointer.{key}"
    try:
        address = MonitorAddress.parse(text)
    except ValueError as error:
        raise ConfigError(path, str(error)) from None
    if address.kind == TLS and not options.tls_dir:
        raise ConfigError("$.checkpointer.tls_dir", f"is missing, and {key} is a monitor behind TLS")
    if address.kind != "unix" and not options.fence:
        raise ConfigError(
            "$.checkpointer.fence",
            f"is missing: {key} is reached over the network, so only a program of yours can kill that guest",
        )
