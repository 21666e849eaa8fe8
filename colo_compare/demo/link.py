"""Interfaces of the lab, by netlink.

Every function works on the namespace of the thread that calls it: ``guest.call(delete, "eth0")``.
"""

import array
import fcntl
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Final

from pyroute2 import IPRoute

from colo_compare.demo.namespace import Namespace
from colo_compare.errors import SetupError

IFF_NOARP: Final = 0x80  # include/uapi/linux/if.h
IFA_F_NODAD: Final = 0x02  # include/uapi/linux/if_addr.h: not checked for duplicates

# include/uapi/linux/sockios.h and ethtool.h
SIOCETHTOOL: Final = 0x8946
ETHTOOL_STXCSUM: Final = 0x17
ETHTOOL_STSO: Final = 0x1F
ETHTOOL_SGSO: Final = 0x24
ETHTOOL_SGRO: Final = 0x2C


def connect(near: Namespace, near_name: str, far: Namespace, far_name: str) -> None:
    """Lay a veth pair between two namespaces; both ends are down."""
    far_thread = far.call(threading.get_native_id)

    def add() -> None:
        with IPRoute() as ip:
            ip.link("add", ifname=near_name, kind="veth", peer={"ifname": far_name, "net_ns_pid": far_thread})

    near.call(add)


def set_up(name: str, mac: str = "", mtu: int = 0, addresses: Sequence[str] = ()) -> None:
    """Bring an interface up as a host's own, with addresses ("10.0.0.1/24")."""
    with IPRoute() as ip:
        (index,) = ip.link_lookup(ifname=name)
        if mac:
            ip.link("set", index=index, address=mac)
        if mtu:
            ip.link("set", index=index, mtu=mtu)
        ip.link("set", index=index, state="up")
        for address in addresses:
            host, _, prefix = address.partition("/")
            if ":" in host:
                # Else it is tentative for a moment, in which connections start from ::1.
                ip.addr("add", index=index, address=host, prefixlen=int(prefix), flags=IFA_F_NODAD)
            else:
                ip.addr("add", index=index, address=host, prefixlen=int(prefix))


def set_up_silent(name: str, mtu: int = 0) -> None:
    """Bring an interface up on which this host says nothing by itself: no ARP, no address."""
    with IPRoute() as ip:
        (index,) = ip.link_lookup(ifname=name)
        if mtu:
            ip.link("set", index=index, mtu=mtu)
        ip.link("set", index=index, flags=IFF_NOARP, mask=IFF_NOARP)
        ip.link("set", index=index, state="up")


def wait_until_up(name: str, limit: float = 5.0) -> None:
    """Wait until what is sent on an interface leaves it. Raises SetupError after `limit` seconds.

    When the other end of a veth comes up, this end has a carrier at once, but its queue is the one that drops
    everything until a kernel worker has replaced it and set the operational state (net/core/link_watch.c).
    """
    end = time.monotonic() + limit
    with IPRoute() as ip:
        (index,) = ip.link_lookup(ifname=name)
        while ip.get_links(index)[0].get("operstate") != "UP":
            if time.monotonic() > end:
                raise SetupError(f"interface {name} does not come up: is its other end up?")
            time.sleep(0.001)


def set_up_loopback() -> None:
    """Bring `lo` up, which a new namespace has down."""
    with IPRoute() as ip:
        ip.link("set", index=1, state="up")


def move(name: str, to: Namespace, new_name: str) -> None:
    """Move an interface into another namespace, under another name; it is down then."""
    thread = to.call(threading.get_native_id)
    with IPRoute() as ip:
        (index,) = ip.link_lookup(ifname=name)
        ip.link("set", index=index, state="down")
        ip.link("set", index=index, net_ns_pid=thread, ifname=new_name)


def forget_neighbour(name: str, address: str) -> None:
    """Remove an address from an interface's table of neighbours (ARP or neighbour discovery)."""
    with IPRoute() as ip:
        (index,) = ip.link_lookup(ifname=name)
        ip.neigh("del", ifindex=index, dst=address)


def delete(name: str) -> None:
    """Delete an interface; of a veth pair the other end goes too."""
    with IPRoute() as ip:
        for index in ip.link_lookup(ifname=name):
            ip.link("del", index=index)


def set_offloads(name: str, *, on: bool) -> None:
    """Switch checksum and segmentation offload, both ways (what `ethtool -K` does, without the program)."""
    commands = (ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for command in commands if on else reversed(commands):
            value = array.array("I", (command, on))  # struct ethtool_value
            request = struct.pack("16sP", name.encode(), value.buffer_info()[0])  # struct ifreq
            fcntl.ioctl(handle, SIOCETHTOOL, request.ljust(40, b"\0"))
