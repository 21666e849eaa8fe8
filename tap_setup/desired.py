"""From the configuration to what the kernel shall say: links and, for each, property -> value.

Values are words, as `ip` and `ethtool` print them (``on``, ``1500``, ``br-client``, ``none``), so that one
comparison, one record and one report serve them all. Their order is the order in which they are set:
whatever silences the host's own stack comes before the link goes up.
"""

import grp
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from colo_compare.errors import ConfigError
from tap_setup.config import BridgeTable, Config, InterfaceTable, OffloadsTable, TapTable

TAP: Final = "tap"
BRIDGE: Final = "bridge"
EXISTING: Final = "interface"  # somebody else's: prepared here, never made or removed

# Of a tap: TUNSETIFF and its companions, drivers/net/tun.c.
MULTI_QUEUE: Final = "multi_queue"
OWNER: Final = "owner"
GROUP: Final = "group"
VNET_HDR: Final = "vnet_hdr"
TAP_KEYS: Final = (MULTI_QUEUE, OWNER, GROUP, VNET_HDR)
# Of a bridge: IFLA_BR_*.
STP: Final = "stp_state"
FORWARD_DELAY: Final = "forward_delay"
SNOOPING: Final = "mcast_snooping"
VLAN_FILTERING: Final = "vlan_filtering"
BRIDGE_KEYS: Final = (STP, FORWARD_DELAY, SNOOPING, VLAN_FILTERING)
# Of any link.
IPV6: Final = "ipv6"
RP_FILTER: Final = "rp_filter"
ARP: Final = "arp"
ADDRESS: Final = "address"
MTU: Final = "mtu"
MASTER: Final = "master"
PROMISC: Final = "promisc"
UP: Final = "up"
LRO: Final = "lro"
OFFLOADS: Final = OffloadsTable.__struct_fields__

ON: Final = "on"
OFF: Final = "off"
NONE: Final = "none"

# The host's own stack must never answer for the guest. IPv6 off: no neighbour advertisement, no MLD, no
# router solicitation leaves the link. ARP off: the host would else answer for any of its addresses on any
# link (arp_ignore is 0). No address: nothing routes here. Reverse path filter on: with no address on the
# link the kernel then drops every IPv4 packet that reaches its stack from here, broadcast by Ethernet
# included (last_resort in __fib_validate_source(), net/ipv4/fib_frontend.c); IPv4 itself has no switch.
SILENT: Final = {IPV6: OFF, RP_FILTER: ON, ARP: OFF, ADDRESS: NONE}

# STP off: a port forwards at once, and no BPDU goes out. Forwarding delay 0: the same, if it is ever turned
# on. Snooping off: the bridge learns group members from the reports that guests send, and the secondary's
# are never let out; with snooping on, a failover would lose multicast (IPv6 neighbour discovery is
# multicast) until the next query. VLAN filtering off: tagged frames pass as they are.
TRANSPARENT: Final = {STP: "0", FORWARD_DELAY: "0", SNOOPING: "0", VLAN_FILTERING: "0"}


@dataclass(frozen=True)
class Link:
    """One link and what is wanted of it."""

    name: str
    namespace: str | None  # None: where the program runs
    kind: str  # TAP, BRIDGE or EXISTING
    want: Mapping[str, str]


@dataclass(frozen=True)
class Desired:
    """All that is wanted. Links come in the order in which they must be made."""

    device: Path
    namespaces: tuple[str, ...]
    links: tuple[Link, ...]


def desire(config: Config) -> Desired:
    """Give what a configuration wants.

    Raises ConfigError with the place of a name that cannot be one, is used twice, or is no account here.
    """
    place = _Places(config)
    for index, namespace in enumerate(config.namespaces):
        place.add_namespace(f"$.namespaces[{index}].name", namespace.name)
    for index, bridge in enumerate(config.bridges):
        place.add(f"$.bridges[{index}]", bridge.name, bridge.namespace)
    for index, tap in enumerate(config.taps):
        place.add(f"$.taps[{index}]", tap.name, tap.namespace)
        if tap.bridge is not None:
            _check_link_name(f"$.taps[{index}].bridge", tap.bridge)
    for index, interface in enumerate(config.interfaces):
        place.add(f"$.interfaces[{index}]", interface.name, interface.namespace)
    for index, bridge in enumerate(config.bridges):
        for number, port in enumerate(bridge.ports):
            place.add_port(f"$.bridges[{index}].ports[{number}]", port, bridge.namespace)
    return Desired(
        device=Path(config.device),
        namespaces=tuple(namespace.name for namespace in config.namespaces),
        links=(
            *(_bridge(bridge) for bridge in config.bridges),
            *(_tap(tap, f"$.taps[{index}]") for index, tap in enumerate(config.taps)),
            *(_port(port, bridge) for bridge in config.bridges for port in bridge.ports),
            *(_interface(interface) for interface in config.interfaces),
        ),
    )


