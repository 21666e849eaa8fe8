"""The examples of docs/checkpointers.md are run."""

import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from colo_compare.checkpoint.command import (
    SECONDARY_INTACT,
    SECONDARY_SPOILT,
    CommandCheckpointer,
    CommandOptions,
)
from colo_compare.checkpoint.contract import Checkpointer, NewSecondary
from colo_compare.testing.checkpointer_contract import check_checkpointer

PAGE = (Path(__file__).parents[2] / "docs" / "checkpointers.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def primary() -> Iterator[int]:
    """Give the number of a process that can be stopped."""
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        yield process.pid
        process.kill()


async def test_the_example_backend_fulfils_the_contract(tmp_path: Path, primary: int) -> None:
    example: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "docs/checkpointers.md", "exec"), example)
    backend: Callable[[Any], Checkpointer] = example["FileCheckpointer"]
    written = tomllib.loads(blocks("toml")[1])["checkpointer"]
    assert written.pop("backend") == "file"
    state, copy = tmp_path / "state", tmp_path / "copy"
    state.write_text("the whole guest")

    def make(**paths: str) -> Checkpointer:
        options = {**written, "pid": primary, "state": str(state), "copy": str(copy), **paths}
        return backend(msgspec.convert(options, example["FileOptions"]))

    await check_checkpointer(
        make,
        make_failing=lambda: make(copy=str(tmp_path / "no" / "such" / "place")),
        make_unable=lambda: make(state=str(tmp_path / "none")),
    )
    assert copy.read_text() == "the whole guest"
    assert names(tmp_path) == ["copy", "state"]


async def test_the_example_script_fulfils_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guestctl = tmp_path / "guestctl"
    guestctl.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls; [ ! -e {tmp_path}/broken ] || [ "$1" != copy ]\n'
    )
    guestctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script = next(block for block in blocks("sh") if "guestctl" in block)
    options = CommandOptions(checkpoint=("/bin/sh", "-c", script), reports_pause=True)
    await check_checkpointer(lambda: CommandCheckpointer(options))
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[:3] == ["pause primary", "copy primary secondary", "resume primary"]
    (tmp_path / "broken").touch()
    await check_checkpointer(
        lambda: CommandCheckpointer(CommandOptions(checkpoint=("/bin/true",))),
        make_failing=lambda: CommandCheckpointer(options),
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-3:] == ["pause primary", "copy primary secondary", "resume primary"]


async def test_the_table_of_what_a_program_is_told_is_complete(tmp_path: Path) -> None:
    told = dict(re.findall(r"^\| `(COLO_\w+)` \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert list(told) == [
        "COLO_EVENT", "COLO_EPOCH", "COLO_REASONS", "COLO_FLOW", "COLO_SIDE", "COLO_URL",
        "COLO_PRIMARY_PORT", "COLO_SECONDARY_PORT",
    ]  # fmt: skip
    note = ("/bin/sh", "-c", f"read line; echo $line > {tmp_path}/$COLO_EVENT; env >> {tmp_path}/$COLO_EVENT")
    programs = CommandOptions(checkpoint=note, promote=note, abandon=note, fence=note, protect=note)

    async def another(backend: Checkpointer) -> NewSecondary:
        await trio.lowlevel.checkpoint()
        return NewSecondary("primary", "packet:new", programs)

    await check_checkpointer(lambda: CommandCheckpointer(programs), new_secondary=another)
    for event in ("checkpoint", "promote", "abandon", "fence", "protect"):
        line, *environment = (tmp_path / event).read_text().splitlines()
        names = {variable.partition("=")[0] for variable in environment}
        assert set(json.loads(line)) == {key for variable, key in told.items() if variable in names}


def test_the_documented_statuses_are_the_real_ones() -> None:
    statuses = re.findall(r"^\| (\d+)[^|]*\| failed, and the secondary has (\w+)", PAGE, re.MULTILINE)
    assert statuses == [(str(SECONDARY_SPOILT), "no"), (str(SECONDARY_INTACT), "its")]
