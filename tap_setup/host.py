"""One network namespace, seen and changed: netlink, sysctls and ioctls behind one set of property names."""

import errno
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from colo_compare.errors import SetupError
from tap_setup import desired, netlink
from tap_setup.desired import NONE, OFF, ON, Link
from tap_setup.features import read_offloads, set_offload
from tap_setup.netlink import LinkMessage, Netlink, TapMessage
from tap_setup.record import MARK, Record, read_record, write_record
from tap_setup.refusal import attempting
from tap_setup.tun import TapShape, make_tap, reshape_tap, try_tap

# Property -> name below /proc/sys/net, the value for on, the value for off.
_SYSCTLS: Final = {
    desired.IPV6: ("ipv6/conf/{}/disable_ipv6", "0", "1"),
    desired.RP_FILTER: ("ipv4/conf/{}/rp_filter", "1", "0"),
}
_READ_ONLY: Final = {
    errno.EROFS: "let the container engine set it for every interface"
    " (net.ipv6.conf.default.disable_ipv6=1, net.ipv4.conf.default.rp_filter=1), or run privileged"
}
# Property -> IFF_* flag, and whether the flag means on.
_FLAGS: Final = {
    desired.UP: (netlink.IFF_UP, True),
    desired.ARP: (netlink.IFF_NOARP, False),
    desired.PROMISC: (netlink.IFF_PROMISC, True),
}


@dataclass(frozen=True)
class LinkState:
    """A link as it is."""

    name: str
    index: int
    kind: str  # TAP, BRIDGE, or the kernel's word for anything else
    alias: str
    values: Mapping[str, str]  # property -> value
    attached: bool  # a process has this tap open

    @property
    def made_here(self) -> bool:
        """Whether this program made it."""
        return self.alias == MARK

    @property
    def record(self) -> Record | None:
        """What it was like before this program prepared it; None if it did not."""
        return read_record(self.alias)


