from dataclasses import replace
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from trio.testing import MockClock

from colo_compare.build import is_compiled
from colo_compare.core.proxy import Proxy
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.errors import PortClosed
from colo_compare.traffic import UNPROTECTED_BACKLOG
from colo_compare.wire.frame import Frame
from tests.rig import SETTINGS, Rig, hang, seen

OBSERVING = replace(SETTINGS, mode="observe")


# A conversation through all three ports


async def test_a_connection_is_opened_and_answered_once_both_guests_agree(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    client, primary, secondary = rig.talk.client, rig.talk.primary, rig.talk.secondary
    client.isn, primary.isn, secondary.isn = 100, 10_000, 50_000
    rig.talk.view_isn = primary.isn
    async with rig.running():
        assert rig.loop.proxy.protected

        syn = client.syn()
        await rig.send(rig.client, syn)
        assert seen(rig.primary) == [syn.data]
        assert len(seen(rig.secondary)) == 1

        syn_ack = primary.syn_ack(ack=1)
        await rig.send(rig.primary, syn_ack)
        assert seen(rig.client) == []
        await rig.send(rig.secondary, secondary.syn_ack(ack=1))
        assert seen(rig.client) == [syn_ack.data]

        await rig.send(rig.client, client.ack(ack=1))
        answer = primary.data(b"hello", ack=1)
        await rig.send(rig.primary, answer)
        await rig.send(rig.secondary, secondary.data(b"hello", ack=1))
        assert seen(rig.client) == [answer.data]
        assert rig.backend.calls == ["request 1"]  # nothing but the one at the start


async def test_a_divergence_is_held_back_until_the_commit(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        wrong = rig.talk.primary.datagram(b"mine")
        await rig.send(rig.primary, wrong)
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"theirs"))
        await rig.jump(SETTINGS.datagram_window)
        assert rig.backend.calls[-1] == "request 2"
        assert seen(rig.client) == []

        await rig.backend.commit(next(e for e in reversed(rig.loop.events) if hasattr(e, "request")).request)
        await rig.settle()
        assert seen(rig.client) == [wrong.data]
        assert rig.loop.proxy.epoch == 2


async def test_timers_run_when_they_are_due_and_not_before(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        await rig.send(rig.primary, rig.talk.primary.datagram(b"never matched"))
        await rig.jump(SETTINGS.compare_timeout - 0.125)
        assert rig.backend.calls == ["request 1"]
        await rig.jump(0.125)
        assert rig.backend.calls == ["request 1", "request 2"]


async def test_garbage_from_any_side_does_not_stop_the_loop(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        for port in (rig.client, rig.primary, rig.secondary):
            await rig.send(port, b"", b"\0", b"\xff" * 13, b"\x08\x00" * 40, bytes(2000))
        released = await rig.both_say(b"still here")
        assert released[0] in seen(rig.client)
    assert rig.error is None


@pytest.mark.skipif(is_compiled(), reason="no compiled core can be replaced: the plain one stands for both")
async def test_an_error_of_the_core_ends_the_loop(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)

    class Faulty:
        """A core with a bug in `receive`."""

        def __init__(self, proxy: Proxy) -> None:
            self._proxy = proxy

        def receive(self, *_: object) -> None:
            raise ZeroDivisionError("a bug")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._proxy, name)

    async with rig.running():
        rig.loop.proxy = cast("Proxy", Faulty(rig.loop.proxy))
        await rig.send(rig.client, rig.talk.client.datagram(b"hello"))
        assert rig.ended.is_set()
    assert isinstance(rig.error, ZeroDivisionError)


async def test_with_a_mirror_and_a_rewriter_elsewhere_it_only_compares(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, replace(SETTINGS, mirror=False, rewrite=False))
    async with rig.running():
        sent = await rig.both_say(b"answer")
        assert seen(rig.client) == sent
        await rig.send(rig.client, rig.talk.client.datagram(b"not for the proxy to mirror"))
        assert seen(rig.primary) == seen(rig.secondary) == []


# Back-pressure


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from("psc"), st.integers(1, 3)), max_size=40))
async def test_every_released_frame_is_sent_once_and_in_order(
    mock_clock: MockClock, steps: list[tuple[str, int]]
) -> None:
    rig = Rig(mock_clock, capacity=(2, 3, 3))
    said = {"p": 0, "s": 0}
    sent: list[bytes] = []
    got: list[bytes] = []
    async with rig.running():
        for who, count in [*steps, *[("p", 1), ("s", 1), ("c", 1)] * (3 * len(steps))]:
            if who == "c":
                got += seen(rig.client)
            for _ in range(count if who != "c" else 0):
                guest, port = {
                    "p": (rig.talk.primary, rig.primary),
                    "s": (rig.talk.secondary, rig.secondary),
                }[who]
                if said[who] < max(said.values()) or who == "p":
                    packet = guest.datagram(said[who].to_bytes(2))
                    if port.send_batch([Frame(packet.data, 0)]):  # there may be no room just now
                        said[who] += 1
                        sent += [packet.data] if who == "p" else []
            await rig.settle()
            assert rig.ports[PRIMARY].counters.received_frames == (
                rig.loop.proxy.held_frames
                + rig.ports[CLIENT].counters.sent_frames
                + len(rig.loop.client.backlog)
            )
    assert got == sent[: len(got)]
    assert len(got) >= min(said.values()) - 5  # two wait in the port, and at most a batch in the backlog


