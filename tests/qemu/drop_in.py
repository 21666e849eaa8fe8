"""The same lab wired as QEMU's own colo-compare object is: the filters stay, the proxy compares.

::

    client ns                 bridge           primary QEMU                     secondary QEMU
      eth0 --- veth --- client, A, B --- A --- filter-mirror ----------------> filter-redirector f1
                                               filter-redirector -> proxy <--- filter-redirector f2, rewriter
                                               filter-redirector <----'
"""

from collections.abc import Sequence
from typing import Final

from pyroute2 import IPRoute

from colo_compare.control import call
from colo_compare.demo.proxy_process import Table
from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.machine import Machine

_PLACES: Final = ("said", "said2")  # sockets
_MIRROR, _RELEASED = "127.0.0.1:9003", "127.0.0.1:9005"


class DropInLab(Lab):
    """A lab with QEMU's filters. The proxy mirrors nothing and rewrites nothing.

    filter-rewriter leaves timestamps alone. By default each guest adds a random number of its own to them, so
    after a failover the client drops what the new primary sends as too old in half of all cases (RFC 7323).
    Without those numbers (2) the timestamps differ by milliseconds only.
    """

    kernel = "sysctl.net.ipv4.tcp_timestamps=2"
    tcp = False  # whether a guest that took over listens in the namespace's loopback

    def _lay_cables(self) -> None:
        super()._lay_cables()
        self._places = {machine.name: place for machine, place in zip(self.machines, _PLACES, strict=True)}
        self.namespace.call(bridge, "client", *[machine.name for machine in self.machines])

    def _place(self, machine: Machine) -> str:
        """Give the name of the socket where the proxy hears a guest: a new one takes that of the dead one."""
        if machine.name not in self._places:
            taken = [self._places[other.name] for other in self.machines if other.alive]
            self._places[machine.name] = next(place for place in _PLACES if place not in taken)
        return self._places[machine.name]

    def objects(self, machine: Machine) -> Sequence[str]:
        """Give the filters, as docs/COLO-FT.txt of QEMU has them, without colo-compare."""
        headers = ",vnet_hdr_support=on" if self.vnet_hdr else ""
        said = self._place(machine)
        if machine is self.machines[0]:
            return [
                *self._socket("mirror"), *self._socket(said), *self._socket("released"),
                "-object", f"filter-mirror,id=m0,netdev=n0,queue=tx,outdev=mirror{headers}",
                "-object", f"filter-redirector,id=r0,netdev=n0,queue=rx,indev=released{headers}",
                "-object", f"filter-redirector,id=r1,netdev=n0,queue=rx,outdev={said}{headers}",
            ]  # fmt: skip
        host, _, port = _MIRROR.partition(":")
        mirror = f"host={host},port={port}" if self.tcp else f"path={self.directory}/mirror"
        return [
            "-chardev", f"socket,id=mirror,{mirror},reconnect=1",
            *self._socket(said),
            "-object", f"filter-redirector,id=f1,netdev=n0,queue=tx,indev=mirror{headers}",
            "-object", f"filter-redirector,id=f2,netdev=n0,queue=rx,outdev={said}{headers}",
            "-object", f"filter-rewriter,id=rew0,netdev=n0,queue=all{headers}",
        ]  # fmt: skip

    def checkpointer_options(self) -> Table:
        """Give what the backend has to know of the filters, and of those of a guest that took over."""
        return {
            "secondary_filters": ["f1", "f2"],
            "listen_mirror": f"unix:{self.directory}/mirror",
            "listen_released": f"unix:{self.directory}/released",
        }

    def bring(self) -> Machine:
        """Start another guest in the place of a dead one, on a tap of its own that is in the bridge."""
        machine = super().bring()
        self.namespace.call(join_bridge, machine.name)
        return machine

    def protect_again(
        self, machine: Machine, limit: float = 60.0, *, client: str = "", released: str = ""
    ) -> None:
        """Make it the secondary of the guest that runs alone. Raises ControlRefused, and ControlError.

        `client` and `released`: another client port, and another place where the guest is to listen for it.
        """
        changes = {"secondary": f"unix:{machine.qmp}", "migrate_uri": f"unix:{machine.migration}"}
        if self.tcp:
            changes |= {"listen_mirror": f"tcp:{_MIRROR}", "listen_released": f"tcp:{_RELEASED}"}
            client = self._port(f"stream+tcp://{_RELEASED}")
        if released:
            changes["listen_released"] = released
        params = {"set": changes, "client": client, "timeout": limit}
        call(self.directory / "control.sock", "protect", params, timeout=limit + 30.0)

    def _socket(self, name: str) -> Sequence[str]:
        return "-chardev", f"socket,id={name},path={self.directory}/{name},server=on,wait=off"

    def proxy_tables(self) -> dict[str, Table]:
        """Give how the proxy is attached: where colo-compare has primary_in, secondary_in and outdev."""
        primary, secondary = self.machines[-2:]
        ports = {"client": "released", "primary": self._place(primary), "secondary": self._place(secondary)}
        return {
            "proxy": {"mode": "protect", "mirror": False, "rewrite": False},
            "ports": {
                side: self._port(f"stream+unix://{self.directory}/{name}") for side, name in ports.items()
            },
        }

    def _port(self, place: str) -> str:
        headers = "vnet_hdr=yes" if self.vnet_hdr else "vnet_hdr=no"
        return f"{place}?{headers}&reconnect=100ms"


def bridge(*names: str) -> None:
    """Bridge interfaces of the namespace of this thread."""
    with IPRoute() as ip:
        ip.link("add", ifname="bridge", kind="bridge")
        (index,) = ip.link_lookup(ifname="bridge")
        ip.link("set", index=index, state="up")
    join_bridge(*names)


def join_bridge(*names: str) -> None:
    """Let interfaces of the namespace of this thread join the bridge."""
    with IPRoute() as ip:
        (index,) = ip.link_lookup(ifname="bridge")
        for name in names:
            (port,) = ip.link_lookup(ifname=name)
            ip.link("set", index=port, master=index)