class _Places:
    """Where each name is used first."""

    def __init__(self, config: Config) -> None:
        self._links: dict[tuple[str | None, str], str] = {}
        self._namespaces: set[str] = set()
        self._config = config

    def add_namespace(self, path: str, name: str) -> None:
        if name.startswith("/"):
            raise ConfigError(path, f"{name!r} is a path: only named namespaces can be made")
        _check_namespace(path, name)
        if name in self._namespaces:
            raise ConfigError(path, f"{name} is named twice")
        self._namespaces.add(name)

    def add(self, path: str, name: str, namespace: str | None) -> None:
        _check_link_name(f"{path}.name", name)
        if namespace is not None:
            _check_namespace(f"{path}.namespace", namespace)
        self._claim(f"{path}.name", name, namespace)

    def add_port(self, path: str, name: str, namespace: str | None) -> None:
        _check_link_name(path, name)
        for tap in self._config.taps:
            if (tap.namespace, tap.name) == (namespace, name):
                raise ConfigError(path, f"{name} is a tap of this file: write `bridge` in its table instead")
        self._claim(path, name, namespace)

    def _claim(self, path: str, name: str, namespace: str | None) -> None:
        first = self._links.setdefault((namespace, name), path)
        if first != path:
            raise ConfigError(path, f"{name} is used already at {first}")


def _check_link_name(path: str, name: str) -> None:
    # dev_valid_name() in net/core/dev.c; a percent sign makes TUNSETIFF take the name as a pattern.
    if (
        not 1 <= len(name.encode()) <= 15
        or name in (".", "..")
        or any(c in "/:%" or c.isspace() for c in name)
    ):
        raise ConfigError(
            path, f"{name!r} cannot name an interface: 1 to 15 bytes, no space, '/', ':' or '%'"
        )


def _check_namespace(path: str, name: str) -> None:
    if name.startswith("/"):
        return
    if not 1 <= len(name) <= 255 or name in (".", "..") or any(c == "/" or c.isspace() for c in name):
        raise ConfigError(
            path, f"{name!r} is not a namespace: write a name as in `ip netns`, or an absolute path"
        )


def _bridge(bridge: BridgeTable) -> Link:
    want = dict(TRANSPARENT)
    if bridge.mtu is not None:
        want[MTU] = str(bridge.mtu)
    return Link(bridge.name, bridge.namespace, BRIDGE, {**want, **SILENT, UP: ON})


def _tap(tap: TapTable, path: str) -> Link:
    # No offloads: the process that attaches to a tap sets them (TUNSETOFFLOAD overwrites what ethtool set).
    want = {
        MULTI_QUEUE: _switch(tap.multi_queue),
        OWNER: _account(f"{path}.owner", tap.owner, "user", lambda name: pwd.getpwnam(name).pw_uid),
        GROUP: NONE
        if tap.group is None
        else _account(f"{path}.group", tap.group, "group", lambda name: grp.getgrnam(name).gr_gid),
        VNET_HDR: _switch(tap.vnet_hdr),
        MTU: str(tap.mtu),
    }
    return Link(tap.name, tap.namespace, TAP, {**want, **SILENT, MASTER: tap.bridge or NONE, UP: ON})


def _port(name: str, bridge: BridgeTable) -> Link:
    # A bridge makes its ports promiscuous by itself. It also switches their LRO off, and never on again
    # (dev_disable_lro()): done here first, it is in the record and is put back.
    return Link(name, bridge.namespace, EXISTING, {**SILENT, LRO: OFF, MASTER: bridge.name, UP: ON})


def _interface(interface: InterfaceTable) -> Link:
    want = dict(SILENT)
    if interface.mtu is not None:
        want[MTU] = str(interface.mtu)
    for key, wanted in msgspec.structs.asdict(interface.offloads).items():
        if wanted is not None:
            want[key] = _switch(wanted)
    # An AF_PACKET socket copies frames, it does not take them: a bridge above would forward them as well.
    return Link(
        interface.name,
        interface.namespace,
        EXISTING,
        {**want, MASTER: NONE, PROMISC: _switch(interface.promisc), UP: ON},
    )


def _switch(on: bool) -> str:
    return ON if on else OFF


def _account(path: str, account: int | str, kind: str, look_up: Callable[[str], int]) -> str:
    """Give the number of a user or group as a word. Raises ConfigError if it has none here."""
    if isinstance(account, int):
        return str(account)
    try:
        return str(look_up(account))
    except KeyError:
        raise ConfigError(
            path, f"no {kind} {account!r} on {os.uname().nodename}; create it, or write its number"
        ) from None
