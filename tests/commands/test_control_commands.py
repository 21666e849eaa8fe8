"""The commands that ask a running proxy and print what it says."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from colo_compare import cli
from tests.commands.shell import Shell
from tests.daemon_rig import memory_rig


@pytest.fixture
async def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    rig = memory_rig(tmp_path)
    async with rig.running():
        await rig.event("CheckpointCommitted")  # it is protected now
        yield Shell(rig, capsys)


async def test_status(shell: Shell) -> None:
    assert (await shell.run("status")).startswith("PROTECTED\n")
    assert shell.code == cli.OK
    assert json.loads(await shell.run("status", "--json"))["protected"] is True


async def test_set_changes_a_key(shell: Shell) -> None:
    assert await shell.run("set", "compare_timeout", "500ms") == "compare_timeout: 3s -> 500ms\n"
    assert json.loads(await shell.run("set", "--json", "announce", "false")) == {
        "key": "announce",
        "before": True,
        "now": False,
    }
    assert await shell.run("set", "mode", "observe") == "mode: protect -> observe\n"
    assert shell.code == cli.OK


async def test_set_shows_one_or_all(shell: Shell) -> None:
    assert await shell.run("set", "compare_timeout") == "compare_timeout  3s\n"
    lines = (await shell.run("set")).splitlines()
    assert "mode                   protect" in lines
    assert "announce               true" in lines
    assert json.loads(await shell.run("set", "--json"))["max_held_bytes"] == "64MiB"
    assert shell.code == cli.OK


@pytest.mark.parametrize("argv", [("compare_timeout", "soon"), ("tempo",), ("mode", "solo")])
async def test_set_says_what_is_wrong(shell: Shell, argv: tuple[str, ...]) -> None:
    assert (await shell.run("set", *argv)).startswith("colo-compare: not set: ")
    assert shell.code == cli.NEGATIVE


async def test_drain_and_its_end(shell: Shell) -> None:
    assert (await shell.run("drain")).startswith("drained: nothing is held")
    assert shell.code == cli.OK
    assert (await shell.run("status")).startswith("PROTECTED, draining\n")
    assert (await shell.run("drain", "--end")).startswith("serving: ")
    assert shell.code == cli.OK


async def test_a_drain_that_does_not_come_to_its_end(shell: Shell) -> None:
    await shell.rig.send(shell.rig.primary, shell.rig.talk.primary.datagram(b"held").data)
    assert (await shell.run("drain", "--timeout", "0")).startswith("not drained: 1 frames are held, 0 wait")
    assert shell.code == cli.NEGATIVE
    assert json.loads(await shell.run("drain", "--timeout", "0", "--json"))["held"] == 1


async def test_events(shell: Shell) -> None:
    requested, committed = (await shell.run("events", "-n", "2")).splitlines()
    assert "CheckpointRequested epoch=1 reasons=startup" in requested
    assert committed[8] == "."
    assert "CheckpointCommitted epoch=1 reasons=startup request_to_commit=" in committed
    (line,) = (await shell.run("events", "-n", "1", "--json")).splitlines()
    assert json.loads(line)["event"] == "CheckpointCommitted"


async def test_checkpoint_and_promote(shell: Shell) -> None:
    assert json.loads(await shell.run("checkpoint", "--json")) == {"epoch": 2}
    assert json.loads(await shell.run("promote", "--json")) == {"primary": "memory:secondary"}
    assert (await shell.run("promote")).startswith("colo-compare: not promoted: ")
    assert shell.code == cli.NEGATIVE
