"""The same lab, with a disk for each guest, replicated by QEMU's block layer.

::

    primary                                          secondary
    quorum --- A.qcow2                               quorum --- replication --- active.qcow2
           `-- replication --- NBD ---------------->                                `-- hidden.qcow2
                                         B.qcow2 <--------------------------------------'
"""

import subprocess
from collections.abc import Sequence
from typing import ClassVar

from colo_compare.demo.proxy_process import Table
from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.machine import Machine

SIZE = 4 << 20  # bytes
WRITTEN = b"before-all"  # on the primary's disk before it boots


class DiskLab(Lab):
    """A lab whose guests have /dev/vda. It boots for itself: the states that are kept have no disk."""

    boots_alone: ClassVar[bool] = True
    copied_first: ClassVar[bool] = True  # by the proxy; else both images are made alike

    def objects(self, machine: Machine) -> Sequence[str]:
        """Give the disks, as docs/block-replication.txt of QEMU has them."""
        primary = machine is self.machines[0]
        for name in () if primary else ("active", "hidden"):
            self._qemu_img("create", "-q", "-f", "qcow2", f"{machine.name}.{name}.qcow2", str(SIZE))
        if primary or not self.copied_first:
            (self.directory / "written").write_bytes(WRITTEN.ljust(SIZE, b"\0"))
            self._qemu_img("convert", "-f", "raw", "-O", "qcow2", "written", f"{machine.name}.qcow2")
        else:
            self._qemu_img("create", "-q", "-f", "qcow2", f"{machine.name}.qcow2", str(SIZE))
        image = f"{self.directory}/{machine.name}.qcow2"
        quorum = "if=none,id=disk0,driver=quorum,read-pattern=fifo,vote-threshold=1"
        device = ["-device", "virtio-blk-pci,drive=disk0"]
        if primary:
            child = f"children.0.driver=qcow2,children.0.file.driver=file,children.0.file.filename={image}"
            return ["-drive", f"{quorum},{child}", *device]
        kept = (
            "if=none,id=kept0,driver=replication,mode=secondary,top-id=disk0,"
            f"file.driver=qcow2,file.file.filename={self.directory}/{machine.name}.active.qcow2,"
            f"file.backing.driver=qcow2,file.backing.file.filename={self.directory}/{machine.name}.hidden.qcow2,"
            "file.backing.backing=image0"
        )
        return [
            "-drive", f"if=none,id=image0,driver=qcow2,file.driver=file,file.filename={image}",
            "-drive", kept,
            "-drive", f"{quorum},children.0=kept0",
            *device,
        ]  # fmt: skip

    def _qemu_img(self, *arguments: str) -> None:
        subprocess.run(["qemu-img", *arguments], check=True, cwd=self.directory)

    def checkpointer_options(self) -> Table:
        """Give where the secondary offers its image."""
        return {"nbd": f"unix:{self.directory}/nbd", "copy_disks": self.copied_first}

    def proxy_tables(self) -> dict[str, Table]:
        """Give what the backend has to know of the disk."""
        return super().proxy_tables() | {"checkpointer.disks": {"disk0": "image0"}}
