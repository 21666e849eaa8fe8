"""The same lab wired as QEMU's own colo-compare object is: the filters stay, the proxy compares.

::

    client ns                 bridge           primary QEMU                     secondary QEMU
      eth0 --- veth --- client, A, B --- A --- filter-mirror ----------------> filter-redirector f1
                                               filter-redirector -> proxy <--- filter-redirector f2, rewriter
                                               filter-redirector <----'
"""

from collections.abc import Sequence

from pyroute2 import IPRoute

from colo_compare.demo.proxy_process import Table
from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.machine import Machine


class DropInLab(Lab):
    """A lab with QEMU's filters. The proxy mirrors nothing and rewrites nothing.

    filter-rewriter leaves timestamps alone. By default each guest adds a random number of its own to them, so
    after a failover the client drops what the new primary sends as too old in half of all cases (RFC 7323).
    Without those numbers (2) the timestamps differ by milliseconds only.
    """

    kernel = "sysctl.net.ipv4.tcp_timestamps=2"

    def _lay_cables(self) -> None:
        super()._lay_cables()
        self.namespace.call(bridge, "client", *[machine.name for machine in self.machines])

    def objects(self, machine: Machine) -> Sequence[str]:
        """Give the filters, as docs/COLO-FT.txt of QEMU has them, without colo-compare."""
        headers = ",vnet_hdr_support=on" if self.vnet_hdr else ""
        if machine is self.machines[0]:
            return [
                *self._socket("mirror"), *self._socket("said"), *self._socket("released"),
                "-object", f"filter-mirror,id=m0,netdev=n0,queue=tx,outdev=mirror{headers}",
                "-object", f"filter-redirector,id=r0,netdev=n0,queue=rx,indev=released{headers}",
                "-object", f"filter-redirector,id=r1,netdev=n0,queue=rx,outdev=said{headers}",
            ]  # fmt: skip
        return [
            "-chardev", f"socket,id=mirror,path={self.directory}/mirror,reconnect=1",
            *self._socket("said2"),
            "-object", f"filter-redirector,id=f1,netdev=n0,queue=tx,indev=mirror{headers}",
            "-object", f"filter-redirector,id=f2,netdev=n0,queue=rx,outdev=said2{headers}",
            "-object", f"filter-rewriter,id=rew0,netdev=n0,queue=all{headers}",
        ]  # fmt: skip

    def checkpointer_options(self) -> Table:
        """Give what the backend has to know: the filters that keep the secondary from its own tap."""
        return {"secondary_filters": ["f1", "f2"]}

    def _socket(self, name: str) -> Sequence[str]:
        return "-chardev", f"socket,id={name},path={self.directory}/{name},server=on,wait=off"

    def proxy_tables(self) -> dict[str, Table]:
        """Give how the proxy is attached: where colo-compare has primary_in, secondary_in and outdev."""
        headers = "vnet_hdr=yes" if self.vnet_hdr else "vnet_hdr=no"
        ports = {"client": "released", "primary": "said", "secondary": "said2"}
        return {
            "proxy": {"mode": "protect", "mirror": False, "rewrite": False},
            "ports": {
                side: f"stream+unix://{self.directory}/{name}?{headers}&reconnect=100ms"
                for side, name in ports.items()
            },
        }


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