async def test_a_slow_client_gets_everything_in_order(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, capacity=(4, 4, 4))
    async with rig.running():
        sent = []
        for n in range(6):
            sent += await rig.both_say(bytes([n, 0]), bytes([n, 1]))
        # Four frames fill the client's port. The primary's reader was waiting already when the backlog began,
        # so one batch more came in than the first of the backlog; after that the primary is read no more.
        assert len(rig.loop.client.backlog) == 4
        assert rig.held_back() == {"primary"}
        assert rig.ports[PRIMARY].counters.received_frames == 8

        got = []
        while batch := seen(rig.client):
            got += batch
            await rig.settle()
            assert rig.loop.proxy.held_frames == 0
        assert got == sent
        assert rig.held_back() == set()
        assert rig.ports[PRIMARY].counters.received_frames == 12


@pytest.mark.parametrize("slow", [PRIMARY, SECONDARY])
async def test_a_slow_guest_gets_everything_in_order(mock_clock: MockClock, slow: int) -> None:
    rig = Rig(mock_clock, capacity=(12, 4, 4))
    far, other = (rig.primary, rig.secondary) if slow == PRIMARY else (rig.secondary, rig.primary)
    async with rig.running():
        sent = [rig.talk.client.datagram(bytes([n])).data for n in range(12)]
        for n in range(0, 12, 2):
            await rig.send(rig.client, *sent[n : n + 2])
            seen(other)
        assert rig.held_back() == {"client"}
        assert rig.ports[CLIENT].counters.received_frames == 6

        got = []
        while batch := seen(far):
            got += batch
            await rig.settle()
            seen(other)
        assert got == sent
        assert rig.held_back() == set()


async def test_a_core_without_room_is_not_fed(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, replace(SETTINGS, max_held_frames=2))
    async with rig.running():
        rig.backend.on_request = hang
        await rig.send(rig.primary, *[rig.talk.primary.datagram(bytes([n])) for n in range(2)])
        assert rig.held_back() == {"primary"}
        await rig.send(rig.primary, rig.talk.primary.datagram(b"waits in the port"))
        assert rig.ports[PRIMARY].counters.received_frames == 2
        await rig.send(rig.secondary, *[rig.talk.secondary.datagram(bytes([n])) for n in range(2)])
        assert rig.ports[PRIMARY].counters.received_frames == 3


async def test_a_secondary_that_takes_nothing_is_lost_in_the_end(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, capacity=(2, 2, 2))
    async with rig.running():
        held = rig.talk.primary.datagram(b"held")
        await rig.send(rig.client, *[rig.talk.client.datagram(bytes([n])) for n in range(2)])
        seen(rig.primary)
        await rig.send(rig.client, rig.talk.client.datagram(b"one too many"))
        seen(rig.primary)
        await rig.send(rig.primary, held)
        rig.backend.on_request = hang  # so that nothing else decides before
        await rig.jump(SETTINGS.checkpoint_timeout - 0.125)
        assert rig.loop.links[SECONDARY].role_name == "secondary"
        await rig.jump(0.125)
        assert rig.loop.links[SECONDARY].role_name == "lost"
        assert rig.loop.proxy.mode == "solo"
        assert "taken no frame for 10 s" in rig.loop.links[SECONDARY].failure
        assert seen(rig.client) == [held.data]
        await rig.send(rig.client, rig.talk.client.datagram(b"served"))
        assert len(seen(rig.primary)) == 1


