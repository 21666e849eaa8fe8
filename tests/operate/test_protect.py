"""`protect`, asked as a command asks it."""

import json
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare import cli
from colo_compare.checkpoint.memory.options import MemoryOptions
from colo_compare.config import change_options
from colo_compare.errors import ConfigError, ControlRefused, PortClosed
from colo_compare.ports import open_port
from colo_compare.quantities import Duration, Size
from tests.daemon_rig import Rig, memory_rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return memory_rig(tmp_path)


async def test_the_lost_guests_port_is_opened_again(rig: Rig) -> None:
    async with rig.running():
        with pytest.raises(ControlRefused, match="not protected: there is a secondary, on port memory:sec"):
            await rig.call("protect")
        await rig.call("promote")
        async with open_port("memory:primary"):
            answer = await rig.call("protect")
            assert answer == {"primary": "memory:secondary", "secondary": "memory:primary", "epoch": 2}
            status = await rig.call("status")
            assert (status["protected"], status["joining"]) == (True, {})
            assert status["ports"]["primary"]["role"] == "secondary"
            assert [event["event"] for event in await rig.call("events", last=4)] == [
                "SecondaryJoined",
                "ModeChanged",
                "CheckpointRequested",
                "CheckpointCommitted",
            ]
            await rig.call("promote")
            assert (await rig.call("status"))["ports"]["primary"]["role"] == "primary"
        await wait_all_tasks_blocked()
        assert isinstance(rig.error, PortClosed)  # that was the last guest


async def test_another_port_and_other_options(rig: Rig) -> None:
    async with rig.running(), open_port("memory:third"):
        await rig.secondary.aclose()
        await wait_all_tasks_blocked()
        for params, words in (
            ({"prot": "memory:third"}, "wrong params: .*prot"),
            ({"port": "memory"}, r'not protected: port: "memory" is no port URL'),
            ({"port": "memory:client"}, "not protected: port: memory client is the client port already"),
            ({"set": {"assume": True}}, r"not protected: \$.checkpointer.assume: no such key"),
            ({"set": {"assume_deterministic": "maybe"}}, r"\$.checkpointer.assume_\w+: expected true"),
            ({"port": "packet:nowhere0"}, "not protected: packet:nowhere0: "),
        ):
            with pytest.raises(ControlRefused, match=words):
                await rig.call("protect", **params)
            assert (await rig.call("status"))["mode"] == "solo"
        answer = await rig.call("protect", port="memory:third", set={"assume_deterministic": "true"})
        assert answer["secondary"] == "memory:third"
        assert (await rig.call("status"))["ports"]["secondary"]["url"] == "memory:third"


async def test_the_command(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(*words: str) -> int:
        argv = ["protect", "--socket", rig.config.control.socket, *words]
        return await trio.to_thread.run_sync(cli.main, argv)

    async with rig.running(), open_port("memory:third"), open_port("memory:fourth"):
        await rig.call("promote")
        assert await run("--port", "memory:third", "--set", "assume_deterministic=true") == cli.OK
        assert capsys.readouterr().out == (
            "protected: the guest on port memory:secondary has the one on port memory:third "
            "as its secondary, epoch 2\n"
        )
        assert await run() == cli.NEGATIVE
        assert "not protected: there is a secondary" in capsys.readouterr().err
        assert await run("--set", "nothing") == cli.USAGE
        assert '"nothing" sets nothing: write KEY=VALUE' in capsys.readouterr().err
        await rig.call("promote")
        assert await run("--port", "memory:fourth", "--json") == cli.OK
        assert json.loads(capsys.readouterr().out)["secondary"] == "memory:fourth"


def test_options_are_changed_as_the_environment_writes_them() -> None:
    before = MemoryOptions(primary="/a", secondary="unix:/b", presend_rate=Size(4096))
    after = change_options(before, {"secondary": "tcp:host:1", "channels": "4", "timeout": "250ms"})
    assert after == MemoryOptions(
        primary="/a", secondary="tcp:host:1", presend_rate=Size(4096), channels=4, timeout=Duration(0.25)
    )
    assert change_options(before, {"channels": 2, "page_checksums": False}).channels == 2
    with pytest.raises(ConfigError, match=r"\$\.checkpointer\.channels: expected an integer >= 1"):
        change_options(before, {"channels": "0"})
