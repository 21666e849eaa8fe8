"""rtnetlink through pyroute2, and nothing else: the one typed door to a library without types."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError

from tap_setup.refusal import attempting, refused

# include/uapi/linux/if.h
IFF_UP: Final = 0x1
IFF_NOARP: Final = 0x80
IFF_PROMISC: Final = 0x100

_ENODEV: Final = 19
_AF_INET6: Final = 10
_RT_SCOPE_LINK: Final = 253  # include/uapi/linux/rtnetlink.h
_TUN_TYPE_TAP: Final = 2  # IFF_TAP


@dataclass(frozen=True)
class TapMessage:
    """IFLA_TUN_*: a tap as the kernel tells it. `queues`: attached ones, told of multi-queue taps only."""

    owner: int | None
    group: int | None
    multi_queue: bool
    vnet_hdr: bool
    queues: int


@dataclass(frozen=True)
class LinkMessage:
    """One link as RTM_GETLINK tells it."""

    name: str
    index: int
    kind: str  # "tun", "bridge", "veth", ...; "" for hardware
    alias: str
    flags: int
    mtu: int
    master: int  # ifindex, 0 for none
    carrier: bool
    tap: TapMessage | None
    bridge: dict[str, int]  # the attributes asked for in `Netlink.link`, empty if it is no bridge


class Netlink:
    """A netlink socket in the network namespace of the thread that opens it. Use it in that thread only."""

    def __init__(self) -> None:
        with attempting("open a netlink socket"):
            self._route: Any = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._route.close()

    def link(self, name: str, bridge_keys: tuple[str, ...] = ()) -> LinkMessage | None:
        """Give a link, or None if there is none of this name in the namespace."""
        try:
            messages = list(self._route.link("get", ifname=name))
        except NetlinkError as error:
            if error.code == _ENODEV:
                return None
            raise refused(f"read the interface {name}", int(error.code)) from error
        return _link_message(messages[0], bridge_keys)

    def link_name(self, index: int) -> str:
        """Give the name of the link with this ifindex."""
        messages = _call(f"read interface {index}", lambda: list(self._route.link("get", index=index)))
        return str(messages[0].get_attr("IFLA_IFNAME"))

    def link_names(self) -> list[str]:
        """Give the names of all links of the namespace."""
        messages = _call("list the interfaces", lambda: list(self._route.get_links()))
        return [str(message.get_attr("IFLA_IFNAME")) for message in messages]

    def addresses(self, index: int) -> list[str]:
        """Give the link's addresses (``10.0.0.1/24``) without those that IPv6 makes by itself (fe80::)."""
        messages = _call("list the addresses", lambda: list(self._route.get_addr(index=index)))
        return [
            f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
            for message in messages
            if not (message["family"] == _AF_INET6 and message["scope"] == _RT_SCOPE_LINK)
        ]

    def flush_addresses(self, name: str, index: int) -> None:
        """Take all addresses from a link."""
        _call(f"remove the addresses of {name}", lambda: self._route.flush_addr(index=index))

    def make_bridge(self, name: str) -> None:
        """Make a bridge."""
        _call(f"make the bridge {name}", lambda: self._route.link("add", ifname=name, kind="bridge"))

    def delete(self, name: str, index: int) -> None:
        """Delete a link."""
        _call(f"delete {name}", lambda: self._route.link("del", index=index))

    def set_alias(self, name: str, index: int, alias: str) -> None:
        """Set the ifalias of a link; "" takes it away."""
        _call(f"set the alias of {name}", lambda: self._route.link("set", index=index, IFLA_IFALIAS=alias))

    def set_flag(self, name: str, index: int, flag: int, *, on: bool) -> None:
        """Set or clear one IFF_* flag."""
        _call(
            f"set the flags of {name}",
            lambda: self._route.link("set", index=index, flags=flag if on else 0, change=flag),
        )

    def set_mtu(self, name: str, index: int, mtu: int) -> None:
        """Set the MTU in bytes."""
        _call(f"set the MTU of {name} to {mtu}", lambda: self._route.link("set", index=index, mtu=mtu))

    def set_master(self, name: str, index: int, master: int) -> None:
        """Put a link into the bridge with ifindex `master`; 0 takes it out of any."""
        _call(f"change the bridge of {name}", lambda: self._route.link("set", index=index, master=master))

    def set_bridge(self, name: str, index: int, key: str, value: int) -> None:
        """Set an attribute of a bridge, by the name that `ip` has for it (``stp_state``)."""
        _call(
            f"set {key} of {name} to {value}",
            lambda: self._route.link("set", index=index, kind="bridge", **{f"br_{key}": value}),
        )


def _call(attempt: str, method: Callable[[], Any]) -> Any:
    try:
        return method()
    except NetlinkError as error:
        raise refused(attempt, int(error.code)) from error


def _link_message(message: Any, bridge_keys: tuple[str, ...]) -> LinkMessage:
    info: Any = message.get_attr("IFLA_LINKINFO")
    kind = "" if info is None else str(info.get_attr("IFLA_INFO_KIND") or "")
    data: Any = None if info is None else info.get_attr("IFLA_INFO_DATA")
    bridge = {}
    if kind == "bridge":
        bridge = {key: int(data.get_attr(f"IFLA_BR_{key.upper()}") or 0) for key in bridge_keys}
    return LinkMessage(
        name=str(message.get_attr("IFLA_IFNAME")),
        index=int(message["index"]),
        kind=kind,
        alias=str(message.get_attr("IFLA_IFALIAS") or ""),
        flags=int(message["flags"]),
        mtu=int(message.get_attr("IFLA_MTU")),
        master=int(message.get_attr("IFLA_MASTER") or 0),
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        tap=_tap_message(data) if kind == "tun" else None,
        bridge=bridge,
    )


def _tap_message(data: Any) -> TapMessage | None:
    if data.get_attr("IFLA_TUN_TYPE") != _TUN_TYPE_TAP:
        return None
    attached = data.get_attr("IFLA_TUN_NUM_QUEUES") or 0
    disabled = data.get_attr("IFLA_TUN_NUM_DISABLED_QUEUES") or 0
    return TapMessage(
        owner=data.get_attr("IFLA_TUN_OWNER"),
        group=data.get_attr("IFLA_TUN_GROUP"),
        multi_queue=bool(data.get_attr("IFLA_TUN_MULTI_QUEUE")),
        vnet_hdr=bool(data.get_attr("IFLA_TUN_VNET_HDR")),
        queues=int(attached) + int(disabled),
    )


def enter_namespace(descriptor: int) -> None:
    """Move the calling thread into a network namespace. Raises OSError.

    (`os.setns` comes with Python 3.12.)
    """
    netns.setns(descriptor, flags=0, fork=False)


def name_namespace(name: str, thread: int) -> None:
    """Give the namespace of a thread (its native id) a name under /run/netns. Raises OSError."""
    netns.attach(name, thread)


def unname_namespace(name: str) -> None:
    """Take a name under /run/netns away. Raises OSError."""
    netns.remove(name)