async def test_an_observed_secondary_does_not_delay_the_client(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, OBSERVING, capacity=(UNPROTECTED_BACKLOG, UNPROTECTED_BACKLOG, 0))
    async with rig.running():
        for n in range(3):
            batch = [rig.talk.client.datagram(bytes([n, i % 256])) for i in range(UNPROTECTED_BACKLOG // 2)]
            await rig.send(rig.client, *batch)
            assert len(seen(rig.primary)) == len(batch)
        link = rig.loop.links[SECONDARY]
        assert len(link.backlog) == UNPROTECTED_BACKLOG
        assert link.dropped == UNPROTECTED_BACKLOG // 2


# Stopping


async def test_stop_waits_until_nothing_is_held(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        answer = rig.talk.primary.datagram(b"answer")
        await rig.send(rig.primary, answer)
        rig.loop.stop()
        await rig.send(rig.client, rig.talk.client.datagram(b"too late"))
        assert seen(rig.primary) == []
        assert not rig.ended.is_set()
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"answer"))
        assert rig.ended.is_set()
        assert rig.error is None
        assert seen(rig.client) == [answer.data]


async def test_stop_gives_up_after_the_compare_timeout(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        await rig.send(rig.primary, rig.talk.primary.datagram(b"never matched"))
        rig.loop.stop()
        await rig.jump(SETTINGS.compare_timeout - 0.125)
        assert not rig.ended.is_set()
        await rig.jump(0.125)
        assert rig.ended.is_set()
        assert rig.error is None
        assert seen(rig.client) == []
    assert "left behind are 1 held frames" in caplog.text


async def test_stop_waits_for_the_client_port_too(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, capacity=(2, 2, 2))
    async with rig.running():
        sent = await rig.both_say(b"1", b"2")
        sent += await rig.both_say(b"3")
        rig.loop.stop()
        await rig.settle()
        assert not rig.ended.is_set()
        got = seen(rig.client)
        await rig.settle()
        assert rig.ended.is_set()
        assert got + seen(rig.client) == sent


async def test_a_second_stop_is_at_once(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await rig.send(rig.primary, rig.talk.primary.datagram(b"never matched"))
        rig.loop.stop()
        await rig.settle()
        assert not rig.ended.is_set()
        rig.loop.stop()
        await rig.settle()
        assert rig.ended.is_set()
        assert rig.error is None


async def test_nothing_to_wait_for(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.loop.stop()
        await rig.settle()
        assert rig.ended.is_set()
        assert rig.error is None


# Changes at run time


async def test_new_settings_apply_at_once(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.backend.on_request = hang
        await rig.send(rig.primary, rig.talk.primary.datagram(b"never matched"))
        rig.loop.apply(replace(rig.settings, compare_timeout=1.0))
        await rig.jump(1.0)
        assert rig.backend.calls[-1] == "request 2"
        assert rig.loop.settings.compare_timeout == 1.0


async def test_a_client_port_that_is_gone_is_the_end(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await rig.client.aclose()
        await rig.settle()
        assert rig.ended.is_set()
    assert isinstance(rig.error, PortClosed)
    assert "memory:client is gone" in str(rig.error)
    assert "\n" not in str(rig.error)


async def test_a_port_that_breaks_unseen_is_found_by_the_next_frame_for_it(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, capacity=(2, 1, 2))
    async with rig.running():
        await rig.send(rig.client, *[rig.talk.client.datagram(bytes([n])) for n in range(2)])
        assert rig.held_back() == {"client"}
        await rig.client.aclose()
        await rig.settle()
        assert not rig.ended.is_set()
        await rig.both_say(b"answer")
        assert rig.ended.is_set()
    assert isinstance(rig.error, PortClosed)


async def test_after_an_error_nothing_reaches_the_core(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        # All of these tasks are about to run when the error comes.
        rig.put(rig.primary, rig.talk.primary.datagram(b"answer"))
        rig.put(rig.secondary, rig.talk.secondary.datagram(b"answer"))
        rig.loop.failover.report(rig.loop.links[SECONDARY], "power failure")
        rig.clock.jump(SETTINGS.compare_timeout)
        rig.loop.end(ZeroDivisionError("a bug"))
        await rig.settle()
        assert seen(rig.client) == []
        assert rig.loop.proxy.counters.received == [0, 0, 0]
        assert rig.loop.proxy.mode == "protect"
    assert isinstance(rig.error, ZeroDivisionError)


async def test_a_port_that_breaks_while_it_is_written_to(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, capacity=(2, 2, 2))
    async with rig.running():
        await rig.both_say(b"1", b"2")
        sent = await rig.both_say(b"3")
        assert len(sent) == len(rig.loop.client.backlog) == 1
        await rig.client.aclose()
        await rig.settle()
        assert rig.ended.is_set()
    assert isinstance(rig.error, PortClosed)
