"""`capture` and the extcap, against a daemon between memory ports."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from colo_compare import cli
from colo_compare.commands import capture, extcap
from colo_compare.errors import ControlError
from colo_compare.ports.pcap import read_capture
from tests.commands.shell import Shell
from tests.daemon_rig import memory_rig

PROGRAM = [
    sys.executable,
    "-c",
    "import sys; from colo_compare.commands.extcap import main; sys.exit(main())",
]


@pytest.fixture
async def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    rig = memory_rig(tmp_path)
    async with rig.running():
        await rig.event("CheckpointCommitted")  # it is protected now
        yield Shell(rig, capsys)


async def say(shell: Shell, payload: bytes = b"answer") -> None:
    rig = shell.rig
    await rig.send(rig.primary, rig.talk.primary.datagram(payload).data)
    await rig.send(rig.secondary, rig.talk.secondary.datagram(payload).data)


def contents(path: Path) -> list[tuple[str, bytes]]:
    with read_capture(path) as frames:
        return [(frame.interface, frame.data[42:]) for frame in frames]


async def test_a_capture_of_what_is_kept(shell: Shell, tmp_path: Path) -> None:
    shell.rig.daemon.loop.frames.begin()
    await say(shell)
    path = tmp_path / "x.pcapng"
    assert await shell.run("capture", "-w", str(path), "--seconds", "0") == f"3 frames in {path}\n"
    assert shell.code == cli.OK
    assert contents(path) == [(side, b"answer") for side in ("primary", "secondary", "client")]
    assert os.stat(path).st_mode & 0o777 == 0o600  # noqa: PTH116 - of a path, in an async function
    answer = await shell.run("capture", "-w", str(path), "--seconds", "0", "--new", "--json")
    assert json.loads(answer) == {"file": str(path), "frames": 0, "missed": 0}
    assert contents(path) == []


async def test_frames_that_are_missing_are_told(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [{"pcapng": "", "frames": 2, "missed": 0}, {"pcapng": "", "frames": 0, "missed": 3}]
    monkeypatch.setattr(capture, "follow", lambda *_: pieces)
    path = tmp_path / "x.pcapng"
    assert await shell.run("capture", "-w", str(path)) == f"2 frames in {path}, 3 are missing\n"
    assert shell.code == cli.NEGATIVE


async def test_a_daemon_that_ends_leaves_what_came_before(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(*_: object) -> Iterator[dict[str, Any]]:
        yield {"pcapng": "", "frames": 2, "missed": 0}
        raise ControlError("the daemon has ended")

    monkeypatch.setattr(capture, "follow", follow)
    assert await shell.run("capture", "-w", str(tmp_path / "x")) == f"2 frames in {tmp_path}/x\n"
    assert shell.code == cli.NO_DAEMON


async def test_a_place_that_cannot_be_written(shell: Shell, tmp_path: Path) -> None:
    text = await shell.run("capture", "-w", str(tmp_path / "no" / "x.pcapng"), "--seconds", "0")
    assert text.endswith("x.pcapng: cannot be written: No such file or directory\n")
    assert shell.code == cli.USAGE
    text = await shell.run("capture", "-w", "/dev/full", "--seconds", "0")
    assert text == "colo-compare: the capture cannot be written: No space left on device\n"
    assert await shell.run("capture", "-w", str(tmp_path / "x"), "--seconds", "-1") == (
        "colo-compare: seconds must be 0 or more, not -1\n"
    )


async def test_into_a_pipe(shell: Shell) -> None:
    shell.rig.daemon.loop.frames.begin()
    await say(shell)
    socket = shell.rig.config.control.socket
    done = await trio.run_process(
        [sys.executable, "-m", "colo_compare", "capture", "-s", socket, "-w", "-", "--seconds", "0"],
        capture_stdout=True,
    )
    assert done.stdout.startswith(b"\x0a\x0d\x0d\x0a")
    assert done.stdout.count(b"answer") == 3


# Wireshark's protocol


def test_what_there_is_to_capture(capsys: pytest.CaptureFixture[str]) -> None:
    assert extcap.main(["--extcap-interfaces", "--extcap-version=4.0"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("extcap {version=")
    assert second == "interface {value=colo-compare}{display=COLO proxy: client, primary, secondary}"
    assert extcap.main(["--extcap-dlts", "--extcap-interface", "colo-compare"]) == 0
    assert capsys.readouterr().out == "dlt {number=1}{name=EN10MB}{display=Ethernet}\n"
    assert extcap.main(["--extcap-config", "--extcap-interface", "colo-compare", "--new-in-5.0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("}{")[1] for line in lines] == ["call=--socket", "call=--new"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "nothing is asked for"),
        (["--extcap-dlts", "--extcap-interface", "eth0"], 'no interface "eth0": there is only colo-compare'),
        (["--capture"], "--capture needs --fifo PATH"),
        (["--capture", "--fifo", "/no/such"], "/no/such: cannot be written: No such file or directory"),
        (["--capture", "--extcap-capture-filter", "tcp"], "there is no capture filter here"),
    ],
)
def test_what_it_cannot_do(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert extcap.main(argv) == cli.NEGATIVE
    assert capsys.readouterr().err.startswith(f"colo-compare-extcap: {words}")


async def test_a_capture_into_a_fifo_ends_when_nobody_reads_it(shell: Shell, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    shell.rig.daemon.loop.frames.begin()
    await say(shell)
    argv = ["--capture", "--extcap-interface", "colo-compare", "--fifo", str(fifo)]
    argv += ["--socket", shell.rig.config.control.socket]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, [*PROGRAM, *argv])
        received = b""
        async with await trio.open_file(fifo, "rb", buffering=0) as reader:
            while received.count(b"answer") < 3:
                received += await reader.read(65536)
        await say(shell, b"unread")
        with trio.fail_after(10):
            assert await process.wait() == 0


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
async def test_tshark_finds_the_interface_and_captures_from_it(shell: Shell, tmp_path: Path) -> None:
    for place in (".config/wireshark/extcap", ".local/lib/wireshark/extcap"):  # before and since 4.2
        program = tmp_path / place / "colo-compare-extcap"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m colo_compare extcap "$@"\n')
        program.chmod(0o755)
    environ = {"COLO_COMPARE_CONTROL__SOCKET": shell.rig.config.control.socket, "HOME": str(tmp_path)}
    quiet: Any = {
        "env": {**os.environ, **environ},
        "capture_stdout": True,
        "stderr": subprocess.DEVNULL,
    }
    shell.rig.daemon.loop.frames.begin()
    await say(shell)
    listed = await trio.run_process(["tshark", "-D"], **quiet)
    assert b"colo-compare (COLO proxy: client, primary, secondary)" in listed.stdout
    with trio.fail_after(30):
        done = await trio.run_process(
            ["tshark", "-n", "-i", "colo-compare", "-c", "3", "-T", "fields", "-e", "frame.interface_name"],
            **quiet,
        )
    assert done.stdout.split() == [b"primary", b"secondary", b"client"]
