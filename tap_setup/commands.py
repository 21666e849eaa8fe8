"""Shell commands that do by hand what the program does: the fix of each deviation, and the dry run."""

from typing import Final

from tap_setup import desired
from tap_setup.desired import BRIDGE, NONE, OFF, ON, TAP, Link
from tap_setup.record import MARK

# iproute2 and ethtool: what comes after the name of the link.
_LINK_SET: Final = {desired.MTU: "mtu {}", desired.ARP: "arp {}", desired.PROMISC: "promisc {}"}
_ETHTOOL: Final = {"uso": "tx-udp-segmentation"}
_SYSCTLS: Final = {
    desired.IPV6: ("ipv6", "disable_ipv6", {ON: "0", OFF: "1"}),
    desired.RP_FILTER: ("ipv4", "rp_filter", {ON: "1", OFF: "0"}),
}


def within(namespace: str | None, command: str) -> str:
    """Give a command that runs in a namespace."""
    if namespace is None:
        return command
    enter = f"nsenter --net={namespace}" if namespace.startswith("/") else f"ip netns exec {namespace}"
    return f"{enter} {command}"


def set_command(link: Link, key: str, value: str) -> str:
    """Give the command that sets one property of a link, but for those of TAP_KEYS."""
    name = link.name
    if key in _LINK_SET:
        command = f"ip link set dev {name} {_LINK_SET[key].format(value)}"
    elif key == desired.UP:
        command = f"ip link set dev {name} {'up' if value == ON else 'down'}"
    elif key == desired.MASTER:
        command = f"ip link set dev {name} {'nomaster' if value == NONE else f'master {value}'}"
    elif key in _SYSCTLS:
        family, file, values = _SYSCTLS[key]
        # With slashes: an interface's own name may have dots in it.
        command = f"sysctl -w net/{family}/conf/{name}/{file}={values[value]}"
    elif key == desired.ADDRESS:
        command = f"ip address flush dev {name}"
    elif key in desired.BRIDGE_KEYS:
        command = f"ip link set dev {name} type bridge {key} {value}"
    else:
        command = f"ethtool -K {name} {_ETHTOOL.get(key, key)} {value}"
    return within(link.namespace, command)


def make_commands(link: Link) -> list[str]:
    """Give the commands that make a tap or a bridge with all its properties, marked as made here."""
    commands = [_add_command(link), f"ip link set dev {link.name} alias {MARK}"]
    commands = [within(link.namespace, command) for command in commands]
    # Given when it is made, or so by itself (and a kernel without VLAN filtering refuses to switch it off).
    skipped = (*desired.TAP_KEYS, desired.ADDRESS, desired.STP, desired.VLAN_FILTERING)
    commands += [set_command(link, key, value) for key, value in link.want.items() if key not in skipped]
    return [command for command in commands if not command.endswith(" nomaster")]


def _add_command(link: Link) -> str:
    if link.kind == BRIDGE:
        return f"ip link add name {link.name} type bridge"
    want = link.want
    words = [f"ip tuntap add dev {link.name} mode {TAP} user {want[desired.OWNER]}"]
    if want[desired.GROUP] != NONE:
        words.append(f"group {want[desired.GROUP]}")
    words += [key for key in (desired.MULTI_QUEUE, desired.VNET_HDR) if want[key] == ON]
    return " ".join(words)
