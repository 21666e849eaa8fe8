import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from colo_compare.core.actions import Event
from colo_compare.core.counters import (
    HANDSHAKE,
    PAYLOAD,
    RESET,
    SIGNED,
    STREAM_END,
    TIMEOUT,
    UNKNOWN_FLOW,
)
from colo_compare.http import Request
from colo_compare.page import LivePage
from colo_compare.page.live import SECURITY
from colo_compare.page.samples import INTERVAL
from tests.rig import Rig


class Visit:
    """A page of a loop on which one datagram has diverged."""

    def __init__(self, rig: Rig, page: LivePage) -> None:
        self.rig = rig
        self.page = page

    async def state(self, query: str = "") -> dict[str, Any]:
        response = await self.page.state(Request("/page/state", "", query))
        assert (response.status, response.content_type) == (200, "application/json")
        state: dict[str, Any] = json.loads(response.body)
        return state

    async def divergence(self, query: str) -> tuple[int, Any]:
        response = await self.page.divergence(Request("/page/divergence", "", query))
        return response.status, json.loads(response.body) if response.status == 200 else response.body


@asynccontextmanager
async def visiting(clock: MockClock) -> AsyncIterator[Visit]:
    rig = Rig(clock)
    async with rig.running():
        await rig.settle()
        await rig.send(rig.client, rig.talk.client.datagram(b"question"))
        await rig.send(rig.primary, rig.talk.primary.datagram(b"mine=1"))
        await rig.send(rig.secondary, rig.talk.primary.datagram(b"mine=2"))
        await rig.jump(rig.settings.datagram_window * 2)
        await rig.settle()
        yield Visit(rig, LivePage(lambda: rig.loop, "scripted", payload=True))


async def test_its_files(mock_clock: MockClock) -> None:
    async with visiting(mock_clock) as visit:
        for path, kind in (("/page", "html"), ("/page/page.css", "css"), ("/page/page.js", "javascript")):
            response = await visit.page.routes()[path](Request(path, ""))
            assert response.status == 200
            assert response.content_type == f"text/{kind}; charset=utf-8"
            assert response.headers == SECURITY
            assert len(response.body) > 1000


def test_nothing_is_loaded_from_elsewhere() -> None:
    (policy,) = [value for name, value in SECURITY if name == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert set(rules.values()) == {"'none'", "'self'", "data:"}


async def test_every_kind_of_event_has_words(mock_clock: MockClock) -> None:
    async with visiting(mock_clock) as visit:
        script = (await visit.page.file(Request("/page/page.js", ""))).body.decode()
    for kind in Event.__subclasses__():
        assert re.search(rf'case "{kind.__name__}":|=== "{kind.__name__}"\) continue', script), kind


async def test_every_reason_of_a_divergence_has_words(mock_clock: MockClock) -> None:
    async with visiting(mock_clock) as visit:
        script = (await visit.page.file(Request("/page/page.js", ""))).body.decode()
    for reason in (PAYLOAD, STREAM_END, RESET, HANDSHAKE, SIGNED, UNKNOWN_FLOW, TIMEOUT):
        assert re.search(rf'^  {reason}: "', script, re.MULTILINE), reason


async def test_the_state_is_that_of_status_and_more(mock_clock: MockClock) -> None:
    async with visiting(mock_clock) as visit:
        state = await visit.state()
        assert state["protected"]
        assert state["ports"]["primary"]["received_frames"] == 1
        assert state["checkpointer"]["backend"] == "scripted"
        assert sum(state["hold"]["counts"]) == state["counters"]["held_releases"] == 1
        assert len(state["hold"]["counts"]) == len(state["hold"]["bounds"]) + 1
        assert state["last_commit"] <= state["time"]


async def test_only_what_is_new(mock_clock: MockClock) -> None:
    async with visiting(mock_clock) as visit:
        first = await visit.state()
        kinds = [event["event"] for event in first["events"]]
        checkpoint = ["CheckpointRequested", "CheckpointCommitted"]
        assert kinds == [*checkpoint, "Divergence", *checkpoint]
        last = first["events"][-1]["number"]
        assert (await visit.state(f"events={last}&samples=0"))["events"] == []
        assert len((await visit.state(f"events={last - 2}"))["events"]) == 2


@pytest.mark.parametrize(
    "query", ["events=x", "events=-1", "events=²", "events=&samples", f"events={'9' * 20}"]
)
async def test_a_strange_question_is_a_first_one(mock_clock: MockClock, query: str) -> None:
    async with visiting(mock_clock) as visit:
        assert len((await visit.state(query))["events"]) == 5


async def test_a_sample_is_taken_each_second(mock_clock: MockClock) -> None:
    async with visiting(mock_clock) as visit, trio.open_nursery() as nursery:
        nursery.start_soon(visit.page.watch)
        await visit.rig.settle()
        for _ in range(2):
            await visit.rig.jump(INTERVAL)
        samples = (await visit.state())["samples"]
        assert [sample["number"] for sample in samples] == [1, 2, 3]
        assert samples[-1]["ports"]["primary"][0] == 1
        assert (await visit.state("samples=2"))["samples"] == samples[2:]
        nursery.cancel_scope.cancel()


async def test_a_divergence_is_explained(mock_clock: MockClock) -> None:
    async with visiting(mock_clock) as visit:
        status, told = await visit.divergence("id=1")
        assert status == 200
        assert (told["id"], told["reason"], told["offset"], told["count"]) == (1, "payload", 5, 1)
        assert told["cause"] == "number"
        assert told["field"] == "mine"
        assert told["service"] in told["flow"]
        assert told["checkpoint"]["outcome"] == "committed"
        for side, said in (("primary", b"mine=1"), ("secondary", b"mine=2")):
            assert bytes.fromhex(told[side]["bytes"]) == said
            assert told[side]["before"] == 5
            assert told[side]["time"] <= told["time"]


async def test_what_was_said_is_told_only_where_it_is_allowed(mock_clock: MockClock) -> None:
    async with visiting(mock_clock) as visit:
        careful = Visit(visit.rig, LivePage(lambda: visit.rig.loop, "scripted", payload=False))
        status, told = await careful.divergence("id=1")
        assert status == 200
        assert set(told["primary"]) == {"time"}
        assert b"6d696e65" not in json.dumps([told, await careful.state()]).encode()


@pytest.mark.parametrize("query", ["id=2", "id=0", "", "id=1x"])
async def test_what_nobody_knows(mock_clock: MockClock, query: str) -> None:
    async with visiting(mock_clock) as visit:
        assert await visit.divergence(query) == (404, b"it is not kept any more\n")


async def test_before_the_ports_are_open() -> None:
    page = LivePage(lambda: None, "null", payload=False)
    state = await page.state(Request("/page/state", ""))
    assert (state.status, state.body) == (503, b"the ports are still being opened\n")
    assert (await page.divergence(Request("/page/divergence", "", "id=1"))).status == 404
    with trio.move_on_after(0.01):
        await page.watch()  # nothing to take a sample of
