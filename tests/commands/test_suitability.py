import json
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare import cli
from colo_compare.loop import Loop
from tests.commands.shell import Shell
from tests.daemon_rig import Rig, write_config
from tests.replay.conftest import Pair

OBSERVING = 'mode = "observe"'


def captures(pair: Pair, ours: bytes, theirs: bytes) -> list[str]:
    """Record requests that the guests answer, one a second."""
    talk = pair.connection()
    for _ in range(25):
        pair.after(1.0)
        pair.pass_by(talk.client.data(b"GET / HTTP/1.1\r\n\r\n"))
        pair.pass_by(talk.primary.data(ours), talk.secondary.data(theirs))
        pair.pass_by(talk.client.ack())
    return ["suitability", "--primary", str(pair.primary()), "--secondary", str(pair.secondary())]


def test_captures_that_suit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = captures(Pair(tmp_path), b"answer", b"answer")
    assert cli.main(argv) == cli.OK
    assert capsys.readouterr().out.startswith("SUITS COLO\n  the guests said the same, in 26 frames")


def test_captures_that_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = captures(Pair(tmp_path), b"n=1", b"n=2")
    page = tmp_path / "verdict.html"
    assert cli.main([*argv, "--checkpoint-time", "200ms", "--json", "--html", str(page)]) == cli.NEGATIVE
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["version"], verdict["grade"]) == (1, "does_not")
    assert verdict["rates"]["per_thousand"] == 1000
    assert verdict["rates"]["standing_still"] == pytest.approx(0.2, rel=0.05)
    assert "✕ DOES NOT SUIT COLO" in page.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--primary", "a.pcap"], "both captures are needed"),
        (["--secondary", "a.pcap"], "both captures are needed"),
    ],
)
def test_wrong_usage(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["suitability", *options]) == cli.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--duration", "10"], '"10" is no duration'),
        (["--checkpoint-time", "0ms"], "0ms is no time at all"),
    ],
)
def test_times_that_are_none(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["suitability", *options])
    assert words in capsys.readouterr().err


def test_a_page_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = captures(Pair(tmp_path), b"answer", b"answer")
    assert cli.main([*argv, "--html", str(tmp_path / "none" / "page.html")]) == cli.USAGE
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


async def test_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ports = {side: f"memory:suitability-{side}" for side in ("client", "primary", "secondary")}
    rig = Rig(write_config(tmp_path, ports, OBSERVING))
    async with rig.running():
        shell = Shell(rig, capsys)
        text = await shell.run("suitability", "--duration", "200ms")
        assert shell.code == cli.NEGATIVE
    assert text.startswith("CANNOT BE TOLD\n  nothing came from the secondary")


async def surveyed(loop: Loop) -> None:
    """Wait until somebody watches."""
    while not loop.surveyors:
        await wait_all_tasks_blocked(0.01)


async def test_a_daemon_that_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ports = {side: f"memory:ending-{side}" for side in ("client", "primary", "secondary")}
    rig = Rig(write_config(tmp_path, ports, OBSERVING))
    async with trio.open_nursery() as nursery:
        shell = Shell(rig, capsys)
        async with rig.running():
            nursery.start_soon(shell.run, "suitability", "--duration", "1h")
            await surveyed(rig.daemon.loop)
    assert shell.code == cli.NO_DAEMON
