from typing import Any

import pytest
from trio.testing import MockClock

from colo_compare.status import loop_status
from tests.rig import Rig, Scripted, hang


class Talkative(Scripted):
    """A backend with figures of its own."""

    def figures(self) -> dict[str, int | float | str | bool]:
        return {"channels": 4}


async def test_a_protected_pair(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, backend=Talkative())
    async with rig.running():
        await rig.jump(5.0)
        await rig.send(rig.primary, rig.talk.primary.datagram(b"held"))
        await rig.jump(0.5)
        status = loop_status(rig.loop, "talkative")
    assert status["uptime"] == 5.5
    assert (status["protected"], status["why"], status["stopping"]) == (True, "", False)
    assert status["checkpoint"] == {
        "state": "comparing",
        "last": {
            "seconds_ago": 5.5,
            "epoch": 1,
            "reasons": ["startup"],
            "request_to_commit": 0.0,
            "released": 0,
            "discarded": 0,
        },
        "figures": {"pause": 0.004, "bytes": 8192, "pages": 2},
    }
    assert (status["held"]["frames"], status["held"]["oldest"]) == (1, 0.5)
    assert status["checkpointer"] == {
        "backend": "talkative",
        "ready": True,
        "ended": "",
        "figures": {"channels": 4},
    }
    assert [event["seconds_ago"] for event in status["events"]] == [5.5, 5.5]
    assert status["counters"] == rig.loop.proxy.counters.snapshot()


async def test_before_the_first_commit(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    rig.backend.on_request = hang
    async with rig.running():
        status = loop_status(rig.loop, "scripted")
    assert not status["protected"]
    assert status["why"] == "no checkpoint has been committed yet (state: requested)"
    assert (status["checkpoint"]["last"], status["checkpoint"]["figures"]) == ({}, {})


@pytest.mark.parametrize(
    ("mode", "words"), [("observe", "only counts"), ("bypass", "an operator's decision")]
)
async def test_a_mode_that_does_not_protect(mock_clock: MockClock, mode: str, words: str) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.loop.proxy.set_mode(mode, 0.0)
        status = loop_status(rig.loop, "scripted")
    assert (status["protected"], status["mode"]) == (False, mode)
    assert words in status["why"]


async def test_ports_after_a_failover(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, capacity=(2, 2, 2))
    async with rig.running():
        await rig.primary.aclose()
        await rig.settle()
        await rig.send(rig.client, *[rig.talk.client.datagram(bytes([n])) for n in range(2)])
        await rig.send(rig.client, rig.talk.client.datagram(b"one too many"))
        ports: dict[str, dict[str, Any]] = loop_status(rig.loop, "scripted")["ports"]
    assert list(ports) == ["client", "primary", "secondary"]
    dead, alive = ports["primary"], ports["secondary"]
    assert (dead["role"], dead["connected"], dead["failure"]) == (
        "lost",
        False,
        "memory:primary: the other end was closed",
    )
    assert (alive["role"], alive["connected"], alive["failure"]) == ("primary", True, "")
    assert (alive["sent_frames"], alive["backlog"]) == (2, 1)
    assert ports["client"]["held_back"]
