"""The control methods, asked as a command asks them."""

import logging
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from colo_compare.control import follow
from colo_compare.errors import ControlRefused
from colo_compare.operate.methods import ControlMethods
from tests.daemon_rig import Rig, memory_rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return memory_rig(tmp_path)


async def test_the_version_names_the_methods(rig: Rig) -> None:
    async with rig.running():
        answer = await rig.call("version")
    assert answer["api"] == 1
    assert {"status", "set", "events"} <= set(answer["methods"])


@pytest.mark.parametrize("method", ["status", "version", "checkpoint", "promote"])
async def test_params_that_a_method_does_not_have_are_refused(rig: Rig, method: str) -> None:
    async with rig.running():
        with pytest.raises(ControlRefused, match="wrong params: Object contains unknown field `side`"):
            await rig.call(method, side="primary")


# set


async def test_a_setting_is_in_force_at_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async with rig.running():
        answer = await rig.call("set", key="compare_timeout", value="500ms")
        assert answer == {"key": "compare_timeout", "before": "3s", "now": "500ms"}
        assert rig.daemon.loop.proxy.settings.compare_timeout == 0.5
        assert (await rig.call("set", key="max_held_frames", value="10"))["now"] == 10
        assert (await rig.call("set", key="max_interval", value="off"))["now"] == "off"
        assert rig.daemon.loop.proxy.settings.max_held_frames == 10
        assert rig.daemon.loop.proxy.settings.compare_timeout == 0.5
    assert "compare_timeout is 500ms now, by an operator's decision" in caplog.text


async def test_the_log_can_be_made_to_say_more(rig: Rig) -> None:
    logger = logging.getLogger("colo_compare")
    before = logger.level
    try:
        async with rig.running():
            await rig.call("set", key="log.level", value="debug")
            assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("compare_timeout", "soon", r"not set: \$\.proxy\.compare_timeout: \"soon\" is no duration"),
        ("compare_timeout", "0s", r"not set: \$\.proxy\.compare_timeout: must be longer than 0s"),
        ("max_flows", "many", r"not set: \$\.proxy\.max_flows: expected an integer"),
        ("max_half_open", "2000000", r"is more than max_flows"),
        ("mirror", "false", "not set: mirror: is fixed while the proxy runs"),
        (
            "compare_timout",
            "1s",
            'not set: compare_timout: is no key that .*; did you mean "compare_timeout"',
        ),
        ("level", "debug", r"not set: level: .* it belongs to \[log\]"),
        ("mode", "solo", 'not set: mode: "solo" is not one of protect, observe, bypass'),
    ],
)
async def test_what_does_not_fit_changes_nothing(rig: Rig, key: str, value: str, error: str) -> None:
    async with rig.running():
        before = (await rig.call("set"))["settings"]
        with pytest.raises(ControlRefused, match=error):
            await rig.call("set", key=key, value=value)
        assert (await rig.call("set"))["settings"] == before


async def test_the_mode_can_be_changed_there_and_back(rig: Rig) -> None:
    async with rig.running():
        for mode in ("observe", "bypass", "protect", "protect"):
            assert (await rig.call("set", key="mode", value=mode))["now"] == mode
        await wait_all_tasks_blocked()
        status = await rig.call("status")
    assert (status["mode"], status["protected"], status["epoch"]) == ("protect", True, 2)


async def test_a_backend_that_must_not_serve_a_mode_refuses_it(tmp_path: Path) -> None:
    rig = memory_rig(tmp_path, 'mode = "observe"', 'backend = "null"')
    async with rig.running():
        with pytest.raises(ControlRefused, match=r"not set: \$\.checkpointer"):
            await rig.call("set", key="mode", value="protect")
        assert (await rig.call("set"))["settings"]["mode"] == "observe"


# drain


async def test_a_drain_holds_the_client_until_it_ends(rig: Rig) -> None:
    talk = rig.talk
    async with rig.running():
        await rig.event("CheckpointCommitted")
        await rig.send(rig.client, talk.client.datagram(b"one").data)
        answer = talk.primary.datagram(b"answer")
        await rig.send(rig.primary, answer.data)
        drained = await rig.call("drain", timeout=0.0)
        assert drained == {"draining": True, "empty": False, "held": 1, "backlog": 0}
        assert (await rig.call("status"))["draining"]
        await rig.send(rig.client, talk.client.datagram(b"two").data)
        await rig.send(rig.secondary, talk.secondary.datagram(b"answer").data)
        assert (await rig.call("drain"))["empty"]
        assert (await rig.call("status"))["counters"]["received"]["client"] == 1
        assert await rig.call("drain", action="end") == {
            "draining": False,
            "empty": True,
            "held": 0,
            "backlog": 0,
        }
        status = await rig.call("status")
        assert status["counters"]["received"]["client"] == 2
        assert not status["draining"]


async def test_a_drain_waits_for_what_is_held(rig: Rig) -> None:
    answers = []

    async def drain() -> None:
        answers.append(await ControlMethods(rig.daemon).drain({"timeout": 60.0}))

    async with rig.running(), trio.open_nursery() as nursery:
        await rig.event("CheckpointCommitted")
        await rig.send(rig.primary, rig.talk.primary.datagram(b"answer").data)
        nursery.start_soon(drain)
        await wait_all_tasks_blocked()
        assert rig.daemon.loop.draining
        assert answers == []
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"answer").data)
    assert answers[0]["empty"]


@pytest.mark.parametrize("limit", [-1.0, 601.0])
async def test_a_drain_has_a_sensible_limit(rig: Rig, limit: float) -> None:
    async with rig.running():
        with pytest.raises(ControlRefused, match="timeout must be 0 to 600 seconds"):
            await rig.call("drain", timeout=limit)
        assert not (await rig.call("status"))["draining"]


# events


async def test_the_last_events_and_those_that_come(rig: Rig) -> None:
    seen: list[str] = []
    enough = trio.Event()

    def watch() -> None:
        for event in follow(Path(rig.config.control.socket), "events", {"last": 1, "follow": True}):
            seen.append(event["event"])
            if event["event"] == "CheckpointCommitted" and event["epoch"] == 2:
                return

    async def watcher() -> None:
        await trio.to_thread.run_sync(watch)
        enough.set()

    async with rig.running(), trio.open_nursery() as nursery:
        await rig.event("CheckpointCommitted")
        events = await rig.call("events", last=2)
        assert isinstance(events, list)
        assert [event["event"] for event in events] == ["CheckpointRequested", "CheckpointCommitted"]
        nursery.start_soon(watcher)
        with trio.fail_after(5):
            while not seen:
                await trio.lowlevel.checkpoint()
        await rig.call("checkpoint")
        with trio.fail_after(5):
            await enough.wait()
    assert seen == ["CheckpointCommitted", "CheckpointRequested", "CheckpointCommitted"]
