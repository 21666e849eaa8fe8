import pytest
import trio
from trio.testing import MockClock

from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.http import Request
from colo_compare.loop import Loop
from colo_compare.web import Pages
from tests.rig import Rig

ANY = Request("", "")


async def ready(loop: Loop | None) -> tuple[int, bytes]:
    response = await Pages(lambda: loop, "scripted").readyz(ANY)
    return response.status, response.body


def test_the_paths() -> None:
    assert list(Pages(lambda: None, "null").routes()) == ["/metrics", "/healthz", "/readyz"]


async def test_metrics_in_the_format_that_is_asked_for(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        pages = Pages(lambda: rig.loop, "scripted")
        plain = await pages.metrics(Request("/metrics", "*/*"))
        rich = await pages.metrics(
            Request("/metrics", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
        )
    assert plain.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert rich.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    for response in (plain, rich):
        assert response.status == 200
        assert b"\ncolo_protected 1.0\n" in response.body
        assert b"\nprocess_cpu_seconds_total " in response.body
    assert rich.body.endswith(b"\n# EOF\n")


async def test_the_loop_lives_if_it_answers() -> None:
    assert (await Pages(lambda: None, "null").healthz(ANY)).status == 200


async def test_it_is_ready_when_clients_can_be_served(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        assert await ready(rig.loop) == (200, b"ok\n")


async def test_it_is_ready_without_a_secondary(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.loop.failover.report_guest(SECONDARY, "its host is dead")
        await rig.settle()
        assert (await ready(rig.loop))[0] == 200


async def test_a_checkpointer_without_a_pair_need_not_be_ready(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.is_ready = False
        assert (await ready(rig.loop))[0] == 503
        rig.loop.failover.report_guest(SECONDARY, "its host is dead")
        await rig.settle()
        assert (await ready(rig.loop))[0] == 200


async def test_it_is_ready_after_a_failover(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.loop.failover.report_guest(PRIMARY, "its host is dead")
        await rig.settle()
        assert (await ready(rig.loop))[0] == 200


async def test_it_is_not_ready_before_its_ports_are_open() -> None:
    assert await ready(None) == (503, b"the ports are still being opened\n")


@pytest.mark.parametrize("side", ["client", "primary"])
async def test_it_is_not_ready_without_a_port_that_clients_need(mock_clock: MockClock, side: str) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        getattr(rig.loop, side).port.connected = False
        assert await ready(rig.loop) == (503, f"the {side} port is not connected\n".encode())


async def test_it_is_not_ready_without_its_checkpointer(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.is_ready = False
        assert await ready(rig.loop) == (503, b"the checkpointer is not ready\n")
        rig.backend.end.set()
        await rig.settle()
        assert await ready(rig.loop) == (503, b"the checkpointer has ended\n")


async def test_it_is_not_ready_when_it_stops(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await rig.send(rig.primary, rig.talk.primary.datagram(b"held"))
        rig.loop.stop()
        assert await ready(rig.loop) == (503, b"it is stopping\n")
        await trio.lowlevel.checkpoint()
