"""The doctor's look at the three ports: interfaces, taps and sockets."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from colo_compare.commands.doctor.account import CAP_NET_ADMIN, CAP_NET_RAW, Account
from colo_compare.commands.doctor.finding import Finding, bad, doubtful, good
from colo_compare.config import PortsTable
from colo_compare.errors import SetupError
from colo_compare.ports.tap import DEVICE
from colo_compare.ports.url import (
    DgramTarget,
    PacketTarget,
    StreamTarget,
    TapTarget,
    Target,
    parse_port_url,
)
from tap_setup import desired
from tap_setup.host import Host, LinkState, device_trouble

_SIDES: Final = ("client", "primary", "secondary")


def look_at_ports(ports: PortsTable, account: Account, *, running: bool) -> Iterator[Finding]:
    """Give the findings. `running`: a proxy has these ports open already."""
    targets = {side: parse_port_url(getattr(ports, side)).target for side in _SIDES}
    links: dict[str, LinkState] = {}
    if any(isinstance(target, TapTarget) for target in targets.values()):
        trouble = device_trouble(Path(DEVICE), account.uid, account.gid)
        if trouble is not None:
            text = f"{DEVICE} cannot be opened by {account.name}: {trouble}"
            yield bad("tun device", text, f"modprobe tun; chmod 0666 {DEVICE}")
    try:
        with Host(Path(DEVICE)) as host:
            names = sorted(host.names())
            for side, target in targets.items():
                if isinstance(target, PacketTarget | TapTarget):
                    state = host.read(target.interface)
                    if state is not None:
                        links[side] = state
    except SetupError as error:
        yield bad("interfaces", str(error), "run the doctor as root")
        return
    for side, target in targets.items():
        about = f"{side} port"
        if isinstance(target, PacketTarget | TapTarget):
            yield from _interface(about, target, links.get(side), names, account, running=running)
        else:
            yield _socket(about, target, account, running=running)
    yield from _mtu({side: state.values[desired.MTU] for side, state in links.items()}, links)


def _interface(
    about: str,
    target: PacketTarget | TapTarget,
    state: LinkState | None,
    names: list[str],
    account: Account,
    *,
    running: bool,
) -> Iterator[Finding]:
    name = target.interface
    is_tap = isinstance(target, TapTarget)
    if state is None:
        known = ", ".join(each for each in names if each != "lo") or "none"
        if is_tap and account.may(CAP_NET_ADMIN):
            yield good(about, f"tap {name} will be made when the proxy starts")
        else:
            make = (
                f"ip tuntap add dev {name} mode tap user {account.name} vnet_hdr; ip link set dev {name} up"
            )
            fix = make if is_tap else "correct its name, or run in the namespace where it is"
            yield bad(about, f"there is no interface {name} here (there are: {known})", fix)
        return
    wrong = [*_tap(about, state, account, running=running)] if is_tap else [*_packet(about, state, account)]
    wrong += _quiet(about, state)
    yield from wrong
    if not wrong:
        yield good(
            about, f"{name}: up, MTU {state.values[desired.MTU]}, no address, the host is silent on it"
        )


def _tap(about: str, state: LinkState, account: Account, *, running: bool) -> Iterator[Finding]:
    name = state.name
    if state.kind != desired.TAP:
        yield bad(about, f"{name} is no tap but {state.kind}", f"write packet:{name}")
        return
    owner = state.values[desired.OWNER]
    if owner != str(account.uid) and account.uid != 0 and not account.may(CAP_NET_ADMIN):
        fix = f"ip link del {name}; ip tuntap add dev {name} mode tap user {account.name} vnet_hdr"
        yield bad(about, f"tap {name} belongs to uid {owner}, not to {account.name} ({account.uid})", fix)
    if state.attached and not running and state.values[desired.MULTI_QUEUE] == desired.OFF:
        yield bad(about, f"tap {name} is open in another process", "end it, or make the tap multi-queue")
    if state.values[desired.VNET_HDR] == desired.OFF:
        fix = "make it with vnet_hdr, or with colo-tap-setup"
        yield doubtful(
            about, f"tap {name} has no virtio-net headers: no large frames, far less throughput", fix
        )


def _packet(about: str, state: LinkState, account: Account) -> Iterator[Finding]:
    name, values = state.name, state.values
    if values[desired.UP] == desired.OFF:
        yield bad(about, f"{name} is down", f"ip link set dev {name} up")
    if account.capabilities is not None and not account.may(CAP_NET_RAW):
        fix = "systemd: AmbientCapabilities=CAP_NET_RAW; else a tap: port on a tap of its own"
        yield bad(about, f"{account.name} may not open packet sockets: no CAP_NET_RAW", fix)
    if values[desired.MASTER] != desired.NONE:
        fix = f"ip link set dev {name} nomaster"
        yield bad(
            about, f"{name} is a port of {values[desired.MASTER]}, which forwards every frame as well", fix
        )
    if values.get(desired.LRO, desired.OFF) == desired.ON:
        yield doubtful(about, f"{name} merges frames for good (LRO)", f"ethtool -K {name} lro off")


def _quiet(about: str, state: LinkState) -> Iterator[Finding]:
    """Look whether the host's own stack can say something in the guest's name."""
    name, values = state.name, state.values
    if values[desired.ADDRESS] != desired.NONE:
        text = f"{name} has the address {values[desired.ADDRESS]}: the host itself answers there"
        yield bad(about, text, f"ip address flush dev {name}")
    if values[desired.IPV6] == desired.ON:
        fix = f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=1"
        yield doubtful(about, f"the host speaks IPv6 on {name} (neighbour discovery, MLD)", fix)
    if values[desired.ARP] == desired.ON:
        fix = f"ip link set dev {name} arp off"
        yield doubtful(about, f"the host answers ARP on {name} for any of its addresses", fix)


def _mtu(mtus: Mapping[str, str], links: Mapping[str, LinkState]) -> Iterator[Finding]:
    if len(set(mtus.values())) > 1:
        words = ", ".join(f"{links[side].name} {mtu}" for side, mtu in mtus.items())
        fix = f"ip link set dev NAME mtu {max(map(int, mtus.values()))}, on those that have less"
        yield doubtful("MTU", f"the interfaces differ: {words}; longer frames are dropped, counted", fix)
    elif mtus:
        yield good("MTU", f"{next(iter(mtus.values()))} on every interface")


def _socket(about: str, target: Target, account: Account, *, running: bool) -> Finding:
    """Look at a port that is no interface. Nothing connects: a peer might take it for the proxy."""
    place, listens = None, False
    if isinstance(target, StreamTarget) and isinstance(target.address, str):
        place, listens = Path(target.address), target.listen
    elif isinstance(target, DgramTarget):
        place, listens = Path(target.path), True
    if place is None:
        return good(about, "nothing to look at before it is opened")
    if listens:
        if not place.parent.is_dir():
            return bad(about, f"there is no directory {place.parent}", f"mkdir -p {place.parent}")
        if not account.can_write(place.parent):
            fix = f"chown {account.name} {place.parent}"
            return bad(about, f"{account.name} may not make a socket in {place.parent}", fix)
        return good(about, f"listens on {place}")
    if not place.is_socket() and not running:
        return doubtful(about, f"nobody listens on {place} yet: the proxy will wait", "start the guest")
    return good(about, f"connects to {place}")
