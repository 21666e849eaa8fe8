"""sd_notify(3), with a socket in systemd's place."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from colo_compare.cli import USAGE
from colo_compare.core.sides import SECONDARY
from colo_compare.operate.service_manager import ServiceManager
from tests.daemon_rig import Rig as DaemonRig
from tests.daemon_rig import memory_rig
from tests.rig import Rig

UNIT = Path(__file__).parents[2] / "colo_compare" / "systemd" / "colo-compare@.service"


class Systemd:
    """The end that listens."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)

    def heard(self) -> list[list[str]]:
        """The datagrams since the last look, each as its assignments."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return datagrams

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    manager = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@colo-compare-{os.getpid()}")
    yield manager
    manager.close()


async def test_the_life_of_a_daemon(systemd: Systemd, mock_clock: MockClock, nursery: trio.Nursery) -> None:
    rig = Rig(mock_clock)
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.address})
    async with rig.running():
        nursery.start_soon(manager.watch, rig.loop)
        await rig.settle()
        assert systemd.heard() == [["READY=1"], ["STATUS=PROTECTED, epoch 1"]]
        await rig.jump(5.0)
        assert systemd.heard() == []
        await rig.backend.handlers.guest_lost(SECONDARY, "dead")
        await rig.settle()
        await rig.jump(1.0)
        assert systemd.heard() == [["STATUS=UNPROTECTED: the secondary is lost, one guest runs alone"]]
        rig.loop.draining = True
        rig.loop.stopping = True
        await rig.jump(1.0)
        ((status, stopping),) = systemd.heard()
        assert status.endswith(", draining, stopping")
        assert stopping == "STOPPING=1"
        await rig.jump(1.0)
        assert systemd.heard() == []
        nursery.cancel_scope.cancel()


async def test_the_watchdog_hears_twice_in_each_of_its_periods(
    systemd: Systemd, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    rig = Rig(mock_clock)
    manager = ServiceManager(
        {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "77"}, pid=lambda: 77
    )
    async with rig.running():
        nursery.start_soon(manager.watch, rig.loop)
        await rig.settle()
        assert ["STATUS=PROTECTED, epoch 1", "WATCHDOG=1"] in systemd.heard()
        for _ in range(4):
            await rig.jump(0.25)
            assert systemd.heard() == [["WATCHDOG=1"]]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_the_watchdog_may_be_meant_for_another(environ: dict[str, str], seconds: float) -> None:
    assert ServiceManager(environ, pid=lambda: 7).watchdog == seconds


async def test_without_a_manager_nobody_is_told(mock_clock: MockClock, tmp_path: Path) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await ServiceManager({}).watch(rig.loop)  # returns at once
    ServiceManager({"NOTIFY_SOCKET": "vsock:1:2"}).tell("READY=1")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")


def test_reading_the_configuration_again(systemd: Systemd) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.address}, monotonic=lambda: 1.5)
    manager.reloading()
    manager.reloaded()
    assert systemd.heard() == [["RELOADING=1", "MONOTONIC_USEC=1500000"], ["READY=1"]]


async def test_the_daemon_does_all_of_it(systemd: Systemd, tmp_path: Path) -> None:
    path = memory_rig(tmp_path).path
    rig = DaemonRig(path, {"NOTIFY_SOCKET": systemd.address})
    async with rig.running():
        await rig.call("status")
        heard = systemd.heard()
        assert heard[0] == ["STATUS=opening the ports"]
        assert ["READY=1"] in heard
        assert heard[-1][0].startswith(("STATUS=PROTECTED", "STATUS=UNPROTECTED: no checkpoint"))


# The unit file


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit_and_calls_it_safe(tmp_path: Path) -> None:
    unit = tmp_path / "colo-compare@web.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/colo-compare", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert [line for line in verified.stderr.splitlines() if unit.name in line] == []
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout + rated.stderr


def test_the_unit_says_what_the_daemon_does() -> None:
    text = UNIT.read_text()
    restart = f"RestartPreventExitStatus={USAGE}"
    for line in ("Type=notify", "WatchdogSec=10s", "ExecReload=/bin/kill -HUP $MAINPID", restart):
        assert f"\n{line}\n" in text
