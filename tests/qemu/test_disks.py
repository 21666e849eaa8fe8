"""What a guest writes to its disk survives its death, and what only the secondary wrote does not count."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.machine import Machine
from colo_compare.demo.qemu.monitor import SpareMonitor
from tests.qemu.alone import assert_alone
from tests.qemu.client import DISK, Connection
from tests.qemu.disk_lab import WRITTEN, DiskLab

BLOCK = 4096


class AlikeDiskLab(DiskLab):
    """A lab whose images are the same from the start."""

    copied_first = False


def shut_down(machine: Machine) -> None:
    """Let QEMU end in good order, so that its images are whole."""
    with SpareMonitor(machine) as monitor:
        monitor.execute("quit")
        machine.process.wait(20)


def blocks(image: Path, *numbers: int) -> list[bytes]:
    """Read the words at the beginning of blocks of an image that no QEMU has open any more."""
    raw = image.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    data = raw.read_bytes()
    return [data[number * BLOCK :][:BLOCK].rstrip(b"\0") for number in numbers]


def highest_writes(machine: Machine) -> list[int]:
    """Give how far QEMU has written into each of its files, which for a new block is farther than before."""
    with SpareMonitor(machine) as monitor:
        nodes = monitor.execute("query-blockstats", **{"query-nodes": True})
    return [node["stats"]["wr_highest_offset"] for node in nodes]


@pytest.mark.parametrize("kind", [DiskLab, AlikeDiskLab], ids=["copied", "alike"])
def test_a_disk_survives_the_primary(pair: Callable[..., Lab], kind: type[Lab]) -> None:
    lab = pair(kind)
    primary, secondary = lab.machines

    with Connection(lab, DISK) as disk:
        assert disk.line(b"PUT 1 before") == b"OK"
        lab.checkpoint()
        assert disk.line(b"PUT 2 after") == b"OK"
        assert disk.line(b"PUT 1 changed") == b"OK"
        primary.kill()
        assert disk.line(b"GET 0") == WRITTEN
        assert disk.line(b"GET 1") == b"changed"
        assert disk.line(b"GET 2") == b"after"
        assert disk.line(b"PUT 3 alone") == b"OK"
        assert disk.line(b"GET 3") == b"alone"

    assert_alone(lab, secondary, primary)
    shut_down(secondary)
    assert blocks(lab.directory / "B.qcow2", 0, 1, 2) == [WRITTEN, b"changed", b"after"]


def test_a_disk_survives_the_secondary(pair: Callable[..., Lab]) -> None:
    lab = pair(DiskLab)
    primary, secondary = lab.machines

    with Connection(lab, DISK) as disk:
        assert disk.line(b"PUT 1 before") == b"OK"
        lab.checkpoint()
        secondary.kill()
        for number in range(10, 20):
            assert disk.line(b"PUT %d alone" % number) == b"OK"
        assert disk.line(b"GET 1") == b"before"

    assert_alone(lab, primary, secondary)
    shut_down(primary)
    assert blocks(lab.directory / "A.qcow2", 1, 19) == [b"before", b"alone"]


def test_the_secondary_hangs_while_the_primary_writes(pair: Callable[..., Lab]) -> None:
    """The primary's main loop waits for the disk, and so for the secondary, when it is told to stop."""
    lab = pair(DiskLab)
    primary, secondary = lab.machines

    with Connection(lab, DISK) as disk:
        assert disk.line(b"PUT 1 before") == b"OK"
        before = highest_writes(primary)
        secondary.freeze()
        disk.socket.sendall(b"PUT 500 meanwhile\n")
        lab.wait_for("write", lambda: highest_writes(primary) != before)  # to the primary's own image
        lab.ask_for_checkpoint()
        assert disk.receive(3) == b"OK\n"
        assert disk.line(b"GET 500") == b"meanwhile"

    assert_alone(lab, primary, secondary)


@pytest.mark.parametrize("lost", [0, 1], ids=["primary", "secondary"])
def test_a_new_secondary_gets_the_disk(pair: Callable[..., Lab], lost: int) -> None:
    lab = pair(DiskLab)
    dead, survivor = lab.machines[lost], lab.machines[1 - lost]

    with Connection(lab, DISK) as disk:
        assert disk.line(b"PUT 1 before") == b"OK"
        dead.kill()
        assert disk.line(b"PUT 2 alone") == b"OK"
        new = lab.bring()
        lab.protect_again(new)
        assert disk.line(b"PUT 3 together") == b"OK"
        lab.checkpoint()
        assert disk.line(b"PUT 4 after") == b"OK"
        survivor.kill()
        words = [WRITTEN, b"before", b"alone", b"together", b"after"]
        for number, word in enumerate(words):
            assert disk.line(b"GET %d" % number) == word

    assert_alone(lab, new, survivor)
    shut_down(new)
    assert blocks(lab.directory / "C.qcow2", *range(5)) == words
