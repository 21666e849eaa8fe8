"""`top`: its lines, and the terminal that it takes over, a real one (a pty)."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import trio

from colo_compare import cli
from colo_compare.commands.top_view import View
from tests.commands.shell import Shell
from tests.daemon_rig import memory_rig


@pytest.fixture
async def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    rig = memory_rig(tmp_path, 'datagram_window = "1us"')
    async with rig.running():
        await rig.event("CheckpointCommitted")  # it is protected now
        yield Shell(rig, capsys)


@pytest.fixture
async def activity(shell: Shell) -> dict[str, Any]:
    """What a daemon says after some traffic."""
    rig = shell.rig
    for number in range(3):
        await rig.send(rig.primary, rig.talk.primary.datagram(b"n=%d" % number).data)
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"n=%d" % (number + 1)).data)
        await rig.event("Divergence")
    answer: dict[str, Any] = await rig.call("activity")
    return answer


def later(activity: dict[str, Any], seconds: float, frames: int) -> dict[str, Any]:
    """The same proxy after a while in which the primary has said something."""
    other = deepcopy(activity)
    status = other["status"]
    status["uptime"] += seconds
    status["ports"]["primary"]["received_frames"] += frames
    status["ports"]["primary"]["received_bytes"] += 1024 * frames
    status["counters"]["released"]["matched"] += frames
    other["hold"]["counts"][4] += frames
    other["hold"]["counts"][6] += 1
    return other


async def test_everything_has_its_place(activity: dict[str, Any]) -> None:
    view = View(colours=False)
    view.update(activity)
    view.update(later(activity, 2.0, 20000))
    lines = view.lines(80, 24, "footer")
    assert len(lines) == 24
    assert lines[-1] == "footer"
    assert all(len(line) <= 80 for line in lines)
    assert lines[0] == "PROTECTED"
    assert lines[1].startswith("mode protect, epoch 4, comparing, up ")
    assert "last checkpoint " in lines[2]
    rows = {line.split()[0]: line.split() for line in lines[3:12] if line}
    assert rows["primary"][1:3] == ["10k", "9.8"]
    assert rows["primary"][-1] == "primary"
    assert rows["released/s"][1:] == ["matched", "10k"]
    assert rows["divergences/s"][1:] == ["0;", "in", "all", "3,", "checkpoints", "4"]
    bars = [line for line in lines if "█" in line or "▁" in line]
    assert bars[0].startswith("   20000")
    assert [line.index("█") for line in bars] == [9 + 4 * 4] * 3
    assert bars[-1].index("▁") == 9 + 4 * 6
    assert any(line.startswith("    3  udp 10.0.0.2:80 - 10.0.0.1:40000") for line in lines)
    assert any(" 4 " in line and line.endswith(" payload") for line in lines)


async def test_it_fits_whatever_the_size(activity: dict[str, Any]) -> None:
    view = View(colours=True, blocks=False)
    view.update(activity)
    for width in (1, 20, 79, 200):
        for height in (1, 2, 10, 24, 60):
            lines = view.lines(width, height, "footer")
            plain = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in lines]
            assert len(lines) == height
            assert all(len(line) <= width and line.isascii() for line in plain)


async def test_what_is_wrong_is_shown(activity: dict[str, Any]) -> None:
    status = activity["status"]
    status |= {"protected": False, "why": "the secondary is lost", "draining": True}
    status["checkpointer"]["ready"] = False
    status["checkpoint"]["last"] = {}
    status["ports"]["secondary"] |= {"role": "lost", "connected": False, "held_back": True, "dropped": 7}
    status["uptime"] = 3723.0
    activity["flows"] = []
    activity["checkpoints"] = [
        {"event": "CheckpointAborted", "number": 1, "time": 1.0, "epoch": 9, "detail": "no answer"}
    ]
    view = View(colours=True)
    view.update(activity)
    lines = view.lines(80, 24)
    assert lines[0].startswith("\x1b[7mUNPROTECTED: the secondary is lost, draining")
    assert lines[1].endswith("up 1:02:03, checkpointer null not ready")
    assert lines[2].endswith("last checkpoint none")
    assert any("7  lost, held back" in line for line in lines)
    assert any(line.endswith("9 aborted: no answer") for line in lines)
    assert any(line.startswith("       none") for line in lines)


# The command


async def test_without_a_terminal_it_prints_look_by_look(shell: Shell) -> None:
    looks = (await shell.run("top", "-n", "2", "-d", "0.1")).split("\n\nPROTECTED")
    assert shell.code == cli.OK
    assert len(looks) == 2
    lines = (await shell.run("top", "-n", "2", "-d", "0.1", "--json")).splitlines()
    assert [json.loads(line)["status"]["protected"] for line in lines] == [True, True]


def test_no_daemon_leaves_the_terminal_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--socket", str(tmp_path / "no.sock")]) == cli.NO_DAEMON
    assert capsys.readouterr().out == ""


class Screen:
    """`top` on a terminal of its own, 80x24."""

    def __init__(self, socket: str) -> None:
        self.near, far = pty.openpty()
        termios.tcsetwinsize(far, (24, 80))
        self.before = termios.tcgetattr(self.near)
        program = [sys.executable, "-m", "colo_compare", "top", "-d", "0.1", "--socket", socket]
        self.process = subprocess.Popen(program, stdin=far, stdout=far, stderr=far, start_new_session=True)
        os.close(far)
        self.seen = b""

    async def wait_for(self, words: bytes) -> None:
        with trio.fail_after(20):
            while words not in self.seen:
                await trio.lowlevel.wait_readable(self.near)
                try:
                    self.seen += os.read(self.near, 65536)
                except OSError:  # EIO: the other end is closed
                    assert words in self.seen
                    return

    async def ended(self) -> int:
        """Read to the end, look at how the terminal was left, and give the exit code."""
        await self.wait_for(b"\x1b[?1049l")
        code = await trio.to_thread.run_sync(self.process.wait)
        assert self.seen.index(b"\x1b[?1049h") < self.seen.index(b"\x1b[?25h")
        assert termios.tcgetattr(self.near) == self.before
        os.close(self.near)
        return code


@pytest.mark.parametrize(
    ("end", "code"),
    [(b"q", 0), (signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 129)],
)
async def test_the_terminal_is_given_back(shell: Shell, end: bytes | signal.Signals, code: int) -> None:
    screen = Screen(shell.rig.config.control.socket)
    await screen.wait_for(b"q quits")
    assert b"PROTECTED" in screen.seen
    assert not termios.tcgetattr(screen.near)[3] & termios.ICANON
    if isinstance(end, bytes):
        os.write(screen.near, end)
    else:
        screen.process.send_signal(end)
    assert await screen.ended() == code


async def test_a_daemon_that_ends_is_told_and_waited_for(tmp_path: Path) -> None:
    rig = memory_rig(tmp_path)
    async with rig.running():
        screen = Screen(rig.config.control.socket)
        await screen.wait_for(b"q quits")
    await screen.wait_for(b"no daemon answers on")
    screen.seen = b"\x1b[?1049h"
    async with memory_rig(tmp_path).running():
        await screen.wait_for(b"q quits")
        os.write(screen.near, b"q")
        assert await screen.ended() == 0
