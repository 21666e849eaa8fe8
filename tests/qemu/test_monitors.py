"""The connection to a monitor breaks while the guest lives: it is made again, and nobody is lost."""

from collections.abc import Callable

import pytest

from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.monitor import SpareMonitor
from tests.qemu.alone import assert_alone
from tests.qemu.client import ECHO, Connection

TALK = b"are you there? " * 10
OURS = {"unix": "compat_monitor0", "tcp": "compat_monitor1"}  # QEMU's names of the monitors the proxy uses


def hang_up(monitor: SpareMonitor, kind: str) -> None:
    """Let QEMU break its connection to the proxy."""
    monitor.execute("yank", instances=[{"type": "chardev", "id": OURS[kind]}])


def wait_for_returns(lab: Lab, number: int) -> None:
    """Wait until the proxy has connected to a monitor again, so often in all."""
    lab.wait_for("new connection", lambda: lab.proxy.log.read_text().count("is there again") == number)


@pytest.mark.parametrize("side", [0, 1], ids=["primary", "secondary"])
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_monitor_hangs_up(pair: Callable[..., Lab], side: int, kind: str) -> None:
    lab = pair(tcp=kind == "tcp", checkpointer={"fence": ["/bin/false"]} if kind == "tcp" else None)

    with Connection(lab, ECHO) as connection, SpareMonitor(lab.machines[side]) as monitor:
        for number in range(1, 4):
            assert connection.ask(TALK) == TALK
            hang_up(monitor, kind)
            wait_for_returns(lab, number)
            lab.checkpoint()
        assert connection.ask(TALK) == TALK

    assert lab.proxy.status()["protected"]
    assert lab.counters()["checkpoints"]["failed"] == 0


@pytest.mark.parametrize("side", [0, 1], ids=["primary", "secondary"])
def test_a_monitor_hangs_up_in_mid_checkpoint(pair: Callable[..., Lab], side: int) -> None:
    lab = pair()
    primary, secondary = lab.machines

    with (
        Connection(lab, ECHO) as connection,
        SpareMonitor(lab.machines[side]) as monitor,
        SpareMonitor(secondary, secondary.free_qmp) as events,
    ):
        for number in range(1, 6):
            assert connection.ask(TALK) == TALK
            epoch = lab.ask_for_checkpoint()
            events.wait_for("STOP")
            hang_up(monitor, "unix")
            lab.wait_for_epoch(epoch)
            wait_for_returns(lab, number)
        assert connection.ask(TALK) == TALK
        assert lab.proxy.status()["protected"]
        primary.kill()
        assert connection.ask(TALK) == TALK

    assert_alone(lab, secondary, primary)
