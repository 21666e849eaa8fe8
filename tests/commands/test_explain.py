"""`explain`, against a daemon between memory ports."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from colo_compare import cli
from tests.commands.shell import Shell
from tests.daemon_rig import memory_rig


@pytest.fixture
async def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    rig = memory_rig(tmp_path, 'datagram_window = "1us"')
    async with rig.running():
        await rig.event("CheckpointCommitted")  # it is protected now
        yield Shell(rig, capsys)


async def diverge(shell: Shell, ours: bytes, theirs: bytes) -> None:
    rig = shell.rig
    await rig.send(rig.primary, rig.talk.primary.datagram(ours).data)
    await rig.send(rig.secondary, rig.talk.secondary.datagram(theirs).data)
    await rig.event("Divergence")


async def test_nothing_has_diverged(shell: Shell) -> None:
    assert await shell.run("explain") == "colo-compare: nothing has diverged since the start\n"
    assert shell.code == cli.NEGATIVE
    assert await shell.run("explain", "--list") == "nothing has diverged since the start\n"
    assert await shell.run("explain", "--patterns") == "nothing has diverged since the start\n"
    assert shell.code == cli.OK


async def test_a_divergence_in_words(shell: Shell) -> None:
    await diverge(shell, b"uptime=1234567; ok", b"uptime=1234568; ok")
    lines = (await shell.run("explain")).splitlines()
    assert shell.code == cli.OK
    assert lines[0] == "divergence 1: number in uptime"
    text = "\n".join(lines)
    assert "flow        udp 10.0.0.2:80 - 10.0.0.1:40000" in lines
    assert "where       payload, 13 bytes from the start of what the guest said" in lines
    assert "cause       a number in text" in lines
    assert "timing      the primary's frame came " in text
    assert "checkpoint  epoch 2 was committed " in text
    assert "pattern     the only one like this from udp 10.0.0.2:80 since " in text
    assert "00000008  32 33 34 35 36 37 3b 20 234567;  ! 32 33 34 35 36 38 3b 20 234568;" in lines
    assert any(line.startswith("  UDP.chksum") and line.endswith("(not compared)") for line in lines)


async def test_lists_and_json(shell: Shell) -> None:
    for number in range(3):
        await diverge(shell, b"n=%d" % number, b"n=%d" % (number + 1))
    header, *rows = (await shell.run("explain", "--list")).splitlines()
    assert header.split() == ["id", "when", "reason", "cause", "flow"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    _, pattern = (await shell.run("explain", "--patterns")).splitlines()
    assert pattern.split()[0] == "3"
    assert pattern.endswith("payload      number in n              udp 10.0.0.2:80")
    assert "3 like this" in await shell.run("explain", "2")
    record = json.loads(await shell.run("explain", "2", "--json"))
    assert (record["id"], record["cause"]["kind"], record["pattern"]["ids"]) == (2, "number", [1, 2, 3])
    assert [one["id"] for one in json.loads(await shell.run("explain", "--list", "--json"))] == [1, 2, 3]
    assert json.loads(await shell.run("explain", "--patterns", "--json"))[0]["count"] == 3


async def test_without_a_byte_of_what_was_said(shell: Shell) -> None:
    await diverge(shell, b"pin 1234 is secret", b"pin 5678 is secret")
    text = await shell.run("explain", "--no-bytes")
    assert "31 32 33 34" not in text
    assert "fields" not in text
    assert json.loads(await shell.run("explain", "--no-bytes", "--json"))["primary"]["context"] == ""


async def test_one_that_is_not_known(shell: Shell) -> None:
    await diverge(shell, b"n=1", b"n=2")
    assert "divergence 7 is not known: of 1, the last 256 are kept" in await shell.run("explain", "7")
    assert shell.code == cli.NEGATIVE


async def test_without_scapy_it_says_how_to_get_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    await diverge(shell, b"n=1", b"n=2")
    monkeypatch.setitem(sys.modules, "scapy", None)
    assert "fields      not named: pip install 'colo-compare[explain]'" in await shell.run("explain")
