"""``python -m colo_compare.guest``, on a port that leads nowhere."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "colo_compare.guest", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_commands_are_answered_until_stdin_ends(tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.touch()  # left behind by another one
    commands = (
        b'{"status": true}\n{"call": ["10.77.0.1", 80, 50000, 1]}\n{"call": ["10.77.0.1", 80, 50000, 1]}\n'
        b'{"announce": true}\nnonsense\n{"call": 5}\n'
    )
    with start("--port=memory:x", "--commands", f"--control={control}") as guest:
        output, errors = guest.communicate(commands, timeout=60)
    ready, *answers = output.splitlines()
    assert (guest.returncode, ready, errors) == (0, b"ready", b"")
    status, called, refused, announced, nonsense, wrong = (json.loads(answer) for answer in answers)
    assert (status["calls"], called["calls"], announced["frames_out"]) == (0, 1, 3)
    assert "port 50000 is in use" in refused["error"]
    assert set(nonsense) == set(wrong) == {"error"}
    assert not control.exists()


def test_a_signal_ends_it(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    for _ in range(2):  # the second one finds the first one's memory
        with start("--port=memory:x", f"--memory={memory}", "--connections=2") as guest:
            assert guest.stdout is not None
            assert guest.stdout.readline() == b"ready\n"
            guest.send_signal(signal.SIGTERM)
            assert guest.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port=packet:nowhere0"], b"nowhere0"),
        (["--port=memory:x", "--memory=/nowhere/at/all"], b"/nowhere/at/all"),
        (["--port=memory:x", "--mtu=100"], b"mtu 100"),
        (["--port=memory:x", "--control=/nowhere/at/all"], b"No such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], complaint: bytes) -> None:
    with start(*arguments) as guest:
        output, errors = guest.communicate(b"", timeout=60)
    assert (guest.returncode, output) == (1, b"")
    assert complaint in errors
    assert errors.count(b"\n") == 1
