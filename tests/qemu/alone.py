"""What must be so when one guest of a pair is lost."""

from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.machine import Machine
from colo_compare.demo.qemu.monitor import SpareMonitor
from tests.qemu.client import ask_datagrams


def assert_alone(lab: Lab, survivor: Machine, dead: Machine) -> None:
    """Check that one guest serves alone, as an ordinary one, and that the other is dead."""
    lab.wait_for("end of the pair", lambda: lab.proxy.status()["mode"] == "solo")
    assert not dead.alive
    with SpareMonitor(survivor) as monitor:
        lab.wait_for("end of COLO", lambda: monitor.colo_mode == "none")
        lab.wait_for("running guest", lambda: bool(monitor.execute("query-status")["running"]))
    ticks = len(survivor.ticks())
    lab.wait_for("ticks", lambda: len(survivor.ticks()) > ticks)
    assert survivor.troubles() == []
    assert ask_datagrams(lab, [b"alone"]) == [b"alone"]