class Host:
    """The network namespace of the thread that opens it. Use it in that thread only."""

    def __init__(self, device: Path) -> None:
        self._device = device
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with self._open as opened:
            self._netlink = opened.enter_context(Netlink())
            with attempting("open a socket"):
                self._control = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def read(self, name: str) -> LinkState | None:
        """Give a link as it is now, None if there is none of this name."""
        message = self._netlink.link(name, desired.BRIDGE_KEYS)
        if message is None:
            return None
        values = {
            desired.MTU: str(message.mtu),
            desired.ADDRESS: ",".join(self._netlink.addresses(message.index)) or NONE,
            desired.MASTER: self._netlink.link_name(message.master) if message.master else NONE,
            **{key: _switch(bool(message.flags & flag) is sense) for key, (flag, sense) in _FLAGS.items()},
            **{key: self._read_sysctl(name, key) for key in _SYSCTLS},
            **read_offloads(self._control, name),
            **{key: str(value) for key, value in message.bridge.items()},
        }
        if message.tap is not None:
            values |= _tap_values(message.tap)
        return LinkState(
            name=name,
            index=message.index,
            kind=_kind(message),
            alias=message.alias,
            values=values,
            attached=message.tap is not None and _attached(message, message.tap),
        )

    def names(self) -> list[str]:
        """Give the names of all links here."""
        return self._netlink.link_names()

    def make(self, link: Link) -> None:
        """Make a tap or a bridge, marked. Everything else about it is set afterwards."""
        if link.kind == desired.TAP:
            make_tap(self._device, link.name, _shape(link.want), lambda: self._mark(link.name))
        else:
            self._netlink.make_bridge(link.name)
            self._mark(link.name)

    def reshape(self, link: Link, state: LinkState) -> None:
        """Give a tap that nobody has open its owner, group, queues and vnet header."""
        shape = _shape(link.want)
        # Neither the number of queues nor "no group" can be set on an existing tap.
        if state.values[desired.MULTI_QUEUE] == link.want[desired.MULTI_QUEUE] and (
            shape.group is not None or state.values[desired.GROUP] == NONE
        ):
            reshape_tap(self._device, link.name, shape)
            return
        try_tap(self._device, link.name, multi_queue=state.values[desired.MULTI_QUEUE] == ON)
        self._netlink.delete(link.name, state.index)
        self.make(link)

    def delete(self, state: LinkState) -> None:
        """Delete a link."""
        self._netlink.delete(state.name, state.index)

    def note(self, state: LinkState, record: Record) -> None:
        """Write on a link what it was like."""
        self._netlink.set_alias(state.name, state.index, write_record(state.name, record))

    def set_alias(self, state: LinkState, alias: str) -> None:
        """Give a link an alias; "" takes it away."""
        self._netlink.set_alias(state.name, state.index, alias)

    def set(self, state: LinkState, key: str, value: str) -> None:
        """Set one property of a link, but for those of TAP_KEYS. Raises SetupError if the kernel refuses."""
        name, index = state.name, state.index
        if key in _FLAGS:
            flag, sense = _FLAGS[key]
            self._netlink.set_flag(name, index, flag, on=(value == ON) is sense)
        elif key in _SYSCTLS:
            self._write_sysctl(name, key, value)
        elif key in desired.OFFLOADS:
            set_offload(self._control, name, key, value)
        elif key in desired.BRIDGE_KEYS:
            self._netlink.set_bridge(name, index, key, int(value))
        elif key == desired.MTU:
            self._netlink.set_mtu(name, index, int(value))
        elif key == desired.ADDRESS:
            self._netlink.flush_addresses(name, index)
        elif key == desired.MASTER:
            self._netlink.set_master(name, index, self._index(value, wanted_by=name))

    def _mark(self, name: str) -> None:
        message = self._netlink.link(name)
        if message is None:
            raise SetupError(f"cannot mark {name}: it went away while it was made")
        self._netlink.set_alias(name, message.index, MARK)

    def _index(self, bridge: str, wanted_by: str) -> int:
        if bridge == NONE:
            return 0
        message = self._netlink.link(bridge)
        if message is None:
            raise SetupError(
                f"cannot put {wanted_by} into {bridge}: there is no such bridge; add it to the configuration"
            )
        return message.index

    def _read_sysctl(self, name: str, key: str) -> str:
        file, _, off = _SYSCTLS[key]
        try:
            # /proc/sys/net shows the namespace of the thread that looks at it.
            text = Path("/proc/sys/net", file.format(name)).read_text().strip()
        except FileNotFoundError:
            return OFF  # a kernel without IPv6
        return _switch(text != off)

    def _write_sysctl(self, name: str, key: str, value: str) -> None:
        file, on, off = _SYSCTLS[key]
        path = Path("/proc/sys/net", file.format(name))
        with attempting(f"write {path}", _READ_ONLY):
            path.write_text(on if value == ON else off)


def device_trouble(device: Path, uid: int, gid: int | None) -> str | None:
    """Say why a process of this user cannot open the tun device, None if it can."""
    try:
        node = device.stat()
    except OSError as error:
        return os.strerror(error.errno or 0)
    if not stat.S_ISCHR(node.st_mode):
        return "no character device"
    if uid == 0:
        return None
    shift = 6 if node.st_uid == uid else 3 if node.st_gid == gid else 0
    if node.st_mode >> shift & 0o6 == 0o6:
        return None
    return f"mode {stat.S_IMODE(node.st_mode):04o} of {node.st_uid}:{node.st_gid}"


def _switch(on: bool) -> str:
    return ON if on else OFF


def _kind(message: LinkMessage) -> str:
    if message.tap is not None:
        return desired.TAP
    return desired.BRIDGE if message.kind == "bridge" else message.kind or "hardware"


def _attached(message: LinkMessage, tap: TapMessage) -> bool:
    # The kernel counts the queues of multi-queue taps only; of others the carrier tells, while they are up.
    return tap.queues > 0 if tap.multi_queue else message.carrier


def _tap_values(tap: TapMessage) -> dict[str, str]:
    return {
        desired.MULTI_QUEUE: _switch(tap.multi_queue),
        desired.OWNER: NONE if tap.owner is None else str(tap.owner),
        desired.GROUP: NONE if tap.group is None else str(tap.group),
        desired.VNET_HDR: _switch(tap.vnet_hdr),
    }


def _shape(values: Mapping[str, str]) -> TapShape:
    group = values[desired.GROUP]
    return TapShape(
        owner=int(values[desired.OWNER]),
        group=None if group == NONE else int(group),
        multi_queue=values[desired.MULTI_QUEUE] == ON,
        vnet_hdr=values[desired.VNET_HDR] == ON,
    )
